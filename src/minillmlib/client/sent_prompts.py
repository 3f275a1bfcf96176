"""Remembers what was sent in the last calls of this process, as digests: no text and no key.

They tell which part of a prompt changed. Python's own hashes serve: that of a text is computed once
for each text, differs in each process, and never leaves it.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter, is_

import msgspec

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.client.cache_plan import marked_places, reading_order
from minillmlib.client.prepare import Call
from minillmlib.json_value import JsonValue, encode_json
from minillmlib.locks import fork_safe_lock, import_lock
from minillmlib.protocols.cache_control import PromptCache
from minillmlib.types.media import ImagePart
from minillmlib.types.messages import SYSTEM, CacheTtl, Message
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.responses import CompletionResponse, RequestReport
from minillmlib.types.tools import as_tool
from minillmlib.types.usage import Usage

MIN_RECORDED_TOKENS = 512  # the lowest minimum that a vendor documents
MAX_CALLS = 1024
MAX_DIGESTS = 262_144  # of messages, eight bytes each
IMAGES = "images"  # stands for a parameter: whether the prompt has some
_PROCESS_KEY = os.urandom(16)

_ROLE, _CONTENT, _CALLS, _CALL_ID, _MEDIA, _REASONING = map(
    attrgetter, ("role", "content", "tool_calls", "tool_call_id", "media", "reasoning")
)


class SentPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of one prompt that was answered, and what the cache did with it.

    `report` is that of the response, by which the prompt is found again. `marks` are the
    breakpoints that were sent, by their messages' indexes.
    """

    report: RequestReport
    server: tuple[str, bytes]
    model: str
    cache: PromptCache | None
    parameters: dict[str, int]
    tools: tuple[tuple[str, int], ...]
    messages: array[int]
    is_system: tuple[bool, ...]
    first_place: int
    marks: dict[int, CacheTtl]
    usage: Usage
    started_at: float
    ended_at: float

    @property
    def order(self) -> list[int]:
        """The indexes of the messages in the order in which the cache reads them."""
        return reading_order(self.is_system, self.cache)

    @property
    def cached_tokens(self) -> int:
        """The tokens that the cache held afterwards; 0 if it did not cache the prompt."""
        if self.cache is None:
            return 0
        if self.cache.is_automatic and not self.marks:
            tokens = self.usage.prompt_tokens
            return tokens if tokens >= (self.cache.min_tokens or 0) else 0
        return self.usage.cache_read_tokens + self.usage.cache_write_tokens


class PromptLog:
    """The last prompts of this process, oldest first."""

    def __init__(self) -> None:
        self._prompts: deque[SentPrompt] = deque()
        self._digests = 0
        self._lock = fork_safe_lock()

    def add(self, prompt: SentPrompt) -> None:
        with self._lock:
            self._prompts.append(prompt)
            self._digests += len(prompt.messages)
            while len(self._prompts) > MAX_CALLS or self._digests > MAX_DIGESTS:
                self._digests -= len(self._prompts.popleft().messages)

    def up_to(self, report: RequestReport | None) -> list[SentPrompt]:
        """Return the prompt with this report and those before it, newest first; or nothing."""
        with self._lock:
            prompts = list(self._prompts)
        while prompts and prompts[-1].report is not report:
            prompts.pop()
        return prompts[::-1]


prompt_log = PromptLog()


def record_prompt(call: Call, auth: Auth | None, response: CompletionResponse) -> None:
    """Record what was sent for a response, which must have usage and a report."""
    try:
        prompt_log.add(_sent_prompt(call, auth, response))
    except Exception:  # noqa: BLE001 - a paid answer is not lost for what can be said about it
        return


def _sent_prompt(call: Call, auth: Auth | None, response: CompletionResponse) -> SentPrompt:
    generator, params, thread = call.generator, call.settings.params, call.thread
    assert response.usage is not None
    assert response.request_report is not None
    facts = generator.provider.capabilities.prompt_cache(generator.model)
    marks = marked_places(call, facts)
    match params.extra.get("cache_control"):
        case {"ttl": "1h"}:  # Anthropic's own breakpoint at the end of a prompt
            marks[len(thread) - 1] = "1h"
        case dict():
            marks[len(thread) - 1] = "5m"
    last = response.attempts[-1]
    return SentPrompt(
        report=response.request_report,
        server=(generator.base_url, _credential_digest(auth)),
        model=generator.model,
        cache=facts,
        parameters=_parameter_digests(params, thread),
        tools=tuple((tool.name, _digest(tool)) for tool in map(as_tool, params.tools or ())),
        messages=_message_digests(thread),
        is_system=tuple(map(is_, map(_ROLE, thread), repeat(SYSTEM))),
        first_place=call.first_place,
        marks=marks,
        usage=response.usage,
        started_at=last.started_at,
        ended_at=last.started_at + last.elapsed_secs,
    )


def _credential_digest(auth: Auth | None) -> bytes:
    """Return a digest of a key, by which nobody can guess it. Tokens are renewed, so have none."""
    secret = auth.secret() if auth is not None and auth.kind is AuthKind.API_KEY else None
    if secret is None:
        return b""
    with import_lock:
        from hashlib import blake2b  # noqa: PLC0415 - the engine has loaded it by now

    return blake2b(secret.expose_secret().encode(), key=_PROCESS_KEY, digest_size=16).digest()


def _parameter_digests(params: CompletionParameters, thread: Sequence[Message]) -> dict[str, int]:
    values: dict[str, JsonValue] = {
        name: getattr(params, name)
        for name in params.__struct_fields__
        if name not in ("tools", "extra")
    }
    values |= params.extra
    digests = {name: _digest(value) for name, value in values.items() if value is not None}
    if any(isinstance(part, ImagePart) for message in thread for part in message.attachments):
        digests[IMAGES] = 1
    return digests


def _message_digests(thread: Sequence[Message]) -> array[int]:
    """Return a digest of each message. A plain one costs a tenth of a microsecond."""
    roles = map(id, map(_ROLE, thread))
    digests = array("q", map(hash, zip(roles, map(_CONTENT, thread), strict=True)))
    if not any(any(map(part, thread)) for part in (_CALLS, _CALL_ID, _MEDIA, _REASONING)):
        return digests
    for index, message in enumerate(thread):
        rest = [message.tool_calls, message.tool_call_id, message.is_error, message.reasoning]
        if any(rest) or message.media:
            digests[index] = hash((digests[index], _digest(rest), message.media))
    return digests


def _digest(value: JsonValue) -> int:
    return hash(encode_json(value))
