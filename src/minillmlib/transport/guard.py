"""The guard of the engines, by which tests forbid the network."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeAlias

Guard: TypeAlias = Callable[[str], None]  # raises for a host that is forbidden

_guard: Guard | None = None


class NetworkForbiddenError(RuntimeError):
    """This program forbids the network. Engines report it as a `ConnectError`."""


def set_guard(guard: Guard | None) -> Guard | None:
    """Have every engine ask `guard` before it uses a connection; return the previous one."""
    global _guard
    previous, _guard = _guard, guard
    return previous


def check_host(host: str | None) -> None:
    """Raise what the guard raises, if there is one."""
    if _guard is not None:
        _guard(host or "")


def forbid_other_machines(host: str, why: str = "the network is forbidden") -> None:
    """Raise `NetworkForbiddenError` for a host that is not this machine."""
    if not is_loopback(host):
        raise NetworkForbiddenError(why)


def forbid_all(host: str) -> None:
    """Raise `NetworkForbiddenError`."""
    raise NetworkForbiddenError(f"the network is forbidden, also to {host}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its address."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
