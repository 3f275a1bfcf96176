"""What each document and each line of a file becomes, and how what is wrong in one is told."""

from __future__ import annotations

import json

import pytest
from short_answers import said, scripted

from minillmlib import (
    AudioPart,
    ChatNode,
    CompletionResponse,
    DocumentPart,
    ImagePart,
    InvalidParameterError,
    Message,
    StorageError,
    TextPart,
    ToolCall,
    VideoPart,
    run,
)
from minillmlib.tree.file_kinds import FileKind, kind_of
from minillmlib.tree.records import encode_lossy, plain_value
from minillmlib.types.reasoning import Reasoning, ReasoningBlock

# Messages of other programs.

TEXT = {"type": "text", "text": "a"}
CACHED = {"type": "ephemeral"}


def user(content: object, **more: object) -> dict:
    return {"role": "user", "content": content} | more


def assistant(content: object = None, **more: object) -> dict:
    return {"role": "assistant", "content": content} | more


def called(**call: object) -> dict:
    return assistant("", tool_calls=[call])


def call_of(arguments: str, **extra: object) -> Message:
    return Message.assistant("", [ToolCall(id="c", name="f", arguments=arguments, extra=extra)])


FUNCTION = {"name": "f", "arguments": "{}"}

READ = {
    "developer": ({"role": "developer", "content": "a"}, Message.system("a")),
    "system": ({"role": "system", "content": "a"}, Message.system("a")),
    "an empty text": (assistant("", refusal=""), Message.assistant("")),
    "no content": ({"role": "assistant"}, Message.assistant("")),
    "a refusal instead of a text": (assistant("", refusal="No."), Message.assistant("No.")),
    "two parts": (user([TEXT, {"type": "text", "text": "b"}]), Message.user([TextPart("a"), TextPart("b")])),
    "a refusal as a part": (assistant([TEXT, {"type": "refusal", "refusal": "No."}]),
                            Message.assistant([TextPart("a"), TextPart("No.")])),
    "an image": (user([{"type": "image_url", "image_url": {"url": "https://h/i"}}]),
                 Message.user([ImagePart(url="https://h/i")])),
    "an image with its detail": (
        user([{"type": "image_url", "image_url": {"url": "https://h/i", "detail": "high"}}]),
        Message.user([ImagePart(url="https://h/i", detail="high")])),
    "an image of data": (
        user([{"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlh"}}]),
        Message.user([ImagePart(data=b"GIF89a", media_type="image/gif")])),
    "a sound": (user([{"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}}]),
                Message.user([AudioPart(data=b"hi", media_type="audio/mp3")])),
    "a film": (user([{"type": "video_url", "video_url": {"url": "https://h/v"}}]),
               Message.user([VideoPart(url="https://h/v")])),
    "a file without a name": (user([{"type": "file", "file": {"file_data": "https://h/d"}}]),
                              Message.user([DocumentPart(url="https://h/d")])),
    "a breakpoint": (user([TEXT | {"cache_control": CACHED}]),
                     Message(role="user", content=[TextPart("a")], cache_ttl="5m")),
    "a breakpoint of an hour": (user([TEXT, TEXT | {"cache_control": CACHED | {"ttl": "1h"}}]),
                                Message(role="user", content=[TextPart("a")] * 2, cache_ttl="1h")),
    "a breakpoint of five minutes": (user([TEXT | {"cache_control": CACHED | {"ttl": "5m"}}]),
                                     Message(role="user", content=[TextPart("a")], cache_ttl="5m")),
    "a breakpoint without a time": (user([TEXT | {"cache_control": CACHED | {"ttl": None}}]),
                                    Message(role="user", content=[TextPart("a")], cache_ttl="5m")),
    "a call": (called(id="c", type="function", function=FUNCTION), call_of("{}")),
    "a call without a type": (called(id="c", function=FUNCTION), call_of("{}")),
    "a call with an empty type": (called(id="c", type="", function=FUNCTION, index=3), call_of("{}")),
    "a call with an object as arguments": (
        called(id="c", function={"name": "f", "arguments": {"a": [1]}}), call_of('{"a":[1]}')),
    "a call with more": (called(id="c", function=FUNCTION | {"p": 1}, q=2), call_of("{}", q=2, function={"p": 1})),
    "a custom call": (called(id="c", type="custom", custom={"name": "f", "input": "x"}),
                      call_of("x", type="custom")),
    "a custom call with more": (
        called(id="c", type="custom", index=3, custom={"name": "f", "input": "x", "p": 1}, q=2),
        call_of("x", type="custom", q=2, custom={"p": 1})),
    "a result": ({"role": "tool", "content": "r", "tool_call_id": "c", "name": "f", "is_error": False},
                 Message.tool_result("c", "r")),
    "a result that is an error": ({"role": "tool", "content": "r", "tool_call_id": "c", "is_error": True},
                                  Message.tool_result("c", "r", is_error=True)),
    "a thought": (assistant("a", reasoning="hm"),
                  Message.assistant("a", reasoning=Reasoning(text="hm", key="reasoning"))),
    "a thought twice": (assistant("a", reasoning="hm", reasoning_content="ah"),
                        Message.assistant("a", reasoning=Reasoning(text="ah", key="reasoning_content"))),
    "an empty thought": (assistant("a", reasoning="", reasoning_content=None, reasoning_details=[]),
                         Message.assistant("a")),
    "blocks of thought": (
        assistant("a", thinking_blocks=[{"type": "x"}, {"type": "y"}]),
        Message.assistant("a", reasoning=Reasoning(
            blocks=(ReasoningBlock(fields={"type": "x"}), ReasoningBlock(fields={"type": "y"})),
            key="thinking_blocks"))),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_message_of_another_program_is_read_whole(name):
    dumped, message = READ[name]
    assert ChatNode.from_messages([dumped])[1].message == message
    for document in (
        [dumped],
        {"prompts": [dumped]},
        {"prompts": [dumped], "required_kwargs": None},
    ):
        assert ChatNode.from_thread_json(json.dumps(document))[1].message == message


LONG = "x" * 100
CUT = "x" * 59
WRONG = {
    "no object": (5, "message 1 is an int"),
    "another role": ({"role": "root", "content": "a"}, "message 1.role is 'root'"),
    "a role of another kind": ({"role": ["user"], "content": "a"}, "message 1.role is ['user']"),
    "a long role": ({"role": LONG, "content": "a"}, f"message 1.role is '{CUT}\u2026"),
    "a number as content": (user(5), "message 1.content is 5"),
    "an object as content": (user({"a": 1}), "message 1.content is {'a': 1}"),
    "a part that is none": (user([TEXT, 5]), "message 1.content[1] is not a part of a message: 5"),
    "a part without a type": (user([{"text": "a"}]),
                              "message 1.content[0] is not a part of a message: {'text': 'a'}"),
    "a part of another type": (
        user([TEXT, {"type": "film"}]),
        "message 1.content[1] is neither text nor a known kind of media: {'type': 'film'}"),
    "a text that is none": (
        user([{"type": "text", "text": 5}]),
        "message 1.content[0] is neither text nor a known kind of media: {'type': 'text', 'text': 5}"),
    "a part with more": (user([TEXT | {"more": 1}]),
                         "message 1.content[0] has what is not known here: more"),
    "an image with more": (
        user([{"type": "image_url", "image_url": {"url": "https://h/i", "b": 1, "a": 2}}]),
        "message 1.content[0].image_url has what is not known here: a, b"),
    "a breakpoint that is not at the end": (
        user([TEXT | {"cache_control": CACHED}, TEXT]),
        "message 1.content[0] has what is not known here: cache_control"),
    "a breakpoint with more": (
        user([TEXT | {"cache_control": CACHED | {"scope": "x"}}]),
        "message 1.content[0] has what is not known here: cache_control"),
    "calls that are no list": (assistant("", tool_calls={"a": 1}),
                               "message 1.tool_calls is no list but {'a': 1}"),
    "a second call that is none": (
        assistant("", tool_calls=[{"id": "c", "function": FUNCTION}, {"id": "d"}]),
        "message 1.tool_calls[1] is no call: {'id': 'd'}"),
    "a call of another type": (
        called(id="c", type="x", function=FUNCTION),
        "message 1.tool_calls[0] is no call: {'id': 'c', 'type': 'x', 'function': {'name': 'f', "
        "'argument\u2026"),
    "a flag that is none": (
        {"role": "tool", "content": "a", "tool_call_id": "c", "is_error": "yes"},
        "message 1.is_error is 'yes'"),
    "more members": (user("a", b=1, a="x", c=None, d=[], e={}, f="", g=False, h=0),
                     "message 1 has what is not known here: a, b, h"),
    "a name of a user": (user("a", name="x"), "message 1 has what is not known here: name"),
    "a thought of a user": (user("a", reasoning="x"), "message 1 has what is not known here: reasoning"),
    "a refusal beside a text": (assistant("a", refusal="No."),
                                "message 1 has what is not known here: refusal"),
    "a thought that is none": (assistant("a", reasoning=["x"]),
                               "message 1 has reasoning that cannot be read: "),
    "a result of no call": ({"role": "tool", "content": "a"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_message_is_named_with_its_place(name):
    wrong, told = WRONG[name]
    with pytest.raises(InvalidParameterError) as caught:
        ChatNode.from_messages([user("a"), wrong])
    if name == "no object":
        assert str(caught.value).endswith(f"; {told}")
        told = "message 1 is no message but 5"
    elif told is None:
        assert str(caught.value).startswith("message 1: ")
        told = str(caught.value)
    elif told.endswith(": "):  # and what msgspec says
        assert str(caught.value).startswith(told)
        told = str(caught.value)
    else:
        assert str(caught.value) == told
    for document, place in (
        ([user("a"), wrong], "the list"),
        ({"prompts": [user("a"), wrong]}, "prompts"),
    ):
        with pytest.raises(StorageError) as of_file:
            ChatNode.from_thread_json(json.dumps(document))
        assert str(of_file.value) == told.replace("message 1", f"{place}[1]", 1)


DOCUMENTS = {
    "[]": "it holds no message",
    '{"prompts": []}': "it holds no message",
    '{"prompts": "a"}': "prompts is no list but 'a'",
    '{"prompts": [], "b": 1, "a": 2}': "the document has what is not known here: a, b",
    '{"kind": "minillmlib thread", "version": 7, "messages": []}': "it is of version 7, this library "
    "reads 1",
    '{"kind": "minillmlib thread", "version": 1, "messages": []}': "it holds no message",
    '[{"kind":"minillmlib tree","version":1}]': "it is a tree file; load it with ChatNode.load_tree",
    '{"conversations": []}': "it is ShareGPT training data, which cannot be loaded again",
    "<!doctype html>": "it is a web page; load the file that the page was made from",
    "{": "it is no conversation: Input data was truncated",
}  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_that_is_no_conversation_is_told_for_what_it_is(document, tmp_path):
    for given in (document, document.encode(), "\ufeff" + document):
        with pytest.raises(StorageError) as caught:
            ChatNode.from_thread_json(given)
        assert str(caught.value) == DOCUMENTS[document]
    path = tmp_path / "thread"
    path.write_text(document)
    with pytest.raises(StorageError) as caught:
        ChatNode.from_thread_file(path)
    assert str(caught.value) == f"{str(path)!r}: {DOCUMENTS[document]}"


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ('[{"kind":"minillmlib tree"', FileKind.TREE),
        ('\ufeff \r\n[ { "kind" : "minillmlib tree"', FileKind.TREE),
        ('{"kind":"minillmlib thread"', FileKind.THREAD),
        ('\n{ "kind" : "minillmlib thread"', FileKind.THREAD),
        ('{"prompts":', FileKind.THREAD),
        ('{ "required_kwargs" :', FileKind.THREAD),
        ('[{"role":', FileKind.THREAD),
        (' [ { "content" :', FileKind.THREAD),
        ('{"id": 1, "conversations":', FileKind.TRAINING_DATA),
        ('{"conversations" :', FileKind.TRAINING_DATA),
        ("<!DOCTYPE html>", FileKind.PAGE),
        ("<HTML>", FileKind.PAGE),
        ('{"id": {"conversations":', None),
        ('{"id": 1\n"conversations":', None),
        ('[{"kind":"other"', None),
        ('{"kind":"minillmlib tree"', None),
        ('x{"prompts":', None),
        ("", None),
        (" " * 299 + "<html", None),
        (" " * 295 + "<html", FileKind.PAGE),
        (" " * 296 + "<html", None),
    ],
)
def test_the_kind_of_a_document_is_known_by_its_beginning(document, kind):
    assert kind_of(document) is kind
    if "\ufeff" not in document:
        assert kind_of(document.encode()) is kind
        assert kind_of(bytearray(document.encode())) is kind
    assert kind_of(5) is None
    assert kind_of(b"\xff" + document.encode()) is None


# Values.


HUGE = 10**5000


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


@pytest.mark.parametrize(
    "value",
    ["", "a\u00e9\0", 0, -1, 2**64, -(2**63), 0.5, -0.0, 1e308, True, False, None, Text("x"),
     Whole(7), Real(0.25)],
)  # fmt: skip
def test_a_value_that_json_can_carry_is_kept_as_a_plain_one(value):
    plain = plain_value("it", value)
    assert plain == value
    assert type(plain) in (str, int, float, bool, type(None))
    assert isinstance(value, type(plain))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\ud800", HUGE, [], {}, b"a", (), 1j, object],
    ids=lambda value: "huge" if value == HUGE else ascii(value),
)
def test_a_value_that_json_cannot_carry_is_refused_by_its_name(value):
    with pytest.raises(InvalidParameterError) as caught:
        plain_value("it", value)
    shown = "(a number too long to show)" if value == HUGE else repr(value)
    assert str(caught.value) == (f"it must be a text or a number that JSON can carry, not {shown}")


def test_what_cannot_be_written_is_named():
    assert (
        encode_lossy({"a": ["\ud800", 1], "\udfff": None})
        == b'{"a":["\xef\xbf\xbd",1],"\xef\xbf\xbd":null}'
    )
    assert encode_lossy("a\u00e9") == b'"a\xc3\xa9"'
    with pytest.raises(InvalidParameterError) as caught:
        encode_lossy(object())
    assert str(caught.value) == (
        "an object cannot be written as JSON (Encoding objects of type object is unsupported)"
    )


# Lines of trees.

HEADER = '[{"kind":"minillmlib tree","version":1}]\n'
ROOT = ChatNode.root("s")
LEAF = ROOT.add_user("u")


def line(record: str, **more: object) -> str:
    return json.dumps([{"kind": record, **more}], separators=(",", ":")) + "\n"


S = line("node", id=ROOT.id, message={"role": "system", "content": "s"})
U = line("node", id=LEAF.id, parent=ROOT.id, message={"role": "user", "content": "u"})
OTHER = ChatNode.root("other")
O = line("node", id=OTHER.id, message={"role": "system", "content": "other"})  # noqa: E741
NOBODY = "0" * 32

LINES = {
    "another version": (HEADER.replace(":1}", ":2}"), 1, "it is of version 2, this library reads version 1"),
    "a node before the header": (S, 1, "a tree file begins with its version"),
    "a second conversation": (HEADER + S + O, 3, "it is of another conversation"),
    "a parent behind it": (HEADER + S + U.replace(ROOT.id, NOBODY), 3,
                           f"its parent {NOBODY} is not before it"),
    "a changed text": (HEADER + S + U.replace('"u"', '"v"'), 3,
                       "it was changed after it was written, or is damaged"),
    "a note on no node": (HEADER + S + line("notes", node=NOBODY, values={}), 3,
                          f"the node {NOBODY} is not before it"),
    "a mark of another time": (HEADER + S + line("mark", node=ROOT.id, ttl="1d"), 3,
                               "Invalid enum value '1d'"),
    "another record": (HEADER + S + line("film"), 3, "Invalid value 'film'"),
    "an unknown member": (HEADER + S + line("mark", node=ROOT.id, more=1), 3,
                          "Object contains unknown field `more`"),
    "an empty line": (HEADER + S + "\n" + U, 3, "it is not one list"),
    "two lists on one line": (HEADER + S[:-1] + U, 2, "it is not one list"),
    "a changed second record": (HEADER + S[:-2] + "," + U[1:].replace('"u"', '"v"'), 2,
                                "it was changed after it was written, or is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_wrong_is_named_with_its_number_and_its_start(name, tmp_path):
    text, number, problem = LINES[name]
    path = tmp_path / "tree"
    for written in (text, text + U if number == 3 else text):
        path.write_text(written)
        with pytest.raises(StorageError) as caught:
            ChatNode.load_tree(path)
        wrong = written.split("\n")[number - 1]
        shown = wrong if len(wrong) <= 60 else wrong[:60] + "\u2026"
        told = str(caught.value)
        assert told.startswith(f"{str(path)!r}, line {number}: {problem}")
        assert told.endswith(f"; the line begins {shown!r}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no conversation"),
        (HEADER, "holds no conversation"),
        (HEADER[:-1], ", line 1: it is no tree file; the line begins '[{"),
        ('{"conversations": []}', ": it is ShareGPT training data, which cannot be loaded again"),
        ('{"conversations": []}\n', ": it is ShareGPT training data, which cannot be loaded again"),
        ("<html>\n<p>\n", ": it is a web page; load the file that the page was made from"),
        ("<html>", ": it is a web page; load the file that the page was made from"),
        ("[" + HEADER, ", line 1: Expected `object`"),
        ("dear diary", ", line 1: it is no tree file; the line begins 'dear diary'"),
    ],
)
def test_a_file_that_is_no_tree_is_told_for_what_it_is(text, told, tmp_path):
    path = tmp_path / "tree"
    path.write_text(text)
    with pytest.raises(StorageError) as caught:
        ChatNode.load_tree(path)
    separator = " " if told[0] == "h" else ""
    assert str(caught.value).startswith(f"{str(path)!r}{separator}{told}")


def test_files_may_follow_one_another_and_a_cut_line_is_told_by_its_number(tmp_path, caplog):
    path = tmp_path / "tree"
    note = line("notes", node=LEAF.id, values={"a": 1})
    path.write_text(
        HEADER + S + HEADER + S + U + note + line("notes", node=LEAF.id, values={})[:20]
    )
    root = ChatNode.load_tree(path)
    assert [node.text for node in root.depth_first()] == ["s", "u"]
    assert root.children()[0].notes == {"a": 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"{str(path)!r}: line 7 is cut off and left out"
    ]
    caplog.clear()
    path.write_text(HEADER + S + U + note)
    ChatNode.load_tree(path)
    assert caplog.records == []


def test_a_place_where_no_file_is_or_can_be_is_told_with_what_to_do(tmp_path):
    missing = tmp_path / "no" / "file"
    for act, told in (
        (lambda: ChatNode.load_tree(missing), "read (No such file or directory)"),
        (lambda: ChatNode.from_thread_file(missing), "read (No such file or directory)"),
        (lambda: ROOT.save_tree(missing),
         "written (No such file or directory); make its folder first"),
        (lambda: ROOT.save_thread(missing),
         "written (No such file or directory); make its folder first"),
        (lambda: ROOT.attach_journal(missing),
         "used as a journal (No such file or directory); make its folder first"),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            act()
        assert str(caught.value) == f"{str(missing)!r} cannot be {told}"


# A shorter conversation.


def long_thread() -> ChatNode:
    return ChatNode.from_messages([
        Message.system("one"), Message.system("two"), Message.user("a {x}"), Message.assistant("b"),
        Message.user("c"), Message.assistant("d"),
    ])[1]  # fmt: skip


@pytest.mark.parametrize(
    ("keep_last", "left", "kept"),
    [
        (0, 4, ""),
        (1, 3, "d"),
        (2, 2, "cd"),
        (3, 1, "bcd"),
        (4, 0, None),
        (5, 0, None),
        (99, 0, None),
    ],
)
def test_the_middle_of_a_conversation_becomes_a_note(keep_last, left, kept):
    leaf = long_thread()
    short = run(leaf.collapse_thread(keep_last=keep_last))
    note = f"[{left} earlier messages were left out here]"
    expected = [one.text for one in leaf.thread()] if kept is None else ["one", "two", note, *kept]
    assert [one.text for one in short.thread()] == expected
    assert short.is_leaf
    assert not any(node.is_generated for node in short.path())
    more = short.add_user("more").add_assistant("and more")
    assert [one.text for one in more.thread()] == [*expected, "more", "and more"]
    assert [one.text for one in short.root_node.depth_first()] == [*expected, "more", "and more"]


async def test_what_is_asked_of_the_model_is_the_middle_and_how_to_sum_it_up():
    leaf = long_thread().set_format_kwarg("x", 5)
    generator = scripted(said("They {greeted} each other."))
    short = await leaf.collapse_thread(keep_last=1, generator=generator, params=None)
    body = json.loads(generator.transport.requests[0].body)
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": (
                "Sum up the following part of a conversation for somebody who goes on with it without "
                "having read it. Keep every name, number, decision and open question. Write the "
                "summary only.")},
            {"role": "user", "content": [  # in two parts, so that it is no placeholder
                {"type": "text", "text": "User: a {"},
                {"type": "text", "text": "x}\n\nAssistant: b\n\nUser: c"},
            ]},
        ],
    }  # fmt: skip
    note = "[3 earlier messages, summed up:]\nThey {greeted} each other."
    assert [one.text for one in short.thread()] == ["one", "two", note, "d"]
    assert [node.is_generated for node in short.path()] == [False, False, True, False]
    assert short.format_kwargs == {"x": 5}
    assert short.missing_format_kwargs() == []


