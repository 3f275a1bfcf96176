"""Logs requests and answers with their bodies, for debugging."""

from __future__ import annotations

from collections.abc import Mapping

from minillmlib.client.observation import Observation, observe
from minillmlib.deferred_imports import logger
from minillmlib.types.events import (
    AttemptEnded,
    AttemptStarted,
    HeadersReceived,
    ObservedEvent,
    Observer,
)
from minillmlib.types.values import check_required_number

INFO = 20  # of logging, whose import takes time


def log_requests(
    level: int = INFO, *, max_chars: int = 10_000, everywhere: bool = True
) -> Observation:
    """Log each request and each answer with headers and body, without their secrets.

    To the logger `minillmlib`, on a line each. For debugging: prompts and answers are in the log
    then. `stop()` on what it returns, or leaving `with`, ends it. What is logged without this
    function has no body at all.

    Args:
        level: The level of the lines, `logging.INFO` by default. Not 0, at which nothing is logged.
        max_chars: Maximum characters of a body; a note says what was cut off.
        everywhere: Whether to log the calls of the whole process, or of this context only.

    Examples:
        >>> import logging, sys
        >>> logging.basicConfig(level=logging.INFO, stream=sys.stdout)
        >>> with log_requests():
        ...     answer = run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini")))
    """
    check_required_number("max_chars", max_chars, minimum=0, is_whole=True)
    check_required_number("level", level, minimum=1, is_whole=True)
    return observe(_RequestLog(level, max_chars), everywhere=everywhere)


class _RequestLog(Observer):
    def __init__(self, level: int, max_chars: int) -> None:
        self._level = level
        self._max_chars = max_chars

    @property
    def wants_content(self) -> bool:  # type: ignore[override] # only while somebody reads it
        return logger().isEnabledFor(self._level)

    def on_event(self, event: ObservedEvent) -> None:
        match event:
            case AttemptStarted():
                self._log(
                    event.id, event.number, f"{event.method} {event.url}", event.headers, event.body
                )
            case HeadersReceived():
                self._log(event.id, event.number, f"status {event.status}", event.headers)
            case AttemptEnded():
                attempt = event.attempt
                what = f"{attempt.outcome.value} after {attempt.elapsed_secs:.3f} s"
                if attempt.error is not None:
                    what += f", {attempt.error}"
                if attempt.cost is not None:
                    what += f", {attempt.cost}"
                self._log(event.id, attempt.number, what, body=event.body)
            case _:
                pass

    def _log(
        self,
        completion: int,
        number: int,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        shown = [what]
        shown += [f"{name}: {value}" for name, value in (headers or {}).items()]
        line = "; ".join(map(_on_one_line, shown))
        text = "" if body is None else f": {self._show(body)}"
        logger().log(self._level, "call %d, attempt %d: %s%s", completion, number, line, text)

    def _show(self, body: bytes) -> str:
        text = body.decode("utf-8", "replace")
        cut = len(text) - self._max_chars
        note = f" [{cut:,} more characters]" if cut > 0 else ""
        return _on_one_line(text[: self._max_chars]) + note


def _on_one_line(text: str) -> str:
    """Write what no terminal and no line of a log should get as escapes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
