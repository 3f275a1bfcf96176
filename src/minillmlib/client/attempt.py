"""One attempt: a request under way, what its answer says, and the record it leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.redaction import Redactor, ValueT
from minillmlib.auth.secret import Secret, protect_header
from minillmlib.client.http_request import PreparedRequest
from minillmlib.client.prefill import Prefill
from minillmlib.client.prepare import Call, model_key, price_of
from minillmlib.errors import ApiError, ConnectError, MalformedResponseError, MiniLLMError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import (
    EXCERPT_CHARS,
    JsonObject,
    JsonValue,
    T,
    TextT,
    decode_json,
    excerpt,
)
from minillmlib.protocols.errors import error_from_page, error_from_reply
from minillmlib.transport.exchange import Exchange
from minillmlib.transport.proxy import ENVIRONMENT, find_environment_proxy
from minillmlib.types.budgets import Reservation
from minillmlib.types.costs import FROM_CACHE, Attempt, AttemptOutcome, CostOutcome
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.usage import Usage

# The server's id of an exchange, under any of the vendors' headers.
ID_HEADERS = (
    "x-request-id", "request-id", "x-generation-id", "x-litellm-call-id", "apim-request-id",
)  # fmt: skip

# The fields of an answer that are the model's own words. What is said about it is in the others.
WORDS_OF_THE_MODEL = frozenset((
    "content", "refusal", "refusal_reason", "tool_calls", "media", "reasoning", "reasoning_blocks",
    "logprobs",
))  # fmt: skip
MIN_KEY_CHARS = 16  # a shorter key, such as "ollama", may be a common word of good answers


class PendingAttempt:
    """An attempt that has not ended. Holds what came of the request, never the request itself."""

    response_id = ""
    cost: CostOutcome | None = None
    cached_cost: CostOutcome | None = None  # of an answer from a cache, when it was paid
    is_unbilled = False  # whether it is known that no work was done
    _has_echo = False  # whether an answer that is no failure shows a secret

    def __init__(
        self,
        number: int,
        call: Call,
        prepared: PreparedRequest,
        reservation: Reservation | None,
        *,
        started_at: float | None = None,
    ) -> None:
        request = prepared.request
        self.exchange = Exchange(call.transport, request, call.generator.limits)
        self.prefix = prepared.prefix
        self.reservation = reservation
        self._secrets = prepared.secrets
        self._headers = request.headers
        self._report = prepared.report
        self.call = call
        self.number = number
        self._url = request.url
        self._sent_bytes = len(request.body)
        self._started_at = now = time.time()
        self._started = time.monotonic()
        if started_at is not None:
            self._started_at = started_at
            self._started -= max(now - started_at, 0)

    def add_secrets(self, secrets: Iterable[Secret]) -> None:
        """Redact these, too, in all that the server answers."""
        self._secrets = (*self._secrets, *secrets)

    def parse(self, body: bytes) -> CompletionResponse:
        """Return the response in a whole answer, or raise what the answer says went wrong."""
        return self.parse_redacted(self._parse, body)

    def _parse(self, body: bytes) -> CompletionResponse:
        status, call = self.exchange.status or 0, self.call
        if status < 200:
            raise MalformedResponseError(f"the server answered with status {status} and no answer")
        if status >= 300:
            headers = self._redactor.redact_all(self.exchange.headers)
            raise error_from_reply(status, headers, body, self._explain_refusal)
        if not body or body.isspace():
            raise MalformedResponseError(f"the server answered with status {status} and no text")
        try:
            raw = decode_json(body)
        except MalformedResponseError as error:
            headers = self._redactor.redact_all(self.exchange.headers)
            raise error_from_page(headers, body) or error from None
        response = call.generator.provider.parse_response(raw)
        if (prefill := call.prefill) is not None:
            response = _with_prefill(prefill, response)
        record = raw.get("usage") if isinstance(raw, dict) else None
        response = self.with_stated_cost(response, record)
        response = self.with_call_metadata(response, cost_of_response(call, response))
        return self.redact_record(response) if self.shows_secret(body) else response

    def with_stated_cost(
        self, response: CompletionResponse, record: JsonValue
    ) -> CompletionResponse:
        """Return the response with the cost that a gateway states beside its counts, if it does."""
        stated_cost = self.call.generator.provider.billing.stated_cost
        stated = stated_cost(self.exchange.headers, record if isinstance(record, dict) else None)
        if response.usage is None or stated is None:
            return response
        usage = response.usage.with_native_cost(*stated)
        return msgspec.structs.replace(response, usage=usage)

    def _explain_refusal(self) -> str | None:
        """Return what is known about the model that may explain why the server refused."""
        generator = self.call.generator
        with contextlib.suppress(Exception):  # the provider may be the caller's own
            explain = generator.provider.capabilities.explain_refusal
            return explain(generator.model, self.call.settings.params)
        return None

    def with_call_metadata(
        self, response: CompletionResponse, cost: CostOutcome
    ) -> CompletionResponse:
        """Return the response with its cost, the model that answered and the request's report."""
        if not self.exchange.was_sent:  # and so it is from a cache
            self.cached_cost, cost = cost, FROM_CACHE
        origin, report = model_key(self.call.generator), self._report
        return msgspec.structs.replace(response, cost=cost, origin=origin, request_report=report)

    def parse_redacted(
        self, parse: Callable[[TextT], T], text: TextT, *, is_event: bool = False
    ) -> T:
        """Return `parse(text)`, in which every failure is one of our errors without a secret.

        A provider may be the caller's own, so whatever it raises over an unexpected shape is a
        `MalformedResponseError` too. Servers echo keys in what they report: a failure over such a
        text is raised anew from the text without the key, so that no error ever holds it.
        """
        try:
            try:
                return parse(text)
            except Exception as error:
                if isinstance(error, MiniLLMError):
                    error.__traceback__ = None  # its frames hold the text once more, decoded
                redacted = self._redactor.redact(text)
                if redacted == text:
                    raise
                text = redacted  # a traceback of what follows holds this frame
            return parse(text)
        except (MiniLLMError, MemoryError) as error:
            if is_event and isinstance(error, MalformedResponseError):
                error.is_retryable = True  # the stream is broken, not the server's idea of one
            raise
        except Exception as error:
            raise MalformedResponseError(
                f"the provider could not read the server's answer ({type(error).__name__}: {error})"
            ) from error

    @property
    def _redactor(self) -> Redactor:
        generator = self.call.generator
        secrets = list(self._secrets)
        for name, value in self._headers:
            with contextlib.suppress(MiniLLMError):  # no header can carry it
                secret = protect_header(name, value)
                secrets += [secret] if isinstance(secret, Secret) else []
        with contextlib.suppress(MiniLLMError, ImportError):  # the program may be at its end
            proxy = find_environment_proxy(self._url) if generator.proxy == ENVIRONMENT else None
            if proxy is not None and proxy.authorization is not None:
                secrets.append(proxy.authorization)
        return Redactor(*secrets, known=f"{urlsplit(self._url).hostname} {generator.model}")

    def cost_of_failed(self, body: bytes) -> CostOutcome | None:
        """Return the cost of a failed answer, if its body has usable token counts."""
        try:
            usage = self.call.generator.provider.parse_usage(decode_json(body))
            if usage is None or not usage.is_complete:
                return None
            return cost_of_usage(self.call, usage)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a failed answer may have any shape, and the provider any code
            return None

    def record_failure(self, error: MiniLLMError, cost: CostOutcome | None) -> Attempt:
        """Return the record of an attempt that failed; set the request id of its error."""
        outcome = _outcome_of(error, self.exchange)
        if self.is_unbilled:
            outcome = AttemptOutcome.DENIED
        cost = cost or self.cost
        if outcome is AttemptOutcome.NOT_SENT:
            cost = None
        if cost is None and outcome is AttemptOutcome.FAILED:
            cost = CostOutcome.unknown()
        error.request_id = self._id_in_headers() or error.request_id
        attempt = self.record(outcome, cost, error)
        return msgspec.structs.replace(attempt, request_id=error.request_id)

    def record_abandoned(self) -> Attempt:
        """Return the record of an attempt whose caller is gone."""
        if self.exchange.was_sent:
            return self.record(AttemptOutcome.ABANDONED, self.cost or CostOutcome.unknown())
        return self.record(AttemptOutcome.NOT_SENT, None)

    def record(
        self,
        outcome: AttemptOutcome,
        cost: CostOutcome | None,
        error: MiniLLMError | None = None,
        response_id: str = "",
    ) -> Attempt:
        """Return the record of the attempt, in which, as in its `error`, no secret is left."""
        attempt = Attempt(
            number=self.number,
            url=self._url,
            model=self.call.generator.model,
            sent_bytes=self._sent_bytes,
            started_at=self._started_at,
            elapsed_secs=time.monotonic() - self._started,
            outcome=outcome,
            status=self.exchange.status,
            request_id=self._id_in_headers(),
            response_id=response_id
            or self.response_id
            or self._id_in_headers(("x-generation-id",))
            or "",
            error=None if error is None else type(error).__name__,
            cost=cost,
            generator=self.call.generator.name,
            cached_cost=self.cached_cost,
        )
        if error is not None:
            self._redactor.redact_error(error)
        has_echo = self._has_echo or ("?" in self._url and self.shows_secret(self._url.encode()))
        if outcome is AttemptOutcome.ANSWERED and not has_echo:
            return attempt
        return self._redactor.redact_value(attempt)

    def redact(self, value: ValueT) -> ValueT:
        """Return a text or a value without the secrets of the request."""
        return self._redactor.redact_value(value)

    def redact_record(self, response: CompletionResponse) -> CompletionResponse:
        """Return an answer without secrets in what the server says about it.

        The words of the model stay as they came: they belong to the caller.
        """
        self._has_echo = True
        fields = msgspec.structs.asdict(response)
        record = {name: field for name, field in fields.items() if name not in WORDS_OF_THE_MODEL}
        return msgspec.structs.replace(response, **self._redactor.redact_value(record))

    def shows_secret(self, text: bytes) -> bool:
        """Whether a text shows a long key as it is. Quick, for answers that are no failure."""
        for secret in self._secrets:
            key = secret.expose_secret()
            if len(key) >= MIN_KEY_CHARS and key[key.rfind(" ") + 1 :].encode() in text:
                return True
        return False

    def _id_in_headers(self, names: tuple[str, ...] = ID_HEADERS) -> str | None:
        """Return the first of these ids that the server sent, as one line."""
        headers = self.exchange.headers
        for name in names:
            if name in headers:
                text = headers[name]
                # The rest of a secret that is cut is not found.
                if len(text) > EXCERPT_CHARS or self.shows_secret(text.encode()):
                    text = self._redactor.redact(text)
                return excerpt(text)
        return None


