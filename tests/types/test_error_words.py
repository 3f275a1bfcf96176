"""Errors and counts in good English: "a" or "an" before a name, and one thing without an s."""

from __future__ import annotations

import pytest

from minillmlib import (
    AudioPart,
    ChatNode,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    Pace,
    TextPart,
    ToolDefinition,
    Usage,
    VideoPart,
)
from minillmlib.testing import ScriptedReply

TEXT = TextPart("x")

REFUSED = {
    "a whole number": (lambda: ScriptedReply.json({}, status="x"), "must be an int, not str"),
    "either number": (
        lambda: ScriptedReply.error(429, retry_after="x"),
        "must be an int | float, not str",
    ),
    "a usage": (lambda: ScriptedReply.text("x", usage=5), "must be a Usage, not int"),
    "a text": (lambda: ToolDefinition(name="f", description=5), "must be a str, not int"),
    "a part": (lambda: Message.user([TEXT, 5]), "not one with an int"),
    "another part": (lambda: Message.user([TEXT, "x"]), "not one with a str"),
    "a message": (lambda: ChatNode.from_messages([5]), "message 0 is an int"),
    "another message": (lambda: ChatNode.from_messages(["x"]), "message 0 is a str"),
    "a file": (lambda: GeneratorInfo.local(5), "not by an int"),
    "an image": (lambda: ImagePart.from_url("x"), "the URL of an image must be"),
    "an audio": (lambda: AudioPart.from_url("x"), "the URL of an audio must be"),
    "a video": (lambda: VideoPart.from_url("x"), "the URL of a video must be"),
    "a document": (lambda: DocumentPart(url=5), "the url of a document must be"),
    "one request": (lambda: Pace(requests_per_minute=1).split(2), "1 request a minute cannot"),
    "two requests": (lambda: Pace(requests_per_minute=2).split(3), "2 requests a minute cannot"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_good_english(name):
    refused, words = REFUSED[name]
    with pytest.raises(InvalidParameterError) as caught:
        refused()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(0, "0 tokens in, 3 out"), (1, "1 token in, 3 out"), (2000, "2,000 tokens in, 3 out")],
)
def test_one_token_is_not_called_tokens(tokens, words):
    assert str(Usage(uncached_input_tokens=tokens, completion_tokens=3)) == words
