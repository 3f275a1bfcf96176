"""One whole completion: the flow of the library in one function."""

from __future__ import annotations

from minillmlib.errors import MiniLLMError, RejectedResponseError
from minillmlib.pipeline.accept import accept
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.read import cost_in, read_reply
from minillmlib.pipeline.run import Run
from minillmlib.transport.exchange import exchange
from minillmlib.values.responses import CompletionResponse

__all__ = ["complete"]


async def complete(call: Call) -> CompletionResponse:
    """The whole answer to `call` with its cost, after as many attempts as its settings allow."""
    run = Run(call)
    try:
        response = await _answer(run)
    except MiniLLMError:
        await run.end()
        raise
    except BaseException as error:  # noqa: BLE001 - goes on as it is
        run.leave()
        # The frames of the exchange hold what was sent and what came.
        raise error.with_traceback(None) from None
    await run.end()
    return response


async def _answer(run: Run) -> CompletionResponse:
    while True:
        try:
            return run.answered(await _attempt(run))
        except MiniLLMError as error:
            failure = error
        await run.recover(failure)  # here, where no failure is the context of another


async def _attempt(run: Run) -> CompletionResponse:
    call, sent = run.call, run.begin()
    bound, limits = run.clocks.whole(), call.generator.limits
    reply = await exchange(call.transport, sent.request, bound, limits, run.heard)
    try:
        response = read_reply(call, sent, reply.status, reply.headers, reply.body)
    except MiniLLMError as error:
        run.failed(error, cost_in(call, reply.body))
        raise
    try:
        accept(call.settings, response)
    except RejectedResponseError as error:
        run.rejected(response, error)
        raise
    return response
