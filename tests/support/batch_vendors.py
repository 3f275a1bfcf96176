"""Batch servers in memory that behave as the vendors' documentation and recordings say.

Use it for provider batches. Results come in any order; a row expires, fails or is missing as its
text says; a creation may take effect without a reply. Each vendor keeps its bill, and notes which
texts it ran, so that a test sees what was submitted twice or lost.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias
from urllib.parse import parse_qs, urlsplit

from minillmlib import (
    AnthropicProvider,
    GeneratorInfo,
    HttpRequest,
    HttpResponse,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    ReadError,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

Json: TypeAlias = Any
ROW_USD = Decimal("0.0001")  # 100 tokens at $1 and 20 at $5 per million, halved

# What a text may ask of the vendor, once for each time it is submitted: "a!500,expired" fails, then
# expires, then is answered. A wrong answer is an empty one.
FATES = ("400", "429", "500", "expired", "canceled", "missing", "wrong")


def fates_of(text: str) -> list[str]:
    _, mark, rest = text.partition("!")
    return rest.split(",") if mark else []


@dataclass
class Batch:
    id: str
    rows: list[tuple[str, Json]]  # custom id and body
    created_at: float
    tag: str | None = None
    file_id: str = ""
    polls: int = 0
    refusal: tuple[str, str, int | None] | None = None  # code, message and line
    results: list[tuple[str, str, Json]] | None = None  # custom id, fate, and body


class Slow:
    """A response that comes piece by piece, and may break off after the first one."""

    def __init__(self, response: HttpResponse, vendor: Vendor, kind: str | None = None):
        self.status, self.headers, self.close = response.status, response.headers, response.close
        self._response, self._vendor, self._kind = response, vendor, kind
        self._pieces = 0

    async def read(self) -> bytes:
        for _ in range(5):  # what the last piece brought is used
            await asyncio.sleep(0)
        await asyncio.sleep(self._vendor.piece_secs)
        piece = await self._response.read()
        self._pieces += 1
        if self._kind is not None and (self._pieces == 2 or not piece):
            await self._vendor.disturb(self._kind)
        return piece


@dataclass
class Vendor:
    """What the vendors have in common. `fault(number, request)` may disturb a request.

    It returns None, or a reply in place of the vendor's, or how the connection breaks: "before" the
    request took effect, "after", or while the reply is "read". With "kill" before these words the
    client is dead: from then on nothing happens any more, and `killed` is set.
    """

    seed: int = 0
    fault: Callable[[int, HttpRequest], Any] = lambda number, request: None
    polls: int = 2  # until a batch has ended
    piece_secs: float = 0  # before each piece of a reply
    created: int = 0
    bill: Decimal = Decimal(0)
    ran: Counter[str] = field(default_factory=Counter)  # billed, by text
    tries: Counter[str] = field(default_factory=Counter)  # submissions, by text
    log: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    batches: dict[str, Batch] = field(default_factory=dict)
    refusals: list[tuple[str, str, int | None]] = field(default_factory=list)
    requests: list[HttpRequest] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # of every reply
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    base: ClassVar[str]
    provider: ClassVar[Provider]

    @property
    def generator(self) -> GeneratorInfo:
        generator = GeneratorInfo.custom("vendor", self.base, "m").with_provider(self.provider)
        price = TokenPrice(1, 5).with_cache_rates(0.1, 1.25, 2)
        return (
            generator.with_api_key("key-of-the-vendor").with_transport(self).with_token_price(price)
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        url = urlsplit(request.url)
        self.log.append(f"{request.method} {url.path}")
        self.times.append(asyncio.get_running_loop().time())
        assert not self.killed.is_set()
        fault = self.fault(len(self.requests), request)
        if isinstance(fault, ScriptedReply):
            return await ScriptedTransport([fault]).send(request)
        kind, _, moment = (fault or "").rpartition(" ")
        if moment == "before":
            await self.disturb(kind)
        reply = self.serve(request.method, url.path, parse_qs(url.query), request)
        if moment == "after":
            await self.disturb(kind)
        headers = {**reply.headers, **self.headers}
        reply = ScriptedReply(pieces=reply.pieces, status=reply.status, headers=headers)
        response = await ScriptedTransport([reply]).send(request)
        return Slow(response, self, kind if moment == "read" else None)

    async def disturb(self, kind: str) -> None:
        if kind == "kill":
            self.killed.set()
            await asyncio.Event().wait()
        raise ReadError("the connection broke")

    def serve(self, method: str, path: str, query: Json, request: HttpRequest) -> ScriptedReply:
        raise NotImplementedError

    def create(self, rows: list[tuple[str, Json]], tag: str | None = None) -> Batch:
        ids = [name for name, _ in rows]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in ids)
        self.created += 1
        batch = Batch(f"batch_{self.created:04}", rows, time.time(), tag)
        self.batches[batch.id] = batch
        if self.refusals:
            batch.refusal = self.refusals.pop(0)
        else:
            for _, body in rows:
                self.tries[self.text_of(body)] += 1
        return batch

    def poll(self, batch: Batch) -> bool:
        """Count a poll; return whether the batch has ended."""
        batch.polls += 1
        if batch.polls < self.polls:
            return False
        if batch.results is None and batch.refusal is None:
            batch.results = [self.run(name, body) for name, body in batch.rows]
            random.Random(self.seed).shuffle(batch.results)
            batch.results = [each for each in batch.results if each[1] != "missing"]
        return True

    def run(self, name: str, body: Json) -> tuple[str, str, Json]:
        text = self.text_of(body)
        fates = fates_of(text)
        number = self.ran[text] + self.failed[text]
        fate = fates[number] if number < len(fates) else "ok"
        if fate in ("ok", "wrong"):
            self.bill += ROW_USD
            self.ran[text] += 1
        else:
            self.failed[text] += 1
        return name, fate, self.answer("" if fate == "wrong" else text.upper())

    failed: Counter[str] = field(default_factory=Counter)  # not billed, by text

    def text_of(self, body: Json) -> str:
        """The first text of the user."""
        assert "stream" not in body
        content = next(each["content"] for each in body["messages"] if each["role"] == "user")
        return content if isinstance(content, str) else content[0]["text"]

    def answer(self, text: str) -> Json:
        return {
            "id": f"chat-{text}", "object": "chat.completion", "model": "m", "service_tier": "default",
            "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }  # fmt: skip

    def page(self, query: Json, after: str, show: Callable[[Batch], Json]) -> ScriptedReply:
        newest_first = list(reversed(self.batches.values()))
        if after in query:
            ids = [batch.id for batch in newest_first]
            newest_first = newest_first[ids.index(query[after][0]) + 1 :]
        limit = min(int(query["limit"][0]), 2)  # small pages, so that tests have several
        page = {"data": [show(each) for each in newest_first[:limit]]}
        return ScriptedReply.json({**page, "has_more": len(newest_first) > limit})


def json_lines(lines: list[Json], seed: int) -> ScriptedReply:
    """The lines in pieces that end anywhere."""
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    size = random.Random(seed).randrange(7, 200)
    pieces = tuple(data[start : start + size] for start in range(0, len(data), size))
    return ScriptedReply(pieces=pieces or (b"",), headers={"content-type": "application/x-jsonl"})


def refuse(status: int, message: str) -> Json:
    kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


@dataclass
class OpenAi(Vendor):
    base = "https://vendor.example/v1"
    provider = OpenAiProvider()
    endpoint: ClassVar[str] = "/v1/chat/completions"
    files: dict[str, bytes] = field(default_factory=dict)

    def serve(  # noqa: PLR0911 - an address each
        self, method: str, path: str, query: Json, request: HttpRequest
    ) -> ScriptedReply:
        parts = path.removeprefix("/v1/").split("/")
        match method, parts:
            case "POST", ["files"]:
                return ScriptedReply.json(self.upload(request))
            case "DELETE", ["files", name]:
                del self.files[name]
                return ScriptedReply.json({"id": name, "object": "file", "deleted": True})
            case "GET", ["files", name, "content"]:
                which, _, batch_id = name.partition("-")
                return self.content(self.batches[batch_id], which)
            case "POST", ["batches"]:
                return ScriptedReply.json(self.show(self.create_from(json.loads(request.body))))
            case "GET", ["batches"]:
                return self.page(query, "after", self.show)
            case "GET", ["batches", name] if name in self.batches:
                self.poll(self.batches[name])
                return ScriptedReply.json(self.show(self.batches[name]))
        return ScriptedReply.json(refuse(404, f"no such thing: {path}"), status=404)

    def upload(self, request: HttpRequest) -> Json:
        kind = dict(request.expose_headers())["Content-Type"]
        boundary = kind.partition("boundary=")[2].encode()
        parts = request.body.split(b"--" + boundary)
        assert (parts[0], parts[-1]) == (b"", b"--\r\n")
        fields = {}
        for part in parts[1:-1]:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb'name="(\w+)"', head)[1].decode()
            fields[name] = head, content.removesuffix(b"\r\n")
        assert fields["purpose"][1] == b"batch"
        assert re.search(
            rb'filename="\w+\.jsonl"\r\nContent-Type: application/jsonl', fields["file"][0]
        )
        name = f"file-{len(self.files) + 1:03}"
        self.files[name] = fields["file"][1]
        return {"object": "file", "id": name, "purpose": "batch", "status": "processed"}

    def create_from(self, body: Json) -> Batch:
        assert (body["endpoint"], body["completion_window"]) == (self.endpoint, "24h")
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert {(line["method"], line["url"]) for line in lines} == {("POST", self.endpoint)}
        rows = [(line["custom_id"], line["body"]) for line in lines]
        batch = self.create(rows, body["metadata"]["minillmlib_part"])
        batch.file_id = body["input_file_id"]
        return batch

    def show(self, batch: Batch) -> Json:
        has_ended = batch.polls >= self.polls
        word = "in_progress"
        if has_ended:
            word = "completed"
        elif batch.polls == 0:
            word = "validating"
        errors = None
        if has_ended and batch.refusal is not None:
            word = "failed"
            code, message, line = batch.refusal
            problem = {"code": code, "message": message, "param": None, "line": line}
            errors = {"object": "list", "data": [problem]}
        fates = [fate for _, fate, _ in batch.results or ()]
        if "expired" in fates:
            word = "expired"
        if "canceled" in fates:
            word = "cancelled"
        good = any(fate in ("ok", "wrong") for fate in fates)
        bad = any(fate not in ("ok", "wrong") for fate in fates)
        return {
            "id": batch.id, "object": "batch", "endpoint": self.endpoint, "model": None,
            "errors": errors, "input_file_id": batch.file_id, "completion_window": "24h",
            "status": word, "output_file_id": f"output-{batch.id}" if good else None,
            "error_file_id": f"error-{batch.id}" if bad else "",
            "created_at": int(batch.created_at), "in_progress_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": {"minillmlib_part": batch.tag} if batch.tag else None,
        }  # fmt: skip

    def content(self, batch: Batch, which: str) -> ScriptedReply:
        assert batch.results is not None
        lines = [
            self.line(*each) for each in batch.results
            if (each[1] in ("ok", "wrong")) == (which == "output")
        ]  # fmt: skip
        return json_lines(lines, self.seed)

    def line(self, name: str, fate: str, body: Json) -> Json:
        line = {"id": f"batch_req_{name}", "custom_id": name, "response": None, "error": None}
        if fate in ("expired", "canceled"):
            code = "batch_expired" if fate == "expired" else "batch_cancelled"
            return {**line, "error": {"code": code, "message": "too late"}}
        status = 200 if fate in ("ok", "wrong") else int(fate)
        body = body if status == 200 else refuse(status, f"no {fate}")
        return {**line, "response": {"status_code": status, "request_id": "r", "body": body}}


@dataclass
class Anthropic(Vendor):
    base = "https://vendor.example"
    provider = AnthropicProvider()

    def serve(self, method: str, path: str, query: Json, request: HttpRequest) -> ScriptedReply:
        parts = path.removeprefix("/v1/messages/batches").split("/")
        match method, parts:
            case "POST", [""]:
                rows = json.loads(request.body)["requests"]
                batch = self.create([(row["custom_id"], row["params"]) for row in rows])
                return ScriptedReply.json(self.show(batch))
            case "GET", [""]:
                return self.page(query, "after_id", self.show)
            case "GET", ["", name] if name in self.batches:
                has_ended = self.poll(self.batches[name])
                reply = ScriptedReply.json(self.show(self.batches[name]))
                headers = {} if has_ended else {"retry-after": "10"}
                return ScriptedReply(pieces=reply.pieces, headers={**reply.headers, **headers})
            case "GET", ["", name, "results"]:
                results = self.batches[name].results
                assert results is not None
                return json_lines([self.line(*each) for each in results], self.seed)
        error = {"type": "error", "error": {"type": "not_found_error", "message": path}}
        return ScriptedReply.json(error, status=404)

    def show(self, batch: Batch) -> Json:
        has_ended = batch.polls >= self.polls
        fates = Counter(fate for _, fate, _ in batch.results or ())
        counts = {
            "processing": 0 if has_ended else len(batch.rows), "expired": fates["expired"],
            "succeeded": fates["ok"] + fates["wrong"], "canceled": fates["canceled"],
        }  # fmt: skip
        counts["errored"] = 0 if not has_ended else len(batch.rows) - sum(counts.values())
        created_at = datetime.fromtimestamp(batch.created_at, UTC).isoformat()
        url = f"https://api.anthropic.com/v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id, "type": "message_batch", "request_counts": counts,
            "processing_status": "ended" if has_ended else "in_progress",
            "ended_at": None, "created_at": created_at, "expires_at": None, "archived_at": None,
            "cancel_initiated_at": None, "results_url": url if has_ended else None,
        }  # fmt: skip

    def line(self, name: str, fate: str, body: Json) -> Json:
        if fate in ("expired", "canceled"):
            return {"custom_id": name, "result": {"type": fate}}
        if fate in ("ok", "wrong"):
            return {"custom_id": name, "result": {"type": "succeeded", "message": body}}
        kinds = {"400": "invalid_request_error", "429": "rate_limit_error", "500": "api_error"}
        error = {"type": kinds[fate], "message": f"no {fate}"}
        error = {"type": "error", "error": error, "request_id": "r"}
        return {"custom_id": name, "result": {"type": "errored", "error": error}}

    def answer(self, text: str) -> Json:
        return {
            "id": f"msg_{text}", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "service_tier": "batch",
                "inference_geo": "not_available",
            },
        }  # fmt: skip


@dataclass
class OpenRouter(Vendor):
    base = "https://vendor.example/api/v1"
    provider = OpenRouterProvider()
    is_inline: bool = False

    def serve(self, method: str, path: str, query: Json, request: HttpRequest) -> ScriptedReply:
        parts = path.removeprefix("/api/v1/batches").split("/")
        match method, parts:
            case "POST", [""]:
                body = json.loads(request.body)
                assert list(body)[-1] == "requests"
                assert body["model"] == "m"
                rows = [(row["custom_id"], row["body"]) for row in body["requests"]]
                assert not any("model" in body for _, body in rows)
                return ScriptedReply.json(self.show(self.create(rows)), status=202)
            case "GET", [""]:
                return self.page(query, "after", self.show)
            case "GET", ["", name] if name in self.batches:
                has_ended = self.poll(self.batches[name])
                shown = self.show(self.batches[name])
                shown["results"] = self.lines(name) if self.is_inline and has_ended else None
                return ScriptedReply.json(shown)
            case "GET", ["", name, "results"]:
                start = int(query.get("cursor", ["0="])[0].removesuffix("="))
                lines = self.lines(name)
                page = {"object": "list", "data": lines[start : start + 2]}
                has_more = len(lines) > start + 2
                cursor = f"{start + 2}=" if has_more else None
                return ScriptedReply.json({**page, "has_more": has_more, "next_cursor": cursor})
        return ScriptedReply.json(refuse(404, path), status=404)

    def show(self, batch: Batch) -> Json:
        has_ended = batch.polls >= self.polls
        count = len(batch.rows) if batch.polls else 0
        return {
            "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "model": "m",
            "status": "completed" if has_ended else "validating", "error": None,
            "created_at": batch.created_at, "request_counts": {"total": count},
        }  # fmt: skip

    def lines(self, name: str) -> list[Json]:
        results = self.batches[name].results
        assert results is not None
        return [self.line(*each) for each in results]

    def line(self, name: str, fate: str, body: Json) -> Json:
        line = {"id": f"batch_req_{name}", "custom_id": name, "response": None, "error": None}
        if fate in ("expired", "canceled"):
            kind = "batch_expired" if fate == "expired" else "batch_cancelled"
            return {**line, "error": {"message": "late", "type": "batch", "error_type": kind}}
        if fate == "500":
            kind = "provider_unavailable"
            return {**line, "error": {"message": "Provider returned error", "error_type": kind}}
        status = 200 if fate in ("ok", "wrong") else int(fate)
        body = body if status == 200 else refuse(status, f"no {fate}")
        return {**line, "response": {"status_code": status, "request_id": "r", "body": body}}

    def answer(self, text: str) -> Json:
        body = super().answer(text)
        return {**body, "usage": {**body["usage"], "cost": float(ROW_USD)}}


VENDORS = (OpenAi, Anthropic, OpenRouter)