SIZES = [59_800, *range(59_884, 59_890), 60_000, 119_900, 1_060_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_line_may_be_longer_than_what_is_read_at_once(size, tmp_path, caplog):
    path, cut = tmp_path / "tree", tmp_path / "cut"
    root = ChatNode.root("s")
    node = root.add_user("a").add_assistant("x" * size).add_user("b")
    root.save_tree(path)
    loaded = ChatNode.load_tree(path)
    assert [one.id for one in loaded.depth_first()] == [one.id for one in root.depth_first()]
    text = path.read_text()
    for length, number, count in (
        (len(text) - 2, 5, 3), (len(text) - 1, 5, 3), (text.index("xxx") + size // 2, 4, 2),
    ):  # fmt: skip
        caplog.clear()
        cut.write_text(text[:length])
        assert ChatNode.load_tree(cut).node_count() == count
        assert [record.getMessage() for record in caplog.records] == [
            f"{str(cut)!r}: line {number} is cut off and left out"
        ]
    cut.write_text(text.replace('"b"', '"c"'))
    with pytest.raises(StorageError, match="line 5: it was changed"):
        ChatNode.load_tree(cut)
    again = ChatNode.load_tree(path)
    again.attach_journal(cut.with_suffix(".journal"))
    again.find(node.id).add_assistant("y" * size)
    assert ChatNode.load_tree(cut.with_suffix(".journal")).node_count() == 5


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def with_block(depth: int) -> ChatNode:
    block = ReasoningBlock(fields={"a": nested(depth)})
    return ChatNode.from_messages([Message.assistant("a", reasoning=Reasoning(blocks=(block,)))])[1]


def with_response(depth: int) -> ChatNode:
    return ChatNode.root("s").add_response(
        CompletionResponse(content="a", raw_response=nested(depth))
    )


@pytest.mark.parametrize(("make", "most"), [(with_block, 214), (with_response, 218)])
def test_what_a_file_can_keep_may_be_nested_some_two_hundred_levels_deep(make, most, tmp_path):
    node = make(most)
    node.save_tree(tmp_path / "tree")
    loaded = ChatNode.load_tree(tmp_path / "tree")
    assert (loaded.id, loaded.message) == (node.id, node.message)
    with pytest.raises(InvalidParameterError) as caught:
        _ = make(most + 1).id
    assert str(caught.value) == "a message is nested more than 200 deep, so no file can keep it"


@pytest.mark.parametrize("size", [1, 100, 60_001, 1_100_000, 15_900_000, 16_100_000])
def test_zeros_that_a_crash_left_are_told_by_their_line_or_left_out_at_the_end(
    size, tmp_path, caplog
):
    path = tmp_path / "tree"

    def write(behind: str) -> None:
        with path.open("wb") as file:
            file.write((HEADER + S + U).encode())
            file.truncate(file.tell() + size)
            file.seek(0, 2)
            file.write(behind.encode())

    write("\n" + line("notes", node=LEAF.id, values={"a": 1}))
    with pytest.raises(StorageError) as caught:
        ChatNode.load_tree(path)
    told = str(caught.value)
    assert told.startswith(f"{str(path)!r}, line 4: ")
    assert told.endswith("\ufffd'" if size == 1 else "\ufffd\u2026'" if size > 60 else "\ufffd'")
    assert ("it has zero bytes" in told) == (size > 16_000_000)
    write("")
    if size > 16_000_000:
        with pytest.raises(StorageError, match="line 4: it has zero bytes"):
            ChatNode.load_tree(path)
        return
    assert ChatNode.load_tree(path).node_count() == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{str(path)!r}: line 4 is cut off and left out"
    ]
