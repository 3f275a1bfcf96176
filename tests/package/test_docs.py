"""Every Python block of the README and the guide runs, in order, on a real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import minillmlib
from minillmlib.local import LocalTransport
from minillmlib.testing import ScriptedReply, ScriptedTransport, use_transport

TOP = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(TOP)) for path in [TOP / "README.md", *TOP.glob("docs/*.md")])
ECHO = {"output": {"text": "hello"}, "stop": "stop",
        "meta": {"id": "e-1", "model": "echo-1", "tokens_in": 4, "tokens_out": 2}}  # fmt: skip


class World:
    """Stands for all of the internet: the local model answers for every vendor."""

    def __init__(self):
        self.requests = []
        self._model = LocalTransport(None)

    async def send(self, request):
        self.requests.append(request)
        if request.url.startswith("https://my.host/"):
            return await ScriptedTransport([ScriptedReply.json(ECHO)]).send(request)
        path = request.url[request.url.index("/v1/") :]
        body = msgspec.json.decode(request.body)
        body["max_tokens"] = min(body.pop("max_completion_tokens", 32), 32)
        changed = msgspec.structs.replace(
            request, url="http://127.0.0.1:0" + path, body=msgspec.json.encode(body)
        )
        return await self._model.send(changed)


class Nowhere:
    """Stands for a machine without a network."""

    async def send(self, request):
        raise minillmlib.ConnectError(f"the first block of a page sends nothing to {request.url}")


def blocks_of(page: str) -> list[str]:
    text = (TOP / page).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_page(page: str, world: World, *, blocks: int | None = None) -> dict:
    namespace: dict = {"__name__": "__main__"}
    with use_transport(world):
        for number, block in enumerate(blocks_of(page)[:blocks], start=1):
            code = compile(block, f"{page}, block {number}", "exec", dont_inherit=True)
            exec(code, namespace)
    return namespace


@pytest.mark.long
def test_the_blocks_of_a_page_type_check(tmp_path):
    """The examples are what callers copy, so they must pass a type checker, too."""
    files = []
    for page in PAGES:
        file = tmp_path / (page.replace("/", "_").replace("-", "_").removesuffix(".md") + ".py")
        file.write_text("\n\n".join(blocks_of(page)))
        files.append(str(file))
    relaxed = ["--allow-untyped-defs", "--allow-untyped-calls"]  # adapters in the guide are short
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *relaxed, "--cache-dir", str(tmp_path / "cache"),
         "--config-file", "", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture
def _world_with_keys(monkeypatch, tmp_path):
    for name in ("OPENROUTER", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", "key-of-the-docs")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-the-docs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("_world_with_keys")
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, monkeypatch, capsys):
    if page != "README.md":  # the README shows what happens without this key
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-docs")
    run_page(page, World())
    shown = capsys.readouterr().out
    assert page != "README.md" or "OPENAI_API_KEY" in shown


@pytest.mark.parametrize("page", PAGES)
def test_the_first_block_of_a_page_runs_without_a_key(page, monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.endswith(("_KEY", "_TOKEN")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run_page(page, Nowhere(), blocks=1)


def test_every_block_in_another_language_than_python_says_which():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", (TOP / page).read_text(), re.MULTILINE)
        titled = {fence for fence in fences[::2] if re.fullmatch(r'(py|rust) title="\w+"', fence)}
        assert set(fences[::2]) <= {"python", "console", *titled}, page
        assert set(fences[1::2]) <= {""}, page


def test_the_blocks_of_other_libraries_are_valid_python():
    """They have a title and are not run: the other libraries are not installed."""
    for page in PAGES:
        for block in re.findall(
            r'^```py title="\w+"\n(.*?)^```$', (TOP / page).read_text(), re.MULTILINE | re.DOTALL
        ):
            compile(block, page, "exec")


@pytest.mark.usefixtures("_world_with_keys")
def test_the_echo_adapter_of_the_guide_speaks_its_own_wire():
    world = World()
    names = run_page("docs/custom-providers.md", world)
    (request,) = [sent for sent in world.requests if "my.host" in sent.url]
    headers = dict(request.expose_headers())
    assert request.url == "https://my.host/api/generate"
    assert headers["X-Echo-Key"] == "my-secret"
    assert "Authorization" not in headers
    assert msgspec.json.decode(request.body) == {
        "model": "echo-1", "prompt": "system: You are EchoAI.\nuser: hello",
        "settings": {"max_output_tokens": 256},
    }  # fmt: skip
    answer = names["answer"]
    assert (answer.text, answer.response.id) == ("hello", "e-1")
    assert str(answer.response.cost.cost) == "0.000014"

    generator = names["generator"].with_transport(World())
    stream = minillmlib.ChatNode.root("s").chat_streaming("u", generator)
    assert [chunk.delta for chunk in minillmlib.iterate(stream)] == ["hello"]
    parts = [minillmlib.TextPart(text="x")]
    with pytest.raises(minillmlib.InvalidParameterError, match="plain text"):
        minillmlib.run(minillmlib.ChatNode.root("s").chat(parts, generator))
    odd = generator.with_transport(ScriptedTransport([ScriptedReply.json({"output": {}})]))
    with pytest.raises(minillmlib.MalformedResponseError):
        minillmlib.run(minillmlib.ChatNode.root("s").chat("x", odd))


@pytest.mark.usefixtures("_world_with_keys")
def test_a_provider_of_the_guide_that_differs_only_in_facts_sends_its_own_words():
    names = run_page("docs/custom-providers.md", World())
    body = {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}
    transport = ScriptedTransport([ScriptedReply.json(body)])
    generator = names["old"].with_provider(names["Strict"]()).with_transport(transport)
    params = minillmlib.CompletionParameters(max_tokens=3, seed=7)
    list(minillmlib.iterate(minillmlib.ChatNode.root("s").chat_streaming("u", generator, params)))
    sent = msgspec.json.decode(transport.requests[0].body)
    del sent["messages"]
    assert sent == {"model": "m", "max_tokens": 3, "random_seed": 7, "stream": True}
    with pytest.raises(minillmlib.InvalidParameterError, match="top_p"):
        call = minillmlib.ChatNode.root("s").chat(
            "u", generator, minillmlib.CompletionParameters(top_p=1)
        )
        minillmlib.run(call)
