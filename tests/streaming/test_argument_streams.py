"""The arguments of a tool call, field by field, while they stream."""

from __future__ import annotations

import asyncio
import gc
import pickle

import pytest
from live_wires import CHAT, CLAUDE, chat_call, chat_end, stream_of

from minillmlib import (
    ArgumentStream,
    IncompleteStreamError,
    InvalidParameterError,
    JsonRepairError,
    MissingFieldError,
    ReadError,
)

WIRES = pytest.mark.parametrize("wire", [CHAT, CLAUDE], ids=["chat", "claude"])
MODES = pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
CALL = '{"path": "notes.md", "lines": [1, 2], "body": "One, two.\\nThree.", "force": true}'
VALUES = {"path": "notes.md", "lines": [1, 2], "body": "One, two.\nThree.", "force": True}


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def feed_from(stream, args: ArgumentStream, fed: list[str] | None = None) -> None:
    async with stream:
        with args:
            async for chunk in stream:
                for delta in chunk.tool_calls:
                    args.feed(delta.arguments)
                    if fed is not None:
                        fed.append(delta.arguments)
                        await turns()


@WIRES
@MODES
async def test_fields_are_known_while_the_call_still_streams(wire, strict):
    _, call, end, provider = wire
    stream = stream_of([*call(CALL), *end("tool_calls")], provider)
    args, fed, known = ArgumentStream(strict=strict), [], {}

    async def note(name: str) -> None:
        value = await args.field(name).wait()
        known[name] = value, "".join(fed)

    async with asyncio.TaskGroup() as group:
        for name in VALUES:
            group.create_task(note(name))
        await feed_from(stream, args, fed)
    assert [*known] == [*VALUES]
    assert {name: value for name, (value, _) in known.items()} == VALUES
    assert known["path"][1] == '{"path": "notes.md", "lines":'
    assert known["lines"][1] == '{"path": "notes.md", "lines": [1, 2]'
    assert known["body"][1].endswith('"force":')
    assert args.finish() == stream.node.tool_calls[0].arguments_json() == VALUES


@WIRES
async def test_a_string_comes_in_pieces(wire):
    _, call, end, provider = wire
    parts = ['{"body": "On', "e, ", "two", ".\\n", "Th", "", 'ree.", "force"', ": true}"]
    stream = stream_of([*call(parts), *end("tool_calls")], provider)
    args = ArgumentStream()

    async def pieces() -> list[str]:
        return [piece async for piece in args.field("body").delta()]

    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(pieces()), group.create_task(pieces())
        await feed_from(stream, args, [])
    assert first.result() == second.result()
    assert "".join(first.result()) == "One, two.\nThree."
    assert len(first.result()) > 2
    assert await pieces() == ["One, two.\nThree."]  # whoever comes late gets all of it


async def test_a_field_is_known_as_soon_as_what_follows_shows_its_end():
    args = ArgumentStream()
    path = asyncio.create_task(args.field("path").wait())
    deltas = args.field("body").delta()
    args.feed('{"path": "a.md"')
    await turns()
    assert not path.done()
    args.feed(', "body": "One')
    assert await path == "a.md"
    assert await anext(deltas) == "One"
    args.feed(" two ")
    assert await anext(deltas) == " two"
    args.feed("three")
    assert await anext(deltas) == " three"
    body = asyncio.create_task(args.field("body").wait())
    await turns()
    assert not body.done()
    assert args.finish() == {"path": "a.md", "body": "One two three"}
    assert await body == "One two three"
    assert await anext(deltas, None) is None


async def test_any_number_may_wait_before_and_after_and_one_that_is_cancelled_harms_nobody(caplog):
    args = ArgumentStream()
    waiting = [asyncio.create_task(args.field("a").wait()) for _ in range(100)]
    reading = [asyncio.create_task(anext(args.field("a").delta())) for _ in range(100)]
    await turns()
    for task in (*waiting[::2], *reading[::2]):
        task.cancel()
    args.feed('{"a": "x", "b": ')
    waiting[1].cancel()  # between its news and its turn
    await asyncio.gather(*waiting, *reading, return_exceptions=True)
    assert {task.result() for task in (*waiting[3::2], *reading[1::2])} == {"x"}
    assert all(task.cancelled() for task in (*waiting[::2], *reading[::2], waiting[1]))
    assert await args.field("a").wait() == "x"
    assert args.finish() == {"a": "x", "b": None}
    assert caplog.records == []


