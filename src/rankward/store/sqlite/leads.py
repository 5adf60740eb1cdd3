"""Who leads each loop, in a table of the catalog, and the fence around what is done for a loop."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rankward.errors import NotLeading
from rankward.store.ports import Fence

SCHEMA = """
CREATE TABLE lead (
    loop_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,               -- name of a node; '': nobody
    term INTEGER NOT NULL               -- grows whenever somebody takes the loop
);
"""
_SELECT_TERM = "SELECT term FROM lead WHERE loop_id = ?"

_fence: ContextVar[Fence | None] = ContextVar("fence", default=None)


@contextmanager
def acting(fence: Fence | None) -> Iterator[None]:
    """Let the changes of what runs inside be made only for as long as the loop is led under this term.

    Args:
        fence: the loop and the term. None: nothing is checked, as where there is one worker.
    """
    token = _fence.set(fence)
    try:
        yield
    finally:
        _fence.reset(token)


def current_fence() -> Fence | None:
    """Return the loop and the term that are being acted for; None: none is."""
    return _fence.get()


def check_lead(connection: sqlite3.Connection) -> None:
    """Look, in a transaction that has just begun, whether whoever makes it still leads the loop that it acts for.

    Raises:
        NotLeading: it does not.
    """
    fence = _fence.get()
    if fence is None:
        return
    row = connection.execute(_SELECT_TERM, (fence.loop_id,)).fetchone()
    if row is None or row[0] != fence.term:
        raise NotLeading("another worker leads this loop now, or it was deleted: what is done for it here must end")
