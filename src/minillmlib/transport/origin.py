"""How a server is named in errors: without the path, and never with a credential."""

from urllib.parse import urlsplit

__all__ = ["origin_of_url"]


def origin_of_url(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
