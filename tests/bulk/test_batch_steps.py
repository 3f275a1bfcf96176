"""Each request of a run in batches, with its moment: what is sent when, and what is waited for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from batch_vendors import Anthropic, OpenAi, OpenRouter, Vendor, refuse
from manual_clock import EPOCH
from virtual_clock import run_virtually

from golden import GOLDEN
from minillmlib import (
    ApiError,
    Budget,
    BulkOutcome,
    ChatNode,
    CompletionEnded,
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    Pace,
    RateLimitError,
    ReadError,
    map_complete,
    observe,
)
from minillmlib.bulk import batch as batches
from minillmlib.bulk.batch import BatchQueue
from minillmlib.bulk.batch_parts import Missing, Part, RunProblem, StrangersError
from minillmlib.bulk.journal import (
    DoneRecord,
    FailedRecord,
    Record,
    RunJournal,
    SubmittedRecord,
    SubmittingRecord,
    read_records,
)
from minillmlib.protocols.batches.base import BatchStatus, RowResult
from minillmlib.testing import ScriptedReply

BRIEF = NodeCompletionParameters(params=CompletionParameters(max_tokens=50), retry=1)


class Play:
    """Runs at virtual time, one after the other, with the shortest waits that chance permits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder
        self.lines: list[str] = []
        self.now = 0.0

    def tear_journal(self) -> None:
        """Cut off the end of the last line."""
        path = self.folder / "j"
        path.write_bytes(path.read_bytes()[:-9])

    def run(
        self, vendor: Vendor, items: Any, *, secs: float | None = None, **settings: Any
    ) -> None:
        """Ask, and leave after `secs`; note each request and what became of the items."""
        journal = self.folder / settings.pop("journal", "j")
        start, before = self.now, len(vendor.log)
        known = len(journal.read_bytes().splitlines()) if journal.exists() else 1

        def spread(least: float, most: float) -> float:
            assert (least, most) == (1.0, 1.2)
            return least

        async def main() -> list[str]:
            loop = asyncio.get_running_loop()
            self.monkeypatch.setattr("time.time", lambda: EPOCH + start + loop.time())
            self.monkeypatch.setattr("time.monotonic", lambda: start + loop.time())
            self.monkeypatch.setattr("random.uniform", spread)
            bulk = map_complete(
                items, vendor.generator, BRIEF, journal=journal, key=str, batch=True, ordered=True,
                **settings,
            )  # fmt: skip
            try:
                async with bulk, asyncio.timeout(secs):
                    outcomes = await bulk.collect()
            except TimeoutError:
                return ["left"]
            except MiniLLMError as error:
                return [f"ended by {type(error).__name__}: {error}"]
            finally:
                self.now = start + loop.time()
            return [line for one in outcomes for line in tell(one)]

        try:
            ends = run_virtually(main())
        finally:
            self.monkeypatch.undo()
        for moment, what in list(zip(vendor.times, vendor.log, strict=True))[before:]:
            self.lines.append(f"{round(start + moment, 3):g} {what}")
        self.lines += ends
        for record in list(read_records(journal))[known:]:
            self.lines.append(f"    {told_in_journal(record)}")


def tell(outcome: BulkOutcome[Any]) -> list[str]:
    """A line for an outcome, and one for each of its requests."""
    end = outcome.text or f"{type(outcome.error).__name__}: {outcome.error}"
    return [
        f"{end} ({outcome.cost})",
        *(
            f"  {one.number} at {one.started_at - EPOCH:g}, {one.sent_bytes} bytes to {one.model} of "
            f"{one.generator} at {urlsplit(one.url).path}: {one.status} {one.request_id} "
            f"{one.outcome.value} {one.error} {one.cost}"
            for one in outcome.attempts
        ),
    ]


def told_in_journal(record: Record) -> str:
    match record:
        case SubmittingRecord(sent_at=sent_at, keys=keys, ceilings=ceilings, attempts=attempts):
            tried = [len(one) for one in attempts]
            known = [str(one) for one in ceilings]
            return f"submitting at {sent_at - EPOCH:g}: {keys} {known} {tried} to {record.url}"
        case SubmittedRecord(batch=batch, is_certain=is_certain):
            return f"submitted: {batch} {is_certain}"
        case FailedRecord(key=key, index=index, error=error, is_final=is_final, attempts=attempts):
            return f"failed: {index} {key} {error} {is_final} {len(attempts)}"
        case DoneRecord(key=key, index=index, turns=turns):
            return f"done: {index} {key} {len(turns)}"
    return str(record)


