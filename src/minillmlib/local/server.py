"""Serves a local model, with one server for each model and process."""

from __future__ import annotations

import atexit
import os
import secrets
import sys
from pathlib import Path
from typing import Self

from minillmlib.errors import LocalModelError
from minillmlib.local.model import MODEL_NAME, default_model_path
from minillmlib.local.process import ServerProcess, Settings, check_engine
from minillmlib.locks import fork_safe_lock

GGUF_MAGIC = b"GGUF"


class LocalServer:
    """Serves a model at 127.0.0.1 from a child process, which ends with this process at the latest.

    The server speaks the chat completions, completions, messages and responses wires of llama.cpp,
    computes with one thread, and accepts only its random `key`. All methods are thread-safe.

    Args:
        model: A GGUF file, or None for the built-in model, which is downloaded on first use.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None) -> None:
        # Symbolic links stay unresolved: the parts of a split model are found by their names.
        self._model = None if model is None else Path(model).expanduser().absolute()
        self.key: str = secrets.token_urlsafe(32)
        self._lock = fork_safe_lock()
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
        """Whether the child is running."""
        process = self._process
        return process is not None and process.is_running

    @property
    def url(self) -> str:
        """The server's origin, like `http://127.0.0.1:8080`. It changes with every start.

        Raises `LocalModelError` if the server was not started.
        """
        return self._running_process().url

    @property
    def base_url(self) -> str:
        """The base URL of the wires: the origin and `/v1`."""
        return f"{self.url}/v1"

    @property
    def process_id(self) -> int:
        """The child's process id. Raises `LocalModelError` if the server was not started."""
        return self._running_process().process_id

    def start(self) -> None:
        """Start the child, or a new one if it has died. Does nothing while it runs.

        Blocks until the model is loaded: about a second for the built-in one, at most 300.
        Raises `MissingExtraError` without the extra `local`, and `LocalModelError` if the
        model cannot be downloaded, read or served, or if the platform has no engine.
        """
        with self._lock:
            if not self.is_running:
                self.stop()
                self._process = ServerProcess(self._settings())

    def stop(self) -> None:
        """End the child and return when it is gone. Does nothing if there is none.

        Never waits for a `start` in another thread.
        """
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def describe_end(self) -> str | None:
        """Return how a child that died by itself ended, or None. Blocks for at most two seconds.

        Waits because the connections of a dying child break just before it is gone.
        """
        process = self._process
        return None if process is None else process.describe_end()

    def release(self) -> None:
        """Stop keeping the child alive from this process."""
        if process := self._process:
            process.close_pipes()

    def _running_process(self) -> ServerProcess:
        if process := self._process:
            return process
        raise LocalModelError(f"{self!r} is not running; call its start() first")

    def _settings(self) -> Settings:
        check_engine()
        if self._model is None:
            return Settings(
                model=str(default_model_path()),
                alias=MODEL_NAME,
                key=self.key,
                temperature=0.0,  # so small a model is right only without randomness
                n_predict=512,  # and may never stop by itself
            )
        _check_file(self._model)
        return Settings(model=str(self._model), alias=self._model.stem, key=self.key)


# One server for each model and process: a forked process starts another one.
_shared: dict[tuple[int, Path | None], LocalServer] = {}


def shared_server(model: str | os.PathLike[str] | None) -> LocalServer:
    """Return the server of `model` that this process shares; it may not be started yet.

    It stops when the process that started it exits.
    """
    path = None if model is None else Path(model).expanduser().absolute()
    # No lock, which a fork could copy while it is locked: `setdefault` is atomic.
    return _shared.setdefault((os.getpid(), path), LocalServer(path))


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise LocalModelError(
            f"the model file {str(path)!r} cannot be read ({error.strerror}); name a GGUF file"
        ) from error
    if magic != GGUF_MAGIC:
        raise LocalModelError(
            f"the model file {str(path)!r} is not in the GGUF format; "
            "convert it with llama.cpp's tools, or name another file"
        )


def _stop_shared() -> None:
    for (process_id, _), server in list(_shared.items()):
        if process_id == os.getpid():
            server.stop()


def _release_shared() -> None:
    for server in list(_shared.values()):
        server.release()


atexit.register(_stop_shared)
if sys.platform != "win32":
    # Otherwise a forked process would keep the model alive after its parent has ended.
    os.register_at_fork(after_in_child=_release_shared)
