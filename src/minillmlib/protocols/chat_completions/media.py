"""Images and sound in an answer of the chat-completions wire."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, excerpt_of
from minillmlib.types.media import AudioPart, ImagePart, Media, sniff_type

__all__ = ["media_in"]

# What has no signature is the one format without: bare samples, 24 kHz, 16 bit.
BARE_SAMPLES = "audio/pcm"


def media_in(images: Sequence[JsonObject], sound: str | None) -> tuple[Media, ...]:
    """What the model made, of a whole answer or of one piece of a stream."""
    made: tuple[Media, ...] = tuple(map(_image, images))
    return (*made, _sound(sound)) if sound else made


def _image(item: JsonObject) -> ImagePart:
    match item.get("image_url"):
        case {"url": str(url)} | str(url):
            try:
                return ImagePart.from_url(url)
            except InvalidParameterError as error:
                raise MalformedResponseError(f"the answer holds a broken image: {error}") from None
    raise MalformedResponseError(f"the answer holds an unknown image: {excerpt_of(item)}")


def _sound(data: JsonValue) -> AudioPart:
    try:
        samples = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedResponseError("the answer holds a broken sound (no base64)") from None
    return AudioPart(data=samples, media_type=sniff_type(samples, "audio/") or BARE_SAMPLES)
