"""The contract of a batch wire: requests about batches, and what their replies say. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    T,
    decode_json,
    excerpt,
    excerpt_of,
    json_text,
)

_ID = re.compile(r"[\w.:-]{1,200}", re.ASCII)


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request about batches, without its credential."""

    url: str
    method: str = "GET"
    body: bytes = b""
    content_type: str = "application/json"
    accept: str = "application/json"


class RowResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one request of a batch.

    Attributes:
        custom_id: The name that the client gave the request.
        status: The HTTP status of its answer, or the one that its failure would have had.
        body: The JSON of its answer or failure, as if it had been asked alone.
        request_id: The server's id of it, or None.
        was_skipped: Whether it never ran, because the batch expired or was cancelled.
    """

    custom_id: str
    status: int = 0
    body: bytes = b""
    request_id: str | None = None
    was_skipped: bool = False


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a batch, as its server tells it.

    Attributes:
        id: Its name at the server.
        word: Its state, in the server's word.
        has_ended: Whether nothing in it runs any more.
        created_at: The moment of its creation in seconds since 1970, or None.
        total: The number of its requests, or None if it is not known (yet).
        tag: The client's name of it, where the server keeps one.
        problem: Why the server refused the whole batch, of which then nothing ran; or None.
        is_queue_full: Whether that is only for now: it may be created again from `file_id`.
        file_id: The file with its requests, or None.
        result_files: The files with its results.
        rows: The results, if they are in the reply.
    """

    id: str
    word: str
    has_ended: bool
    created_at: float | None = None
    total: int | None = None
    tag: str | None = None
    problem: str | None = None
    is_queue_full: bool = False
    file_id: str | None = None
    result_files: tuple[str, ...] = ()
    rows: tuple[RowResult, ...] | None = None


class BatchApi:
    """The batch wire of one service: `upload` if it wants a file, `create`, `poll`, `results`.

    `base` is the generator's base URL. Methods that parse raise `MalformedResponseError`.

    Attributes:
        max_rows: The most requests in one batch.
        max_bytes: The most bytes in one.
        price_share: The price, as a part of the standard one.
        service_tier: The tier that the counts of an answer name; None is the standard one.
        has_pages: Whether results come in pages, and not in lines.
        has_tags: Whether a batch keeps the tag of its creator, so that it can be found again.
        bills_failures: Whether a request that failed may be on the bill.
        after_key: The name of `after` in the address of a page of batches.
    """

    max_rows: int = 50_000
    max_bytes: int = 190_000_000
    price_share: Decimal = Decimal("0.5")
    service_tier: str | None = None
    has_pages: bool = False
    has_tags: bool = False
    bills_failures: bool = True
    after_key: str = "after"

    def encode_row(self, custom_id: str, body: JsonObject, data: bytes) -> bytes:
        """Return one request as it stands in the batch; `data` is the encoded `body`."""
        raise NotImplementedError

    def upload(self, base: str, rows: Sequence[bytes], tag: str) -> ApiRequest | None:
        """Return the request that uploads the rows, or None if `create` holds them."""
        del base, rows, tag
        return None

    def parse_upload(self, raw: JsonValue) -> str:
        """Return the id of the file."""
        return check_id(raw.get("id") if isinstance(raw, dict) else None)

    def delete_upload(self, base: str, file_id: str) -> ApiRequest:
        """Return the request that deletes a file."""
        raise NotImplementedError

    def create(self, base: str, model: str, rows: Sequence[bytes], tag: str) -> ApiRequest:
        """Return the request that creates a batch of these rows."""
        raise NotImplementedError

    def create_from(self, base: str, file_id: str, tag: str) -> ApiRequest:
        """Return the request that creates a batch from a file."""
        raise NotImplementedError

    def batches_url(self, base: str) -> str:
        """Return the address of all batches."""
        return f"{base.rstrip('/')}/batches"

    def poll(self, base: str, batch_id: str) -> ApiRequest:
        """Return the request for the state of a batch."""
        return ApiRequest(url=f"{self.batches_url(base)}/{batch_id}")

    def parse_status(self, raw: JsonValue) -> BatchStatus:
        """Return the state in a reply to `create` or `poll`."""
        raise NotImplementedError

    def recent(self, base: str, after: str | None) -> ApiRequest:
        """Return the request for a page of batches, the newest first; `after` is a batch's id."""
        page = "" if after is None else f"&{self.after_key}={after}"
        return ApiRequest(url=f"{self.batches_url(base)}?limit=100{page}")

    def parse_recent(self, raw: JsonValue) -> tuple[list[BatchStatus], str | None]:
        """Return the batches of a page, and the `after` of the next one, if there is one."""
        page = raw if isinstance(raw, dict) else {}
        found = page.get("data")
        if not isinstance(found, list):
            raise MalformedResponseError(f"the server sent no list of batches: {excerpt_of(raw)}")
        batches = [self.parse_status(each) for each in found]
        return batches, batches[-1].id if batches and page.get("has_more") is True else None

    def results(self, base: str, status: BatchStatus) -> list[ApiRequest]:
        """Return the requests for the results."""
        raise NotImplementedError

    def parse_result(self, line: bytes) -> RowResult:
        """Return the result in one line."""
        raise NotImplementedError

    def parse_page(
        self, request: ApiRequest, raw: JsonValue
    ) -> tuple[list[RowResult], ApiRequest | None]:
        """Return the results in the page that answers `request`, and the request for the next."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def check_id(value: JsonValue) -> str:
    """Return an id that can stand in an address, or raise `MalformedResponseError`."""
    if isinstance(value, str) and _ID.fullmatch(value) and value.strip("."):
        return value
    raise MalformedResponseError(f"the server sent {excerpt_of(value)} where a batch has an id")


def check_word(word: str, running: Sequence[str], ended: Sequence[str]) -> None:
    """Raise `MalformedResponseError` for a state of a batch that is not known here."""
    if word not in running and word not in ended:
        raise MalformedResponseError(f"the server names an unknown state of a batch: {word!r:.80}")


def decode_line(line: bytes, shape: type[T]) -> T:
    """Return a line of results in this shape, in which a `Raw` keeps its bytes."""
    try:
        return msgspec.json.decode(line, type=shape)
    except (ValueError, RecursionError):
        text = json_text(decode_json(line))  # without the mistakes of servers
    try:
        return msgspec.json.decode(text, type=shape)
    except (ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"a line of results has an unexpected shape ({excerpt(str(error))}): {excerpt(line)}"
        ) from None
