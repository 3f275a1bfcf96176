"""Shows how far a run has come: on one line of a terminal, in a notebook, or in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from typing import Any

from minillmlib.bulk.outcome import BulkProgress
from minillmlib.types.budgets import Budget
from minillmlib.types.costs import CostTotal, total_words

PACE_SECS = 30.0  # the time over which the pace is measured
LOG_SECS = 30.0  # between two lines of a log
NOTEBOOK_SECS = 0.5


class ProgressLine:
    """Shows the progress of a run on standard error; pass it as `on_progress`.

    A terminal has one line and a notebook one output, updated in place; anything else, such as a
    log, has a line every half a minute and at the end. It shows what is done, failed and in flight,
    the width, the pace, the cost, and the time that remains.

    Args:
        items: The number of items, if `map_complete` cannot know it.
        budget: The budget of the run, to be shown beside the cost.

    Attributes:
        note: A text before the figures.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini")
        >>> questions = ["The capital of France?", "The capital of Italy?"]
        >>> answers = run(map_complete(questions, generator, on_progress=ProgressLine()).collect())
        >>> len(answers)
        2
    """

    def __init__(self, *, items: int | None = None, budget: Budget | None = None) -> None:
        self.note = ""
        self._items = items
        self._budget = budget
        self._marks: deque[tuple[float, int]] = deque([(0.0, 0)])  # seconds, items until then
        self._shown_at = time.monotonic()
        self._columns = 0  # of the line in the terminal
        self._is_over = False
        self._output: Any = None  # in a notebook

    def __call__(self, progress: BulkProgress) -> None:
        """Show the progress, if it is time to."""
        if self._is_over:
            return
        self._is_over = progress.is_over
        words = " · ".join(filter(None, (self.note, self._words(progress))))
        if sys.stderr.isatty():
            self._write_over(words)
            if progress.is_over:
                sys.stderr.write("\n")
                self._columns = 0
            return
        has_notebook = "ipykernel" in sys.modules
        now = time.monotonic()
        if progress.is_over or now - self._shown_at >= (
            NOTEBOOK_SECS if has_notebook else LOG_SECS
        ):
            self._shown_at = now
            if has_notebook:
                self._show_in_notebook(words)
            else:
                sys.stderr.write(f"{words}\n")

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._columns:
            self._write_over("")
            sys.stderr.write("\r")

    def _write_over(self, words: str) -> None:
        room = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + words[:room].ljust(min(self._columns, room)))
        sys.stderr.flush()
        self._columns = len(words)

    def _show_in_notebook(self, words: str) -> None:
        from IPython.display import display  # type: ignore[import-not-found] # noqa: PLC0415

        content = {"text/plain": words}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)

    def _words(self, progress: BulkProgress) -> str:
        ended = progress.done + progress.failed
        items = self._items if progress.items is None else progress.items
        pace = self._measure(progress.elapsed_secs, ended - progress.from_journal)
        parts = [f"{ended}" if items is None else f"{ended}/{items}"]
        if progress.failed:
            parts.append(f"{progress.failed} failed")
        if not progress.is_over:
            parts.append(f"{progress.in_flight} in flight of {progress.width}")
        if pace:
            parts.append(f"{pace:.1f}/s" if pace >= 1 else f"{60 * pace:.1f}/min")
        parts.append(self._cost_words(progress))
        if items is not None and pace and not progress.is_over:
            parts.append(f"{duration_words((items - ended) / pace)} left")
        return " · ".join(parts)

    def _measure(self, secs: float, count: int) -> float:
        """Return the items a second of late, without those of the journal."""
        self._marks.append((secs, count))
        while len(self._marks) > 2 and secs - self._marks[1][0] >= PACE_SECS:
            self._marks.popleft()
        since, before = self._marks[0]
        return (count - before) / (secs - since) if secs > since else 0.0

    def _cost_words(self, progress: BulkProgress) -> str:
        if self._budget is None:
            return total_words(progress.cost)
        spent, limit = (
            total_words(CostTotal(cost=cost)) for cost in (self._budget.spent, self._budget.limit)
        )
        return f"{spent} of {limit}"


def duration_words(secs: float) -> str:
    """Return a time in its two largest units."""
    whole = round(secs)
    if whole < 60:
        return f"{whole} s"
    minutes, secs = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {secs} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
