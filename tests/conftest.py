"""What several test files share: golden bytes, generators on a script, a real local model."""

from __future__ import annotations

import pytest

from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import without_retries

SOURCES = [preset.credential for preset in PRESETS.values()]
KEYS = {
    name for source in SOURCES if isinstance(source, EnvironmentKey) for name in source.variables
}


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch):
    for name in (*KEYS, "ANTHROPIC_AUTH_TOKEN", "MINILLMLIB_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _one_attempt_unless_a_test_says_more():
    with without_retries():
        yield


@pytest.fixture(scope="session")
def local_server():
    """The real embedded model, served for this test process."""
    from minillmlib.local import LocalServer

    with LocalServer() as server:
        yield server


@pytest.fixture
def quota(monkeypatch):
    """A full bucket of retries for each test; the process has one for all."""
    from minillmlib.client.retry import RetryQuota

    fresh = RetryQuota()
    monkeypatch.setattr("minillmlib.client.completion.retry_quota", fresh)
    return fresh


def pytest_terminal_summary(terminalreporter):
    """Say how large the fault matrix was, in whichever process its tests ran."""
    properties = (
        prop
        for report in terminalreporter.stats.get("passed", ())
        for prop in report.user_properties
    )
    right = sum(count for name, count in properties if name == "right_cells")
    if right:
        terminalreporter.write_line(f"fault matrix: {right} cells right")
