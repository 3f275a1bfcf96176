"""Redaction of secrets in server responses, in every form in which gateways echo them."""

from __future__ import annotations

import base64
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from enum import Enum
from functools import partial
from itertools import accumulate
from operator import is_
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from minillmlib.auth.secret import HIDDEN, Secret
from minillmlib.json_value import JsonValue

MIN_SECRET_CHARS = 6  # a shorter one protects nothing, and redacting it would garble any text
MIN_STEM_CHARS = 12  # of a secret that is cut in the middle of a text; its half, if that is longer
MAX_NAME_CHARS = 15  # of a key like "ollama", which servers without keys are given
MAX_LAYERS = 4  # of escapes: JSON in JSON in a URL
WINDOW_BYTES = 256 * 1024  # looked through at once, so that memory does not grow with the text
OVERLAP_BYTES = 32 * 1024
MAX_FORM_BYTES = 24  # for a character, as `\\\\u0041` in two more layers

TextT = TypeVar("TextT", str, bytes)
ValueT = TypeVar("ValueT")
Span = tuple[int, int]
Locate = Callable[[int, int], Span]


_DIVIDER = r"[\s=:]"
_SCHEME = r"[A-Za-z][\w.+-]*\s+(?=\S)"
_LOGIN = r"([^\s:/{}\"]*):(\S*)"
_ADDRESS = r"[A-Za-z][\w.+-]*://([^/?#\s]*)@"


def secret_parts(secret: Secret) -> tuple[str, ...]:
    """Return the texts that a server may echo: the secret, and what is secret within it.

    Of a header that is what follows the scheme, the value of each `name=value`, as in a cookie,
    and user and password, also within base64; of an address its user and password.
    """
    text = secret.expose_secret()
    if re.search(_DIVIDER, text) is None:  # as nearly all
        return (text,)
    return tuple(part for part in (text, *_divide(text)) if len(part) >= MIN_SECRET_CHARS)


def _divide(text: str) -> Iterator[str]:
    scheme, address = re.match(_SCHEME, text), re.match(_ADDRESS, text)
    token = text[scheme.end() :] if scheme else text
    yield token
    for pair in re.split(r"[;,&\s]+", token):
        yield pair.partition("=")[2].strip("\"'")
    if address:
        yield base64.b64encode(unquote(address[1]).encode()).decode()  # as it is sent
    for login in (address[1] if address else token, _decode_login(token)):
        found = re.fullmatch(_LOGIN, login)
        if found is not None:
            yield from (login, unquote(login), *found.groups(), *map(unquote, found.groups()))


def _decode_login(token: str) -> str:
    """Return the text that `token` encodes, as after `Basic`, or an empty one."""
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()
    except ValueError:
        return ""
    return text if text.isascii() else ""


