"""One whole completion: the flow of the library in one function."""

from __future__ import annotations

from minillmlib.client.completion import Run
from minillmlib.client.parse import cost_in, read_reply
from minillmlib.client.prepare import Call
from minillmlib.client.validate import Accepted
from minillmlib.errors import MiniLLMError

__all__ = ["complete"]


async def complete(call: Call) -> Accepted:
    """The whole answer to `call` with its cost, after as many attempts as its settings allow.

    With it comes its value if a type is expected.
    """
    run = Run(call)
    try:
        answer = await _answer(run)
    except MiniLLMError:
        await run.end()
        raise
    except BaseException as error:  # noqa: BLE001 - goes on as it is
        run.leave()
        # The frames of the exchange hold what was sent and what came.
        raise error.with_traceback(None) from None
    await run.end()
    return answer


async def _answer(run: Run) -> Accepted:
    while True:
        try:
            return await _attempt(run)
        except MiniLLMError as error:
            failure = error
        await run.recover(failure)  # here, where no failure is the context of another


async def _attempt(run: Run) -> Accepted:
    call = run.call
    sent, exchange = run.begin()
    body = await exchange.fetch(run.clocks.first_wait())
    assert exchange.status is not None
    try:
        response = read_reply(call, sent, exchange.status, run.headers, body)
    except MiniLLMError as error:
        run.failed(error, cost_in(call, body))
        raise
    return run.answered(response)
