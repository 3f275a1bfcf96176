"""The tools of MCP servers, through a client of the official package `mcp`."""

import base64
import re
from collections.abc import Awaitable
from typing import Protocol

import msgspec

from minillmlib.errors import MalformedResponseError, ToolError
from minillmlib.json_value import JsonObject, JsonValue, json_text, plural
from minillmlib.tree.tool_loop import Tool
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, VideoPart
from minillmlib.types.messages import ContentPart, TextPart
from minillmlib.types.tools import ToolCall, ToolDefinition
from minillmlib.types.values import StructT

__all__ = ["McpClient", "tools_from_mcp"]

MAX_PAGES = 100
MAX_NAME_CHARS = 64
MEDIA = (ImagePart, AudioPart, VideoPart, DocumentPart)


class _Model(Protocol):
    """A model of pydantic, which is what the package returns."""

    def model_dump(self, *, mode: str, by_alias: bool) -> JsonObject: ...


class McpClient(Protocol):
    """The part of an `mcp.Client` that `tools_from_mcp` uses."""

    def list_tools(self, *, cursor: str | None) -> Awaitable[_Model]:
        """List a page of the server's tools."""

    def call_tool(self, name: str, arguments: JsonObject) -> Awaitable[_Model]:
        """Call a tool of the server."""


async def tools_from_mcp(client: McpClient, *, prefix: str = "") -> list[Tool]:
    """Return the tools of an MCP server, for `run_tools`.

    `client` is an open `mcp.Client`, which you close (before version 2 of the package, an
    `mcp.ClientSession`). The names get the `prefix`, which tells servers apart, and `_` for
    characters that models' wires do not take. Results are text, or parts where they hold media;
    what the server reports as an error is a `ToolError`. The model reads the descriptions and
    results, so use only servers that you trust. Raises `MalformedResponseError` if the
    list of tools cannot be read. Needs `minillmlib[mcp]`.

        async with mcp.Client("https://tools.example/mcp") as client:
            answer = await node.run_tools(generator, await tools_from_mcp(client))
    """
    tools: list[Tool] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = _read(await client.list_tools(cursor=cursor), _Page, "list of tools")
        tools += [_as_tool(client, tool, prefix) for tool in page.tools]
        cursor = page.nextCursor
        if not cursor:
            return tools
    raise MalformedResponseError(f"the list of the MCP server has more than {MAX_PAGES} pages")


class _Definition(msgspec.Struct):
    name: str
    inputSchema: JsonObject  # noqa: N815 - the word of the wire, as below
    description: str | None = None


class _Page(msgspec.Struct):
    tools: list[_Definition]
    nextCursor: str | None = None  # noqa: N815


class _CallResult(msgspec.Struct):
    content: list[JsonObject]
    structuredContent: JsonValue = None  # noqa: N815
    isError: bool = False  # noqa: N815


def _read(model: _Model, kind: type[StructT], what: str) -> StructT:
    try:
        return msgspec.convert(model.model_dump(mode="json", by_alias=True), kind)
    except msgspec.ValidationError as error:
        raise MalformedResponseError(
            f"the MCP server sent a {what} that is none: {error}"
        ) from None


def _as_tool(client: McpClient, tool: _Definition, prefix: str) -> Tool:
    async def run(call: ToolCall) -> JsonValue:
        model = await client.call_tool(tool.name, call.arguments_json())
        result = _read(model, _CallResult, "result")
        parts = [_part(block) for block in result.content]
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if result.isError:
            raise ToolError("\n".join(texts) or f"{tool.name} failed")
        if len(texts) < len(parts):
            return parts
        return "\n".join(texts) if texts else result.structuredContent

    name = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix + tool.name)[:MAX_NAME_CHARS]
    definition = ToolDefinition(
        name=name, description=tool.description, parameters=tool.inputSchema
    )
    return Tool(definition=definition, run=run)


def _part(block: JsonObject) -> ContentPart:
    """Return a block of a result: text, media, the JSON of a link, or a note in place of others."""
    match block:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "resource", "resource": {"text": str(text)}}:
            return TextPart(text)
        case {"type": "resource_link"}:
            return TextPart(json_text({key: block[key] for key in block if block[key] is not None}))
    source = block.get("resource", block)
    match source:
        case {"data": str(data), "mimeType": str(name)} | {
            "blob": str(data),
            "mimeType": str(name),
        }:
            for kind in MEDIA:
                if name.startswith(kind.types):
                    return kind(data=base64.b64decode(data), media_type=name)
            size = f"{len(data)} {plural('character', len(data))}"
            return TextPart(f"[{size} of {name} in base64, not shown]")
    return TextPart(f"[a block of the type {block.get('type')!r:.40}, not shown]")
