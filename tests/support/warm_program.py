"""An interpreter that has imported the command line, and forks for each start of it.

`cli_program` runs it by its path: nearly all the time that a short command takes goes into imports.
A fork runs the program from `main()` to the end of the interpreter.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import socket
import sys
import termios

from minillmlib.cli import app, main  # noqa: F401 - `app` is what `main` imports first

for library in (
    "aiohttp",
    "genai_prices",
    "pydantic.type_adapter",
):  # of others, and imported later
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
gc.freeze()  # else each fork looks at all of it when it ends


def await_start(door: socket.socket) -> dict:
    """Fork for all who come through the door; return in a fork, with what it is to start."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        _, descriptors, *_ = socket.recv_fds(door, 1, 4)
        if not descriptors:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    door.close()
    return keep(*descriptors)


def keep(wire: int, *streams: int) -> dict:
    """Fork once more; wait for that one and tell how it ended, and return in it."""
    with open(wire, "r+b", 0) as told:
        start = json.loads(told.readline())
        if pid := os.fork():
            told.write(b"%d\n" % pid)
            for stream in streams:
                os.close(stream)
            _, status = os.waitpid(pid, 0)
            told.write(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return start


def become(start: dict) -> None:
    """Be as an interpreter that was started in this way."""
    os.environ.clear()
    os.environ.update(start["environment"])
    os.chdir(start["folder"])
    sys.argv[1:] = start["arguments"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        was = getattr(sys, name)
        buffering = 1 if name == "stderr" else -1
        stream = open(number, "w" if number else "r", buffering, was.encoding, was.errors, "\n", False)  # fmt: skip # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if start["has_terminal"]:
        os.setsid()
        terminal = next(number for number in (0, 2) if os.isatty(number))
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    become(await_start(socket.socket(fileno=int(sys.argv[1]))))
    main()
