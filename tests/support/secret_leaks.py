"""What shows a key and is not ours to mend: each entry has to be found in just these sinks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["known_sinks"]

LOG = frozenset(("the log", "the fields of the log"))


@dataclass(frozen=True)
class Leak:
    """Where a key comes to light that should not. Neither shapes nor engine means all of them."""

    reason: str
    ways: tuple[str, ...]
    sinks: frozenset[str]
    shapes: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    engine: str = ""

    def is_of(self, way: str, shape: str, variant: str) -> bool:
        is_shape = shape not in self.but and (not self.shapes or shape in self.shapes)
        return is_shape and way in self.ways and variant.startswith(self.engine)


# Not ours to mend: it is the caller's own client, and shows this at DEBUG only.
LEAKS = (
    Leak(
        "httpcore2 logs the head of an answer",
        (
            "a request id that echoes", "a request id that echoes in base64", "a redirect that echoes",
            "an encoding that echoes", "no HTTP at all", "a header line that is none",
        ),
        LOG, engine="httpx",
    ),
)  # fmt: skip


def known_sinks(way: str, shape: str, variant: str) -> frozenset[str]:
    """Where a key is found, by the table above, after this way with a key of this shape."""
    sinks = (leak.sinks for leak in LEAKS if leak.is_of(way, shape, variant))
    return frozenset().union(*sinks)
