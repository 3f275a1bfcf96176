"""Answers in the shapes of the wires, whole and in events, to be sent as they are or spoiled.

Use it in plays of `FaultServer`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = [
    "CHAT",
    "COUNTS",
    "PARTIAL",
    "PIECES",
    "RESPONSES",
    "TEXT",
    "WIRES",
    "Counts",
    "Wire",
    "wire_of_path",
]

PIECES = ("Low water", " at 06:12.")
PARTIAL = PIECES[0]
TEXT = "".join(PIECES)
COST_USD = 6.3e-05  # as OpenRouter states it
CODES = {
    400: ("invalid_value", "invalid_request_error"),
    401: ("invalid_api_key", "authentication_error"),
    402: ("payment_required", "billing_error"),
    403: ("permission_denied", "permission_error"),
    404: ("model_not_found", "not_found_error"),
    408: ("timeout", "timeout_error"),
    409: ("conflict_error", "conflict_error"),
    413: ("payload_too_large", "request_too_large"),
    422: ("unprocessable", "invalid_request_error"),
    429: ("rate_limit_exceeded", "rate_limit_error"),
    500: ("server_error", "api_error"),
    503: ("overloaded", "overloaded_error"),
    529: ("provider_overloaded", "overloaded_error"),
}


@dataclass(frozen=True)
class Counts:
    """The counts that an answer claims."""

    uncached: int = 84
    read: int = 1536
    out: int = 409


COUNTS = Counts()


def encode(value: object) -> bytes:
    """JSON as Python's servers write it: also with NaN and numbers of any length."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: object, name: str | None = None) -> bytes:
    """One server-sent event."""
    line = b"" if name is None else b"event: " + name.encode() + b"\n"
    return line + b"data: " + encode(value) + b"\n\n"


def counts_in(payload: bytes, out: int) -> bool:
    """Whether counts with so much output are in what was sent."""
    return re.search(rb'(?:completion|output)_tokens":%d\b' % out, payload) is not None


