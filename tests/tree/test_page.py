"""The page of a tree: what stands in it, and that nothing a model wrote becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace
from page_trees import answer, bushy_tree, deep_tree, hostile_strings, picture, travel_tree, tree_of

import minillmlib
from minillmlib import (
    AudioPart,
    ChatNode,
    CompletionResponse,
    DocumentPart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    VideoPart,
)

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
DEPTH = 100_000


def data_of(node: ChatNode) -> dict:
    return json.loads(DATA.search(node.to_html())[1])


def rows_of(node: ChatNode) -> list[dict]:
    return data_of(node)["nodes"]


class Elements(HTMLParser):
    """The tags of a page with their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, attributes))

    def handle_endtag(self, tag):
        self.seen.append(f"/{tag}")

    def handle_comment(self, data):
        self.seen.append("comment")

    def handle_decl(self, declaration):
        self.seen.append(declaration)

    def unknown_decl(self, data):
        self.seen.append("declaration")

    def handle_pi(self, data):
        self.seen.append("instruction")


def nodes_below(root: ChatNode) -> list[ChatNode]:
    nodes, pending = [], [root]
    while pending:
        nodes.append(pending.pop())
        pending += reversed(nodes[-1].children())
    return nodes


def test_a_thousand_hostile_strings_make_no_element_and_no_attribute():
    plain = Elements(travel_tree().to_html("plain")).seen
    hostile = hostile_strings(1000)
    page = tree_of(hostile).to_html("".join(hostile))
    assert Elements(page).seen == plain


def test_the_data_of_hostile_messages_come_back_unchanged_and_hold_no_markup():
    hostile = hostile_strings(1000)
    root = tree_of(hostile)
    page = root.to_html("</title>" + hostile[0])
    written = DATA.search(page)[1]
    assert not set("<>&") & set(written)
    assert page.isascii()
    rows = json.loads(written)["nodes"]
    assert [row["text"] for row in rows] == [node.text or "" for node in nodes_below(root)]
    assert [row["calls"][0] for row in rows if "calls" in row] == [[text] * 3 for text in hostile]


def test_the_policy_lets_only_the_script_and_the_style_of_the_page_run():
    page = travel_tree().to_html()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag in ("script", "style"):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_asks_for_nothing_from_elsewhere():
    page = travel_tree().to_html()
    template = DATA.sub("", page)
    assert not re.search(
        r"https?:|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", template
    )
    assert "innerHTML" not in template
    assert len(template) < 40_000


def test_each_message_has_the_costs_that_its_node_tells():
    root = travel_tree()
    rows, nodes = rows_of(root), nodes_below(root)
    assert [row["path"] for row in rows] == [str(node.path_cost()) for node in nodes]
    assert [row["branch"] for row in rows] == [str(node.subtree_cost()) for node in nodes]
    costs = [row.get("cost") for row in rows]
    assert costs == [str(node.cost) if node.is_generated else None for node in nodes]
    assert rows[0]["branch"] == "at least $0.04465 (1 unknown)"
    assert rows[0]["path"] == "$0"


def test_the_page_of_a_branch_counts_paths_from_the_root_and_says_what_is_above():
    branch = travel_tree().children()[0].children()[1].children()[0]
    data = data_of(branch)
    assert data["above"] == 3
    assert data["nodes"][0]["parent"] == -1
    assert data["nodes"][0]["path"] == str(branch.path_cost()) == "$0.0124"
    assert data["nodes"][-1]["path"] == "$0.0404"
    assert [row["text"] for row in data["nodes"]] == [node.text for node in nodes_below(branch)]


def test_parents_come_before_their_children_and_children_in_their_order():
    root = bushy_tree(500)
    rows = rows_of(root)
    nodes = nodes_below(root)
    assert len(rows) == 500
    for number, row in enumerate(rows[1:], 1):
        assert row["parent"] < number
        assert nodes[number].parent == nodes[row["parent"]]
    assert len({row["id"] for row in rows}) == 500


def test_the_same_tree_gives_the_same_page():
    assert travel_tree().to_html("a") == travel_tree().to_html("a")


def test_a_thread_of_a_hundred_thousand_messages_has_a_page():
    rows = rows_of(deep_tree(DEPTH))
    assert len(rows) == DEPTH
    assert rows[-1]["parent"] == DEPTH - 2
    assert rows[-1]["text"] == f"turn {DEPTH - 1}"


def test_what_an_answer_was_is_told_beside_its_text():
    root = travel_tree()
    rows = {row["text"][:16]: row for row in rows_of(root)}
    asked = rows["Let me look at t"]
    arguments = '{"city": "Lisbon", "days": ["2026-10-30", "2026-10-31"]}'
    assert asked["calls"] == [["call_1", "forecast", arguments]]
    assert "finish" not in asked
    assert rows["2026-10-30  18 °"]["answers"] == "call_1"
    assert rows["Rain in Lisbon i"]["finish"] == "length"
    thoughtful = rows["Before I plan: d"]
    assert thoughtful["thought"].startswith("They want to walk")
    assert thoughtful["model"] == "anthropic/claude-sonnet-4.5"
    assert thoughtful["tokens"] == [87, 43]


