"""Locks in forked processes: what another thread held at the time of the fork is free there."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import pytest

from minillmlib import locks
from minillmlib.deferred_imports import asyncio_module

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def in_a_child(check) -> bool:
    """Whether something is true in a forked process."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def is_free(lock) -> bool:
    """Whether another thread than this one could take a lock."""
    found = []

    def take():
        if lock.acquire(blocking=False):
            lock.release()
            found.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(found)


@contextmanager
def held_by_another_thread(lock):
    taken, leave = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def test_a_lock_that_another_thread_holds_is_free_in_a_child_and_held_in_the_parent():
    first, second = locks.fork_safe_lock(), locks.fork_safe_lock()
    with held_by_another_thread(first), held_by_another_thread(second):
        assert not is_free(first)
        assert in_a_child(lambda: is_free(first) and is_free(second))
        assert not is_free(first)
        assert not is_free(second)
    assert is_free(first)
    assert is_free(second)


def test_each_fork_is_counted_in_the_child():
    before = locks.fork_count
    assert in_a_child(
        lambda: (
            locks.fork_count == before + 1 and in_a_child(lambda: locks.fork_count == before + 2)
        )
    )
    assert locks.fork_count == before


def test_a_fork_waits_for_an_import_of_another_thread():
    asyncio_module()  # from its import on
    with held_by_another_thread(locks.import_lock) as leave:
        timer = threading.Timer(0.03, leave.set)
        timer.start()
        assert in_a_child(lambda: leave.is_set() and is_free(locks.import_lock))
        timer.join()
    assert is_free(locks.import_lock)


def test_a_fork_waits_for_no_import_that_does_not_end(monkeypatch):
    asyncio_module()
    monkeypatch.setattr(locks, "IMPORT_SECS", 0.01)
    with held_by_another_thread(locks.import_lock) as leave:
        assert in_a_child(lambda: not leave.is_set() and is_free(locks.import_lock))
        assert not is_free(locks.import_lock)
    assert is_free(locks.import_lock)
