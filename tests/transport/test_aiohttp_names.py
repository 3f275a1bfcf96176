"""aiohttp's non-public names that the engine uses, in one list, as they are in the installed version.

Fails when a new version of aiohttp renames one of them or calls it in another way, and when the
engine begins to use one that is not listed here. `make newest` runs it on what is released next.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections import deque
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from server import serving
from yarl import URL

from minillmlib import ChatNode, GeneratorInfo
from minillmlib.transport import aiohttp as engine

# A method that is overridden or called, with its parameters; those after `*` go by keyword.
METHODS = {
    ResponseHandler: {
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "abort": [],
        "is_connected": [],
    },
    aiohttp.TCPConnector: {
        "connect": ["req", "traces", "timeout"],
        "_create_connection": ["req", "traces", "timeout"],
        "_release": ["key", "protocol", "*", "should_close"],
        "_close": ["*", "abort_ssl"],
    },
    aiohttp.ClientRequest: {
        "update_headers": ["headers"],
        "update_auto_headers": ["skip_auto_headers"],
        "update_expect_continue": ["expect"],
        "update_body_from_data": ["body", "_stacklevel"],
        "send": ["conn"],
        "_on_chunk_request_sent": ["method", "url", "chunk"],
    },
    aiohttp.StreamReader: {
        "is_eof": [],
        "at_eof": [],
        "exception": [],
        "set_exception": ["exc", "exc_cause"],
        "read_nowait": ["n"],
        "readany": [],
    },
    aiohttp.ClientSession: {"detach": []},
    aiohttp.ClientResponse: {"start": ["connection"], "close": []},
    Connection: {"close": []},
}
# What is called with these keywords among many.
KEYWORDS = {
    aiohttp.ClientSession._request: {
        "headers", "data", "allow_redirects", "max_line_size", "max_field_size", "proxy",
        "proxy_headers",
    },
    aiohttp.ClientRequest.__init__: {"headers", "data", "loop", "session"},
    ResponseHandler.set_response_params: {
        "read_until_eof", "auto_decompress", "max_line_size", "max_field_size",
        *engine._MAX_HEADERS,
    },
}  # fmt: skip
PROPERTIES = {
    aiohttp.ClientSession: ["connector", "timeout", "trace_configs"],
    ResponseHandler: ["should_close", "writing_paused"],
    Connection: ["protocol", "transport"],
    aiohttp.ClientResponse: ["connection", "closed"],
}
# What instances have, with its type; seen on a connection in use by the last tests below.
ATTRIBUTES = ["_factory", "_loop", "_conns", "_acquired", "_traces", "_closed"]
# Of asyncio, only to close what is open when its loop has ended; looked for with `getattr`.
OF_ASYNCIO = ["_ssl_protocol", "_transport", "_call_connection_lost"]
MODULES = {
    "aiohttp.client_proto": {"ResponseHandler"},
    "aiohttp.http_exceptions": {"LineTooLong"},
    "aiohttp.client_reqrep": {"ConnectionKey"},
    "aiohttp.connector": {"Connection"},
    "aiohttp.tracing": {"Trace"},
}
TREE = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
SUBCLASSES = (engine._Protocol, engine._Connector, engine._Request)


def parameters_of(method) -> list[str]:
    """The names of a method's parameters, without `self`."""
    names = []
    for name, parameter in list(inspect.signature(method).parameters.items())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        names.append(name)
    return names


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in METHODS.items() for name in names]
)
def test_a_method_is_there_and_is_called_as_before(owner, name):
    method = inspect.getattr_static(owner, name)
    assert parameters_of(method) == METHODS[owner][name]


@pytest.mark.parametrize(("function", "keywords"), KEYWORDS.items())
def test_our_keywords_are_known(function, keywords):
    assert set(parameters_of(function)) >= keywords


def test_a_request_takes_a_method_and_an_address():
    assert parameters_of(aiohttp.ClientSession._request)[:3] == ["method", "str_or_url", "*"]
    assert parameters_of(aiohttp.ClientRequest.__init__)[:3] == ["method", "url", "*"]


def test_the_method_of_the_session_is_known_to_be_aiohttps_own():
    assert engine._OWN_REQUEST is aiohttp.ClientSession._request


@pytest.mark.parametrize(("owner", "names"), PROPERTIES.items())
def test_a_property_is_there(owner, names):
    assert all(inspect.isdatadescriptor(inspect.getattr_static(owner, name)) for name in names)


@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_every_method_that_we_override_is_listed(subclass):
    base = subclass.__mro__[1]
    ours = {
        name for name, value in vars(subclass).items()
        if inspect.isfunction(value) and not name.startswith("__") and hasattr(base, name)
    }  # fmt: skip
    assert ours <= METHODS[base].keys()
    for name in ours:
        expected = [one for one in METHODS[base][name] if not one.startswith("_stack")]
        given = [one for one in parameters_of(vars(subclass)[name]) if not one.startswith("_stack")]
        assert given == expected


