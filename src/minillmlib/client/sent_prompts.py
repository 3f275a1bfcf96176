"""Remembers what was sent in the last calls of this process, as digests: no text and no key.

They tell which part of a prompt changed. A call pays some microseconds for it, and nothing if its
prompt is short.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from functools import partial
from operator import attrgetter
from typing import TypeAlias

import msgspec

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.client.cache_plan import marked_places
from minillmlib.client.message_digests import NO_DIGESTS, MessageDigests
from minillmlib.client.prefix_cache import EncodedPrefix
from minillmlib.client.prepare import Call
from minillmlib.json_value import JsonValue, encode_json
from minillmlib.protocols.cache_control import PromptCache
from minillmlib.providers.base import Provider
from minillmlib.types.messages import CacheTtl
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.responses import CompletionResponse, RequestReport
from minillmlib.types.tools import as_tool
from minillmlib.types.usage import Usage

MIN_RECORDED_TOKENS = 512  # the lowest minimum that a vendor documents
MIN_CALLS = 512  # that are remembered, unless their threads are long
# A call weighs as much as so many messages, of eight bytes each. At the maximum, half are dropped.
_CALL_WEIGHT = 256
_MAX_WEIGHT = 2 * MIN_CALLS * _CALL_WEIGHT

_SALT = os.urandom(16)
_NOTHING_SET = CompletionParameters()
_PARAMETERS = tuple(
    name for name in CompletionParameters.__struct_fields__ if name not in ("tools", "extra")
)
_values_of = attrgetter(*_PARAMETERS)

ParameterDigests: TypeAlias = tuple[dict[str, int], tuple[tuple[str, int], ...]]  # and of the tools
_known_parameters: dict[int, tuple[weakref.ref[CompletionParameters], ParameterDigests]] = {}


class SentPrompt(msgspec.Struct, frozen=True, gc=False):
    """The digests of one prompt that was answered, and what the cache did with it.

    `report` is that of the response, by which the prompt is found again. `marks` are the
    breakpoints that were sent, by their messages' indexes.
    """

    report: RequestReport | None
    server: str
    credential: int
    provider: Provider
    model: str
    digests: ParameterDigests
    messages: MessageDigests
    first_place: int
    marks: dict[int, CacheTtl]
    usage: Usage
    started_at: float
    elapsed_secs: float

    @property
    def cache(self) -> PromptCache | None:
        """The facts about the cache of the model."""
        return self.provider.capabilities.prompt_cache(self.model)

    @property
    def cached_tokens(self) -> int:
        """The tokens that the cache held afterwards; 0 if it did not cache the prompt."""
        cache, usage = self.cache, self.usage
        if cache is None:
            return 0
        if cache.is_automatic and not self.marks:
            return usage.prompt_tokens if usage.prompt_tokens >= (cache.min_tokens or 0) else 0
        return usage.cache_read_tokens + usage.cache_write_tokens


class PromptLog:
    """The last prompts of this process, oldest first. It may be used by any number of threads."""

    def __init__(self) -> None:
        self._prompts: deque[SentPrompt] = deque()
        self._weight = 0  # too low if threads add at once, until the next time that half is dropped

    def add(self, prompt: SentPrompt) -> None:
        self._prompts.append(prompt)
        self._weight += _CALL_WEIGHT + len(prompt.messages.values)
        if self._weight > _MAX_WEIGHT:
            self._drop_half()

    def _drop_half(self) -> None:
        weights = [_CALL_WEIGHT + len(prompt.messages.values) for prompt in list(self._prompts)]
        self._weight = sum(weights)
        for weight in weights[:-1]:
            if self._weight <= _MAX_WEIGHT // 2:
                break
            self._prompts.popleft()
            self._weight -= weight

    def up_to(self, report: RequestReport | None) -> list[SentPrompt]:
        """Return the prompt with this report and those before it, newest first; or nothing."""
        prompts = list(self._prompts)
        while prompts and prompts[-1].report is not report:
            prompts.pop()
        return prompts[::-1]


prompt_log = PromptLog()


def record_prompt(
    call: Call, auth: Auth | None, response: CompletionResponse, prefix: EncodedPrefix | None
) -> EncodedPrefix | None:
    """Record what was sent for a response with usage; return the prefix with its digests.

    `prefix` is what the next call need not encode again, nor digest.
    """
    thread, generator, params = call.thread, call.generator, call.settings.params
    digests = NO_DIGESTS if call.prefix is None else call.prefix.digests
    assert response.usage is not None
    try:
        if prefix is not None:  # so there is no breakpoint
            digests = digests.with_more(thread[len(digests.values) : prefix.count])
            prefix = msgspec.structs.replace(prefix, digests=digests)
        last = response.attempts[-1]
        prompt = SentPrompt(
            response.request_report,
            generator.base_url.rstrip("/"),
            _credential_digest(auth),
            generator.provider,
            generator.model,
            ({}, ()) if params == _NOTHING_SET else _parameter_digests(params),
            digests.with_more(thread[len(digests.values) :]),
            call.first_place,
            marked_places(call) if prefix is None else {},
            response.usage,
            last.started_at,
            last.elapsed_secs,
        )
        prompt_log.add(prompt)
    except Exception:  # noqa: BLE001 - a paid answer is not lost for what could be said about it
        return prefix
    return prefix


def _credential_digest(auth: Auth | None) -> int:
    """Return a digest of a key, which the salt protects. Tokens are renewed, so they have none."""
    secret = auth.secret() if auth is not None and auth.kind is AuthKind.API_KEY else None
    return 0 if secret is None else hash((_SALT, secret.expose_secret()))


def _parameter_digests(params: CompletionParameters) -> ParameterDigests:
    """Return the digests of parameters, which are computed once for each object: tools are long."""
    key = id(params)
    known = _known_parameters.get(key)
    if known is not None and known[0]() is params:
        return known[1]
    values = {**dict(zip(_PARAMETERS, _values_of(params), strict=True)), **params.extra}
    tools = map(as_tool, params.tools or ())
    digests = (
        {name: _digest(value) for name, value in values.items() if value is not None},
        tuple((tool.name, _digest(tool)) for tool in tools),
    )
    forget = partial(_known_parameters.pop, key)  # the dead reference is its default
    _known_parameters[key] = (weakref.ref(params, forget), digests)
    return digests


def _digest(value: JsonValue) -> int:
    return hash(encode_json(value))
