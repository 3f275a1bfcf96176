"""Forbids real calls."""

from collections.abc import Iterator
from contextlib import contextmanager

from minillmlib.transport.guard import forbid_all, forbid_other_machines, set_guard


@contextmanager
def forbid_network(*, allow_loopback: bool = True) -> Iterator[None]:
    """Let no request of this process reach the network: a call raises `ConnectError` at once.

    It holds for the engines of the library, also through a proxy, and for no other package. Scripts
    are not concerned, nor what mocks of aiohttp and httpx2 answer. Servers of this machine, such as
    a test's own or the local model, answer unless `allow_loopback` is False.

    Examples:
        >>> root, generator = ChatNode.root(), GeneratorInfo.openai("gpt-4o-mini")
        >>> with forbid_network(), use_transport(ScriptedTransport(["Paris."])):
        ...     run(root.chat("Hello", generator)).text  # without the script a ConnectError
        'Paris.'
    """
    previous = set_guard(forbid_other_machines if allow_loopback else forbid_all)
    try:
        yield
    finally:
        set_guard(previous)
