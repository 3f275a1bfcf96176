"""The words of all wires for why a model stopped, as one vocabulary."""

from minillmlib.types.responses import FinishReason

__all__ = ["FINISH_REASONS", "parse_finish_reason"]

# The wires read it themselves, with `UNKNOWN` for a miss, which saves a call for each answer.
FINISH_REASONS: dict[str, FinishReason] = {
    "": FinishReason.STOP,
    "stop": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "COMPLETE": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "tool_call": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
    "pause_turn": FinishReason.PAUSE,
    "error": FinishReason.ERROR,
    "insufficient_system_resource": FinishReason.ERROR,
}


def parse_finish_reason(word: str | None) -> FinishReason | None:
    """Return the reason for a wire's word: None for None, `UNKNOWN` for a word not listed."""
    return None if word is None else FINISH_REASONS.get(word, FinishReason.UNKNOWN)
