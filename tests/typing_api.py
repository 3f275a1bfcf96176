"""Checked by mypy, never run: the public names have the types a caller relies on."""

from typing import Any, assert_type

from minillmlib import (
    ArgumentStream,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    CostEstimate,
    GeneratorInfo,
    Message,
    NodeCompletionParameters,
    StreamChunk,
    StreamingCompletion,
    TokenPrice,
    iterate,
    run,
)


async def conversation(generator: GeneratorInfo) -> None:
    root = ChatNode.root("Be brief.")
    answer = await root.chat("Hello", generator, CompletionParameters(max_tokens=5, stop=["x"]))
    assert_type(answer, ChatNode)
    assert_type(answer.text, str | None)
    assert_type(answer.parent, ChatNode | None)
    assert_type(answer.response, CompletionResponse)
    assert_type(answer.thread(), list[Message])
    async with answer.chat_streaming("More", generator) as stream:
        assert_type(stream, StreamingCompletion[ChatNode])
        async for chunk in stream:
            assert_type(chunk, StreamChunk)
    assert_type(stream.node, ChatNode)
    assert_type(ChatNode.from_messages([Message.user("Hi")]), tuple[ChatNode, ChatNode])


async def live(generator: GeneratorInfo) -> None:
    stream = ChatNode.root("Be brief.").chat_streaming("Hello", generator)
    async for value in stream.partial_json():
        assert_type(value, Any)
    args = ArgumentStream(strict=True)
    async for piece in args.field("text").delta():
        assert_type(piece, str)
    assert_type(await args.field("text").wait(), Any)
    assert_type(args.finish(), dict[str, Any])


def blocking(generator: GeneratorInfo) -> None:
    params = NodeCompletionParameters().with_params(CompletionParameters().with_max_tokens(5))
    assert_type(params, NodeCompletionParameters)
    answer = run(ChatNode.root("Be brief.").chat("Hello", generator, params))
    assert_type(answer, ChatNode)
    for chunk in iterate(answer.complete_streaming(generator)):
        assert_type(chunk, StreamChunk)
    assert_type(generator.with_token_price(TokenPrice(1.0, "5.0")), GeneratorInfo)
    assert_type(generator.with_published_price(), GeneratorInfo)
    assert_type(generator.estimate_cost(answer.thread(), params), CostEstimate)
