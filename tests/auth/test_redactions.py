"""What is left of a text that repeats a secret: all but the secret, and of one that is cut its start."""

from __future__ import annotations

import base64
import json
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest
from secret_echoes import FORMS, KEY

from golden import GOLDEN
from minillmlib import Secret
from minillmlib.auth import redaction
from minillmlib.auth.redaction import Redactor, secret_parts

RECORDED = "redactions.txt"
PLACES = {
    "alone": "{0}",
    "within": "a%20key &amp; {0}\\n; ask",
    "twice": "{0}, {0} \u00e9",
    "a third": "{1} then others",
    "a third and an ellipsis": "{1}... or",
    "a third and a sign of ellipsis": "{1}\u2026 or",
    "half": "{2} then others",
    "half and an ellipsis": "{2}\u2026",
    "half at the end": "the key {2}",
    "the end is cut": "{3}, more",
    "cut in its last character": "the key {4}",
}


def written(form: str, place: str) -> str:
    """A text with the key in a form, whole or cut, at a place."""
    write = FORMS[form]
    whole = write(KEY)
    cuts = [write(KEY[: len(KEY) * part // 12]) for part in (4, 7, 11)]
    return PLACES[place].format(whole, *cuts, whole[:-2])


def recorded_lines() -> dict[str, str]:
    lines = (GOLDEN / "values" / RECORDED).read_text(encoding="utf-8").splitlines()
    return dict(json.loads(line) for line in lines)


def redactions(form: str) -> dict[str, str]:
    redactor = Redactor(Secret(KEY))
    return {f"{form}, {place}": redactor.redact(written(form, place)) for place in PLACES}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_left_of_each_form_at_each_place_is_what_is_recorded(form):
    recorded = recorded_lines()
    for name, text in redactions(form).items():
        assert text == recorded[name], name


SIZES = (1, 2, 3, 7, 20, 50, 1000)


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["in turn", "hex with colons", "base64 in short lines"])
def test_of_a_text_in_pieces_the_same_is_left_as_of_the_whole(form, size):
    redactor = Redactor(Secret(KEY), Secret("another-key-of-ours"))
    text = f"{written(form, 'within')}; another-key-of-ours!".encode()
    redacted = redactor.redact_pieces(cut(text, size))
    assert (b"".join(redacted), len(redacted)) == (redactor.redact(text), len(cut(text, size)))


@pytest.mark.parametrize("size", SIZES)
def test_each_character_that_is_left_stays_in_its_piece(size):
    redactor = Redactor(Secret(KEY), Secret("another-key-of-ours"))
    text, shows = f"a {KEY}, another-key-of-ours!".encode(), b"[hidden]"
    expected = [bytearray() for _ in cut(text, size)]
    for place, byte in enumerate(text):
        if place in {2, 2 + len(KEY) + 2}:
            expected[place // size] += shows
        elif place < 2 or 0 <= place - 2 - len(KEY) < 2 or place == len(text) - 1:
            expected[place // size].append(byte)
    assert redactor.redact_pieces(cut(text, size)) == expected


def test_an_empty_piece_stays_empty():
    pieces = [b"a", KEY[:9].encode(), b"", KEY[9:].encode() + b"b", b"c", b""]
    redacted = Redactor(Secret(KEY)).redact_pieces(pieces)
    assert redacted == [b"a", b"[hidden]", b"", b"b", b"c", b""]
    assert Redactor(Secret(KEY)).redact_pieces([]) == []


# --- what a server may repeat of a secret ---------------------------------------------------------

SIGNS = [base64.urlsafe_b64encode(login).decode().rstrip("=") for login in
         (b"carol:pass??>>", b"carol:pass??>>>", b"carol:pass??>>>>")]  # fmt: skip
LOGIN = base64.b64encode(b"carol:pass:word").decode()
PARTS = {
    "sk-12345": ("sk-12345",),
    "short": ("short",),
    "Bearer abcdef-12345": ("Bearer abcdef-12345", "abcdef-12345", "abcdef-12345"),
    "Bearer abcde": ("Bearer abcde",),
    "Bearer abcdef": ("Bearer abcdef", "abcdef"),
    f"Basic {LOGIN}": (f"Basic {LOGIN}", LOGIN, "carol:pass:word", "carol:pass:word",
                       "pass:word", "pass:word"),
    **{f"Basic {one}": (f"Basic {one}", one, f"carol:pass??{signs}", f"pass??{signs}")
       for one, signs in zip(SIGNS, (">>", ">>>", ">>>>"), strict=True)},
    f"Basic {LOGIN[:6]}!{LOGIN[6:]}": (f"Basic {LOGIN[:6]}!{LOGIN[6:]}", f"{LOGIN[:6]}!{LOGIN[6:]}"),
    "session=abcdefgh; id='1234567', x=\"8901234\"&y=5": (
        "session=abcdefgh; id='1234567', x=\"8901234\"&y=5",
        "session=abcdefgh; id='1234567', x=\"8901234\"&y=5",
        "abcdefgh", "1234567", "8901234"),
    "http://us%40er1:pass%2Fword@proxy:80": (
        "http://us%40er1:pass%2Fword@proxy:80", "http://us%40er1:pass%2Fword@proxy:80",
        base64.b64encode(b"us@er1:pass/word").decode(),
        "us%40er1:pass%2Fword", "us@er1:pass/word", "us%40er1", "pass%2Fword", "us@er1",
        "pass/word"),
    "http://proxy:8080": ("http://proxy:8080", "//proxy:8080"),
    "carola:password": ("carola:password", "carola:password", "carola:password", "carola:password",
                        "carola", "password", "carola", "password"),
}  # fmt: skip


@pytest.mark.parametrize("text", PARTS)
def test_what_is_secret_within_a_secret_is_each_part_of_six_characters(text):
    found = secret_parts(Secret(text))
    assert [*dict.fromkeys(found)] == [*dict.fromkeys(PARTS[text])]


LEAST = {  # the key, the text and what is left of it
    "six characters are a secret": ("abc123", "my abc123 key", "my [hidden] key"),
    "five are none": ("abc12", "my abc12 key", "my abc12 key"),
    "a text of five has none": ("abc123", "abc12", "abc12"),
    "six at the end are cut": (KEY, f"a {KEY[:6]}", "a [hidden]"),
    "five at the end are not": (KEY, f"a {KEY[:5]}", f"a {KEY[:5]}"),
    "half in the middle is cut": (KEY, f"a {KEY[:13]} b", "a [hidden] b"),
    "less than half is not": (KEY, f"a {KEY[:12]} b", f"a {KEY[:12]} b"),
    "of a short key twelve are cut": ("k" * 6 + "x" * 14, f"a {'k' * 6 + 'x' * 6} b", "a [hidden] b"),
    "of a short key eleven are not": (
        "k" * 6 + "x" * 14, f"a {'k' * 6 + 'x' * 5} b", f"a {'k' * 6 + 'x' * 5} b"
    ),
    "a text of other letters": (KEY, f"\u20ac{KEY}\u20ac", "\u20ac[hidden]\u20ac"),
    "half a character": (KEY, f"\ud800{KEY}", "\ud800[hidden]"),
    "a blank as a plus sign": ("my secret words", "?q=my+secret+words in", "?q=[hidden] in"),
    "the start again": ("abababx", "ababababx.", "ab[hidden]."),
    "the start one later": ("aaaaaab", "aaaaaaab.", "a[hidden]."),
    "a cut escape behind a cut key": (KEY, "the key sk-proj\\u00", "the key [hidden]"),
    "a cut escape in a short text": (KEY, "sk-proj\\u0", "[hidden]"),
    "behind what is no escape": (KEY, f"&nosuch; \\u0073{KEY[1:]}.", "&nosuch; [hidden]."),
    "two keys that overlap": ("overlap-one", "xoverlap-one-two.", "x[hidden]-two."),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAST)
def test_a_part_of_a_secret_is_removed_from_a_certain_length_on(name):
    key, text, left = LEAST[name]
    assert Redactor(Secret(key)).redact(text) == left
    data = text.encode("utf-8", "surrogatepass")
    assert Redactor(Secret(key)).redact(data) == left.encode("utf-8", "surrogatepass")


CODED = "key-of-15-chars"
BASE64, HEX = base64.b64encode(CODED.encode()).decode(), CODED.encode().hex()
LEAST_CODED = {
    "sixteen of base64": (f"a {BASE64[:16]} b", "a [hidden] b"),
    "fifteen of base64": (f"a {BASE64[:15]} b", f"a {BASE64[:15]} b"),
    "eight of base64 at the end": (f"a {BASE64[:8]}", "a [hidden]"),
    "seven of base64 at the end": (f"a {BASE64[:7]}", f"a {BASE64[:7]}"),
    "24 of hex": (f"a {HEX[:24]} b", "a [hidden] b"),
    "23 of hex": (f"a {HEX[:23]} b", f"a {HEX[:23]} b"),
    "twelve of hex at the end": (f"a {HEX[:12]}", "a [hidden]"),
    "eleven of hex at the end": (f"a {HEX[:11]}", f"a {HEX[:11]}"),
}


@pytest.mark.parametrize("name", LEAST_CODED)
def test_a_part_of_a_secret_that_is_encoded_is_removed_from_a_certain_length_on(name):
    text, left = LEAST_CODED[name]
    assert Redactor(Secret(CODED)).redact(text) == left


def test_a_secret_within_another_ends_nothing():
    redactor = Redactor(Secret("neighbour"), Secret("abcdefghijkl"), Secret("cdefghi"))
    assert redactor.redact("neighbour abcdefghijkl.") == "[hidden] [hidden]."


@pytest.mark.parametrize("form", ["as it is", "\\u of all", "hex with colons"])
def test_a_secret_is_found_at_every_place_of_a_text_that_is_looked_through_in_parts(
    form, monkeypatch
):
    monkeypatch.setattr(redaction, "WINDOW_BYTES", 64)
    monkeypatch.setattr(redaction, "OVERLAP_BYTES", 32)
    monkeypatch.setattr(redaction, "MAX_FORM_BYTES", 3)
    redactor, one = Redactor(Secret(KEY)), FORMS[form](KEY)
    for start in (*range(60, 70), *range(120, 330, 7)):
        before, behind = "." * start, "." * (700 - start)
        text = f"{before}{one}{behind}{one}"
        assert redactor.redact(text) == f"{before}[hidden]{behind}[hidden]", start
    assert redactor.redact("." * 900) == "." * 900


def test_secrets_that_overlap_are_removed_as_one_and_neighbours_apart():
    redactor = Redactor(Secret("overlap-one"), Secret("lap-one-two"), Secret("neighbour"))
    assert redactor.redact("xoverlap-one-two. neighbourneighbour") == "x[hidden]. [hidden][hidden]"


@pytest.mark.parametrize(
    ("key", "known", "left"),
    [("ollama", "ollama/m", "no ollama here"), ("ollama", "llama", "no [hidden] here"),
     ("o" * 15, "x" + "o" * 15, f"no {'o' * 15} here"),
     ("o" * 16, "x" + "o" * 16, "no [hidden] here")],
)  # fmt: skip
def test_a_key_of_up_to_fifteen_characters_that_is_a_part_of_a_known_name_is_none(key, known, left):
    assert Redactor(Secret(key), known=known).redact(f"no {key} here") == left


# --- escapes ----------------------------------------------------------------------------------------

ESCAPED = {  # `KEY` begins with an s; each of these is one
    "\\u0073": True, "\\u0000073": False, "\\u{73}": True, "\\u{000073}": True, "\\u{0173}": False,
    "\\u00000073": True, "\\u00010073": False, "\\U00000073": True, "\\x73": True, "\\xF3": False,
    "\\163": True, "\\263": False, "%73": True, "%u0073": True, "%u0173": False, "%F3": False,
    "&#115;": True, "&#115": True, "&#0115;": True, "&#x73;": True, "&#X0073;": True,
    "&#x173;": False, "\\s": True, "\\\\s": True, "%2573": True, "%252573": True,
    "%25252573": True, "%2525252573": False, "&amp;#115;": True, "&#1115;": False, "\\\\163": True,
}  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPED)
def test_a_character_may_be_written_as_each_of_these_escapes(escape):
    left = Redactor(Secret(KEY)).redact(f"a {escape}{KEY[1:]} b")
    assert (left == "a [hidden] b") is ESCAPED[escape], left


NAMED = {"&period;": ".", "&sol;": "/", "&plus;": "+", "&amp;": "&", "&quot;": '"', "&lt;": "<",
         "&equals;": "=", "\\/": "/", '\\"': '"', "%20": " ", "&colon;": ":"}  # fmt: skip


@pytest.mark.parametrize("escape", NAMED)
def test_a_sign_may_be_written_by_its_name(escape):
    redactor = Redactor(Secret(f"begin{NAMED[escape]}ending"))
    assert redactor.redact(f"a begin{escape}ending b") == "a [hidden] b"


# --- values and errors --------------------------------------------------------------------------------


class Kind(StrEnum):
    KEYED = KEY


class Pair(NamedTuple):
    first: object
    second: object


class Box(msgspec.Struct, frozen=True):
    text: object
    number: int = 3


VALUES = {
    "a text": (f"a {KEY}", "a [hidden]"),
    "bytes": (f"a {KEY}".encode(), b"a [hidden]"),
    "an item": ([1, KEY, "b"], [1, "[hidden]", "b"]),
    "the last of three": (("a", None, KEY), ("a", None, "[hidden]")),
    "a name": ({KEY: 1, "b": 2}, {"[hidden]": 1, "b": 2}),
    "a value": ({"a": 1, "b": KEY}, {"a": 1, "b": "[hidden]"}),
    "a named tuple": (Pair(1, [KEY]), Pair(1, ["[hidden]"])),
    "a struct": (Box({"a": (KEY,)}), Box({"a": ("[hidden]",)})),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_keeps_its_form_and_loses_its_secrets(name):
    value, left = VALUES[name]
    found = Redactor(Secret(KEY)).redact_value(value)
    assert found == left
    assert type(found) is type(value)
    clean = Redactor(Secret("another-key")).redact_value(value)
    assert clean is value, "a value without a secret is returned itself"
    assert Redactor().redact_value(value) is value


def test_what_is_no_text_stays_itself():
    for value in (Kind.KEYED, 5, None, 2.5, object()):
        assert Redactor(Secret(KEY)).redact_value(value) is value


WRAPS = {
    "list": lambda deep: [deep],
    "tuple": lambda deep: (deep,),
    "dict": lambda deep: {"a": deep},
    "struct": Box,
}


@pytest.mark.parametrize("within", WRAPS)
@pytest.mark.parametrize("around", ["list", "tuple", "dict"])
def test_what_is_too_deep_to_be_looked_through_is_hidden(around, within):
    deep: object = "innermost"
    for _ in range(2000):
        deep = WRAPS[within](deep)
    redacted = Redactor(Secret(KEY)).redact_value(WRAPS[around](deep))
    assert type(redacted) is type(WRAPS[around](0))
    shown = repr(redacted)
    assert "[hidden]" in shown
    assert "innermost" not in shown


def test_of_several_texts_each_is_redacted_under_its_name():
    texts = {"a": f"1 {KEY}", "b": "2", "c": f"{KEY} 3"}
    left = {"a": "1 [hidden]", "b": "2", "c": "[hidden] 3"}
    assert Redactor(Secret(KEY)).redact_all(texts) == left


class OddError(Exception):
    """An error of other code, whose text is not its arguments."""

    def __init__(self, text: str) -> None:
        super().__init__("arguments")
        self._text = text

    def __str__(self) -> str:
        return self._text


def chain(*errors: BaseException) -> BaseException:
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_an_error_loses_its_secrets_and_so_do_those_that_it_came_from():
    first, second, third = ValueError(KEY, 5), KeyError(f"a {KEY}"), OSError(2, KEY)
    first.add_note(KEY)
    first.partial = {"said": KEY}
    second.__context__ = third
    Redactor(Secret(KEY)).redact_error(chain(first, second))
    assert (first.args, second.args, third.args) == (
        ("[hidden]", 5),
        ("a [hidden]",),
        (2, "[hidden]"),
    )
    assert vars(first) == {"__notes__": ["[hidden]"], "partial": {"said": "[hidden]"}}
    assert first.__cause__ is second


def test_an_error_whose_text_keeps_a_secret_is_cut_off_with_all_behind_it():
    first, second, odd = ValueError("a"), ValueError("b"), OddError(KEY)
    Redactor(Secret(KEY)).redact_error(chain(first, second, odd))
    assert first.__cause__ is second
    assert (second.__cause__, second.__context__) == (None, None)
    clean = OddError("nothing")
    Redactor(Secret(KEY)).redact_error(chain(first, clean))
    assert first.__cause__ is clean


def test_errors_that_are_their_own_cause_end():
    first, second = ValueError(KEY), ValueError(KEY)
    first.__context__, second.__context__ = second, first
    Redactor(Secret(KEY)).redact_error(first)
    assert (first.args, second.args) == (("[hidden]",), ("[hidden]",))


def test_without_a_secret_nothing_is_redacted():
    error = ValueError(KEY)
    Redactor().redact_error(error)
    assert (error.args, Redactor().redact(KEY)) == ((KEY,), KEY)