@MODES
@pytest.mark.parametrize("text", ["", " \n", "{}", "{ }"])
async def test_a_field_that_never_came_is_an_error_that_says_which_came(text, strict):
    args = ArgumentStream(strict=strict)
    waiter = asyncio.create_task(args.field("b").wait())
    await turns()
    args.feed(text)
    assert args.finish() == {}
    with pytest.raises(MissingFieldError, match=r"'b'; it has: none"):
        await waiter
    other = ArgumentStream(strict=strict)
    other.feed('{"a": 1, "c": [2]}')
    other.finish()
    for wait in (other.field("b").wait, lambda: anext(other.field("b").delta())):
        with pytest.raises(MissingFieldError, match="'a', 'c'") as caught:
            await wait()
        assert caught.value.fields == ("a", "c")
    assert isinstance(caught.value, LookupError)
    assert pickle.loads(pickle.dumps(caught.value)).fields == ("a", "c")


async def test_what_is_no_string_has_no_pieces():
    args = ArgumentStream()
    args.feed('{"a": [1, 2], "b": 3, "c": "')
    for name in "ab":
        assert [piece async for piece in args.field(name).delta()] == []
    args.finish()
    assert [piece async for piece in args.field("c").delta()] == []


# What is not JSON.

NOT_JSON = {
    "{'a': 1}": {"a": 1},
    '```json\n{"a": 1}\n```': {"a": 1},
    '{"a": 1} ': {"a": 1},
    '{"a": True, "b": .5,}': {"a": True, "b": 0.5},
    '{"a": "x", "b": "say "hi" to"}': {"a": "x", "b": 'say "hi" to'},
    '{"a": 1}}': {"a": 1},
    '{"a": 1};': {"a": 1},
    '{"a": 1}{"a": 2}': {"a": 1},
    '{}{"a": 1}': {"a": 1},
    '\ufeff{"a": 1}': {"a": 1},
    '"{\\"a\\": 1}"': {"a": 1},
    '{"a": 1e999, "b": "\\ud800"}': {"a": None, "b": "\ufffd"},
    '{"a": "cut o': {"a": "cut o"},
    '{"a": [1, {"b": ': {"a": [1, {"b": None}]},
    "null": {},
}


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_not_json_is_repaired_where_it_is_lenient(text):
    for pieces in (text, [text]):
        args = ArgumentStream()
        for piece in pieces:
            args.feed(piece)
        assert args.finish() == NOT_JSON[text] == args.finish()


@pytest.mark.parametrize("text", [text for text in NOT_JSON if text != '{"a": 1} '])
async def test_what_is_not_json_is_an_error_where_it_is_strict(text):
    for pieces in (text, [text]):
        args = ArgumentStream(strict=True)
        waiter = asyncio.create_task(args.field("z").wait())
        await turns()
        with pytest.raises(JsonRepairError):
            for piece in pieces:
                args.feed(piece)
            args.finish()
        with pytest.raises(JsonRepairError):
            await waiter
        with pytest.raises(JsonRepairError):
            args.finish()


def test_it_fails_strictly_at_the_first_thing_that_is_not_json():
    args = ArgumentStream(strict=True)
    args.feed('{"a": 1, ')
    with pytest.raises(JsonRepairError, match="character 9 .*no quotes"):
        args.feed('b: 2, "c": 3')
    with pytest.raises(InvalidParameterError, match="have ended"):
        args.feed("}")
    for begun in ("[1", "null", "Sure! {", '"{'):
        with pytest.raises(JsonRepairError, match="no JSON object"):
            ArgumentStream(strict=True).feed(begun)
    more = ArgumentStream(strict=True)
    more.feed('{"a": 1} {')
    with pytest.raises(JsonRepairError, match="more than one"):
        more.feed('"b":')


NO_OBJECT = ["[1, 2]", '["a"', "3", '"text"', "true", "No.", "[[1]"]


@MODES
@pytest.mark.parametrize("text", NO_OBJECT)
def test_arguments_that_are_no_object_are_an_error(text, strict):
    with pytest.raises(JsonRepairError), ArgumentStream(strict=strict) as args:
        args.feed(text)


CONTRADICTIONS = {
    "twice": '{"a": 1, "b": 2, "a": 3}',
    "more than one": '{"a": 1} and {"b": 2}',
    "512": '{"a": 1, "b": ' + "[" * 512 + "]" * 512 + "}",
}


@MODES
@pytest.mark.parametrize("word", CONTRADICTIONS)
async def test_what_contradicts_or_cannot_be_read_is_an_error_however_it_is_cut(word, strict):
    text = CONTRADICTIONS[word]
    for pieces in (text, [text]):
        args = ArgumentStream(strict=strict)
        waiter = asyncio.create_task(args.field("z").wait())
        await turns()
        with pytest.raises(JsonRepairError, match=None if strict else word), args:
            for piece in pieces:
                args.feed(piece)
        with pytest.raises(JsonRepairError):
            await waiter


