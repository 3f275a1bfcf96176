"""What the inner quotes of a string say about its end: a quotation in it, or JSON."""

from __future__ import annotations

import re

__all__ = ["NOT_IN_BRACKET", "InnerQuotes"]

# Right after an opening bracket, but for one space.
_OPENED = {quote: re.compile(rf"[{{\[]\s?{quote}(?=\w)") for quote in "\"'"}
NOT_IN_BRACKET = r"(?<![{\[])(?<![{\[]\s)"
_BRACKET = re.compile(r"[{}\[\]]")
_CLOSERS = {"{": "}", "[": "]"}
# An inner quote that opens, and what is beside it.
_OPENING = re.compile(r"""(?:.?\W|\\[nrt])?"[^\s,.;:!?)\]}]""", re.DOTALL)


class InnerQuotes:
    """Follows the inner quotes of one string.

    Attributes:
        is_quoting: Whether the last of them opened something.
        closers: The brackets that close the JSON in the string, if some began with a quote.
    """

    __slots__ = ("_opened", "closers", "is_quoting")

    def __init__(self) -> None:
        self.begin("")

    def begin(self, opener: str) -> None:
        """Begins with a string that this quote opens."""
        self._opened = _OPENED.get(opener)
        self.closers: list[str] = []
        self.is_quoting = False

    def last(self, before: str, after: str) -> None:
        """The last of the quotes stands between these one or two characters and this one."""
        self.is_quoting = _OPENING.fullmatch(f'{before}"{after}') is not None

    def read(self, text: str, start: int, end: int, before: str) -> None:
        """Takes a part with quotes, or within JSON, in, which the string's text before precedes."""
        opened = self._opened
        if opened is None:
            return
        if not self.closers and (edge := before[-2:]):
            joint = opened.search(edge + text[start : min(end + 1, start + 3)])
            if joint and joint.start() < len(edge) < joint.end() <= len(edge) + end - start:
                self.closers.append(_CLOSERS[joint[0][0]])
        while match := (_BRACKET if self.closers else opened).search(text, start, end + 1):
            start = match.start() + 1
            if start > end:
                break
            bracket = text[start - 1]
            if bracket in _CLOSERS:
                self.closers.append(_CLOSERS[bracket])
            elif self.closers[-1] == bracket:
                self.closers.pop()
