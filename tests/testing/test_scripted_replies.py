"""What a script says is what a call returns, on every wire, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import run_virtually

from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    ConnectError,
    CostResolution,
    EmptyResponseError,
    FinishReason,
    GeneratorInfo,
    GenericProvider,
    ImagePart,
    IncompleteStreamError,
    InvalidParameterError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    Provider,
    RateLimitError,
    ReadError,
    ResponsesProvider,
    Role,
    TextPart,
    TokenPrice,
    ToolCall,
    ToolDefinition,
    Usage,
    errors,
    iterate,
    run,
)
from minillmlib.testing import (
    ScriptedReply,
    ScriptedTransport,
    SentRequest,
    fake_keys,
    forbid_network,
    use_transport,
)

PRICE = TokenPrice(3, 7, cache_read=1, cache_write=5)
AZURE = "https://r.openai.azure.com"
CUSTOM = GeneratorInfo.custom("mine", "https://llm.example/v1", "m")
WIRES = {
    "openai": GeneratorInfo.openai("gpt-4o-mini"),
    "azure": GeneratorInfo.azure("d", AZURE),
    "azure-dated": GeneratorInfo.azure("d", AZURE, "2024-10-21"),
    "azure-responses": GeneratorInfo.azure("d", AZURE, wire="responses"),
    "openrouter": GeneratorInfo.openrouter("openai/gpt-4o"),
    "generic": CUSTOM,
    "responses": CUSTOM.with_provider(ResponsesProvider()),
    "anthropic": GeneratorInfo.anthropic("claude-haiku-4-5"),
    "completions": CUSTOM.with_provider(CompletionsProvider(lambda m: m[-1].text or "")),
}
SPEAKING = [wire for wire in WIRES if wire != "completions"]  # which has a text and nothing else
every_wire = pytest.mark.parametrize("wire", WIRES)
every_speaking_wire = pytest.mark.parametrize("wire", SPEAKING)
whole_and_streamed = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


async def asked(wire: str, script, streamed: bool, params: object = None):
    transport = script if isinstance(script, ScriptedTransport) else ScriptedTransport([script])
    generator = WIRES[wire].with_api_key("k").with_transport(transport).with_token_price(PRICE)
    root = ChatNode.root("Be brief.")
    if not streamed:
        return (await root.chat("The capital?", generator, params)).response
    stream = root.chat_streaming("The capital?", generator, params)
    async for _ in stream:
        pass
    return stream.response


def ask(*arguments, **more):
    return run(asked(*arguments, **more))


@every_wire
@whole_and_streamed
def test_a_text(wire, streamed):
    answer = ask(wire, ScriptedReply.text("Paris."), streamed)
    assert (answer.content, answer.finish_reason) == ("Paris.", FinishReason.STOP)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert (answer.tool_calls, answer.refusal, answer.reasoning) == ((), None, "")


@every_wire
@whole_and_streamed
def test_a_string_is_short_for_a_text(wire, streamed):
    assert ask(wire, "Paris.", streamed).content == "Paris."


@every_wire
@whole_and_streamed
def test_pieces_arrive_as_they_are_written(wire, streamed):
    pieces = ["Pa", "ris", "."]
    reply = ScriptedReply.stream(pieces)
    assert ask(wire, reply, streamed).content == "Paris."
    generator = WIRES[wire].with_api_key("k").with_transport(ScriptedTransport([reply]))
    stream = ChatNode.root("s").chat_streaming("u", generator)
    assert [chunk.delta for chunk in iterate(stream) if chunk.delta] == pieces


@every_wire
def test_a_cut_stream_is_truncated_after_its_last_piece(wire):
    with pytest.raises(IncompleteStreamError) as caught:
        ask(wire, ScriptedReply.stream(["Pa", "ri"], cut=True), streamed=True)
    assert caught.value.partial == "Pari"


@every_wire
def test_a_cut_whole_answer_breaks_off(wire):
    with pytest.raises(ReadError):
        ask(wire, ScriptedReply.stream(["Pa", "ri"], cut=True), streamed=False)


@every_speaking_wire
@whole_and_streamed
def test_reasoning(wire, streamed):
    answer = ask(wire, ScriptedReply.text("Paris.", reasoning="It is Paris."), streamed)
    assert (answer.content, answer.reasoning) == ("Paris.", "It is Paris.")


@every_speaking_wire
@whole_and_streamed
def test_a_tool_call(wire, streamed):
    answer = ask(wire, ScriptedReply.tool_call("add", a=1, b=[2.5, None], name="x"), streamed)
    (call,) = answer.tool_calls
    assert (call.name, call.arguments_json()) == ("add", {"a": 1, "b": [2.5, None], "name": "x"})
    assert answer.finish_reason is FinishReason.TOOL_CALLS


@every_speaking_wire
@whole_and_streamed
def test_several_tool_calls_beside_a_text(wire, streamed):
    calls = [("add", {"a": 1}), ("now", {}), ToolCall(id="own", name="say", arguments='{"x": 2}')]
    reply = ScriptedReply.tool_calls(*calls, text="Let me see.", reasoning="Hm.")
    answer = ask(wire, reply, streamed)
    assert (answer.content, answer.reasoning) == ("Let me see.", "Hm.")
    said = [(call.name, call.arguments_json()) for call in answer.tool_calls]
    assert said == [("add", {"a": 1}), ("now", {}), ("say", {"x": 2})]
    assert answer.tool_calls[2].id == "own"
    assert len({call.id for call in answer.tool_calls}) == 3


async def last_node(steps):
    async with steps:
        async for _ in steps:
            pass
    return steps.node


@every_speaking_wire
@whole_and_streamed
def test_a_tool_loop_runs_on_a_script(wire, streamed):
    script = ScriptedTransport([
        ScriptedReply.tool_call("add", a=1, b=2),
        ScriptedReply.tool_call("add", a=3, b=3),
        "It is 6.",
    ])  # fmt: skip

    def add(a: int, b: int) -> int:
        return a + b

    generator = WIRES[wire].with_api_key("k").with_transport(script)
    node = ChatNode.root("s").add_user("1 + 2 + 3?")
    if streamed:
        answer = asyncio.run(last_node(node.run_tools_streaming(generator, [add])))
    else:
        answer = run(node.run_tools(generator, [add]))
    assert answer.text == "It is 6."
    roles = [message.role for message in script.requests[-1].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "tool"]
    results = [m for m in script.requests[-1].messages if m.role is Role.TOOL]
    assert [result.text for result in results] == ["3", "6"]
    assert results[0].tool_call_id != results[1].tool_call_id
    assert [tool.name for tool in script.requests[0].tools] == ["add"]


@every_speaking_wire
@whole_and_streamed
def test_a_refusal(wire, streamed):
    answer = ask(wire, ScriptedReply.refusal("I won't."), streamed)
    assert "I won't." in (answer.refusal, answer.refusal_reason)
    assert answer.finish_reason is FinishReason.CONTENT_FILTER


@every_wire
@whole_and_streamed
def test_the_end_by_the_limit_of_tokens(wire, streamed):
    answer = ask(wire, ScriptedReply.text("Par", finish_reason=FinishReason.LENGTH), streamed)
    assert (answer.content, answer.is_truncated) == ("Par", True)


STATUSES = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BillingError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.ServerTimeoutError,
    409: errors.ConflictError,
    413: errors.RequestTooLargeError,
    418: errors.BadRequestError,
    422: errors.BadRequestError,
    429: errors.RateLimitError,
    500: errors.ServerError,
    503: errors.OverloadedError,
    504: errors.ServerTimeoutError,
    529: errors.OverloadedError,
}


@every_wire
@whole_and_streamed
@pytest.mark.parametrize("status", STATUSES)
def test_an_error_by_its_status(wire, streamed, status):
    with pytest.raises(MiniLLMError, match="No luck") as caught:
        ask(wire, ScriptedReply.error(status, "No luck."), streamed)
    assert (type(caught.value), caught.value.status) == (STATUSES[status], status)


@every_wire
@whole_and_streamed
@pytest.mark.parametrize("secs", [2, 0.25, 90.0])
def test_an_error_says_how_long_to_wait(wire, streamed, secs):
    with pytest.raises(RateLimitError) as caught:
        ask(wire, ScriptedReply.error(429, retry_after=secs), streamed)
    assert caught.value.retry_after_secs == secs


@every_wire
def test_an_error_by_the_word_of_a_vendor(wire):
    reply = ScriptedReply.error(400, "Too much.", code="context_length_exceeded")
    with pytest.raises(errors.ContextLengthError):
        ask(wire, reply, streamed=False)


@every_wire
@whole_and_streamed
def test_an_error_is_retried_and_the_next_reply_answers(wire, streamed):
    script = ScriptedTransport([ScriptedReply.error(503, retry_after=0.001), "Paris."])
    answer = run_virtually(asked(wire, script, streamed, NodeCompletionParameters(retry=1)))
    assert (answer.content, len(answer.attempts)) == ("Paris.", 2)


USAGES = [
    Usage(uncached_input_tokens=7, completion_tokens=3),
    Usage(uncached_input_tokens=7, cache_read_tokens=20, completion_tokens=30, reasoning_tokens=9),
    Usage(uncached_input_tokens=7, cache_write_tokens=40, completion_tokens=3),
]


@every_wire
@whole_and_streamed
@pytest.mark.parametrize("usage", USAGES, ids=["plain", "read", "written"])
def test_counts_and_their_price(wire, streamed, usage):
    answer = ask(wire, ScriptedReply.text("Paris.", usage=usage), streamed)
    counts = {name: getattr(answer.usage, name) for name in Usage.__struct_fields__[:6]}
    assert counts == {name: getattr(usage, name) for name in counts}
    # OpenRouter states what it takes, and nothing else is right then.
    assert answer.cost.cost == (0 if wire == "openrouter" else PRICE.cost_of(usage))


@pytest.mark.parametrize("wire", ["openrouter", "generic", "responses", "openai"])
@whole_and_streamed
def test_a_cost_that_the_server_states(wire, streamed):
    usage = Usage(uncached_input_tokens=7, completion_tokens=3, native_cost=Decimal("0.00123"))
    answer = ask(wire, ScriptedReply.text("Paris.", usage=usage), streamed)
    assert answer.cost.cost == Decimal("0.00123")


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "openrouter"])
@whole_and_streamed
def test_a_server_that_counts_nothing(wire, streamed):
    answer = ask(wire, ScriptedReply.text("Paris.", usage=None), streamed)
    assert (answer.usage, answer.cost.resolution) == (None, CostResolution.UNKNOWN)


@pytest.mark.parametrize("wire", ["openrouter", "anthropic", "generic"])
def test_a_lifetime_of_the_cache(wire):
    usage = Usage(uncached_input_tokens=7, cache_write_tokens=40, cache_write_1h_tokens=30,
                  completion_tokens=3)  # fmt: skip
    answer = ask(wire, ScriptedReply.text("Paris.", usage=usage), streamed=False)
    assert answer.usage.cache_write_1h_tokens == 30


UNSAYABLE = [
    ("anthropic", ScriptedReply.text("x", usage=Usage(uncached_input_tokens=1,
     completion_tokens=1, native_cost=Decimal(1))), "usage"),
    ("openai", ScriptedReply.text("x", finish_reason=FinishReason.PAUSE), "finish reason"),
    ("completions", ScriptedReply.tool_call("add"), "tool calls"),
    ("completions", ScriptedReply.text("x", reasoning="y"), "reasoning"),
    ("completions", ScriptedReply.refusal("x"), "refusal"),
    ("anthropic", ScriptedReply.tool_calls(ToolCall(id="", name="f", arguments="{")), "object"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "reply", "what"), UNSAYABLE)
def test_what_a_wire_cannot_say_is_an_error_that_names_the_request(wire, reply, what):
    with pytest.raises(InvalidParameterError, match=what) as caught:
        ask(wire, reply, streamed=False)
    assert "POST https://" in str(caught.value)
    assert "The capital?" in str(caught.value)
    assert "ScriptedReply.json" in str(caught.value)


def test_broken_arguments_come_as_they_are():
    reply = ScriptedReply.tool_calls(ToolCall(id="c", name="add", arguments='{"a": '))
    assert ask("openai", reply, streamed=True).tool_calls[0].arguments == '{"a": '


def test_several_answers_to_one_request():
    transport = ScriptedTransport(["Plum."])
    generator = WIRES["openai"].with_api_key("k").with_transport(transport)
    nodes = run(ChatNode.root("s").chat_many("A fruit?", 3, generator))
    assert [node.text for node in nodes] == ["Plum."] * 3
    assert len(transport.requests) == 1


# A script that is a function


@every_wire
@whole_and_streamed
def test_a_function_answers_by_what_it_reads(wire, streamed):
    seen: list[SentRequest] = []

    def answer(request: SentRequest) -> str:
        seen.append(request)
        return f"{request.text} {request.is_stream}"

    assert ask(wire, ScriptedTransport(answer), streamed).content == f"The capital? {streamed}"
    assert seen[0].model == WIRES[wire].model
    assert seen[0].json()["model"] == WIRES[wire].model


def test_a_function_may_be_asynchronous_and_may_raise():
    async def slow(request: SentRequest) -> ScriptedReply:
        await asyncio.sleep(0)
        return ScriptedReply.tool_call("add", a=1)

    def down(request: SentRequest) -> str:
        raise ConnectError("no route")

    assert ask("openai", ScriptedTransport(slow), streamed=False).tool_calls
    with pytest.raises(ConnectError, match="no route"):
        ask("openai", ScriptedTransport(down), streamed=False)


@pytest.mark.parametrize("made", [None, 3, b"Paris."])
def test_a_function_that_returns_no_reply_is_told_so(made):
    with pytest.raises(InvalidParameterError, match=f"not {type(made).__name__}.*The capital"):
        ask("openai", ScriptedTransport(lambda request: made), streamed=False)


def test_a_single_reply_is_no_script():
    for reply in ("Paris.", ScriptedReply.text("Paris.")):
        with pytest.raises(InvalidParameterError, match="a list of replies or a function"):
            ScriptedTransport(reply)


# The script and its end


def test_an_exhausted_script_names_the_request():
    transport = ScriptedTransport(["Paris."])
    ask("anthropic", transport, streamed=False)
    with pytest.raises(InvalidParameterError) as caught:
        ask("anthropic", transport, streamed=False)
    words = ("request 2", "POST https://api.anthropic.com/v1/messages", "claude-haiku-4-5",
             "2 messages", "of the user: 'The capital?'")  # fmt: skip
    assert [word for word in words if word not in str(caught.value)] == []


def test_an_error_of_a_script_holds_no_secret():
    transport = ScriptedTransport([])
    with pytest.raises(InvalidParameterError) as caught:
        url = "https://llm.example/v1?key=very-secret-0123"
        generator = GeneratorInfo.custom("mine", url, "m").with_api_key("secret-key-4567")
        run(ChatNode.root("s").chat("u", generator.with_transport(transport)))
    assert "secret" not in str(caught.value)


def test_a_script_can_be_replaced():
    transport = ScriptedTransport()
    transport.script(["one", "two"])
    assert ask("openai", transport, streamed=False).content == "one"
    transport.script(lambda request: "three")
    assert ask("openai", transport, streamed=False).content == "three"
    assert len(transport.requests) == 2


def test_the_generator_of_a_script_is_answered_by_it():
    transport = ScriptedTransport(["Paris."])
    assert run(ChatNode.root("s").chat("u", transport.generator)).text == "Paris."


def test_bytes_and_meanings_share_a_script():
    body = {"choices": [{"message": {"content": "raw"}, "finish_reason": "stop"}]}
    transport = ScriptedTransport([ScriptedReply.json(body), "said"])
    assert ask("openai", transport, streamed=False).content == "raw"
    assert ask("openai", transport, streamed=False).content == "said"


@every_wire
@whole_and_streamed
def test_an_empty_text(wire, streamed):
    assert ask(wire, "", streamed).content == ""
    with pytest.raises(EmptyResponseError):
        ask(wire, "", streamed, NodeCompletionParameters(crash_on_empty_response=True))


class Other(Provider):
    """A chat server with an address of its own."""

    def endpoint_url(self, base: str) -> str:
        return f"{base}/infer"


def test_an_address_of_no_known_wire_needs_bytes_or_the_name_of_a_dialect():
    other = CUSTOM.with_provider(Other())
    transport = ScriptedTransport(["Paris."])
    with pytest.raises(InvalidParameterError, match=r"infer.*ScriptedReply\.json.*wire='chat'"):
        run(ChatNode.root("s").chat("u", other.with_transport(transport)))
    named = ScriptedTransport(["Paris."], wire="chat")
    assert run(ChatNode.root("s").chat("u", other.with_transport(named))).text == "Paris."
    assert named.requests[0].text == "u"


def test_a_subclass_of_a_provider_is_answered_in_the_dialect_of_its_address():
    class Claude(AnthropicProvider):
        pass

    class Vendor(GenericProvider):
        pass

    for provider in (Claude(), Vendor(), Provider()):
        generator = CUSTOM.with_provider(provider).with_transport(ScriptedTransport(["Paris."]))
        assert run(ChatNode.root("s").chat("u", generator)).text == "Paris."


def test_a_dialect_that_does_not_exist():
    with pytest.raises(InvalidParameterError, match="the wires: .*anthropic"):
        ScriptedTransport([], wire="claude")


def test_a_reply_that_the_wire_cannot_say_is_not_used_up():
    transport = ScriptedTransport([ScriptedReply.refusal("No.")])
    with pytest.raises(InvalidParameterError):
        ask("completions", transport, streamed=False)
    assert ask("openai", transport, streamed=False).refusal == "No."


# The view of a request

PIXEL = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 16)
CALL = ToolCall(id="call_a", name="look", arguments='{"at":"it"}')
THREAD = [
    Message.system("Be brief."),
    Message.user((TextPart(text="What is this?"), PIXEL)),
    Message.assistant("Let me look.", [CALL]),
    Message.tool_result("call_a", "a pixel"),
    Message.assistant("A pixel."),
    Message.user("Sure?"),
]


@every_speaking_wire
@whole_and_streamed
def test_a_request_is_read_as_it_was_meant(wire, streamed):
    transport = ScriptedTransport(["Yes."])
    generator = WIRES[wire].with_api_key("k").with_transport(transport)
    _, leaf = ChatNode.from_messages(THREAD)
    tool = ToolDefinition(name="look", description="Look.", parameters={
        "type": "object", "properties": {"at": {"type": "string"}}})  # fmt: skip
    params = CompletionParameters(tools=[tool], max_tokens=20)
    if streamed:
        for _ in iterate(leaf.complete_streaming(generator, params)):
            pass
    else:
        run(leaf.complete(generator, params))
    (request,) = transport.requests
    assert list(request.messages) == THREAD
    assert request.tools == (tool,)
    assert (request.text, request.is_stream, request.model) == ("Sure?", streamed, generator.model)
    assert isinstance(request.json(), dict)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}", b'{"messages": 3}', b'{"messages": [{"role": "wizard"}]}',
             b'{"messages": [{"role": "user", "content": [{"type": "smell"}]}]}']
)  # fmt: skip
@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses", "completions"])
def test_a_request_that_cannot_be_read_says_so(body, path):
    request = SentRequest(url=f"https://llm.example/v1/{path}", headers=(), body=body)
    with pytest.raises(InvalidParameterError, match="llm.example/v1"):
        _ = request.messages
    assert "POST https://llm.example" in request.describe()


def test_a_request_of_another_kind_has_a_body_only():
    request = SentRequest(url="https://llm.example/v1/files", headers=(), body=b'{"a": 1}')
    assert request.json() == {"a": 1}
    for name in ("messages", "tools", "is_stream", "text"):
        with pytest.raises(InvalidParameterError, match="no dialect is known for POST .*files"):
            getattr(request, name)


# Any text and any arguments

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(plain, lambda one: st.lists(one) | st.dictionaries(texts, one), max_leaves=8)


@settings(max_examples=40, deadline=None)
@given(text=texts, streamed=st.booleans(), wire=st.sampled_from(sorted(WIRES)))
def test_any_text(text, streamed, wire):
    assert ask(wire, ScriptedReply.text(text), streamed).content == text


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(texts), wire=st.sampled_from(sorted(WIRES)))
def test_any_pieces(pieces, wire):
    assert ask(wire, ScriptedReply.stream(pieces), streamed=True).content == "".join(pieces)


@settings(max_examples=60, deadline=None)
@given(
    arguments=st.dictionaries(texts, values),
    streamed=st.booleans(),
    wire=st.sampled_from(sorted(SPEAKING)),
)
def test_any_arguments(arguments, streamed, wire):
    (call,) = ask(wire, ScriptedReply.tool_calls(("f", arguments)), streamed).tool_calls
    assert call.arguments_json() == arguments


HALF = "\ud83d"


HALF_TEXT = "a reply cannot say '\\ud83d': half of a surrogate pair is not text"
A_CALL = (
    "a call of a script is a name and its arguments, such as ('add', {'a': 1}), or a ToolCall, not"
)
A_WAIT = "retry_after must be seconds, at least 0.001, not"
REFUSED = [
    (lambda: ScriptedReply.text(HALF), HALF_TEXT),
    (lambda: ScriptedReply.text("x", reasoning=HALF), HALF_TEXT),
    (lambda: ScriptedReply.stream(["x", HALF]), HALF_TEXT),
    (lambda: ScriptedReply.refusal(HALF), HALF_TEXT),
    (lambda: ScriptedReply.error(400, HALF), HALF_TEXT),
    (lambda: ScriptedReply.error(400, "x", code=HALF), HALF_TEXT),
    (lambda: ScriptedReply.tool_call(HALF), HALF_TEXT),
    (lambda: ScriptedReply.tool_call("f", a=HALF), HALF_TEXT.replace(r"\ud83d", r'{"a": "\ud83d"}')),
    (lambda: ScriptedReply.tool_calls(ToolCall(id=HALF, name="f", arguments="{}")), HALF_TEXT),
    (lambda: ScriptedReply.text(3), "a reply says texts, not int"),
    (lambda: ScriptedReply.stream(["x", None]), "a reply says texts, not NoneType"),
    (lambda: ScriptedReply.error(400, 5), "a reply says texts, not int"),
    (lambda: ScriptedReply.stream(5), "the pieces of a stream must be a list, not int"),
    (lambda: ScriptedReply.text("x", usage=5), "the usage of a reply must be a Usage, not int"),
    (lambda: ScriptedReply.tool_call("f", a=float("nan")), "the arguments of f are no JSON: ..."),
    (lambda: ScriptedReply.tool_call("g", a=object()), "the arguments of g are no JSON: ..."),
    (lambda: ScriptedReply.tool_calls("f"), f"{A_CALL} 'f'"),
    (lambda: ScriptedReply.tool_calls(("f", 5)), f"{A_CALL} ('f', 5)"),
    (lambda: ScriptedReply.tool_calls((5, {})), f"{A_CALL} (5, {{}})"),
    (lambda: ScriptedReply.error(200), "an error has a status of 400 to 599, not 200"),
    (lambda: ScriptedReply.error(399), "an error has a status of 400 to 599, not 399"),
    (lambda: ScriptedReply.error(600), "an error has a status of 400 to 599, not 600"),
    (lambda: ScriptedReply.error("400"), "an error has a status of 400 to 599, not '400'"),
    (lambda: ScriptedReply.error(429, retry_after=0), f"{A_WAIT} 0"),
    (lambda: ScriptedReply.error(429, retry_after=0.0009), f"{A_WAIT} 0.0009"),
    (lambda: ScriptedReply.error(429, retry_after=float("inf")), f"{A_WAIT} inf"),
    (lambda: ScriptedReply.error(429, retry_after="5"),
     "retry_after must be an int | float, not str"),
    (lambda: ScriptedReply.json(object()), "a reply cannot be written as JSON: ..."),
    (lambda: ScriptedReply.json("\ud800"), "a reply cannot be written as JSON: ..."),
    (lambda: ScriptedReply.json({}, status="x"), "the status of a reply must be an int, not str"),
    (lambda: ScriptedReply.events("data: x\n\n"),
     "a piece of a reply must be a bytes | bytearray, not str"),
    (lambda: ScriptedReply(pieces=[b"x", "y"]),
     "a piece of a reply must be a bytes | bytearray, not str"),
    (lambda: ScriptedReply(pieces="abc"), "the pieces of a reply are a tuple of bytes"),
    (lambda: ScriptedReply(pieces=b"abc"), "the pieces of a reply are a tuple of bytes"),
    (lambda: ScriptedReply(headers=5), "the headers of a reply must be a Mapping, not int"),
    (lambda: ScriptedReply(headers={5: "1"}),
     "the name or value of a header must be a str, not int"),
    (lambda: ScriptedReply(headers={"a": "1", "b": 5}),
     "the name or value of a header must be a str, not int"),
    (lambda: ScriptedTransport(5), "a script must be a list, not int"),
    (lambda: ScriptedTransport(None), "a script must be a list, not NoneType"),
    (lambda: ScriptedTransport("Paris."), "a script is a list of replies or a function, not a "
     "single reply; write ['Paris.'] for one, and lambda request: ... to repeat it"),
    (lambda: ScriptedTransport([], wire="claude"), "there is no wire 'claude'; the wires: "
     "openrouter, chat, completions, responses, anthropic"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_no_server_can_send_is_refused_when_it_is_made(make, words):
    with pytest.raises(InvalidParameterError) as caught:
        make()
    said = str(caught.value)
    begin = words.removesuffix("...")  # the words of the encoder follow
    assert said == words if begin == words else said.startswith(begin)


@pytest.mark.parametrize(
    ("secs", "text"),
    [(0.001, "0.001"), (0.25, "0.25"), (1, "1"), (1.0, "1"), (90.0, "90"), (100, "100"),
     (1.23456, "1.235"), (3600.5, "3600.5"), (10**6, "1000000")],
)  # fmt: skip
def test_a_wait_is_told_in_plain_digits(secs, text):
    assert ScriptedReply.error(429, retry_after=secs).headers == {"retry-after": text}


def test_headers_have_their_names_in_lower_case():
    reply = ScriptedReply(headers={"X-Limit": "A", "y": "B"})
    assert (reply.headers, reply.status, reply.pieces) == ({"x-limit": "A", "y": "B"}, 200, ())
    assert not reply.breaks_off


def test_a_reply_for_a_program_that_makes_its_own_generators(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    with use_transport(ScriptedTransport([ScriptedReply.text(json.dumps({"city": "Paris"}))])):
        node = run(ChatNode.root("s").chat("u", GeneratorInfo.openai("gpt-4o-mini")))
    assert node.text == '{"city": "Paris"}'


def test_a_stand_in_for_a_key_is_sent_where_there_is_none(monkeypatch):
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    generator = GeneratorInfo.preset("groq", "m")
    transport = ScriptedTransport(["Paris.", "Rome."])
    with use_transport(transport), fake_keys():
        run(ChatNode.root("s").chat("u", generator))
        run(ChatNode.root("s").chat("u", generator.with_api_key("my-own-key")))
    sent = [dict(request.expose_headers())["Authorization"] for request in transport.requests]
    assert sent == ["Bearer a-stand-in-for-a-key", "Bearer my-own-key"]
    with (
        use_transport(ScriptedTransport(["Paris."])),
        pytest.raises(MiniLLMError, match="GROQ_API_KEY"),
    ):
        run(ChatNode.root("s").chat("u", generator))


async def test_transports_in_use_may_end_in_any_order():
    async def ask() -> str | None:
        return (await ChatNode.root("s").chat("u", CUSTOM)).text

    first, second, third = (use_transport(ScriptedTransport(lambda _, t=t: t)) for t in "abc")
    for each in (first, second, third):
        each.__enter__()
    first.__exit__(None, None, None)
    assert await ask() == "c"
    third.__exit__(None, None, None)
    assert await ask() == "b"
    second.__exit__(None, None, None)
    with forbid_network(), pytest.raises(ConnectError):
        await ask()


@pytest.mark.parametrize("transport", [5, None, ScriptedTransport, "x"])
def test_only_a_transport_can_be_used(transport):
    with pytest.raises(InvalidParameterError, match="transport"), use_transport(transport):
        pass
