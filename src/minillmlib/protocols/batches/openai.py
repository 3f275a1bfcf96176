"""OpenAI's batches, also at Azure and at other hosts: a file of lines, and two files of results."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.errors import MalformedResponseError
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
    decode_line,
)

RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
ENDED = ("completed", "failed", "expired", "cancelled")
SKIPPED = ("batch_expired", "batch_cancelled")
QUEUE_FULL = "token_limit_exceeded"
TAG = "minillmlib_part"
UNKNOWN_FAILURE = 500  # the status of a failure without one


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return excerpt(f"{place}{self.message or 'no reason'} ({self.code})")


class _Problems(msgspec.Struct):
    data: list[_Problem] = []


class _Counts(msgspec.Struct):
    total: int = 0


class _Batch(msgspec.Struct):
    id: str
    status: str
    created_at: float | None = None
    errors: _Problems | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, JsonValue] | None = None


class _Reply(msgspec.Struct):
    status_code: int
    body: msgspec.Raw
    request_id: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Reply | None = None
    error: JsonValue = None


class OpenAiBatches(BatchApi):
    """Batches of OpenAI's kind: a file is uploaded, and the results are two files.

    Args:
        endpoint: The address of each request, as the lines of the file name it.
    """

    max_rows = 50_000
    max_bytes = 190_000_000  # of 200 MB
    has_tags = True

    def __init__(self, endpoint: str = "/v1/chat/completions") -> None:
        self.endpoint = endpoint

    def encode_row(self, custom_id: str, body: JsonObject, data: bytes) -> bytes:
        """Return a line of the file."""
        del body
        head = encode_json({"custom_id": custom_id, "method": "POST", "url": self.endpoint})
        return b'%b,"body":%b}' % (head[:-1], data)

    def upload(self, base: str, rows: Sequence[bytes], tag: str) -> ApiRequest:
        """Return the upload of the file, whose name must end in .jsonl."""
        boundary = f"minillmlib-{tag}".encode()  # no row holds it: the tag is random
        parts = (
            b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' % boundary,
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b.jsonl"\r\n'
            b"Content-Type: application/jsonl\r\n\r\n" % (boundary, tag.encode()),
            b"\n".join([*rows, b""]),
            b"\r\n--%b--\r\n" % boundary,
        )
        return ApiRequest(
            url=f"{base.rstrip('/')}/files",
            method="POST",
            body=b"".join(parts),
            content_type=f"multipart/form-data; boundary={boundary.decode()}",
        )

    def delete_upload(self, base: str, file_id: str) -> ApiRequest:
        """Return the request that deletes the file."""
        return ApiRequest(url=f"{base.rstrip('/')}/files/{file_id}", method="DELETE")

    def create_from(self, base: str, file_id: str, tag: str) -> ApiRequest:
        """Return the creation, with the tag in the metadata."""
        body = {
            "input_file_id": file_id,
            "endpoint": self.endpoint,
            "completion_window": "24h",
            "metadata": {TAG: tag},
        }
        return ApiRequest(url=self.batches_url(base), method="POST", body=encode_json(body))

    def parse_status(self, raw: JsonValue) -> BatchStatus:
        """Return the state; a batch that failed was refused, and nothing of it ran."""
        batch = convert_json(raw, _Batch)
        check_word(batch.status, RUNNING, ENDED)
        is_refused = batch.status == "failed"
        problems = batch.errors.data if batch.errors else []
        reason = "; ".join(map(str, problems[:3])) or "it gave no reason"
        tag = (batch.metadata or {}).get(TAG)
        files = (batch.output_file_id, batch.error_file_id)
        return BatchStatus(
            id=check_id(batch.id),
            word=batch.status,
            has_ended=batch.status in ENDED,
            created_at=batch.created_at,
            total=(batch.request_counts.total if batch.request_counts else 0) or None,
            tag=tag if isinstance(tag, str) else None,
            problem=reason if is_refused else None,
            is_queue_full=is_refused and any(each.code == QUEUE_FULL for each in problems),
            file_id=check_id(batch.input_file_id) if batch.input_file_id else None,
            result_files=tuple(check_id(each) for each in files if each),
        )

    def results(self, base: str, status: BatchStatus) -> list[ApiRequest]:
        """Return the requests for both files."""
        url = f"{base.rstrip('/')}/files"
        return [
            ApiRequest(url=f"{url}/{each}/content", accept="*/*") for each in status.result_files
        ]

    def parse_result(self, line: bytes) -> RowResult:
        """Return the answer or failure in a line; only its status says which it is."""
        found = decode_line(line, _Line)
        reply = found.response
        if reply is not None:
            return RowResult(
                custom_id=found.custom_id,
                status=reply.status_code,
                body=bytes(reply.body),
                request_id=reply.request_id,
            )
        if found.error is None:
            raise MalformedResponseError("a result of a batch is neither an answer nor a failure")
        code = found.error.get("code") if isinstance(found.error, dict) else None
        return RowResult(
            custom_id=found.custom_id,
            status=0 if code in SKIPPED else UNKNOWN_FAILURE,
            body=json_text({"error": found.error}).encode(),
            was_skipped=code in SKIPPED,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint!r})"
