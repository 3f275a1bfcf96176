"""A journal as one HTML page with plots, without a script, that needs no network.

Texts of servers are escaped, and the policy of the page lets the browser use its one style alone.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from minillmlib.bulk.journal import DoneRecord, FailedRecord, SentRecord, attempts_of, read_records
from minillmlib.bulk.progress import duration_words
from minillmlib.errors import StorageError
from minillmlib.files import FilePath, file_name
from minillmlib.json_value import excerpt
from minillmlib.tree.render import escape_html
from minillmlib.types.costs import Attempt, AttemptOutcome, CostInfo, CostTotal, total_words

BINS = 96  # of a plot
PAUSE_SECS = 60.0  # without a request, after which the plots leave time out
WIDTH, HEIGHT = 640, 150  # of a plot
MAX_CLASSES = 20
MAX_TIME = 1e11  # seconds since 1970, and of a request
TEXT_CHARS = 300  # of an error
PERCENTS = (50, 90, 95, 99, 100)
REFUSED = (429, 503, 529)


def run_report(path: FilePath) -> str:
    """Return the page of a journal. Pure ASCII; O(records). Raises `StorageError`."""
    journal = _Journal(path)
    template = Path(__file__).with_name("report.html").read_text("utf-8")
    style = template[template.index("<style>") + 7 : template.index("</style>")]
    parts = {
        "TITLE": escape_html(file_name(path)),
        "STYLE": _digest(style),
        "FACTS": _list_facts(journal),
        "PLOTS": "".join(_plots(journal)),
        "ERRORS": _list_errors(journal),
    }
    page = re.sub(r"%%([A-Z]+)%%", lambda found: parts[found[1]], template)
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _digest(style: str) -> str:
    import hashlib  # noqa: PLC0415 - only for this page

    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


class _Span(NamedTuple):
    """A request in the time of the plots."""

    start: float
    end: float
    attempt: Attempt


class _Journal:
    """The items and requests of a journal."""

    def __init__(self, path: FilePath) -> None:
        self.final: dict[str, DoneRecord | FailedRecord] = {}  # the last record of each item
        self.open = 0  # requests whose end is not recorded
        self.cost = CostTotal()
        self.tokens_in = self.tokens_out = 0
        self.attempts: list[Attempt] = []
        self.item_ends: list[tuple[float, CostTotal]] = []
        sent: Counter[str] = Counter()
        for record in read_records(path):
            if isinstance(record, SentRecord):
                self.open += sent.pop(record.key, 0) if record.turn == 1 else 0
                sent[record.key] += 1
            elif isinstance(record, DoneRecord | FailedRecord):
                sent.pop(record.key, None)
                self.final[record.key] = record
                self._add(attempts_of(record))
        self.open += sent.total()
        self.attempts.sort(key=lambda one: one.started_at)
        self.clock = _Clock(self.attempts)
        self.spans = [
            _Span(self.clock.at(one.started_at), self.clock.at(_end_of(one)), one)
            for one in self.attempts
        ]

    def _add(self, attempts: tuple[Attempt, ...]) -> None:
        for one in attempts:
            if not (0 <= one.started_at <= MAX_TIME and 0 <= one.elapsed_secs <= MAX_TIME):
                raise StorageError("the journal has a request at an impossible time")
        info = CostInfo.of(attempts)
        cost = CostTotal.of([info])
        self.cost += cost
        self.tokens_in += info.prompt_tokens
        self.tokens_out += info.completion_tokens
        self.attempts += attempts
        if attempts:
            self.item_ends.append((_end_of(attempts[-1]), cost))


class _Clock:
    """The time of the plots: seconds since the first request, without long pauses."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._start = attempts[0].started_at if attempts else 0.0
        self._ends = [self._start]  # of each pause
        self._omitted = [0.0]  # seconds, until each of these
        last = self._start
        for one in attempts:
            if one.started_at - last > PAUSE_SECS:
                self._ends.append(one.started_at)
                self._omitted.append(self._omitted[-1] + one.started_at - last)
            last = max(last, _end_of(one))
        self.total = self.at(last)

    @property
    def pauses(self) -> list[tuple[float, float]]:
        """The time of each pause, and how long it was."""
        lengths = (after - before for before, after in pairwise(self._omitted))
        return [(self.at(end), secs) for end, secs in zip(self._ends[1:], lengths, strict=True)]

    def at(self, moment: float) -> float:
        """Return the time of a moment."""
        return moment - self._start - self._omitted[bisect_right(self._ends, moment) - 1]


