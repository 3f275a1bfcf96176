"""The chat server of the examples, under a real uvicorn, with clients that stay and that leave."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from answer_pieces import begun, generator_at, refused, streamed, word
from threaded_server import ThreadedServer, wait_until

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_server.py"
PATIENCE_SECS = 10


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_chat_server", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where FastAPI looks the annotations up
    spec.loader.exec_module(module)
    return module


@contextmanager
def served(app):
    """Run the program on a port of its own, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, PATIENCE_SECS)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECS)
        assert not thread.is_alive()


@pytest.fixture
def upstream():
    with ThreadedServer(streamed("openai")) as server:
        yield server


@pytest.fixture
def port(example, upstream):
    with served(example.create_app(generator_at(upstream, "openai"))) as port:
        yield port


def ask(port, text, user="ann"):
    """Send a question and return the answer, which is still to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECS)
    headers = {"X-User": user, "Content-Type": "application/json"}
    connection.request("POST", "/chat", json.dumps({"text": text}), headers)
    response = connection.getresponse()
    assert response.status == 200
    return connection, response


def read(response):
    """Read all events."""
    blocks = response.read().decode().split("\n\n")[:-1]
    lines = (block.split("\n") for block in blocks)
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in lines]


def costs(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECS)
    connection.request("GET", "/costs")
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def leave(connection, response):
    """Hang up as a browser does whose tab is closed."""
    response.close()
    connection.close()


def test_an_answer_is_streamed_and_the_conversation_goes_on(port, upstream):
    for text in ("Count.", "Again."):
        connection, response = ask(port, text)
        *pieces, end = read(response)
        connection.close()
        assert "".join(text for _, text in pieces) == "one two three four five"
        assert end == ("end", "stop")
    connection, response = ask(port, "Count.", user="bob")
    read(response)
    connection.close()
    sent = [json.loads(request.body)["messages"] for request in upstream.requests]
    assert [len(messages) for messages in sent] == [2, 4, 2]
    assert costs(port) == {"ann": "$0.000026", "bob": "$0.000013"}


def test_a_client_that_leaves_ends_the_stream_of_the_model_and_its_cost_is_settled(port, upstream):
    upstream.script.append((*begun(), word("openai", "one ")))  # and then silence
    connection, response = ask(port, "Count.")
    assert b"text" in response.readline()
    assert costs(port) == {"ann": "$0"}  # it is still written
    leave(connection, response)
    wait_until(lambda: upstream.requests[0].connection.ended_at is not None, PATIENCE_SECS)
    wait_until(lambda: "1 unknown" in costs(port)["ann"], PATIENCE_SECS)

    connection, response = ask(port, "Count.")  # the conversation is as it was before
    read(response)
    connection.close()
    assert len(json.loads(upstream.requests[1].body)["messages"]) == 2


def test_so_does_a_client_that_stopped_reading_before_it_left(port, upstream):
    """The answer is then suspended inside `send`, where nothing closes a generator."""
    upstream.script.append((*begun(), *[word("openai", "x" * 60_000)] * 400))
    connection, response = ask(port, "Write a book.")
    wait_until(lambda: bool(upstream.requests), PATIENCE_SECS)
    model = upstream.requests[0].connection
    unsent = [0]

    def has_stalled():
        time.sleep(0.05)
        unsent.append(model.transport.get_write_buffer_size())
        return unsent[-1] == unsent[-2] > 0

    wait_until(has_stalled, PATIENCE_SECS)
    leave(connection, response)
    wait_until(lambda: model.ended_at is not None, PATIENCE_SECS)
    wait_until(lambda: "1 unknown" in costs(port)["ann"], PATIENCE_SECS)


def test_a_failure_is_an_event_and_no_end(port, upstream):
    upstream.script.append(refused())
    connection, response = ask(port, "Count.")
    ((name, text),) = read(response)
    connection.close()
    assert name == "error"
    assert "503" in text or "busy" in text
