"""An HTTP answer becomes a response, or the error it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from minillmlib.errors import MalformedResponseError, MiniLLMError
from minillmlib.pipeline.plan import Call
from minillmlib.providers.failures import error_from_reply, request_id_of
from minillmlib.transport.contract import Transport
from minillmlib.transport.engine import default_transport
from minillmlib.values.auth import Auth
from minillmlib.values.costs import CostOutcome
from minillmlib.values.json import decode_json
from minillmlib.values.responses import CompletionResponse

__all__ = ["read_reply", "reading", "settle", "transport_of"]


def transport_of(call: Call) -> Transport:
    """The transport that carries this call."""
    return call.generator.transport or default_transport()


def read_reply(
    call: Call, status: int, headers: Mapping[str, str], body: bytes
) -> CompletionResponse:
    """The response in a whole answer. Raises what the answer says went wrong."""
    if not 200 <= status < 300:
        raise error_from_reply(status, headers, body.decode("utf-8", "replace"))
    if not body.strip():
        raise MalformedResponseError(f"the server answered with status {status} and no text")
    response = call.generator.provider.parse_response(decode_json(body))
    return msgspec.structs.replace(response, request_id=request_id_of(headers))


def settle(call: Call, response: CompletionResponse) -> CompletionResponse:
    """The response with what it cost. Without usage the cost is unknown, never zero."""
    price = call.settings.token_price or call.generator.token_price
    cost = (
        CostOutcome.unknown()
        if response.usage is None
        else call.generator.provider.cost_of(response.usage, price)
    )
    return msgspec.structs.replace(response, cost=cost)


@contextmanager
def reading(auth: Auth, headers: Mapping[str, str]) -> Iterator[None]:
    """Makes every failure to understand a server one of our errors, free of the secret.

    A provider may be the caller's own, so what it raises over an unexpected shape is a
    `MalformedResponseError` too. Servers echo keys in their error texts: they are cut out here.
    """
    try:
        yield
    except MiniLLMError as error:
        error.args = tuple(auth.redact(str(arg)) for arg in error.args)
        error.request_id = error.request_id or request_id_of(headers)
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise MalformedResponseError(
            f"the provider could not read the server's answer "
            f"({type(error).__name__}: {auth.redact(str(error))})",
            request_id=request_id_of(headers),
        ) from error
