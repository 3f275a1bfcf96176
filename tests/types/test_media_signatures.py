"""Which bytes are which media: every signature, in every kind of part and beside every label."""

from __future__ import annotations

import pytest
from system_words import null_byte_words

from golden import GOLDEN
from minillmlib import AudioPart, DocumentPart, ImagePart, InvalidParameterError, VideoPart
from minillmlib.types.media import sniff_type

RIFF, BOX = b"RIFF\x10\0\0\0", b"\0\0\0\x18"
SIGNATURES = {  # the first bytes, as few as are needed, and what they are
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    RIFF + b"WEBP": "image/webp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    BOX + b"ftyphei": "image/heic",
    BOX + b"ftyphev": "image/heic",
    BOX + b"ftypmif1": "image/heif",
    BOX + b"ftypmsf1": "image/heif",
    BOX + b"ftypavi": "image/avif",
    RIFF + b"WAVE": "audio/wav",
    RIFF + b"AIFF": "audio/aiff",
    b"fLaC": "audio/flac",
    b"%PDF-": "application/pdf",
    b"\xef\xbb\xbf%PDF-": "application/pdf",
    b"ID3": "audio/mp3",
    b"OggS": "audio/ogg",
    RIFF + b"M4A ": "audio/m4a",
    BOX + b"ftyp": "video/mp4",
    b"\x1aE\xdf\xa3": "video/webm",
    b"\0\0\x01\xba": "video/mpeg",
    b"BM": "image/bmp",
    b"\xff\xfb": "audio/mp3",
    b"\xff\xf3": "audio/mp3",
    b"\xff\xf1": "audio/aac",
    b"\xff\xf9": "audio/aac",
}
PARTS = {
    "image/": ImagePart,
    "audio/": AudioPart,
    "video/": VideoPart,
    "application/pdf": DocumentPart,
}


@pytest.mark.parametrize("magic", SIGNATURES)
def test_the_first_bytes_say_what_media_are_and_nothing_if_one_is_wrong_or_too_many(magic):
    found = SIGNATURES[magic]
    (kind,) = [kind for kind in PARTS if found.startswith(kind)]
    data = magic + b"...."
    assert sniff_type(data, kind) == found
    assert PARTS[kind].from_bytes(data).media_type == found
    assert [sniff_type(data, other) for other in PARTS if other != kind] == [
        "video/mp4" if b"ftyp" in magic and other == "video/" else None
        for other in PARTS
        if other != kind
    ]
    for other in (b"." + data, magic[:-1] + b".", magic[:-1]):
        assert sniff_type(other, kind) is None


DATA = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "HEIC": BOX + b"ftypheic",
    "HEIF": BOX + b"ftypmif1",
    "WAV": RIFF + b"WAVE",
    "PDF": b"%PDF-1.7",
    "a PDF behind junk": b"." * 1019 + b"%PDF-",
    "a PDF too far behind": b"." * 1020 + b"%PDF-",
    "ID3": b"ID3\x04",
    "MP4": BOX + b"ftypisom",
    "M4A": BOX + b"ftypM4A ",
    "Ogg": b"OggS\0",
    "BMP": b"BM....",
    "MP3": b"\xff\xfb\x90",
    "SVG": b"\xef\xbb\xbf \n<svg/>",
    "SVG in words": b"this is <svg>",
    "SVG with a comment": b"<!--" + b"." * 1015 + b"<svg>",
    "SVG too late": b"<!--" + b"." * 1020 + b"<svg>",
    "unknown": b"unknown",
}
LABELS = (
    None, "image/jpg", "IMAGE/PNG", "image/heic", "image/heif", "image/x-bmp", "image/svg+xml",
    "audio/mpeg", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/pcm", "audio/L16;rate=8000",
    "audio/basic", "audio/mp4", "audio/ogg", "video/quicktime", "video/x-new", "application/x-pdf",
    "application/pdf", "application/octet-stream", "text/plain", "pdf",
)  # fmt: skip


def type_of(kind: str, data: bytes | None, label: str | None) -> str:
    """The type of a part beside a label, or why there is none."""
    try:
        if data is None:
            found = PARTS[kind](url="https://x.example/a", media_type=label).media_type
        else:
            found = PARTS[kind].from_bytes(data, label).media_type
    except InvalidParameterError as error:
        refusal = " ".join(str(error).split()[:3]).strip(",")
        named = refusal.removeprefix("this is ")
        return "refused by its label" if label and label.lower() == named else refusal
    return "as labelled" if found == (label and label.lower()) else str(found)


def matrix() -> str:
    """A line for each kind of part and data: what it is beside most labels, and beside the others."""
    lines = []
    for kind in PARTS:
        for name, data in {**DATA, "a URL": None}.items():
            found: dict[str, list[str]] = {}
            for label in LABELS:
                found.setdefault(type_of(kind, data, label), []).append(str(label))
            most = max(found, key=lambda one: len(found[one]))
            others = [f"{one} ({', '.join(of)})" for one, of in found.items() if one != most]
            lines.append("; ".join([f"{name} in {kind}: {most}", *others]))
    return "\n".join(lines) + "\n"


def test_the_type_of_each_data_beside_each_label_is_what_is_recorded():
    assert matrix().splitlines() == (GOLDEN / "values" / "media_types.txt").read_text().splitlines()


def test_a_file_of_more_than_fifty_megabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.png"
    for size, least, options in ((50_000_001, "50,000,000", {}), (9, "8", {"max_bytes": 8})):
        path.write_bytes(DATA["PNG"])
        with path.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(InvalidParameterError) as caught:
            ImagePart.from_file(path, **options)
        assert str(caught.value) == (f"'{path}' cannot be read (it is larger than {least} bytes)")
    assert ImagePart.from_file(path, max_bytes=9).data == DATA["PNG"] + b"\0"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("none.png", "No such file or directory"), (".", "it is a directory, not a regular file"),
     ("a\0b", null_byte_words())],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_the_reason(path, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidParameterError) as caught:
        DocumentPart.from_file(path)
    assert str(caught.value) == f"{path!r} cannot be read ({reason})"


def test_a_document_keeps_the_name_of_its_file_and_its_size_is_bounded(tmp_path):
    path = tmp_path / "a report.pdf"
    path.write_bytes(DATA["PDF"])
    part = DocumentPart.from_file(str(path), max_bytes=8)
    assert part == DocumentPart(
        data=DATA["PDF"], media_type="application/pdf", filename="a report.pdf"
    )
    with pytest.raises(InvalidParameterError, match="larger than 7 bytes"):
        DocumentPart.from_file(path, max_bytes=7)
