"""Which server the command line asks, what it says about the cost, and how its errors name options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from cli_program import run

import minillmlib

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from minillmlib import GeneratorInfo
from minillmlib.cli.format import closing_line, name_options
from minillmlib.cli.models import choose_generator
from minillmlib.providers.presets import PRESETS

NOWHERE = "http://127.0.0.1:1/v1"
ANSWER = "It is Paris.\n"


def chosen(model=None, base_url=None, key_env=None, price=None) -> GeneratorInfo:
    return choose_generator(model, base_url=base_url, key_env=key_env, price=price)


@pytest.mark.parametrize("command", ["ask", "chat"])
@pytest.mark.parametrize(
    ("model", "sent"),
    [("openai:gpt-4o", "gpt-4o"), ("ollama:llama3:8b", "llama3:8b"), ("llama3:8b", "llama3:8b"),
     ("meta/llama", "meta/llama"), ("openrouter:meta/llama:free", "meta/llama:free")],
)  # fmt: skip
def test_a_base_url_is_where_any_model_is_asked(service, command, model, sent):
    options = ["--model", model, "--base-url", service.url]
    changes = {"OPENAI_BASE_URL": NOWHERE, "OPENROUTER_BASE_URL": NOWHERE}
    assert run(service, command, "Where?", *options, **changes) == (0, ANSWER, "")
    assert service.bodies[0]["model"] == sent
    assert ("authorization" in service.headers[0]) == model.startswith("open")


def test_a_server_is_named_in_the_model_too(service):
    model = f"custom:{service.url}:llama3:8b"
    assert run(service, "ask", "Where?", MINILLMLIB_MODEL=model) == (0, ANSWER, "")
    assert service.bodies[0]["model"] == "llama3:8b"
    assert "authorization" not in service.headers[0]


def test_a_base_model_gets_the_text_alone(service):
    options = ["-m", f"completions:{service.url}:olmo", "--system", "A question. "]
    assert run(service, "ask", "Where?", *options) == (0, ANSWER, "")
    assert service.bodies[0]["model"] == "olmo"
    assert service.bodies[0]["prompt"] == "A question. Where?"


def test_a_key_is_named_by_its_variable_and_goes_to_that_server(service):
    options = ["-m", "m", "--base-url", service.url, "--key-env", "OWN_KEY"]
    assert run(service, "ask", "Where?", *options, OWN_KEY="sk-own")[0] == 0
    assert service.headers[0]["authorization"] == "Bearer sk-own"
    code, out, err = run(service, "ask", "Where?", *options)
    assert (code, out) == (2, "")
    assert "--key-env" in err
    assert len(service.bodies) == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--base-url", NOWHERE], "--model"),
        (["--base-url", NOWHERE, "-m", "local:x.gguf"], "--base-url does not fit"),
        (["--base-url", NOWHERE, "-m", f"custom:{NOWHERE}:m"], "--base-url does not fit"),
        (["--base-url", NOWHERE, "-m", f"completions:{NOWHERE}:m"], "--base-url does not fit"),
        (["--base-url", "localhost:8000", "-m", "m"], "the base URL must look like"),
        (["--base-url", "http://user:pass-canary@h/v1", "-m", "m"], "--key-env"),
        (["-m", f"custom:{NOWHERE}"], "custom:http://127.0.0.1:8000/v1:llama3:8b"),
        (["-m", f"completions:{NOWHERE}"], "completions:http://127.0.0.1:8000/v1:llama3:8b"),
        (["-m", "gpt"], "custom:URL:model"),
        (["-m", "openai:m,antropic:m"], "did you mean anthropic"),
        (["-m", "openai:m,"], "one side of a comma names no model"),
        (["-m", "openai:m,groq"], "'groq' needs a model; write groq:MODEL"),
        (["-m", "openai:m,groq:m", "--base-url", NOWHERE], "--base-url is for one model"),
        (["-m", "openai:m,groq:m", "--key-env", "OPENAI_API_KEY"], "--key-env is for one model"),
        (["-m", "openai:m,groq:m", "--price", "1,2"], "--price is for one model"),
        (["-m", "openai:m", "--key-env", "sk-canary-1"], "--key-env"),
        (["--price", "1"], "--price"),
        (["--price", "1,2,3"], "--price"),
        (["--price", "-1,2"], "--price"),
        (["--price", "0,15,0,60"], "0.15,0.60"),
        (["--price", "nan,2"], "--price"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout"),
    ],
)
def test_wrong_options_are_code_2_and_nothing_is_sent(service, options, problem):
    unset = {} if "-m" in options or "--base-url" not in options else {"MINILLMLIB_MODEL": ""}
    code, out, err = run(service, "ask", "x", *options, **unset)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert problem in err
    assert "canary" not in err
    assert service.bodies == []


def test_a_key_is_sent_unencrypted_to_no_other_machine(service):
    options = ["-m", "openai:m", "--base-url", "http://gateway.example/v1"]
    code, out, err = run(service, "ask", "x", *options)
    assert (code, out) == (2, "")
    assert "gateway.example unencrypted; use https" in err
    assert "allow_http" not in err


def test_a_silent_server_is_waited_for_as_long_as_the_option_says(service):
    code, _, err = run(service, "ask", "gate", "--timeout", "0.3")
    service.gate.set()
    assert code == 1
    assert "raise --timeout" in err


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_the_next_model_is_asked_if_the_first_one_fails(service, command):
    model = f"custom:{NOWHERE}:a, custom:{service.url}:b"
    notice = "answered by custom:b; custom:a failed (ConnectError)\n"
    assert run(service, command, "Where?", MINILLMLIB_MODEL=model) == (0, ANSWER, notice)
    assert [body["model"] for body in service.bodies] == ["b"]


async def test_the_closing_line_names_who_answered_only_if_that_was_a_fallback(service):
    chain = chosen(f"custom:{NOWHERE}:a,custom:{service.url}:b")
    root = minillmlib.ChatNode.root("s")
    node = await root.chat_streaming("u", chain, retry=0).collect()
    assert "answered by custom:b" in closing_line(node.response)
    node = await root.chat_streaming("u", chain.fallbacks[0], retry=0).collect()
    assert "answered by" not in closing_line(node.response)


# What it costs.


@pytest.mark.parametrize(
    ("price", "cost"), [("1,5", "$0.000067"), ("0,0", "$0"), (" 0.15 , 0.60 ", "$0.00000885")]
)
async def test_a_price_prices_an_answer(service, price, cost):
    generator = chosen("m", base_url=service.url, price=price)
    node = await minillmlib.ChatNode.root("s").chat_streaming("u", generator).collect()
    assert cost in closing_line(node.response if hasattr(node, "response") else node)


def test_a_price_wins_over_the_table_and_the_table_prices_what_it_lists():
    pytest.importorskip("genai_prices")
    assert chosen("openai:gpt-4o-mini").token_price.source.startswith("genai-prices")
    assert chosen("openai:gpt-4o-mini", price="1,2").token_price == minillmlib.TokenPrice(1, 2)
    assert chosen("openai:gpt-4o-mini", base_url=NOWHERE).token_price is None
    assert chosen("ollama:llama3").token_price is None
    chain = chosen("ollama:llama3,openai:gpt-4o-mini")
    assert chain.token_price is None
    assert chain.fallbacks[0].token_price.source.startswith("genai-prices")


def test_a_model_without_a_price_is_asked_without_a_word_about_it(service):
    assert run(service, "ask", "x", "-m", "openai:gpt-4o-mini") == (0, ANSWER, "")
    options = ["-m", "openai:gpt-4o-mini", "--base-url", service.url]
    assert run(service, "ask", "x", *options, NOT_INSTALLED="genai_prices") == (0, ANSWER, "")


# How errors name options.

PYTHON = re.compile(
    r"\bwith_\w+|GeneratorInfo|ChatNode|\breplace\(|\bbase_url\b|\w_secs\b|Parameters\b|`\w+` of this"
    r"|from_thread|load_tree|set_format|generator's limits|\braise max_tokens|attach|\(\.\.\.\)"
)
# Texts that no command can come to, by a part of them.
UNREACHABLE = (
    "a price must be a TokenPrice", "a secret cannot be pickled", "a CompletionContext needs", "a price (with_token_price)",
    "the generator must be a GeneratorInfo", "headers are (name, value) pairs",
    "with_api_key_from_env takes", "raise deadline_secs", "attached to", "the tool loop did not end",
    "a budget cannot be pickled", "a pace cannot be pickled", "its reader was cancelled",
    "params must be", "partial_json() needs", "tuple[Call", "tuple[GeneratorInfo", "a token_price of the call", "<ChatNode", "a node belongs to a tree",
    "the prompt of a run is a node", "the observers of a generator are set", "a pace cannot be pickled", "with_token_provider", "AzureResponsesProvider(", "against max_tokens", "cache_breakpoint() or with_cache(True)", "no event loop of asyncio runs here", "the content of a message must be",
)  # fmt: skip


def texts_of(module: ast.Module):
    """The texts of a module that may be messages: those of words, with X for what is filled in."""
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    joined = [node for node in ast.walk(module) if isinstance(node, ast.JoinedStr)]
    skipped |= {id(part) for node in joined for part in node.values}
    for node in joined:
        yield "".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in skipped
        ):
            yield node.value


def test_no_message_of_the_library_advises_python_on_the_command_line():
    source = Path(minillmlib.__file__).parent
    doors = {
        "cli",
        "testing",
        "workers",
        "blocking.py",
        "dask.py",
        "httpx.py",
        "mcp.py",
        "__init__.py",
    }
    files = [
        file for file in source.rglob("*.py") if file.relative_to(source).parts[0] not in doors
    ]
    texts = [text for file in files for text in texts_of(ast.parse(file.read_text("utf-8")))]
    assert len(texts) > 1000
    advice = {text for text in texts if " " in text and PYTHON.search(text)}
    assert len(advice) > len(UNREACHABLE)
    wrong = {
        name_options(text)
        for text in advice
        if PYTHON.search(name_options(text)) and not any(part in text for part in UNREACHABLE)
    }
    assert wrong == set()


@pytest.fixture(scope="module")
def help_of_ask(running):
    code, out, _ = run(running, "ask", "--help", COLUMNS="300")
    assert code == 0
    return out


@pytest.mark.parametrize("name", PRESETS)
def test_every_provider_is_listed_in_the_help(help_of_ask, name):
    assert name in help_of_ask
