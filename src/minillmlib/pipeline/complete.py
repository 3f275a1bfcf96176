"""One whole completion: the flow of the library in one function."""

from __future__ import annotations

from minillmlib.pipeline.encode import encode
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.read import read_reply
from minillmlib.transport.exchange import exchange
from minillmlib.values.responses import CompletionResponse

__all__ = ["complete"]


async def complete(call: Call) -> CompletionResponse:
    """Sends `call` once and returns the whole answer with its cost."""
    sent = encode(call)
    reply = await exchange(call.transport, sent.request, call.timeout_secs)
    return read_reply(call, sent, reply.status, reply.headers, reply.body)