def _end_of(attempt: Attempt) -> float:
    return attempt.started_at + attempt.elapsed_secs


def _list_facts(journal: _Journal) -> str:
    failed = sum(isinstance(record, FailedRecord) for record in journal.final.values())
    total = len(journal.final)
    requests = len(journal.attempts)
    secs = journal.clock.total
    facts = [
        ("items", f"{total:,}"),
        ("answered", f"{total - failed:,}"),
        ("failed", f"{failed:,}"),
        ("requests", f"{requests:,}"),
        ("time", duration_words(secs)),
        ("answers per second", f"{(total - failed) / secs:.1f}" if secs else "-"),
        ("cost", total_words(journal.cost)),
        ("tokens in", f"{journal.tokens_in:,}"),
        ("tokens out", f"{journal.tokens_out:,}"),
    ]
    if journal.open:
        facts.append(("in flight when a run ended", f"{journal.open:,}"))
    models = Counter(one.model for one in journal.attempts).most_common(3)
    facts += [("model", excerpt(model, 60)) for model, _ in models]
    cells = (f"<div><dt>{name}</dt><dd>{escape_html(value)}</dd></div>" for name, value in facts)
    return f"<dl>{''.join(cells)}</dl>"


def _list_errors(journal: _Journal) -> str:
    """Return the table of errors: a row for each class, with the first text of a failed item."""
    requests = Counter(_name_of(one) for one in journal.attempts if _is_failure(one))
    items: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for record in journal.final.values():
        if isinstance(record, FailedRecord):
            last = record.attempts[-1] if record.attempts else None
            name = record.error if last is None or last.error is None else _name_of(last)
            items[name] += 1
            texts.setdefault(name, record.text)
    classes = sorted({*requests, *items}, key=lambda name: (-items[name], -requests[name], name))
    if not classes:
        return '<p class="muted">No request failed.</p>'
    rows = (
        f"<tr><td>{escape_html(name)}</td><td>{items[name]:,}</td><td>{requests[name]:,}</td>"
        f"<td>{escape_html(excerpt(texts.get(name, ''), TEXT_CHARS))}</td></tr>"
        for name in classes[:MAX_CLASSES]
    )
    head = "<tr><th>error</th><th>failed items</th><th>requests</th><th>first message</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _is_failure(attempt: Attempt) -> bool:
    return attempt.outcome is not AttemptOutcome.ANSWERED


def _name_of(attempt: Attempt) -> str:
    name = attempt.error or attempt.outcome.value
    return name if attempt.status in (None, 200) else f"{name} ({attempt.status})"


def _plots(journal: _Journal) -> Iterator[str]:
    if not journal.spans:
        yield '<p class="muted">Nothing was asked yet.</p>'
        return
    grid = _Grid(journal.clock)
    answered = [one for one in journal.spans if not _is_failure(one.attempt)]
    refused = [one for one in journal.spans if one.attempt.status in REFUSED]
    others = [
        one for one in journal.spans
        if _is_failure(one.attempt) and one.attempt.status not in REFUSED
    ]  # fmt: skip
    yield grid.plot(
        "Throughput",
        "requests ended per second",
        [
            ("answered", "good", grid.rate(one.end for one in answered)),
            ("refused (429, 503, 529)", "warn", grid.rate(one.end for one in refused)),
            ("other failures", "bad", grid.rate(one.end for one in others)),
        ],
        lambda value: f"{value:.3g}",
    )
    yield grid.plot(
        "Width",
        "requests in flight, on average",
        [("in flight", "plain", grid.load(journal.spans))],
        lambda value: f"{value:.3g}",
    )
    if answered:
        yield _latency_plot(grid, answered)
    if journal.cost.cost:
        ends = ((journal.clock.at(end), float(cost.cost)) for end, cost in journal.item_ends)
        yield grid.plot(
            "Cost",
            "known cost, cumulative",
            [("cost", "plain", grid.running_sum(ends))],
            lambda value: total_words(CostTotal(cost=Decimal(f"{value:.3g}"))),
        )


