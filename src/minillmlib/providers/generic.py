"""Any server that speaks the chat-completions wire."""

from collections.abc import Sequence

from minillmlib.json_value import JsonObject
from minillmlib.protocols.chat_completions.dialect import ALL_FIELDS, ChatDialect
from minillmlib.protocols.chat_completions.request import build_body
from minillmlib.protocols.fields import trim_last_turn
from minillmlib.providers.base import Capabilities, Provider, leave_unmarked
from minillmlib.providers.models import claude, openai
from minillmlib.providers.models.claude import Claude
from minillmlib.types.messages import ASSISTANT, Message
from minillmlib.types.parameters import CompletionParameters

_DIALECT = ChatDialect(name="the OpenAI-compatible wire")
_NEW_LIMIT = ChatDialect(
    name=_DIALECT.name, fields={**ALL_FIELDS, "max_tokens": "max_completion_tokens"}
)


def why_no_prefill(model: str) -> str | None:
    """Return why a model behind a gateway does not continue a prefix, or None if it may."""
    return claude.why_no_prefill(model) or openai.why_no_prefill(model)


class GenericProvider(Provider):
    """vLLM, llama.cpp, LM Studio, TGI, Ollama and the like.

    Args:
        legacy_token_limit: The key of the limit on the answer. True is `max_tokens`, which nearly
            all servers know, and False `max_completion_tokens`. None, the default, is
            `max_tokens` unless the model is one of OpenAI's that refuse it.
        marks_prefill: Whether a forced beginning is sent with the keys that make vLLM, SGLang and
            others continue it. False is for a server that continues by itself and refuses unknown
            keys, such as Groq's.
        dialect: The facts of one server in place of these arguments, with the key of its limit.
        capabilities: The abilities of one server in place of `GenericProvider.capabilities`, of
            which they may be a changed copy (`replace`).
    """

    capabilities: Capabilities = Provider.capabilities.replace(
        is_generic=True, why_no_prefill=why_no_prefill
    )

    def __init__(
        self,
        *,
        legacy_token_limit: bool | None = None,
        marks_prefill: bool = True,
        dialect: ChatDialect | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        if dialect is not None:
            legacy_token_limit = dialect.fields.get("max_tokens") != "max_completion_tokens"
        self.legacy_token_limit = legacy_token_limit
        self.marks_prefill = marks_prefill
        if capabilities is not None:
            self.capabilities = capabilities
        if not marks_prefill:
            self.capabilities = self.capabilities.replace(mark_prefill=leave_unmarked)
        self.dialect: ChatDialect = dialect or (
            _NEW_LIMIT if legacy_token_limit is False else _DIALECT
        )

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the body, with the key of the token limit that the server obeys."""
        dialect = self.dialect
        if params.max_tokens is not None and self.legacy_token_limit is None:
            dialect = _NEW_LIMIT if openai.refuses_max_tokens(model) else dialect
        body = build_body(
            dialect, model, messages, params, stream=stream, include_usage=include_usage
        )
        if messages and messages[-1].role is ASSISTANT and Claude.of(model) is not None:
            trim_last_turn(body["messages"])
        return body

    def __repr__(self) -> str:
        facts = f"legacy_token_limit={self.legacy_token_limit}"
        facts += "" if self.marks_prefill else ", marks_prefill=False"
        return f"{type(self).__name__}({facts})"
