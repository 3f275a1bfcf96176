"""What a replay says about a request that is not recorded: the nearest one, and each difference."""

from __future__ import annotations

import gc
import json
import pickle
from contextlib import suppress

import msgspec
import pytest

from minillmlib import (
    HttpRequest,
    InvalidParameterError,
    MiniLLMError,
    NotRecordedError,
    Recording,
    StorageError,
)
from minillmlib.recording import differences as differing
from minillmlib.recording import recording as recordings
from minillmlib.recording import store as stores
from minillmlib.testing import ScriptedReply, ScriptedTransport

URL = "https://own.example/v1"
OK = ScriptedReply.json({"ok": True})


def request_of(body: object, **changes) -> HttpRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = HttpRequest(url=URL, headers=(("x-tenant", "t"),), body=data)
    return msgspec.structs.replace(request, **changes)


async def miss(path, recorded: list[HttpRequest], asked: HttpRequest) -> str:
    """The text of the error about a request that is not among the recorded ones."""
    recording = Recording(path, transport=ScriptedTransport([OK] * len(recorded)))
    for request in recorded:
        response = await recording.send(request)
        while await response.read():
            pass
    with pytest.raises(NotRecordedError) as caught:
        await Recording(path, mode="replay").send(asked)
    assert vars(caught.value)["was_sent"] is False
    return str(caught.value)


async def differences(path, recorded: HttpRequest, asked: HttpRequest) -> list[str]:
    text = await miss(path, [recorded], asked)
    lines = text.split("\n  ")
    last, hint = lines.pop().split("\n")
    assert lines[0] == (
        f"{str(path)!r} has no answer for {asked.method} {asked.url}: the nearest request, in "
        "line 2, differs in"
    )
    assert hint == 'to record it, use mode="once" or "new"'
    return [*lines[1:], last]


LONG = "word " * 100
MANY = {f"key{n}": n for n in range(9)}


@pytest.mark.parametrize(
    ("recorded", "asked", "shown"),
    [
        ({"a": 1}, {"a": 2}, ["body.a: recorded 1, now 2"]),
        ({"a": 1}, {}, ["body: recorded nothing, now {}", "body.a: recorded 1, now nothing"]),
        ({"a": []}, {"a": {}}, ["body.a: recorded [], now {}"]),
        ({"a": None}, {"a": False}, ["body.a: recorded None, now False"]),
        ({"a": [1, 2, 3]}, {"a": [1, 5, 3, 4]},
         ["body.a[1]: recorded 2, now 5", "body.a[3]: recorded nothing, now 4"]),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, ["body.a[0].b: recorded 'x', now 'y'"]),
        ({"a": "x"}, {"a": 1}, ["body.a: recorded 'x', now 1"]),
        ({"a": "nothing", "b": 1}, {"b": 2},
         ["body.b: recorded 1, now 2"]),
        ({"a": "same text, longer"}, {"a": "same text"},
         ["body.a: recorded 'same text, longer', now 'same text'"]),
        ({"a": LONG + "x" + LONG}, {"a": LONG + "y" + LONG},
         ["body.a: recorded '\u2026word word word word x"
          "word word word word word word word word\u2026', now "
          "'\u2026word word word word y"
          "word word word word word word word word\u2026'"]),
        ({"a": "0123456789" * 2 + "x"}, {"a": "0123456789" * 2 + "y"},
         ["body.a: recorded '01234567890123456789x', now '01234567890123456789y'"]),
        ({"a": "0123456789" * 2 + "0x"}, {"a": "0123456789" * 2 + "0y"},
         ["body.a: recorded '\u202612345678901234567890x', now '\u202612345678901234567890y'"]),
        ({"a": [9] * 50}, {"a": 7},
         ["body.a: recorded nothing, now 7",
          *(f"body.a[{n}]: recorded 9, now nothing" for n in range(4)), "and 46 more"]),
        ({"a": 10**70}, {"a": 7}, [f"body.a: recorded 1{'0' * 59}\u2026, now 7"]),
        (b"plain", b"plane", ["body: recorded 'plain', now 'plane'"]),
        (b"\xff", b"plane", ["body: recorded '\ufffd', now 'plane'"]),
        ({"a": 1}, b"plane",
         ["body: recorded nothing, now 'plane'", "body.a: recorded 1, now nothing"]),
        (MANY, {name: n + 1 for name, n in MANY.items()},
         [*(f"body.key{n}: recorded {n}, now {n + 1}" for n in range(5)), "and 4 more"]),
        (dict(list(MANY.items())[:5]), dict.fromkeys(list(MANY)[:5], "x"),
         [f"body.key{n}: recorded {n}, now 'x'" for n in range(5)]),
        (dict(list(MANY.items())[:6]), dict.fromkeys(list(MANY)[:6], "x"),
         [*(f"body.key{n}: recorded {n}, now 'x'" for n in range(5)), "and 1 more"]),
    ],
)  # fmt: skip
async def test_each_difference_is_shown_with_its_path(tmp_path, recorded, asked, shown):
    found = await differences(tmp_path / "r", request_of(recorded), request_of(asked))
    assert found == shown


