"""The whole requests of all wires: address, headers and body, as they are sent and as they are shown."""

from __future__ import annotations

import pytest

from golden import GOLDEN
from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    GeneratorInfo,
    InvalidParameterError,
    Limits,
    Message,
    NodeCompletionParameters,
    Secret,
)
from minillmlib.client.http_request import build_api_request
from minillmlib.client.prepare import prepare
from minillmlib.protocols.batches.base import ApiRequest
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.version import __version__

PARAMS = CompletionParameters
CUSTOM = GeneratorInfo.custom("own", "https://own.example/v1", "m")
KEYED = CUSTOM.with_api_key("sk-own-0123456789")
CLAUDE = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
MEMBER = GeneratorInfo.claude_subscription("claude-haiku-4-5").with_bearer_token("bearer-0123")
TITLED = {"app_url": "https://tides.example", "app_title": "Tides"}
COMPLETIONS = KEYED.with_provider(CompletionsProvider())
WITH_PROXY = KEYED.replace(proxy="http://user:word@proxy.example:3128")

REQUESTS: dict[str, tuple] = {
    "without a key": (CUSTOM,),
    "with a key": (KEYED,),
    "openai": (GeneratorInfo.openai("gpt-4o-mini").with_api_key("k"),),
    "claude": (CLAUDE,),
    "a subscription": (MEMBER,),
    "a merged header": (MEMBER.with_header("Anthropic-Beta", "two").with_header("X-A", "1"),),
    "a merged secret": (MEMBER.with_header("Anthropic-Beta", Secret("two")),),
    "a header that is not merged": (CLAUDE.with_header("Anthropic-Version", "2030-01-01"),),
    "openrouter": (GeneratorInfo.openrouter("x/y").with_api_key("k"),),
    "openrouter with a title": (GeneratorInfo.openrouter("x/y").with_api_key("k").replace(**TITLED),),
    "openrouter with an address": (
        GeneratorInfo.openrouter("x/y").with_api_key("k").replace(app_url=TITLED["app_url"]),
    ),
    "a title for nobody": (KEYED.replace(**TITLED),),
    "headers of one's own": (
        KEYED.with_header("accept", "a/b").with_header("USER-AGENT", "me").with_header("X-B", "2"),
    ),
    "a secret header": (CUSTOM.with_header("X-Secret", Secret("a secret")),),
    "the key by a header of one's own": (KEYED.with_header("authorization", "Basic eA=="),),
    "a forced beginning": (KEYED, NodeCompletionParameters(force_prepend="It ")),
    "parameters": (KEYED, PARAMS(temperature=0.5, max_tokens=7, stop=["x"], extra={"a": [1]})),
    "without counts": (KEYED, NodeCompletionParameters(cost_tracking=False)),
    "a proxy": (WITH_PROXY,),
    "responses": (GeneratorInfo.openai("gpt-4o-mini", wire="responses").with_api_key("k"),),
    "completions": (COMPLETIONS,),
    "completions, a forced beginning": (COMPLETIONS, NodeCompletionParameters(force_prepend="It ")),
    "azure": (GeneratorInfo.azure("one", "https://one.openai.azure.com").with_api_key("k"),),
}  # fmt: skip


def lines_of(name: str, request) -> str:
    """A request as a block of lines; a secret stands between angle brackets."""
    headers = [
        f"{key}: <{value.expose_secret()}>" if isinstance(value, Secret) else f"{key}: {value}"
        for key, value in request.headers
    ]
    proxy = request.proxy
    proxy = f"<{proxy.expose_secret()}>" if isinstance(proxy, Secret) else proxy
    facts = f"{request.on_new_connection} {proxy} {request.max_header_bytes} {request.repeats}"
    lines = [f"# {name}", f"{request.method} {request.url}", *headers, request.body.decode(), facts]
    return "\n".join(lines).replace(__version__, "VERSION")


async def sent(generator: GeneratorInfo, params=None, *, is_streamed: bool = False):
    transport = ScriptedTransport([ScriptedReply.text("ok")])
    leaf = ChatNode.root("s").add_user("u")
    asked = generator.with_transport(transport)
    if is_streamed:
        await leaf.complete_streaming(asked, params).collect()
    else:
        await leaf.complete(asked, params)
    (request,) = transport.requests
    return request


async def test_each_wire_sends_its_address_its_headers_and_its_body():
    blocks = []
    for name, given in REQUESTS.items():
        blocks.append(lines_of(name, await sent(*given)))
        blocks.append(lines_of(f"{name}, streamed", await sent(*given, is_streamed=True)))
    assert "\n\n".join(blocks) + "\n" == (GOLDEN / "texts/whole_requests.txt").read_text()


