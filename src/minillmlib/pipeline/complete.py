"""One whole completion: the flow of the library in one function."""

from __future__ import annotations

from minillmlib.pipeline.encode import encode
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.read import read_reply, reading, settle, transport_of
from minillmlib.transport.exchange import exchange
from minillmlib.values.responses import CompletionResponse

__all__ = ["complete"]


async def complete(call: Call) -> CompletionResponse:
    """Sends `call` once and returns the whole answer with its cost."""
    auth = call.generator.credential.resolve()
    request = encode(call, auth)
    reply = await exchange(transport_of(call), request, call.timeout_secs)
    with reading(auth, reply.headers):
        response = read_reply(call, reply.status, reply.headers, reply.body)
    return settle(call, response)
