"""Write requirements/lowest.txt: the lowest versions that pyproject.toml allows, and test tools.

`make lowest` tests them. Run without arguments after a change of pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
FILE = TOP / "requirements" / "lowest.txt"
EXTRAS = ("cli", "httpx", "prices", "otel")  # `local` names one version, which `make test` runs
TEST_TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
HEADER = "# The lowest versions that pyproject.toml allows; tools/lowest_versions.py writes this.\n"


def lowest_versions() -> str:
    """Return the content of the file."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    lines = [_lowest(requirement) for requirement in wanted]
    # The SDK reads back what the API was given, and wants it in its own version.
    lines += [line.replace("-api", "-sdk") for line in lines if line.startswith("opentelemetry-")]
    pinned = (TOP / "requirements" / "dev.txt").read_text()
    for tool in TEST_TOOLS:
        version = re.search(rf"(?m)^{re.escape(tool)}==(\S+)", pinned)
        if version is None:
            raise SystemExit(f"requirements/dev.txt has no version of {tool}")
        lines.append(f"{tool}=={version[1]}")
    return HEADER + "".join(f"{line}\n" for line in sorted(lines))


def _lowest(requirement: str) -> str:
    match = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
    if match is None:
        raise SystemExit(f"pyproject.toml names no lowest version in {requirement!r}")
    return f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    FILE.write_text(lowest_versions())
