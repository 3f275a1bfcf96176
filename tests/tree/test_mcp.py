"""Tools of MCP servers: a client by hand that sends any JSON, and the official package."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import pytest
from tool_scripts import asked, call, flags, model, says, texts

from minillmlib import (
    AudioPart,
    DocumentPart,
    ImagePart,
    InvalidParameterError,
    MalformedResponseError,
    TextPart,
    ToolCall,
    ToolError,
    ToolLoop,
    TurnLimitError,
    VideoPart,
)
from minillmlib.mcp import tools_from_mcp

PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Model:
    def __init__(self, value):
        self.value = value

    def model_dump(self, *, mode, by_alias):
        assert (mode, by_alias) == ("json", True)
        return self.value


class Client:
    """What the package's client does, with pages and results as they stand on the wire."""

    def __init__(self, *pages, **results):
        self.pages, self.results, self.called = pages, results, []

    async def list_tools(self, *, cursor=None):
        return Model(self.pages[int(cursor or 0)])

    async def call_tool(self, name, arguments=None):
        self.called.append((name, arguments))
        result = self.results["result"]
        if isinstance(result, Exception):
            raise result
        return Model(result)


def page(*names, cursor=None):
    tools = [
        {"name": name, "title": None, "description": f"Do {name}.", "inputSchema": SCHEMA}
        for name in names
    ]
    return {"_meta": None, "nextCursor": cursor, "tools": tools}


def content(*blocks, **more):
    return {"_meta": None, "content": list(blocks), "isError": False} | more


def text(value):
    return {"type": "text", "text": value, "annotations": None}


async def answer_of(result, **settings):
    tools = await tools_from_mcp(Client(page("weather"), result=result))
    generator = model(says(None, call(1, "weather", city="Oslo")), says("ok"))
    return await asked().run_tools(generator, tools, loop=ToolLoop(**settings))


async def test_the_tools_of_all_pages_have_their_schemas_and_names_that_models_take():
    client = Client(page("weather", "files/read.all", cursor="1"), page("x" * 100), result=None)
    tools = await tools_from_mcp(client, prefix="oslo.")
    names = [tool.definition.name for tool in tools]
    assert names == ["oslo_weather", "oslo_files_read_all", "oslo_" + "x" * 59]
    assert tools[0].definition.description == "Do weather."
    assert tools[0].definition.parameters == SCHEMA


async def test_a_tool_is_called_by_its_own_name_with_the_arguments_of_the_model():
    client = Client(page("get.weather"), result=content(text("fine")))
    generator = model(says(None, call(1, "get_weather", city="Oslo")), says("ok"))
    answer = await asked().run_tools(generator, await tools_from_mcp(client))
    assert client.called == [("get.weather", {"city": "Oslo"})]
    assert texts(answer) == [None, "fine", "ok"]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (content(text("a"), text("b")), "a\nb"),
        (content(), None),
        (content(structuredContent={"a": [1]}), '{"a":[1]}'),
        (content(text('{"a": 1}'), structuredContent={"a": 1}), '{"a": 1}'),
        (content({"type": "resource", "resource": {"uri": "f:a", "text": "in it"}}), "in it"),
        (
            content({"type": "resource_link", "uri": "f:a", "name": "a", "title": None}),
            '{"type":"resource_link","uri":"f:a","name":"a"}',
        ),
        (
            content(
                text("a"),
                {"type": "resource", "resource": {"blob": "UEs=", "mimeType": "application/zip"}},
            ),
            "a\n[4 characters of application/zip in base64, not shown]",
        ),
        (content({"type": "hologram", "x": 1}), "[a block of the type 'hologram', not shown]"),
    ],
)
async def test_results_are_told_as_text(result, told):
    answer = await answer_of(result)
    assert texts(answer)[1] == told
    assert flags(answer) == [False]


@pytest.mark.parametrize("is_resource", [True, False])
async def test_media_are_parts(is_resource):
    data = base64.b64encode(PNG).decode()
    block = {"type": "image", "data": data, "mimeType": "image/png"}
    if is_resource:
        block = {"type": "resource", "resource": {"blob": data, "mimeType": "image/png"}}
    result = content(text("see"), block)
    tools = await tools_from_mcp(Client(page("weather"), result=result))
    node = asked()
    with pytest.raises(TurnLimitError):  # the wire of the script takes no media in results
        await node.run_tools(
            model(says(None, call(1, "weather", city="Oslo"))), tools, loop=ToolLoop(max_turns=1)
        )
    said, image = next(node.leaves()).message.content
    assert said.text == "see"
    assert image == ImagePart(data=PNG, media_type="image/png")


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (content(text("no such city"), isError=True), "no such city"),
        (content(isError=True), "weather failed"),
        (RuntimeError("connection closed"), "RuntimeError: connection closed"),
        ({"content": 3}, "MalformedResponseError: the MCP server sent a result that is none"),
        (content({"type": "image", "data": "!", "mimeType": "image/png"}), "Error"),
    ],
)
async def test_errors_are_told_to_the_model(result, told):
    answer = await answer_of(result)
    assert told in texts(answer)[1]
    assert flags(answer) == [True]


