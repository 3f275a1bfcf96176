"""Images, audio, video and documents in a message."""

import base64
import binascii
from typing import ClassVar, Literal, Self, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.files import FilePath, file_name, read_small_file
from minillmlib.json_value import with_article
from minillmlib.types.values import check_choice, check_kind

MAX_FILE_BYTES = 50_000_000

_Signature: TypeAlias = tuple[int, bytes, str]  # its offset, its bytes, and the media type

_SIGNATURES: tuple[_Signature, ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftyphev", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypmsf1", "image/heif"),
    (4, b"ftypavi", "image/avif"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AIFF", "audio/aiff"),
    (0, b"fLaC", "audio/flac"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\xef\xbb\xbf%PDF-", "application/pdf"),
)
# These may hold sound, images or both; the label decides.
_CONTAINERS: tuple[_Signature, ...] = (
    (0, b"ID3", "audio/mp3"),
    (0, b"OggS", "audio/ogg"),
    (8, b"M4A ", "audio/m4a"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
)
# Too short to prove that media is of another kind than its part.
_SHORT: tuple[_Signature, ...] = (
    (0, b"BM", "image/bmp"),
    (0, b"\xff\xfb", "audio/mp3"),
    (0, b"\xff\xf3", "audio/mp3"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
)
HEADER_BYTES = 1024  # a PDF and the first element of an SVG begin within these

_SYNONYMS = {"image/jpg": "image/jpeg", "application/x-pdf": "application/pdf"}
# Other names of detected types; the caller's own name is kept.
_SAME_TYPES = {
    "audio/mpeg": "audio/mp3",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "image/heif": "image/heic",
}
_RAW_SAMPLES = ("audio/pcm", "audio/l16", "audio/basic")  # any bytes, without a signature

# For each kind of part, the types that its media cannot have.
_FOREIGN_TYPES = {
    "image/": ("audio/", "video/", "application/", "text/"),
    "audio/": ("image/", "application/pdf"),
    "video/": ("image/", "application/pdf", "audio/"),
    "application/pdf": (),  # has a check of its own
}


class MediaPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all media: either a URL, which is only passed on, or the bytes.

    The library never fetches a URL, and opens a file only in `from_file`.
    """

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None

    kind: ClassVar[str] = "media"
    types: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise InvalidParameterError(f"{self.kind} needs either a url or data")
        source: object = self.url if self.data is None else self.data
        if not isinstance(source, str if self.data is None else bytes):
            raise InvalidParameterError(
                f"the url of {with_article(self.kind)} must be a string and its data bytes"
            )
        if self.data is not None and not self.data:
            raise InvalidParameterError(f"the data of this {self.kind} is empty; give its bytes")
        if self.media_type is not None or self.data is not None:
            msgspec.structs.force_setattr(self, "media_type", self._find_type())

    def _find_type(self) -> str:
        """Return the type that the bytes prove, else the label."""
        named: object = self.media_type
        if named is not None and not (isinstance(named, str) and "/" in named):
            raise InvalidParameterError(
                f"a media_type must look like {self.types}..., not {named!r}"
            )
        label = self.media_type and _SYNONYMS.get(self.media_type.lower(), self.media_type.lower())
        found = label if self.data is None else _detect_type(self.data, self.types, label)
        if found is None:
            raise InvalidParameterError(
                f"the type of this {self.kind} is unknown; name it with media_type"
            )
        if found.startswith(_FOREIGN_TYPES.get(self.types, ())):
            raise InvalidParameterError(
                f"this is {found}, which is no {self.kind}; use the part for its type, such as "
                "DocumentPart for a PDF"
            )
        return found

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a part with an http(s) URL, or with the bytes of a `data:` URL."""
        if not isinstance(url, str):
            raise InvalidParameterError(f"a URL must be a string, not {type(url).__name__}")
        if url.startswith("data:"):
            media_type, data = _split_data_url(url)
            return cls(data=data, media_type=media_type)
        is_address = url.startswith(("https://", "http://")) and url.isprintable()
        if not is_address or " " in url:
            raise InvalidParameterError(
                f"the URL of {with_article(cls.kind)} must be an http(s) or data URL; for a file "
                "use from_file"
            )
        return cls(url=url)

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str | None = None) -> Self:
        """Return a part from its bytes. The default type is detected from the content."""
        return cls(data=data, media_type=media_type)

    @classmethod
    def from_file(cls, path: FilePath, *, max_bytes: int = MAX_FILE_BYTES) -> Self:
        """Return a part from a file. Its type is detected from the content."""
        try:
            return cls(data=read_small_file(path, max_bytes))
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidParameterError(f"{str(path)!r} cannot be read ({reason})") from None

    def as_text(self) -> None:
        """Return None: this part is not text."""

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        assert self.data is not None
        return base64.b64encode(self.data).decode()

    @property
    def data_url(self) -> str:
        """The URL, or the bytes as a `data:` URL."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"


ImageDetail: TypeAlias = Literal["auto", "low", "high", "original"]


class ImagePart(MediaPart, frozen=True, kw_only=True, tag="image"):
    """An image. `detail` sets the resolution at OpenAI; other wires omit it."""

    detail: ImageDetail | None = None
    kind: ClassVar[str] = "image"
    types: ClassVar[str] = "image/"

    def __post_init__(self) -> None:
        MediaPart.__post_init__(self)
        check_choice("the detail of an image", self.detail, get_args(ImageDetail))


class AudioPart(MediaPart, frozen=True, kw_only=True, tag="audio"):
    """A piece of audio."""

    kind: ClassVar[str] = "audio"
    types: ClassVar[str] = "audio/"


class VideoPart(MediaPart, frozen=True, kw_only=True, tag="video"):
    """A video."""

    kind: ClassVar[str] = "video"
    types: ClassVar[str] = "video/"


class DocumentPart(MediaPart, frozen=True, kw_only=True, tag="document"):
    """A PDF document. `from_file` keeps the name of the file."""

    filename: str | None = None
    kind: ClassVar[str] = "document"
    types: ClassVar[str] = "application/pdf"

    def __post_init__(self) -> None:
        MediaPart.__post_init__(self)
        if self.media_type not in (None, self.types):
            raise InvalidParameterError(f"a document must be a PDF, not {self.media_type}")
        check_kind("the filename of a document", self.filename, str)

    @classmethod
    def from_file(cls, path: FilePath, *, max_bytes: int = MAX_FILE_BYTES) -> Self:
        """Return a document from a file, with the name of the file."""
        part = super().from_file(path, max_bytes=max_bytes)
        return msgspec.structs.replace(part, filename=file_name(path))


Media: TypeAlias = ImagePart | AudioPart | VideoPart | DocumentPart


def sniff_type(data: bytes, kind: str) -> str | None:
    """Return the media type by the first bytes, if it starts with `kind` such as `"image/"`."""
    found = (_match(data, table) for table in (_SIGNATURES, _CONTAINERS, _SHORT))
    return next((name for name in found if name is not None and name.startswith(kind)), None)


def _match(data: bytes, signatures: tuple[_Signature, ...]) -> str | None:
    found = (name for start, magic, name in signatures if data.startswith(magic, start))
    return next(found, None)


def _detect_type(data: bytes, kind: str, label: str | None) -> str | None:
    """Return the type of the bytes, whatever the label says; the label if they prove nothing."""
    if label is not None and label.startswith(_RAW_SAMPLES):
        return label
    head = data[:HEADER_BYTES]
    found = _match(data, _SIGNATURES)
    if found is None and kind == "application/pdf" and b"%PDF-" in head:
        found = kind  # behind other bytes, as viewers take it
    if found is None and (container := _match(data, _CONTAINERS)) is not None:
        if kind not in ("audio/", "video/"):
            found = container
        elif label is None or not label.startswith(("audio/", "video/")):
            found = container if container.startswith(kind) else None
    elif found is None and kind == "image/" and b"<svg" in head:
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        found = "image/svg+xml" if text.startswith(b"<") else None
    if found is None and (short := _match(data, _SHORT)) is not None and short.startswith(kind):
        found = short
    is_same = label is not None and _plain_type(label) == _plain_type(found or label)
    return label if is_same else found


def _plain_type(name: str) -> str:
    name = name.replace("/x-", "/")
    return _SAME_TYPES.get(name, name)


def _split_data_url(url: str) -> tuple[str, bytes]:
    head, comma, payload = url.removeprefix("data:").partition(",")
    media_type = head.removesuffix(";base64").partition(";")[0]
    if not comma or not head.endswith(";base64") or not media_type:
        raise InvalidParameterError("a data URL must look like data:TYPE;base64,DATA")
    try:
        return media_type, base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameterError("the data URL does not hold valid base64") from None
