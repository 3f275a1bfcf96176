"""The two values with which a provider describes its service beside its methods."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Self

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.cache_control import BREAKPOINTS
from minillmlib.protocols.chat_completions.usage import merge_usage
from minillmlib.providers.models.token_limits import max_output_tokens, unpriced_keys
from minillmlib.types.change import replace
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.usage import Usage, UsageUpdate

__all__ = ["Billing", "Capabilities", "omitted_breakpoints_and_routing", "omitted_routing"]


def _none(*_: object) -> None:
    return None


def _one(*_: object) -> int:
    return 1


def _true(*_: object) -> bool:
    return True


def omitted_routing(params: CompletionParameters) -> dict[str, str]:
    """Return the report of a routing that only OpenRouter takes."""
    if params.openrouter_routing is None:
        return {}
    return {"openrouter_routing": "only OpenRouter chooses providers"}


def omitted_breakpoints_and_routing(
    model: str, messages: Sequence[Message], params: CompletionParameters
) -> dict[str, str]:
    """Return what a service omits that caches by itself and chooses no providers."""
    del model
    omitted = omitted_routing(params)
    if any(map(attrgetter("cache_ttl"), messages)):
        omitted[BREAKPOINTS] = "this provider caches by itself"
    return omitted


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The abilities of a service. Functions may depend on the model; each default is neutral.

    Attributes:
        messages_key: The key of the body under which the encoded messages are, one item for each
            message, in order. The client may then insert bytes that an earlier call encoded.
            None: the body is always built as a whole.
        why_no_prefill: `(model)`: why a model does not continue a prefix (`force_prepend`), or
            None if it may.
        why_no_schema: `(model, response_format)`: why a model is not held to a schema, or None
            if it is. With `expecting`, the prompt then states the schema.
        why_no_warmup: `(model, params)`: why `ensure_cached` would be refused or useless, or None.
        min_output_tokens: `(model, params)`: the smallest `max_tokens` of a request that only
            writes a cache.
        omitted: `(model, messages, params)`: the settings of a call that are not sent though no
            error says so, with the reason for each. The client may ask for some messages at a
            time, so the result for all must be that of the parts together.
        explain_refusal: `(model, params)`: known reasons for which the server refuses such a
            request, or None. The client adds them to the message of its 400 or 422.
        replayable_media: The kinds of generated media that go back to the model with its answers.
        mergeable_headers: Headers, in lower case, that hold a list, so that the caller's values
            are added to the provider's.
        app_url_header: The header for the address of the calling program, if there is one.
        app_title_header: The header for its name.
        stream_accept: The `Accept` header of a request for a stream.
    """

    messages_key: str | None = None
    why_no_prefill: Callable[[str], str | None] = _none
    why_no_schema: Callable[[str, ResponseFormat], str | None] = _none
    why_no_warmup: Callable[[str, CompletionParameters], str | None] = _none
    min_output_tokens: Callable[[str, CompletionParameters], int] = _one
    omitted: Callable[[str, Sequence[Message], CompletionParameters], dict[str, str]] = (
        omitted_breakpoints_and_routing
    )
    explain_refusal: Callable[[str, CompletionParameters], str | None] = _none
    replayable_media: tuple[str, ...] = ()
    mergeable_headers: tuple[str, ...] = ()
    app_url_header: str | None = None
    app_title_header: str | None = None
    stream_accept: str = "text/event-stream"

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)


class Billing(msgspec.Struct, frozen=True, kw_only=True):
    """The rules by which a service counts and bills.

    Attributes:
        merge_usage: `(earlier, later)`: two records of counts of one request as one.
        is_billed: `(response)`: whether an answer with counts is on the bill at all.
        parse_deferred_usage: `(raw)`: the counts, with their cost, in a reply of the address that
            `resolve_post_stream` returns; None if they are not there yet.
        is_usage_pending: `(raw)`: whether a 404 of that address means that the record is not there
            yet, and not that there is no such address.
        max_media_tokens: `(model, part)`: the most tokens that an image or the like counts as, or
            None if no rule is published.
        max_output_tokens: `(body, params)`: the most tokens that a request lets the model write,
            reasoning included; None if unlimited.
        unpriced_keys: `(body)`: the keys with which a request may cost more than its tokens.
    """

    merge_usage: Callable[[UsageUpdate, UsageUpdate], UsageUpdate] = merge_usage
    is_billed: Callable[[CompletionResponse], bool] = _true
    parse_deferred_usage: Callable[[JsonValue], Usage | None] = _none
    is_usage_pending: Callable[[JsonValue], bool] = _true
    max_media_tokens: Callable[[str, MediaPart], int | None] = _none
    max_output_tokens: Callable[[JsonObject, CompletionParameters], int | None] = max_output_tokens
    unpriced_keys: Callable[[Mapping[str, JsonValue]], Sequence[str]] = unpriced_keys

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)