async def test_a_difference_in_the_address_the_method_and_the_headers_is_one(tmp_path):
    asked = request_of({"a": 1}, method="PUT", url=f"{URL}/x", headers=(("x-other", "t"),))
    assert await differences(tmp_path / "r", request_of({"a": 1}), asked) == [
        "the method: recorded 'POST', now 'PUT'",
        "the address: recorded '\u2026tps://own.example/v1', now '\u2026tps://own.example/v1/x'",
        "the header x-other: recorded nothing, now 't'",
        "the header x-tenant: recorded 't', now nothing",
    ]


@pytest.mark.parametrize(
    ("recorded", "asked", "line"),
    [
        ([{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 9, "b": 9}], {"a": 9, "b": 3}, 4),
        ([{"a": 1, "b": 1}, {"a": 1, "b": 2}], {"a": 1, "b": 3}, 2),
        ([{"a": "no such text"}, {"a": "The capital of Italy?"}], {"a": "The capital of France?"}, 3),
        ([{"a": "The capital of Italy?"}, {"a": "no such text"}], {"a": "The capital of France?"}, 2),
        ([{"a": 5}, {"a": "The capital of Italy?"}], {"a": "The capital of France?"}, 3),
        ([{"a": "The capital of Italy?"}, {"a": 5}], {"a": "The capital of France?"}, 2),
        ([{"a": "x" * 200 + "zz"}, {"a": "x" * 199 + "yz"}], {"a": "x" * 200 + "yz"}, 2),
        ([{"a": "x", "b": "hello"}, {"a": "y", "b": "helyx"}], {"a": "z", "b": "helyy"}, 3),
        ([{"b": "hello"}, {"b": "hello", "a": "1"}, {"b": "hello", "c": 2}], {"b": "hello", "c": 3}, 2),
    ],
)  # fmt: skip
async def test_the_nearest_request_differs_least(tmp_path, recorded, asked, line):
    found = await miss(tmp_path / "r", [request_of(each) for each in recorded], request_of(asked))
    assert f"the nearest request, in line {line}, differs in" in found


async def test_so_many_values_of_a_body_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(differing, "MAX_LEAVES", 2)
    recorded, asked = ({"a": [n, n], "b": n, "c": n} for n in (1, 2))
    assert await differences(tmp_path / "r", request_of(recorded), request_of(asked)) == [
        "body.a[0]: recorded 1, now 2", "body.a[1]: recorded 1, now 2",
    ]  # fmt: skip


async def test_so_many_exchanges_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "MAX_COMPARED", 2)
    recorded = [request_of({"a": f"text {n}", "b": n}) for n in range(4)]
    assert "in line 2," in await miss(tmp_path / "r", recorded, request_of({"a": "text 3", "b": 9}))
    monkeypatch.undo()
    assert recordings.MAX_COMPARED == 1000
    assert "in line 5," in await miss(tmp_path / "s", recorded, request_of({"a": "text 3", "b": 9}))


