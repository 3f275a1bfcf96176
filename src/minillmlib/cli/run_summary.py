"""Says at the end of a run how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from minillmlib import BulkOutcome, BulkRun
from minillmlib.bulk.outcome import is_final, last_error
from minillmlib.bulk.progress import duration_words
from minillmlib.cli.format import name_options, truncation_notice
from minillmlib.cli.row_files import Row
from minillmlib.json_value import JsonValue
from minillmlib.types.costs import total_words

MAX_CLASSES = 10  # of errors that are listed


class Tally:
    """The counts of a run, and the first failure of each class."""

    def __init__(self) -> None:
        self.answered = self.failed = self._from_journal = self._may_pass = self._final = 0
        self._classes: Counter[str] = Counter()
        self._first: dict[str, str] = {}
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
        if outcome.key:  # what has no key was never asked
            self._final += is_final(outcome.error)
            self._may_pass += not is_final(outcome.error)
        name, place = type(last_error(outcome.error)).__name__, f"line {row.line}: "
        self._classes[name] += 1
        self._first.setdefault(name, place + str(outcome.error).removeprefix(place))

    def lines(self, run: BulkRun[JsonValue], remaining: int) -> Iterator[str]:
        """Yield what is to be said, line by line; `remaining` rows have no outcome."""
        ended = self.answered + self.failed
        parts = [
            f"{ended} of {ended + remaining} rows" if remaining else f"{ended} rows",
            f"{self.answered} answered",
        ]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self._from_journal} from the journal"] if self._from_journal else []
        parts += [total_words(run.total), duration_words(run.progress.elapsed_secs)]
        yield " · ".join(parts)
        if run.earlier.cost or not run.earlier.is_exact:
            yield f"earlier runs: {total_words(run.earlier)}"
        if run.maybe_paid:
            yield (
                f"{run.maybe_paid} requests were in flight when runs were killed, and may have "
                "been billed as well"
            )
        for name, count in self._classes.most_common(MAX_CLASSES):
            yield f"{count} {name}, first on {name_options(self._first[name])}"
        for notice, count in self._notices.most_common(MAX_CLASSES):
            yield f"{count} answered, but {notice}"

    def advice(self, remaining: int) -> Iterator[str]:
        """Yield what another run with the same journal would do."""
        if remaining:
            yield "run the same command again for the rest"
        elif self._may_pass:
            yield f"run the same command again to ask again what may pass ({self._may_pass} rows)"
        if self._final:
            yield f"--retry-failed asks again what failed for good ({self._final} rows)"
