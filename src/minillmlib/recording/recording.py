"""Records what generators and servers say to each other, and plays it back without a network."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Literal, Self

from minillmlib.errors import InvalidParameterError, NotRecordedError, StorageError
from minillmlib.files import FilePath
from minillmlib.locks import fork_safe_lock
from minillmlib.recording.differences import MAX_SHOWN, nearest
from minillmlib.recording.exchanges import ExchangeRecorder, replay
from minillmlib.recording.records import RecordedExchange, RecordedRequest
from minillmlib.recording.store import RecordingStore
from minillmlib.transport.base import (
    HttpRequest,
    HttpResponse,
    Transport,
    check_transport,
    note_not_sent,
)
from minillmlib.transport.default import transport_below
from minillmlib.types.values import check_choice

MAX_COMPARED = 1000  # exchanges, for an error
Mode = Literal["once", "replay", "new"]


class Recording:
    """A transport that records exchanges to a file, and plays them back without a network.

    A request is answered as the recorded one with the same method, address, JSON and headers:
    status, headers, pieces of the body, and errors; the reader of one that was cancelled waits
    until it is cancelled, too. Equal requests get their answers in the order in which they were
    sent. Secrets are not recorded, and not compared.

    Args:
        path: The file, one line of JSON for each exchange.
        mode: `"once"` records what the file does not have, `"replay"` never uses the network, and
            `"new"` records all; the old file is replaced at the end of a `with` block without an
            error, or by `close`.
        transport: The transport to record, by default that of generators without one of their own.
        keeps_timing: Whether the pieces come at their recorded times, and not at once.

    Raises:
        StorageError: The file cannot be read, or a line of it is not of a recording.

    Sending raises `NotRecordedError` for a request that is not recorded, with the nearest one, and
    `StorageError` if an exchange cannot be written.

    Examples:
        >>> recording = Recording("capitals.jsonl")
        >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_transport(recording)
        >>> run(ChatNode.root("Be brief.").chat("The capital of France?", generator)).text
        'Paris.'
    """

    _is_dropped = False  # whether what is new would be lost

    def __init__(
        self,
        path: FilePath,
        mode: Mode = "once",
        *,
        transport: Transport | None = None,
        keeps_timing: bool = False,
    ) -> None:
        check_choice("the mode of a recording", mode, ("once", "replay", "new"))
        check_transport(transport)
        self._path = path
        self._mode = mode
        self.inner = transport
        self._keeps_timing = keeps_timing
        self._lock = fork_safe_lock()
        self._asked: Counter[bytes] = Counter()
        self._new: list[RecordedExchange] = []
        self._store = RecordingStore(path)
        if mode != "new":
            self._store.read_new()
        if mode == "replay" and not self._store.exists:
            raise StorageError(
                f"{self._store.name!r} does not exist, so it cannot be replayed; record it with "
                'mode="once"'
            )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the recorded response to `request`, or send it and record what comes."""
        recorder = ExchangeRecorder(request, self._add)
        asked = recorder.request
        with self._lock:
            number = self._asked[asked.key]
            self._asked[asked.key] += 1
        places = self._store.places(asked.key)
        if number < len(places):
            try:
                exchange = self._store.load(places[number])
            except StorageError as error:
                note_not_sent(error)
                raise
            return await replay(exchange, keeps_timing=self._keeps_timing)
        if self._mode == "replay":
            raise self._miss(asked, len(places))
        return await recorder.send(request, self.inner or transport_below(self))

    def _add(self, exchange: RecordedExchange) -> None:
        if self._mode == "new":
            self._new.append(exchange)
            self._is_dropped = True
        else:
            self._store.append(exchange)

    def _miss(self, asked: RecordedRequest, count: int) -> NotRecordedError:
        problem = f"{self._store.name!r} has no answer for {asked.method} {asked.url}: "
        exchanges = islice(self._store.exchanges(), MAX_COMPARED)
        found = nearest(asked, ((line, each.request) for line, each in exchanges))
        if found is None:
            problem += "it has none at all"
        elif count:
            times = f"{count} times" if count > 1 else "once"
            problem += f"it was recorded {times}, and is asked once more"
        else:
            line, differences = found
            hidden = len(differences) - MAX_SHOWN
            shown = [*differences[:MAX_SHOWN], *([f"and {hidden} more"] if hidden > 0 else [])]
            problem += f"the nearest request, in line {line}, differs in\n  " + "\n  ".join(shown)
        error = NotRecordedError(f'{problem}\nto record it, use mode="once" or "new"')
        error.was_sent = False
        return error

    def close(self) -> None:
        """Close the file; in the mode "new", replace it by what was recorded.

        Raises `StorageError` if it cannot be written; the old file is then unchanged.
        """
        if self._mode == "new":
            with self._lock:
                self._new.sort(key=_start)
                self._store.replace(self._new)
                self._is_dropped = False
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._is_dropped = False
            self._store.close()

    def __del__(self) -> None:
        if self._is_dropped:
            warnings.warn(
                f'{self!r} was not written; use it in a "with" block, or close it',
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __reduce__(self) -> tuple[object, ...]:
        if self._mode == "new":
            raise InvalidParameterError(
                'a recording with mode="new" cannot be pickled or copied, since it replaces its '
                'file at its end; remove the file and use mode="once"'
            )
        make = partial(
            Recording,
            self._path,
            self._mode,
            transport=self.inner,
            keeps_timing=self._keeps_timing,
        )
        return make, ()

    def __repr__(self) -> str:
        return f"Recording({self._store.name!r}, {self._mode!r})"


def _start(exchange: RecordedExchange) -> float:
    return exchange.started_at
