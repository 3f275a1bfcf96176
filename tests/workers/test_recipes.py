"""The recipes of the guide for data engines run, each in a program of its own, on a real server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from row_server import RowServer

PAGE = (Path(__file__).parents[2] / "docs/dask-spark-daft.md").read_text()
JOB = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RECIPES = dict(re.findall(r'^```py title="(\w+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
NEEDS = {
    "dask": ["distributed"],
    "bank": ["distributed"],
    "spark": ["pyspark", "pandas", "pyarrow"],
    "daft": ["daft"],
}

pytestmark = pytest.mark.long


def test_each_recipe_says_what_it_needs():
    assert RECIPES.keys() == NEEDS.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_asks_about_each_row_once(name, tmp_path):
    missing = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    if name == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    assert JOB is not None
    program = tmp_path / "program.py"
    program.write_text(JOB[1] + RECIPES[name])
    with RowServer(secs=0) as server:
        environment = os.environ | {
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "key-of-the-recipes",
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "200 done, 0 failed; $0.0054" in done.stdout
    assert "REVIEW 0\n" in done.stdout
    assert len(server.taken) == len(server.billed) == 200
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"key-of-the-recipes" not in file.read_bytes(), file
