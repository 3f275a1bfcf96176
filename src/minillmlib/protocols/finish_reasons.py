"""The words of all wires for why a model stopped, as one vocabulary."""

from minillmlib.types.responses import FinishReason

_WORDS = {
    FinishReason.STOP: "stop end_turn stop_sequence eos eos_token COMPLETE",
    FinishReason.LENGTH: "length max_tokens model_length model_context_window_exceeded",
    FinishReason.TOOL_CALLS: "tool_calls tool_use tool_call function_call",
    FinishReason.CONTENT_FILTER: "content_filter refusal",
    FinishReason.PAUSE: "pause_turn",
    FinishReason.ERROR: "error insufficient_system_resource",
}
# A miss is `UNKNOWN`.
FINISH_REASONS = {"": FinishReason.STOP} | {
    word: reason for reason, words in _WORDS.items() for word in words.split()
}


def parse_finish_reason(word: str | None) -> FinishReason | None:
    """Return the reason for a wire's word: None for None, `UNKNOWN` for a word not listed."""
    return None if word is None else FINISH_REASONS.get(word, FinishReason.UNKNOWN)
