"""OpenAI's own chat-completions API."""

from minillmlib.providers.chat_completions import OPENAI_FIELDS, ChatDialect
from minillmlib.providers.contract import Provider

__all__ = ["OpenAiProvider"]


class OpenAiProvider(Provider):
    """OpenAI, which refuses keys it does not know."""

    prefill_refusal = "OpenAI begins a new answer after an assistant message"
    dialect = ChatDialect(name="OpenAI", fields=OPENAI_FIELDS)
