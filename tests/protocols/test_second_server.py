"""The library against aimock, a server that its authors did not write, over three wires."""

from __future__ import annotations

import json
from decimal import Decimal

import aimock
import pytest

from minillmlib import (
    AuthenticationError,
    BadRequestError,
    ChatDialect,
    ChatNode,
    CompletionParameters,
    FinishReason,
    GeneratorInfo,
    GenericProvider,
    MalformedResponseError,
    Message,
    OverloadedError,
    Provider,
    RateLimitError,
    ReadError,
    ReasoningConfig,
    ToolCall,
    iterate,
    run,
)
from minillmlib.transport.default import default_transport

SYSTEM = "You watch the tides."
TEXT = "At the café, too, the tide (潮) rises twice a day and falls as often."
LEVELS = {"pier": "3.2 m", "harbour": "2.9 m"}
SUMMARY = "3.2 m at the pier, 2.9 m at the harbour."
THOUGHT, AFTERTHOUGHT = "They want to know about the pier, and more.", "The harbour is left."
SIGNATURE, SECOND_SIGNATURE = "EqQBFirst/Signature+0123456789==", "EqQBSecond/Signature+987654321=="
SEALED = "EnQKSealed/Thought+0123456789=="


def read_gauge(station: str) -> str:
    """The water level at a tide gauge.

    Args:
        station: The name of the station.
    """
    return LEVELS[station]


def answer(said: str, response: dict, match: dict | None = None, **how: object) -> dict:
    """What the server answers to a user who has said this."""
    return {"match": {"userMessage": said, **(match or {})}, "response": response, **how}


def calls(*stations: str) -> list[dict]:
    return [{"name": "read_gauge", "arguments": {"station": station}} for station in stations]


def breaks(said: str, response: dict) -> list[dict]:
    """The first time, the connection is destroyed after some events; the second time all is well."""
    cut = {"truncateAfterChunks": 6, "latency": 5}
    return [
        answer(said, response, {"sequenceIndex": 0}, **cut),
        answer(said, {"content": TEXT}, {"sequenceIndex": 1}),
    ]


