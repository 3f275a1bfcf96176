"""OpenAI's own chat-completions API."""

from collections.abc import Sequence

from minillmlib.json_value import JsonObject
from minillmlib.protocols.chat_completions.response import OPENAI_FIELDS, ChatDialect
from minillmlib.providers.base import Provider
from minillmlib.providers.models.openai import check_openai_model, has_no_schemas
from minillmlib.providers.models.token_limits import openai_media_tokens
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat

__all__ = ["OpenAiProvider"]


class OpenAiProvider(Provider):
    """OpenAI, which refuses keys it does not know."""

    dialect = ChatDialect(name="OpenAI", fields=OPENAI_FIELDS)

    def prefill_refusal(self, model: str) -> str | None:
        """None of its models does."""
        del model
        return "OpenAI begins a new answer after an assistant message"

    def schema_refusal(self, model: str, form: ResponseFormat) -> str | None:
        """Its models before gpt-4o of August 2024 know no schemas."""
        del form
        return f"{model} is older than schemas for answers" if has_no_schemas(model) else None

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """The body, once the model is known to take what is asked of it."""
        check_openai_model(model, params)
        return super().build_request(
            model, messages, params, stream=stream, include_usage=include_usage
        )

    def most_media_tokens(self, model: str, part: MediaPart) -> int | None:
        """Of an image, by the model. For sounds and documents no rule is published."""
        return openai_media_tokens(model, part)
