"""Where a frame begins and ends, to the byte: limits, last events, and what belongs to no event."""

from __future__ import annotations

import pytest

from minillmlib import LimitExceededError, Limits
from minillmlib.streaming.framing import JsonDecoder, choose_decoder, events_of, trim_start
from minillmlib.streaming.sse import SseDecoder, SseEvent, is_whole_event

LIMITS = Limits()
LINE_BYTES = 64  # that a line counts beside its bytes
LARGE = 64 * 1024


def read(data: bytes, size: int | None = None, decoder=None) -> tuple[list[SseEvent], bytes]:
    """The events of a whole body, and what belongs to none."""
    decoder, events = decoder or SseDecoder(), []
    size = size or len(data) or 1
    for start in range(0, len(data), size):
        events += decoder.feed(data[start : start + size])
    events += decoder.finish()
    return events, decoder.unread


# An event, and the bytes it counts: those of its lines, and some for each line.
COUNTED = {
    "one line": (b"data: 12345\n\n", 11 + LINE_BYTES),
    "no blank": (b"data:12345\n\n", 10 + LINE_BYTES),
    "three lines": (b"data: 1\ndata\ndata: 345\n\n", 7 + 4 + 9 + 3 * LINE_BYTES),
    "a name before": (b"event: name\ndata: 1\n\n", 7 + LINE_BYTES),
    "a name amid": (b"data: 1\nevent: name\ndata: 2\n\n", 7 + 11 + 7 + 3 * LINE_BYTES),
    "an id behind": (b"data: 1\nid: 1\n\n", 7 + 5 + 2 * LINE_BYTES),
    "an error": (b"error: 12\n\n", 9 + LINE_BYTES),
    "an error amid": (b"data: 1\nerror: 12\n\n", 7 + 9 + 3 * LINE_BYTES),
    "a comment amid": (b"data: 1\n: long comment\nretry: 1\ndata: 2\n\n", 14 + 2 * LINE_BYTES),
}


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("before", [b"", b"data: x\n\n"])
@pytest.mark.parametrize("name", COUNTED)
def test_an_event_may_be_as_large_as_the_limit_and_no_larger(name, before, size):
    data, count = COUNTED[name]
    (*_, event), _ = read(before + data, size, SseDecoder(count))
    assert event == read(data)[0][0]
    with pytest.raises(LimitExceededError) as caught:
        read(before + data + b"\n", size, decoder := SseDecoder(count - 1))
        decoder.feed(b"")
    assert str(caught.value) == (
        f"the server sends an event of more than {count - 1:,} bytes; raise event_bytes of the "
        "generator's limits if that is right"
    )


def test_events_before_one_that_is_too_large_are_given_first():
    decoder = SseDecoder(100)
    large = b"data: " + b"x" * 50 + b"\n\n"
    events = decoder.feed(b"data: 1\n\n: c\ndata: 2\n\n" + large + b"data: 3\n\n")
    assert events == [SseEvent("1"), SseEvent("2")]
    assert decoder.finish() == []
    for _ in range(2):
        with pytest.raises(LimitExceededError):
            decoder.feed(b"data: 4\n\n")


def test_a_line_may_have_sixteen_mebibytes_unless_the_caller_says_otherwise():
    decoder = SseDecoder()
    assert decoder.feed(b"data: " + b"x" * (16 * 1024 * 1024 - 6)) == []
    with pytest.raises(LimitExceededError, match="more than 16,777,216 bytes"):
        decoder.feed(b"x")


def test_each_line_that_comes_in_pieces_may_be_as_long_as_the_limit():
    decoder = SseDecoder(100)
    for _ in range(3):
        assert decoder.feed(b": ") == []
        assert decoder.feed(b"x" * 98) == []
        assert decoder.feed(b"\n") == []
    for _ in range(3):
        assert decoder.feed(b"data: ") == []
        assert decoder.feed(b"x" * 30) == []
        assert decoder.feed(b"\n\n") == [SseEvent("x" * 30)]
    with pytest.raises(LimitExceededError):
        decoder.feed(b"data: " + b"x" * 95)


