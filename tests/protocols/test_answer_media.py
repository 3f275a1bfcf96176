"""Images and sound that a model makes come back with its answer, and go on where a wire has them."""

from __future__ import annotations

import base64

import msgspec
import pytest
from short_answers import ANSWER, CLAUDE

import minillmlib
from minillmlib import (
    AnthropicProvider,
    AudioPart,
    ChatNode,
    GeneratorInfo,
    GenericProvider,
    ImagePart,
    MalformedResponseError,
    OpenAiProvider,
    OpenRouterProvider,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SAMPLES = bytes(range(256)) * 3
IMAGES = [{"type": "image_url", "index": 0, "image_url": {"url": DATA_URL}}]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def event(delta: dict, finish: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def whole(message: dict) -> ScriptedReply:
    return ScriptedReply.json({"choices": [{"message": message, "finish_reason": "stop"}]})


def asked(reply: ScriptedReply, provider=None) -> tuple[ChatNode, list]:
    """The answer's node, and the chunks of a stream."""
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").replace(
        provider=provider or OpenRouterProvider(), transport=ScriptedTransport([reply])
    )
    stream = ChatNode.root("s").chat_streaming("Draw.", generator)
    chunks = list(minillmlib.iterate(stream))
    return stream.node, chunks


@pytest.mark.parametrize(
    "reply",
    [whole({"content": "Here.", "images": IMAGES}),
     ScriptedReply.events(event({"content": "Here."}), event({"images": IMAGES}), event({}, "stop"))],
    ids=["whole", "streamed"],
)  # fmt: skip
def test_an_image_is_on_the_response_the_node_and_a_chunk(reply):
    node, chunks = asked(reply)
    image = ImagePart.from_bytes(PNG)
    assert node.text == "Here."
    assert node.response.media == node.media == node.message.media == (image,)
    assert [part for chunk in chunks for part in chunk.media] == [image]


def test_an_image_goes_back_to_openrouter_and_is_left_out_elsewhere_with_a_word():
    node, _ = asked(whole({"content": "Here.", "images": IMAGES}))
    for provider, answer in [(OpenRouterProvider(), ANSWER), (OpenAiProvider(), ANSWER),
                             (GenericProvider(), ANSWER), (AnthropicProvider(), CLAUDE)]:  # fmt: skip
        transport = ScriptedTransport([ScriptedReply.json(answer)])
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").replace(
            provider=provider, transport=transport
        )
        again = minillmlib.run(node.chat("Bigger.", generator))
        sent = msgspec.json.decode(transport.requests[0].body)
        goes_back = isinstance(provider, OpenRouterProvider)
        assert (DATA_URL in str(sent)) == goes_back
        assert ("media of earlier answers" in again.response.request_report.omitted) != goes_back
        if goes_back:
            images = sent["messages"][2]["images"]
            assert images == [{"type": "image_url", "image_url": {"url": DATA_URL}}]


def test_a_spoken_answer_is_its_sound_and_what_it_says():
    audio = {
        "id": "audio_1",
        "data": encoded(SAMPLES),
        "transcript": "High water.",
        "expires_at": 1,
    }
    node, _ = asked(whole({"content": None, "audio": audio}), OpenAiProvider())
    assert node.text == "High water."
    assert node.media == (AudioPart(data=SAMPLES, media_type="audio/pcm"),)
    wav = b"RIFF\0\0\0\0WAVEfmt " + SAMPLES
    node, _ = asked(whole({"audio": audio | {"data": encoded(wav)}}), OpenAiProvider())
    assert node.media == (AudioPart.from_bytes(wav),)


def test_pieces_of_a_streamed_sound_are_one_sound():
    cuts = (SAMPLES[:7], SAMPLES[7:500], SAMPLES[500:])
    pieces = [{"audio": {"id": "a", "transcript": "High "}}, {"audio": {"transcript": "water."}},
              *({"audio": {"data": encoded(cut)}} for cut in cuts), {"audio": {"expires_at": 9}}]  # fmt: skip
    reply = ScriptedReply.events(*map(event, pieces), event({}, "stop"))
    node, chunks = asked(reply, OpenAiProvider())
    assert node.text == "High water."
    assert node.media == (AudioPart(data=SAMPLES, media_type="audio/pcm"),)
    assert [part.data for chunk in chunks for part in chunk.media] == list(cuts)


@pytest.mark.parametrize(
    "message",
    [{"images": [{"image_url": {"url": "file:///etc/passwd"}}]}, {"images": [{"b64": "x"}]},
     {"images": [{"image_url": {"url": "data:image/png;base64,!"}}]}, {"images": ["x"]},
     {"images": "x"}, {"audio": {"data": "!"}}, {"audio": {"data": "\xe9"}}, {"audio": 5}],
)  # fmt: skip
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_broken_media_are_a_malformed_response(message, streaming):
    reply = ScriptedReply.events(event(message)) if streaming else whole(message)
    with pytest.raises(MalformedResponseError):
        asked(reply)
