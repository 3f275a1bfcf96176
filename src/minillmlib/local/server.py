"""The server of one local model, and the one that everybody in this process shares."""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Self

from minillmlib.errors import LocalModelError
from minillmlib.local.model import MODEL_NAME, default_model_path
from minillmlib.local.process import ServerProcess, Settings, check_engine

__all__ = ["LocalServer", "shared_server"]

GGUF_MAGIC = b"GGUF"
END_PATIENCE_SECS = 2.0

# So small a model is right only when it takes no chances, and may not find an end by itself.
DEMO_TEMPERATURE = 0.0
DEMO_TOKENS = 512


class LocalServer:
    """Serves a model at 127.0.0.1 from a child process, which ends with this one at the latest.

    The server speaks the chat completions, messages and responses wires of llama.cpp, computes
    with one thread, and answers only to its random `key`. Every method may be called from any
    thread.

    Args:
        model: A GGUF file, or None for the built-in model, which is downloaded at first use.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None) -> None:
        # Symbolic links stay: the parts of a split model are found by the name of the first.
        self._model = None if model is None else Path(model).expanduser().absolute()
        self._key = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._process: ServerProcess | None = None

    def __repr__(self) -> str:
        return f"LocalServer({str(self._model) if self._model else None!r})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the child is alive."""
        process = self._process
        return process is not None and process.is_running

    @property
    def url(self) -> str:
        """The server's origin, like `http://127.0.0.1:8080`. It changes with every start.

        Raises `LocalModelError` if the server was not started.
        """
        return self._started().url

    @property
    def base_url(self) -> str:
        """The prefix of the wires' paths: the origin and `/v1`."""
        return f"{self.url}/v1"

    @property
    def process_id(self) -> int:
        """The child's process id. Raises `LocalModelError` if the server was not started."""
        return self._started().process_id

    @property
    def key(self) -> str:
        """The only key that the server accepts."""
        return self._key

    def start(self) -> None:
        """Starts the child, or a new one if it has died; does nothing while it runs.

        Blocks until the model is loaded: about a second for the built-in one, at most 300.
        Raises `MissingExtraError` without the extra `local`, and `LocalModelError` when the
        model cannot be downloaded, read or served, or when the platform has no engine.
        """
        with self._lock:
            if not self.is_running:
                self.stop()
                self._process = ServerProcess(self._settings())

    def stop(self) -> None:
        """Ends the child and returns when it is gone. Does nothing if there is none.

        Never waits for a `start` that goes on in another thread.
        """
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def describe_end(self) -> str | None:
        """How a child that died on its own ended, or None. Blocks for two seconds at most.

        The wait is for a child whose connections broke just before it is gone.
        """
        process = self._process
        return None if process is None else process.describe_end(END_PATIENCE_SECS)

    def let_go(self) -> None:
        """Takes this process out of those that keep the child alive."""
        process = self._process
        if process is not None:
            process.let_go()

    def _started(self) -> ServerProcess:
        process = self._process
        if process is None:
            raise LocalModelError(f"{self!r} is not running; call its start() first")
        return process

    def _settings(self) -> Settings:
        check_engine()
        if self._model is None:
            path = str(default_model_path())
            return Settings(
                model=path,
                alias=MODEL_NAME,
                key=self._key,
                temperature=DEMO_TEMPERATURE,
                n_predict=DEMO_TOKENS,
            )
        _check_file(self._model)
        return Settings(model=str(self._model), alias=self._model.stem, key=self._key)


# One server for each model and process: a forked process starts its own.
_shared: dict[tuple[int, Path | None], LocalServer] = {}


def shared_server(model: str | os.PathLike[str] | None) -> LocalServer:
    """The server of `model` that this whole process shares, perhaps not started yet.

    It is stopped when the process that started it exits.
    """
    path = None if model is None else Path(model).expanduser().absolute()
    # No lock, which a fork could copy in its locked state: `setdefault` is atomic.
    return _shared.setdefault((os.getpid(), path), LocalServer(path))


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise LocalModelError(
            f"the model file {path} cannot be read ({error.strerror}); name a GGUF file"
        ) from error
    if magic != GGUF_MAGIC:
        raise LocalModelError(
            f"the model file {path} is not in the GGUF format; "
            "convert it with llama.cpp's tools or name another"
        )


def _stop_shared() -> None:
    for (process_id, _), server in list(_shared.items()):
        if process_id == os.getpid():
            server.stop()


def _let_go_of_shared() -> None:
    for server in list(_shared.values()):
        server.let_go()


atexit.register(_stop_shared)
if sys.platform != "win32":
    # Else a forked process would keep its parent's model alive after the parent is gone.
    os.register_at_fork(after_in_child=_let_go_of_shared)
