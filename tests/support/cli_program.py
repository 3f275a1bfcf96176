"""The command line as a program at a terminal of its own, with a server for its models.

Use it for what only a terminal shows: colours, keys and interrupts. The program is a fork of
`warm_program`, unless the environment changes something that an interpreter reads when it starts.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")

CAN_FORK = hasattr(os, "fork")
WARM = Path(__file__).with_name("warm_program.py")

PATIENCE_SECS = 20
CTRL_C, CTRL_D = "\x03", "\x04"
DIM, RED, PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[0m"
HOSTILE = "a\x1b[2Jb\x07c\x9bd\x7fe\u202ef\u2066g\u200fh[red]i[/red] :smile: 12\ttab"
SHOWN = r"a\x1b[2Jb\x07c\x9bd\x7fe\u202ef\u2066g\u200fh[red]i[/red] :smile: 12"

REFUSALS = {"fail": 400, "key": 401, "broken": 500}
COUNTS = {"prompt_tokens": 27, "completion_tokens": 8, "total_tokens": 35}

# The program, with a terminal of its own.
PROGRAM = """
import os, sys
for descriptor in (0, 2):
    if os.isatty(descriptor):
        import fcntl, termios
        fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
        break
for name in os.environ.get("NOT_INSTALLED", "").split():
    sys.modules[name] = None
from minillmlib.cli import main
main()
"""


class Service(ThreadingHTTPServer):
    """Speaks the stream of chat completions; the last message says what it does."""

    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.bodies, self.headers = [], []
        self.is_mended = False  # what was refused is answered
        self.gate = threading.Event()
        self.hung_up = threading.Event()

    def forget(self):
        """As new, for the next test."""
        self.bodies.clear()
        self.headers.clear()
        self.gate.clear()
        self.hung_up.clear()
        self.is_mended = False
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def said(self, index=-1):
        return [(message["role"], message["content"]) for message in self.bodies[index]["messages"]]


class Answering(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.bodies.append(body)
        question = (body.get("prompt") or body["messages"][-1]["content"]).split()[0]
        if not body.get("stream"):
            with contextlib.suppress(OSError):
                self.answer_whole(question, body["messages"][-1]["content"])
            return
        with contextlib.suppress(OSError):
            getattr(self, f"answer_{question}", self.answer_plain)()

    def answer_whole(self, question, text):
        """The answers to the rows of a run."""
        if question == "gate":
            self.server.gate.wait(PATIENCE_SECS)
        if question == "slow":
            time.sleep(0.2)
        if question in REFUSALS and not self.server.is_mended:
            self.begin(REFUSALS[question], "application/json")
            self.wfile.write(json.dumps({"error": {"message": "no [bold]\x1b]0;x"}}).encode())
            return
        label = "good" if "like" in text else "bad"
        said = {"label": json.dumps({"label": label}), "formula": '=1+1\n"x",\x1b[2J\u202e'}
        message = {"role": "assistant", "content": said.get(question, f"It is {text}.")}
        finish = "length" if question == "cut" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        self.begin(200, "application/json")
        answer = {"id": "c", "model": "m", "choices": [choice], "usage": COUNTS}
        self.wfile.write(json.dumps(answer).encode())

    def begin(self, status=200, kind="text/event-stream"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()

    def event(self, *pieces):
        events = (piece if isinstance(piece, str) else json.dumps(piece) for piece in pieces)
        self.wfile.write("".join(f"data: {event}\n\n" for event in events).encode())
        self.wfile.flush()

    def text(self, text):
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}

    def done(self, reason="stop", usage=COUNTS):
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        counts = {"choices": [], "usage": usage}
        self.event(end, *([counts] if usage else []), "[DONE]")

    def answer_plain(self):
        self.begin()
        self.event(self.text("It is "))
        self.event(self.text("Paris."))
        self.done()

    def answer_priced(self):
        self.begin()
        self.event(self.text("Paris"))
        self.done(usage={**COUNTS, "cost": 0.000012})

    def answer_gate(self):
        self.begin()
        self.event(self.text("first "))
        self.server.gate.wait(PATIENCE_SECS)
        self.event(self.text("second"))
        self.done()

    def answer_endless(self):
        self.begin()
        try:
            for number in range(PATIENCE_SECS * 50):
                self.event(self.text(f"line {number}\n" if number else "begun\n"))
                time.sleep(0.02)
        except OSError:
            self.server.hung_up.set()

    def answer_hostile(self):
        self.begin()
        for piece in HOSTILE:
            self.event(self.text(piece))
        self.done()

    def answer_refuse(self):
        self.begin()
        refusal = {"choices": [{"index": 0, "delta": {"refusal": "I will not."}}]}
        self.event(refusal)
        self.done()

    def answer_cut(self):
        self.begin()
        self.event(self.text("Once upon"))
        self.done("length", usage=None)

    def answer_half(self):
        self.begin()
        self.event(self.text("half an answer"))

    def answer_broken(self):
        self.begin()
        self.event(self.text("some text"), {"error": {"message": "out of\nmemory\x1b[31m"}})

    def answer_fail(self):
        self.begin(400, "application/json")
        self.wfile.write(json.dumps({"error": {"message": "no [bold]such\x1b]0;x\u202e"}}).encode())


@contextlib.contextmanager
def serving():
    """The server, for the tests of a module."""
    with Service() as service:
        threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
        yield service
        service.shutdown()


def environment(service, **changes):
    kept = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")
    }
    keys = {"OPENAI_API_KEY": "sk-1", "OPENROUTER_API_KEY": "sk-2", "MINILLMLIB_MODEL": "openai:m"}
    urls = dict.fromkeys(("OPENAI_BASE_URL", "OPENROUTER_BASE_URL"), service.url)
    return {**kept, **keys, **urls, "TERM": "xterm", "LC_ALL": "C.UTF-8", **changes}


# What an interpreter reads when it starts, or imports.
STARTING = re.compile("PYTHON|LC_|LANG|NO_COLOR|COLUMNS|NOT_INSTALLED")


def needs_start(changes):
    """Whether these changes of the environment need an interpreter of their own."""
    return not CAN_FORK or any(value and STARTING.match(name) for name, value in changes.items())


class Interpreter:
    """An interpreter with all imports done, which forks for each start of the program."""

    def __init__(self):
        self._door, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, WARM, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # it has no part in what is typed
        )
        theirs.close()
        atexit.register(self.close)

    def fork(self, *descriptors):
        socket.send_fds(self._door, [b"."], descriptors)

    def close(self):
        self._door.close()
        self._process.wait()


interpreter = functools.cache(Interpreter)


class Program:
    """The program in a fork of that interpreter; otherwise like a process of `subprocess`."""

    def __init__(self, arguments, env, stdin, stdout, stderr, *, has_terminal=False):
        ours, theirs = socket.socketpair()
        ends = [_ends(stdin, "wb"), _ends(stdout, "rb"), _ends(stderr, "rb")]
        self.stdin, self.stdout, self.stderr = (mine for mine, _ in ends)
        descriptors = [end for _, end in ends]
        interpreter().fork(theirs.fileno(), *descriptors)
        theirs.close()
        for descriptor in descriptors:
            os.close(descriptor)
        start = {"arguments": [*map(os.fsdecode, arguments)], "environment": env,
                 "folder": os.getcwd(), "has_terminal": has_terminal}  # fmt: skip # noqa: PTH109
        ours.sendall(json.dumps(start).encode() + b"\n")
        ours.settimeout(PATIENCE_SECS)
        self._wire, self._told = ours, ours.makefile("rb", 0)
        self.pid = int(self._told.readline())
        self.returncode = None

    def wait(self, patience_secs=PATIENCE_SECS):
        if self.returncode is None:
            self._wire.settimeout(patience_secs)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._wire.close()
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def talk(self, given):
        """Give it its input, and return its output and errors."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            texts = [pool.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            try:
                with contextlib.suppress(BrokenPipeError), self.stdin:
                    self.stdin.write(given)
                self.wait()
            except TimeoutError:
                self.kill()
                raise
            out, err = (text.result() for text in texts)
        self.stdout.close()
        self.stderr.close()
        return out, err


