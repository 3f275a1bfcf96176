"""Draws the rooms of the source and their imports as a Mermaid diagram, read from the code.

`make map` puts it into CONTRIBUTING.md; a test says when it is out of date. An arrow means
"imports"; one that follows from others is left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

TOP = Path(__file__).parents[1]
SOURCE = TOP / "src" / "minillmlib"
PAGE = TOP / "CONTRIBUTING.md"
BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
# Imported by nearly all rooms.
EVERYWHERE = {"errors", "json_value", "deferred_imports", "locks", "version"}


def rooms() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        imports = found.setdefault(room, set())
        for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom(module="minillmlib", names=names):
                    imports.update(name.name for name in names)
                case ast.ImportFrom(module=str(module)) if module.startswith("minillmlib."):
                    imports.add(module.split(".")[1])
    return {room: (imports & found.keys()) - {room} for room, imports in found.items()}


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below one, but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from walk(child)


def draw(imports: dict[str, set[str]]) -> str:
    """Return the diagram: arrows that others imply are left out."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(imports).static_order():
        below[room] = imports[room].union(*(below[other] for other in imports[room]))
    lines = ["flowchart TD"]
    lines += [
        f"  {room}[{room}{'/' if (SOURCE / room).is_dir() else '.py'}]" for room in sorted(imports)
    ]
    for room in sorted(imports):
        implied = set().union(*(below[other] for other in imports[room]))
        lines += [f"  {room} --> {other}" for other in sorted(imports[room] - implied - EVERYWHERE)]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def updated(page: str) -> str:
    """Return the page with the diagram of today."""
    return BLOCK.sub(lambda _: draw(rooms()), page, count=1)


def main() -> None:
    """Write the diagram into the page."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
