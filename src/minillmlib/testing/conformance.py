"""Checks that a provider, of the library or of a user, fulfils the contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.secret import Auth, Secret
from minillmlib.blocking import iterate, run
from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.providers.base import Provider
from minillmlib.testing.scripted import ScriptedReply, ScriptedTransport, without_retries
from minillmlib.tree.node import ChatNode
from minillmlib.types.costs import CostResolution, TokenPrice
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import ContentPart, Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.responses import CompletionResponse, FinishReason
from minillmlib.types.routing import ProviderSettings
from minillmlib.types.tools import ToolCall, ToolDefinition
from minillmlib.types.usage import Usage

BASE_URL = "https://provider.example/v1"
SECRET = "conformance-secret-0123456789"  # noqa: S105 - a canary that must not appear anywhere
PRICE = TokenPrice(3, 7, cache_read=1, cache_write=5)

# A value for each parameter. None of them may be dropped silently.
PARAMETERS: JsonObject = {
    "max_tokens": 77,
    "temperature": 0.25,
    "top_p": 0.75,
    "top_k": 5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "stop": ("STOP",),
    "seed": 5,
    "logprobs": 2,
    "response_format": ResponseFormat.json(),
    "reasoning": ReasoningConfig(effort="low"),
    "tools": (ToolDefinition(name="look_up"),),
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "openrouter_routing": ProviderSettings(sort="price"),
    "extra": {"conformance_key": 1},
}
RATE_LIMIT_HEADERS = tuple(
    pattern.format(fact=fact, of=of)
    for pattern in ("x-ratelimit-{fact}-{of}", "anthropic-ratelimit-{of}-{fact}")
    for of in ("requests", "tokens")
    for fact in ("limit", "remaining", "reset")
)
NEED_TOOLS = ("tool_choice", "parallel_tool_calls")


class ProviderCase(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded exchange: the bytes of a server and their meaning.

    `body` is a complete response, `events` the `data` of each event of a stream, both unchanged;
    with both, they are two forms of one answer. `tool_calls` without ids are compared without
    them.
    """

    name: str
    text: str
    body: bytes | None = None
    events: tuple[str, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None


def check_provider(
    provider: Provider, cases: Sequence[ProviderCase], *, model: str = "model"
) -> None:
    """Run `provider` through the contract; raise `AssertionError` with all that is wrong.

    The check covers its addresses and headers, secrets, whether each parameter and each kind of
    content is sent or refused, whether a message is encoded alike whatever follows it, the
    recorded cases whole, streamed and cut, and costs with and without a price. Nothing is sent
    over a network.

    Examples:
        >>> body = b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}'
        >>> check_provider(GenericProvider(), [ProviderCase(name="plain", body=body, text="Hi")])
    """
    if not cases:
        raise InvalidParameterError("check_provider needs at least one recorded case")
    subject = _Subject(provider, cases, model)
    checks = (
        subject.address_problems(),
        subject.secret_problems(),
        subject.parameter_problems(),
        subject.content_problems(),
        subject.encoding_problems(),
        subject.header_problems(),
        *map(subject.case_problems, cases),
    )
    with without_retries():
        problems = [problem for check in checks for problem in _collect_problems(check)]
    assert not problems, f"{provider!r} breaks its contract:\n- " + "\n- ".join(problems)


def _collect_problems(problems: Iterator[str]) -> Iterator[str]:
    """Yield the problems; a call that fails but should succeed is one, too."""
    try:
        yield from problems
    except MiniLLMError as error:
        yield f"a plain call fails with {type(error).__name__}: {error}"


class _UnknownPart(MediaPart, frozen=True, kw_only=True, tag="unknown"):
    """A kind of content that no provider knows."""


class _Subject:
    """The provider under test, with a reply for calls whose answer does not matter."""

    def __init__(self, provider: Provider, cases: Sequence[ProviderCase], model: str) -> None:
        self._provider = provider
        self._generator = GeneratorInfo.custom("conformance", BASE_URL, model).replace(
            provider=provider
        )
        self._reply = next(iter(_replies(cases[0]).values()))

    def address_problems(self) -> Iterator[str]:
        for stream in (False, True):
            url, same = (
                self._provider.request_url(base, self._generator.model, stream=stream)
                for base in (BASE_URL, BASE_URL + "/")
            )
            if urlsplit(url)[:2] != urlsplit(BASE_URL)[:2]:
                yield f"request_url leads to another server: {url}"
            if same != url:
                yield (
                    f"request_url(stream={stream}) depends on a slash at the end of the base URL: "
                    "use base.rstrip('/')"
                )
        for auth in (Auth.api_key(Secret(SECRET)), Auth.bearer_token(Secret(SECRET))):
            if not any(SECRET in value for _, value in self._provider.auth_headers(auth)):
                yield f"auth_headers does not send the secret of {auth!r}"
        if any("authorization" in n.lower() for n, _ in self._provider.auth_headers(Auth.none())):
            yield "auth_headers sends a credential where there is none"

    def secret_problems(self) -> Iterator[str]:
        generator = self._generator.with_api_key(SECRET)
        transport = ScriptedTransport([self._reply])
        node = run(ChatNode.root("s").chat("u", generator.with_transport(transport)))
        places = {
            "the body": transport.requests[0].body.decode(),
            "the address": transport.requests[0].url,
            "the provider's text form": repr(self._provider),
            "the response": repr(node.response),
        }
        echo = ScriptedReply.json({"error": {"message": f"bad key {SECRET}"}}, status=401)
        try:
            run(ChatNode.root("s").chat("u", generator.with_transport(ScriptedTransport([echo]))))
        except MiniLLMError as error:
            places["an error"] = f"{error!r} {vars(error)}"
        yield from (f"the secret is in {name}" for name, text in places.items() if SECRET in text)

    def parameter_problems(self) -> Iterator[str]:
        for name, value in PARAMETERS.items():
            tools = {"tools": PARAMETERS["tools"]} if name in NEED_TOOLS else {}
            without = self._send("u", CompletionParameters(**tools))
            having = self._send("u", CompletionParameters(**tools, **{name: value}))
            # None is a refusal, which is allowed.
            if without and having and without[0] == having[0] and name not in having[1]:
                yield f"{name} is neither sent nor refused nor reported as omitted"

    def encoding_problems(self) -> Iterator[str]:
        key = self._provider.capabilities.messages_key
        if key is None:
            return
        messages = [Message.user("one"), Message.assistant("two"), Message.user("three")]
        before: JsonValue = []
        for count in range(1, len(messages) + 1):
            body = self._provider.build_request(
                self._generator.model,
                messages[:count],
                CompletionParameters(),
                stream=False,
                include_usage=False,
            )
            encoded = body.get(key)
            if not isinstance(encoded, list) or len(encoded) != count:
                yield f"the body has no item for each message under the messages_key {key!r}"
                return
            if encoded[: count - 1] != before:
                yield "a message is encoded otherwise once another one follows it"
            before = encoded

    def header_problems(self) -> Iterator[str]:
        for value in ("", "-1", "9" * 5000, "1e999", "soon", "\x00"):
            headers = dict.fromkeys(RATE_LIMIT_HEADERS, value)
            try:
                self._provider.limits_of(headers)
            except Exception as error:  # noqa: BLE001 - the provider may do anything
                yield f"limits_of raises {type(error).__name__} over a header {value[:9]!r}"

    def content_problems(self) -> Iterator[str]:
        unknown = _UnknownPart(url="https://provider.example/content-of-unknown-kind")
        if self._send([unknown]) is not None:  # type: ignore[list-item] # not part of the union
            yield "content of an unknown kind is not refused"
        call = ToolCall(id="call_1", name="look_up", arguments='{"word":"heron"}')
        turns = (Message.assistant("", [call]), Message.tool_result("call_1", "a wading bird"))
        sent = self._send("u", None, *turns)
        for words in ("look_up", "heron", "a wading bird"):
            if sent is not None and words not in sent[0]:
                yield f"tool calls are not refused, but {words!r} is lost"
        turns = (Message.user("first words"), Message.assistant("second words"))
        sent = self._send("third words", None, *turns)
        for words in ("first words", "second words", "third words"):
            if sent is None or words not in sent[0]:
                yield f"a conversation of plain text loses {words!r}"

    def _send(
        self,
        content: str | Sequence[ContentPart],
        params: CompletionParameters | None = None,
        *before: Message,
    ) -> tuple[str, dict[str, str]] | None:
        """Return the body as text and the parameters reported as omitted, or None if refused."""
        transport = ScriptedTransport([self._reply])
        _, leaf = ChatNode.from_messages([Message.system("s"), *before])
        try:
            node = run(leaf.chat(content, self._generator.with_transport(transport), params))
        except InvalidParameterError:
            return None
        report = node.response.request_report
        return transport.requests[0].body.decode(), report.omitted if report else {}

    def case_problems(self, case: ProviderCase) -> Iterator[str]:
        for form, reply in _replies(case).items():
            try:
                response = self._answer(reply)
            except MiniLLMError as error:
                yield f"case {case.name}, {form}: {type(error).__name__}: {error}"
                continue
            for problem in (*_differences(case, response), *self._cost_problems(reply)):
                yield f"case {case.name}, {form}: {problem}"
        for count in range(len(case.events)):
            try:
                response = self._answer(_event_stream(case.events[:count]))
            except MiniLLMError:
                continue
            # A success is right only if the events before the cut hold the complete answer.
            expected = msgspec.structs.replace(case, usage=response.usage)
            for problem in list(_differences(expected, response))[:1]:
                yield f"case {case.name}: truncated after {count} events it is a success: {problem}"

    def _answer(self, reply: ScriptedReply, price: TokenPrice | None = None) -> CompletionResponse:
        generator = self._generator.replace(transport=ScriptedTransport([reply]), token_price=price)
        if dict(reply.headers)["content-type"] == "application/json":
            return run(ChatNode.root("s").chat("u", generator)).response
        stream = ChatNode.root("s").chat_streaming("u", generator)
        for _ in iterate(stream):
            pass
        return stream.response

    def _cost_problems(self, reply: ScriptedReply) -> Iterator[str]:
        plain, priced = self._answer(reply), self._answer(reply, PRICE)
        native = plain.usage and plain.usage.native_cost is not None
        if plain.usage is None and plain.cost.resolution is not CostResolution.UNKNOWN:
            yield "without counts the cost is not UNKNOWN"
        elif plain.usage and not native and plain.cost.resolution is not CostResolution.UNPRICED:
            yield "without a price the cost is not UNPRICED"
        elif plain.usage and not native and priced.cost.cost != PRICE.cost_of(plain.usage):
            yield f"with a price the cost is {priced.cost.cost}, not tokens times price"


def _replies(case: ProviderCase) -> dict[str, ScriptedReply]:
    replies = {} if case.body is None else {"whole": ScriptedReply.json(case.body)}
    if case.events:
        replies["streamed"] = _event_stream(case.events)
    if not replies:
        raise InvalidParameterError(f"the case {case.name} has neither a body nor events")
    return replies


def _event_stream(events: Sequence[str]) -> ScriptedReply:
    pieces = ["".join(f"data: {line}\n" for line in event.split("\n")) + "\n" for event in events]
    return ScriptedReply.events(*(piece.encode() for piece in pieces))


def _differences(case: ProviderCase, response: CompletionResponse) -> Iterator[str]:
    has_ids = all(call.id for call in case.tool_calls)
    calls, wanted = (
        [(call.id if has_ids else "", call.name, call.arguments) for call in side]
        for side in (response.tool_calls, case.tool_calls)
    )
    facts = {
        "text": (response.text, case.text),
        "finish_reason": (response.finish_reason, case.finish_reason),
        "tool_calls": (calls, wanted),
        "usage": (response.usage, case.usage),
    }
    for name, (got, expected) in facts.items():
        if got != expected:
            yield f"{name} is {got!r}, not {expected!r}"
