"""The type of media is what their bytes say; what no model reads is refused before it is sent."""

from __future__ import annotations

import pytest
from sent_bodies import CHAT, CLAUDE_WIRE, MP4, PDF, PNG, WAV, asked, body_of

from minillmlib import (
    AudioPart,
    DocumentPart,
    GenericProvider,
    ImagePart,
    InvalidParameterError,
    OpenAiProvider,
    OpenRouterProvider,
    VideoPart,
)

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 8
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'
BMP = b"BM" + b"\0" * 20
HEIC = b"\0\0\0\x18ftypheic"
TIFF = b"II*\0" + b"\0" * 8
PICKY = [OpenAiProvider(), OpenRouterProvider(), CLAUDE_WIRE]


@pytest.mark.parametrize(
    ("part", "data", "label", "found"),
    [
        (ImagePart, PNG, "image/jpeg", "image/png"),
        (ImagePart, JPEG, "application/octet-stream", "image/jpeg"),
        (ImagePart, SVG, "image/png", "image/svg+xml"),
        (ImagePart, b"\xef\xbb\xbf <svg/>", None, "image/svg+xml"),
        (ImagePart, BMP, "image/png", "image/bmp"),
        (ImagePart, HEIC, "image/jpeg", "image/heic"),
        (ImagePart, TIFF, "image/png", "image/tiff"),
        (ImagePart, b"\0\0\0\x1cftypavif", None, "image/avif"),
        (ImagePart, b"not known", "image/x-new", "image/x-new"),
        (ImagePart, PNG, "IMAGE/PNG", "image/png"),
        (AudioPart, WAV, "audio/mpeg", "audio/wav"),
        (AudioPart, WAV, "audio/x-wav", "audio/x-wav"),
        (AudioPart, b"ID3\x04\0", "audio/mpeg", "audio/mpeg"),
        (AudioPart, b"\xff\xfb\x90\0", "audio/wav", "audio/mp3"),
        (AudioPart, b"\xff\xfb\x90\0", "audio/pcm", "audio/pcm"),
        (AudioPart, PNG, "audio/pcm16", "audio/pcm16"),
        (AudioPart, MP4, "audio/mp4", "audio/mp4"),
        (AudioPart, b"\x1aE\xdf\xa3", "audio/webm", "audio/webm"),
        (AudioPart, b"\0\0\0\x20ftypM4A ", None, "audio/m4a"),
        (VideoPart, b"\0\0\0\x14ftypqt  ", "video/quicktime", "video/quicktime"),
        (VideoPart, MP4, None, "video/mp4"),
        (VideoPart, b"OggS\0", "video/ogg", "video/ogg"),
        (DocumentPart, b"\xef\xbb\xbf" + PDF, None, "application/pdf"),
        (DocumentPart, b"\r\n\0junk" + PDF, None, "application/pdf"),
    ],
)
def test_the_bytes_decide_and_a_label_only_where_they_cannot(part, data, label, found):
    made = part.from_bytes(data, label)
    assert (made.media_type, made.data) == (found, data)
    again = part(data=data, media_type=found)
    assert again.media_type == found, "a saved part is read as it was"


@pytest.mark.parametrize("part", [ImagePart, AudioPart, VideoPart, DocumentPart])
@pytest.mark.parametrize("label", [None, "image/png", "audio/wav", "video/mp4", "application/pdf"])
def test_empty_media_are_refused_when_they_are_made(part, label):
    with pytest.raises(InvalidParameterError, match="empty"):
        part.from_bytes(b"", label)


@pytest.mark.parametrize(
    ("part", "data", "label"),
    [
        (ImagePart, PDF, "application/pdf"), (ImagePart, PDF, "image/png"), (ImagePart, MP4, "image/gif"),
        (ImagePart, WAV, "image/png"), (ImagePart, b"unknown", "application/pdf"),
        (ImagePart, b"\xef\xbb\xbf" + PDF, "image/png"), (AudioPart, PNG, "audio/wav"),
        (AudioPart, PDF, "audio/mp3"), (VideoPart, JPEG, "video/mp4"), (VideoPart, WAV, "video/mp4"),
        (DocumentPart, PNG, "application/pdf"), (DocumentPart, WAV, None),
        (DocumentPart, b"PK\x03\x04", None),
    ],
)  # fmt: skip
def test_bytes_of_another_kind_than_the_part_are_refused(part, data, label):
    with pytest.raises(InvalidParameterError):
        part.from_bytes(data, label)


def test_a_url_with_the_type_of_something_else_is_refused():
    with pytest.raises(InvalidParameterError, match="DocumentPart"):
        ImagePart(url="https://x.example/a", media_type="application/pdf")


@pytest.mark.parametrize("provider", PICKY)
@pytest.mark.parametrize("data", [SVG, BMP, HEIC, TIFF])
def test_an_image_that_the_vendor_does_not_read_is_refused_by_name(provider, data):
    part = ImagePart.from_bytes(data)
    with pytest.raises(InvalidParameterError, match="takes images as image/jpeg"):
        body_of(provider, asked([part]))


@pytest.mark.parametrize("provider", [*CHAT, CLAUDE_WIRE])
@pytest.mark.parametrize("data", [PNG, JPEG, b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "])
def test_the_four_common_types_are_sent_under_their_real_names(provider, data):
    part = ImagePart.from_bytes(data, "image/bmp")
    assert part.media_type != "image/bmp"
    assert part.media_type in str(body_of(provider, asked([part])))


def test_a_compatible_server_decides_itself_what_it_reads():
    assert "image/bmp" in str(body_of(GenericProvider(), asked([ImagePart.from_bytes(BMP)])))


def test_a_url_of_any_image_is_passed_on():
    part = ImagePart.from_url("https://x.example/a.svg")
    for provider in PICKY:
        assert "a.svg" in str(body_of(provider, asked([part])))
