"""The plugin in suites of users, each in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from answer_pieces import whole
from threaded_server import ThreadedServer

SOURCE = Path(__file__).parents[2] / "src"
FAR = """
import pytest
from minillmlib import ChatNode, ConnectError, GeneratorInfo, NodeCompletionParameters, run

def call(host="nowhere.invalid"):
    generator = GeneratorInfo.custom("mine", f"http://{host}/v1", "m")
    return run(ChatNode.root().chat("u", generator, NodeCompletionParameters(retry=0)))

def is_blocked(**where):
    with pytest.raises(ConnectError) as caught:
        call(**where)
    return "blocked" in str(caught.value)
"""


@pytest.fixture
def suite(tmp_path):
    """Run a suite with the plugin, and no other one, and with warnings as errors."""

    def run(test: str, *options: str, ini: str = "", **files: str) -> str:
        (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = -p no:cacheprovider\n{ini}")
        (tmp_path / "test_it.py").write_text(textwrap.dedent(test))
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "pytest_minillmlib"]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                       "PYTHONPATH": f"{SOURCE}{os.pathsep}{tmp_path}"}  # fmt: skip
        done = subprocess.run(
            [*command, "-q", "--strict-markers", *options], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    return run


def test_a_suite_without_the_library_does_not_load_it(suite):
    shown = suite("""
        import sys

        def test_it():
            assert not [name for name in sys.modules if name.split(".")[0] == "minillmlib"]
            assert "asyncio" not in sys.modules
    """)
    assert "1 passed" in shown, shown


def test_no_test_reaches_the_network_but_those_with_the_marker(suite):
    test = """
    from far import *

    def test_before():
        assert is_blocked()

    def test_a_server_of_this_machine():
        assert not is_blocked(host="127.0.0.1:9")

    @pytest.mark.llm_network
    def test_marked():
        assert not is_blocked()

    def test_after():
        assert is_blocked()
    """
    shown = suite(test, far=FAR)
    assert "4 passed" in shown, shown


def test_a_library_that_a_test_imports_first_is_guarded_too(suite):
    shown = suite(
        "def test_it():\n    from far import is_blocked\n    assert is_blocked()\n", far=FAR
    )
    assert "1 passed" in shown, shown


def test_a_module_that_calls_while_it_is_collected_is_guarded_too(suite):
    shown = suite("from far import *\ncall()\n", far=FAR)
    assert "blocked the connection" in shown, shown
    assert (
        "tests make no real calls; use the fixture llm, or mark this test with llm_network" in shown
    )


@pytest.mark.parametrize(
    ("options", "ini"), [(["--llm-network"], ""), ([], "llm_network = true\n")]
)
def test_a_switch_allows_all_tests(suite, options, ini):
    test = "from far import *\n\ndef test_it():\n    assert not is_blocked()\n"
    assert "1 passed" in suite(test, *options, ini=ini, far=FAR)


def test_the_engines_are_as_before_once_pytest_is_over(suite):
    inner = """
        import sys
        import pytest

        def test_it(tmp_path):
            from minillmlib.transport import guard
            outer = guard.set_guard(None)
            guard.set_guard(outer)
            file = tmp_path / "test_inner.py"
            file.write_text("def test_inner():\\n    import minillmlib.transport.aiohttp\\n")
            finders = list(sys.meta_path)
            assert pytest.main(["-q", "-p", "pytest_minillmlib", str(file)]) == 0
            assert guard.set_guard(outer) is outer
            assert [each for each in sys.meta_path if "minillm" in type(each).__module__] == []
    """
    assert "1 passed" in suite(inner, "-p", "no:warnings")


APP = """
from minillmlib import ChatNode, GeneratorInfo, run

async def capital(country):
    generator = GeneratorInfo.openai("gpt-4o-mini")
    return (await ChatNode.root("Be brief.").chat(f"The capital of {country}?", generator)).text
