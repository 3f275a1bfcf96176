"""One program on a real model over three wires: only the generator's line differs."""

from __future__ import annotations

import pytest

from minillmlib import (
    AnthropicProvider,
    AuthenticationError,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    ContextLengthError,
    FinishReason,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    ResponsesProvider,
    iterate,
    run,
)

GREEDY = CompletionParameters(temperature=0, max_tokens=48)
QUESTION = "What is the capital of France?"


@pytest.fixture(params=["chat completions", "messages", "responses", "embedded"])
def generator(request, local_server):
    if request.param == "embedded":
        return GeneratorInfo.local()
    if request.param == "messages":
        generator = GeneratorInfo.anthropic("smollm2").with_base_url(local_server.url)
    else:
        generator = GeneratorInfo.custom("real", local_server.base_url, "smollm2")
    if request.param == "responses":
        generator = generator.with_provider(ResponsesProvider())
    return generator.with_api_key(local_server.key)


def test_a_conversation_of_two_turns_and_a_branch(generator):
    root = ChatNode.root("You are a helpful assistant.")
    first = run(root.chat(QUESTION, generator, GREEDY))
    assert "Paris" in first.text
    second = run(first.chat("And of Germany?", generator, GREEDY))
    branch = run(first.chat("And of Italy?", generator, GREEDY))
    assert second.text
    assert branch.text
    assert [len(node.thread()) for node in (first, second, branch)] == [3, 5, 5]
    assert first.children() == [second.parent, branch.parent]
    for node in (first, second, branch):
        assert node.response.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
        assert node.response.usage.prompt_tokens > 20
        assert 0 < node.response.usage.completion_tokens <= 48


def test_a_stream_says_the_same_as_a_whole_answer_with_the_same_counts(generator):
    root = ChatNode.root("You are a helpful assistant.")
    for question in (QUESTION, "Say hello in three languages."):
        whole = run(root.chat(question, generator, GREEDY))
        stream = root.chat_streaming(question, generator, GREEDY)
        text = "".join(chunk.delta for chunk in iterate(stream))
        assert text == whole.text == stream.node.text
        assert stream.response.finish_reason == whole.response.finish_reason
        counts, again = whole.response.usage, stream.response.usage
        assert again.completion_tokens == counts.completion_tokens
        assert again.prompt_tokens == counts.prompt_tokens
        assert again.total_tokens == again.prompt_tokens + again.completion_tokens


async def test_the_same_conversation_in_asynchronous_code(generator):
    root = ChatNode.root("You are a helpful assistant.")
    async with root.chat_streaming(QUESTION, generator, GREEDY) as stream:
        text = "".join([chunk.delta async for chunk in stream])
    assert "Paris" in text
    answer = await stream.node.chat("And of Germany?", generator, GREEDY)
    assert [message.text for message in answer.thread()][:3] == [root.text, QUESTION, text]


def test_a_repeated_prompt_is_counted_once_though_part_of_it_was_cached(generator):
    root = ChatNode.root("You are a helpful assistant.")
    first, again = (run(root.chat("Count to three.", generator, GREEDY)) for _ in range(2))
    assert again.response.usage.cache_read_tokens > 0
    assert again.response.usage.prompt_tokens == first.response.usage.prompt_tokens


def test_a_limit_ends_the_answer_and_is_told_as_the_reason(generator):
    root = ChatNode.root("You are a helpful assistant.")
    short = run(root.chat("Tell me a long story.", generator, GREEDY.with_max_tokens(3)))
    # llama.cpp calls an answer completed on the Responses wire though the limit has cut it.
    is_told = not isinstance(generator.provider, ResponsesProvider)
    assert short.response.finish_reason is (FinishReason.LENGTH if is_told else FinishReason.STOP)
    assert short.response.usage.completion_tokens == 3


def test_a_stop_sequence_is_not_part_of_the_answer(generator):
    root = ChatNode.root("You are a helpful assistant.")
    if isinstance(generator.provider, ResponsesProvider):
        with pytest.raises(InvalidParameterError, match="stop"):
            run(root.chat(QUESTION, generator, GREEDY.with_stop([" Paris"])))
        return
    stopped = run(root.chat(QUESTION, generator, GREEDY.with_stop([" Paris"])))
    assert stopped.text == "The capital of France is"
    assert stopped.response.finish_reason is FinishReason.STOP


def test_a_stream_left_early_frees_the_server_for_the_next_call(generator):
    root = ChatNode.root("You are a helpful assistant.")
    endless = CompletionParameters(temperature=0, max_tokens=2000)
    for _ in iterate(root.chat_streaming("Tell me a long story.", generator, endless)):
        break
    assert "Paris" in run(root.chat(QUESTION, generator, GREEDY)).text


def test_a_conversation_that_does_not_fit_is_a_context_length_error(generator):
    root = ChatNode.root("You are a helpful assistant.")
    with pytest.raises(ContextLengthError, match="shorten"):
        run(root.chat("word " * 6000, generator, GREEDY))
    assert root.children() == []


@pytest.fixture
def base(local_server):
    """The same model as a base model, which continues a text."""
    generator = GeneratorInfo.custom("real", local_server.base_url, "m", wire="completions")
    return generator.with_api_key(local_server.key)


def test_a_base_model_continues_a_text_from_answer_to_answer(base):
    tale = ChatNode.root("Once upon a time")
    first = run(tale.complete(base, GREEDY.with_max_tokens(8)))
    second = run(first.complete(base, GREEDY.with_max_tokens(8)))
    at_once = run(tale.complete(base, GREEDY.with_max_tokens(16)))
    assert at_once.text == first.text + second.text
    assert first.response.finish_reason is FinishReason.LENGTH
    assert first.response.usage.prompt_tokens == 4


def test_a_base_model_streams_its_text_with_the_probabilities_of_its_tokens(base):
    tale, params = ChatNode.root("Once upon a time"), GREEDY.replace(logprobs=2, max_tokens=8)
    whole = run(tale.complete(base, params))
    stream = tale.complete_streaming(base, params)
    text = "".join(chunk.delta for chunk in iterate(stream))
    assert text == whole.text == "".join(token.token for token in whole.response.logprobs)
    assert [token.token for token in stream.response.logprobs] == [
        token.token for token in whole.response.logprobs
    ]
    assert [len(token.top) for token in whole.response.logprobs] == [2] * 8
    assert stream.response.usage.completion_tokens == whole.response.usage.completion_tokens == 8


def test_a_template_and_a_stop_sequence_make_a_dialogue_of_a_base_model(base):
    def dialogue(messages):
        return "".join(f"{message.role}: {message.text}\n" for message in messages) + "assistant:"

    base = base.with_provider(CompletionsProvider(dialogue))
    ended = NodeCompletionParameters(params=GREEDY.with_stop(["\n"]), force_prepend=" It is ")
    asked = ChatNode.root("A talk about cities.").add_user(QUESTION)
    assert "Paris" in run(asked.complete(base, GREEDY.with_stop(["\n"]))).text
    assert run(asked.complete(base, ended)).text.startswith(" It is ")


def test_a_text_that_does_not_fit_a_base_model_is_a_context_length_error(base):
    with pytest.raises(ContextLengthError, match="shorten"):
        run(ChatNode.root("word " * 6000).complete(base, GREEDY))


def test_a_wrong_key_is_an_authentication_error(local_server):
    generator = GeneratorInfo.custom("real", local_server.base_url, "m").with_api_key("wrong-key")
    for wrong in (generator, generator.with_provider(AnthropicProvider())):
        with pytest.raises(AuthenticationError):
            run(ChatNode.root("s").chat("u", wrong))