@pytest.mark.parametrize(
    ("pages", "kind", "match"),
    [
        ([{"tools": [{"name": 3}]}], MalformedResponseError, "a list of tools that is none"),
        ([page(cursor="0")], MalformedResponseError, "pages"),
        (
            [{"tools": [{"name": "a", "inputSchema": {"type": "array"}}]}],
            InvalidParameterError,
            "type object",
        ),
    ],
)
async def test_a_list_that_is_none_is_refused(pages, kind, match):
    with pytest.raises(kind, match=match):
        await tools_from_mcp(Client(*pages))


class Endless:
    """A server whose list has this many pages."""

    def __init__(self, count):
        self.count, self.cursors = count, []

    async def list_tools(self, *, cursor):
        self.cursors.append(cursor)
        number = len(self.cursors)
        return Model(page(f"t{number}", cursor=str(number) if number < self.count else None))


async def test_a_list_may_have_a_hundred_pages_and_no_more():
    server = Endless(100)
    tools = await tools_from_mcp(server)
    assert [tool.definition.name for tool in tools] == [f"t{n}" for n in range(1, 101)]
    assert server.cursors == [None, *map(str, range(1, 100))]
    with pytest.raises(MalformedResponseError) as caught:
        await tools_from_mcp(Endless(101))
    assert str(caught.value) == "the list of the MCP server has more than 100 pages"


@pytest.mark.parametrize(
    ("name", "prefix", "taken"),
    [
        ("weather", "", "weather"), ("a.b/c d\u00e9", "", "a_b_c_d_"), ("A-z_09", "", "A-z_09"),
        ("x" * 64, "", "x" * 64), ("x" * 65, "", "x" * 64), ("x" * 63, "p.", "p_" + "x" * 62),
    ],
)  # fmt: skip
async def test_a_name_becomes_one_that_models_take(name, prefix, taken):
    (tool,) = await tools_from_mcp(Client(page(name)), prefix=prefix)
    assert tool.definition.name == taken
    assert tool.definition.description == f"Do {name}."


def called(result, name="we.ather"):
    """What the function of the tool returns for a result."""
    client = Client(page(name), result=result)

    async def main():
        (tool,) = await tools_from_mcp(client)
        asked_for = ToolCall(id="c", name="we_ather", arguments='{"city": "Oslo"}')
        returned = await tool.run(asked_for)
        assert client.called == [(name, {"city": "Oslo"})]
        return returned

    return asyncio.run(main())


def media(kind, name, data=PNG):
    return {"type": kind, "data": base64.b64encode(data).decode(), "mimeType": name}


def resource(name, **more):
    return {"type": "resource", "resource": {"uri": "f:a", "mimeType": name, **more}}


BLOB = base64.b64encode(b"%PDF-1").decode()


@pytest.mark.parametrize(
    ("blocks", "returned"),
    [
        ([text("a")], "a"),
        ([text("a"), text("b"), text("c")], "a\nb\nc"),
        ([text("")], ""),
        ([media("image", "image/png")], [ImagePart(data=PNG, media_type="image/png")]),
        ([media("audio", "audio/wav", b"RIFF")], [AudioPart(data=b"RIFF", media_type="audio/wav")]),
        ([media("video", "video/mp4", b"film")], [VideoPart(data=b"film", media_type="video/mp4")]),
        ([resource("application/pdf", blob=BLOB), text("a")],
         [DocumentPart(data=b"%PDF-1", media_type="application/pdf"), TextPart("a")]),
        ([text("a"), media("image", "image/png"), text("b"), media("image", "image/png")],
         [TextPart("a"), ImagePart(data=PNG, media_type="image/png"), TextPart("b"),
          ImagePart(data=PNG, media_type="image/png")]),
        ([resource("text/plain", text="in it")], "in it"),
        ([resource("application/zip", blob="UEs=")],
         "[4 characters of application/zip in base64, not shown]"),
        ([media("thing", "application/x-thing", b"abc")],
         "[4 characters of application/x-thing in base64, not shown]"),
        ([resource("text/plain")], "[a block of the type 'resource', not shown]"),
        ([{"type": "resource_link", "uri": "f:a", "name": None, "size": 0}],
         '{"type":"resource_link","uri":"f:a","size":0}'),
        ([{"type": "x" * 60}], f"[a block of the type '{'x' * 39}, not shown]"),
        ([{"more": 1}], "[a block of the type None, not shown]"),
        ([{"type": "text", "text": 5}], "[a block of the type 'text', not shown]"),
        ([{"type": "image", "data": "aGk="}], "[a block of the type 'image', not shown]"),
    ],
)  # fmt: skip
def test_the_blocks_of_a_result_are_text_or_parts(blocks, returned):
    assert called(content(*blocks)) == returned


