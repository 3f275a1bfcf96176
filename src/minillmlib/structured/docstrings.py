"""Reads docstrings in the styles of Google, NumPy and Sphinx."""

from __future__ import annotations

import inspect
import re

_HEADINGS = ("args", "arguments", "parameters", "params", "keyword args", "keyword arguments",
             "other parameters")  # fmt: skip
_GOOGLE_HEADING = re.compile(r"([A-Z][A-Za-z ]*):\s*")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}`{0,2}(\w+)`{0,2}\s*(?:\([^)]*\))?\s*:(?:\s+|$)(.*)")
_NUMPY_ENTRY = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
_FIELD = re.compile(r"[:@](\w+)(?:\s+([^:]*))?:(?:\s+|$)(.*)")
_PARAMETER_FIELDS = ("param", "parameter", "arg", "argument", "key", "keyword")


def summary_of(doc: str) -> str:
    """Return the first paragraph of a docstring, on one line."""
    lines: list[str] = []
    all_lines = inspect.cleandoc(doc).splitlines()
    for number, line in enumerate(all_lines):
        if not line.strip() or _is_heading(all_lines, number) or _FIELD.match(line):
            break
        lines.append(line.strip())
    return " ".join(" ".join(lines).split())


def parameters_of(doc: str) -> dict[str, str]:
    """Return the descriptions of the parameters, by name, each on one line."""
    lines = inspect.cleandoc(doc).splitlines()
    if lines and _heading(lines[0]) in _HEADINGS:  # `cleandoc` then took its indentation away
        lines = [lines[0], *(f" {line}" for line in lines[1:])]
    found: dict[str, list[str]] = {}
    number = 0
    while number < len(lines):
        field = _FIELD.match(lines[number])
        if field and field[1] in _PARAMETER_FIELDS and field[2]:
            start, number = number, _end_of_block(lines, number + 1)
            found[field[2].split()[-1].strip("*`")] = [field[3], *lines[start + 1 : number]]
        elif _is_heading(lines, number) and _heading(lines[number]) in _HEADINGS:
            is_numpy = _is_underline(lines, number + 1)
            number += 2 if is_numpy else 1
            end = _end_of_numpy(lines, number) if is_numpy else _end_of_block(lines, number)
            section = inspect.cleandoc("\n".join(["", *lines[number:end]])).splitlines()
            _read_entries(section, _NUMPY_ENTRY if is_numpy else _GOOGLE_ENTRY, found)
            number = end
        else:
            number += 1
    return {
        name: text for name, parts in found.items() if (text := " ".join(" ".join(parts).split()))
    }


def _read_entries(lines: list[str], entry: re.Pattern[str], found: dict[str, list[str]]) -> None:
    """Add the entries of a section: those begin at its own indentation, what is deeper is text."""
    names: list[str] = []
    for line in lines:
        if line[:1].isspace() or not line:
            for name in names:
                found[name].append(line)
        elif match := entry.fullmatch(line.rstrip()):
            names = [name.strip(" *") for name in match[1].split(",")]
            text = match[2] if entry is _GOOGLE_ENTRY else ""
            found.update({name: [text] for name in names})
        else:
            names = []


def _heading(line: str) -> str:
    return line.strip().rstrip(":").lower()


def _is_underline(lines: list[str], number: int) -> bool:
    return number < len(lines) and re.fullmatch(r"\s*-{3,}\s*", lines[number]) is not None


def _is_heading(lines: list[str], number: int) -> bool:
    line = lines[number]
    if _is_underline(lines, number + 1) and line.strip():
        return True
    is_indented = number + 1 < len(lines) and lines[number + 1][:1].isspace()
    return _GOOGLE_HEADING.fullmatch(line) is not None and (
        is_indented or _heading(line) in _HEADINGS
    )


def _end_of_block(lines: list[str], number: int) -> int:
    """Return the number of the next line that is not indented."""
    while number < len(lines) and (not lines[number].strip() or lines[number][:1].isspace()):
        number += 1
    return number


def _end_of_numpy(lines: list[str], number: int) -> int:
    """Return the number of the next underlined heading."""
    while number < len(lines) and not (lines[number].strip() and _is_underline(lines, number + 1)):
        number += 1
    return number
