"""Provider batches: parts of a run are gathered, submitted, polled and read.

No server takes the same creation only once, so a creation whose fate is not known is never
repeated before the batch was looked for. What a rerun needs is in the journal before each step.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import msgspec

from minillmlib.bulk.batch_parts import Missing, NotSubmitted, Part, Refused, Row, StrangersError
from minillmlib.bulk.journal import RunJournal, SubmittedRecord
from minillmlib.client.api_request import fetch, read_lines
from minillmlib.client.completion import Completed
from minillmlib.client.estimate import estimate_call
from minillmlib.client.http_request import build_body
from minillmlib.client.prepare import Call, price_of
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    ApiError,
    InvalidParameterError,
    MalformedResponseError,
    MiniLLMError,
    NotFoundError,
)
from minillmlib.files import FilePath
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, JsonValue, T, encode_json
from minillmlib.protocols.batches.base import ApiRequest, BatchApi, BatchStatus
from minillmlib.protocols.rate_limits import parse_retry_after, server_time
from minillmlib.tree.node import ChatNode, prepare_call
from minillmlib.types.budgets import Budget, Reservation
from minillmlib.types.costs import ZERO, CostEstimate, CostOutcome
from minillmlib.types.parameters import NodeCompletionParameters

GATHER_SECS = 60.0  # how long a part waits for further items
SETTLE_SECS = 1.0  # and for those that are being read when the input ends
FIRST_WAIT_SECS, MAX_WAIT_SECS, MAX_SERVER_WAIT_SECS = 10.0, 60.0, 600.0
WAIT_GROWTH = 1.3
MAX_FAILURES = 30  # in a row of what may pass: about half an hour
LOOKUP_SECS = (10.0, 60.0)  # after a creation, when its batch should be in the list
CLOCK_SECS = 900.0  # how far from the moment of a creation its batch is looked for
CREATION_SECS = 3600.0
MAX_LOOKUP_PAGES = 50
FULL_QUEUE_SECS = 60.0
MAX_READS = 3  # of results in which rows are missing
UNCERTAIN = (408, 409, 425)  # of the statuses below 500, those of a creation that may have happened


def api_of(generator: GeneratorInfo) -> BatchApi:
    """Return the batches of a generator's service, or raise `InvalidParameterError`."""
    api = generator.provider.batches
    if api is None:
        raise InvalidParameterError(
            f"no batches of {generator.name} are known; OpenAI, Azure, Anthropic and OpenRouter "
            "have them"
        )
    return api


def check_batches(
    generator: GeneratorInfo,
    settings: NodeCompletionParameters,
    *,
    tools: Sequence[object],
    width: object,
    journal: FilePath | None,
) -> None:
    """Raise `InvalidParameterError` for settings of a run that batches cannot have."""
    api_of(generator)
    if journal is None:
        raise InvalidParameterError(
            "batches need a journal: they may take a day, and without one their results would be "
            "lost with this process"
        )
    if tools:
        raise InvalidParameterError(
            "tools cannot run in batches, which answer each request once; the parameters may "
            "define tools, whose calls are then the answer"
        )
    if generator.fallbacks:
        raise InvalidParameterError(
            "batches have no fallbacks: the answer of one generator is awaited for up to a day"
        )
    if width is not None:
        raise InvalidParameterError("batches have no width, so none can be set")
    if settings.pace is not None:
        raise InvalidParameterError("batches keep the provider's pace, so none can be set")
    if settings.deadline_secs is not None:
        raise InvalidParameterError("batches cannot keep a deadline: they may take a day")


