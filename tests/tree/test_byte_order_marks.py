"""A byte order mark, which Windows editors put before a text, is no part of a conversation."""

from __future__ import annotations

import codecs
import json

import pytest

from minillmlib import ChatNode, StorageError
from minillmlib.cli.conversation_files import load_root

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]
DOCUMENTS = {
    "a plain list": json.dumps(MESSAGES).encode(),
    "the format of the Rust crate": json.dumps({"prompts": MESSAGES}).encode(),
    "a thread of ours": None,
}


def put_mark_before(path):
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_thread_file_may_begin_with_one(name, tmp_path):
    path = tmp_path / "thread.json"
    if DOCUMENTS[name] is None:
        ChatNode.root("Hi").add_assistant("Ahoy").save_thread(path)
    else:
        path.write_bytes(DOCUMENTS[name])
    put_mark_before(path)
    assert [node.text for node in ChatNode.from_thread_file(path)[1].path()] == ["Hi", "Ahoy"]
    assert load_root(path).text == "Hi"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, "\ufeff"])
def test_a_thread_in_memory_may_begin_with_one(mark):
    text = json.dumps(MESSAGES)
    document = mark + (text if isinstance(mark, str) else text.encode())
    assert ChatNode.from_thread_json(document)[1].text == "Ahoy"


def test_a_second_mark_and_one_in_a_text_are_not_taken_away():
    with pytest.raises(StorageError):
        ChatNode.from_thread_json("\ufeff\ufeff[]")
    node = ChatNode.from_thread_json('[{"role": "user", "content": "\ufeffHi"}]')[1]
    assert node.text == "\ufeffHi"


def test_a_tree_file_may_begin_with_one(tmp_path):
    path = tmp_path / "tree.jsonl"
    leaf = ChatNode.root("Hi").add_assistant("Ahoy")
    leaf.root_node.save_tree(path)
    put_mark_before(path)
    root = ChatNode.load_tree(path)
    assert [node.id for node in root.depth_first()] == [leaf.root_node.id, leaf.id]
    assert load_root(path).children()[0].text == "Ahoy"


def test_a_journal_may_begin_with_one_and_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    root = ChatNode.root("Hi")
    root.attach_journal(path)
    root.add_assistant("Ahoy")
    put_mark_before(path)
    again = ChatNode.root("Hi")
    again.attach_journal(path)
    again.children()[0].add_user("Bye")
    assert [node.text for node in ChatNode.load_tree(path).depth_first()] == ["Hi", "Ahoy", "Bye"]


def test_a_journal_of_nothing_else_is_a_new_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(codecs.BOM_UTF8)
    ChatNode.root("Hi").attach_journal(path)
    assert ChatNode.load_tree(path).text == "Hi"
