"""Conversations as documents, as text, made short, and with placeholders; and many at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tree_fixture import TEXT, written_messages

import minillmlib
from minillmlib import (
    AudioPart,
    ChatNode,
    DocumentPart,
    GeneratorInfo,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenRouterProvider,
    Reasoning,
    ReasoningBlock,
    StorageError,
    TextPart,
    ToolCall,
    VideoPart,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

BODY = {
    "choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.5},
}


def answering(text: str = "ok", times: int = 1) -> GeneratorInfo:
    message = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    reply = ScriptedReply.json(BODY | {"choices": [message]})
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    generator = generator.with_provider(OpenRouterProvider())
    return generator.with_transport(ScriptedTransport([reply] * times))


def sent(generator: GeneratorInfo, number: int = 0) -> list[tuple[str, str]]:
    body = msgspec.json.decode(generator.transport.requests[number].body)
    return [(one["role"], one["content"]) for one in body["messages"]]


# Threads as documents.


def test_a_thread_comes_back_from_its_document(tmp_path):
    _, leaf = ChatNode.from_messages(written_messages())
    leaf.set_format_kwarg("name", TEXT).set_format_kwarg("missing", None)
    leaf.save_thread(tmp_path / "thread")
    root, again = ChatNode.from_thread_file(tmp_path / "thread")
    assert again.thread() == leaf.thread()
    assert again.format_kwargs == leaf.format_kwargs
    assert again.root_node == root
    again.save_thread(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "thread").read_bytes()
    text = (tmp_path / "thread").read_text(encoding="utf-8")
    assert ChatNode.from_thread_json(text)[1].id == again.id


PLAIN = [
    {"role": "developer", "content": "s"},
    {"role": "user", "content": [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://h/i", "detail": "low"}}]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
    {"role": "tool", "content": "r", "tool_call_id": "c"},
]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_list_of_messages_and_the_crates_form_are_read(wrapped):
    document = {"prompts": PLAIN, "required_kwargs": {"a": None, "b": "x"}} if wrapped else PLAIN
    root, leaf = ChatNode.from_thread_json(json.dumps(document))
    system, user, assistant, tool = leaf.thread()
    assert system == Message.system("s")
    assert user.content[1] == minillmlib.ImagePart(url="https://h/i", detail="low")
    assert assistant.tool_calls == (ToolCall(id="c", name="f", arguments='{"x": 1}'),)
    assert tool == Message.tool_result("c", "r")
    assert root.format_kwargs == ({"a": None, "b": "x"} if wrapped else {})


def test_the_further_keys_of_a_call_in_a_list_of_messages_are_kept():
    call = {"id": "c", "type": "function", "index": 0, "extra_content": {"s": "x"},
            "function": {"name": "f", "arguments": "{}", "p": None}}  # fmt: skip
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    _, leaf = ChatNode.from_thread_json(json.dumps([{"role": "user", "content": "u"}, turn]))
    (made,) = leaf.tool_calls
    assert made.extra == {"extra_content": {"s": "x"}, "function": {"p": None}}


# What client packages dump and servers take, and the message that it is.
DUMPED = [
    ({"role": "assistant", "content": "a", "refusal": None, "annotations": [], "audio": None,
      "function_call": None, "tool_calls": None}, Message.assistant("a")),
    ({"role": "user", "content": "a", "name": "", "extra": {}, "prefix": False}, Message.user("a")),
    ({"role": "user", "content": [{"type": "text", "text": "a", "annotations": []}]},
     Message.user([TextPart(text="a")])),
    ({"role": "assistant", "content": None, "refusal": "I will not."},
     Message.assistant("I will not.")),
    ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
     Message.assistant([TextPart(text="No.")])),
    ({"role": "assistant", "content": "a", "reasoning_content": "hm"},
     Message.assistant("a", reasoning=Reasoning(text="hm", key="reasoning_content"))),
    ({"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_details": [{"type": "x"}]},
     Message.assistant("a", reasoning=Reasoning(
         text="hm", blocks=(ReasoningBlock(fields={"type": "x"}),), key="reasoning_details"))),
    ({"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}]},
     Message.user([AudioPart(data=b"hi", media_type="audio/wav")])),
    ({"role": "user", "content": [{"type": "file", "file": {
        "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0=", "file_id": None}}]},
     Message.user([DocumentPart(data=b"%PDF-", filename="a.pdf")])),
    ({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://h/v"}}]},
     Message.user([VideoPart(url="https://h/v")])),
    ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {
        "type": "ephemeral", "ttl": "1h"}}]},
     Message(role="user", content=[TextPart(text="a")], cache_ttl="1h")),
    ({"role": "tool", "content": "r", "tool_call_id": "c", "name": "f"},
     Message.tool_result("c", "r")),
    ({"role": "assistant", "tool_calls": [
        {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
     Message.assistant("", [ToolCall(id="c", name="f", arguments="x", extra={"type": "custom"})])),
]  # fmt: skip


@pytest.mark.parametrize(("dumped", "message"), DUMPED)
def test_what_a_client_dumps_is_the_message_and_its_empty_members_are_nothing(dumped, message):
    _, leaf = ChatNode.from_thread_json(json.dumps([{"role": "user", "content": "q"}, dumped]))
    assert leaf.message == message


async def test_the_reasoning_of_a_list_of_messages_is_kept_and_sent_to_no_model():
    turn = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    document = json.dumps(
        [{"role": "user", "content": "q"}, turn, {"role": "user", "content": "r"}]
    )
    generator = answering()
    node = await ChatNode.from_thread_json(document)[1].complete(generator)
    assert node.thread()[1].reasoning.text == "hm"
    assert b"hm" not in generator.transport.requests[0].body
    assert "another model" in str(node.response.request_report.omitted)


OURS = '{"kind":"minillmlib thread","version":1,"messages":%s}'
WRONG = [
    ("", "malformed|truncated"),
    ("5", "Expected `object`"),
    ("[]", "no message"),
    ("[5]", r"the list\[0\] is no message but 5"),
    ('[{"role":"user","content":"a"},{"role":"root","content":"b"}]', r"the list\[1\]\.role"),
    ('[{"content":"a"}]', r"the list\[0\]\.role is None"),
    ('[{"role":"user","content":5}]', r"the list\[0\]\.content is 5"),
    ('[{"role":"user","content":[]}]', r"the list\[0\]: "),
    ('[{"role":"user","content":[{"type":"film"}]}]', r"the list\[0\]\.content\[0\] is neither"),
    (
        '[{"role":"user","content":[{"type":"text","text":"a",'
        '"cache_control":{"type":"ephemeral","ttl":"1d"}}]}]',
        "cache_control",
    ),
    ('[{"role":"user","content":[{"type":"text","text":"a","more":1}]}]', r"\[0\] has what .*more"),
    (
        '[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},'
        '{"type":"text","text":"a","cache_control":{"type":"x"}}]}]',
        r"\[0\] has what .*cache_control",
    ),
    (
        '[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"!","format":"x"}}]}]',
        "valid base64",
    ),
    ('[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]', "neither text nor"),
    ('[{"role":"user","content":"a","reasoning":"x"}]', "not known here: reasoning"),
    (
        '[{"role":"assistant","content":"a","reasoning":5}]',
        r"the list\[0\] has reasoning that cannot be read",
    ),
    ('[{"role":"assistant","content":"a","refusal":"b"}]', "not known here: refusal"),
    ('[{"role":"assistant","content":"a","audio":{"id":"x"}}]', "not known here: audio"),
    ('[{"role":"user","content":0}]', r"content is 0"),
    (
        '[{"role":"user","content":"a","name":"x"}]',
        r"the list\[0\] has what is not known here: name",
    ),
    ('[{"role":"user","content":"a","tool_calls":5}]', r"the list\[0\]\.tool_calls is no list"),
    ('[{"role":"assistant","content":"","tool_calls":[{}]}]', r"the list\[0\]\.tool_calls\[0\]"),
    ('[{"role":"tool","content":"a"}]', r"the list\[0\]: .* has the id of a call"),
    (
        '[{"role":"tool","content":"a","tool_call_id":"c","is_error":1.5}]',
        r"\[0\]\.is_error is 1\.5",
    ),
    ('{"prompts":5}', "prompts is no list but 5"),
    ('{"prompts":[{"role":"user","content":"a"}],"required_kwargs":{"a":[]}}', "required_kwargs: "),
    ('{"prompts":[{"role":"user","content":"a"}],"required_kwargs":0}', "required_kwargs: "),
    ('{"prompts":[],"more":1}', "the document has what is not known here: more"),
    (OURS % "[]", "no message"),
    (OURS % '[{"role":"user"}]', r"`content` - at `\$\.messages\[0\]`"),
    (OURS % '[{"role":"user","content":"a","more":1}]' + " x", "malformed"),
    (OURS.replace(":1", ":2") % "[]", "version 2"),
    ('{"kind":"minillmlib tree","version":1}', "Invalid value 'minillmlib tree'"),
]


@pytest.mark.parametrize(("document", "place"), WRONG)
def test_what_is_wrong_in_a_document_is_named(document, place, tmp_path):
    with pytest.raises(StorageError, match=place) as caught:
        ChatNode.from_thread_json(document)
    (tmp_path / "thread").write_text(document)
    with pytest.raises(StorageError) as of_file:
        ChatNode.from_thread_file(tmp_path / "thread")
    assert str(of_file.value) == f"{str(tmp_path / 'thread')!r}: {caught.value}"


OTHER_KINDS = [
    ("tree", lambda node, path: node.root_node.save_tree(path)),
    ("thread", lambda node, path: node.save_thread(path)),
    (
        "crate",
        lambda node, path: path.write_text('{"prompts": [{"role": "user", "content": "a"}]}'),
    ),
    ("list", lambda node, path: path.write_text('[{"role": "user",\n "content": "a"}]')),
    ("ShareGPT", lambda node, path: path.write_text(node.root_node.to_sharegpt())),
    ("page", lambda node, path: path.write_text(node.to_html())),
]


@pytest.mark.parametrize(("kind", "write"), OTHER_KINDS)
def test_a_loader_names_what_loads_another_kind_of_file(kind, write, tmp_path):
    node = ChatNode.root("s").add_user("a").add_assistant("b")
    file = tmp_path / "file"
    write(node, file)
    before = file.read_bytes()
    is_thread = kind in ("thread", "crate", "list")
    words = {"tree": "load_tree", "ShareGPT": "ShareGPT", "page": "web page"}.get(
        kind, "from_thread_file"
    )
    if not is_thread:
        with pytest.raises(StorageError, match=f"'{file}': it is .*{words}"):
            ChatNode.from_thread_file(file)
    if kind != "tree":
        for load in (ChatNode.load_tree, node.root_node.attach_journal):
            with pytest.raises(StorageError, match=f"'{file}': it is .*{words}"):
                load(file)
    assert file.read_bytes() == before


def test_a_damaged_file_of_the_right_kind_is_not_taken_for_another(tmp_path):
    (tmp_path / "thread").write_text('{"prompts": [5]}')
    with pytest.raises(StorageError, match=r"prompts\[0\] is no message"):
        ChatNode.from_thread_file(tmp_path / "thread")
    (tmp_path / "tree").write_text('[{"kind":"minillmlib tree","version":1}]\n[{"role":"user"}]\n')
    with pytest.raises(StorageError, match="line 2"):
        ChatNode.load_tree(tmp_path / "tree")


# As text.

HOSTILE = "<script>alert('x')</script> & \x1b[2J\x07\u202e\u2066 \r \x9b31m end"


def test_what_is_printed_moves_no_cursor_and_what_is_shown_runs_no_code():
    root = ChatNode.root(HOSTILE)
    call = ToolCall(id="c", name=HOSTILE, arguments=HOSTILE)
    _, leaf = ChatNode.from_messages([root.message, Message.assistant(HOSTILE, [call])])
    for text in (str(leaf), leaf.pretty(), repr(leaf), repr(root)):
        assert all(char.isprintable() or char == "\n" for char in text)
    page = leaf._repr_html_()
    assert "<script" not in page
    assert "'" not in page.replace('style="', "")
    assert page.count("&lt;script&gt;") == 4
    assert HOSTILE in leaf.to_markdown()


def test_a_text_says_who_said_what_and_is_cut_where_it_is_asked_to_be():
    leaf = ChatNode.root("be brief").add_user("x" * 100).add_assistant("yes")
    assert leaf.pretty() == f"System: be brief\n\nUser: {'x' * 100}\n\nAssistant: yes"
    assert leaf.pretty(3) == "System: be\u2026\n\nUser: xxx\u2026\n\nAssistant: yes".replace(
        "be\u2026", "be \u2026"
    )
    assert (
        leaf.to_markdown()
        == f"## System\n\nbe brief\n\n## User\n\n{'x' * 100}\n\n## Assistant\n\nyes\n"
    )
    assert str(ChatNode.root("y" * 5000)) == f"System: {'y' * 2000}\u2026"


FENCE = "```"


@pytest.mark.parametrize(
    ("text", "contained"),
    [
        (f"show\n{FENCE}\nopen", f"show\n{FENCE}\nopen\n{FENCE}"),
        (f"{FENCE}py\nx\n{FENCE}\nand ~~~~\n~~~~\n~~~", f"{FENCE}py\nx\n{FENCE}\nand ~~~~\n~~~~\n~~~\n~~~~"),
        (f"{FENCE}`md\n{FENCE}\n## User\n{FENCE}", f"{FENCE}`md\n{FENCE}\n## User\n{FENCE}\n{FENCE}`"),
        (f"`{FENCE}` is a fence, {FENCE} x {FENCE} is code", None),
        (f"{FENCE}a`b\n## User", f"{FENCE}a`b\n\\## User"),
        ("<!-- a\n## User", "<!-- a\n## User\n-->"),
        ("<!-- a --> b\n<pre>\n</PRE>", None),
        ("<!DOCTYPE a\n## User", "<!DOCTYPE a\n## User\n>"),
        ("<!a\n>\n## User", "<!a\n>\n\\## User"),
        ("<?a\n## User\n>", "<?a\n## User\n>\n?>"),
        ("<?a ?>\n## User", "<?a ?>\n\\## User"),
        ("   <![CDATA[ a\n]>\n## User", "   <![CDATA[ a\n]>\n## User\n]]>"),
        ("<![CDATA[ a\n]]>\n## User", "<![CDATA[ a\n]]>\n\\## User"),
        ("<SCRIPT>\n</style>\n## User", "<SCRIPT>\n</style>\n\\## User"),
        ("<style\n## User", "<style\n## User\n</pre>"),
        ("<textarea a\n## User", "<textarea a\n## User\n</pre>"),
        ("<prefix>\n## User", "<prefix>\n\\## User"),
        ("    <!-- a\n## User", "    <!-- a\n\\## User"),
        (f"    {FENCE}\n## User", f"    {FENCE}\n\\## User"),
        (f"{FENCE}\n    {FENCE}\n## User", f"{FENCE}\n    {FENCE}\n## User\n{FENCE}"),
        (f"{FENCE}\n   {FENCE}` \t\n## User", f"{FENCE}\n   {FENCE}` \t\n\\## User"),
        (f"{FENCE}\n{FENCE} a\n## User", f"{FENCE}\n{FENCE} a\n## User\n{FENCE}"),
        (f"{FENCE}\n~~~\n## User", f"{FENCE}\n~~~\n## User\n{FENCE}"),
        ("~~~~\n~~~\n~~~~\n## User", "~~~~\n~~~\n~~~~\n\\## User"),
        ("``\n## User", "``\n\\## User"),
        ("~~~ a`b\n## User", "~~~ a`b\n## User\n~~~"),
        ("    ## User\n   ## User ## \n ##\tTool", "    ## User\n   \\## User ## \n \\##\tTool"),
        ("User\n===\nTool \n   -  \nUser\n\n---\nme\n---", "User\n\\===\nTool \n   \\-  \nUser\n\n---\nme\n---"),
        ("    User\n---\nUser\n    ---\nUser\n=-=", None),
        ("a\n\n## Useranu\n## User a", None),
        ("<pre>\n## Tool", "<pre>\n## Tool\n</pre>"),
        ("fine\n\n## User\n\nnot said", "fine\n\n\\## User\n\nnot said"),
        ("  ##  assistant ##\r\n# User\n### User\n## User stories\n##User", "  \\##  assistant ##\r\n# User\n### User\n## User stories\n##User"),
        ("x\n\nSystem\n---\n\na\n---", "x\n\nSystem\n\\---\n\na\n---"),
        ("a\r## Tool", "a\r\\## Tool"),
    ],
)  # fmt: skip
def test_the_markdown_of_a_message_stays_within_its_turn(text, contained):
    leaf = ChatNode.root("s").add_user(text).add_assistant("y")
    shown = text if contained is None else contained
    assert leaf.to_markdown() == f"## System\n\ns\n\n## User\n\n{shown}\n\n## Assistant\n\ny\n"


def test_media_and_calls_are_named_in_a_text():
    _, leaf = ChatNode.from_messages(written_messages()[:3])
    text = leaf.pretty()
    for what in ("[image]", "[audio]", "[video]", "[document]", "[calls look("):
        assert what in text


# Placeholders.


async def test_the_nearest_value_of_a_placeholder_is_sent():
    root = (
        ChatNode.root("{a} {b} {c} {d}").set_format_kwarg("a", "root").set_format_kwarg("b", "root")
    )
    middle = root.add_user("{b}").set_format_kwarg("b", "middle").set_format_kwarg("c", 1.5)
    generator = answering(times=2)
    params = NodeCompletionParameters(format_kwargs={"c": "call"})
    node = await middle.chat("{a} {d} {{c}}", generator, params)
    assert sent(generator) == [
        ("system", "root middle call {d}"), ("user", "middle\n\nroot {d} {c}")]  # fmt: skip
    assert [m.content for m in node.thread()][:2] == ["{a} {b} {c} {d}", "{b}"]
    await root.add_user("x").complete(generator)
    assert sent(generator, 1)[0] == ("system", "root root {c} {d}")
    assert middle.format_kwargs == {"a": "root", "b": "middle", "c": 1.5}
    assert middle.missing_format_kwargs() == ["d"]
    assert [m.content for m in middle.formatted_thread(d="{a}")] == [
        "root middle 1.5 {a}",
        "middle",
    ]


async def test_a_placeholder_that_must_be_filled_is_listed_and_nothing_is_sent():
    root = ChatNode.root("{who}").set_format_kwarg("who", None).set_format_kwarg("what", None)
    assert root.missing_format_kwargs() == ["who", "what"]
    generator = answering()
    with pytest.raises(InvalidParameterError, match="must have a value: who, what"):
        await root.chat("u", generator)
    assert root.is_leaf
    assert generator.transport.requests == []
    filled = root.add_user("u").set_format_kwarg("what", "")
    await filled.complete(generator, NodeCompletionParameters(format_kwargs={"who": "Ann"}))
    assert sent(generator)[0] == ("system", "Ann")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "0", "{a}", "a}", "\u00e9", None])
def test_the_name_of_a_placeholder_is_like_that_of_a_variable(name):
    with pytest.raises(InvalidParameterError, match="a name like a variable"):
        ChatNode.root("s").set_format_kwarg(name, "x")


# Made short.


def with_tools() -> ChatNode:
    calls = [ToolCall(id=f"c{n}", name="f", arguments="{}") for n in range(2)]
    return ChatNode.from_messages([
        Message.system("s {name}"), Message.user("one"), Message.assistant("two"),
        Message.user("three"), Message.assistant("", calls), Message.tool_result("c0", "four"),
        Message.tool_result("c1", "five"), Message.assistant("six"),
    ])[1]  # fmt: skip


@pytest.mark.parametrize("keep_last", range(12))
async def test_no_result_loses_its_call_when_a_thread_is_collapsed(keep_last):
    leaf = with_tools()
    leaf.root_node.set_format_kwarg("name", "Ann")
    before = leaf.thread()
    short = await leaf.collapse_thread(keep_last=keep_last)
    assert leaf.thread() == before
    thread = short.thread()
    assert thread[0] == before[0]
    known: set[str] = set()
    for message in thread:
        known |= {call.id for call in message.tool_calls}
        assert message.tool_call_id is None or message.tool_call_id in known
    kept = len(thread) - 2
    if keep_last >= 7:
        assert thread == before
    else:
        assert kept >= keep_last
        assert thread[2:] == (before[-kept:] if kept else [])
        assert thread[1] == Message.user(f"[{7 - kept} earlier messages were left out here]")
    assert short.format_kwargs == {"name": "Ann"}
    assert short.root_node.subtree_cost().is_exact


async def test_a_summary_is_asked_for_and_paid_for_by_the_node_of_its_note():
    leaf = with_tools()
    generator = answering("They {count} counted {summary}.")
    short = await leaf.collapse_thread(keep_last=1, generator=generator)
    root, note, last = short.path()
    assert note.text == "[6 earlier messages, summed up:]\nThey {count} counted {summary}."
    assert (root.text, last.text, note.role) == ("s {name}", "six", "user")
    assert float(note.cost) == float(short.path_cost()) == 0.5
    assert (float(root.cost), float(last.cost), float(leaf.path_cost())) == (0, 0, 0)
    ((_, told), (_, transcript)) = sent(generator)
    assert "Sum up" in told
    for text in ("one", "two", "three", "four", "five", "[calls f({})]"):
        assert text in transcript
    assert "six" not in transcript


async def test_nothing_is_paid_where_nothing_is_left_out():
    generator = answering()
    leaf = ChatNode.root("s").add_user("u")
    short = await leaf.collapse_thread(keep_last=1, generator=generator)
    assert short.thread() == leaf.thread()
    assert short != leaf
    assert generator.transport.requests == []


@pytest.mark.parametrize("keep_last", [-1, 1.0, True, None, "2"])
async def test_how_much_is_kept_is_a_number_of_messages(keep_last):
    with pytest.raises(InvalidParameterError, match="keep_last"):
        await with_tools().collapse_thread(keep_last=keep_last)


# Handles.


def test_handles_of_one_node_are_equal_and_those_of_others_are_not():
    root, other = ChatNode.root("s"), ChatNode.root("s")
    child = root.add_user("u")
    twin = root.add_user("u")
    assert root == child.parent == child.root_node
    assert hash(root) == hash(child.parent)
    assert {root, child.parent, twin.parent} == {root}
    assert root != other
    assert child != twin
    assert root != "s"
    assert root.id == other.id


def test_find_takes_an_id_or_a_function():
    root = ChatNode.root("s")
    one, two = root.add_user("a"), root.add_user("b")
    below = two.add_assistant("a")
    assert root.find(below.id) == below == one.find(below.id)
    assert root.find("0" * 32) is None
    assert root.find(lambda node: node.text == "a") == one
    assert two.find(lambda node: node.text == "a") == below
    assert root.find(lambda node: node.text == "c") is None
    for what in ("", "0" * 31, "x" * 32, 5, None):
        with pytest.raises(InvalidParameterError, match="find takes an id"):
            root.find(what)


# Many at once.


COUNT = 60


def write(root: ChatNode, name: str) -> None:
    node = root
    for number in range(COUNT):
        node = (root if number % 7 == 0 else node).add_user(f"{name} {number}")
        root.add_user("twin")
        node.set_format_kwarg("x", number).cache_breakpoint()
        if number % 20 == 19:
            node.detach()


def read(root: ChatNode, saved: Path, journal: Path) -> None:
    for _ in range(COUNT // 4):
        for node in root.depth_first():
            assert root.find(node.id) in (node, None)
        root.save_tree(saved)
        assert ChatNode.load_tree(saved).text == ChatNode.load_tree(journal).text == "s"


@pytest.mark.long
def test_many_threads_write_to_one_tree_and_its_journal(tmp_path):
    journal = tmp_path / "journal"
    root = ChatNode.root("s")
    root.attach_journal(journal)
    with ThreadPoolExecutor(12) as pool:
        done = [pool.submit(write, root, str(number)) for number in range(10)]
        done += [pool.submit(read, root, tmp_path / str(n), journal) for n in range(2)]
    assert [work.exception() for work in done] == [None] * 12
    ids = [node.id for node in root.depth_first()]
    assert len(ids) == len(set(ids))
    assert sum(node.text == "twin" for node in root.depth_first()) == 10 * COUNT
    loaded = ChatNode.load_tree(journal)
    assert sorted(node.id for node in loaded.depth_first()) == sorted(ids)