def test_an_object_that_turns_out_to_be_a_thought_contradicts_what_was_told_of_it():
    args = ArgumentStream()
    args.feed('{"a": 1}')
    with pytest.raises(JsonRepairError, match="more than one"):
        args.feed('</think>{"b": 2}')


async def test_empty_values_before_the_object_delay_nothing():
    args = ArgumentStream()
    args.feed('{}[] {"a": "x", "b": ')
    assert await args.field("a").wait() == "x"


def test_a_key_may_come_twice_within_a_value():
    args = ArgumentStream()
    args.feed('{"a": {"x": 1, "x": 2}, "b": 3}')
    assert args.finish() == {"a": {"x": 2}, "b": 3}


def test_an_error_is_short_whatever_the_model_wrote():
    key = "k" * 10_000
    args = ArgumentStream()
    with pytest.raises(JsonRepairError) as caught:
        args.feed(f'{{"{key}": 1, "{key}": 2}}')
    assert len(str(caught.value)) < 500
    many = ArgumentStream()
    many.feed("{" + ", ".join(f'"{number}": 1' for number in range(5000)) + "}")
    many.finish()
    with pytest.raises(MissingFieldError) as missing:
        asyncio.run(many.field("z").wait())
    assert len(str(missing.value)) < 500
    assert len(missing.value.fields) == 5000


# Ends of all kinds.


@WIRES
async def test_arguments_cut_by_the_token_limit_are_repaired_or_an_error(wire):
    _, call, end, provider = wire
    for strict in (False, True):
        stream = stream_of([*call(CALL[:60]), *end("length")], provider)
        args = ArgumentStream(strict=strict)
        body = asyncio.create_task(args.field("body").wait())
        if strict:
            with pytest.raises(JsonRepairError, match="ended within"):
                await feed_from(stream, args)
            with pytest.raises(JsonRepairError):
                await body
        else:
            await feed_from(stream, args)
            assert await body == "One, two.\nTh"


async def test_an_error_of_the_stream_reaches_whoever_waits_and_what_came_is_still_known():
    for kind, reply in ((IncompleteStreamError, {}), (ReadError, {"breaks_off": True})):
        args = ArgumentStream()
        body, lines = args.field("body"), args.field("lines")
        waiter = asyncio.create_task(body.wait())
        deltas = body.delta()
        with pytest.raises(kind):
            await feed_from(stream_of(chat_call([CALL[:50]]), **reply), args)
        with pytest.raises(kind):
            await waiter
        assert await anext(deltas) == "One"
        for waiting in (anext(deltas), body.wait(), args.field("never").wait()):
            with pytest.raises(kind):
                await waiting
        assert await lines.wait() == [1, 2]
        with pytest.raises(kind):
            args.finish()


@pytest.mark.parametrize(
    "error", [RuntimeError("ours"), asyncio.CancelledError(), KeyboardInterrupt()]
)
async def test_whoever_waits_is_told_when_the_reader_leaves_by_any_other_error(error):
    args = ArgumentStream()
    waiter = asyncio.create_task(args.field("a").wait())
    await turns()
    with pytest.raises(type(error)), args:
        raise error
    with pytest.raises(IncompleteStreamError, match="abandoned"):
        await waiter


async def test_an_error_in_a_task_group_is_told_once():
    with pytest.raises(ExceptionGroup) as caught:
        args = ArgumentStream()
        async with asyncio.TaskGroup() as group:
            group.create_task(args.field("body").wait())
            await feed_from(stream_of(chat_call([CALL[:50]])), args)
    assert [type(error) for error in caught.value.exceptions] == [IncompleteStreamError]


async def test_arguments_that_are_dropped_leave_nobody_waiting():
    async def wait(field):
        return await field.wait()

    args = ArgumentStream()
    args.feed('{"a": 1, "b": ')
    field = args.field("b")
    waiter = asyncio.create_task(wait(field))
    reader = asyncio.create_task(anext(field.delta()))
    await turns()
    del args
    gc.collect()
    for task in (waiter, reader):
        with pytest.raises(IncompleteStreamError, match="abandoned"):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_loop_that_was_closed_with_waiters_does_not_harm_the_arguments():
    args = ArgumentStream()
    loop = asyncio.new_event_loop()
    task = loop.create_task(args.field("a").wait())
    loop.run_until_complete(turns())
    loop.close()
    args.feed('{"a": 1}')
    assert args.finish() == {"a": 1}
    assert asyncio.run(args.field("a").wait()) == 1
    task._log_destroy_pending = False