def _ends(stream, mode):
    """Our end of a standard stream, if we have one, and the descriptor of theirs."""
    if stream == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if stream != subprocess.PIPE:
        return None, os.dup(stream)
    ours, theirs = os.pipe() if mode == "rb" else os.pipe()[::-1]
    return open(ours, mode), theirs  # noqa: PTH123


def run(service, *arguments, given: bytes = b"", **changes):
    """The program as another program runs it: nothing is a terminal."""
    env = environment(service, **changes)
    return run_program(arguments, given, env, is_fork=not needs_start(changes))


def run_program(arguments, given: bytes, env, *, is_fork=CAN_FORK):
    """Return the exit code, the output and the errors."""
    if is_fork:
        process = Program(arguments, env, *[subprocess.PIPE] * 3)
        out, err = process.talk(given)
    else:
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            input=given, capture_output=True, timeout=PATIENCE_SECS, env=env, check=False,
        )  # fmt: skip
        out, err = process.stdout, process.stderr
    return process.returncode, out.decode(), err.decode()


class Terminal:
    """A terminal of its own with the program in it."""

    def __init__(self, service, *arguments, changes=None, **streams):
        import pty

        self._master, slave = pty.openpty()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **streams}
        env = environment(service, **(changes or {}))
        if needs_start(changes or {}):
            command = [sys.executable, "-c", PROGRAM, *arguments]
            self.process = subprocess.Popen(command, **streams, env=env, start_new_session=True)
        else:
            self.process = Program(arguments, env, **streams, has_terminal=True)
        os.close(slave)
        self._unread = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        if self.process.stdout:
            self.process.stdout.close()

    def type(self, keys):
        os.write(self._master, keys.encode())

    def give_up_the_line(self):
        """Ctrl-C at a prompt. One that comes while readline still echoes takes effect at the next."""
        for _ in range(20):
            self.type(CTRL_C)
            deadline = time.monotonic() + 1  # its echo comes at once, and is not the answer
            while "(Ctrl-D leaves)" not in self._unread and time.monotonic() < deadline:
                self._read(0.1)
            if "(Ctrl-D leaves)" in self._unread:
                break
        self.until(r"\(Ctrl-D leaves\)")

    def until(self, pattern):
        """Return what is shown from the end of the last call to the end of this pattern."""
        deadline = time.monotonic() + PATIENCE_SECS
        while not (found := re.search(pattern, self._unread)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self._unread!r}"
            assert self._read(), f"ended without {pattern!r}: {self._unread!r}"
        shown, self._unread = self._unread[: found.end()], self._unread[found.end() :]
        return shown

    def end(self):
        """The exit code and all that is shown until then."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_SECS), self._unread

    def _read(self, patience_secs=PATIENCE_SECS):
        if not select.select([self._master], [], [], patience_secs)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux tells that the other side has ended
            return False
        self._unread = (self._unread + data.decode()).replace("\r\n", "\n")
        return bool(data)
