"""The command line: `minillmlib ask`, `chat`, `tree` and `view`. Needs the extra `cli`.

This module itself needs nothing, so that it can say what to install.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

EXTRA = ("typer", "rich", "click")  # the last belongs to some releases of the first
INSTALL_LINE = 'error: the command line needs an extra: pip install "minillmlib[cli]"'


def main() -> None:
    """Runs the program and exits with its code."""
    try:
        from minillmlib.cli.app import run_app  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(INSTALL_LINE)
    run_app()