@pytest.mark.parametrize(("count", "words"), [(1, "once"), (2, "2 times"), (3, "3 times")])
async def test_a_request_that_is_asked_once_too_often_is_told_how_often_it_was_recorded(
    tmp_path, count, words
):
    path, request = tmp_path / "r", request_of({"a": 1})
    recording = Recording(path, transport=ScriptedTransport([OK] * 3))
    for _ in range(count):
        response = await recording.send(request)
        assert await response.read()
        assert await response.read() == b""
    replay = Recording(path, mode="replay")
    for _ in range(count):
        await replay.send(request)
    with pytest.raises(NotRecordedError) as caught:
        await replay.send(request)
    assert str(caught.value) == (
        f"{str(path)!r} has no answer for POST {URL}: it was recorded {words}, and is asked once "
        'more\nto record it, use mode="once" or "new"'
    )


async def test_an_empty_file_has_no_nearest_request(tmp_path):
    path = tmp_path / "r"
    Recording(path, mode="new").close()
    with pytest.raises(NotRecordedError) as caught:
        await Recording(path, mode="replay").send(request_of({}))
    assert str(caught.value) == (
        f"{str(path)!r} has no answer for POST {URL}: it has none at all\nto record it, use "
        'mode="once" or "new"'
    )


# The file.


def line_of(started_at: float, body: object, answer: bytes = b"x") -> bytes:
    """A line of an exchange that began at a moment."""
    exchange = {
        "kind": "exchange", "started_at": started_at,
        "request": {"method": "POST", "url": URL, "headers": {"x-tenant": "t"},
                    "body": {"json": body}},
        "status": 200, "body": {"text": answer.decode()}, "pieces": [[0, len(answer)]],
    }  # fmt: skip
    return msgspec.json.encode(exchange) + b"\n"


HEADER = b'{"kind":"minillmlib recording","version":1}\n'


async def answers(recording: Recording, count: int, body: object = None) -> list[bytes]:
    found = []
    for _ in range(count):
        response = await recording.send(request_of({} if body is None else body))
        found.append(await response.read())
    return found


async def test_equal_requests_are_answered_in_the_order_in_which_they_began(tmp_path):
    path = tmp_path / "r"
    lines = [line_of(at, {}, answer) for at, answer in ((3, b"c"), (1, b"a"), (2, b"b"))]
    path.write_bytes(HEADER + b"".join(lines) + HEADER + line_of(4, {}, b"d"))
    assert await answers(Recording(path, mode="replay"), 4) == [b"a", b"b", b"c", b"d"]
    with pytest.raises(NotRecordedError, match="in line 2, differs"):
        await answers(Recording(path, mode="replay"), 1, {"b": 1})


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"precious", 1, "it is no header"),
        (HEADER[:-1], None, ""),
        (HEADER[:20], None, ""),
        (HEADER[:-1] + b"x", 1, "it is no header"),
        (HEADER[:-2] + b"x", 1, "it is no header"),
        (line_of(1, {}), 1, "it is no header"),
        (line_of(1, {})[:-1], 1, "it is no header"),
        (b'{"kind":"minillmlib recording","version":2}\n', 1, "its version is 2, not 1"),
        (HEADER + b'{"kind":"minillmlib recording","version":0}\n', 2, "its version is 0, not 1"),
        (HEADER + b"precious", None, ""),
        (HEADER + line_of(1, {}) + b"{}\n", 3, "Object missing required field `kind`"),
    ],
)
def test_a_file_that_is_no_recording_is_named_with_its_line(tmp_path, content, line, reason):
    path = tmp_path / "r"
    path.write_bytes(content)
    if line is None:
        Recording(path)
    else:
        with pytest.raises(StorageError) as caught:
            Recording(path)
        assert str(caught.value) == (
            f"{str(path)!r}: line {line} is not of a recording ({reason}); mend or remove the "
            "line, or name another file"
        )
    assert path.read_bytes() == content


