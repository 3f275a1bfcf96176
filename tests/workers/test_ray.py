"""A job on a real Ray with two workers. It takes a minute and 600 MB, so `make soak` runs it."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from bulk_server import answer
from row_server import RowServer
from secret_shapes import SHAPES, Canary

from minillmlib import (
    Budget,
    Bulk,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    Pace,
)
from minillmlib.ray import map_complete, report

ray = pytest.importorskip("ray", reason="Ray is not installed; `make soak` installs it")
pytest.importorskip("ray.data", reason="Ray Data is not installed; `make soak` installs it")

# Ray's own warnings, of sockets and of versions to come.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

PROMPT = ChatNode.root("Be brief.").add_user("{row}")
COLUMNS = {
    "text": "string", "parsed": "string", "error": "string", "cost_usd": "decimal128(38, 18)",
    "cost_resolution": "string", "attempts": "int64", "from_journal": "bool",
}  # fmt: skip
CANARIES = [Canary(shape) for shape in SHAPES]
BOUNDED = NodeCompletionParameters(
    retry=0, deadline_secs=60, params=CompletionParameters(max_tokens=20)
)
ROW_USD = Decimal("0.0002")


class KeyServer(RowServer):
    """Repeats the key of each request, as servers do in their messages about bad keys."""

    async def _play(self, exchange):
        key = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        error = {"error": {"message": f"bad key {key}", "code": key}}
        await exchange.answer(json.dumps(error).encode(), "401 Unauthorized")


class ParrotServer(RowServer):
    """Answers what the last message says."""

    async def _play(self, exchange):
        said = json.loads(exchange.body)["messages"][-1]["content"]
        await exchange.answer(json.dumps(answer(said)).encode())


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with a key of each shape in its environment; its folder."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a short name, for sockets
    keys = {f"CANARY_{number}": canary.given for number, canary in enumerate(CANARIES)}
    keys["OPENAI_API_KEY"] = "key-of-the-docs"
    os.environ.update(keys)
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=str(folder), logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield folder
    ray.shutdown()
    for name in keys:
        os.environ.pop(name, None)
    shutil.rmtree(folder, ignore_errors=True)


def dataset_of(texts, *, blocks=8):
    items = [{"n": number, "row": text} for number, text in enumerate(texts)]
    return ray.data.from_items(items, override_num_blocks=min(blocks, len(items)))


def rows_of(dataset):
    return sorted(dataset.take_all(), key=lambda row: row["n"])


@pytest.mark.usefixtures("cluster")
def test_each_row_keeps_its_columns_and_gets_those_of_its_answer(tmp_path):
    with RowServer() as server:
        texts = ["bad row", *(f"row {number}" for number in range(98)), "hang"]
        params = BOUNDED.replace(deadline_secs=3)
        job = Bulk(server.generator, params, prompt=PROMPT, journal=tmp_path / "j", workers=2)
        answers = map_complete(dataset_of(texts), job, part_rows=16).materialize()
    schema = answers.schema()
    kinds = dict(zip(schema.names, map(str, schema.types), strict=True))
    assert kinds == {"n": "int64", "row": "string", **COLUMNS}
    first, *good, last = rows_of(answers)
    assert re.match("BadRequestError: .*no such row", first["error"])
    assert last["error"].startswith("RequestTimeoutError: ")
    assert (last["cost_usd"], last["cost_resolution"]) == (None, "unknown")
    assert [row["text"] for row in good] == [text.upper() for text in texts[1:-1]]
    assert {(row["error"], row["cost_usd"], row["attempts"]) for row in good} == {
        (None, ROW_USD, 1)
    }
    assert str(report(job)) == str(job.report())
    assert "98 done, 2 failed; at least $0.0196" in str(report(job))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("kind", "said", "parsed"),
    [
        (Literal["good", "bad"], '{"answer": "good"}', "good"),
        (list[int], '{"answer": [1, 2]}', "[1,2]"),
        (float, '{"answer": 0.5}', "0.5"),
        (str, '{"answer": "half a pair: \\ud83d"}', "half a pair: \ufffd"),
    ],
)
def test_an_answer_of_a_type_is_a_text_or_json_after_the_prefix_of_the_job(kind, said, parsed):
    with ParrotServer() as server:
        job = Bulk(server.generator, BOUNDED.expecting(kind), prompt=PROMPT, prefix="my_")
        good, bad = rows_of(map_complete(dataset_of([said, "no JSON"]), job))
    assert (good["my_parsed"], good["my_error"]) == (parsed, None)
    assert good["my_text"] == said.replace("\\ud83d", "\ufffd")
    assert (bad["my_parsed"], bad["my_text"]) == (None, None)
    assert bad["my_error"].startswith("NoJsonFoundError: ")
    assert bad["my_cost_usd"] == ROW_USD


@pytest.mark.parametrize("part_rows", [0, -1, 1.5, "2", True])
def test_a_part_is_a_whole_number_of_rows(part_rows):
    with RowServer() as server:
        job = Bulk(server.generator, BOUNDED, prompt=PROMPT)
        with pytest.raises(InvalidParameterError, match="part_rows must be"):
            map_complete(None, job, part_rows=part_rows)


@pytest.mark.usefixtures("cluster")
def test_a_column_that_results_would_replace_is_refused_before_anything_runs():
    with RowServer() as server:
        job = Bulk(server.generator, BOUNDED, prompt=PROMPT)
        with pytest.raises(InvalidParameterError, match="'error'.*prefix='answer_'"):
            map_complete(ray.data.from_items([{"row": "a", "error": "b"}]), job)
        answers = map_complete(
            ray.data.from_items([{"row": "a", "error": "b"}]),
            job.replace(prefix="answer_"),
        )
        assert [row["answer_text"] for row in answers.take_all()] == ["A"]
        assert set(server.billed) == {"a"}


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_loses_no_row_and_what_was_in_flight_is_all_that_is_paid_again(tmp_path):
    rows, width, folder = 600, 16, tmp_path / "j"
    with RowServer(secs=0.1) as server:
        job = Bulk(server.generator, BOUNDED, prompt=PROMPT, journal=folder, workers=2, width=width)
        texts = [f"row {number}" for number in range(rows)]
        victims: list[int] = []

        def kill_at_a_third() -> None:
            while server.billed.total() < rows // 3:
                time.sleep(0.01)
            pids = [int(path.stem.split("-")[-2]) for path in folder.glob("*.jsonl")]
            victims.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_at_a_third)
        killer.start()
        answers = rows_of(map_complete(dataset_of(texts), job, part_rows=32))
        killer.join()
        assert [row["text"] for row in answers] == [text.upper() for text in texts]
        assert {row["error"] for row in answers} == {None}
        repaid = server.billed.total() - rows
        found = report(job)
        assert repaid <= found.maybe_paid <= width
        assert found.done == rows
        assert found.cost.cost == rows * ROW_USD
        assert found.cost.is_exact == (found.maybe_paid == 0)
        billed = server.billed.total()
        again = rows_of(map_complete(dataset_of(texts), job, part_rows=32))
        assert server.billed.total() == billed
    assert victims
    assert {row["from_journal"] for row in again} == {True}
    assert [row["text"] for row in again] == [row["text"] for row in answers]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_keep_one_rate_and_one_budget(tmp_path, workers):
    limit = Decimal("0.10")
    with RowServer(rate=100) as server:
        job = Bulk(
            server.generator, BOUNDED, prompt=PROMPT, journal=tmp_path / "j", workers=workers,
            pace=Pace(requests_per_minute=6000), budget=Budget(limit),
        )  # fmt: skip
        texts = [f"row {number}" for number in range(1000)]
        answers = rows_of(map_complete(dataset_of(texts, blocks=5), job, part_rows=64))
    done = [row for row in answers if row["error"] is None]
    assert limit * Decimal("0.9") <= len(done) * ROW_USD <= limit
    assert server.billed.total() == len(done)
    stopped = {row["error"].partition(":")[0] for row in answers if row["error"]}
    assert stopped == {"BudgetExceededError"}
    late = [at for at in server.refused if at - server.taken[0] > 1]
    assert late == []
    middle = server.taken[len(done) // 4 : -len(done) // 4]  # without the start of the processes
    assert len(middle) / (middle[-1] - middle[0]) >= 90


@pytest.mark.usefixtures("cluster")
def test_what_ends_a_run_is_the_error_of_each_remaining_row_and_asks_no_more():
    with RowServer() as server:
        generator = GeneratorInfo.preset("mistral", "m").replace(base_url=server.url)
        job = Bulk(generator, BOUNDED, prompt=PROMPT, workers=2)
        answers = rows_of(map_complete(dataset_of(f"row {n}" for n in range(200)), job))
        assert server.requests == []
    assert {row["error"].partition(":")[0] for row in answers} == {"AuthenticationError"}
    assert all("MISTRAL_API_KEY" in row["error"] for row in answers)


def test_no_key_is_in_what_ray_keeps_and_writes(cluster, tmp_path):
    with KeyServer() as server:
        generator, *others = (
            server.generator.with_api_key_from_env(f"CANARY_{number}")
            for number in range(len(CANARIES))
        )
        job = Bulk(  # a refused key is followed by that of the next generator
            generator.or_else(*others), BOUNDED, prompt=PROMPT, journal=tmp_path, workers=2,
            pace=Pace(requests_per_minute=60_000), budget=Budget(1),
        )  # fmt: skip
        answers = map_complete(dataset_of(["a", "b"]), job).materialize()
        rows = answers.take_all()
        sent = {request.headers["authorization"] for request in server.requests}
    assert sent == {f"Bearer {canary.sent}" for canary in CANARIES}
    assert all("bad key" in row["error"] for row in rows)
    time.sleep(1)  # logs are written late
    kept = {
        "the job": pickle.dumps(job) + repr(job).encode(),
        "the dataset": ray.cloudpickle.dumps(answers),
        "the rows": repr(rows).encode(),
        **dict(_files_below(cluster)), **dict(_files_below(tmp_path)), **dict(_tables()),
    }  # fmt: skip
    assert len(kept) > 30
    for name, content in kept.items():
        assert [canary.trace_in(content) for canary in CANARIES] == [None] * 12, name


def _files_below(folder):
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def _tables():
    """What Ray's head node keeps: functions, classes and jobs, pickled."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    for namespace in (None, b"fun", b"job", b"session", b"serve", b"workflow"):
        for key in _internal_kv_list(b"", namespace=namespace):
            yield f"{namespace}:{key}", _internal_kv_get(key, namespace=namespace) or b""
    yield "actors", repr(ray._private.state.actors()).encode()