def test_the_tokens_of_an_answer_come_with_their_probabilities():
    other = {"token": "<b>", "logprob": -2.123456}
    said = {"token": "Hi", "logprob": -0.25, "top_logprobs": [other]}
    _, _, row = rows_of(answer(ChatNode.root("s"), "Hi", logprobs=[said], said="u").root_node)
    assert row["logprobs"] == [["Hi", -0.25, [["<b>", -2.1235]]]]
    assert not any("logprobs" in row for row in rows_of(travel_tree()))


def test_a_failed_tool_and_failed_attempts_are_told():
    root = ChatNode.root("s")
    call = ToolCall(id="call_9", name="city", arguments="{}")
    asked = root._add(Message.assistant("", [call]))
    asked.add_tool_result("call_9", "no such city", is_error=True)
    once = answer(root.add_user("hi"), "hello", cost=0.25)
    answer(once.add_user("and?"), "that is all", cost=0.5, failures=2)
    system, _, failed, _, hello, _, all_said = rows_of(root)
    assert "failed" not in system
    assert failed["failed"] is True
    assert "attempts" not in hello
    assert all_said["attempts"] == 3


def test_what_an_answer_cost_is_told_with_its_share_of_a_request():
    once = answer(ChatNode.root("s").add_user("u"), "a", cost=0.5)
    (attempt,) = once.response.attempts
    third = replace(once.response, attempts=(replace(attempt, share_of=3),))
    for response, words in (
        (third, "$0.5 (1/3 of a request)"),
        (once.response, "$0.5"),
        (CompletionResponse(content="a"), "at least $0 (1 unknown)"),
    ):
        row = rows_of(ChatNode.root("s").add_response(response).root_node)[1]
        assert row["cost"] == words


def media_rows(*parts: object) -> list[dict]:
    root = ChatNode.root("s")
    root.add_user([TextPart(text="look"), *parts])
    return rows_of(root)[1]["media"]


def test_images_and_sounds_are_in_the_page():
    sound = AudioPart(data=b"RIFF....WAVE")
    image, heard = media_rows(ImagePart(data=picture()), sound)
    assert image["url"] == ImagePart(data=picture()).data_url
    assert heard["url"].startswith("data:audio/wav;base64,")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (ImagePart(url="https://h.example/x.png"), "not loaded from https://h.example/x.png"),
        (ImagePart(data=b"<svg/>", media_type="image/svg+xml"), "6 bytes, left out: this kind is not shown here"),
        (DocumentPart(data=b"%PDF-1.7"), "8 bytes, left out: this kind is not shown here"),
        (VideoPart(data=b"\x1aE\xdf\xa3"), "4 bytes, left out: this kind is not shown here"),
        (ImagePart(data=picture().ljust(2_000_001)), "2,000,001 bytes, left out: more than 2,000,000 bytes"),
    ],
    ids=["elsewhere", "with script", "document", "film", "large"],
)  # fmt: skip
def test_what_is_not_shown_is_named_with_the_reason(part, reason):
    (row,) = media_rows(part)
    assert "url" not in row
    assert row["left_out"].endswith(reason)


def test_a_page_takes_in_twenty_megabytes_of_media_and_names_the_others():
    image = ImagePart(data=picture().ljust(2_000_000, b"\0"))
    tiny = ImagePart(data=b"x", media_type="image/png")
    rest = ImagePart(data=picture().ljust(1_999_999, b"\0"))
    rows = media_rows(*[image] * 9, tiny, image, rest, tiny)
    assert ["url" in row for row in rows] == [True] * 10 + [False, True, False]
    for row, size in ((rows[10], "2,000,000"), (rows[12], "1")):
        told = f"{size} bytes, left out: the page holds enough media already"
        assert row["left_out"] == told


@pytest.mark.parametrize(
    "name",
    ["image/png", "image/jpeg", "image/gif", "image/webp", "audio/wav", "audio/mp3", "audio/mpeg",
     "audio/aac", "audio/flac", "audio/ogg"],
)  # fmt: skip
def test_a_medium_that_browsers_show_and_that_holds_no_script_is_shown(name):
    kind = ImagePart if name.startswith("image") else AudioPart
    (row,) = media_rows(kind(data=b"x", media_type=name))
    assert row == {"kind": name.split("/")[0], "name": name, "url": f"data:{name};base64,eA=="}


def test_importing_the_library_does_not_read_the_page():
    code = (
        "import sys; opened = []; "
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0]))); "
        "import minillmlib; from minillmlib import ChatNode; "
        "before = [path for path in opened if path.endswith('page.html')]; "
        "ChatNode.root('s').to_html(); "
        "print(before, [path for path in opened if path.endswith('page.html')] != [])"
    )
    command = [sys.executable, "-c", code]
    source = str(Path(minillmlib.__file__).parents[1])
    told = subprocess.run(
        command, env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[] True"