def unsent_attempt(number: int, generator: GeneratorInfo, error: MiniLLMError) -> Attempt:
    """Return the record of a generator to which no request can be made."""
    return Attempt(
        number=number,
        url=generator.base_url,
        model=generator.model,
        sent_bytes=0,
        started_at=time.time(),
        elapsed_secs=0.0,
        outcome=AttemptOutcome.NOT_SENT,
        error=type(error).__name__,
        generator=generator.name,
    )


def cost_of_usage(call: Call, usage: Usage) -> CostOutcome:
    """Return the cost of the counts at the price of the call or of its generator."""
    return call.generator.provider.cost_of(usage, price_of(call))


def cost_of_response(call: Call, response: CompletionResponse) -> CostOutcome:
    """Return the cost of a whole answer. Without usage it is unknown, never zero."""
    usage = response.usage
    if usage is None or not usage.is_complete:
        return unknown_cost(call, usage, response.usage_record)
    if not call.generator.provider.billing.is_billed(response):
        return CostOutcome.resolved(Decimal(0), usage)
    return cost_of_usage(call, usage)


def unknown_cost(call: Call, usage: Usage | None, record: JsonObject | None) -> CostOutcome:
    """Return an unknown cost, with the cost of the counts so far as its minimum."""
    least = None if usage is None else cost_of_usage(call, usage)
    return CostOutcome.unknown(
        minimum_usage=usage, minimum_cost=least.cost if least else Decimal(0), record=record
    )


def _outcome_of(error: MiniLLMError, exchange: Exchange) -> AttemptOutcome:
    if isinstance(error, ConnectError) or not exchange.was_sent:
        return AttemptOutcome.NOT_SENT
    status = exchange.status or 0
    # 503 and 529 come before any work is done, like other 4xx; 408 and 424 may come after it.
    if isinstance(error, ApiError) and (status in (503, 529) or 300 <= status < 500):
        return AttemptOutcome.FAILED if status in (408, 424) else AttemptOutcome.DENIED
    return AttemptOutcome.FAILED


def _with_prefill(prefill: Prefill, response: CompletionResponse) -> CompletionResponse:
    """Put the forced prefix in front of the response unless the server already repeated it."""
    content = prefill.prepend(response.content)
    added = len(content) - len(response.content)
    blocks = tuple(
        msgspec.structs.replace(block, text_before=block.text_before + added)
        if block.text_before
        else block
        for block in response.reasoning_blocks
    )
    return msgspec.structs.replace(response, content=content, reasoning_blocks=blocks)
