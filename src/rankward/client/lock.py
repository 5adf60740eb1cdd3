"""Locks that a forked process finds open: whoever held one in its parent is not there to open it."""

from __future__ import annotations

import os
import threading
import weakref


class ProcessLock:
    """A lock among the threads of one process, even of one that was forked while the lock was held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _made.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Open it, whoever holds it."""
        self._lock = threading.Lock()


_made: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in _made:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
