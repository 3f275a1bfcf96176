"""What a misuse or a failure is told, in whole sentences: what, where and what to do."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import warnings
from collections.abc import Callable

import pytest
from scripted_server import Server, event, hang, status, whole
from short_answers import said, scripted, streamed
from virtual_clock import run_virtually

from minillmlib import (
    ChatNode,
    CompletionContext,
    CompletionParameters,
    CostCallbackError,
    GeneratorInfo,
    IncompleteStreamError,
    InvalidParameterError,
    Limits,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    OpenAiProvider,
    RequestTimeoutError,
    TokenPrice,
    iterate,
    log_requests,
    observe,
    run,
)
from minillmlib.client.prepare import prepare
from minillmlib.testing import ScriptedReply
from minillmlib.transport.base import HttpRequest

ROOT = ChatNode.root("s")
NO_RETRY = NodeCompletionParameters(retry=0)
KEYED = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_api_key(
    "sk-0123456789abcdef"
)


def chat(*replies, params=None, generator=None, **changes):
    """A call to be made in the loop."""

    async def call():
        asked = (generator or scripted(*replies)).replace(**changes)
        return await ROOT.chat("u", asked, params)

    return call


def stream_of(*replies, params=None, **changes):
    async def call():
        return await ROOT.chat_streaming(
            "u", scripted(*replies).replace(**changes), params
        ).collect()

    return call


class Broken(OpenAiProvider):
    """A provider that raises in some of its methods, by mistake or on purpose."""

    def __init__(self, *names, error=None):
        self.error = error or ZeroDivisionError("oh")
        for name in names:
            setattr(self, name, self.fail)

    def fail(self, *_, **__):
        raise self.error


def broken(name: str):
    return chat(said("ok"), provider=Broken(name))


def misled(name: str, value: object):
    """A call whose provider returns a value that it may not."""
    provider = OpenAiProvider()
    setattr(provider, name, lambda *_, **__: value)
    return chat(said("ok"), provider=provider)


async def unread(read: Callable):
    return read(ROOT.chat_streaming("u", scripted(streamed("a"))))


async def read_twice():
    async with ROOT.chat_streaming("u", scripted(streamed("a", "b"))) as stream:
        await anext(stream)
        await anext(stream.partial_json())


async def read_by_two():
    stream = ROOT.chat_streaming("u", Server([hang]).generator())
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    try:
        await anext(stream)
    finally:
        first.cancel()
        await asyncio.wait([first])
        await stream.aclose()


async def read_on_after_a_failure():
    stream = ROOT.chat_streaming("u", scripted(streamed("a", "b", finish=None)))
    try:
        await stream.collect()
    except IncompleteStreamError:
        await anext(stream)


async def read_on_after_a_cancellation():
    stream = ROOT.chat_streaming("u", Server([hang]).generator())
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    await anext(stream)


async def nested():
    return run(asyncio.sleep(0))


def fail(*_):
    raise LookupError("mine")


async def closed_context():
    async with CompletionContext(scripted(said("ok")), None, fail) as context:
        await ROOT.chat_tracked("u", context)


def with_params(**fields):
    return NodeCompletionParameters(params=CompletionParameters(**fields))


class Late:
    async def get_token(self):
        await asyncio.sleep(1e6)


JSON_OF = NodeCompletionParameters(crash_on_refusal=True)
FORCED = NodeCompletionParameters(force_prepend="It")
PRICED = NodeCompletionParameters(token_price=TokenPrice(1, 2))
RAISED = {"retry": 1, "back_off_time": 0}
SHORT = {"limits": Limits(text_chars=3, stream_bytes=100)}

SENTENCES: list[tuple[Callable, str]] = [
    (lambda: run(42), "run() takes a coroutine, as in run(node.chat(...)), not int; read a stream "
     "with iterate()"),
    (lambda: iterate(None), "iterate() takes a stream, as from node.chat_streaming(...), not "
     "NoneType"),
    (lambda: run(nested()), "run() cannot be used inside a coroutine that run() runs; use await"),
    (lambda: ROOT.chat("u", KEYED).send(None), "no event loop of asyncio runs here, and minillmlib "
     "needs one. In plain code, call minillmlib.run(...). Under trio, call that in a thread, as in "
     "`await trio.to_thread.run_sync(run, node.chat(...))`, or run asyncio inside trio with "
     "trio-asyncio; under anyio, choose its backend asyncio"),
    (lambda: unread(lambda stream: stream.response), "the stream has not been read to its end"),
    (lambda: unread(lambda stream: stream.node), "the stream has not been read to its end"),
    (lambda: unread(pickle.dumps), "a stream cannot be pickled or copied: it belongs to one event "
     "loop; read it to its end and send its response, which can be"),
    (lambda: unread(copy.copy), "a stream cannot be pickled or copied: it belongs to one event "
     "loop; read it to its end and send its response, which can be"),
    (read_twice, "partial_json() needs every chunk of the stream; some were read in another way"),
    (read_by_two, "a stream is read by one task of one event loop at a time"),
    (read_on_after_a_failure, "the stream cannot be read on, and what was read is not the whole: it "
     "failed (IncompleteStreamError: the stream ended without the wire's end signal, so the answer "
     "may be cut; `partial` of this error holds the text so far)"),
    (read_on_after_a_cancellation, "the stream cannot be read on, and what was read is not the "
     "whole: its reader was cancelled or interrupted. To wait for a chunk only so long, set "
     "timeout_secs or progress_timeout_secs, or keep the task of `anext(stream)` and give it to "
     "asyncio.wait(..., timeout=...)"),
    (lambda: CompletionContext("openai", None, print), "a CompletionContext needs a GeneratorInfo, "
     "not str"),
    (lambda: CompletionContext(KEYED, None, None), "the callback of a CompletionContext must be a "
     "function"),
    (closed_context, "the callback of a CompletionContext failed (LookupError); the answers and "
     "their records are whole"),
    (lambda: log_requests(0), "level must be at least 1, not 0"),
    (lambda: log_requests(None), "level must be a whole number, not None"),
    (lambda: log_requests(max_chars=None), "max_chars must be a whole number, not None"),
    (lambda: log_requests(-1), "level must be at least 1, not -1"),
    (lambda: log_requests(1.5), "level must be a whole number, not 1.5"),
    (lambda: log_requests(max_chars=-1), "max_chars must be at least 0, not -1"),
    (lambda: log_requests(max_chars=0.5), "max_chars must be a whole number, not 0.5"),
    (lambda: prepare([], KEYED, None, stream=False), "there is no message to send"),
    (lambda: prepare([Message.user("u")], 7, None, stream=False), "the generator must be a "
     "GeneratorInfo, for example GeneratorInfo.openai(model), not int"),
    (chat(params=PRICED, generator=KEYED.or_else(KEYED)), "a token_price of the call would price "
     "the answers of several generators; give each its own with with_token_price"),
    *((chat(params=with_params(**fields)), "tool_choice and parallel_tool_calls need tools; add "
       "tools to the parameters, or use run_tools")
      for fields in ({"tool_choice": "auto"}, {"parallel_tool_calls": False})),
    (broken("build_request"), "the provider could not build the request (ZeroDivisionError: oh)"),
    (broken("request_url"), "the provider could not name the address (ZeroDivisionError: oh)"),
    (broken("auth_headers"), "the provider could not name its headers (ZeroDivisionError)"),
    (broken("finalize"), "the provider could not finalize the request (ZeroDivisionError)"),
    *((misled("request_url", url), f"the provider's address must look like https://host/path, not "
       f"{shown}")
      for url, shown in ((None, "NoneType"), ("", "''"), ("v1", "'v1'"), ("/v1?key=1", "'/v1'"),
                         ("http://[::1/v1?key=1", "'http://[::1/v1'"))),
    (misled("finalize", None), "finalize must return an HttpRequest, not NoneType"),
    (misled("finalize", HttpRequest(url="v1?key=1", headers=(), body=b"{}")), "the provider's "
     "address must look like https://host/path, not 'v1'"),
    (broken("parse_response"), "the provider could not read the server's answer "
     "(ZeroDivisionError: oh)"),
    *((stream_of(streamed("a"), provider=Broken(name)), "the provider could not prepare to read a "
       "stream (ZeroDivisionError: oh)") for name in ("chunk_reader", "emits_stream_usage")),
    (stream_of(streamed("a"), provider=Broken("chunk_reader", error=InvalidParameterError("no"))),
     "no"),
    (chat(ScriptedReply(status=199)), "the server answered with status 199 and no answer"),
    (chat(ScriptedReply(pieces=(b" \n",))), "the server answered with status 200 and no text"),
    (chat(ScriptedReply(pieces=(), status=204)), "the server answered with status 204 and no text"),
    (stream_of(streamed("a", "bcd"), **SHORT), "the answer holds more than 3 characters; raise "
     "text_chars of the generator's limits if that is right"),
    (stream_of(ScriptedReply.events(event({"content": "a"}), b"oh no")), "the stream ended without "
     "the wire's end signal, so the answer may be cut; `partial` of this error holds the text so "
     "far; beside its events it sent: oh no"),
    (stream_of(ScriptedReply.events(event({"content": "a"}), b'{"error": {"message": "gone"}}')),
     "the server reported an error inside a successful response: gone"),
    (stream_of(ScriptedReply.events(b"event: error\ndata: a word\n\n")),
     "the server reported an error inside a successful response: a word"),
    (stream_of(ScriptedReply.events(b'event: error\ndata: {"message": "a word"}\n\n')),
     "the server reported an error inside a successful response: a word"),
    (chat(said(""), params=NodeCompletionParameters(crash_on_empty_response=True)), "the model said "
     "nothing (finish reason stop); with a limit on tokens it may have spent all of them on "
     "reasoning"),
    (chat(said("No."), params=JSON_OF), "the answer cannot be read as JSON: there is no "
     "JSON in the text: 'No.'"),
    (chat(said("[]"), params=JSON_OF), "the answer holds no JSON but []"),
    (chat(params=NodeCompletionParameters(timeout_secs=3), generator=Server([hang]).generator()), "within 3 s the "
     "response did not complete; raise timeout_secs if the model may take longer"),
    (chat(params=NO_RETRY, generator=KEYED.with_token_provider(Late().get_token)), "the token provider is "
     "late: within 600 s the response did not complete; raise timeout_secs if the model may take "
     "longer"),
    (chat(status(500), status(503), params=NodeCompletionParameters(**RAISED)), "all 2 attempts "
     "failed; the last one: the server reported an error with status 503: {}"),
    (chat(generator=scripted(status(500)).or_else(scripted(status(503)))), "all 2 attempts failed; "
     "scripted:m: the server reported an error with status 500: {}; scripted:m: the server reported "
     "an error with status 503: {}"),
    (chat(generator=GeneratorInfo.openai("gpt-4o").with_api_key("k"), params=FORCED), "force_prepend "
     "cannot be used here: OpenAI begins a new answer after an assistant message"),
]  # fmt: skip


def sentence_of(misuse: Callable) -> str:
    try:
        result = misuse()
        if asyncio.iscoroutine(result):
            run_virtually(result)
    except (MiniLLMError, CostCallbackError) as error:
        if misuse.__name__ == "call":  # of a server, whose words may echo a secret
            assert error.__cause__ is not None or error.__context__ is None
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_misuse_and_a_failure_are_told_in_these_words():
    found = [sentence_of(misuse) for misuse, _ in SENTENCES]
    assert found == [sentence for _, sentence in SENTENCES]


def test_a_request_that_waits_for_its_token_was_not_sent():
    call = chat(generator=KEYED.with_token_provider(Late().get_token), params=NO_RETRY)
    with pytest.raises(RequestTimeoutError) as raised:
        run_virtually(call())
    assert (raised.value.was_sent, raised.value.clock) == (False, "total")


def test_what_stands_for_a_thing_says_what_it_is():
    stream = ROOT.chat_streaming("u", scripted(streamed("a")))
    assert repr(stream) == "<StreamingCompletion of m: new>"

    async def main() -> None:
        await anext(stream)
        assert repr(stream) == "<StreamingCompletion of m: reading>"
        await stream.collect()

    run(main())
    assert repr(stream) == "<StreamingCompletion of m: over>"
    context = CompletionContext(KEYED, None, print)
    assert repr(context) == f"CompletionContext({KEYED!r})"
    with observe(print) as here, observe(print, everywhere=True) as everywhere:
        assert repr(here) == "<Observation of a context>"
        assert repr(everywhere) == "<Observation of everything>"


def test_a_dropped_stream_warns_where_it_is_dropped():
    async def main() -> None:
        stream = ROOT.chat_streaming("u", scripted(streamed("a", "b")))
        await anext(stream)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del stream
        (warning,) = [each for each in caught if each.category is ResourceWarning]
        assert warning.filename == __file__
        assert str(warning.message) == (
            "a completion stream was dropped before its end; use `async with` to leave early"
        )

    asyncio.run(main())


CORRECTION = """\
The answer does not fit int: Expected `int`, got `str` - at `$.answer`

Answer again, with the whole JSON and nothing else. It must fit this JSON schema:
{"type":"object","properties":{"answer":{"type":"integer"}},"required":["answer"],\
"additionalProperties":false}"""


def test_a_correction_says_what_is_wrong_and_which_schema_the_answer_must_fit():
    server = Server([whole('{"answer": "x"}'), whole('{"answer": 7}')])
    asked = NodeCompletionParameters(retry=1).expecting(int)

    async def main() -> int:
        return (await ROOT.chat("u", server.generator(), asked)).parsed

    assert run_virtually(main()) == 7
    first, second = (json.loads(request.body)["messages"] for request in server.requests)
    assert second[: len(first)] == first
    assert second[len(first) :] == [
        {"role": "assistant", "content": '{"answer": "x"}'},
        {"role": "user", "content": CORRECTION},
    ]
