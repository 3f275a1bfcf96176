"""The engine that sends when the caller has handed in none."""

from __future__ import annotations

from minillmlib.transport.contract import Transport

__all__ = ["default_transport", "set_default_transport"]

_default: Transport | None = None


def default_transport() -> Transport:
    """The process's shared engine. The HTTP library is imported at the first call."""
    global _default  # noqa: PLW0603 - the one lazily made client
    if _default is None:
        from minillmlib.transport.aiohttp_engine import AiohttpTransport  # noqa: PLC0415 - see above

        _default = AiohttpTransport()
    return _default


def set_default_transport(transport: Transport | None) -> Transport | None:
    """Puts another engine in its place; returns the one before."""
    global _default  # noqa: PLW0603 - see above
    previous, _default = _default, transport
    return previous