@pytest.mark.parametrize("length", [LARGE - 1, LARGE, LARGE + 1, 1024 * 1024 + 1])
@pytest.mark.parametrize(
    ("start", "event"),
    [
        (b"data: ", {}),
        (b"data:", {}),
        (b"id: 7\nevent: n\ndata: ", {"event": "n", "id": "7"}),
        (b"error: ", {"event": "error"}),
    ],
)
def test_a_long_line_is_read_as_a_short_one(start, event, length):
    text = "x" * (length - len(start.split(b"\n")[-1]) - 3) + "\u00e9y"
    data = start + text.encode() + b"\n\n"
    assert read(data)[0] == [SseEvent(text, **event)]
    assert read(data.replace(b"y", b"\xff"), 10_000)[0] == [
        SseEvent(text.replace("y", "\ufffd"), **event)
    ]


ENDS = {
    "nothing": (b"", [], b""),
    "whole": (b"data: 1\n\n", [SseEvent("1")], b""),
    "no blank line": (b"data: {}\n", [SseEvent("{}")], b""),
    "no line end": (b"data: {}", [SseEvent("{}")], b""),
    "an end marker": (b"data: [DONE]", [SseEvent("[DONE]")], b""),
    "a list and blanks": (b"data:  [1] ", [SseEvent(" [1] ")], b""),
    "a name and an id": (b"event: a\nid: 1\ndata: {}", [SseEvent("{}", "a", "1")], b""),
    "an error": (b"event: error\ndata: it broke", [SseEvent("it broke", "error")], b""),
    "an error field": (b"error: it broke", [SseEvent("it broke", "error")], b""),
    "a cut object": (b'data: {"a"', [], b'{"a"\n'),
    "a number": (b"data: 42", [], b"42\n"),
    "a cut one behind a whole one": (b"data: {}\n\ndata: {\xc3\xa9", [SseEvent("{}")],
                                     b"{\xc3\xa9\n"),
    "two lines of text": (b"data: {\ndata: }\n", [SseEvent("{\n}")], b""),
    "two whole lines": (b"data: {}\ndata: []", [SseEvent("{}"), SseEvent("[]")], b""),
    "text": (b"Traceback\nno: such\n\ndata: {}\n\n", [SseEvent("{}")], b"Traceback\nno: such\n"),
    "text behind": (b"data: {}\n\nkey\xff", [SseEvent("{}")], b"key\xff\n"),
    "a comment": (b": c\nretry: 1\nid: 2\nevent: a\n\ndata: {}\n\n", [SseEvent("{}", id="2")], b""),
    "fields that only begin like one": (b"dat: 1\ndatas: 2\n data: 3\n\n", [],
                                        b"dat: 1\ndatas: 2\n data: 3\n"),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_body_completes_an_event_whose_json_is_whole(name, size):
    data, events, unread = ENDS[name]
    assert read(data, size) == (events, unread)


def test_of_what_belongs_to_no_event_lines_are_kept_up_to_a_bound_and_each_whole():
    line = b"x" * 8191
    assert read(line + b"\n" + line + b"\nmore\n")[1] == line + b"\n" + line + b"\n"
    short = b"x" * 8190
    assert read(line + b"\n" + short + b"\nmore\nlost\n")[1] == b"\n".join(
        [line, short, b"more", b""]
    )


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        ("", False), ("[DONE]", True), (" [DONE]\n", True), ("[DONE", False), ("DONE", False),
        ("{}", True), (" {} ", True), ("[1]", True), ("{]", False), ("[}", False), ("{", False),
        ("}{", False), ("42", False), ('"a"', False), ('{"a": 1', False), ('{"a": [}', False),
        ("{1}", False), ("[NaN]", True), ('["\\ud800"]', True), ("[" * 3 + "]" * 3, True),
        ("[" * 150_000 + "]" * 150_000, False),
    ],
)  # fmt: skip
def test_an_event_is_whole_if_it_is_an_object_a_list_or_the_end_marker(data, is_whole):
    assert is_whole_event(data) is is_whole