def test_a_key_in_the_runtime_environment_is_refused():
    program = """
import ray
from minillmlib import Bulk, ChatNode, GeneratorInfo, InvalidParameterError
from minillmlib.ray import map_complete

ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR",
         runtime_env={"env_vars": {"OPENAI_API_KEY": "sk-x", "OTHER": "y"}})
job = Bulk(GeneratorInfo.openai("m"), prompt=ChatNode.root().add_user("{n}"))
try:
    map_complete(ray.data.from_items([{"n": 1}]), job)
except InvalidParameterError as error:
    print(error)
job = Bulk(GeneratorInfo.custom("c", "http://127.0.0.1:1/v1", "m"), prompt=job.prompt)
map_complete(ray.data.from_items([{"n": 1}]), job)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search("OPENAI_API_KEY is in the runtime_env.*on each node", done.stdout)


@pytest.mark.usefixtures("cluster")
def test_the_blocks_of_the_chapter_for_ray_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-docs")
    page = (Path(__file__).parents[2] / "docs" / "more-than-one-machine.md").read_text()
    blocks = re.findall(r'^```py(?:thon| title="ray")\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with RowServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for block in (block.replace("/data", str(tmp_path)) for block in blocks):
            exec(compile(block, "the chapter", "exec", dont_inherit=True), namespace)
    said = re.findall(r"print\(report\(job\)\)  # (.*)$", page, re.MULTILINE)
    assert said == [capsys.readouterr().out.splitlines()[-1]]
    labels = ray.data.read_parquet(str(tmp_path / "labels")).take_all()
    assert sorted(row["text"] for row in labels) == ["GREAT SOUP!", "NEVER AGAIN."]
