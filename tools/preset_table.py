"""Writes the table of presets into the guide, read from the code.

`make presets` puts it into docs/providers.md; a test says when it is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from minillmlib.auth.credentials import (
    AZURE_VARIABLES,
    SUBSCRIPTION_VARIABLE,
    AzureCredential,
    ClaudeSubscriptionToken,
    CredentialSource,
    EnvironmentKey,
)
from minillmlib.providers.presets import PRESETS, Preset

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"
HEAD = "| Name | Address | Key |\n|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")


def draw() -> str:
    """Return the table, in the order of the code."""
    return HEAD + "".join(map(draw_row, PRESETS, PRESETS.values()))


def draw_row(name: str, preset: Preset) -> str:
    """Return the line of one service."""
    names = f"`{name}`"
    if preset.also:
        names += f" (also {', '.join(f'`{also}`' for also in preset.also)})"
    url = preset.provider.endpoint_url(preset.base_url)
    address = "this machine" if name == "local" else f"`{url.replace('|', ' or ')}`"
    return f"| {names} | {address} | {key_of(preset.credential)} |\n"


def key_of(source: CredentialSource) -> str:
    """Return the variables of a key. A source of another kind is an error."""
    match source:
        case EnvironmentKey(variables=variables, fallback=fallback):
            key = " or ".join(f"`{variable}`" for variable in variables)
            return key if fallback is None else f"{key}, if the server wants one"
        case AzureCredential():
            return " or ".join(f"`{variable}`" for variable in reversed(AZURE_VARIABLES))
        case ClaudeSubscriptionToken():
            return f"`{SUBSCRIPTION_VARIABLE}`, or the login of Claude Code"
    if source.resolve().secret() is None:
        return "none"
    raise TypeError(type(source).__name__)


def updated(page: str) -> str:
    """Return the page with the table of today. Raises `ValueError` if it has none."""
    if TABLE.search(page) is None:
        raise ValueError("the page has no table of presets")
    return TABLE.sub(lambda _: draw(), page, count=1)


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
