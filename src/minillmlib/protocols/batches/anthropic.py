"""Anthropic's message batches: the requests are in the creation, the results are lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, convert_json, encode_json
from minillmlib.protocols.batches.base import (
    ApiRequest,
    BatchApi,
    BatchStatus,
    RowResult,
    check_id,
    check_word,
    decode_line,
)

# The status that a failure would have had if it had been asked alone; any other type is a 500.
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _Batch(msgspec.Struct):
    id: str
    processing_status: str
    request_counts: _Counts
    created_at: str | None = None


class _Failure(msgspec.Struct):
    type: str = ""


class _Error(msgspec.Struct):
    error: _Failure
    request_id: str | None = None


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


class AnthropicBatches(BatchApi):
    """Anthropic's batches. Only requests that succeeded are billed."""

    max_rows = 100_000
    max_bytes = 240_000_000  # of 256 MB
    service_tier = "batch"
    bills_failures = False
    after_key = "after_id"

    def batches_url(self, base: str) -> str:
        """Return the address of the batches of messages."""
        return base.rstrip("/").removesuffix("/v1") + "/v1/messages/batches"

    def encode_row(self, custom_id: str, body: JsonObject, data: bytes) -> bytes:
        """Return one of the `requests`."""
        del body
        return b'{"custom_id":%b,"params":%b}' % (encode_json(custom_id), data)

    def create(self, base: str, model: str, rows: Sequence[bytes], tag: str) -> ApiRequest:
        """Return the creation with all requests."""
        del model, tag
        body = b'{"requests":[%b]}' % b",".join(rows)
        return ApiRequest(url=self.batches_url(base), method="POST", body=body)

    def parse_status(self, raw: JsonValue) -> BatchStatus:
        """Return the state."""
        batch = convert_json(raw, _Batch)
        check_word(batch.processing_status, ("in_progress", "canceling"), ("ended",))
        return BatchStatus(
            id=check_id(batch.id),
            word=batch.processing_status,
            has_ended=batch.processing_status == "ended",
            created_at=_timestamp(batch.created_at),
            total=sum(msgspec.structs.astuple(batch.request_counts)) or None,
        )

    def results(self, base: str, status: BatchStatus) -> list[ApiRequest]:
        """Return the request for the results, at the generator's own server."""
        return [ApiRequest(url=f"{self.batches_url(base)}/{status.id}/results", accept="*/*")]

    def parse_result(self, line: bytes) -> RowResult:
        """Return the answer or failure in a line."""
        found = decode_line(line, _Line)
        result = found.result
        if result.type in ("expired", "canceled"):
            return RowResult(custom_id=found.custom_id, was_skipped=True)
        if result.type == "succeeded" and result.message:
            return RowResult(custom_id=found.custom_id, status=200, body=bytes(result.message))
        if result.type == "errored" and result.error:
            body = bytes(result.error)
            error = decode_line(body, _Error)
            return RowResult(
                custom_id=found.custom_id,
                status=STATUSES.get(error.error.type, 500),
                body=body,
                request_id=error.request_id,
            )
        raise MalformedResponseError(
            f"a result of a batch has an unknown type, {result.type!r:.80}"
        )


def _timestamp(text: str | None) -> float | None:
    """Return the seconds of a date with its zone, or None for anything else."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()