def _latency_plot(grid: _Grid, answered: Sequence[_Span]) -> str:
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for one in answered:
        bins[grid.bin(one.end)].append(one.attempt.elapsed_secs)
    series = [
        (f"p{percent}", look, [percentile(sorted(each), percent) for each in bins])
        for percent, look in ((50, "good"), (95, "warn"))
    ]
    every = sorted(one.attempt.elapsed_secs for one in answered)
    words = ", ".join(
        f"{'max' if percent == 100 else f'p{percent}'} {percentile(every, percent):.3g} s"
        for percent in PERCENTS
    )
    return grid.plot("Latency", f"of answers: {words}", series, lambda value: f"{value:.3g} s")


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that so many percent do not exceed, or None without values."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None


Series = tuple[str, str, Sequence[float | None]]


class _Grid:
    """Equal bins over the time of a run, and plots over them."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._secs = max(clock.total, 0.001) / BINS

    def bin(self, moment: float) -> int:
        """Return the number of the bin of a moment."""
        return min(max(int(moment / self._secs), 0), BINS - 1)

    def rate(self, moments: Iterable[float]) -> list[float]:
        """Return the events a second in each bin."""
        counts = Counter(map(self.bin, moments))
        return [counts[number] / self._secs for number in range(BINS)]

    def load(self, spans: Iterable[_Span]) -> list[float]:
        """Return the average number of spans that are open in each bin. O(spans)."""
        secs, changes = [0.0] * BINS, [0] * (BINS + 1)  # whole bins between the first and the last
        for one in spans:
            first, last = self.bin(one.start), self.bin(one.end)
            if first == last:
                secs[first] += one.end - one.start
                continue
            secs[first] += (first + 1) * self._secs - one.start
            secs[last] += one.end - last * self._secs
            changes[first + 1] += 1
            changes[last] -= 1
        whole, loads = 0, []
        for number in range(BINS):
            whole += changes[number]
            loads.append(whole + secs[number] / self._secs)
        return loads

    def running_sum(self, amounts: Iterable[tuple[float, float]]) -> list[float]:
        """Return the sum of the amounts until the end of each bin."""
        sums = [0.0] * BINS
        for moment, amount in amounts:
            sums[self.bin(moment)] += amount
        for before, number in pairwise(range(BINS)):
            sums[number] += sums[before]
        return sums

    def plot(
        self, title: str, unit: str, series: Sequence[Series], words: Callable[[float], str]
    ) -> str:
        """Return a plot of values for each bin. None is a gap."""
        shown = [one for one in series if any(one[2])]
        top = max((value for _, _, values in shown for value in values if value), default=1.0)
        lines = "".join(
            f'<path class="{look}" d="{_path(values, top)}"><title>{name}</title></path>'
            for name, look, values in shown
        )
        legend = "".join(f'<li class="{look}">{name}</li>' for name, look, _ in shown)
        pauses = "".join(self._pause_lines())
        return (
            f"<figure><figcaption><h2>{title}</h2><p>{unit}</p><ul>{legend}</ul></figcaption>"
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 34}" role="img"><title>{title}: {unit}</title>'
            f'<path class="frame" d="M0 16H{WIDTH}M0 {HEIGHT + 16}H{WIDTH}"/>{pauses}{lines}'
            f'<text x="0" y="12">{words(top)}</text><text x="0" y="{HEIGHT + 31}">0</text>'
            f'<text class="end" x="{WIDTH}" y="{HEIGHT + 31}">'
            f"{duration_words(self._clock.total)}</text></svg></figure>"
        )

    def _pause_lines(self) -> Iterator[str]:
        for moment, secs in self._clock.pauses:
            x = WIDTH * moment / (self._secs * BINS)
            yield (
                f'<path class="pause" d="M{x:.1f} 16V{HEIGHT + 16}">'
                f"<title>a pause of {duration_words(secs)}</title></path>"
            )


def _path(values: Sequence[float | None], top: float) -> str:
    """Return the line through the middles of the bins."""
    parts, is_on = [], False
    for number, value in enumerate(values):
        if value is not None:
            x, y = WIDTH * (number + 0.5) / BINS, 16 + HEIGHT * (1 - value / top)
            parts.append(f"{'L' if is_on else 'M'}{x:.1f} {y:.1f}" + ("" if is_on else "h0"))
        is_on = value is not None
    return "".join(parts)
