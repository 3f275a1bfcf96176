"""The words of all wires for why a model stopped, as one vocabulary."""

from minillmlib.errors import ServerError
from minillmlib.types.responses import FinishReason

_WORDS = {
    FinishReason.STOP: "stop end_turn stop_sequence eos eos_token COMPLETE",
    # CONTINUATION (Gemini): the model has more to say, for a further request.
    FinishReason.LENGTH: """
        length max_tokens max_output_tokens model_length model_context_window_exceeded
        CONTINUATION
    """,
    FinishReason.TOOL_CALLS: "tool_calls tool_use tool_call function_call",
    FinishReason.CONTENT_FILTER: """
        content_filter refusal sensitive
        SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT
        IMAGE_RECITATION MODEL_ARMOR ESCALATION
        guardrail_intervened content_filtered
    """,  # OpenAI, Anthropic, Z.ai; Gemini; Bedrock
    FinishReason.PAUSE: "pause_turn",
    FinishReason.ERROR: """
        error insufficient_system_resource network_error abort
        MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MALFORMED_RESPONSE
        MISSING_THOUGHT_SIGNATURE NO_IMAGE IMAGE_OTHER PUP_LIMITED_DISABLED
        malformed_model_output malformed_tool_use
    """,  # OpenRouter, DeepSeek, Z.ai, vLLM; Gemini; Bedrock
}
_PREFIXES = ("finishreason", "stopreason")  # FinishReason.STOP, FINISH_REASON_STOP


def _fold(word: str) -> str:
    """Return the word without what gateways change: case, separators, the name of the enum."""
    folded = "".join(char for char in word.lower() if char.isalnum())
    for prefix in _PREFIXES:
        folded = folded.removeprefix(prefix)
    return folded


# The words as most servers write them. A miss is for `parse_finish_reason`.
FINISH_REASONS = {"": FinishReason.STOP} | {
    word: reason for reason, words in _WORDS.items() for word in words.split()
}
# A miss is `UNKNOWN`, and so are Gemini's LANGUAGE, OTHER and FINISH_REASON_UNSPECIFIED.
_REASONS = {_fold(word): reason for reason, words in _WORDS.items() for word in words.split()}


def parse_finish_reason(word: str | None) -> FinishReason | None:
    """Return the reason for a wire's word, in any case and with the name of its enum before it.

    None for None, `UNKNOWN` for a word not listed.
    """
    if word is None:
        return None
    return FINISH_REASONS.get(word) or _REASONS.get(_fold(word), FinishReason.UNKNOWN)


def check_finish_reason(reason: FinishReason | None, word: str | None, partial: str) -> None:
    """Raise `ServerError` if the word says that the server broke the answer off."""
    if reason is FinishReason.ERROR:
        raise ServerError(
            f"the server broke the answer off ({word})", status=200, code=word, partial=partial
        )
