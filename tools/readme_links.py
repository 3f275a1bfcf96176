"""A hatch hook: the README of the package has absolute links once the repository has an address.

An index page shows the README without the repository around it, so relative links and pictures
would lead nowhere there. The address is set in one place, `Repository` in `[project.urls]` of
pyproject.toml; without one the README stays as it is.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


def absolute_links(text: str, repository: str | None) -> str:
    """Return the text with its relative links and pictures at this address."""
    if not repository:
        return text
    base = repository.rstrip("/")
    return LINK.sub(
        lambda link: f"{link[1]}{link[2]}({base}/{'raw' if link[1] else 'blob'}/HEAD/{link[3]})",
        text,
    )


class ReadmeLinks(MetadataHookInterface):
    """Sets the field `readme`."""

    def update(self, metadata: dict[str, object]) -> None:
        """Add the README, with links that fit the address."""
        urls = metadata.get("urls") or {}
        assert isinstance(urls, dict)
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, urls.get("Repository")),
        }
