"""Check the types that users see with pyright: python tools/check_types.py PYRIGHT.

Two things that mypy does not: the programs of users (examples/, tests/typing/) under pyright, and
`--verifytypes`, which lists the public names whose type other checkers might infer in another way.
Internal attributes are left to inference. Run it with the Python that has minillmlib installed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import minillmlib
import minillmlib.httpx
import minillmlib.local
import minillmlib.mcp
import minillmlib.otel
import minillmlib.testing

TOP = Path(__file__).resolve().parents[1]
DOORS = (
    minillmlib,
    minillmlib.httpx,
    minillmlib.local,
    minillmlib.mcp,
    minillmlib.otel,
    minillmlib.testing,
)
PUBLIC = {name for door in DOORS for name in door.__all__}
CONFIGURATION = {
    "include": [str(TOP / "examples"), str(TOP / "tests" / "typing")],
    "typeCheckingMode": "standard",
    "pythonVersion": "3.11",
}
DIRECT = ("is missing type annotation", "Ambiguous base class override")


def pyright(program: str, *arguments: str) -> dict:
    """Return the report of one run. It looks for packages where this Python does."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(  # noqa: S603 - our own arguments
        [program, *arguments, "--outputjson"],
        cwd=TOP, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise SystemExit(done.stdout + done.stderr) from None


def program_problems(program: str) -> list[str]:
    """Return what pyright finds in the programs of users."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pyrightconfig.json"
        file.write_text(json.dumps(CONFIGURATION))
        report = pyright(program, "--project", str(file), "--pythonpath", sys.executable)
    if not report["summary"]["filesAnalyzed"]:
        raise SystemExit("pyright has read no file")
    return [
        f"{Path(one['file']).relative_to(TOP)}:{one['range']['start']['line'] + 1}: "
        f"{one['message']}"
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    ]


def surface_problems(program: str) -> list[str]:
    """Return the public names whose type is unknown, or left to inference."""
    report = pyright(program, "--verifytypes", "minillmlib", "--ignoreexternal")
    found = report["typeCompleteness"]
    if not found["exportedSymbolCounts"]["withKnownType"]:
        raise SystemExit("pyright has not found minillmlib; is it installed for this Python?")
    problems = []
    for symbol in found["symbols"]:
        messages = [one["message"].split("\n")[0] for one in symbol.get("diagnostics", ())]
        is_direct = any(text in message for text in DIRECT for message in messages)
        is_unknown = not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
        if is_unknown or (is_direct and PUBLIC & set(symbol["name"].split("."))):
            problems.append(f"{symbol['name']}: {'; '.join(messages)}")
    return problems


def main() -> None:
    """Print all problems; exit with 1 if there is one."""
    program = str(Path(sys.argv[1]).absolute())
    problems = program_problems(program) + surface_problems(program)
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
