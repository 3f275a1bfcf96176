"""Reads images and sound in an answer of the chat-completions wire."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, excerpt_of
from minillmlib.types.media import AudioPart, ImagePart, Media, sniff_type

__all__ = ["parse_media"]

RAW_SAMPLES = "audio/pcm"  # 24 kHz, 16 bit: the one format without a signature


def parse_media(images: Sequence[JsonObject], audio: str | None) -> tuple[Media, ...]:
    """Return the media of a whole answer or of one piece of a stream."""
    media: tuple[Media, ...] = tuple(map(_parse_image, images))
    return (*media, _parse_audio(audio)) if audio else media


def _parse_image(item: JsonObject) -> ImagePart:
    match item.get("image_url"):
        case {"url": str(url)} | str(url):
            try:
                return ImagePart.from_url(url)
            except InvalidParameterError as error:
                raise MalformedResponseError(f"the answer holds a broken image: {error}") from None
    raise MalformedResponseError(f"the answer holds an unknown image: {excerpt_of(item)}")


def _parse_audio(data: JsonValue) -> AudioPart:
    try:
        samples = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedResponseError("the answer holds a broken sound (no base64)") from None
    return AudioPart(data=samples, media_type=sniff_type(samples, "audio/") or RAW_SAMPLES)
