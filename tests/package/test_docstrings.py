"""The examples in docstrings show what happens: each is run against a server that says "Paris."."""

from __future__ import annotations

import doctest
import inspect
import os
from datetime import date

import msgspec
import pytest
from short_answers import said, streamed

import minillmlib
import minillmlib.testing
from minillmlib.testing import ScriptedTransport, use_transport

DOORS = (minillmlib, minillmlib.testing)
USAGE = {"prompt_tokens": 10, "completion_tokens": 1}

# What a reader looks up first must have an example.
IMPORTANT = [
    "Budget",
    "ChatNode",
    "ChatNode.chat",
    "ChatNode.chat_streaming",
    "ChatNode.complete",
    "CompletionContext",
    "CompletionParameters",
    "CostInfo",
    "CostTotal",
    "GeneratorInfo",
    "GeneratorInfo.custom",
    "GeneratorInfo.from_spec",
    "GeneratorInfo.preset",
    "Message",
    "MiniLLMError",
    "NodeCompletionParameters",
    "NodeCompletionParameters.expecting",
    "ScriptedTransport",
    "Secret",
    "StreamingCompletion",
    "TokenPrice",
    "ToolCall.bind",
    "ToolChoice",
    "ToolDefinition.from_function",
    "ArgumentStream",
    "check_provider",
    "estimate_cost",
    "iterate",
    "loads",
    "repair",
    "repair_json",
    "run",
    "use_transport",
]


class Server:
    """Answers every request, also for JSON and for a stream."""

    async def send(self, request):
        body = msgspec.json.decode(request.body)
        text = '{"answer": 8}' if "response_format" in body else "Paris."
        reply = streamed("Par", "is.") if body.get("stream") else said(text)
        if not body.get("stream"):
            answer = msgspec.json.decode(reply.pieces[0]) | {"usage": USAGE}
            reply = type(reply).json(answer)
        return await ScriptedTransport([reply]).send(request)


NAMES = {"date": date, **{name: getattr(door, name) for door in DOORS for name in door.__all__}}


def documented():
    for door in DOORS:
        for name in door.__all__:
            value = getattr(door, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield name, value.__doc__
            if inspect.isclass(value):
                for member_name, member in vars(value).items():
                    function = getattr(member, "__func__", member)
                    if inspect.isfunction(function) or isinstance(function, property):
                        yield f"{name}.{member_name}", function.__doc__


DOCSTRINGS = dict(documented())
EXAMPLES = sorted(name for name, text in DOCSTRINGS.items() if text and ">>>" in text)


def test_the_important_docstrings_have_an_example():
    assert set(IMPORTANT) <= set(EXAMPLES)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_does_as_it_says(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.endswith("_BASE_URL"):
            monkeypatch.delenv(variable)
    for vendor in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{vendor}_API_KEY", "key-of-the-docs")
    shown: list[str] = []
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    test = doctest.DocTestParser().get_doctest(DOCSTRINGS[name], dict(NAMES), name, None, None)
    with use_transport(Server()):
        doctest.DocTestRunner(optionflags=options).run(test, out=shown.append)
    assert not shown, "".join(shown)
