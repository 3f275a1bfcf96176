"""The examples run as they are printed, and do what they are there to show."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import minillmlib
from minillmlib import Budget, ChatNode, GeneratorInfo, TokenPrice, iterate
from minillmlib.testing import ScriptedReply, ScriptedTransport

TOP = Path(__file__).parents[2]
PAGE = (TOP / "examples" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(python examples/\S+)`", PAGE)
USAGE = {"prompt_tokens": 10, "completion_tokens": 2}


def load(name: str):
    """An example as a module."""
    path = TOP / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def answering(*texts: str) -> GeneratorInfo:
    """A model with these answers, each of which costs $0.00002."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
    replies = [ScriptedReply.json({"choices": [one], "usage": USAGE}) for one in choices]
    generator = GeneratorInfo.custom("played", "https://played.example/v1", "m")
    return generator.with_token_price(TokenPrice(1, 5)).with_transport(ScriptedTransport(replies))


def test_every_example_is_listed_with_its_command():
    listed = set(re.findall(r"\]\((\w+\.\w+)\)", PAGE))
    files = {path.name for path in (TOP / "examples").iterdir() if path.is_file()}
    assert listed == files - {"README.md", "reviews.txt"}
    assert {f"python examples/{name}" for name in listed if name.endswith(".py")} == set(COMMANDS)


@pytest.mark.parametrize("command", [one for one in COMMANDS if "chat_server" not in one])
def test_it_runs_without_a_key(command, monkeypatch, capsys):
    """With the real local model, which all of them share, or the answers that the example plays."""
    monkeypatch.chdir(TOP)
    monkeypatch.setattr(sys, "argv", shlex.split(command)[1:])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, capsys.readouterr().err
    assert capsys.readouterr().out


def test_the_agent_gives_back_the_results_and_the_errors_of_its_tools(capsys):
    agent = load("agent")
    node = asyncio.run(agent.answer("Enough for 3 ladders?", agent.played_model()))
    results = [message for message in node.thread() if message.role.value == "tool"]
    assert [(message.text, message.is_error) for message in results] == [
        ('{"rail":2,"rung":9,"bolt":18}', False),
        ("KeyError: 'bolts'", True),
        ("40", False),
        ("ConnectionError: no 14 of bolt: the supplier does not answer", True),
    ]
    last = "No: 14 bolts are missing, and the supplier does not answer."
    assert (node.text, str(node.path_cost())) == (last, "$0.00088")
    assert capsys.readouterr().out.endswith(f"the supplier does not answer\n{last}")


def test_the_agent_is_twenty_lines_and_those_of_the_guide():
    source = (TOP / "examples" / "agent.py").read_text(encoding="utf-8")
    start, end = source.index("def count_stock"), source.index("def played_model")
    agent = "from minillmlib import ChatNode, GeneratorInfo\n\n\n" + source[start:end].rstrip()
    assert len([line for line in agent.splitlines() if line]) <= 20
    guide = (TOP / "docs" / "running-tools.md").read_text(encoding="utf-8")
    assert f"```python\n{agent}\n```\n" in guide


class _Judge:
    """Writes the names one after the other; prefers the one that comes first in the alphabet."""

    def __init__(self, names):
        self.names = list(names)

    async def send(self, request):
        asked = json.loads(request.body)["messages"][-1]["content"]
        pair = re.findall(r"^([AB]): (.*)$", asked, re.MULTILINE)
        letter, _ = min(pair, key=lambda one: one[1], default=("", ""))
        text = json.dumps({"better": letter}) if pair else self.names.pop()
        return await answering(text).transport.send(request)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_tournament_finds_the_best_and_adds_up_all_costs(count, tmp_path):
    names = ["Ebb", "Anchor", "Dune", "Buoy", "Coral"][:count]
    generator = answering().with_transport(_Judge(names))
    path = tmp_path / "names.tree"
    best, cost = asyncio.run(load("tournament").tournament("A name?", generator, count, str(path)))
    assert best.text == min(names)
    assert float(cost) == pytest.approx(0.00002 * (count + 2 * (count - 1)))
    answers = ChatNode.load_tree(path).children()[0].children()
    assert sorted(node.text for node in answers) == sorted(names)
    rounds = {node.text: node.notes["round"] for node in answers}
    assert all(rounds[best.text] > rounds[other] for other in names if other != best.text)


def test_extraction_keeps_the_order_and_says_what_failed():
    extraction = load("extraction")
    wrong, right = (json.dumps({"product": "lamp", "stars": stars}) for stars in (9, 5))
    for lines, answers in (("a", [wrong, right]), ("b", ["I cannot tell."] * 3)):
        run = extraction.extract([lines], answering(*answers), Budget("1"))
        (outcome,) = iterate(run)
        if lines == "a":
            assert outcome.parsed == extraction.Review("lamp", 5)
        else:
            assert isinstance(outcome.error, minillmlib.MaxRetriesExceededError)


def test_extraction_stops_at_its_budget():
    extraction = load("extraction")
    generator = answering(*['{"product": "lamp", "stars": 5}'] * 99)
    budget = Budget("0.0025")
    run = extraction.extract(["a review"] * 99, generator, budget)
    with pytest.raises(minillmlib.BudgetExceededError):
        list(iterate(run))
    assert 0 < run.progress.done < 99
    assert 0 < budget.spent <= budget.limit


async def test_the_notebook_runs_cell_by_cell(capsys):
    """As IPython runs it: in one namespace, with `await` in the cells."""
    notebook = json.loads((TOP / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    namespace: dict = {}
    for number, cell in enumerate(cells, start=1):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile("".join(cell["source"]), f"cell {number}", "exec", flags=flags)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
    assert "Paris" in capsys.readouterr().out
    assert namespace["root"].node_count() == 9
