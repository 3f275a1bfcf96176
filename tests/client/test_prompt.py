"""Placeholders and forced beginnings: what becomes of the text of a conversation."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sent_bodies import body_of
from short_answers import said, scripted, streamed

import minillmlib
from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    NodeCompletionParameters,
    OpenAiProvider,
    TextPart,
    ToolCall,
)
from minillmlib.client.placeholders import fill_placeholders
from minillmlib.testing import ScriptedReply, ScriptedTransport


def texts_sent(leaf: ChatNode, params: NodeCompletionParameters) -> list[str]:
    return [message["content"] for message in body_of(GenericProvider(), leaf, params)["messages"]]


def test_placeholders_are_filled_in_the_whole_thread_at_call_time():
    leaf = ChatNode.root("You are {who}.").add_user("Hi, {who}, it is {hour}.")
    params = (
        NodeCompletionParameters().with_format_kwargs({"who": "Ada"}).with_format_kwarg("hour", 7)
    )
    assert texts_sent(leaf, params) == ["You are Ada.", "Hi, Ada, it is 7."]
    assert leaf.text == "Hi, {who}, it is {hour}.", "the tree keeps what was written"
    parts = ChatNode.root("s").add_user([TextPart(text="{who}")])
    assert texts_sent(parts, params)[1] == [{"type": "text", "text": "Ada"}]


@pytest.mark.parametrize(
    ("text", "sent"),
    [("{a}{a}", "{b}{b}"), ("{unknown}", "{unknown}"), ("{", "{"), ("}{", "}{"), ("{{a}}", "{a}"),
     ("{a.__class__}", "{a.__class__}"), ("{a[0]}", "{a[0]}"), ("{a:>9}", "{a:>9}"), ("{a!r}", "{a!r}"),
     ("{{{a}}}", "{{a}}"), ("{{unknown}}", "{{unknown}}"), ('{"k":{a}}', '{"k":{b}}'),
     ("{ a }", "{ a }"), ("{}", "{}"), ('{"a": 1}', '{"a": 1}'), ("{0}", "{0}")],
)  # fmt: skip
def test_only_plain_names_are_filled_and_values_are_never_looked_into(text, sent):
    params = NodeCompletionParameters(format_kwargs={"a": "{b}", "b": "no"})
    assert texts_sent(ChatNode.root("s").add_user(text), params)[1] == sent


@given(st.text(alphabet="{}abx._ "), st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)))
def test_filling_adds_no_more_than_the_values(text, values):
    (message,) = fill_placeholders([minillmlib.Message.user(text or "x")], values)
    longest = max(map(len, values.values()), default=0)
    assert len(message.text or "") <= len(text or "x") * (1 + longest)


@pytest.mark.parametrize(
    "wrong", [{"a": object()}, {"a b": "x"}, {1: "x"}, [("a", "b")], {"a": None}]
)
def test_a_value_that_is_no_text_or_number_is_refused(wrong):
    with pytest.raises(InvalidParameterError):
        NodeCompletionParameters(format_kwargs=wrong)


@pytest.mark.parametrize("provider", [GenericProvider(), AnthropicProvider()])
def test_the_words_of_models_and_tools_are_sent_as_they_were_said(provider):
    code, params = 'print(f"{who}")', NodeCompletionParameters(format_kwargs={"who": "Ada"})
    thread = [
        minillmlib.Message.user("I am {who}."),
        minillmlib.Message.assistant(code, [ToolCall(id="c", name="read", arguments='{"a": "{who}"}')]),
        minillmlib.Message.tool_result("c", [TextPart(text=code)]),
        minillmlib.Message.assistant([TextPart(text="{who}, {{who}}")]),
        minillmlib.Message.user("{{who}} is {who}"),
    ]  # fmt: skip
    _, leaf = ChatNode.from_messages(thread)
    sent = msgspec.json.encode(body_of(provider, leaf, params)["messages"]).decode()
    assert sent.count("Ada") == 2
    assert sent.count(code.replace('"', r"\"")) == 2
    assert "{who}, {{who}}" in sent
    assert "{who} is Ada" in sent
    assert leaf.missing_format_kwargs() == ["who"]
    assert [one.text for one in leaf.formatted_thread(who="Ada")][1:4] == [
        code,
        code,
        "{who}, {{who}}",
    ]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_next_call_says_what_the_model_wrote_and_not_what_a_template_makes_of_it(
    is_streamed,
):
    code = 'f"Hello {name}, {missing}"'
    generator = scripted(streamed(code) if is_streamed else said(code), said("y"))
    root = ChatNode.root("s").set_format_kwarg("name", "Bob")
    stream = root.chat_streaming("u", generator)
    answer = (
        (await stream.collect(), stream.node)[1] if is_streamed else await root.chat("u", generator)
    )
    await answer.chat("Thanks, {name}", generator)
    sent = msgspec.json.decode(generator.transport.requests[1].body)["messages"]
    assert [message["content"] for message in sent] == ["s", "u", code, "Thanks, Bob"]


BEGIN = NodeCompletionParameters().with_force_prepend("Planets:\n- ")


def test_a_forced_beginning_is_the_last_turn_of_the_prompt_without_its_last_white_space():
    leaf = ChatNode.root("s").add_user("u")
    last = body_of(GenericProvider(), leaf, BEGIN)["messages"][-1]
    assert last == {"role": "assistant", "content": "Planets:\n-"}
    last = body_of(AnthropicProvider(), leaf, BEGIN)["messages"][-1]
    assert last["content"] == [{"type": "text", "text": "Planets:\n-"}]


def test_where_no_model_continues_a_beginning_it_is_an_error_that_says_why():
    with pytest.raises(InvalidParameterError, match="OpenAI begins a new answer"):
        body_of(OpenAiProvider(), ChatNode.root("s").add_user("u"), BEGIN)


@pytest.mark.parametrize("answer", ["Mercury", "Planets:\n- Mercury", "Plan B", "", "Planets:\n- "])
async def test_the_beginning_is_part_of_the_answer_exactly_once_whole_and_streamed(answer):
    is_repeated = answer.startswith("Planets:\n- ")
    text = answer if is_repeated else "Planets:\n- " + answer
    whole = await ChatNode.root("s").chat("u", scripted(said(answer)), BEGIN)
    assert whole.text == text
    assert [message.role.value for message in whole.thread()] == ["system", "user", "assistant"]
    for size in (1, 3, 100):
        pieces = [answer[i : i + size] for i in range(0, len(answer), size)]
        stream = ChatNode.root("s").chat_streaming("u", scripted(streamed(*pieces)), BEGIN)
        assert "".join([chunk.delta async for chunk in stream]) == text
        assert stream.node.text == text


@pytest.mark.parametrize("name", ["compat_llamacpp_prefill_echo.json",
                                  "compat_llamacpp_prefill_stream_no_echo.sse"])  # fmt: skip
def test_a_real_server_that_repeats_it_only_when_not_streaming_gives_the_same_answer(name):
    data = (GOLDEN / name).read_bytes()
    begin = NodeCompletionParameters(force_prepend="Planets:\n-")
    reply = ScriptedReply.events(data) if name.endswith(".sse") else ScriptedReply.json(data)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ChatNode.root("s").chat_streaming(
        "u", generator.with_transport(ScriptedTransport([reply])), begin
    )
    list(minillmlib.iterate(stream))
    assert stream.node.text == "Planets:\n- Mercury\n- Venus"


async def test_a_beginning_does_not_make_an_empty_stream_a_success():
    done = ScriptedReply.events(b"data: [DONE]\n\n")
    with pytest.raises(minillmlib.IncompleteStreamError):
        async for _ in ChatNode.root("s").chat_streaming("u", scripted(done), BEGIN):
            pass


async def test_a_beginning_that_ends_in_white_space_is_known_again():
    begin = NodeCompletionParameters(force_prepend="{\n")
    for answer in ('{"a":1}', '{\n"a":1}', '"a":1}'):
        whole = await ChatNode.root("s").chat("u", scripted(said(answer)), begin)
        assert whole.text == '{\n"a":1}'


async def test_a_stream_that_goes_on_as_it_began_loses_nothing():
    begin = NodeCompletionParameters(force_prepend="[")
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("[1],", "[2]]")), begin)
    assert "".join([chunk.delta async for chunk in stream]) == "[[1],[2]]"


@pytest.mark.parametrize("answer", ['{"a": 1}', 'a": 1}'])
async def test_two_characters_are_enough_to_know_a_beginning_again(answer):
    begin = NodeCompletionParameters(force_prepend='{"')
    whole = await ChatNode.root("s").chat("u", scripted(said(answer)), begin)
    for size in (1, 2, 3, 100):
        pieces = [answer[i : i + size] for i in range(0, len(answer), size)]
        stream = ChatNode.root("s").chat_streaming("u", scripted(streamed(*pieces)), begin)
        assert (await stream.collect()).text == whole.text == '{"a": 1}'


async def test_text_held_back_is_not_lost_when_the_stream_ends_or_breaks():
    for cut, partial in [
        ("Plan", "Plan"),
        ("Planets:\n- Mer", "Planets:\n- Mer"),
        ("Sun", "Planets:\n- Sun"),
    ]:
        event = (
            b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": cut}}]}) + b"\n\n"
        )
        with pytest.raises(minillmlib.IncompleteStreamError) as caught:
            async for _ in ChatNode.root("s").chat_streaming(
                "u", scripted(ScriptedReply.events(event)), BEGIN
            ):
                pass
        assert caught.value.partial == partial
        done = ScriptedReply.events(event, b"data: [DONE]\n\n")
        stream = ChatNode.root("s").chat_streaming("u", scripted(done), BEGIN)
        text = "".join([chunk.delta async for chunk in stream])
        assert text == stream.node.text == ("Planets:\n- Plan" if cut == "Plan" else partial)


def test_placeholders_are_filled_in_the_settings_own_texts_too():
    params = NodeCompletionParameters(
        system_prompt="You are {who}.", force_prepend="I, {who},", format_kwargs={"who": "Ada"}
    )
    _, leaf = ChatNode.from_messages([minillmlib.Message.user("u")])
    assert texts_sent(leaf, params) == ["You are Ada.", "u", "I, Ada,"]
    answer = minillmlib.run(leaf.complete(scripted(said(" think.")), params))
    assert answer.text == "I, Ada, think."


def test_neighbours_of_one_role_are_one_turn():
    leaf = ChatNode.root("s").add_user("a").add_user(" ").add_user("b").add_assistant("c")
    leaf = leaf.add_assistant("d").add_user([TextPart(text="e")]).add_user("f")
    sent = body_of(GenericProvider(), leaf)["messages"]
    parts = [{"type": "text", "text": text} for text in "ef"]
    assert [(m["role"], m["content"]) for m in sent] == [
        ("system", "s"), ("user", "a\n\nb"), ("assistant", "c\n\nd"), ("user", parts)]  # fmt: skip
    assert [message.text for message in leaf.thread()] == ["s", "a", " ", "b", "c", "d", "e", "f"]


def test_calls_results_and_marked_messages_stay_by_themselves():
    call = minillmlib.ToolCall(id="1", name="f", arguments="{}")
    marked = minillmlib.Message(role="user", content="a", cache_ttl="5m")
    history = [marked, minillmlib.Message.user("b"), minillmlib.Message.assistant("c", [call]),
               minillmlib.Message.tool_result("1", "d"), minillmlib.Message.tool_result("1", "e"),
               minillmlib.Message.assistant("f"), minillmlib.Message.user("g")]  # fmt: skip
    _, leaf = ChatNode.from_messages(history)
    sent = body_of(GenericProvider(), leaf)["messages"]
    assert [message["content"] for message in sent] == list("abcdefg")


def test_a_real_model_continues_a_beginning_on_both_wires(local_server):
    generator = GeneratorInfo.custom("real", local_server.base_url, "m").with_api_key(
        local_server.key
    )
    params = NodeCompletionParameters(
        params=CompletionParameters(temperature=0, max_tokens=16), force_prepend="The capital is"
    )
    root = ChatNode.root("You are a helpful assistant.")
    for wire in (generator, generator.with_provider(AnthropicProvider())):
        whole = minillmlib.run(root.chat("What is the capital of France?", wire, params))
        stream = root.chat_streaming("What is the capital of France?", wire, params)
        text = "".join(chunk.delta for chunk in minillmlib.iterate(stream))
        assert whole.text == text == stream.node.text
        assert text.startswith("The capital is")
        assert text.count("The capital is") == 1
        assert msgspec.json.encode(text)


ENDS = "Roses are red,\n \n"


@pytest.mark.parametrize("content", [ENDS, [TextPart(text="A poem:"), TextPart(text=ENDS)]])
def test_white_space_at_the_end_of_a_last_turn_is_not_sent_to_claude(content):
    leaf = ChatNode.root("s").add_user("A poem").add_assistant(content)
    blocks = body_of(AnthropicProvider(), leaf)["messages"][-1]["content"]
    assert blocks[-1]["text"] == "Roses are red,"
    for provider in (minillmlib.OpenRouterProvider(), GenericProvider()):
        _, sent = sent_to("anthropic/claude-haiku-4-5", provider, leaf)
        text = sent["messages"][-1]["content"]
        assert (text if isinstance(text, str) else text[-1]["text"]) == "Roses are red,"
    after = body_of(AnthropicProvider(), leaf.add_user("Go on"))["messages"]
    assert after[1]["content"][-1]["text"] == ENDS, "in the middle it stays: caches know it so"
    assert leaf.text.endswith(ENDS)


def test_white_space_is_left_before_a_call_and_to_servers_that_do_not_mind():
    call = minillmlib.ToolCall(id="1", name="f", arguments="{}")
    _, leaf = ChatNode.from_messages([minillmlib.Message.user("u"),
                                      minillmlib.Message.assistant("Let me see. ", [call])])  # fmt: skip
    first = body_of(AnthropicProvider(), leaf)["messages"][-1]["content"][0]
    assert first["text"] == "Let me see. "
    plain = ChatNode.root("s").add_user("A poem").add_assistant(ENDS)
    assert body_of(GenericProvider(), plain)["messages"][-1]["content"] == ENDS


def sent_to(model, provider, leaf, params=None):
    transport = ScriptedTransport([said(" Paris.")])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", model).with_provider(provider)
    answer = minillmlib.run(leaf.complete(generator.with_transport(transport), params))
    return answer, msgspec.json.decode(transport.requests[0].body)


CAPITAL = NodeCompletionParameters(force_prepend="The capital is")
MARKS = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize(
    ("model", "mark"),
    [("m", {}), ("meta-llama/Llama-3", {}), ("deepseek-chat", {"prefix": True}),
     ("kimi-k2.5", {"partial": True}), ("moonshot-v1-8k", {"partial": True}),
     ("Qwen/Qwen3-8B", {"partial": True}), ("openai/gpt-oss-20b", {})],
)  # fmt: skip
def test_a_compatible_server_is_told_to_continue_a_beginning(model, mark):
    answer, sent = sent_to(model, GenericProvider(), ChatNode.root("s").add_user("u"), CAPITAL)
    assert {key: sent[key] for key in MARKS} == MARKS
    assert sent["messages"][-1] == {"role": "assistant", "content": "The capital is"} | mark
    assert answer.text == "The capital is Paris."
    assert set(MARKS) <= set(answer.response.request_report.sent)
    _, plain = sent_to(model, GenericProvider(), ChatNode.root("s").add_user("u"))
    assert not set(MARKS) & set(plain), "only with a forced beginning"


def test_a_callers_own_keys_for_a_beginning_are_sent_as_they_are():
    extra = CompletionParameters(extra={"continue_final_message": True, "echo": True,
                                        "add_generation_prompt": True})  # fmt: skip
    leaf = ChatNode.root("s").add_user("u")
    _, sent = sent_to("m", GenericProvider(), leaf, CAPITAL.with_params(extra))
    assert (sent["add_generation_prompt"], sent["echo"]) == (True, True)


def test_a_server_that_continues_by_itself_gets_no_unknown_keys():
    leaf = ChatNode.root("s").add_user("u")
    groq = GeneratorInfo.preset("groq", "openai/gpt-oss-20b").provider
    for model, provider in [("m", GenericProvider(marks_prefill=False)), ("m", groq),
                            ("m", minillmlib.OpenRouterProvider()),
                            ("anthropic/claude-haiku-4-5", GenericProvider())]:  # fmt: skip
        _, sent = sent_to(model, provider, leaf, CAPITAL)
        assert not set(MARKS) & set(sent)
        assert sent["messages"][-1] == {"role": "assistant", "content": "The capital is"}


@pytest.mark.parametrize("provider", [GenericProvider(), minillmlib.OpenRouterProvider()])
@pytest.mark.parametrize(
    "model", ["openai/gpt-5-mini", "gpt-4o", "o3", "chatgpt-4o-latest", "anthropic/claude-opus-4.8"]
)
def test_a_gateway_to_a_model_that_begins_anew_is_refused_before_anything_is_sent(provider, model):
    with pytest.raises(InvalidParameterError, match=r"begins a new|refuses a beginning"):
        sent_to(model, provider, ChatNode.root("s").add_user("u"), CAPITAL)


class Capital(msgspec.Struct):
    """A typed answer."""

    city: str


def test_a_typed_answer_and_a_retry_keep_the_marks():
    transport = ScriptedTransport([said(" wrong"), said('"city": "Oslo"}')])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)
    params = NodeCompletionParameters(force_prepend="{", retry=2).expecting(Capital)
    answer = minillmlib.run(ChatNode.root("s").chat("u", generator, params))
    assert answer.parsed == Capital(city="Oslo")
    for request in transport.requests:
        body = msgspec.json.decode(request.body)
        assert MARKS.items() <= body.items()
        assert body["messages"][-1]["content"] == "{"
