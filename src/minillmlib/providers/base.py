"""The contract of a provider: everything in which one vendor's API differs from another's."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TypeAlias

import msgspec

from minillmlib.auth.secret import Auth
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.chat_completions import response as chat_completions
from minillmlib.protocols.chat_completions import usage as chat_usage
from minillmlib.protocols.chat_completions.response import ChatDialect
from minillmlib.providers.models import token_limits as ceilings
from minillmlib.types.costs import CostOutcome, TokenPrice
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.usage import Usage, UsageUpdate

__all__ = ["Headers", "Provider"]

Headers: TypeAlias = list[tuple[str, str]]


class Provider:
    """Translates our values to one wire and back.

    The defaults speak the chat-completions dialect: override what differs. A provider does no
    I/O and keeps no state, so one instance serves any number of calls at once. What a method
    cannot represent it refuses with `InvalidParameterError`; what a server sends that is not
    an answer it refuses with `MalformedResponseError` or an `ApiError`.
    """

    dialect: ChatDialect = ChatDialect()
    """The facts of a server that speaks the chat-completions wire."""
    answer_media: tuple[str, ...] = ()
    """The kinds of generated media that go back to the model with its earlier answers."""

    list_headers: tuple[str, ...] = ()
    """Headers that hold a list, so that the caller's values join ours instead of replacing them."""

    def prefill_refusal(self, model: str) -> str | None:
        """Why this model does not continue a given beginning, or None if it may."""
        del model
        return None

    def schema_refusal(self, model: str, form: ResponseFormat) -> str | None:
        """Why this model is not held to such a form, or None if it is; then the prompt tells it."""
        del model, form
        return None

    def omitted(
        self, model: str, messages: Sequence[Message], params: CompletionParameters
    ) -> dict[str, str]:
        """What of a call is not sent though no error says so, and why, for the receipt."""
        del model
        omitted = {}
        if params.openrouter_routing is not None:
            omitted["openrouter_routing"] = "only OpenRouter chooses providers"
        if any(map(attrgetter("cache_ttl"), messages)):
            omitted["cache marks"] = "this provider caches by itself"
        return omitted

    def attribution_headers(self, app_url: str | None, app_title: str | None) -> Headers:
        """The headers that tell which program a request comes from; most vendors have none."""
        del app_url, app_title
        return []

    def endpoint_url(self, base: str) -> str:
        """The address of a completion request, from the generator's base URL."""
        return f"{base.rstrip('/')}/chat/completions"

    def auth_headers(self, auth: Auth) -> Headers:
        """The headers that prove who sends the request."""
        secret = auth.secret()
        return [("Authorization", f"Bearer {secret.expose_secret()}")] if secret else []

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """The JSON body of a request. `include_usage` asks for token counts in a stream."""
        return chat_completions.build_body(
            self.dialect, model, messages, params, stream=stream, include_usage=include_usage
        )

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """The answer in a decoded body that came with a success status."""
        return chat_completions.parse_completion(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """What one event of a stream says, or None if it says nothing."""
        return chat_completions.parse_chunk(data, self.parse_usage)

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """The token counts in a decoded body or event, or None if there are none to trust."""
        return chat_usage.parse_usage(raw)

    def merge_usage(self, earlier: UsageUpdate, later: UsageUpdate) -> UsageUpdate:
        """What two records of one request say. Counts are cumulative: nothing is added.

        Here each record is whole: the later one stands, also if it cannot be used, unless it
        knows less of the input.
        """
        before, usage = earlier.usage, later.usage
        if before is None or usage is None:
            return later
        wider = before if before.prompt_tokens > usage.prompt_tokens else usage
        usage = msgspec.structs.replace(
            wider,
            completion_tokens=max(before.completion_tokens, usage.completion_tokens),
            reasoning_tokens=max(before.reasoning_tokens, usage.reasoning_tokens),
            native_cost=before.native_cost if usage.native_cost is None else usage.native_cost,
        )
        return UsageUpdate(usage=usage, record=later.record)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the guide's signature
        """Whether a stream goes on to token counts after its finish reason.

        If it may not, the stream is over at the finish reason; else counts are awaited for a
        short grace.
        """
        return requested

    def cost_of(self, usage: Usage, price: TokenPrice | None) -> CostOutcome:
        """What the counted tokens cost: as the provider says, else by `price`."""
        if usage.native_cost is not None:
            return CostOutcome.resolved(usage.native_cost, usage)
        if price is not None and price.has_rates_for(usage):
            return CostOutcome.resolved(price.cost_of(usage), usage, source=price.source)
        return CostOutcome.unpriced(usage)

    def is_billed(self, response: CompletionResponse) -> bool:
        """Whether an answer with counts is on the bill at all; a vendor may let some go free."""
        del response
        return True

    def resolve_post_stream(self, base: str, response_id: str) -> str | None:
        """The address at which the cost of a past answer can be asked, if there is one."""
        del base, response_id
        return None

    def most_media_tokens(self, model: str, part: MediaPart) -> int | None:
        """The most tokens that an image or the like can count as, or None if no rule says so."""
        del model, part
        return None

    def most_output_tokens(self, body: JsonObject, params: CompletionParameters) -> int | None:
        """The most that this request lets the model write, thoughts and all; None if unlimited."""
        return ceilings.output_tokens(body, params.max_tokens)

    def surcharges(self, body: Mapping[str, JsonValue]) -> Sequence[str]:
        """The keys of a body with which a request may cost more than its tokens tell."""
        return tuple(ceilings.surcharges(body))

    def least_output_tokens(self, model: str, params: CompletionParameters) -> int:
        """The least that an answer may be asked to be, for requests that only warm a cache."""
        del model, params
        return 1

    def warm_refusal(self, model: str, params: CompletionParameters) -> str | None:
        """Why a request that only warms a cache would do no good or be refused, or None."""
        del model, params
        return None

    def parse_late_usage(self, raw: JsonValue) -> Usage | None:
        """The counts, with their cost, in what that address answers; None if not yet there."""
        del raw
        return None

    def is_usage_pending(self, raw: JsonValue) -> bool:
        """Whether a 404 of that address, decoded, means that the record is only not there yet."""
        del raw
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
