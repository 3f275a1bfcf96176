"""Says at the end of a run how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from minillmlib import BudgetExceededError, BulkOutcome, BulkRun
from minillmlib.bulk.outcome import STOPPING, is_final, last_error
from minillmlib.bulk.progress import duration_words
from minillmlib.cli.format import name_options, truncation_notice
from minillmlib.cli.row_files import Row
from minillmlib.json_value import JsonValue, plural
from minillmlib.types.costs import total_words

MAX_CLASSES = 10  # of errors that are listed


class Tally:
    """The counts of a run, and the first failure of each class."""

    def __init__(self) -> None:
        self.answered = self.failed = self._from_journal = 0
        self._may_pass = self._final = self._not_asked = 0
        self._classes: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}  # its line, and what is said of it
        self._notices: Counter[str] = Counter()

    def add(self, row: Row, outcome: BulkOutcome[JsonValue]) -> None:
        """Count an outcome."""
        self._from_journal += outcome.is_from_journal
        if outcome.error is None:
            self.answered += 1
            if outcome.node and (notice := truncation_notice(outcome.node.response)):
                self._notices[notice.partition(":")[0]] += 1
            return
        self.failed += 1
        if not outcome.key:
            self._not_asked += 1
        elif is_final(outcome.error):
            self._final += 1
        else:
            self._may_pass += 1
        name, place = type(last_error(outcome.error)).__name__, f"line {row.line}: "
        self._classes[name] += 1
        found = row.line, place + str(outcome.error).removeprefix(place)
        self._first[name] = min(found, self._first.get(name, found))

    def lines(self, run: BulkRun[JsonValue], remaining: int) -> Iterator[str]:
        """Yield what is to be said, line by line; `remaining` rows have no outcome."""
        ended = self.answered + self.failed
        parts = [
            f"{ended} of {count_rows(ended + remaining)}" if remaining else count_rows(ended),
            f"{self.answered} answered",
        ]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self._from_journal} from the journal"] if self._from_journal else []
        parts += [total_words(run.total), duration_words(run.progress.elapsed_secs)]
        yield " · ".join(parts)
        if run.earlier.cost or not run.earlier.is_exact:
            yield f"earlier runs: {total_words(run.earlier)}"
        if run.maybe_paid:
            words = "request was" if run.maybe_paid == 1 else "requests were"
            yield (
                f"{run.maybe_paid} {words} in flight when earlier runs ended, and may have "
                "been billed as well"
            )
        for name, count in self._classes.most_common(MAX_CLASSES):
            yield f"{count} {name}, first on {name_options(self._first[name][1])}"
        for notice, count in self._notices.most_common(MAX_CLASSES):
            yield f"{count} answered, but {notice}"

    def advice(self, remaining: int, ending: BaseException | None) -> Iterator[str]:
        """Yield what to do next; `ending` is the error that ended the run."""
        if self._not_asked:
            yield f"{count_rows(self._not_asked)} could not be asked: correct the input"
        if isinstance(ending, BudgetExceededError):
            yield "run the same command with a larger --budget for the rest"
        elif isinstance(ending, STOPPING):
            yield "correct the cause of the error, and run the same command again for the rest"
        elif remaining:
            yield "run the same command again for the rest"
        elif self._may_pass:
            yield f"run the same command again to retry {count_rows(self._may_pass)}"
        if self._final:
            yield f"{count_rows(self._final)} failed permanently; --retry-failed asks again"


def count_rows(count: int) -> str:
    """Return a count of rows in words."""
    return f"{count} {plural('row', count)}"
