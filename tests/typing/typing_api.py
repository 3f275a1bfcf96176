"""Checked by mypy, never run: the public names have the types a caller relies on."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict, assert_type

from minillmlib import (
    ArgumentStream,
    ChatNode,
    CompletionContext,
    CompletionParameters,
    CompletionResponse,
    CostEstimate,
    GeneratorInfo,
    Message,
    NodeCompletionParameters,
    ParsedNode,
    StreamChunk,
    StreamingCompletion,
    TokenPrice,
    TrackedStream,
    TypedParameters,
    estimate_cost,
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
    assert_type(estimate_cost(answer.thread(), generator, params), CostEstimate)


@dataclass
class City:
    name: str


class Movie(TypedDict):
    title: str


class Color(Enum):
    RED = "red"


async def typed(generator: GeneratorInfo, context: CompletionContext, leaf: ChatNode) -> None:
    params = NodeCompletionParameters().expecting(City)
    assert_type(params, TypedParameters[City])
    assert_type(params.with_system_prompt("s").replace(retry=1), TypedParameters[City])
    assert_type(params.expecting(int), TypedParameters[int])
    assert_type(NodeCompletionParameters().expecting(list[str]), TypedParameters[list[str]])
    assert_type(NodeCompletionParameters().expecting(Movie), TypedParameters[Movie])
    assert_type(NodeCompletionParameters().expecting(Color), TypedParameters[Color])
    either: TypedParameters[int | str] = NodeCompletionParameters().expecting(int | str)
    assert_type((await leaf.complete(generator, either)).parsed, int | str)

    answer = await leaf.chat("Where?", generator, params)
    assert_type(answer, ParsedNode[City])
    assert_type(answer.parsed, City)
    assert_type(answer.parsed.name, str)
    assert_type((await leaf.complete(generator, params)).parsed, City)
    assert_type((await leaf.complete_tracked(context, params)).parsed, City)
    assert_type((await leaf.chat_tracked("Where?", context, params)).parsed, City)
    for stream in (
        leaf.complete_streaming(generator, params),
        leaf.chat_streaming("Where?", generator, params),
    ):
        assert_type(stream, StreamingCompletion[ParsedNode[City]])
        assert_type(stream.node.parsed, City)
    tracked = leaf.complete_streaming_tracked(context, params)
    assert_type(tracked, TrackedStream[ParsedNode[City]])
    assert_type((await tracked.collect()).parsed, City)


def typed_and_blocking(generator: GeneratorInfo, leaf: ChatNode) -> None:
    params = NodeCompletionParameters().expecting(list[City])
    assert_type(run(leaf.chat("Where?", generator, params)).parsed, list[City])
    plain = run(leaf.chat("Where?", generator, NodeCompletionParameters().expecting_json()))
    assert_type(plain, ChatNode)
