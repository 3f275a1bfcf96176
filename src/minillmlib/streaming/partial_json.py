"""Reads the JSON of an answer while it streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Self

from minillmlib import json_repair
from minillmlib.errors import JsonRepairError
from minillmlib.json_value import JsonValue

if TYPE_CHECKING:
    from minillmlib.json_repair import IncrementalJson


class PartialJsonStream:
    """The values of `StreamingCompletion.partial_json`.

    Args:
        next_text: Returns the text of the chunk with this number, or None after the last.
        aclose: Closes the stream.
    """

    def __init__(
        self,
        next_text: Callable[[int], Awaitable[str | None]],
        aclose: Callable[[], Coroutine[object, object, None]],
    ) -> None:
        self.aclose = aclose
        self._next_text = next_text
        self._chunks = 0
        self._partial: IncrementalJson | None = json_repair.IncrementalJson()
        self._value: JsonValue = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JsonValue:
        while self._partial is not None:
            text = await self._next_text(self._chunks)
            if text is None:
                return self._last_value()
            self._chunks += 1
            try:
                self._partial.feed(text)
                if text and self._update(self._partial.snapshot()):
                    return self._value
            except JsonRepairError:
                self._partial = None
                raise
        raise StopAsyncIteration

    def _update(self, value: JsonValue) -> bool:
        if value is None or (type(value) is type(self._value) and value == self._value):
            return False
        self._value = value
        return True

    def _last_value(self) -> JsonValue:
        partial, self._partial = self._partial, None
        assert partial is not None
        try:
            value = partial.finish().value
        except JsonRepairError:
            if self._value is not None:
                raise  # earlier values are not the answer, or it is nested too deeply
            raise StopAsyncIteration from None
        if not self._update(value) and self._value is not None:
            raise StopAsyncIteration
        return value