def test_a_mistake_of_the_server_is_mended_in_short_events_only():
    for blanks, is_whole in ((LARGE - 6, True), (LARGE - 5, False)):
        assert is_whole_event("[NaN" + " " * blanks + "]") is is_whole
    assert is_whole_event("[1" + " " * LARGE + "]")


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (["a", "a", "b", "b", "", "", "a"], "1234567"),
        (["", "", "", "a", "", ""], "123456"),
        (["a", "b", "a", "b", "a", "b"], "123456"),
    ],
)
def test_names_may_change_from_one_event_to_the_next(names, texts):
    events = [
        (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        for name, text in zip(names, texts, strict=True)
    ]
    expected = [SseEvent(text, name or "message") for name, text in zip(names, texts, strict=True)]
    body = "".join(events).encode()
    for size in (1, 13, 1000):
        assert read(b"data: {}\n\n" + body, size)[0] == [SseEvent("{}"), *expected]
        assert read(body, size)[0] == expected


# Which frame it is.

BEGINNINGS = [
    (b"", False, None), (b"\xef", False, None), (b"\xef\xbb", True, None), (b"\xef\xbb\xbf", False, None),
    (b"{", False, "lines"), (b"[", True, "lines"), (b"{}", True, "lines"),
    (b"<html>", False, "document"), (b"<", True, "document"),
    (b"data:", False, "events"), (b"event:x", False, "events"), (b"id: 1", False, "events"),
    (b"retry:", False, "events"), (b"error: x", False, "events"), (b":", False, "events"),
    (b": c", False, "events"),
    (b"d", False, None), (b"data", False, None), (b"even", False, None), (b"i", False, None),
    (b"retr", False, None), (b"err", False, None), (b"error", False, None),
    (b"data ", False, "document"), (b"dates", False, "document"), (b"ids:", False, "document"),
    (b"42", False, "document"), (b"x:", False, "document"), (b"Data:", False, "document"),
    (b"d", True, "events"), (b"42", True, "events"), (b"x", True, "events"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "is_declared", "kind"), BEGINNINGS)
def test_the_frame_of_a_body_is_known_by_its_first_bytes(start, is_declared, kind):
    decoder = choose_decoder(start, LIMITS, is_declared=is_declared)
    if kind is None:
        assert decoder is None
        return
    assert isinstance(decoder, SseDecoder) == (kind == "events")
    if kind != "events":
        decoder.feed(b"{}\n{}\n")
        decoder.finish()
        assert (decoder.document is None) == (kind == "lines")


def test_what_stands_before_a_body_is_a_mark_then_blanks():
    assert trim_start(b"\xef\xbb\xbf \r\n\t{} ") == b"{} "
    assert trim_start(b" \n\xef\xbb\xbf{}") == b"\xef\xbb\xbf{}"
    assert trim_start(b"") == b""


def test_events_have_the_limit_of_the_generator():
    decoder = choose_decoder(b"data:", Limits(event_bytes=100))
    decoder.feed(b"data: " + b"x" * 94)
    with pytest.raises(LimitExceededError, match="100 bytes"):
        decoder.feed(b"x")


# Lines of JSON: the body, its events, the document if it is one, and what is left.
BODIES = {
    "nothing": (b"", [], b"", b""),
    "one line": (b"{}", [], b"{}", b""),
    "one line and its end": (b'{"a": 1}\n', [], b'{"a": 1}\n', b""),
    "one line and blanks": (b'{"a": 1}\n \n\t\n', [], b'{"a": 1}\n \n\t\n', b""),
    "two lines": (b'{"a": 1}\n{"b": 2}', ['{"a": 1}', '{"b": 2}'], None, b""),
    "three lines": (b"{}\n[]\n[1]\n", ["{}", "[]", "[1]"], None, b""),
    "blank lines between": (b"{}\n\n \n[]\r\n", ["{}", "[]"], None, b""),
    "data before each": (b"{}\ndata: []\ndata:[1]", ["{}", "[]", "[1]"], None, b""),
    "a document of many lines": (b'{\n"a": 1\n}\n', [], b'{\n"a": 1\n}\n', b""),
    "a cut first line": (b'{"a":\n{}\n', [], b'{"a":\n{}\n', b""),
    "a cut last line": (b'{}\n[]\n{"a', ["{}", "[]"], None, b'{"a'),
    "a cut second line": (b'{}\n{"\xc3\xa9', ["{}"], None, b'{"\xc3\xa9'),
    "a bad line amid": (b"{}\n{\n[]\n", ["{}", "{", "[]"], None, b""),
    "an end marker": (b"{}\n[DONE]", ["{}", "[DONE]"], None, b""),
    "bad bytes": (b'{"a": "\xff"}\n["\xff"]\n', ['{"a": "\ufffd"}', '["\ufffd"]'], None, b""),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("name", BODIES)
def test_lines_of_json_are_events_if_the_first_is_whole_and_another_follows(name, size):
    body, texts, document, unread = BODIES[name]
    decoder = JsonDecoder(LIMITS)
    events = read(body, size, decoder)[0]
    assert [event.data for event in events] == texts
    assert (decoder.document, decoder.unread) == (document, unread)
    assert decoder.is_stream is (document is None)
    assert all((event.event, event.id) == ("message", "") for event in events)


def test_a_line_is_given_once_another_one_begins_and_from_then_on_at_its_end():
    decoder = JsonDecoder(LIMITS)
    assert decoder.feed(b"{}") == []
    assert decoder.feed(b"\n\n  ") == []
    assert decoder.feed(b"[") == []
    assert decoder.feed(b"1]") == []
    assert decoder.feed(b"\n") == [SseEvent("{}"), SseEvent("[1]")]
    assert decoder.feed(b"[2]\n[3") == [SseEvent("[2]")]
    assert decoder.finish() == []
    assert decoder.unread == b"[3"
    document = JsonDecoder(LIMITS, is_document=True)
    assert read(b"{}\n{}\n", 2, document)[0] == []
    assert document.document == b"{}\n{}\n"


@pytest.mark.parametrize(
    ("pieces", "count", "what"),
    [
        ([b"{", b'"a": 1}'], 8, "a response"),
        ([b"{}\n[]\n[1,2", b"3,4]"], 8, "an event"),
    ],
)
def test_a_document_has_the_limit_of_bodies_and_a_line_that_of_events(pieces, count, what):
    name = {"a response": "body_bytes", "an event": "event_bytes"}[what]
    decoder = JsonDecoder(Limits(**{name: count}))
    for piece in pieces:
        decoder.feed(piece)
    decoder = JsonDecoder(Limits(**{name: count - 1}))
    with pytest.raises(LimitExceededError) as caught:
        for piece in pieces:
            decoder.feed(piece)
    told = f"the server sends {what} of more than {count - 1} bytes; raise {name} of the generator"
    assert str(caught.value) == f"{told}'s limits if that is right"
    with pytest.raises(LimitExceededError):
        decoder.feed(b"")


def test_lines_before_one_that_is_too_long_are_given_first():
    decoder = JsonDecoder(Limits(event_bytes=10))
    assert decoder.feed(b"{}\n[]\n[" + b"1," * 10) == [SseEvent("{}"), SseEvent("[]")]
    for more in (b"", b"1]\n{}\n"):
        with pytest.raises(LimitExceededError):
            decoder.feed(more)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b"", None), (b"{}", None), (b"{}\n", None), (b"{}\n \n", None), (b"{\n}\n", None),
        (b"[]\n[]\n", None), (b"<a>\n<b>", None), (b"data", None), (b"prose", None),
        (b"{}\n{}", ["{}", "{}"]), (b"\xef\xbb\xbf\n{}\n[1", ["{}"]),
        (b"data: 1\n\ndata: {}", ["1", "{}"]), (b": c\n\ndata: 2\n\n", ["2"]),
        (b"data: 1\n\ndata: " + b"x" * 150_000 + b"\n\n", ["1", "x" * 150_000]),
    ],
)  # fmt: skip
def test_a_whole_body_is_events_or_one_document(body, texts):
    found = events_of(body, LIMITS)
    assert (found is None) == (texts is None)
    if found is not None:
        assert [event.data for events in found[0] for event in events] == texts


def test_a_first_line_beyond_the_limit_of_events_makes_a_document():
    assert events_of(b"[1]\n{}", Limits(event_bytes=100)) is None
    assert events_of(b'{"a":1}\n{}', Limits(event_bytes=8)) is not None
    assert events_of(b'{"a":1}\n{}', Limits(event_bytes=7)) is None
