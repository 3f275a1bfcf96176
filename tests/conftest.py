"""What several test files share: golden bytes, generators on a script, a real local model."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import ssl
import subprocess

import pytest

from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import without_retries

SOURCES = [preset.credential for preset in PRESETS.values()]
KEYS = {
    name for source in SOURCES if isinstance(source, EnvironmentKey) for name in source.variables
}
# Read when a generator is made, which test modules do when they are imported.
for _preset in PRESETS.values():
    os.environ.pop(_preset.base_url_variable or "", None)


# A shell lets what it starts in the background ignore Ctrl-C, which some tests are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _check_descriptor(descriptor):
    os.fstat(descriptor)


# Only a loss of power shows what was on the disk, and no test causes one. Child processes do wait.
os.fsync = _check_descriptor


def pytest_collection_finish():
    """Keep the garbage collector from all that stays to the end: each of its runs looks at the rest."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch):
    for name in (*KEYS, "ANTHROPIC_AUTH_TOKEN", "MINILLMLIB_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


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
def certified(tmp_path):
    """A TLS context for a server on 127.0.0.1, and the file of its certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, str(certificate)


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