async def test_the_preview_is_what_is_sent_without_its_secrets():
    for generator, *params in REQUESTS.values():
        request = await sent(generator, *params)
        preview = ChatNode.root("s").add_user("u").preview_request(generator, *params)
        assert (preview.method, preview.url, preview.data) == ("POST", request.url, request.body)
        assert preview.headers == {name: str(value) for name, value in request.headers}
        assert preview.body == request.json()


def test_the_preview_of_a_request_whose_credential_is_missing_has_the_other_headers():
    generator = GeneratorInfo.openai("gpt-4o-mini")
    preview = ChatNode.root("s").preview_request(generator)
    keyed = ChatNode.root("s").preview_request(generator.with_api_key("k"))
    assert keyed.headers == {**preview.headers, "Authorization": "[hidden]"}


REMOTE, LOCAL = "http://own.example/v1", "http://localhost:8000/v1"
UNENCRYPTED = (
    "the key would go to {} unencrypted; use https, or, if the network between is trusted, "
    "replace(allow_http=True)"
)


def at(base_url: str, **changes) -> GeneratorInfo:
    return KEYED.replace(base_url=base_url, **changes)


PLAIN = GeneratorInfo.custom("plain", REMOTE, "m")
SECRETLY = "http://user:word@proxy.example:3128"


@pytest.mark.parametrize(
    ("generator", "problem"),
    [
        (at(REMOTE), UNENCRYPTED.format("own.example")),
        (at(REMOTE, allow_http=True), None),
        (at("https://own.example/v1"), None),
        (at(LOCAL), None),
        (at(LOCAL, proxy="http://127.0.0.1:3128"), None),
        (at(LOCAL, proxy=None), None),
        (at(LOCAL, proxy="http://proxy.example:3128"),
         UNENCRYPTED.format("localhost:8000 through http://proxy.example:3128")),
        (at(LOCAL, proxy=SECRETLY),
         UNENCRYPTED.format("localhost:8000 through http://proxy.example:3128")),
        (at("https://own.example/v1", proxy=SECRETLY), None),
        (PLAIN, None),
        (PLAIN.with_header("X-Key", "secret"), UNENCRYPTED.format("own.example")),
    ],
)  # fmt: skip
async def test_a_key_goes_over_plain_http_only_within_the_machine(generator, problem):
    if problem is None:
        assert (await sent(generator)).url == f"{generator.base_url}/chat/completions"
        return
    for is_streamed in (False, True):
        with pytest.raises(InvalidParameterError) as raised:
            await sent(generator, is_streamed=is_streamed)
        assert str(raised.value) == problem


def api_request(generator: GeneratorInfo, **fields):
    call = prepare([Message.user("u")], generator, None, stream=False)
    return build_api_request(call, ApiRequest(**{"url": generator.base_url, **fields}))


def test_a_request_that_is_no_completion_has_the_headers_of_the_generator_and_its_own_kind():
    generator = WITH_PROXY.with_header("X-A", "1").replace(limits=Limits(header_bytes=5000))
    url = "https://own.example/v1/files"
    built = api_request(
        generator, url=url, method="PUT", body=b"x", content_type="a/b", accept="c/d"
    )
    assert lines_of("x", built.request).splitlines()[1:] == [
        f"PUT {url}", "Content-Type: a/b", "Accept: c/d", "Accept-Encoding: identity",
        "User-Agent: minillmlib/VERSION", "Authorization: <Bearer sk-own-0123456789>", "X-A: 1", "x",
        "False <http://user:word@proxy.example:3128> 5000 None",
    ]  # fmt: skip
    exposed = [secret.expose_secret() for secret in built.secrets]
    assert exposed[0] == "sk-own-0123456789"
    assert any("word" in each for each in exposed[1:])
    assert api_request(KEYED).secrets[1:] == ()


def test_a_request_that_is_no_completion_goes_nowhere_else_with_a_key():
    with pytest.raises(InvalidParameterError) as raised:
        api_request(KEYED, url="https://other.example/v1/files")
    assert str(raised.value) == (
        "the provider leads to https://other.example, but the credential is for "
        "https://own.example; set base_url to the server that is meant"
    )
    elsewhere = api_request(CUSTOM, url="https://other.example/v1/files").request
    assert (elsewhere.url, elsewhere.method) == ("https://other.example/v1/files", "GET")


@pytest.mark.parametrize(("key", "shown"), [("k" * 15, "k" * 15), ("k" * 16, "[hidden]")])
async def test_a_long_key_is_hidden_in_what_a_good_answer_says_of_itself(key, shown):
    choice = {"index": 0, "message": {"content": key}, "finish_reason": "stop"}
    reply = ScriptedReply.json({"id": key, "model": key, "choices": [choice], "x": [key]})
    generator = CUSTOM.with_api_key(key).with_transport(ScriptedTransport([reply]))
    response = (await ChatNode.root("s").chat("u", generator)).response
    assert (response.id, response.model, response.content) == (shown, shown, key)
    assert response.raw_response["x"] == [shown]
    assert response.attempts[0].response_id == shown