def at(replies: dict[int, Any]) -> Callable[[int, Any], Any]:
    """Disturbs the requests with these numbers."""
    return lambda number, request: replies.get(number)


def status(code: int, headers: dict[str, str] | None = None) -> ScriptedReply:
    plain = ScriptedReply.json(refuse(code, f"status {code}"), status=code)
    return ScriptedReply(pieces=plain.pieces, status=code, headers=headers or {})


HTML = ScriptedReply(pieces=(b"<html>",), headers={"content-type": "text/html"})
KINDS = (OpenAi, Anthropic, OpenRouter)


def plain(play: Play, kind: type[Vendor]) -> None:
    play.run(kind(polls=4), ["a", "b"])


def lost_replies(play: Play, kind: type[Vendor]) -> None:
    faults = {1: "after", 2: "after", 3: "after", 5: status(502), 6: HTML, 7: "before", 8: "read"}
    play.run(kind(fault=at(faults)), ["a", "b"])


def lost_before(play: Play, kind: type[Vendor]) -> None:
    creation = 2 if kind is OpenAi else 1
    play.run(kind(fault=at({creation: "before", creation + 1: HTML})), ["a"])


def fates(play: Play, kind: type[Vendor]) -> None:
    play.run(kind(), ["a", "b!400", "c!500", "d!expired", "e!missing", "f!429,canceled", "g!wrong"])


def gone(play: Play, kind: type[Vendor]) -> None:
    vendor = kind()
    play.run(vendor, ["a", "b"], secs=5)
    vendor.batches.clear()
    play.run(vendor, ["a", "b"])
    play.run(vendor, ["a", "b"], retry_failed=True)


