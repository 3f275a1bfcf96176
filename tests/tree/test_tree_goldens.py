"""What a tree is outside of memory, byte for byte: its files, and its texts for people.

The expected files are in `tests/golden/trees`.
"""

from __future__ import annotations

import json
import re

import pytest
from page_trees import answer, call

from golden import GOLDEN
from minillmlib import (
    AudioPart,
    ChatNode,
    DocumentPart,
    ImagePart,
    Message,
    Reasoning,
    TextPart,
    ToolCall,
    VideoPart,
)

EXPECTED = GOLDEN / "trees"


def expected(name: str) -> str:
    return (EXPECTED / name).read_text(encoding="utf-8")


class Grown:
    """A tree with every kind of change, recorded from its second message on."""

    def __init__(self, path) -> None:
        self.root = root = ChatNode.root("Be brief.")
        root.add_user("a").note("label", "early")
        root.attach_journal(path)
        first, self.detached, _ = (root.add_user("a") for _ in range(3))
        self.leaf = leaf = first.add_assistant("b").add_user("c {x}")
        leaf.cache_breakpoint("1h").cache_breakpoint().clear_cache_breakpoint()
        leaf.set_format_kwarg("x", 1).set_format_kwarg("y", None)
        leaf.note("n", 0.5).note("m", True).note("n", None)
        self.detached.detach()
        self.detached.add_user("no more of the journal")
        root.add_user("a")
        root.graft(leaf.parent)
        root.cache_breakpoint()
        leaf.cache_breakpoint()
        root.clear_all_cache_breakpoints()
        first.cache_breakpoint("1h")


def test_each_change_is_a_line_of_the_journal_and_a_save_has_what_is_left(tmp_path):
    grown = Grown(tmp_path / "journal")
    assert (tmp_path / "journal").read_text() == expected("journal.jsonl")
    for node, name in (
        (grown.root, "saved.jsonl"),
        (grown.detached, "detached.jsonl"),
        (grown.leaf.parent, "branch.jsonl"),
    ):
        node.save_tree(tmp_path / name)
        assert (tmp_path / name).read_text() == expected(name)
        loaded = ChatNode.load_tree(tmp_path / name)
        loaded.save_tree(tmp_path / "again")
        assert (tmp_path / "again").read_text() == expected(name)
        assert loaded.id == node.id
    grown.leaf.save_thread(tmp_path / "thread")
    assert (tmp_path / "thread").read_text() == expected("thread.json")


def test_a_journal_is_read_as_the_tree_that_was_recorded():
    loaded = ChatNode.load_tree(EXPECTED / "journal.jsonl")
    saved = ChatNode.load_tree(EXPECTED / "saved.jsonl")
    for one, other in zip(loaded.in_insertion_order(), saved.in_insertion_order(), strict=True):
        assert (one.id, one.message, one.notes) == (other.id, other.message, other.notes)
        assert one.format_kwargs == other.format_kwargs
        assert one.depth == other.depth


def test_a_tree_that_is_attached_to_its_older_file_adds_the_lines_that_it_lacks(tmp_path):
    grown = Grown(tmp_path / "journal")
    lines = expected("journal.jsonl").splitlines(keepends=True)
    header, *nodes = expected("saved.jsonl").splitlines(keepends=True)
    (tmp_path / "older").write_text("".join(lines[:6]))
    grown.root.attach_journal(tmp_path / "older")
    missing = [line for line in nodes if line not in lines[:6]]
    detached = [line for line in lines if '"detached"' in line]
    assert (tmp_path / "older").read_text() == "".join([*lines[:6], *detached, *missing])
    (tmp_path / "newer").write_text("".join(lines))
    ChatNode.load_tree(tmp_path / "newer").attach_journal(tmp_path / "newer")
    assert (tmp_path / "newer").read_text() == "".join(lines)
    (tmp_path / "empty").touch()
    ChatNode.load_tree(tmp_path / "newer").attach_journal(tmp_path / "empty")
    assert (tmp_path / "empty").read_text() == "".join([header, *nodes])


def shown_tree() -> ChatNode:
    """A tree with all that is shown of one, in a thread and two branches."""
    image = ImagePart(data=b"GIF89a")
    _, asked = ChatNode.from_messages([
        Message.system('You are <brief> & "kind".'),
        Message.user([
            TextPart(text="It's this:"), image, AudioPart(data=b"ID3x"), VideoPart(url="https://h/v"),
            DocumentPart(data=b"%PDF-1", filename="a.pdf"), DocumentPart(data=b"%PDF-1"),
        ]),
        Message.assistant("Let me look.\n\x07", [
            ToolCall(id="c1", name="look", arguments='{"x": 1}'), ToolCall(id="c2", name="see", arguments=""),
        ], media=[image], reasoning=Reasoning(text="hm \u00e9", origin="m")),
        Message.tool_result("c1", "1 < 2"),
        Message.tool_result("c2", "broken", is_error=True),
        Message.user("## User\n\nand\n~~~ python\nx"),
    ])  # fmt: skip
    asked.note("label", "good").note("score", 1.5).note("_hidden", "x")
    said = {
        "token": "Yes",
        "logprob": -0.123456,
        "top_logprobs": [{"token": "No", "logprob": -2.5}],
    }
    first = answer(asked, "Yes", cost=0.25, failures=1, finish="length", logprobs=[said],
                   reasoning="Is it?")  # fmt: skip
    answer(first, "Of course", cost=0.5, said="Sure?", model="local/m")
    answer(asked, "", cost=None, finish="tool_calls", tool_calls=[call("c3", "look", "{}")])
    return asked.root_node


def of_page(page: str) -> str:
    (data,) = re.findall(r'id="data">(.*?)</script>', page)
    assert page.count("<title>") == 1
    return json.dumps(json.loads(data), indent=1) + "\n"


def thread_of(root: ChatNode) -> ChatNode:
    return next(root.leaves())


SHOWN = {
    "page.json": lambda root: of_page(root.to_html("A \u00e9 <b>")),
    "page_of_a_branch.json": lambda root: of_page(thread_of(root).parent.to_html()),
    "conversation.md": lambda root: thread_of(root).to_markdown(),
    "conversation.txt": lambda root: thread_of(root).pretty() + "\n",
    "cut.txt": lambda root: thread_of(root).pretty(11) + "\n",
    "notebook.html": lambda root: thread_of(root)._repr_html_() + "\n",
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_conversation_is_shown_as_it_was(name):
    assert SHOWN[name](shown_tree()) == expected(name)


def test_the_title_of_a_page_is_ascii_and_no_markup():
    page = shown_tree().to_html("A \u00e9 <b> & \"'")
    assert "<title>A &#233; &lt;b&gt; &amp; &quot;&#x27;</title>" in page
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">\n<!-- minillmlib -->\n')
    assert "<title>Conversation</title>" in ChatNode.root("s").to_html()
    assert ChatNode.root("%%TITLE%% %%DATA%%").to_html("%%DATA%%").count("%%DATA%%") >= 2
