"""Automatic optimizations in the catalog's database, in a table of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rankward.errors import Conflict
from rankward.store.optimizations import Optimization
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction

SCHEMA = """
CREATE TABLE optimization (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order in which they were begun
    loop_id TEXT NOT NULL,
    optimization_id TEXT NOT NULL,
    finished INTEGER NOT NULL,
    kept_model_id TEXT,                 -- of the version that must not be pruned
    body BLOB NOT NULL,                 -- JSON
    UNIQUE (loop_id, optimization_id)
);
"""
_COUNT_UNFINISHED = "SELECT count(*) FROM optimization WHERE loop_id = ? AND NOT finished"
_INSERT = "INSERT INTO optimization (loop_id, optimization_id, finished, kept_model_id, body) VALUES (?, ?, ?, ?, ?)"
_UPDATE = "UPDATE optimization SET finished = ?, kept_model_id = ?, body = ? WHERE loop_id = ? AND optimization_id = ?"
_SELECT_ONE = "SELECT body FROM optimization WHERE loop_id = ? AND optimization_id = ?"
_SELECT_LOOP = "SELECT body FROM optimization WHERE loop_id = ? ORDER BY number DESC"
_SELECT_UNFINISHED = "SELECT body FROM optimization WHERE NOT finished ORDER BY number"

_optimization = msgspec.json.Decoder(Optimization)
_encode = msgspec.json.Encoder().encode


class SqliteOptimizations:
    """Implements `optimizations.Optimizations`. Safe to share between threads."""

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the table.

        Args:
            path: of a catalog, which has made it.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        self._database = open_database(path)

    def _found(self, query: str, *arguments: object) -> list[Optimization]:
        return [_optimization.decode(body) for (body,) in self._database.rows(query, *arguments)]

    @transaction
    def add(self, connection: sqlite3.Connection, optimization: Optimization) -> None:
        """See `optimizations.Optimizations`."""
        if not optimization.state.finished:
            [count] = connection.execute(_COUNT_UNFINISHED, (optimization.loop_id,)).fetchone()
            if count:
                raise Conflict("an optimization of the loop goes on already: wait for its end, which its history shows")
        row = (
            optimization.loop_id,
            optimization.optimization_id,
            optimization.state.finished,
            _kept(optimization),
            _encode(optimization),
        )
        connection.execute(_INSERT, row)

    @transaction
    def write(self, connection: sqlite3.Connection, optimization: Optimization) -> bool:
        """See `optimizations.Optimizations`."""
        row = (
            optimization.state.finished,
            _kept(optimization),
            _encode(optimization),
            optimization.loop_id,
            optimization.optimization_id,
        )
        return connection.execute(_UPDATE, row).rowcount == 1

    def find(self, loop_id: str, optimization_id: str) -> Optimization | None:
        """See `optimizations.Optimizations`."""
        found = self._found(_SELECT_ONE, loop_id, optimization_id)
        return found[0] if found else None

    def listed(self, loop_id: str) -> Sequence[Optimization]:
        """See `optimizations.Optimizations`."""
        return self._found(_SELECT_LOOP, loop_id)

    def unfinished(self) -> Sequence[Optimization]:
        """See `optimizations.Optimizations`."""
        return self._found(_SELECT_UNFINISHED)

    def close(self) -> None:
        """See `optimizations.Optimizations`."""
        self._database.close()


def _kept(optimization: Optimization) -> str | None:
    if optimization.replaced is None or not optimization.keeps_replaced:
        return None
    return optimization.replaced.model_id
