"""OpenRouter's batches: the requests are in the creation, the results in the batch or in pages."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    encode_json,
    excerpt,
    json_text,
)
from minillmlib.protocols.batches.base import (
    ApiRequest,
    BatchApi,
    BatchStatus,
    RowResult,
    check_id,
    check_word,
)
from minillmlib.protocols.batches.openai import ENDED, RUNNING, SKIPPED

UNKNOWN_FAILURE = 502  # the status of a failure without one: an upstream vendor's
PAGE = 1000


class _Counts(msgspec.Struct):
    total: int | None = None


class _Reply(msgspec.Struct):
    status_code: int
    body: JsonValue = None
    request_id: str | None = None


class _Row(msgspec.Struct):
    custom_id: str
    response: _Reply | None = None
    error: JsonValue = None

    def to_result(self) -> RowResult:
        reply = self.response
        if reply is not None:
            body = json_text(reply.body).encode()
            return RowResult(
                custom_id=self.custom_id,
                status=reply.status_code,
                body=body,
                request_id=reply.request_id,
            )
        words = self.error.values() if isinstance(self.error, dict) else ()
        was_skipped = any(word in SKIPPED for word in words)
        return RowResult(
            custom_id=self.custom_id,
            status=0 if was_skipped else UNKNOWN_FAILURE,
            body=json_text({"error": self.error}).encode(),
            was_skipped=was_skipped,
        )


class _Failure(msgspec.Struct):
    message: str | None = None


class _Batch(msgspec.Struct):
    id: str
    status: str
    created_at: float | None = None
    error: _Failure | None = None
    request_counts: _Counts | None = None
    results: list[_Row] | None = None


class _Page(msgspec.Struct):
    data: list[_Row]
    has_more: bool = False
    next_cursor: str | None = None


class OpenRouterBatches(BatchApi):
    """OpenRouter's batches, whose answers state their costs."""

    max_rows = 5_000
    max_bytes = 190_000_000  # of 200 MB
    has_pages = True

    def encode_row(self, custom_id: str, body: JsonObject, data: bytes) -> bytes:
        """Return one of the `requests`, without the model, which the batch names."""
        del data
        rest = {key: value for key, value in body.items() if key != "model"}
        return encode_json({"custom_id": custom_id, "body": rest})

    def create(self, base: str, model: str, rows: Sequence[bytes], tag: str) -> ApiRequest:
        """Return the creation; the server wants the requests to come last."""
        del tag
        head = {"endpoint": "/v1/chat/completions", "model": model, "completion_window": "24h"}
        body = b'%b,"requests":[%b]}' % (encode_json(head)[:-1], b",".join(rows))
        return ApiRequest(url=self.batches_url(base), method="POST", body=body)

    def parse_status(self, raw: JsonValue) -> BatchStatus:
        """Return the state, with the results if they are in the reply."""
        batch = convert_json(raw, _Batch)
        check_word(batch.status, RUNNING, ENDED)
        rows = batch.results
        return BatchStatus(
            id=check_id(batch.id),
            word=_show(batch),
            has_ended=batch.status in ENDED,
            created_at=batch.created_at,
            total=(batch.request_counts and batch.request_counts.total) or None,
            rows=None if rows is None else tuple(row.to_result() for row in rows),
        )

    def results(self, base: str, status: BatchStatus) -> list[ApiRequest]:
        """Return the request for the first page, unless the results came with the state."""
        if status.rows is not None:
            return []
        return [ApiRequest(url=f"{self.batches_url(base)}/{status.id}/results?limit={PAGE}")]

    def parse_page(
        self, request: ApiRequest, raw: JsonValue
    ) -> tuple[list[RowResult], ApiRequest | None]:
        """Return the results in a page, and the request for the next one."""
        page = convert_json(raw, _Page)
        following = None
        if page.has_more and page.next_cursor:
            url, cursor = request.url.partition("?")[0], quote(page.next_cursor, safe="")
            following = ApiRequest(url=f"{url}?limit={PAGE}&cursor={cursor}")
        return [row.to_result() for row in page.data], following


def _show(batch: _Batch) -> str:
    reason = batch.error.message if batch.error else None
    return f"{batch.status} ({excerpt(reason)})" if reason else batch.status
