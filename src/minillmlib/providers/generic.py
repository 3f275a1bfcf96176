"""Any server that speaks the chat-completions wire."""

from minillmlib.protocols.chat_completions.dialect import ALL_FIELDS, ChatDialect
from minillmlib.providers.base import Provider

_DIALECT = ChatDialect(name="the OpenAI-compatible wire")
_LEGACY = ChatDialect(name=_DIALECT.name, fields={**ALL_FIELDS, "max_tokens": "max_tokens"})


class GenericProvider(Provider):
    """vLLM, llama.cpp, LM Studio, TGI, Ollama and the like.

    Args:
        legacy_token_limit: Send `max_tokens`, for servers that do not know
            `max_completion_tokens`.
    """

    capabilities = Provider.capabilities.replace(is_any_server=True)

    def __init__(self, *, legacy_token_limit: bool = False) -> None:
        self.legacy_token_limit = legacy_token_limit
        self.dialect = _LEGACY if legacy_token_limit else _DIALECT

    def __repr__(self) -> str:
        return f"{type(self).__name__}(legacy_token_limit={self.legacy_token_limit})"