ANSWERS = [
    answer("How often?", {"content": TEXT, "usage": {"prompt_tokens": 21, "completion_tokens": 9}}),
    answer("And then?", {"content": "Then it turns."}),
    answer(
        "What does it cost?",
        {"content": TEXT, "usage": {"prompt_tokens": 21, "completion_tokens": 9, "cost": 0.0012}},
        openRouterProcessing=True,
    ),
    answer("How high?", {"content": SUMMARY}, {"hasToolResult": True}),
    answer("How high?", {"content": "Let me look.", "toolCalls": calls("pier", "harbour")}),
    answer("Think!", {"content": SUMMARY}, {"toolResultContains": LEVELS["harbour"]}),
    answer(
        "Think!",
        {
            "toolCalls": calls("harbour"),
            "reasoning": AFTERTHOUGHT,
            "reasoningSignature": SECOND_SIGNATURE,
        },
        {"toolResultContains": LEVELS["pier"]},
    ),
    answer(
        "Think!",
        {
            "toolCalls": calls("pier"),
            "reasoning": THOUGHT,
            "reasoningSignature": SIGNATURE,
            "redactedThinking": [SEALED],
        },
    ),
    answer("Think aloud!", {"content": TEXT, "reasoning": THOUGHT}),
    answer(
        "too often",
        {
            "status": 429,
            "retryAfter": 7,
            "error": {"type": "rate_limit_error", "message": "Slow down"},
        },
    ),
    answer(
        "too many",
        {"status": 529, "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ),
    answer("hang up", {"content": TEXT}, chaos={"disconnectRate": 1}),
    answer("garble", {"content": TEXT}, chaos={"malformedRate": 1}),
    *breaks("cut the text", {"content": TEXT}),
    *breaks("cut the thought", {"content": TEXT, "reasoning": THOUGHT}),
    *breaks("cut the call", {"toolCalls": calls("the pier that is farthest from the town")}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    reason = aimock.why_not()
    if reason:
        pytest.skip(reason)
    with aimock.serving(ANSWERS, tmp_path_factory.mktemp("aimock")) as running:
        yield running


@pytest.fixture(params=["chat completions", "messages", "openrouter"])
def generator(request, server):
    if request.param == "messages":
        generator = GeneratorInfo.anthropic("claude-sonnet-4-5").with_base_url(server.url)
    elif request.param == "openrouter":
        generator = GeneratorInfo.openrouter("vendor/m").with_base_url(f"{server.url}/api/v1")
    else:
        generator = GeneratorInfo.openai("gpt-5-mini").with_base_url(f"{server.url}/v1")
    return generator.with_api_key(aimock.KEY).with_header("X-Test-Id", request.node.name)


@pytest.fixture
def exchanges(request, server):
    """Tells the exchanges of this test, as the server saw them."""
    return lambda: server.exchanges(request.node.name)


class Whole:
    @staticmethod
    def chat(node, *args):
        return run(node.chat(*args))

    @staticmethod
    def complete(node, *args):
        return run(node.complete(*args))


class Streamed:
    @staticmethod
    def chat(node, *args):
        return Streamed.read(node.chat_streaming(*args))

    @staticmethod
    def complete(node, *args):
        return Streamed.read(node.complete_streaming(*args))

    @staticmethod
    def read(stream):
        chunks = list(iterate(stream))
        assert "".join(chunk.delta for chunk in chunks) == (stream.node.text or "")
        assert "".join(chunk.reasoning for chunk in chunks) == stream.response.reasoning
        return stream.node


@pytest.fixture(params=[Whole, Streamed])
def way(request):
    return request.param


def finish(way, node: ChatNode, generator, params) -> ChatNode:
    """The answer after all the calls that the model asks for."""
    while node.tool_calls:
        for call in node.tool_calls:
            node = node.add_tool_result(call.id, read_gauge(**call.arguments_json()))
        node = way.complete(node, generator, params)
    return node


class Watched:
    """The usual transport, which keeps what it sends."""

    def __init__(self):
        self.bodies = []

    async def send(self, request):
        self.bodies.append(json.loads(request.body))
        return await default_transport().send(request)


def test_a_conversation_arrives_as_it_is_and_its_answer_comes_back(generator, way, exchanges):
    first = way.chat(ChatNode.root(SYSTEM), "How often?", generator)
    assert first.text == TEXT
    assert first.response.finish_reason is FinishReason.STOP
    assert first.response.model == generator.model
    counts = first.response.usage
    assert (counts.prompt_tokens, counts.completion_tokens) == (21, 9)
    second = way.chat(first, "And then?", generator)
    assert second.text == "Then it turns."
    for node, exchange in zip((first, second), exchanges(), strict=True):
        said = [(message["role"], message["content"]) for message in exchange["body"]["messages"]]
        assert said == [(message.role.value, message.text) for message in node.parent.thread()]
        assert exchange["headers"]["x-request-id"] == node.response.request_id


@pytest.mark.parametrize("generator", ["openrouter"], indirect=True)
def test_openrouters_own_cost_is_the_cost(generator, way):
    node = way.chat(ChatNode.root(SYSTEM), "What does it cost?", generator)
    assert node.text == TEXT
    assert node.response.cost.cost == Decimal("0.0012")


def test_calls_come_and_their_results_go_back_under_the_same_ids(generator, way, exchanges):
    params = CompletionParameters(tools=[read_gauge])
    asked = way.chat(ChatNode.root(SYSTEM), "How high?", generator, params)
    assert asked.text == "Let me look."
    assert asked.response.finish_reason is FinishReason.TOOL_CALLS
    assert [call.arguments_json()["station"] for call in asked.tool_calls] == list(LEVELS)
    answered = finish(way, asked, generator, params)
    assert answered.text == SUMMARY
    first, second = (exchange["body"] for exchange in exchanges())
    for body in (first, second):
        (tool,) = body["tools"]
        assert tool["function"]["name"] == "read_gauge"
        assert tool["function"]["parameters"]["required"] == ["station"]
    _, _, turn, *results = second["messages"]
    assert [message["role"] for message in results] == ["tool", "tool"]
    assert [message["content"] for message in results] == list(LEVELS.values())
    ids = [call.id for call in asked.tool_calls]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in results] == ids
    assert [call["id"] for call in turn["tool_calls"]] == ids
    sent = [json.loads(call["function"]["arguments"]) for call in turn["tool_calls"]]
    assert sent == [{"station": station} for station in LEVELS]


def test_what_a_model_thought_is_apart_from_what_it_says(generator, way):
    node = way.chat(ChatNode.root(SYSTEM), "Think aloud!", generator)
    assert (node.text, node.response.reasoning) == (TEXT, THOUGHT)


@pytest.mark.parametrize("generator", ["messages"], indirect=True)
def test_signed_thoughts_go_back_unchanged_in_a_tool_loop(generator, way, exchanges):
    watched = Watched()
    generator = generator.with_transport(watched)
    params = CompletionParameters(
        tools=[read_gauge], reasoning=ReasoningConfig(max_tokens=2000), max_tokens=4000
    )
    asked = way.chat(ChatNode.root(SYSTEM), "Think!", generator, params)
    assert asked.response.reasoning == THOUGHT
    answered = finish(way, asked, generator, params)
    assert answered.text == SUMMARY
    after = way.chat(answered, "And then?", generator, params)
    assert after.response.request_report.omitted == {}
    # The server itself looks for a signature, but its journal does not keep thoughts.
    assert [exchange["response"]["status"] for exchange in exchanges()] == [200] * 4
    first = [
        {"type": "redacted_thinking", "data": SEALED},
        {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
    ]
    second = [{"type": "thinking", "thinking": AFTERTHOUGHT, "signature": SECOND_SIGNATURE}]
    for body, expected in zip(watched.bodies, (0, 1, 2, 2), strict=True):
        turns = [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]
        called = [turn for turn in turns if turn[-1]["type"] == "tool_use"]
        assert [turn[:-1] for turn in called] == [first, second][:expected]


@pytest.mark.parametrize("generator", ["messages"], indirect=True)
def test_the_server_refuses_a_call_whose_thoughts_are_lost(generator, way):
    call = ToolCall(id="call_1", name="read_gauge", arguments='{"station": "pier"}')
    _, leaf = ChatNode.from_messages(
        [Message.user("Think!"), Message.assistant("", [call]), Message.tool_result("call_1", "3")]
    )
    params = CompletionParameters(
        tools=[read_gauge], reasoning=ReasoningConfig(max_tokens=2000), max_tokens=4000
    )
    with pytest.raises(BadRequestError, match="thinking"):
        way.complete(leaf, generator, params)
    assert leaf.children() == []


class Echoing(Provider):
    """A server that wants the thoughts back as text."""

    dialect = ChatDialect(name="Echoing", reasoning_echo="reasoning_content")


class Silent(Provider):
    """A server that never gets its thoughts back."""

    dialect = ChatDialect(name="Silent", reasoning_echo=None)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [(GenericProvider(), THOUGHT), (Echoing(), THOUGHT), (Silent(), None)],
    ids=["usual", "echoing", "silent"],
)
@pytest.mark.parametrize("generator", ["chat completions"], indirect=True)
def test_thoughts_go_back_with_calls_under_the_servers_own_name_unless_the_dialect_says_no(
    generator, provider, expected, way, exchanges
):
    generator = generator.with_provider(provider)
    params = CompletionParameters(tools=[read_gauge])
    asked = way.chat(ChatNode.root(SYSTEM), "Think!", generator, params)
    assert asked.response.reasoning == THOUGHT
    assert finish(way, asked, generator, params).text == SUMMARY
    turn = exchanges()[-1]["body"]["messages"][2]
    assert turn["role"] == "assistant"
    assert turn.get("reasoning_content") == expected


@pytest.mark.parametrize(
    ("said", "kind", "status", "wait"),
    [("too often", RateLimitError, 429, 7), ("too many", OverloadedError, 529, None)],
)
def test_a_refusal_is_a_typed_error_and_is_not_tried_again(
    generator, way, said, kind, status, wait, exchanges
):
    root = ChatNode.root(SYSTEM)
    with pytest.raises(kind) as caught:
        way.chat(root, said, generator)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.retry_after_secs, error.is_retryable) == (status, wait, True)
    (exchange,) = exchanges()
    assert error.request_id == exchange["headers"]["x-request-id"]
    assert root.children() == []


def test_a_wrong_key_is_an_authentication_error_without_the_key(generator, way, exchanges):
    root = ChatNode.root(SYSTEM)
    with pytest.raises(AuthenticationError) as caught:
        way.chat(root, "How often?", generator.with_api_key("wrong-key"))
    assert caught.value.status == 401
    assert "wrong-key" not in str(caught.value)
    assert exchanges() == root.children() == []


@pytest.mark.parametrize(
    ("said", "kind"), [("hang up", ReadError), ("garble", MalformedResponseError)]
)
def test_an_answer_that_is_none_is_an_error(generator, way, said, kind):
    root = ChatNode.root(SYSTEM)
    with pytest.raises(kind) as caught:
        way.chat(root, said, generator)
    assert caught.value.partial == ""
    assert root.children() == []


@pytest.mark.parametrize("said", ["cut the text", "cut the thought", "cut the call"])
def test_a_stream_that_is_cut_off_is_an_error_with_the_text_so_far(generator, said):
    root = ChatNode.root(SYSTEM)
    shown = ""
    with pytest.raises(ReadError) as caught:
        for chunk in iterate(root.chat_streaming(said, generator)):
            shown += chunk.delta
    assert caught.value.partial == shown
    assert bool(shown) == (said == "cut the text")
    assert TEXT.startswith(shown)
    assert len(shown) < len(TEXT)
    assert root.children() == []
    assert Streamed.chat(root, said, generator).text == TEXT
    assert len(root.children()) == 1
