"""The command line: `ask`, `chat`, `run`, `report`, `tree`, `view`, `repair`; the extra `cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]

EXTRA = ("typer", "rich", "click")  # click comes with some releases of typer
INSTALL_LINE = 'error: the command line needs an extra: pip install "minillmlib[cli]"'


def main() -> None:
    """Run the program and exit with its code."""
    try:
        from minillmlib.cli.app import run_app  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(INSTALL_LINE)
    run_app()