async def test_calls_side_by_side_are_fed_by_their_index():
    calls = [chat_call(CALL, 0), chat_call('{"path": "b"}', 1)]
    mixed = [event for pair in zip(*calls, strict=False) for event in pair]
    rest = calls[0][len(calls[1]) :]
    many: dict[int | None, ArgumentStream] = {}
    async with stream_of([*mixed, *rest, *chat_end("tool_calls")]) as stream:
        async for chunk in stream:
            for delta in chunk.tool_calls:
                many.setdefault(delta.index, ArgumentStream()).feed(delta.arguments)
    assert [args.finish() for args in many.values()] == [VALUES, {"path": "b"}]


def test_what_is_not_text_is_refused():
    args = ArgumentStream()
    for wrong in (None, b"{}", {"a": 1}):
        with pytest.raises(InvalidParameterError, match=r"delta\.arguments"):
            args.feed(wrong)
    with pytest.raises(InvalidParameterError, match="name"):
        args.field(1)
    with pytest.raises(InvalidParameterError, match="exception"):
        args.fail("broken")
    args.feed("{}")
    args.finish()
    with pytest.raises(InvalidParameterError, match="ended"):
        args.feed(" ")
    args.fail(ReadError("late"))
    assert args.finish() == {}


TOLD = [
    (lambda args: args.feed(b"{}"), "feed() takes text such as delta.arguments, not bytes"),
    (lambda args: args.field(1), "the name of a field must be a string, not int"),
    (lambda args: args.fail("broken"), "fail() takes an exception, not str"),
]


@pytest.mark.parametrize(("act", "told"), TOLD)
def test_an_error_says_what_was_given_and_what_is_taken(act, told):
    with pytest.raises(InvalidParameterError) as caught:
        act(ArgumentStream())
    assert str(caught.value) == told


@MODES
async def test_every_end_has_its_words(strict):
    args = ArgumentStream(strict=strict)
    args.feed('{"a": 1, "b": [2]}')
    assert args.finish() == {"a": 1, "b": [2]}
    with pytest.raises(MissingFieldError) as missing:
        await args.field("c").wait()
    assert str(missing.value) == "the call has no argument 'c'; it has: 'a', 'b'"
    with pytest.raises(InvalidParameterError) as ended:
        args.feed("")
    assert str(ended.value) == (
        "the arguments have ended; feed a new ArgumentStream for another call"
    )
    left = ArgumentStream(strict=strict)
    with pytest.raises(KeyError), left:
        raise KeyError
    with pytest.raises(IncompleteStreamError) as abandoned:
        await left.field("a").wait()
    assert str(abandoned.value) == "the arguments were abandoned before their end"
    with pytest.raises(InvalidParameterError, match="have ended"):
        left.feed("{}")
    assert repr(left.field("a")) == "<FieldStream of 'a'>"
    assert left.field("a").name == "a"


async def test_the_first_error_is_the_one_that_counts():
    args = ArgumentStream()
    args.feed('{"a": "one, ')
    first = ReadError("first")
    for error in (first, ReadError("second")):
        args.fail(error)
    for wait in (args.field("b").wait, lambda: anext(args.field("b").delta())):
        with pytest.raises(ReadError) as caught:
            await wait()
        assert caught.value is first
    with pytest.raises(ReadError) as caught:
        args.finish()
    assert caught.value is first


async def test_a_field_that_grows_has_its_last_value_and_one_that_is_left_its_error():
    args = ArgumentStream()
    pieces = args.field("a").delta()
    waiter = asyncio.create_task(anext(pieces))
    await turns()
    args.feed('{"a": "')
    await turns()
    assert not waiter.done()
    args.feed("xy")
    assert await waiter == "xy"
    args.feed('z", "b": "')
    assert [piece async for piece in pieces] == ["z"]
    assert [piece async for piece in args.field("a").delta()] == ["xyz"]
    assert await args.field("a").wait() == "xyz"
    other = args.field("b")
    args.fail(ReadError("gone"))
    with pytest.raises(ReadError, match="gone"):
        await other.wait()
    assert await args.field("a").wait() == "xyz"


async def test_two_fields_may_be_waited_for_by_one_name_each():
    args = ArgumentStream()
    fields = [args.field(name) for name in ("a", "b", "a", "c")]
    waiters = [asyncio.create_task(field.wait()) for field in fields]
    await turns()
    args.feed('{"a": 1, "b": 2, "c": ')
    await turns()
    assert [waiter.done() for waiter in waiters] == [True, True, True, False]
    args.feed("3}")
    args.finish()
    assert await asyncio.gather(*waiters) == [1, 2, 1, 3]