class Wire:
    """OpenAI's chat completions."""

    name = "chat"

    def usage(self, counts: Counts = COUNTS) -> dict:
        prompt = counts.uncached + counts.read
        return {
            "prompt_tokens": prompt,
            "completion_tokens": counts.out,
            "total_tokens": prompt + counts.out,
            "prompt_tokens_details": {"cached_tokens": counts.read, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    def odd_usage(self, count: object) -> dict:
        """Counts of which one cannot be."""
        return {**self.usage(), "completion_tokens": count, "total_tokens": count}

    def message(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> dict:
        """A whole answer; without usage if that is None."""
        said = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
        body = {**self._names("chat.completion"), "choices": [choice]}
        return self._with_usage(body, usage)

    def completion(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> bytes:
        return encode(self.message(text, reason, usage))

    def without_content(self, usage: object = ...) -> bytes:
        """Return the frame of an answer without an answer in it."""
        return encode(self._with_usage({**self._names("chat.completion"), "choices": []}, usage))

    def start(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def say(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def reason(self, reason: str = "stop") -> bytes:
        """The finish reason alone."""
        return self._chunk({}, reason)

    def counted(self, usage: object = ...) -> bytes:
        """The counts alone."""
        body = {**self._names("chat.completion.chunk"), "choices": []}
        return event(self._with_usage(body, usage))

    def ending(self, reason: str = "stop", usage: object = ...) -> bytes:
        """The finish reason and the counts."""
        return self.reason(reason) + (b"" if usage is None else self.counted(usage))

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def ping(self) -> bytes:
        return b": OPENROUTER PROCESSING\n\n"

    def events(self, usage: object = ...) -> tuple[bytes, ...]:
        """A whole stream."""
        said = map(self.say, PIECES)
        return (self.start(), *said, self.ending(usage=usage), self.done())

    def failure(self, status: int, message: str = "No.") -> dict:
        """An error in the wire's own shape."""
        code = CODES.get(status, CODES[500])[0]
        return {"error": {"message": message, "type": code, "param": None, "code": code}}

    def error_event(self, status: int = 500) -> bytes:
        return event(self.failure(status))

    def _with_usage(self, body: dict, usage: object) -> dict:
        if usage is None:
            return body
        return {**body, "usage": self.usage() if usage is ... else usage}

    def _chunk(self, delta: dict, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._names("chat.completion.chunk"), "choices": [choice], "usage": None})

    def _names(self, kind: str) -> dict:
        return {"id": "chatcmpl-CkSample0001", "object": kind, "created": 1795000000, "model": "m"}


class CompletionsWire(Wire):
    """The texts of base models."""

    name = "completions"

    def message(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> dict:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        body = {**self._names("text_completion"), "choices": [choice]}
        return self._with_usage(body, usage)

    def _chunk(self, delta: dict, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": delta.get("content", ""), "logprobs": None}
        choice["finish_reason"] = reason
        return event({**self._names("text_completion"), "choices": [choice], "usage": None})


class OpenRouterWire(Wire):
    """OpenRouter: chat completions with the cost beside the counts."""

    name = "openrouter"

    def usage(self, counts: Counts = COUNTS) -> dict:
        return {**super().usage(counts), "cost": COST_USD, "is_byok": False}

    def failure(self, status: int, message: str = "No.") -> dict:
        metadata = {"error_type": CODES.get(status, CODES[500])[0], "provider_name": "DeepInfra"}
        return {"error": {"code": status, "message": message, "metadata": metadata}, "user_id": "u"}


class AnthropicWire(Wire):
    """Anthropic's messages."""

    name = "anthropic"

    def usage(self, counts: Counts = COUNTS) -> dict:
        return {
            "input_tokens": counts.uncached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": counts.read,
            "output_tokens": counts.out,
            "service_tier": "standard",
        }

    def odd_usage(self, count: object) -> dict:
        return {**self.usage(), "output_tokens": count}

    def message(self, text: str = TEXT, reason: str = "end_turn", usage: object = ...) -> dict:
        reason = "end_turn" if reason == "stop" else reason
        body = {**self._names(), "content": [{"type": "text", "text": text}]}
        return self._with_usage({**body, "stop_reason": reason, "stop_sequence": None}, usage)

    def without_content(self, usage: object = ...) -> bytes:
        return encode(self._with_usage(self._names(), usage))

    def start(self) -> bytes:
        begun = {**self._names(), "content": [], "stop_reason": None, "stop_sequence": None}
        begun["usage"] = {**self.usage(), "output_tokens": 1}
        block = {"type": "content_block_start", "index": 0}
        return self._event("message_start", message=begun) + self._event(
            **block, content_block={"type": "text", "text": ""}
        )

    def say(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return self._event("content_block_delta", index=0, delta=delta)

    def reason(self, reason: str = "stop") -> bytes:
        return self.ending(reason, None)

    def counted(self, usage: object = ...) -> bytes:
        counts = self._with_usage({}, usage)
        return self._event("message_delta", delta={}, **counts)

    def ending(self, reason: str = "stop", usage: object = ...) -> bytes:
        reason = "end_turn" if reason == "stop" else reason
        delta = {"stop_reason": reason, "stop_sequence": None}
        counts = self._with_usage({}, usage)
        stop = self._event("content_block_stop", index=0)
        return stop + self._event("message_delta", delta=delta, **counts)

    def done(self) -> bytes:
        return self._event("message_stop")

    def ping(self) -> bytes:
        return self._event("ping")

    def failure(self, status: int, message: str = "No.") -> dict:
        error = {"type": CODES.get(status, CODES[500])[1], "message": message}
        return {"type": "error", "error": error, "request_id": "req_011CTsample0001"}

    def error_event(self, status: int = 500) -> bytes:
        return event(self.failure(status), "error")

    def _event(self, type: str, **fields: object) -> bytes:  # noqa: A002 - the wire's own word
        return event({"type": type, **fields}, type)

    def _names(self) -> dict:
        return {"id": "msg_01Sample", "type": "message", "role": "assistant", "model": "m"}


class ResponsesWire(Wire):
    """OpenAI's responses, whose last event is the finish, the counts and the end in one."""

    name = "responses"

    def usage(self, counts: Counts = COUNTS) -> dict:
        prompt = counts.uncached + counts.read
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": counts.read, "cache_write_tokens": 0},
            "output_tokens": counts.out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + counts.out,
        }

    def odd_usage(self, count: object) -> dict:
        return {**self.usage(), "output_tokens": count, "total_tokens": count}

    def message(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> dict:
        body = {**self._names(), "status": "completed", "output": [self._item(text)]}
        if reason != "stop":
            details = {"reason": "max_output_tokens" if reason == "length" else reason}
            body |= {"status": "incomplete", "incomplete_details": details}
        return self._with_usage({"usage": None} | body, usage)

    def without_content(self, usage: object = ...) -> bytes:
        return encode(self._with_usage({**self._names(), "status": "completed"}, usage))

    def start(self) -> bytes:
        begun = {**self._names(), "status": "in_progress", "output": [], "usage": None}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
        return self._event("response.created", response=begun) + self._event(
            "response.output_item.added", output_index=0, item=item
        )

    def say(self, text: str) -> bytes:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return self._event("response.output_text.delta", **place, delta=text, logprobs=[])

    def reason(self, reason: str = "stop") -> bytes:
        return self.ending(reason, None)

    def ending(self, reason: str = "stop", usage: object = ...) -> bytes:
        body = {**self.message("", reason, usage), "output": []}
        return self._event(f"response.{body['status']}", response=body)

    def ping(self) -> bytes:
        return self._event("keepalive", sequence_number=3)

    def error_event(self, status: int = 500) -> bytes:
        return event({"type": "error", "sequence_number": 2, **self.failure(status)}, "error")

    def _event(self, type: str, **fields: object) -> bytes:  # noqa: A002 - the wire's own word
        return event({"type": type, **fields}, type)

    def _item(self, text: str) -> dict:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                "content": [part]}  # fmt: skip

    def _names(self, kind: str = "response") -> dict:
        return {"id": "resp_01Sample", "object": kind, "created_at": 1795000000, "model": "m"}


NAMELESS = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
UNFILTERED = {"hate": {"filtered": False, "severity": "safe"}}


class AzureWire(Wire):
    """Chat completions at Azure: filters report before and after the text, and errors have no type."""

    name = "azure"

    def start(self) -> bytes:
        of_prompt = [{"prompt_index": 0, "content_filter_results": UNFILTERED}]
        return event({**NAMELESS, "prompt_filter_results": of_prompt}) + super().start()

    def message(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> dict:
        body = super().message(text, reason, usage)
        body["choices"][0]["content_filter_results"] = UNFILTERED
        return body

    def counted(self, usage: object = ...) -> bytes:
        late = {"index": 0, "finish_reason": None, "content_filter_results": UNFILTERED}
        return event({**NAMELESS, "choices": [late]}) + super().counted(usage)

    def failure(self, status: int, message: str = "No.") -> dict:
        return {"error": {"code": str(status), "message": message}}


class AzureResponsesWire(ResponsesWire):
    """Responses at Azure, with its filters and its errors."""

    name = "azure-responses"

    def message(self, text: str = TEXT, reason: str = "stop", usage: object = ...) -> dict:
        passed = {"blocked": False, "content_filter_results": UNFILTERED}
        return {**super().message(text, reason, usage), "content_filters": [passed]}

    def failure(self, status: int, message: str = "No.") -> dict:
        return AzureWire.failure(self, status, message)


# With the events of this family.
CHAT = ("openai", "openrouter", "generic", "completions", "azure", "azure-dated")
RESPONSES = ("responses", "azure-responses")
WIRES: dict[str, Wire] = {
    "openai": Wire(),
    "openrouter": OpenRouterWire(),
    "anthropic": AnthropicWire(),
    "generic": Wire(),
    "completions": CompletionsWire(),
    "responses": ResponsesWire(),
    "azure": AzureWire(),
    "azure-dated": AzureWire(),
    "azure-responses": AzureResponsesWire(),
}


def wire_of_path(path: str) -> Wire:
    """The wire that a request speaks, by its path, which may begin with the name of a vendor."""
    return WIRES.get(path.split("/")[1] if "/" in path else "", WIRES["generic"])
