"""The contract of a provider: everything in which one service differs from another."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from minillmlib.auth.secret import Auth
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.chat_completions import request, response, usage
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.protocols.rate_limits import parse_rate_limits
from minillmlib.providers.contract_values import Billing, Capabilities
from minillmlib.transport.base import HttpRequest
from minillmlib.types.costs import CostOutcome, TokenPrice
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.rate_limits import RateLimits
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.usage import Usage

__all__ = ["Headers", "Provider"]

Headers: TypeAlias = list[tuple[str, str]]


class Provider:
    """Translates messages and parameters to the wire of one service, and its answers back.

    The defaults speak the chat-completions wire: override what differs. A provider does no I/O
    and keeps no state, so one instance serves any number of calls at once. A method refuses what
    it cannot represent with `InvalidParameterError`, and what is not an answer with
    `MalformedResponseError` or an `ApiError`.

    A class that defines `build_request` and no `capabilities` inherits them with `messages_key`
    None, since its body may have any shape.
    """

    dialect: ChatDialect = ChatDialect()
    """The facts of a server that speaks the chat-completions wire."""
    capabilities: Capabilities = Capabilities(messages_key="messages")
    """The abilities of the service."""
    billing: Billing = Billing()
    """The rules by which it counts and bills."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__mro__:
            if "capabilities" in vars(base):
                return
            if "build_request" in vars(base):
                cls.capabilities = cls.capabilities.replace(messages_key=None)
                return

    def endpoint_url(self, base: str) -> str:
        """Return the address of completion requests, from the generator's base URL."""
        return f"{base.rstrip('/')}/chat/completions"

    def request_url(self, base: str, model: str, *, stream: bool) -> str:
        """Return the address of one request, for wires with the model in it."""
        del model, stream
        return self.endpoint_url(base)

    def auth_headers(self, auth: Auth) -> Headers:
        """Return the headers that carry the credential."""
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
        """Return the JSON body of a request. `include_usage` asks for token counts in a stream."""
        return request.build_body(
            self.dialect, model, messages, params, stream=stream, include_usage=include_usage
        )

    def finalize(self, request: HttpRequest, auth: Auth) -> HttpRequest:
        """Return the complete request as it is sent, once for each attempt; for signatures."""
        del auth
        return request

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """Return the answer in a decoded body that came with a success status."""
        return response.parse_completion(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """Return the chunk in one event of a stream, or None for an event without content."""
        return response.parse_chunk(data, self.parse_usage)

    def chunk_reader(self) -> Callable[[str], StreamChunk | None]:
        """Return the reader of one stream, for wires whose events depend on earlier ones."""
        return self.parse_chunk

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """Return the token counts in a decoded body or event, or None if none can be trusted."""
        return usage.parse_usage(raw)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the guide's signature
        """Whether token counts may follow the finish reason of a stream.

        If not, the stream is over at the finish reason; else counts are awaited for a short time.
        """
        return requested

    def cost_of(self, usage: Usage, price: TokenPrice | None) -> CostOutcome:
        """Return the cost of the tokens: the provider's own figure, else by `price`."""
        if usage.native_cost is not None:
            return CostOutcome.resolved(usage.native_cost, usage)
        if price is not None and price.has_rates_for(usage):
            return CostOutcome.resolved(price.cost_of(usage), usage, source=price.source)
        return CostOutcome.unpriced(usage)

    def resolve_post_stream(self, base: str, response_id: str) -> str | None:
        """Return the address that reports the cost of a past answer, if there is one."""
        del base, response_id
        return None

    def limits_of(self, headers: Mapping[str, str]) -> RateLimits:
        """Return the remaining quota that the headers of an answer state."""
        return parse_rate_limits(headers)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