"""


def test_the_fixture_answers_a_program_without_a_key_or_with_its_own(suite, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    test = """
    import pytest
    from app import capital, run
    from minillmlib import AuthenticationError, ChatNode

    def test_canned(llm):
        llm.script(["Paris."])
        assert run(capital("France")) == "Paris."
        assert llm.requests[0].text == "The capital of France?"

    def test_by_function(llm):
        llm.script(lambda request: request.text.split()[-1])
        assert run(capital("France")) == "France?"

    def test_a_generator(llm):
        llm.script(["Paris."])
        assert run(ChatNode.root().chat("u", llm.generator)).text == "Paris."

    def test_a_key_of_its_own(llm, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "mine")
        llm.script(["Paris."])
        run(capital("France"))
        assert dict(llm.requests[0].expose_headers())["Authorization"] == "Bearer mine"

    def test_without_the_fixture():
        with pytest.raises(AuthenticationError):
            run(capital("France"))
    """
    shown = suite(test, app=APP)
    assert "5 passed" in shown, shown


def test_a_script_that_a_test_did_not_write_names_the_request(suite):
    shown = suite("from app import capital, run\n\ndef test_it(llm):\n    run(capital('France'))\n",
                  app=APP)  # fmt: skip
    assert "the script has no reply for request 1, POST https://api.openai.com" in shown
    assert "The capital of France?" in shown


SERVED = """
import os
from minillmlib import ChatNode, GeneratorInfo, run

def call(text="u"):
    generator = GeneratorInfo.openai("gpt-4o-mini").replace(base_url=os.environ["SERVED_AT"])
    return run(ChatNode.root().chat(text, generator)).text
"""


@pytest.fixture
def served(monkeypatch):
    """The requests that the server of `SERVED` got."""
    with ThreadedServer(whole("openai", text="served")) as server:
        monkeypatch.setenv("SERVED_AT", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "real-key-0123456789")
        yield server.requests


RECORDED = """
import pytest
from app import call

@pytest.mark.parametrize("text", ["one", "two/three", "long" * 99])
def test_it(recorded_llm, text):
    assert call(text) == "served"

class TestMore:
    def test_it(self, recorded_llm):
        assert call("four") == call("four") == "served"
"""


def test_a_recording_is_made_once_and_replayed_without_a_key(suite, served, monkeypatch, tmp_path):
    shown = suite(RECORDED, app=SERVED)
    assert shown.count("does not exist; pytest --llm-record=once writes it") >= 4, shown
    assert served == []
    assert "4 passed" in suite(RECORDED, "--llm-record=once", app=SERVED)
    sent = [exchange.headers["authorization"] for exchange in served]
    assert sent == ["Bearer real-key-0123456789"] * 5
    folder = tmp_path / "recordings" / "test_it"
    names = {"test_it[one].jsonl", "test_it[two-three].jsonl", "TestMore.test_it.jsonl"}
    made = {file.name for file in folder.iterdir()}
    assert names < made
    assert max(map(len, made)) < 200
    assert not any("real-key" in file.read_text() for file in folder.iterdir())
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "4 passed" in suite(RECORDED, app=SERVED)
    assert len(served) == 5


def test_a_recording_is_renewed(suite, served):
    for mode in ("once", "once", "new"):
        assert "4 passed" in suite(RECORDED, f"--llm-record={mode}", app=SERVED)
    assert len(served) == 10


def test_a_request_that_is_not_recorded_fails_with_the_nearest_one(suite, served):
    suite(RECORDED, "--llm-record=once", app=SERVED)
    shown = suite(RECORDED.replace("call(text)", "call(text + '?')"), app=SERVED)
    assert "NotRecordedError" in shown
    assert "one?" in shown
    assert len(served) == 5


def test_only_tests_with_a_recording_reach_the_network_while_recording(suite):
    test = """
    from far import *

    def test_without():
        assert is_blocked()

    def test_with(recorded_llm):
        assert not is_blocked()
    """
    assert "2 passed" in suite(test, "--llm-record=once", far=FAR)


def test_the_tests_of_the_guide_pass_on_a_recording_of_theirs(suite, tmp_path, monkeypatch):
    """They take at most fifteen lines; the program that they test is the first block."""
    page = (SOURCE.parent / "docs" / "testing.md").read_text()
    program, tests = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[:2]
    functions = tests[tests.index("def test_") :]
    assert len([line for line in functions.splitlines() if line.strip()]) <= 15
    program = program[: program.index("script = ")]
    program = program.replace('mini")', 'mini").replace(allow_http=True)')
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.example/v1")  # which the proxy answers
    monkeypatch.setenv("OPENAI_API_KEY", "real-key-0123456789")
    with ThreadedServer(whole("openai", text="Rome.")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        shown = suite(program + tests, "--llm-record=once", "-k", "recorded")
        assert "1 passed" in shown, shown
        assert len(proxy.requests) == 1
        monkeypatch.delenv("OPENAI_API_KEY")
        shown = suite(program + tests)
        assert "4 passed" in shown, shown
        assert len(proxy.requests) == 1


def test_the_options_are_explained(suite):
    shown = suite("", "--help") + suite("", "--markers")
    assert "--llm-network" in shown
    assert "@pytest.mark.llm_network: " in shown