def left_and_resumed(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(polls=3)
    play.run(vendor, ["a", "b"], secs=5)
    play.run(vendor, ["b"], secs=7)
    play.run(vendor, ["new", "b", "a"])


def torn(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(polls=3)
    play.run(vendor, ["a", "b"], secs=5)
    play.tear_journal()
    play.run(vendor, ["a", "b"])


def torn_long_ago(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(polls=3)
    play.run(vendor, ["a"], secs=5)
    play.tear_journal()
    play.now = 4000.0
    play.run(vendor, ["a"])


def torn_and_the_clock_set_back(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(polls=1)
    play.now = 4000.0
    play.run(vendor, ["a"], secs=5)
    play.tear_journal()
    play.now = 3000.0
    play.run(vendor, ["a"])


def left_in_the_second_batch(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(polls=1)
    first, second = Budget(1), Budget(1)
    play.run(vendor, ["a!expired", "b", "c!500"], secs=15, budget=first)
    play.run(vendor, ["a!expired", "b", "d"], budget=second)
    play.lines += [f"spent {one.spent}, reserved {one.reserved}" for one in (first, second)]


def among_older_batches(play: Play, kind: type[Vendor]) -> None:
    creation = 2 if kind is OpenAi else 1
    vendor = kind(polls=1)
    body = {"messages": [{"role": "user", "content": "theirs"}]}
    for age in (5000, 4000, 2000, 950, 850, 100):
        batch = vendor.create([("theirs-0", body), ("theirs-1", body)])
        batch.created_at, batch.polls = EPOCH - age, 1
    vendor.fault = at({creation: "before"})
    play.run(vendor, ["a"])


def never_created(play: Play, kind: type[Vendor]) -> None:
    vendor = kind(fault=lambda number, request: "before" if number < 100 else None)
    play.run(vendor, ["a"], secs=30)
    vendor.fault = at({})
    play.run(vendor, ["a"])


def down(play: Play, kind: type[Vendor]) -> None:
    play.run(OpenAi(fault=lambda number, request: status(500) if number > 2 else None), ["a"])


def slow_down(play: Play, kind: type[Vendor]) -> None:
    waits = {n: status(429, {"retry-after": str(secs)}) for n, secs in ((1, 7), (3, 90), (4, 900))}
    play.run(kind(fault=at(waits)), ["a"])


def budget(play: Play, kind: type[Vendor]) -> None:
    vendor = kind()
    limited = Budget("0.0014")
    play.run(vendor, list("abc"), budget=limited)
    play.lines.append(f"spent {limited.spent}, reserved {limited.reserved}")


def slow_input(play: Play, kind: type[Vendor]) -> None:
    async def items():
        for text, secs in (("a", 30), ("b", 40), ("c", 0.5), ("d", 0)):
            yield text
            await asyncio.sleep(secs)

    play.run(kind(polls=1), items())


def full_pool(play: Play, kind: type[Vendor]) -> None:
    full = [("token_limit_exceeded", "The pool is full.", None)] * 12
    play.run(OpenAi(polls=1, refusals=list(full)), ["a"])


def refused_batch(play: Play, kind: type[Vendor]) -> None:
    play.run(OpenAi(refusals=[("invalid_json_line", "No JSON.", 1)]), ["a", "b"])


def refused_file(play: Play, kind: type[Vendor]) -> None:
    play.run(OpenAi(fault=at({2: status(400)})), ["a"], journal="first")
    play.run(OpenAi(fault=at({2: status(400), 3: status(500)})), ["a"], journal="second")
    play.run(OpenAi(fault=at({1: status(400)})), ["a"], journal="third")


def strangers(play: Play, kind: type[Vendor]) -> None:
    vendor = OpenRouter(polls=1)
    original = vendor.create

    def create(rows: Any, tag: str | None = None) -> Any:
        ours = original(rows, tag)
        for number in range(3):
            names = [f"theirs-{number}-{place}" for place in range(number + 1)]
            theirs = original([(name, rows[0][1]) for name in names])
            theirs.results = [(name, "ok", vendor.answer("theirs")) for name in names]
        vendor.create = original
        return ours

    vendor.create = create
    vendor.fault = at({1: "after"})
    play.run(vendor, ["a", "b"])


def no_results(play: Play, kind: type[Vendor]) -> None:
    play.run(kind(polls=1, fault=at({1: "after"})), ["a!missing", "b!missing"])


def endless_list(play: Play, kind: type[Vendor]) -> None:
    vendor = OpenRouter()
    play.run(vendor, [])
    vendor.fault = at({1: "after"})
    vendor.page = lambda query, after, show: ScriptedReply.json(
        {"data": [{**show(vendor.create([])), "id": f"other_{len(vendor.log)}",
                   "request_counts": {"total": 7}}], "has_more": True}
    )  # fmt: skip
    play.run(vendor, ["a"])
    lists = [line for line in play.lines if line.endswith(" GET /api/v1/batches")]
    play.lines = [f"{len(lists)} lists", *(line for line in play.lines if line not in lists)]


ALONE = (down, full_pool, refused_batch, refused_file, strangers, endless_list)
SCENES = [
    *((scene, kind) for kind in KINDS for scene in (
        plain, lost_replies, lost_before, fates, gone, left_and_resumed, torn, torn_long_ago,
        torn_and_the_clock_set_back, left_in_the_second_batch, among_older_batches, never_created,
        no_results, slow_down, budget, slow_input,
    )),
    *((scene, None) for scene in ALONE),
]  # fmt: skip
STEPS = GOLDEN / "bulk" / "batch_steps.txt"


def name_of(scene: Callable[..., None], kind: type[Vendor] | None) -> str:
    words = scene.__name__.replace("_", " ")
    return words if kind is None else f"{kind.__name__}: {words}"


def expected() -> dict[str, list[str]]:
    """The lines of each scene, below its name."""
    scenes = STEPS.read_text().removesuffix("\n").split("\n\n")
    return {name: lines for name, *lines in (scene.split("\n") for scene in scenes)}


@pytest.mark.parametrize(("scene", "kind"), SCENES, ids=[name_of(*each) for each in SCENES])
def test_the_requests_of_batches_come_at_their_moments(scene, kind, monkeypatch, tmp_path):
    play = Play(monkeypatch, tmp_path)
    scene(play, kind)
    assert play.lines == expected()[name_of(scene, kind)]


def test_each_scene_of_the_file_is_played():
    assert list(expected()) == [name_of(*each) for each in SCENES]


@pytest.mark.parametrize("kind", KINDS)
def test_observers_are_told_how_each_row_ended(kind, monkeypatch, tmp_path):
    ended: list[tuple] = []

    def note(event: Any) -> None:
        if isinstance(event, CompletionEnded):
            tries = [one.number for one in event.attempts]
            ended.append((event.outcome, event.error, event.message, tries, event.finish_reason))

    play = Play(monkeypatch, tmp_path)
    with observe(note, content=True):
        play.run(kind(), ["a", "b!400", "c!expired,expired", "d!expired", "e!missing"])
        play.run(kind(fault=at({1: status(401)})), ["f"], journal="k")
    bad = "the server reported an error with status 400: no 400"
    late = "the batch ended before this request ran"
    found = sorted(ended, key=repr)
    assert found == [
        ("abandoned", None, None, [], None),
        ("answered", None, None, [1, 2], "stop"),
        ("answered", None, None, [1], "stop"),
        ("failed", "BadRequestError", bad, [1], None),
        ("failed", "MalformedResponseError", found[4][2], [1], None),
        ("failed", "ServerTimeoutError", late, [1, 2], None),
    ]
    assert "but its results have none for this request" in found[4][2]


CREATIONS = {
    300: "ended", 307: "ended", 400: "ended", 401: "ended", 403: "ended", 404: "ended",
    408: "looked up", 409: "looked up", 413: "ended", 425: "looked up", 422: "ended",
    429: "sent again", 499: "ended", 500: "looked up", 502: "looked up", 503: "looked up",
    529: "looked up",
}  # fmt: skip


@pytest.mark.parametrize("code", CREATIONS)
def test_a_creation_is_sent_again_looked_for_or_given_up_by_its_status(code, monkeypatch, tmp_path):
    play = Play(monkeypatch, tmp_path)
    play.run(OpenRouter(fault=at({1: status(code)}), polls=1), ["a"])
    seen = [line.split(" ", 1)[1] for line in play.lines]
    first, second, *_ = seen
    assert first == "POST /api/v1/batches"
    how = {"POST /api/v1/batches": "sent again", "GET /api/v1/batches": "looked up"}
    assert how.get(second, "ended") == CREATIONS[code], play.lines
    assert ("A ($0.0001 in 1 attempt)" in play.lines) == (CREATIONS[code] != "ended")


@pytest.mark.parametrize(
    ("count", "error", "secs"),
    [
        (1, None, 10), (2, None, 13), (3, None, 16.9), (4, None, 21.97), (7, None, 48.26809),
        (8, None, 60), (99, None, 60), (10_000, None, 60), (1, ReadError("cut"), 10), (3, ReadError("cut"), 16.9),
        (1, RateLimitError("slow", status=429, retry_after_secs=7), 7),
        (9, RateLimitError("slow", status=429, retry_after_secs=900), 900),
        (9, RateLimitError("slow", status=429), 60),
        (2, ApiError("no", status=500, retry_after_secs=0.0), 13),
    ],
)  # fmt: skip
def test_a_pause_grows_unless_the_server_says_how_long_it_is(count, error, secs):
    assert batches._pause(count, error) == pytest.approx(secs)


@pytest.mark.parametrize("was_sent", [True, False])
@pytest.mark.parametrize(
    ("code", "is_possible"),
    [
        *((code, True) for code in (408, 409, 425)),
        *((code, False) for code in (300, 301, 399, 400, 404, 407, 410, 424, 426, 429, 499)),
        *((code, None) for code in (None, 200, 202, 299, 500, 503, 599)),
    ],
)
def test_a_status_says_whether_a_batch_may_have_been_created(code, is_possible, was_sent):
    error = ReadError("cut") if code is None else ApiError("no", status=code)
    error.was_sent = was_sent
    expected = was_sent if is_possible is None else is_possible
    assert batches._may_have_happened(error) is expected


def test_batches_have_these_bounds():
    assert {name: value for name, value in vars(batches).items() if name.isupper()} == {
        "ZERO": 0, "GATHER_SECS": 60.0, "SETTLE_SECS": 1.0, "FIRST_WAIT_SECS": 10.0,
        "MAX_WAIT_SECS": 60.0, "MAX_SERVER_WAIT_SECS": 600.0, "WAIT_GROWTH": 1.3,
        "MAX_FAILURES": 30, "LOOKUP_SECS": (10.0, 60.0), "CLOCK_SECS": 900.0,
        "CREATION_SECS": 3600.0, "MAX_LOOKUP_PAGES": 50, "FULL_QUEUE_SECS": 60.0, "MAX_READS": 3,
        "UNCERTAIN": (408, 409, 425), "T": batches.T,
    }  # fmt: skip


REFUSALS = {
    "journal": ({"journal": None}, "batches need a journal: they may take a day, and without one "
                "their results would be lost with this process"),
    "tools": ({"tools": [print]}, "tools cannot run in batches, which answer each request once; "
              "the parameters may define tools, whose calls are then the answer"),
    "width": ({"width": 3}, "batches have no width, so none can be set"),
    "pace": ({"params": NodeCompletionParameters(pace=Pace())},
             "batches keep the provider's pace, so none can be set"),
    "deadline": ({"params": NodeCompletionParameters(deadline_secs=5)},
                 "batches cannot keep a deadline: they may take a day"),
    "fallbacks": ({"generator": OpenAi().generator.or_else(OpenAi().generator.replace(model="n"))},
                  "batches have no fallbacks: the answer of one generator is awaited for up to a "
                  "day"),
    "service": ({"generator": GeneratorInfo.custom("t", "https://t.example/v1", "m")},
                "no batches of t are known; OpenAI, Azure, Anthropic and OpenRouter have them"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_what_batches_cannot_have_is_refused_in_these_words(what, tmp_path):
    settings, error = REFUSALS[what]
    settings = {"generator": OpenAi().generator, "journal": tmp_path / "j"} | settings
    with pytest.raises(InvalidParameterError) as caught:
        map_complete(["a"], settings.pop("generator"), batch=True, **settings)
    assert str(caught.value) == error


# Parts.


class Waiting:
    """A row that is somewhere."""

    reservation = None

    def __init__(self, key: str) -> None:
        self.key = key
        self.completion = type("Attempts", (), {"attempts": ()})()


def part_of(count: int) -> Part:
    part = Part()
    part.tag = "tag"
    for place in range(count):
        assert part.add(Waiting(f"key {place}"), b"x" * (place + 1)) == place
    return part


async def test_a_part_counts_its_rows_and_their_bytes():
    part = part_of(3)
    assert (part.count, part.size, part.lines) == (3, 9, [b"x", b"xx", b"xxx"])
    assert [part.custom_id(place) for place in range(2)] == ["tag-0", "tag-1"]
    assert (part.has_all, part.has_any, part.may_be_submitted) == (False, False, False)
    record = part.to_record("https://u", 7.0)
    assert (record.part, record.url, record.sent_at) == ("tag", "https://u", 7.0)
    assert (record.keys, record.ceilings, record.attempts) == (("key 0", "key 1", "key 2"), (), ())
    assert (part.sent_at, part.last_sent_at) == (7.0, 7.0)
    part.batch = SubmittedRecord(part="tag", batch="b")
    assert part.may_be_submitted
    assert re.fullmatch("[0-9a-f]{16}", Part().tag)


@pytest.mark.parametrize(
    "name",
    ["tag-3", "tag-03", "tag--1", "tag-", "tag", "", "gat-0", "tag-0-0", "tag-\u0661", "tag-1.0",
     "tag-" + "1" * 10, "tag-" + "0" * 9 + "1", "TAG-0", "tag-x", "-0"],
)  # fmt: skip
async def test_the_results_of_others_are_strangers(name):
    part = part_of(3)
    part.deliver(RowResult(custom_id=name, status=200))
    assert (part.strangers, part.has_any) == (1, False)


async def test_each_row_gets_its_first_result_whether_it_waits_or_comes_later():
    part = part_of(3)
    waiting = asyncio.ensure_future(part.fate_of(1))
    await asyncio.sleep(0)
    for place in (1, 0):
        for code in (200, 500):
            part.deliver(RowResult(custom_id=f"tag-{place}", status=code))
    assert (await waiting).status == 200
    assert (await part.fate_of(0)).status == 200
    assert (part.has_any, part.has_all, part.strangers, part.over.is_set()) == (
        True, False, 0, False,
    )  # fmt: skip
    last = asyncio.ensure_future(part.fate_of(2))
    gone = asyncio.ensure_future(part.fate_of(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    part.deliver(RowResult(custom_id="tag-2"))
    assert part.has_all
    last.cancel()


async def test_more_strangers_than_rows_end_the_reading():
    part = part_of(2)
    for number in range(2):
        part.deliver(RowResult(custom_id=f"other-{number}"))
    with pytest.raises(StrangersError):
        part.deliver(RowResult(custom_id="other-3"))
    assert part.strangers == 3


async def test_the_other_rows_of_a_part_end_as_it_does():
    part = part_of(3)
    part.deliver(RowResult(custom_id="tag-2", status=201))
    waiting = asyncio.ensure_future(part.fate_of(0))
    await asyncio.sleep(0)
    rest = Missing("ended", 2)
    part.end(rest)
    assert await waiting is rest
    assert await part.fate_of(1) is rest
    assert (await part.fate_of(2)).status == 201
    assert (part.rows, part.lines, part.over.is_set()) == ([], [], True)


async def test_the_rows_of_a_part_that_fails_end_the_run():
    part = part_of(2)
    waiting = asyncio.ensure_future(part.fate_of(0))
    await asyncio.sleep(0)
    problem = ReadError("cut")
    part.fail(problem)
    for fate in (waiting, part.fate_of(1)):
        with pytest.raises(RunProblem, match="^cut$") as caught:
            await fate
        assert caught.value.error is problem
    assert part.over.is_set()


NEAR = {"id": "b", "word": "ended", "has_ended": True, "created_at": 1000.0, "total": 2}


@pytest.mark.parametrize(
    ("kind", "changes", "is_likely"),
    [
        (Anthropic, {}, True), (Anthropic, {"total": None}, True), (Anthropic, {"total": 3}, False),
        (Anthropic, {"created_at": None}, False), (Anthropic, {"created_at": 100.0}, True),
        (Anthropic, {"created_at": 99.9}, False), (Anthropic, {"created_at": 5600.0}, True),
        (Anthropic, {"created_at": 5600.1}, False), (Anthropic, {"id": "known"}, False),
        (Anthropic, {"id": "foreign"}, False), (Anthropic, {"tag": "another"}, True),
        (OpenAi, {"tag": "tag"}, True), (OpenAi, {"tag": "another"}, False), (OpenAi, {}, False),
        (OpenAi, {"tag": "tag", "created_at": None, "total": 9}, True),
        (OpenAi, {"tag": "tag", "id": "known"}, False),
        (OpenAi, {"tag": "tag", "id": "foreign"}, False),
    ],
)  # fmt: skip
async def test_a_batch_is_a_parts_by_its_tag_or_by_its_moment_and_size(
    kind, changes, is_likely, tmp_path
):
    journal = RunJournal(tmp_path / "j", retries_failed=False)
    queue = BatchQueue(kind().generator, BRIEF, journal)
    queue._batches.add("known")
    part = part_of(2)
    part.foreign.add("foreign")
    part.sent_at, part.last_sent_at = 990.0, 1990.0
    status = BatchStatus(**NEAR | changes)
    assert queue._is_likely(status, part, 10.0) is is_likely
    journal.close()


@pytest.mark.parametrize(
    ("spare", "sizes", "is_too_large"),
    [(1, [2, 2], False), (0, [2, 2], False), (-1, [1, 1, 1, 1], False), (None, [1] * 4, False),
     (-1000, [], True)],
)  # fmt: skip
def test_a_batch_has_as_many_bytes_as_the_vendor_permits(spare, sizes, is_too_large, tmp_path):
    api = type(OpenAi.provider.batches)()
    node = ChatNode.root().add_user("a")
    request = node.preview_request(OpenAi().generator, BRIEF)
    line = len(api.encode_row("0" * 16 + "-0", request.body, request.data))
    limit = {None: line, -1000: line - 1}.get(spare, 2 * line + 1 + (spare or 0))
    small = type("Small", (type(api),), {"max_bytes": limit})
    provider = type("Provider", (type(OpenAi.provider),), {"batches": small()})()
    vendor = OpenAi()
    bulk = map_complete(
        list("abcd"), vendor.generator.with_provider(provider), BRIEF, batch=True,
        journal=tmp_path / "j",
    )  # fmt: skip
    outcomes = run_virtually(bulk.collect())
    assert [len(one.rows) for one in vendor.batches.values()] == sizes
    error = f"the request has {line} bytes, and a batch may have {limit}"
    assert {str(one.error) for one in outcomes} == {error if is_too_large else "None"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_takes_two_full_batches_at_once(kind, tmp_path):
    journal = RunJournal(tmp_path / "j", retries_failed=False)
    queue = BatchQueue(kind().generator, BRIEF, journal)
    assert queue.max_rows == 2 * kind.provider.batches.max_rows
    journal.close()
