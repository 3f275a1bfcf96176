"""What is sent a second time without being a retry: over a new connection, with a new key."""

from __future__ import annotations

import json

import pytest
from scripted_server import ANSWER, BOTH, Server, asked, busy, outcomes, play, status, tried
from virtual_clock import run_virtually

from minillmlib import (
    AuthenticationError,
    CostResolution,
    GeneratorInfo,
    MaxRetriesExceededError,
    PermissionDeniedError,
    StaleConnectionError,
)
from minillmlib.auth.credentials import ClaudeSubscriptionToken, EnvironmentKey

pytestmark = pytest.mark.usefixtures("quota")

# A credential that was changed.


def key_of(request) -> str:
    return dict(request.expose_headers())["Authorization"].removeprefix("Bearer ")


def refusing(*changes, code: int = 401):
    """Steps that refuse; before each answer the credential is changed."""

    def step_after(change):
        async def refuse(request):
            change()
            return await play(status(code), request)

        return refuse

    return [step_after(change) for change in changes]


class InEnvironment:
    """A key in an environment variable."""

    source = EnvironmentKey(("OWN_KEY",))

    def __init__(self, monkeypatch, _folder):
        self.patch = monkeypatch

    def put(self, key: str):
        self.patch.setenv("OWN_KEY", key)

    def remove(self):
        self.patch.delenv("OWN_KEY")


class InFile:
    """A token in Claude Code's file."""

    source = ClaudeSubscriptionToken()

    def __init__(self, monkeypatch, folder):
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(folder))
        self.path = folder / ".credentials.json"

    def put(self, key: str):
        self.path.write_text(json.dumps({"claudeAiOauth": {"accessToken": key}}))

    def remove(self):
        self.path.unlink()


@pytest.fixture(params=[InEnvironment, InFile])
def key(request, monkeypatch, tmp_path):
    stored = request.param(monkeypatch, tmp_path)
    stored.put("sk-first-000")
    return stored


def with_key(server: Server, key) -> GeneratorInfo:
    return server.generator().replace(credential=key.source)


@BOTH
def test_a_key_that_was_changed_meanwhile_is_used_at_once_and_is_no_retry(key, streamed):
    server = Server([*refusing(lambda: key.put("sk-second-00")), ANSWER])
    calls = tried(server, asked(retry=0), streamed=streamed, generator=with_key(server, key))
    response = run_virtually(calls)
    assert [key_of(request) for request in server.requests] == ["sk-first-000", "sk-second-00"]
    assert server.times == [0, 0]
    assert outcomes(response.attempts) == "denied answered"


@BOTH
@pytest.mark.parametrize("what", ["same", "gone", "unreadable"])
def test_a_key_that_is_the_same_or_gone_is_not_tried_again(key, what, streamed):
    change = {
        "same": lambda: key.put("sk-first-000"),
        "gone": key.remove,
        "unreadable": lambda: key.put("sk-\u00e9\u00e8"),
    }[what]
    server = Server(refusing(change))
    error = run_virtually(
        tried(server, asked(retry=3), streamed=streamed, generator=with_key(server, key))
    )
    assert (type(error), error.status, len(error.attempts)) == (AuthenticationError, 401, 1)


@BOTH
def test_a_key_that_is_changed_over_and_over_is_renewed_once(key, streamed):
    changes = [lambda n=n: key.put(f"sk-number-{n}") for n in range(2)]
    server = Server(refusing(*changes))
    error = run_virtually(
        tried(server, asked(retry=3), streamed=streamed, generator=with_key(server, key))
    )
    assert (type(error), outcomes(error.attempts)) == (AuthenticationError, "denied denied")


def test_a_changed_key_is_not_looked_for_when_something_else_is_forbidden(key):
    server = Server(refusing(lambda: key.put("sk-second-00"), code=403))
    error = run_virtually(
        tried(server, asked(retry=3), streamed=False, generator=with_key(server, key))
    )
    assert (type(error), len(error.attempts)) == (PermissionDeniedError, 1)


def test_a_key_that_is_gone_at_a_retry_ends_the_completion(key):
    server = Server(refusing(key.remove, code=503))
    error = run_virtually(
        tried(server, asked(retry=3), streamed=False, generator=with_key(server, key))
    )
    assert (type(error), error.last_error.status) == (MaxRetriesExceededError, None)
    assert outcomes(error.attempts) == "denied"


# A connection that was stale.


@BOTH
def test_a_stale_connection_is_replaced_by_a_new_one_for_the_same_request(streamed):
    server = Server([StaleConnectionError, ANSWER])
    response = run_virtually(tried(server, asked(retry=0), streamed=streamed))
    first, second = server.requests
    assert (first.on_new_connection, second.on_new_connection) == (False, True)
    assert (first.url, first.headers, first.body) == (second.url, second.headers, second.body)
    assert server.times == [0, 0]
    assert outcomes(response.attempts) == "failed answered"
    assert response.attempts[0].cost.resolution is CostResolution.UNKNOWN  # it may have arrived


@pytest.mark.parametrize("what", ["retried", "stale", "renewed"])
@BOTH
def test_nothing_is_sent_after_the_deadline(monkeypatch, tmp_path, what, streamed):
    key = InEnvironment(monkeypatch, tmp_path)
    key.put("sk-first-000")
    step = {
        "retried": status(503),
        "stale": StaleConnectionError,
        "renewed": refusing(lambda: key.put("sk-second-00"))[0],
    }[what]
    server = Server([busy(5, step), ANSWER])
    settings = asked(retry=3, deadline_secs=3)
    result = run_virtually(
        tried(server, settings, streamed=streamed, generator=with_key(server, key))
    )
    assert isinstance(result, Exception)
    assert len(server.requests) == 1