class BatchQueue:
    """The batches of a run: `ask` waits for the answer to one item.

    The first row of a part takes care of it, so that a run is ended by ending its rows. A batch
    that is left goes on at the server, and a run with the same journal fetches its results.
    """

    def __init__(
        self, generator: GeneratorInfo, settings: NodeCompletionParameters, journal: RunJournal
    ) -> None:
        self._api = api_of(generator)
        self._generator = generator
        plain = Call(generator=generator, messages=(), settings=settings, stream=False)
        price = price_of(plain)
        if price is not None:
            price = price.for_batch(self._api.price_share, self._api.service_tier)
            settings = settings.replace(token_price=price)
        self._settings = settings
        self._call: Call = msgspec.structs.replace(plain, settings=settings)
        self._journal = journal
        self._has_input = True
        self._gathering: Part | None = None
        self._resumed: dict[str, Part] = {}  # by the tags of parts of earlier runs
        self._batches = set(journal.batches)  # that are certain to hold known parts
        self._held = self._hold_open_rows(settings.budget)

    @property
    def max_rows(self) -> int:
        """How many rows may be on their way at once: two full batches."""
        return 2 * self._api.max_rows

    def _hold_open_rows(self, budget: Budget | None) -> dict[str, Reservation]:
        """Reserve what the rows that earlier runs submitted may cost."""
        if budget is None:
            return {}
        rows = self._journal.open_rows
        return {key: budget.hold(row.ceiling or ZERO) for key, row in rows.items()}

    async def ask(self, node: ChatNode, key: str) -> ChatNode:
        """Return the node of the answer. Raises `RunProblem` for what is no failure of the item."""
        row = Row(key, *prepare_call(node, self._generator, self._settings))
        try:
            completed = await self._complete(row)
        except MiniLLMError as error:
            final = row.final_error(error)
            await row.completion.close()
            raise final from error.__cause__
        finally:
            row.release()
        await row.completion.close()
        return row.add_answer(completed)

    async def _complete(self, row: Row) -> Completed:
        """Return the answer to a row, from as many batches as its settings allow."""
        part, place = self._resume(row) or await self._join(row)
        while True:
            if not part.is_driven:
                await self._drive(part)
            fate = await part.fate_of(place)
            if not isinstance(fate, NotSubmitted):
                try:
                    return row.finish(fate, self._api, self._url_of(part))
                except MiniLLMError as error:
                    if not row.may_retry(error):
                        raise
            await part.over.wait()  # so that all rows that go on gather at once
            part, place = await self._join(row)

    def finish_input(self) -> None:
        """Note that no further item comes: a part need not wait for any."""
        self._has_input = False
        if self._gathering is not None:
            self._gathering.closing.set()
        # Once the last items have found theirs.
        asyncio_module().get_running_loop().call_soon(self._settle_held)

    def _settle_held(self) -> None:
        """Count what the rows of earlier runs may cost whose items did not come."""
        held, self._held = self._held, {}
        for reservation in held.values():
            reservation.settle(CostOutcome.unknown())

    def _resume(self, row: Row) -> tuple[Part, int] | None:
        """Return the part of an earlier run that the row is in, and its place there."""
        opened = self._journal.open_rows.pop(row.key, None)
        if opened is None:
            return None
        row.reservation = self._held.pop(row.key, None)
        row.completion.add_earlier(opened.attempts)
        tag = opened.part.record.part
        part = self._resumed.get(tag)
        if part is None:
            part = self._resumed[tag] = Part(opened.part)
        row.part = part
        return part, opened.place

    async def _join(self, row: Row) -> tuple[Part, int]:
        """Add a row to the part that is being gathered, once the budget covers it."""
        call = row.completion.call
        body = build_body(call)[0]
        data = encode_json(body)
        if call.settings.budget is not None and row.reservation is None:
            estimate = estimate_call(call, body, data)
            row.reservation = await _reserve(call.settings.budget, estimate)
        part, line = self._encode(body, data)
        if part.size + len(line) > self._api.max_bytes and part.count:
            self._close(part)
            part, line = self._encode(body, data)
        if len(line) > self._api.max_bytes:
            raise InvalidParameterError(
                f"the request has {len(line):,} bytes, and a batch may have {self._api.max_bytes:,}"
            )
        place, row.part = part.add(row, line), part
        if part.count >= self._api.max_rows:
            self._close(part)
        return part, place

    def _encode(self, body: JsonObject, data: bytes) -> tuple[Part, bytes]:
        """Return the part that is being gathered, and its next row."""
        part = self._gathering
        if part is None:
            part = self._gathering = Part()
            if not self._has_input:
                part.closing.set()
        return part, self._api.encode_row(part.custom_id(part.count), body, data)

    def _close(self, part: Part) -> None:
        part.closing.set()
        if self._gathering is part:
            self._gathering = None

    async def _drive(self, part: Part) -> None:
        """Bring a part to its end, whatever that is."""
        part.is_driven = True
        try:
            if part.opened is None:
                await self._gather(part)
                await self._submit(part)
            await self._follow(part)
        except NotFoundError as error:
            self._give_up(part, error)
        except Exception as error:  # noqa: BLE001 - also of a transport of the caller's own
            part.fail(error)

    def _give_up(self, part: Part, error: NotFoundError) -> None:
        """End a part whose batch the server does not know."""
        if part.opened is None or part.batch is None:
            part.fail(error)
        elif self._journal.retries_failed:
            part.end(NotSubmitted())
        else:
            part.fail(
                NotFoundError(
                    f"{error}; the batch {part.batch.batch} was submitted by an earlier run: use "
                    "its key and address, or retry_failed=True to ask its items again",
                    status=error.status,
                )
            )

    async def _gather(self, part: Part) -> None:
        asyncio = asyncio_module()
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECS):
                await part.closing.wait()
        if self._gathering is part:
            await asyncio.sleep(SETTLE_SECS)
        self._close(part)

    async def _submit(self, part: Part) -> None:
        """Create the batch of a part that was gathered."""
        api, base = self._api, self._generator.base_url
        self._journal.record_batch(part.to_record(base, time.time()))
        lines, part.lines = part.lines, []
        upload = api.upload(base, lines, part.tag)
        if upload is None:
            await self._create(part, api.create(base, self._generator.model, lines, part.tag))
            return
        send = partial(self._fetch, upload, api.parse_upload)
        file_id, _ = await self._persist(send)  # a second file does no harm
        try:
            await self._create(part, api.create_from(base, file_id, part.tag))
        except MiniLLMError:
            if not part.may_be_submitted:
                with suppress(MiniLLMError):
                    await self._fetch(api.delete_upload(base, file_id), lambda _: None)
            raise

    async def _create(self, part: Part, request: ApiRequest) -> None:
        """Create a batch, exactly once."""
        failures = 0
        while not (part.is_uncertain and await self._find(part)):
            part.is_uncertain, part.last_sent_at = True, time.time()
            try:
                status, _ = await self._fetch(request, self._api.parse_status)
            except MiniLLMError as error:
                failures += 1
                part.is_uncertain = _may_have_happened(error)
                if failures > MAX_FAILURES or not (part.is_uncertain or error.is_retryable):
                    raise
                await _sleep(_pause(failures, error))
            else:
                self._adopt(part, status, is_certain=True)
                return

    async def _find(self, part: Part) -> bool:
        """Look for the batch of a part whose creation may have happened."""
        sent_at = min(part.last_sent_at, time.time())  # the clock may have been set back
        age = time.time() - sent_at
        for secs in [secs for secs in LOOKUP_SECS if secs > age] or [age]:
            await asyncio_module().sleep(max(sent_at + secs - time.time(), 0))
            status = await self._look_up(part)
            if status is not None:
                self._adopt(part, status, is_certain=self._api.has_tags)
                return True
        return False

    async def _look_up(self, part: Part) -> BatchStatus | None:
        cursor: str | None = None
        for _ in range(MAX_LOOKUP_PAGES):
            request = self._api.recent(self._generator.base_url, cursor)
            look = partial(self._fetch, request, self._api.parse_recent)
            (batches, cursor), headers = await self._persist(look)
            now = time.time()
            skew = (server_time(headers) or now) - now
            for status in batches:
                if self._is_likely(status, part, skew):
                    return status
            oldest = batches[-1].created_at if batches else None
            if cursor is None or (oldest or now) < part.sent_at + skew - CLOCK_SECS:
                return None
        raise MalformedResponseError(
            f"the list of batches at {self._generator.base_url} does not end, so it cannot be said "
            "whether a part was submitted"
        )

    def _is_likely(self, status: BatchStatus, part: Part, skew: float) -> bool:
        """Whether a batch is that of a part, or, where it keeps no tag, may be."""
        if status.id in self._batches or status.id in part.foreign:
            return False
        if self._api.has_tags:
            return status.tag == part.tag
        first = part.sent_at + skew - CLOCK_SECS
        last = part.last_sent_at + skew + CREATION_SECS
        is_near = status.created_at is not None and first <= status.created_at <= last
        return is_near and status.total in (None, part.count)

    def _adopt(self, part: Part, status: BatchStatus, *, is_certain: bool) -> None:
        """Note which batch holds a part, before anything else happens to it."""
        record = SubmittedRecord(part=part.tag, batch=status.id, is_certain=is_certain)
        part.batch, part.is_uncertain = record, False
        if is_certain:
            self._batches.add(status.id)
        self._journal.record_batch(record)

    async def _follow(self, part: Part) -> None:
        """Wait for the results of a part, and deliver them."""
        if part.opened is not None and part.opened.record.url != self._generator.base_url:
            raise InvalidParameterError(
                f"a part of this run was submitted to {part.opened.record.url}, not to "
                f"{self._generator.base_url}: its results are there"
            )
        waits = 0
        while part.batch is not None or await self._find(part):
            status = await self._poll(part)
            if status.is_queue_full and status.file_id is not None:
                waits += 1
                await _sleep(FULL_QUEUE_SECS * min(waits, 10))
                part.batch, part.is_uncertain = None, part.opened is not None
                base = self._generator.base_url
                await self._create(part, self._api.create_from(base, status.file_id, part.tag))
            elif status.problem is not None:
                part.end(Refused(status.problem))
                return
            elif await self._read(part, status):
                part.end(Missing(status.word, part.unreadable))
                return
        part.end(part.empty or NotSubmitted())

    async def _poll(self, part: Part) -> BatchStatus:
        """Return the state of a batch once it has ended, asking at the server's pace."""
        assert part.batch is not None
        batch_id = part.batch.batch

        def parse(raw: JsonValue) -> BatchStatus:
            status = self._api.parse_status(raw)
            if status.id != batch_id:
                raise MalformedResponseError(f"the server speaks of another batch, {status.id}")
            return status

        request = self._api.poll(self._generator.base_url, batch_id)
        if part.opened is None:
            await _sleep(FIRST_WAIT_SECS)
        polls = 0
        while True:
            status, headers = await self._persist(partial(self._fetch, request, parse))
            if status.has_ended:
                return status
            polls += 1
            await _sleep(parse_retry_after(headers, None) or _pause(polls))

    async def _read(self, part: Part, status: BatchStatus) -> bool:
        """Deliver the results of a batch. Return False if it is not the part's."""
        assert part.batch is not None
        for reads in range(1, MAX_READS + 1):
            with suppress(StrangersError):
                await self._persist(partial(self._read_once, part, status))
            if part.strangers and not part.has_any and not part.batch.is_certain:
                break
            if part.strangers > part.count:
                raise MalformedResponseError("the results have more rows than their batch")
            if part.has_all:
                break
            if reads < MAX_READS:
                await _sleep(_pause(reads))
        if not part.has_any and not part.batch.is_certain:
            part.foreign.add(status.id)
            part.batch = None
            if not part.strangers:  # it may be the part's, unless there is a better one
                part.empty = Missing(status.word, part.unreadable)
            return False
        self._batches.add(status.id)
        return True

    async def _read_once(self, part: Part, status: BatchStatus) -> None:
        """Deliver all results, also those that were delivered before."""
        part.strangers = part.unreadable = 0
        for result in status.rows or ():
            part.deliver(result)
        for request in self._api.results(self._generator.base_url, status):
            if self._api.has_pages:
                await self._read_pages(part, request)
            else:
                await read_lines(self._call, self._address(request), partial(self._note, part))

    async def _read_pages(self, part: Part, request: ApiRequest) -> None:
        page: ApiRequest | None = request
        while page is not None:
            (results, page), _ = await self._fetch(page, partial(self._api.parse_page, page))
            for result in results:
                part.deliver(result)

    def _note(self, part: Part, line: bytes) -> None:
        try:
            result = self._api.parse_result(line)
        except MalformedResponseError:  # its row will be missing
            part.unreadable += 1
        else:
            part.deliver(result)

    async def _fetch(
        self, request: ApiRequest, parse: Callable[[JsonValue], T]
    ) -> tuple[T, Mapping[str, str]]:
        return await fetch(self._call, self._address(request), parse)

    async def _persist(self, action: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an action that may be repeated, after failures that pass."""
        failures = 0
        while True:
            try:
                return await action()
            except MiniLLMError as error:
                failures += 1
                passes = error.is_retryable or isinstance(error, MalformedResponseError)
                if failures > MAX_FAILURES or not passes:
                    raise
                await _sleep(_pause(failures, error))

    def _address(self, request: ApiRequest) -> ApiRequest:
        """Return a request with the query that all of this server's addresses have (Azure)."""
        generator = self._generator
        url = generator.provider.request_url(generator.base_url, generator.model, stream=False)
        query = urlsplit(url).query
        if not query:
            return request
        mark = "&" if "?" in request.url else "?"
        return msgspec.structs.replace(request, url=f"{request.url}{mark}{query}")

    def _url_of(self, part: Part) -> str:
        base = self._generator.base_url
        return base if part.batch is None else self._api.poll(base, part.batch.batch).url


async def _reserve(budget: Budget, estimate: CostEstimate) -> Reservation:
    """Reserve the most that a row may cost, or queue for it until others have settled."""
    asyncio = asyncio_module()
    reservation = budget.enqueue(estimate)
    if reservation.is_waiting:
        decided, loop = asyncio.Event(), asyncio.get_running_loop()
        reservation.when_decided(partial(loop.call_soon_threadsafe, decided.set))
        try:
            await decided.wait()
        except BaseException:
            reservation.settle(None)
            raise
    reservation.check()
    return reservation


def _may_have_happened(error: MiniLLMError) -> bool:
    """Whether a creation that failed so may have created a batch."""
    status = error.status if isinstance(error, ApiError) else None
    if status is not None and 300 <= status < 500:
        return status in UNCERTAIN
    return error.was_sent


def _pause(count: int, error: MiniLLMError | None = None) -> float:
    """Return the seconds before the next of so many requests."""
    hint = error.retry_after_secs if isinstance(error, ApiError) else None
    return hint or min(FIRST_WAIT_SECS * WAIT_GROWTH ** min(count - 1, 20), MAX_WAIT_SECS)


async def _sleep(secs: float) -> None:
    """Wait about so long, and a little longer, so that not all ask at the same moment."""
    spread = random.uniform(1.0, 1.2)  # noqa: S311 - no secret
    await asyncio_module().sleep(min(secs, MAX_SERVER_WAIT_SECS) * spread)
