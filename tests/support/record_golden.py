"""Writes the golden files anew that hold what our own functions return, after a change that was wanted.

Run it from the top as `PYTHONPATH=src python tests/support/record_golden.py`, and read the
difference: each line of it is a change that somebody sees.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden" / "values"


def below(value: str) -> str:
    return "".join(f"    {line}\n" for line in value.split("\n")) if value else ""


def write(file: str, lines: Iterable[str]) -> None:
    (GOLDEN / file).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    rooms = ("auth", "client", "costs", "types")
    sys.path[:0] = [str(TESTS / room) for room in (*rooms, "support")]
    load = importlib.import_module
    write("pace_tapes.txt", load("test_pace_tapes").whole_tape())
    write("budget_tapes.txt", load("test_budget_tapes").whole_tape())
    write("forms.txt", (f"{line}\n" for line in load("test_forms").forms()))
    write("media_types.txt", load("test_media_signatures").matrix())
    redactions, values, refused = map(
        load, ("test_redactions", "test_values", "test_refused_values")
    )
    pairs = (pair for form in redactions.FORMS for pair in redactions.redactions(form).items())
    write("redactions.txt", (f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in pairs))
    value_of, refusal_of = (load("recorded_values").__dict__[n] for n in ("value_of", "refusal_of"))
    write("values.txt",
          (f"{one}\n{below(value_of(one, values.NAMES))}" for one in values.RECORDED))  # fmt: skip
    write("refused_values.txt",
          (f"{one}\n{below(refusal_of(one, refused.NAMES))}" for one in refused.RECORDED))  # fmt: skip


if __name__ == "__main__":
    main()
