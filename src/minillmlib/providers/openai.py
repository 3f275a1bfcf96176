"""OpenAI's chat-completions API."""

from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.batches.openai import OpenAiBatches
from minillmlib.protocols.chat_completions.dialect import (
    IMAGE_TYPES,
    OPENAI_FIELDS,
    ChatDialect,
    MessageCapabilities,
)
from minillmlib.providers.base import Billing, Capabilities, Provider
from minillmlib.providers.models import openai as models


def _why_no_prefill(model: str) -> str:
    del model
    return "OpenAI begins a new answer after an assistant message"


class OpenAiProvider(Provider):
    """OpenAI, which refuses keys it does not know."""

    dialect: ChatDialect = ChatDialect(
        name="OpenAI",
        fields=OPENAI_FIELDS,
        messages=MessageCapabilities(images=IMAGE_TYPES),
        reasoning_echo=None,
    )
    capabilities: Capabilities = Provider.capabilities.replace(
        why_no_prefill=_why_no_prefill,
        why_no_schema=models.why_no_schema,
        prompt_cache=models.prompt_cache,
        explain_refusal=models.explain_refusal,
        max_choices=models.max_choices,
    )
    billing: Billing = Provider.billing.replace(max_media_tokens=models.max_media_tokens)
    batches: BatchApi | None = OpenAiBatches("/v1/chat/completions")
