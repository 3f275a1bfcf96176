"""Images, sounds, films and documents beside the text of a message."""

import base64
import binascii
from typing import ClassVar, Literal, Self, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.files import FilePath, file_name, read_small_file

__all__ = [
    "AudioPart",
    "DocumentPart",
    "ImagePart",
    "Media",
    "MediaPart",
    "VideoPart",
    "sniffed_type",
]

MAX_FILE_BYTES = 50_000_000

# The first bytes of a file, where they start, and the type they tell.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mp3"),
    (0, b"\xff\xfb", "audio/mp3"),
    (0, b"\xff\xf3", "audio/mp3"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (8, b"AIFF", "audio/aiff"),
    (8, b"M4A ", "audio/m4a"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"%PDF-", "application/pdf"),
)


_SYNONYMS = {"image/jpg": "image/jpeg", "application/x-pdf": "application/pdf"}


class MediaPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the kinds of media share: either a URL, which is only passed on, or the bytes.

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
        _check_source(self.kind, self.url, self.data)
        if self.media_type is not None:
            media_type = _checked_type(self.media_type, self.types)
            msgspec.structs.force_setattr(self, "media_type", media_type)
        elif self.data is not None:
            msgspec.structs.force_setattr(self, "media_type", self._sniffed(self.data))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """A part at an http(s) URL, or in a `data:` URL, which is taken apart."""
        if not isinstance(url, str):
            raise InvalidParameterError(f"a URL is a string, not {type(url).__name__}")
        if url.startswith("data:"):
            media_type, data = _split_data_url(url)
            return cls(data=data, media_type=media_type)
        is_address = url.startswith(("https://", "http://")) and url.isprintable()
        if not is_address or " " in url:
            raise InvalidParameterError(
                f"{cls.kind} can be given by an http(s) or data URL; for a file use from_file"
            )
        return cls(url=url)

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str | None = None) -> Self:
        """A part from its bytes. The type is told by the content if it is not given."""
        return cls(data=data, media_type=media_type)

    @classmethod
    def from_file(cls, path: FilePath, *, max_bytes: int = MAX_FILE_BYTES) -> Self:
        """A part from a file, whose type is told by its content. At most 50 MB unless set."""
        try:
            return cls(data=read_small_file(path, max_bytes))
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidParameterError(f"{str(path)!r} cannot be read ({reason})") from None

    def as_text(self) -> None:
        """None: this part is not text."""

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        assert self.data is not None
        return base64.b64encode(self.data).decode()

    @property
    def data_url(self) -> str:
        """The URL as given, or the bytes as a `data:` URL."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"

    @classmethod
    def _sniffed(cls, data: bytes) -> str:
        media_type = sniffed_type(data, cls.types)
        if media_type is None:
            raise InvalidParameterError(
                f"these bytes are no {cls.kind} of a known type; name it with media_type"
            )
        return media_type


class ImagePart(MediaPart, frozen=True, kw_only=True, tag="image"):
    """An image. `detail` is OpenAI's hint on how closely to look; others are not told."""

    detail: Literal["auto", "low", "high", "original"] | None = None
    kind: ClassVar[str] = "image"
    types: ClassVar[str] = "image/"

    def __post_init__(self) -> None:
        MediaPart.__post_init__(self)
        if self.detail not in (None, "auto", "low", "high", "original"):
            raise InvalidParameterError(
                f"the detail of an image is auto, low, high or original, not {self.detail!r}"
            )


class AudioPart(MediaPart, frozen=True, kw_only=True, tag="audio"):
    """A sound."""

    kind: ClassVar[str] = "audio"
    types: ClassVar[str] = "audio/"


class VideoPart(MediaPart, frozen=True, kw_only=True, tag="video"):
    """A film."""

    kind: ClassVar[str] = "video"
    types: ClassVar[str] = "video/"


class DocumentPart(MediaPart, frozen=True, kw_only=True, tag="document"):
    """A PDF document. `from_file` takes over the file's name."""

    filename: str | None = None
    kind: ClassVar[str] = "document"
    types: ClassVar[str] = "application/pdf"

    def __post_init__(self) -> None:
        MediaPart.__post_init__(self)
        if self.media_type not in (None, self.types):
            raise InvalidParameterError(f"a document is a PDF, not {self.media_type}")
        if not isinstance(self.filename, str | None):
            raise InvalidParameterError("the filename of a document is a string")

    @classmethod
    def from_file(cls, path: FilePath, *, max_bytes: int = MAX_FILE_BYTES) -> Self:
        """A document from a file, by its content and with its name. At most 50 MB unless set."""
        part = super().from_file(path, max_bytes=max_bytes)
        return msgspec.structs.replace(part, filename=file_name(path))


Media: TypeAlias = ImagePart | AudioPart | VideoPart | DocumentPart


def sniffed_type(data: bytes, kind: str) -> str | None:
    """The media type of that kind (as in `"image/"`) that the first bytes tell, or None."""
    for start, signature, media_type in _SIGNATURES:
        if data.startswith(signature, start) and media_type.startswith(kind):
            return media_type
    return None


def _checked_type(media_type: object, types: str) -> str:
    if not isinstance(media_type, str) or "/" not in media_type:
        raise InvalidParameterError(f"a media_type looks like {types}..., not {media_type!r}")
    return _SYNONYMS.get(media_type.lower(), media_type.lower())


def _check_source(kind: str, url: object, data: object) -> None:
    if not isinstance(url, str | None) or not isinstance(data, bytes | None):
        raise InvalidParameterError(f"the url of an {kind} is a string, its data are bytes")


def _split_data_url(url: str) -> tuple[str, bytes]:
    head, comma, payload = url.removeprefix("data:").partition(",")
    media_type = head.removesuffix(";base64").partition(";")[0]
    if not comma or not head.endswith(";base64") or not media_type:
        raise InvalidParameterError("a data URL must look like data:TYPE;base64,DATA")
    try:
        return media_type, base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameterError("the data URL does not hold valid base64") from None
