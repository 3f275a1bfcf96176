"""An HTTP answer becomes a response, or the error it stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeVar

import msgspec

from minillmlib.auth.redaction import Redactor
from minillmlib.client.http_request import Encoded
from minillmlib.client.prefill import Prefill
from minillmlib.client.prepare import Call, price_of
from minillmlib.errors import MalformedResponseError, MiniLLMError
from minillmlib.json_value import decode_json
from minillmlib.protocols.errors import error_from_reply, request_id_of
from minillmlib.types.costs import CostOutcome
from minillmlib.types.responses import CompletionResponse, RequestReport
from minillmlib.types.usage import Usage

__all__ = ["cost_in", "cost_of", "cost_of_answer", "read_reply", "read_safely", "signed"]

T = TypeVar("T")
TextT = TypeVar("TextT", str, bytes)


def read_reply(
    call: Call, sent: Encoded, status: int, headers: Mapping[str, str], body: bytes
) -> CompletionResponse:
    """The settled response in a whole answer. Raises what the answer says went wrong."""
    if not 200 <= status < 300:  # an error may say what is in them
        headers = sent.redactor.redact_all(headers)

    def read(data: bytes) -> CompletionResponse:
        if status < 200:
            raise MalformedResponseError(f"the server answered with status {status} and no answer")
        if status >= 300:
            raise error_from_reply(status, headers, data, lambda: _explain_refusal(call))
        if not data or data.isspace():
            raise MalformedResponseError(f"the server answered with status {status} and no text")
        parsed = call.generator.provider.parse_response(decode_json(data))
        response = _begun(call, parsed)
        cost = cost_of_answer(call, response)
        return signed(call, response, cost, sent.request_report)

    return read_safely(sent.redactor, headers, read, body)


def _explain_refusal(call: Call) -> str | None:
    generator = call.generator
    with contextlib.suppress(Exception):  # the provider may be the caller's own
        explain = generator.provider.capabilities.explain_refusal
        return explain(generator.model, call.settings.params)
    return None


def _begun(call: Call, response: CompletionResponse) -> CompletionResponse:
    """The response with the beginning that the call forced, whether it was repeated or not."""
    if not call.settings.force_prepend:
        return response
    content = Prefill(call.settings.force_prepend).whole(response.content)
    added = len(content) - len(response.content)
    blocks = tuple(
        msgspec.structs.replace(block, text_before=block.text_before + added)
        if block.text_before
        else block
        for block in response.reasoning_blocks
    )
    return msgspec.structs.replace(response, content=content, reasoning_blocks=blocks)


def signed(
    call: Call, response: CompletionResponse, cost: CostOutcome, request_report: RequestReport
) -> CompletionResponse:
    """The response with its cost, with who answered, and with the receipt."""
    return msgspec.structs.replace(
        response, cost=cost, origin=call.origin, request_report=request_report
    )


def cost_in(call: Call, body: bytes) -> CostOutcome | None:
    """What an answer that failed says that it cost, or None if it has no counts to trust."""
    try:
        usage = call.generator.provider.parse_usage(decode_json(body))
        return cost_of(call, usage) if usage is not None and usage.is_complete else None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a failed answer may have any shape, and the provider any code
        return None


def cost_of(call: Call, usage: Usage) -> CostOutcome:
    """What the counts cost at the price of the call or of its generator."""
    return call.generator.provider.cost_of(usage, price_of(call))


def cost_of_answer(call: Call, response: CompletionResponse) -> CostOutcome:
    """What a whole answer cost. Without usage that is unknown, never zero."""
    if response.usage is None:
        return CostOutcome.unknown(record=response.usage_record)
    if not call.generator.provider.billing.is_billed(response):
        return CostOutcome.resolved(Decimal(0), response.usage)
    return cost_of(call, response.usage)


def read_safely(
    redactor: Redactor, headers: Mapping[str, str], read: Callable[[TextT], T], text: TextT
) -> T:
    """`read(text)`, in which every failure is one of our errors and free of the secret.

    A provider may be the caller's own, so whatever it raises over an unexpected shape is a
    `MalformedResponseError` too. Servers echo keys in what they report: a failure over such a
    text is made anew from the text without the key, so that no error ever held it.
    """
    try:
        try:
            return read(text)
        except Exception:
            hidden = redactor.redact(text)
            if hidden == text:
                raise
        text = hidden
        return read(text)
    except MiniLLMError as error:
        error.request_id = error.request_id or request_id_of(headers)
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise MalformedResponseError(
            f"the provider could not read the server's answer ({type(error).__name__}: {error})",
            request_id=request_id_of(headers),
        ) from error
    finally:
        del text  # it may hold an echo of the secret, and a traceback what a frame holds
