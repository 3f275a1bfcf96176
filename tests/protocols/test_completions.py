"""The completions wire: a thread as one text, its continuation as an answer, and no roles."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sent_bodies import PNG, body_of
from short_answers import COMPLETION
from strategies_answers import RANDOMS, TEXTS, as_events

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    FinishReason,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    MalformedResponseError,
    Message,
    NodeCompletionParameters,
    ProviderSettings,
    TokenLogprob,
    TokenPrice,
    ToolCall,
    estimate_cost,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

PLAIN = CompletionsProvider()


def dialogue(messages):
    """A template as a user writes one; of a module, so that it can be pickled."""
    turns = "".join(f"{message.role}: {message.text}\n" for message in messages)
    return turns + "assistant:"


DIALOGUE = CompletionsProvider(dialogue)


def prompt_of(provider, leaf, params=None) -> str:
    return body_of(provider, leaf, params)["prompt"]


def generator_of(*replies: ScriptedReply, provider=PLAIN) -> GeneratorInfo:
    generator = GeneratorInfo.custom("base", "https://base.example/v1", "olmo", wire="completions")
    return generator.with_provider(provider).with_transport(ScriptedTransport(replies))


def answered(*choices: object, **body: object) -> ScriptedReply:
    return ScriptedReply.json({"id": "cmpl-1", "model": "olmo", "choices": choices, **body})


def text(said: object, reason: str | None = "stop", **more: object) -> dict:
    return {"index": 0, "text": said, "finish_reason": reason, **more}


def streamed(*choices: dict) -> ScriptedReply:
    events = (msgspec.json.encode({"choices": [choice]}) for choice in choices)
    return ScriptedReply.events(*(b"data: %b\n\n" % event for event in events))


def ask(generator, params=None, root="Once"):
    return minillmlib.run(ChatNode.root(root).complete(generator, params))


def ask_streaming(generator, params=None, root="Once"):
    stream = ChatNode.root(root).complete_streaming(generator, params)
    return [chunk.delta for chunk in minillmlib.iterate(stream)], stream.node


def test_a_thread_is_the_texts_of_its_messages_and_nothing_else():
    leaf = ChatNode.root("Once ").add_user("upon").add_assistant(" a").add_user(" time\n")
    body = body_of(PLAIN, leaf)
    assert body == {"model": "m", "prompt": "Once upon a time\n"}


def test_an_answer_is_continued_where_it_ends():
    root = ChatNode.root("Once")
    first = root.add_assistant(" upon ")
    assert prompt_of(PLAIN, first.add_assistant("\n\n a time")) == "Once upon \n\n a time"
    node = minillmlib.run(first.complete(generator_of(answered(text(" a time")))))
    assert [message.text for message in node.thread()] == ["Once", " upon ", " a time"]


def test_a_template_gets_the_messages_as_they_are_and_makes_the_text():
    seen = []

    def note(messages):
        seen.extend(messages)
        return "the text"

    messages = [Message.system("s"), Message.user("u"), Message.user("v"), Message.assistant("")]
    _, leaf = ChatNode.from_messages(messages)
    assert prompt_of(CompletionsProvider(note), leaf) == "the text"
    assert seen == messages
    assert prompt_of(DIALOGUE, leaf) == "system: s\nuser: u\nuser: v\nassistant: None\nassistant:"


def test_placeholders_and_a_system_prompt_are_filled_in_before_the_template():
    params = NodeCompletionParameters(system_prompt="By {who}.", format_kwargs={"who": "Ada"})
    leaf = ChatNode.root().add_user("{who}?")
    assert prompt_of(DIALOGUE, leaf, params) == "system: By Ada.\nuser: Ada?\nassistant:"


@pytest.mark.parametrize("forced", [" ha ", "ha", "h", " ha\n"])
@pytest.mark.parametrize("said", ["ha ha", " ha ha", "", "h"])
def test_a_forced_beginning_ends_the_text_and_what_repeats_it_is_new(forced, said):
    """A base model that goes on with the same words repeats them, which is no echo."""
    params = NodeCompletionParameters(force_prepend=forced)
    leaf = ChatNode.root("s").add_user("u")
    assert prompt_of(PLAIN, leaf, params) == "su" + forced
    assert prompt_of(DIALOGUE, leaf, params) == "system: s\nuser: u\nassistant:" + forced
    whole = ask(generator_of(answered(text(said))), params)
    pieces = [text(letter, None) for letter in said] + [text("")]
    shown, node = ask_streaming(generator_of(streamed(*pieces)), params)
    assert whole.text == node.text == "".join(shown) == forced + said
    assert shown[0] == forced + said[:1], "nothing waits for a repetition"


@pytest.mark.parametrize(
    ("template", "says"),
    [(lambda _: None, "must return a text, not NoneType"), (lambda _: b"x", "not bytes"),
     (lambda _: ["x"], "not list"), (lambda messages: messages[9].text, "IndexError"),
     (lambda: "x", "takes 0 positional")],
)  # fmt: skip
def test_a_template_that_makes_no_text_is_an_error_before_anything_is_sent(template, says):
    generator = generator_of(provider=CompletionsProvider(template))
    root = ChatNode.root("s")
    with pytest.raises(InvalidParameterError, match=says):
        minillmlib.run(root.chat("u", generator))
    assert generator.transport.requests == root.children() == []


@pytest.mark.parametrize("template", ["{messages}", 5, True])
def test_a_template_is_a_function(template):
    with pytest.raises(InvalidParameterError, match="must be a function"):
        CompletionsProvider(template)


def test_a_template_that_returns_a_text_of_a_kind_of_its_own_is_fine():
    kind = type("Text", (str,), {})
    assert prompt_of(CompletionsProvider(lambda _: kind("x")), ChatNode.root("s")) == "x"


def test_a_template_of_a_module_is_pickled_with_its_generator():
    generator = GeneratorInfo.custom("base", "http://127.0.0.1:1/v1", "m").with_provider(DIALOGUE)
    again = pickle.loads(pickle.dumps(generator))
    assert again.provider == DIALOGUE != PLAIN
    assert repr(again.provider) == "CompletionsProvider(dialogue)"


CALL = Message.assistant("", [ToolCall(id="c1", name="tide", arguments="{}")])


@pytest.mark.parametrize("message", [CALL, Message.tool_result("c1", "low")])
def test_tool_calls_and_results_are_refused_unless_a_template_writes_them(message):
    _, leaf = ChatNode.from_messages([Message.user("u"), message])
    with pytest.raises(InvalidParameterError, match="template"):
        prompt_of(PLAIN, leaf)
    written = CompletionsProvider(lambda messages: f"{messages[1].tool_calls} {messages[1].text}")
    assert ("tide" in prompt_of(written, leaf)) == (message is CALL)


@pytest.mark.parametrize("provider", [PLAIN, DIALOGUE])
def test_media_are_refused(provider):
    leaf = ChatNode.root("s").add_user([ImagePart.from_bytes(PNG)])
    with pytest.raises(InvalidParameterError, match="takes no image"):
        prompt_of(provider, leaf)


def test_what_is_not_sent_is_told():
    leaf = ChatNode.root("s").add_user("u").cache_breakpoint()
    params = CompletionParameters(openrouter_routing=ProviderSettings(sort="price"))
    node = minillmlib.run(leaf.complete(generator_of(answered(text("x"))), params))
    assert node.response.request_report.sent == ("model", "prompt")
    assert set(node.response.request_report.omitted) == {"openrouter_routing", "cache breakpoints"}


def test_a_typed_result_is_asked_for_by_the_text():
    generator = generator_of(answered(text("7")))
    node = minillmlib.run(
        ChatNode.root("s").chat("u", generator, NodeCompletionParameters().expecting(int))
    )
    assert node.parsed == 7
    assert "response_format" in node.response.request_report.omitted["the schema of the answer"]
    body = msgspec.json.decode(generator.transport.requests[0].body)
    assert '"integer"' in body["prompt"]


def test_a_stream_asks_for_its_counts():
    generator = generator_of(streamed(text("x")))
    ask_streaming(generator)
    request = generator.transport.requests[0]
    assert request.url == "https://base.example/v1/completions"
    assert msgspec.json.decode(request.body) == {
        "model": "olmo", "prompt": "Once", "stream": True, "stream_options": {"include_usage": True}
    }  # fmt: skip


def test_a_spec_names_a_base_model():
    generator = GeneratorInfo.from_spec("completions:http://127.0.0.1:8000/v1:olmo:base")
    assert (generator.base_url, generator.model) == ("http://127.0.0.1:8000/v1", "olmo:base")
    assert generator.provider == PLAIN
    with pytest.raises(InvalidParameterError, match="the wire must be"):
        GeneratorInfo.custom("x", "http://127.0.0.1:8000/v1", "m", wire="completion")


def test_what_an_answer_may_cost_is_known_with_a_price_and_a_limit():
    generator = generator_of().with_token_price(TokenPrice(1, 5))
    messages = [Message.user("u" * 1000)]
    assert estimate_cost(messages, generator).missing == ("max_tokens",)
    estimate = estimate_cost(messages, generator, CompletionParameters(max_tokens=10))
    assert estimate.missing == ()
    assert estimate.ceiling > 0


ODD_TEXTS = [5, {"a": 1}, [{"type": "text", "text": 5}], [None], True]


@pytest.mark.parametrize("odd", ODD_TEXTS)
def test_a_text_that_is_none_is_malformed(odd):
    with pytest.raises(MalformedResponseError):
        ask(generator_of(answered(text(odd))))
    with pytest.raises(MalformedResponseError):
        ask_streaming(generator_of(streamed(text(odd))))


@pytest.mark.parametrize("choice", [{"index": 0, "finish_reason": "stop"}, {"text": None}, {}])
def test_a_choice_without_a_text_is_no_whole_answer_or_an_empty_one(choice):
    if "text" in choice:
        assert ask(generator_of(answered(choice))).message.content == ""
        return
    with pytest.raises(MalformedResponseError, match="no choices"):
        ask(generator_of(answered(choice)))


def test_an_answer_in_the_shape_of_chat_completions_is_read_too():
    said = {"message": {"content": "ok"}, "text": "", "finish_reason": "stop"}
    assert ask(generator_of(answered(said))).text == "ok"
    delta = {"delta": {"content": "ok"}, "text": "", "finish_reason": "stop"}
    assert ask_streaming(generator_of(streamed(delta)))[0] == ["ok"]


def test_the_body_is_kept_as_it_came():
    node = ask(generator_of(ScriptedReply.json(COMPLETION)))
    assert node.response.raw_response == COMPLETION


HI = TokenLogprob(token="Hi", logprob=-0.5)
# What a server sends for `logprobs`, and what is understood of it.
LOGPROBS = {
    "none": (None, ()), "a text": ("x", ()), "a list": ([1], ()), "no tokens": ({}, ()),
    "tokens null": ({"tokens": None, "token_logprobs": [-0.5]}, ()),
    "tokens alone": ({"tokens": ["Hi"]}, ()),
    "without others": ({"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": None}, (HI,)),
    "a number too many": ({"tokens": ["Hi"], "token_logprobs": [-0.5, -1]}, (HI,)),
    "a token too many": ({"tokens": ["Hi", "x"], "token_logprobs": [-0.5]}, (HI,)),
    "one that is null": ({"tokens": ["x", "Hi"], "token_logprobs": [None, -0.5]}, (HI,)),
    "a token that is a number": ({"tokens": [1, "Hi"], "token_logprobs": [-1, -0.5]}, (HI,)),
    "others that are none": (
        {"tokens": ["Hi"] * 4, "token_logprobs": [-0.5] * 4,
         "top_logprobs": [7, ["x"], {"x": "y", "z": None}, None]}, (HI,) * 4),
    "others in no order": (
        {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -3, "Hi": -0.5, "b": -1}]},
        (msgspec.structs.replace(HI, top=(
            HI, TokenLogprob(token="b", logprob=-1.0), TokenLogprob(token="a", logprob=-3.0))),)),
    "the shape of chat completions": ({"content": [{"token": "Hi", "logprob": -0.5}]}, (HI,)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGPROBS)
def test_probabilities_are_read_as_far_as_they_are_understood(name):
    sent, expected = LOGPROBS[name]
    node = ask(generator_of(answered(text("Hi", logprobs=sent))))
    assert (node.text, node.response.logprobs) == ("Hi", expected)
    _, node = ask_streaming(generator_of(streamed(text("Hi", logprobs=sent))))
    assert (node.text, node.response.logprobs) == ("Hi", expected)


PROBABILITIES = st.floats(-9999, 0)
TOKENS = st.tuples(
    TEXTS, st.none() | PROBABILITIES, st.none() | st.dictionaries(TEXTS, PROBABILITIES, max_size=3)
)
REASONS = st.sampled_from(["stop", "length", "content_filter", "eos_token", "news"])
# The same examples in every run.
AGREEMENT = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def legacy(tokens: list[tuple]) -> dict:
    names = ("tokens", "token_logprobs", "top_logprobs")
    columns = zip(*tokens, strict=True) if tokens else ([], [], [])
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


@AGREEMENT
@given(st.lists(TOKENS, max_size=8), REASONS, RANDOMS)
def test_answers_are_the_same_streamed_and_whole(tokens, reason, rng):
    counts = {"prompt_tokens": 3, "completion_tokens": len(tokens)}
    said = "".join(token for token, *_ in tokens)
    whole = ask(generator_of(answered(text(said, reason, logprobs=legacy(tokens)), usage=counts)))
    choices, rest = [], tokens
    while rest:
        count = rng.randint(1, len(rest))
        now, rest = rest[:count], rest[count:]
        piece = "".join(token for token, *_ in now)
        choices.append(text(piece, None, logprobs=legacy(now)))
    head = {"id": "cmpl-1", "model": "olmo"}
    events = [head | {"choices": [choice]} for choice in (*choices, text("", reason))]
    events += [head | {"choices": [], "usage": counts}, "[DONE]"]
    shown, node = ask_streaming(generator_of(as_events(rng, events)))
    assert "".join(shown) == whole.message.content == node.message.content == said
    for name in ("id", "model", "finish_reason", "raw_finish_reason", "logprobs", "usage", "extra"):
        assert getattr(node.response, name) == getattr(whole.response, name), name
    assert len(node.response.logprobs) == sum(logprob is not None for _, logprob, _ in tokens)
    assert (reason == "news") == (node.response.finish_reason is FinishReason.UNKNOWN)