def test_every_other_private_name_in_the_engine_is_its_own():
    methods = {name for names in METHODS.values() for name in names} | {"_request"}
    theirs = methods | {*ATTRIBUTES, *OF_ASYNCIO}
    own = set()
    bases = {one.__name__: inspect.getsource(one.__mro__[1]) for one in SUBCLASSES}
    for node in TREE.body:
        base = bases.get(node.name, "") if isinstance(node, ast.ClassDef) else ""
        for inner in ast.walk(node) if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not base:
                own.add(inner.name)
            elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                own |= set() if f".{inner.attr}" in base else {inner.attr}
    used = {node.attr for node in ast.walk(TREE) if isinstance(node, ast.Attribute)}
    looked_for = {
        node.args[1].value for node in ast.walk(TREE)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr"
    }  # fmt: skip
    looked_for |= {
        node.slice.value for node in ast.walk(TREE)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }  # fmt: skip
    private = {name for name in used | looked_for if name.startswith("_") and name[1] != "_"}
    assert private - theirs - own == set()
    unused = {name for name in theirs if name.startswith("_")} - private
    assert unused - {"_create_connection", "_release"} == set(), "no longer used"


def test_every_module_that_aiohttp_does_not_document_is_listed():
    imports = [node for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)]
    found = {
        node.module: {alias.name for alias in node.names}
        for node in imports
        if node.module.startswith("aiohttp.")
    }
    assert found == MODULES


async def test_a_connection_in_use_is_kept_where_the_engine_looks():
    """On one real request: the attributes of instances, and what the containers hold."""
    seen = []

    async def answer(exchange):
        (pool,) = generator.transport._pools.values()
        seen.append((len(pool.session.connector._acquired), pool.session.connector))
        await exchange.answer(b'{"choices": [{"message": {"content": "ok"}}]}')

    async with serving(answer) as (url, _):
        generator = GeneratorInfo.custom("names", url, "m")
        generator = generator.with_transport(engine.AiohttpTransport())
        await ChatNode.root("s").chat("u", generator)
        ((in_use, connector),) = seen
        assert in_use == 1
        assert not connector._acquired
        assert connector._loop is asyncio.get_running_loop()
        (kept,) = connector._conns.values()
        assert isinstance(kept, deque)
        ((protocol, *_),) = kept
        assert type(protocol) is engine._Protocol
        assert protocol.transport.get_extra_info("socket") is not None
        await generator.transport._pools.popitem()[1].closer.aclose()


async def test_a_plain_request_is_made_and_answered_as_by_the_session_itself(monkeypatch):
    """What the engine does in place of the session, and what it leaves to the defaults."""
    made, real = [], (aiohttp.ClientRequest.__init__, ResponseHandler.set_response_params)

    def recorder_of(function):
        def record(owner, *args, **options):
            function(owner, *args, **options)
            bound = inspect.signature(function).bind(owner, *args, **options)
            bound.apply_defaults()
            made[-1].append({**bound.arguments, "self": None})

        return record

    async def answer(exchange):
        made[-1].append(exchange.headers)
        await exchange.answer(b'{"choices": [{"message": {"content": "ok"}}]}')

    async def pass_on(session, *args, **options):
        return await engine._OWN_REQUEST(session, *args, **options)

    monkeypatch.setattr(aiohttp.ClientRequest, "__init__", recorder_of(real[0]))
    monkeypatch.setattr(ResponseHandler, "set_response_params", recorder_of(real[1]))
    async with serving(answer) as (url, _):
        transport = engine.AiohttpTransport()
        generator = GeneratorInfo.custom("names", url, "m").with_transport(transport)
        for method in (engine._OWN_REQUEST, pass_on):
            monkeypatch.setattr(aiohttp.ClientSession, "_request", method)
            made.append([])
            await ChatNode.root("s").chat("u", generator)
        await transport._pools.popitem()[1].closer.aclose()
    for one in made:
        assert len(one) == 3
        for options in one[:2]:
            options["timer"] = None  # there is no timeout of its own, and so it does nothing
    ours, theirs = made
    # Nothing, told in two ways.
    of_nothing = {"params": None, "cookies": None, "traces": None, "response_class": None}
    assert ours[0] | of_nothing == theirs[0] | of_nothing
    assert not any(theirs[0][name] for name in ("params", "cookies", "traces"))
    assert theirs[0]["response_class"] is aiohttp.ClientResponse
    assert ours[1:] == theirs[1:]


async def test_a_request_has_the_traces_of_its_session():
    async with aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        address = URL("http://127.0.0.1/")
        request = engine._Request("POST", address, loop=loop, session=session, data=b"x")
        assert list(request._traces) == []
        assert request.own_body == b"x"


def test_the_error_of_a_connection_that_ended_before_an_answer_holds_text():
    assert isinstance(aiohttp.ServerDisconnectedError().message, str)
