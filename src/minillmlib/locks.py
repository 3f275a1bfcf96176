"""Locks that do not hang a forked child, whatever other threads did at the time of the fork."""

from __future__ import annotations

import os
import sys
import threading
import weakref

IMPORT_SECS = 10.0  # how long a fork waits for an import of ours

fork_count = 0  # forks between the first process of this program and this one

_locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()


def fork_safe_lock() -> threading.RLock:
    """Return a lock that is free in a forked child: no thread that may hold it exists there."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


# Held over the imports on first use. A child would wait for ever for a module that another thread
# was importing at the fork, so forks wait for the import.
import_lock = fork_safe_lock()


def delay_forks_over_imports() -> None:
    """Let forks wait for `import_lock`, from now on.

    To be called after the import of logging, whose lock the imports need: a fork takes the locks
    that were registered last first.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait_for_imports, after_in_parent=_go_on)


def _wait_for_imports() -> None:
    former = _executor_lock()
    import_lock.acquire(timeout=IMPORT_SECS)
    lock = _executor_lock()
    if former is None and lock is not None:
        # Its module was imported meanwhile, and releases it after this fork, but did not take it.
        lock.acquire(blocking=False)


def _executor_lock() -> threading.Lock | None:
    """Return the lock that `concurrent.futures.thread` holds over forks, if it is imported."""
    return getattr(sys.modules.get("concurrent.futures.thread"), "_global_shutdown_lock", None)


def _go_on() -> None:
    if import_lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - as in `Condition`
        import_lock.release()


def _free_all() -> None:
    global fork_count  # noqa: PLW0603 - of this process
    fork_count += 1
    for lock in _locks:
        lock._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001 - as in `threading`


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
