"""A tree goes to a file and comes back as it was."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cost_of_work import check_linear
from tree_fixture import TEXT, rich_tree

import minillmlib
from minillmlib import (
    ChatNode,
    CostResolution,
    InvalidParameterError,
    Message,
    StorageError,
    TextPart,
)


@pytest.fixture
async def rich():
    return await rich_tree()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def facts(node: ChatNode) -> tuple:
    """All that can be seen of a node without its neighbours."""
    response = node.response if node.is_generated else None
    return (
        node.id, node.message, node.text, node.role, response, node.cost, node.path_cost(),
        node.subtree_cost(), node.tool_calls, node.media, node.depth, node.is_leaf, node.is_root,
        node.format_kwargs, node.missing_format_kwargs(), node.formatted_thread(), node.thread(),
        node.pretty(), node.to_markdown(), node._repr_html_(),
        [child.id for child in node.children()],
    )  # fmt: skip


async def test_a_tree_with_everything_in_it_comes_back_bit_for_bit(rich, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    rich.save_tree(one)
    loaded = ChatNode.load_tree(one)
    for before, after in zip(rich.depth_first(), loaded.depth_first(), strict=True):
        assert facts(before) == facts(after)
    loaded.save_tree(two)
    assert one.read_bytes() == two.read_bytes()
    resolutions = {
        attempt.cost.resolution
        for node in loaded.depth_first() if node.is_generated
        for attempt in node.response.attempts if attempt.cost is not None
    }  # fmt: skip
    assert resolutions == set(CostResolution)
    assert any(node.is_generated and node.response.raw_response for node in loaded.depth_first())


async def test_every_part_of_a_tree_comes_back_with_its_ids(rich, tmp_path):
    for number, node in enumerate(rich.depth_first()):
        path = tmp_path / str(number)
        node.save_tree(path)
        loaded = ChatNode.load_tree(path)
        assert [n.id for n in loaded.depth_first()] == [n.id for n in node.depth_first()]
        assert loaded.is_root
        assert loaded.subtree_cost() == node.subtree_cost()


async def test_marks_of_nodes_come_back_in_threads_and_trees(rich, tmp_path):
    rich.save_tree(tmp_path / "tree")
    loaded = ChatNode.load_tree(tmp_path / "tree")
    seen = set()
    for before, after in zip(rich.depth_first(), loaded.depth_first(), strict=True):
        before.save_thread(tmp_path / "before")
        after.save_thread(tmp_path / "after")
        assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
        _, leaf = ChatNode.from_thread_file(tmp_path / "after")
        seen |= {message.cache_ttl for message in leaf.thread()}
    assert seen == {None, "5m", "1h"}


def test_an_id_follows_from_what_was_said_and_from_nothing_else():
    def said(*texts: str) -> ChatNode:
        node = ChatNode.root("s")
        for text in texts:
            node = node.add_user(text)
        return node

    assert said("a", "b").id == said("a", "b").id
    assert len({said("a", "b").id, said("b", "a").id, said("ab").id, said("a").id}) == 4
    root = ChatNode.root("s")
    twins = [root.add_user("a") for _ in range(4)]
    assert len({twin.id for twin in twins}) == 4
    assert twins[0].id == said("a").id
    twins[3].cache_breakpoint().set_format_kwarg("x", 1)
    again = ChatNode.root("s")
    assert [again.add_user("a").id for _ in range(4)] == [twin.id for twin in twins]


def test_copies_that_grew_apart_become_one_without_duplicates(tmp_path):
    root = ChatNode.root("s")
    root.add_user("shared")
    paths = [tmp_path / str(number) for number in range(3)]
    for number, path in enumerate(paths):
        root.save_tree(path)
        copy = ChatNode.load_tree(path)
        copy.children()[0].add_assistant(f"only here: {number}")
        copy.children()[0].add_assistant("the same everywhere")
        copy.save_tree(path)
    merged = ChatNode.load_tree(*paths)
    (shared,) = merged.children()
    assert sorted(child.text for child in shared.children()) == [
        "only here: 0", "only here: 1", "only here: 2", "the same everywhere"]  # fmt: skip
    assert merged.node_count() == ChatNode.load_tree(*paths, *paths).node_count() == 6


def test_files_of_different_conversations_are_not_merged(tmp_path):
    ChatNode.root("one").save_tree(tmp_path / "one")
    ChatNode.root("two").save_tree(tmp_path / "two")
    with pytest.raises(StorageError, match=r"two', line 2: it is of another conversation"):
        ChatNode.load_tree(tmp_path / "one", tmp_path / "two")


def test_a_detached_part_keeps_its_ids_and_its_life(tmp_path):
    root = ChatNode.root("s")
    part = root.add_user("a")
    leaf = part.add_assistant("b")
    ids = part.id, leaf.id
    assert part.detach() is part
    assert (part.is_root, part.depth, leaf.depth, root.children()) == (True, 0, 1, [])
    assert (part.id, leaf.id) == ids
    assert leaf.thread() == [Message.user("a"), Message.assistant("b")]
    assert root.find(part.id) is None
    assert root.find(leaf.id) is None
    assert leaf.find(part.id) == part
    part.save_tree(tmp_path / "part")
    assert [n.id for n in ChatNode.load_tree(tmp_path / "part").depth_first()] == list(ids)
    equal = root.add_user("a")
    assert equal.id != part.id


# Journals.


def test_a_journal_has_what_was_added_before_the_call_returned(tmp_path):
    path = tmp_path / "journal"
    root = ChatNode.root("s")
    early = root.add_user("before the journal")
    root.attach_journal(path)
    for step in (
        lambda: early.add_assistant("later"),
        lambda: early.cache_breakpoint("1h"),
        lambda: early.set_format_kwarg("x", 1),
        lambda: root.graft(early),
        early.clear_cache_breakpoint,
        lambda: root.add_user("twin"),
        lambda: root.add_user("twin"),
        lambda: root.children()[-1].detach(),  # noqa: PLW0108 - the last one at that time
        lambda: root.add_user("twin"),
        root.clear_all_cache_breakpoints,
    ):
        step()
        loaded = ChatNode.load_tree(path)
        assert [facts(n) for n in loaded.depth_first()] == [facts(n) for n in root.depth_first()]


def test_a_program_that_starts_anew_goes_on_with_its_journal(tmp_path):
    path = tmp_path / "journal"
    for number in range(4):
        root = ChatNode.root("s")
        root.attach_journal(path)
        assert len(root.children()) == number
        root.add_user(str(number))
    lines = path.read_bytes().splitlines()
    assert len(lines) == 6


def test_a_journal_that_is_attached_again_does_not_grow(tmp_path):
    path = tmp_path / "journal"
    for _ in range(3):
        root = ChatNode.root("s")
        root.attach_journal(path)
        if root.is_leaf:
            root.set_format_kwarg("x", 1).set_format_kwarg("x", 2).add_user("gone").detach()
            root.add_user("u").cache_breakpoint("1h").clear_cache_breakpoint()
            root.add_user("v").cache_breakpoint("1h")
            grown = path.read_bytes()
        assert path.read_bytes() == grown
    assert root.format_kwargs == {"x": 2}


def test_a_journal_is_attached_to_the_root_only(tmp_path):
    with pytest.raises(InvalidParameterError, match="root_node"):
        ChatNode.root("s").add_user("u").attach_journal(tmp_path / "journal")


@pytest.mark.parametrize(
    "content", [b"dear diary", b"dear diary\n", b"dear\ndiary", b"[]", b"{}\n"]
)
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path, content):
    path = tmp_path / "diary"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="line 1"):
        ChatNode.root("s").attach_journal(path)
    assert path.read_bytes() == content


def test_a_journal_of_another_conversation_stays_as_it_is(tmp_path):
    path = tmp_path / "journal"
    ChatNode.root("one").attach_journal(path)
    before = path.read_bytes() + b'[{"kind":'
    path.write_bytes(before)
    other = ChatNode.root("two")
    with pytest.raises(StorageError, match="another conversation"):
        other.attach_journal(path)
    assert path.read_bytes() == before
    other.add_user("u")
    assert path.read_bytes() == before


def test_a_part_that_was_detached_is_detached_in_a_copy_that_becomes_the_journal(tmp_path):
    path = tmp_path / "journal"
    root = ChatNode.root("s")
    part = root.add_user("a")
    part.add_user("b")
    root.save_tree(path)
    part.detach()
    root.attach_journal(path)
    assert ChatNode.load_tree(path).node_count() == root.node_count() == 1


def test_a_detached_part_is_kept_by_no_journal_but_its_own(tmp_path):
    root = ChatNode.root("s")
    root.attach_journal(tmp_path / "whole")
    part = root.add_user("a").detach()
    part.attach_journal(tmp_path / "part")
    whole = (tmp_path / "whole").read_bytes()
    part.add_user("b")
    assert (tmp_path / "whole").read_bytes() == whole
    assert [n.text for n in ChatNode.load_tree(tmp_path / "part").depth_first()] == ["a", "b"]


def test_a_journal_is_closed_with_the_last_handle(tmp_path):
    before = descriptors()
    root = ChatNode.root("s")
    root.attach_journal(tmp_path / "journal")
    assert descriptors() == before + 1
    del root
    assert descriptors() == before


# What files are like.


def test_a_saved_file_keeps_the_permissions_of_the_one_it_replaces(tmp_path):
    path = tmp_path / "tree"
    ChatNode.root("s").save_tree(path)
    path.chmod(0o600)
    ChatNode.root("t").save_tree(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_save_through_a_link_replaces_what_the_link_names(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    ChatNode.root("s").save_tree(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert ChatNode.load_tree(tmp_path / "tree").text == "s"


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 63, "a\nb", "\udcff"])
def test_every_name_that_the_system_takes_will_do(tmp_path, name):
    ChatNode.root("s").save_tree(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert ChatNode.load_tree(tmp_path / name).text == "s"


def test_pipes_devices_and_folders_are_no_trees(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero", "/dev/null"):
        for use in (
            ChatNode.load_tree,
            ChatNode.from_thread_file,
            ChatNode.root("s").attach_journal,
        ):
            with pytest.raises(StorageError, match="cannot be"):
                use(path)


@pytest.mark.parametrize("path", ["", "no/such/folder/file", "a\0b", 0, None, 1.5])
def test_what_is_no_path_is_a_typed_error(path):
    root = ChatNode.root("s")
    for use in (
        root.save_tree,
        root.save_thread,
        root.attach_journal,
        ChatNode.load_tree,
        ChatNode.from_thread_file,
    ):
        with pytest.raises(StorageError):
            use(path)


def test_a_missing_folder_is_to_be_made_before_a_file_is_written_there_and_not_to_read_one(
    tmp_path,
):
    root = ChatNode.root("s")
    path = tmp_path / "no folder" / "file"
    for write in (root.save_tree, root.save_thread, root.attach_journal):
        with pytest.raises(StorageError, match="make its folder first"):
            write(path)
    for read in (ChatNode.load_tree, ChatNode.from_thread_file):
        with pytest.raises(StorageError, match="cannot be read") as caught:
            read(path)
        assert "make" not in str(caught.value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "x\udc00\ud83d y"])
def test_half_a_character_which_no_file_can_hold_is_replaced_in_files(text, tmp_path):
    root = ChatNode.root("s")
    leaf = root.add_user(text).add_assistant([TextPart(text=text)])
    root.save_tree(tmp_path / "tree")
    leaf.save_thread(tmp_path / "thread")
    whole = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    loaded, (_, last) = (
        ChatNode.load_tree(tmp_path / "tree"),
        ChatNode.from_thread_file(tmp_path / "thread"),
    )
    assert [node.text for node in loaded.depth_first()] == ["s", whole, whole]
    assert [message.text for message in last.thread()] == ["s", whole, whole]
    assert [node.id for node in loaded.depth_first()] == [node.id for node in root.depth_first()]
    assert leaf.text == text
    with pytest.raises(InvalidParameterError):
        root.set_format_kwarg("x", text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", [], {}, object()])
def test_a_placeholder_takes_what_a_file_can_give_back(value):
    with pytest.raises(
        InvalidParameterError, match=r"the value of \{x\} must be a text or a number"
    ):
        ChatNode.root("s").set_format_kwarg("x", value)
    with pytest.raises(InvalidParameterError, match="too long to show"):
        ChatNode.root("s").set_format_kwarg("x", 10**5000)


def test_values_of_placeholders_come_back_as_they_were(tmp_path):
    values = [None, True, False, 0, -1, 2**70, 0.5, 1e300, 5.0, "", TEXT]
    root = ChatNode.root("s")
    for number, value in enumerate(values):
        root.set_format_kwarg(f"x{number}", value)
    root.save_tree(tmp_path / "tree")
    loaded = ChatNode.load_tree(tmp_path / "tree").format_kwargs
    assert [(type(v), v) for v in loaded.values()] == [(type(v), v) for v in values]


def test_a_value_of_another_text_type_is_a_text():
    import enum

    class Name(enum.StrEnum):
        ANN = "Ann"

    root = ChatNode.root("s").set_format_kwarg("x", Name.ANN)
    assert type(root.format_kwargs["x"]) is str


async def test_a_copy_costs_nothing(rich):
    whole = rich.subtree_cost()
    (paid,) = [node for node in rich.depth_first() if node.text == "odd?"]
    copy = rich.graft(paid)
    assert rich.subtree_cost() == whole
    assert copy.subtree_cost() == minillmlib.CostTotal()
    original, again = paid.children()[0].response, copy.children()[0].response
    assert (again.content, again.usage) == (original.content, original.usage)
    assert paid.children()[0].response == original


def test_a_child_that_comes_after_a_detached_one_is_there():
    root = ChatNode.root("s")
    one, two, three = (root.add_user(text) for text in "abc")
    for gone, left in ((three, [one, two]), (one, [two]), (two, [])):
        gone.detach()
        assert root.children() == left
    four = root.add_user("d")
    five = root.add_user("e")
    assert root.children() == [four, five]
    five.detach()
    assert [root.add_user("f"), four] == root.children()[::-1]


def test_a_long_number_that_a_model_sends_does_not_spoil_the_tree(tmp_path):
    from minillmlib import GeneratorInfo
    from minillmlib.testing import ScriptedReply, ScriptedTransport

    body = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}],"n":%b,"deep":%b}' % (
        b"9" * 4000, b"[" * 199 + b"]" * 199)  # fmt: skip
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(
        ScriptedTransport([ScriptedReply(pieces=(body,))]))  # fmt: skip
    node = minillmlib.run(ChatNode.root("s").chat("u", generator))
    node.root_node.save_tree(tmp_path / "tree")
    assert ChatNode.load_tree(tmp_path / "tree").find(node.id).response == node.response


def test_a_file_of_many_detached_nodes_is_loaded_in_linear_time(tmp_path):
    def write(size: int) -> Path:
        node = root = ChatNode.root("s")
        lines = []
        for number in range(size):
            node.add_user(f"dead end {number}")
            node = node.add_user(str(number))
        root.save_tree(path := tmp_path / str(size))
        for line in path.read_bytes().splitlines(keepends=True):
            lines.append(line)
            if b"dead end" in line:
                detached = {"kind": "detached", "node": json.loads(line)[0]["id"]}
                lines.append(json.dumps([detached]).encode() + b"\n")
        path.write_bytes(b"".join(lines))
        return path

    files = {size: write(size) for size in (3000, 6000)}
    assert ChatNode.load_tree(files[3000]).node_count() == 3001
    check_linear(lambda size: ChatNode.load_tree(files[size]), 3000)