class Redactor:
    """Removes secrets from texts and values, in whatever form they were escaped or encoded.

    Each character may be written as it is, as an escape of JSON, Python or JavaScript, as an
    entity of HTML or as in a URL, in several layers; the whole also in base64 or hexadecimal. Of
    a secret that is cut, the start is removed: at the end of a text and before an ellipsis all but
    a few characters, elsewhere if it is half of the secret. A short key that is a part of `known`,
    such as a name of the host or of the model, is none.

    Keeps no text of a secret.
    """

    __slots__ = ("_known", "_secrets")

    def __init__(self, *secrets: Secret, known: str = "") -> None:
        self._secrets = secrets
        self._known = known

    def redact(self, text: TextT) -> TextT:
        """Return `text` without the secrets. Meant for failures: it takes milliseconds."""
        return _redact(text, self._needles()) if self._secrets else text

    def redact_pieces(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Return the pieces of one text without the secrets, also those that a boundary cuts."""
        data = b"".join(pieces)
        ends, redacted = list(accumulate(map(len, pieces))), [bytearray() for _ in pieces]
        position = 0
        for first, last in [*_spans_to_hide(data, self._needles()), (len(data), len(data))]:
            while position < first:
                place = bisect_right(ends, position)
                end = min(first, ends[place])
                redacted[place] += data[position:end]
                position = end
            if first < last:
                redacted[bisect_right(ends, first)] += HIDDEN.encode()
            position = last
        return list(map(bytes, redacted))

    def redact_all(self, texts: Mapping[str, str]) -> dict[str, str]:
        needles = self._needles()
        return {name: _redact(text, needles) for name, text in texts.items()}

    def redact_value(self, value: ValueT) -> ValueT:
        """Return a value without the secrets in any text of it: of fields, items or keys.

        A value without any is returned itself. Recurses; what is too deep for that is removed.
        """
        return _redact_value(value, self._needles()) if self._secrets else value

    def redact_error(self, error: BaseException) -> None:
        """Remove the secrets from an error, and from those that it was raised from."""
        if not self._secrets:
            return
        needles = self._needles()
        each: BaseException | None = error
        seen: list[BaseException] = []
        while each is not None and not any(map(partial(is_, each), seen)):
            seen.append(each)
            with suppress(Exception):  # in those behind it, of other code
                each.args = _redact_value(each.args, needles)
                vars(each).update(_redact_value(vars(each), needles))
            cause = each.__cause__ or each.__context__
            if cause is not None and not _is_clean(cause, needles):  # its text is not its args
                each.__cause__ = each.__context__ = cause = None
            each = cause

    def _needles(self) -> list[_Needle]:
        parts = dict.fromkeys(part for secret in self._secrets for part in secret_parts(secret))
        texts = (part for part in parts if len(part) > MAX_NAME_CHARS or part not in self._known)
        return [needle for text in texts for needle in _needles_of(text)]


class _Needle:
    """A form of a secret, and the least of its start that is removed at the end and elsewhere."""

    __slots__ = ("data", "min_bytes", "stem", "view")

    def __init__(self, data: bytes, view: str, min_bytes: int, min_stem: int) -> None:
        self.data = data
        self.view = view  # in which it is looked for
        self.stem = data[: max(min_stem, (len(data) + 1) // 2)]
        self.min_bytes = min(min_bytes, len(self.stem))


def _needles_of(text: str) -> Iterator[_Needle]:
    if len(text) < MIN_SECRET_CHARS:
        return
    data = text.encode()
    forms = [data, *(view for view, _ in _layers(data))]
    if " " in text:
        forms.append(data.replace(b" ", b"+"))  # as in the query of a URL
    for form in dict.fromkeys(forms):
        if len(form) >= MIN_SECRET_CHARS:
            yield _Needle(form, "text", MIN_SECRET_CHARS, MIN_STEM_CHARS)
    for encoded in _base64_forms(data):
        if len(encoded) >= MIN_SECRET_CHARS:
            yield _Needle(encoded, "base64", 8, MIN_STEM_CHARS * 4 // 3)
    yield _Needle(data.hex().encode(), "hex", 2 * MIN_SECRET_CHARS, 2 * MIN_STEM_CHARS)


def _base64_forms(data: bytes) -> Iterator[bytes]:
    """Yield `data` in base64 at each offset.

    Base64 encodes three bytes at a time, so the text before shifts it by none, one or two. The
    characters at both ends depend on the neighbours and are omitted.
    """
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).rstrip(b"=")
        yield encoded[(0, 2, 3)[shift] : -2]


def _redact(text: TextT, needles: list[_Needle]) -> TextT:
    if len(text) < MIN_SECRET_CHARS:
        return text
    if isinstance(text, bytes):
        return _redact_bytes(text, needles)
    data = text.encode("utf-8", "surrogatepass")
    redacted = _redact_bytes(data, needles)
    return text if redacted is data else redacted.decode("utf-8", "surrogatepass")


def _redact_bytes(data: bytes, needles: list[_Needle]) -> bytes:
    redacted, position = bytearray(), 0
    for first, last in _spans_to_hide(data, needles):
        redacted += data[position:first]
        redacted += HIDDEN.encode()
        position = last
    return bytes(redacted + data[position:]) if redacted else data


def _spans_to_hide(data: bytes, needles: list[_Needle]) -> list[Span]:
    """Return where the secrets are, in order, and those that overlap as one."""
    longest = max((len(needle.data) for needle in needles), default=0)
    overlap = max(OVERLAP_BYTES, MAX_FORM_BYTES * longest)
    spans: list[Span] = []
    for start in range(0, max(1, len(data) - overlap), WINDOW_BYTES):
        window = data[start : start + WINDOW_BYTES + overlap]
        is_end = start + len(window) == len(data)
        for first, last in sorted(_find_all(window, needles, is_end=is_end)):
            if first >= WINDOW_BYTES and not is_end:
                break  # the next window has it whole
            if spans and start + first < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], start + last))
            else:
                spans.append((start + first, start + last))
    return spans


def _find_all(data: bytes, needles: list[_Needle], *, is_end: bool) -> Iterator[Span]:
    """Yield where the needles are, in each layer of escapes and in each view of it."""
    for layer, locate in ((data, _same), *_layers(data, is_end=is_end)):
        ends = {layer, _without_cut_escape(layer)} if is_end else {layer}
        for text in ends:
            for view, table, deleted in _VIEWS:
                shown = text.translate(table, deleted) if deleted else text
                places = None
                for needle in needles:
                    if needle.view != view:
                        continue
                    for first, last in _find(shown, needle, is_end=is_end):
                        places = places or _locate_undeleted(text, deleted)
                        start, end = locate(*places(first, last))
                        yield start, len(data) if is_end and last == len(shown) else end


_BASE64_TABLE = bytes.maketrans(b"-_", b"+/")
_HEX_TABLE = bytes.maketrans(b"ABCDEF", b"abcdef")
# Base64 may be cut in lines, and the bytes of hexadecimal text may be separated.
_VIEWS: tuple[tuple[str, bytes | None, bytes], ...] = (
    ("text", None, b""),
    ("base64", _BASE64_TABLE, b" \t\r\n"),
    ("hex", _HEX_TABLE, b" \t\r\n:"),
)


def _find(data: bytes, needle: _Needle, *, is_end: bool) -> Iterator[Span]:
    shortest = needle.data[: needle.min_bytes]
    start = data.find(shortest)
    while start >= 0:
        end = start + _common_start(needle.data, data, start)
        is_cut = data.startswith(_CUT_MARKS, end) or (is_end and end == len(data))
        if is_cut or end - start >= len(needle.stem):
            yield start, end
        else:
            end = start + 1
        start = data.find(shortest, end)


_CUT_MARKS = ("\N{HORIZONTAL ELLIPSIS}".encode(), b"...")


def _common_start(needle: bytes, data: bytes, start: int) -> int:
    """Return how many bytes of the needle are at `start`."""
    if data.startswith(needle, start):
        return len(needle)
    low, high = 0, min(len(needle), len(data) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if data.startswith(needle[:middle], start):
            low = middle
        else:
            high = middle - 1
    return low


def _same(first: int, last: int) -> Span:
    return first, last


def _locate_undeleted(data: bytes, deleted: bytes) -> Locate:
    """Return where a span of `data` without the deleted bytes is in `data`."""
    if not deleted or not any(byte in data for byte in deleted):
        return _same
    gaps = [found.span() for found in re.finditer(b"[%b]+" % deleted, data)]
    ends = [end for _, end in gaps]
    removed = list(accumulate(end - start for start, end in gaps))
    places = [end - count for end, count in zip(ends, removed, strict=True)]

    def locate(first: int, last: int) -> Span:
        return _shift(places, ends, first), _shift(places, ends, last - 1) + 1

    return locate


def _shift(places: list[int] | array[int], ends: list[int] | array[int], place: int) -> int:
    number = bisect_right(places, place) - 1
    return place if number < 0 else ends[number] + place - places[number]


# Characters below 128 only: no secret has any other. Of JSON, Python, JavaScript, C; of URLs; of
# HTML. Zeros are possessive, so that each byte is read once.
_ESCAPE = (
    rb"\\(?:u\{0*+([0-9a-f]{1,2})\}|u(?:0000)?00([0-7][0-9a-f])|x([0-7][0-9a-f])|([01][0-7]{2})|(.))"
    rb"|%(?:u00)?([0-7][0-9a-f])"
    rb"|&(?:#0*+(\d{1,3})|#x0*+([0-9a-f]{1,2})|([a-z]{2,8})(?=;));?"
)
_FLAGS = re.IGNORECASE | re.DOTALL
_BASES = (0, 16, 16, 16, 8, 0, 16, 10, 16, 0)
_SHORT, _NAMED = 5, 9  # the groups of _ESCAPE that are no numbers
_SHORT_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_CUT_ESCAPE = (
    rb"(?:\\(?:u[0-9a-f]{0,7}|u\{[0-9a-f]{0,3}|x[0-9a-f]?|[01][0-7]?)?|%(?:u0{0,2})?[0-9a-f]?"
    rb"|&(?:#?[0-9a-z]{0,8})?)\Z"
)
_MAX_CUT_ESCAPE = 12


def _layers(data: bytes, *, is_end: bool = False) -> Iterator[tuple[bytes, Locate]]:
    """Yield the text without its escapes, without those that this reveals, and so on."""
    locate: Locate = _same
    for _ in range(MAX_LAYERS):
        decoded = _decode(_without_cut_escape(data) if is_end else data)
        if decoded is None:
            return
        data, inner = decoded
        locate = _chain(locate, inner)
        yield data, locate


def _chain(outer: Locate, inner: Locate) -> Locate:
    return lambda first, last: outer(*inner(first, last))


def _decode(data: bytes) -> tuple[bytes, Locate] | None:
    """Return the text without one layer of escapes, and where its spans are in `data`."""
    if not (b"\\" in data or b"%" in data or b"&" in data):
        return None
    parts: list[bytes] = []
    places, ends = array("L"), array("L")  # behind each escape, decoded and as it came
    position = place = 0
    for found in re.finditer(_ESCAPE, data, _FLAGS):
        char = _char_of(found)
        if char is None:
            continue
        start, end = found.span()
        parts += (data[position:start], char)
        place += start - position + 1
        position = end
        places.append(place)
        ends.append(end)
    if not parts:
        return None
    parts.append(data[position:])
    return b"".join(parts), lambda first, last: (
        _shift(places, ends, first),
        _shift(places, ends, last),
    )


def _char_of(found: re.Match[bytes]) -> bytes | None:
    group = found.lastindex or 0
    text = found[group]
    if group == _SHORT:
        return _SHORT_ESCAPES.get(text, text)
    if group == _NAMED:
        from html.entities import html5  # noqa: PLC0415 - large, and rarely needed

        name = html5.get(text.decode() + ";", "")
        return name.encode() if len(name) == 1 and name.isascii() else None
    code = int(text, _BASES[group])
    return bytes((code,)) if code < 128 else None


def _without_cut_escape(data: bytes) -> bytes:
    """Return the text without the start of an escape at its end."""
    tail = data[-_MAX_CUT_ESCAPE:]
    found = re.search(_CUT_ESCAPE, tail, _FLAGS)
    return data if found is None else data[: len(data) - len(tail) + found.start()]


def _redact_value(value: ValueT, needles: list[_Needle]) -> ValueT:
    redacted: JsonValue
    try:
        redacted = _walk(value, needles)
    except RecursionError:
        if type(value) not in _TOO_DEEP:
            raise
        redacted = copy(_TOO_DEEP[type(value)])
    result: ValueT = redacted
    return result


# In place of what is too deep to be looked through.
_TOO_DEEP: dict[type, JsonValue] = {
    dict: {HIDDEN: HIDDEN}, list: [HIDDEN], tuple: (HIDDEN,), str: HIDDEN, bytes: HIDDEN.encode(),
}  # fmt: skip


def _walk(value: object, needles: list[_Needle]) -> object:
    match value:
        case Enum():
            pass
        case str():
            return _redact(value, needles)
        case bytes():
            return _redact(value, needles)
        case dict():
            names = [_redact_value(name, needles) for name in value]
            items = [_redact_value(item, needles) for item in value.values()]
            is_same = all(map(is_, names, value)) and all(map(is_, items, value.values()))
            return value if is_same else dict(zip(names, items, strict=True))
        case list() | tuple():
            items = [_redact_value(item, needles) for item in value]
            make = getattr(value, "_make", type(value))  # of a named tuple
            return value if all(map(is_, items, value)) else make(items)
        case msgspec.Struct():
            fields = msgspec.structs.asdict(value)
            redacted: JsonValue = _walk(fields, needles)  # which puts nothing else in their place
            return value if redacted is fields else msgspec.structs.replace(value, **redacted)
    return value


def _is_clean(error: BaseException, needles: list[_Needle]) -> bool:
    """Whether an error of other code will show no secret once its arguments are redacted."""
    try:
        error.args = _redact_value(error.args, needles)
        text = f"{error} {error!r}"
    except Exception:  # noqa: BLE001 - somebody else's code
        return False
    return _redact(text, needles) == text