async def test_what_another_process_appends_or_replaces_is_seen(tmp_path):
    store = stores.RecordingStore(tmp_path / "r")
    store.read_new()
    assert (store.exists, list(store.exchanges())) == (False, [])
    for added, lines in (
        (HEADER, []), (line_of(5, {"a": 1}), [2]), (line_of(4, {"b": 1})[:9], [2]),
        (line_of(4, {"b": 1})[9:], [2, 3]), (HEADER, [2, 3]), (line_of(3, {"a": 1}), [2, 3, 5]),
    ):  # fmt: skip
        with (tmp_path / "r").open("ab") as file:
            file.write(added)
        store.read_new()
        assert [line for line, _ in store.exchanges()] == lines
    assert [exchange.started_at for _, exchange in store.exchanges()] == [5, 4, 3]
    (tmp_path / "s").write_bytes(HEADER + line_of(7, {"c": 1}))
    (tmp_path / "s").rename(tmp_path / "r")
    store.read_new()
    assert [(line, each.started_at) for line, each in store.exchanges()] == [(2, 7)]
    (tmp_path / "r").write_bytes(HEADER)
    store.read_new()
    assert list(store.exchanges()) == []
    (tmp_path / "r").unlink()
    store.read_new()
    assert not store.exists


async def test_a_file_that_was_changed_meanwhile_says_so(tmp_path):
    path = tmp_path / "r"
    path.write_bytes(HEADER + line_of(1, {}))
    replay = Recording(path, mode="replay")
    path.write_bytes(HEADER + line_of(2, {}))
    with pytest.raises(StorageError) as caught:
        await replay.send(request_of({}))
    assert str(caught.value) == f"{str(path)!r} was changed by another program; read it anew"
    path.unlink()
    with pytest.raises(StorageError, match=r"r' cannot be read \(No such file or directory\)$"):
        await Recording.send(replay, request_of({}))


async def test_a_renewal_writes_the_exchanges_in_the_order_in_which_they_began(tmp_path):
    path = tmp_path / "r"
    renewal = Recording(path, mode="new")
    for line in (line_of(3, {}), line_of(1, {"a": 1}), line_of(2, {})):
        renewal._add(stores.decode_record(line))
    renewal.close()
    header, *lines = path.read_bytes().splitlines()
    assert header + b"\n" == HEADER
    found = [
        (line["started_at"], line["request"]["body"]["json"]) for line in map(json.loads, lines)
    ]
    assert found == [(1, {"a": 1}), (2, {}), (3, {})]


async def test_a_file_that_cannot_be_written_says_what_to_do(tmp_path):
    path = tmp_path / "none" / "r"
    error = f"{str(path)!r} cannot be written (No such file or directory); make its folder first"
    with pytest.raises(StorageError) as caught:
        Recording(path, mode="new").close()
    assert str(caught.value) == error
    recording = Recording(path, transport=ScriptedTransport([OK]))
    response = await recording.send(request_of({}))
    assert await response.read()
    with pytest.raises(StorageError) as caught:
        await response.read()
    assert str(caught.value) == error


def test_a_recording_that_is_sent_elsewhere_has_its_settings(tmp_path):
    plain = Recording(tmp_path / "r")
    timed = Recording(tmp_path / "r", transport=ScriptedTransport([OK]), keeps_timing=True)
    for recording, kind, keeps_timing in (
        (plain, type(None), False),
        (timed, ScriptedTransport, True),
    ):
        again = pickle.loads(pickle.dumps(recording))
        assert isinstance(again.inner, kind)
        assert (repr(again), again._keeps_timing) == (repr(recording), keeps_timing)


async def test_a_renewal_that_was_written_or_failed_does_not_warn(tmp_path):
    for is_closed in (True, False):
        renewal = Recording(tmp_path / "r", mode="new", transport=ScriptedTransport([OK]))
        with suppress(ZeroDivisionError), renewal:
            response = await renewal.send(request_of({}))
            while await response.read():
                pass
            _ = 1 / is_closed
        del renewal, response
        gc.collect()


def test_a_recording_says_what_it_is_and_what_it_needs(tmp_path):
    path = tmp_path / "r"
    assert repr(Recording(path)) == f"Recording({str(path)!r}, 'once')"
    with pytest.raises(StorageError) as caught:
        Recording(path, mode="replay")
    assert str(caught.value) == (
        f'{str(path)!r} does not exist, so it cannot be replayed; record it with mode="once"'
    )
    with pytest.raises(InvalidParameterError) as refused:
        Recording(path, mode="all")
    assert str(refused.value) == (
        "the mode of a recording must be 'once', 'replay' or 'new', not 'all'"
    )
    with pytest.raises(MiniLLMError) as folder:
        Recording(tmp_path)
    assert str(folder.value).startswith(f"{str(tmp_path)!r} cannot be read (")
