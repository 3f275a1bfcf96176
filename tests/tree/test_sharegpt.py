"""A tree as training data: one ShareGPT line for each leaf, as LLaMA-Factory and axolotl read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minillmlib import ChatNode, DocumentPart, ImagePart, InvalidParameterError, Message, ToolCall
from minillmlib.tree.node import EXPORTS

IMAGE = ImagePart(url="https://a.example/1.png")


def examples(node: ChatNode) -> list[dict]:
    text = node.to_sharegpt()
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]


def turns(*messages: Message) -> list[tuple[str, str]]:
    (example,) = examples(ChatNode.from_messages(messages)[1])
    assert all(turn.keys() == {"from", "value"} for turn in example["conversations"])
    return [(turn["from"], turn["value"]) for turn in example["conversations"]]


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id=name, name=name, arguments=arguments)


def test_each_leaf_at_or_below_the_node_is_a_line_from_the_root_on():
    root = ChatNode.root("Be brief.")
    first = root.add_user("One?").add_assistant("1")
    second = root.add_user("Two?").add_assistant("2\u2028\n\u00e9")
    assert examples(root) == [
        {"id": leaf.id, "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": leaf.parent.text},
            {"from": "gpt", "value": leaf.text}]}
        for leaf in (first, second)
    ]  # fmt: skip
    assert [one["id"] for one in examples(first.parent)] == [first.id]
    assert [one["id"] for one in examples(first)] == [first.id]


def test_calls_are_json_and_their_results_observations():
    assert turns(
        Message.user("Weather?"),
        Message.assistant("", [call("look", '{"city": "Oslo", "days": 1}')]),
        Message.tool_result("look", "Rain."),
        Message.assistant("", [call("a"), call("b", "")]),
        Message.tool_result("a", "A"),
        Message.tool_result("b", "B"),
        Message.assistant("Wet."),
    ) == [
        ("human", "Weather?"),
        ("function_call", '{"name":"look","arguments":{"city":"Oslo","days":1}}'),
        ("observation", "Rain."),
        ("function_call", '[{"name":"a","arguments":{}},{"name":"b","arguments":{}}]'),
        ("observation", "A\n\nB"),
        ("gpt", "Wet."),
    ]


def test_text_beside_a_call_is_kept_before_it():
    assert turns(Message.user("u"), Message.assistant("Let me look.", [call("look")])) == [
        ("human", "u"),
        ("gpt", "Let me look."),
        ("function_call", '{"name":"look","arguments":{}}'),
    ]


def test_adjacent_turns_of_one_speaker_become_one_but_no_calls():
    assert turns(
        Message.user("a"), Message.user("b"), Message.assistant(""), Message.assistant("c"),
        Message.assistant("", [call("f")]), Message.assistant("", [call("g")]),
    ) == [
        ("human", "a\n\nb"), ("gpt", "\n\nc"),
        ("function_call", '{"name":"f","arguments":{}}'),
        ("function_call", '{"name":"g","arguments":{}}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        Message.user([IMAGE]),
        Message.user([DocumentPart(url="https://a.example/1.pdf")]),
        Message.assistant("Here.", media=[IMAGE]),
        Message.assistant("", [call("look", "{broken")]),
        Message.assistant("", [call("look", "[" * 200_000)]),
    ],
)
def test_what_it_cannot_carry_is_an_error_that_names_the_node(message):
    root = ChatNode.root("s")
    (_, leaf) = ChatNode.from_messages([message, Message.user("u")])
    copied = root.graft(leaf.root_node)
    with pytest.raises(InvalidParameterError, match=copied.id):
        root.to_sharegpt()


def test_every_form_of_text_has_its_row_and_its_place_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    texts = {name for name in dir(ChatNode) if name.startswith("to_")} - {"to_openai"}  # a list
    assert len(EXPORTS) == len(texts)
    assert all(f"`{suffix}`" in guide for suffix in EXPORTS)


def test_lone_surrogates_do_not_stop_it():
    assert turns(Message.user("a\ud800")) == [("human", "a\ufffd")]