def test_a_structure_is_the_result_where_there_is_no_text():
    assert called(content(structuredContent={"a": 1})) == {"a": 1}
    assert called(content(text(""), structuredContent={"a": 1})) == ""
    assert called(content(text("b"), structuredContent={"a": 1})) == "b"
    assert called({"content": []}) is None
    image = ImagePart(data=PNG, media_type="image/png")
    assert called(content(media("image", "image/png"), structuredContent=[1])) == [image]


@pytest.mark.parametrize(
    ("result", "kind", "told"),
    [
        (content(text("a"), text("b"), isError=True), ToolError, "a\nb"),
        (content(text("a"), media("image", "image/png"), isError=True), ToolError, "a"),
        (content(isError=True), ToolError, "we.ather failed"),
        (content(text(""), isError=True), ToolError, "we.ather failed"),
        ({"content": 3}, MalformedResponseError,
         "the MCP server sent a result that is none: Expected `array`, got `int` - at `$.content`"),
    ],
)  # fmt: skip
def test_an_error_of_a_tool_has_its_texts(result, kind, told):
    with pytest.raises(kind) as caught:
        called(result)
    assert str(caught.value) == told


@contextlib.asynccontextmanager
async def official_client():
    """A server of the official package, in memory, and its client."""
    mcp = pytest.importorskip("mcp", reason="`make newest` installs mcp; it brings 26 packages")
    if hasattr(mcp, "Client"):
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.utilities.types import Image
    else:
        from mcp.server.fastmcp import FastMCP as MCPServer
        from mcp.server.fastmcp import Image
    server = MCPServer("weather")

    @server.tool()
    def weather(city: str, days: int = 1) -> str:
        """Tell the weather."""
        if city == "Atlantis":
            raise LookupError("no such city")
        return f"{city}: rain for {days} days"

    @server.tool(name="map.draw", structured_output=False)
    def draw(city: str):
        """Draw a map."""
        return Image(data=PNG, format="png")

    @server.tool()
    def levels() -> dict[str, float]:
        """List the levels."""
        return {"Bergen": 1.5}

    if hasattr(mcp, "Client"):
        async with mcp.Client(server) as client:
            yield client
    else:
        from mcp.shared.memory import create_connected_server_and_client_session

        async with create_connected_server_and_client_session(server) as client:
            yield client


async def test_a_server_of_the_official_package_is_an_agents_tools():
    async with official_client() as client:
        tools = await tools_from_mcp(client)
        weather, draw, _ = (tool.definition for tool in tools)
        assert (weather.name, weather.description) == ("weather", "Tell the weather.")
        assert weather.parameters["required"] == ["city"]
        assert draw.name == "map_draw"
        calls = [
            call(1, "weather", city="Oslo", days=3), call(2, "weather", city="Atlantis"),
            call(3, "weather", days="x"), call(4, "levels"),
        ]  # fmt: skip
        answer = await asked().run_tools(model(says(None, *calls), says("ok")), tools)
        assert flags(answer) == [False, True, True, False]
        good, bad, wrong, levels = texts(answer)[1:-1]
        assert good == "Oslo: rain for 3 days"
        assert "Error executing tool weather" in bad
        assert "city" in wrong
        assert "1.5" in levels
        node = asked()
        with pytest.raises(TurnLimitError):
            await node.run_tools(
                model(says(None, call(1, "map_draw", city="Oslo"))), tools,
                loop=ToolLoop(max_turns=1),
            )  # fmt: skip
        (image,) = next(node.leaves()).message.content
        assert image == ImagePart(data=PNG, media_type="image/png")
