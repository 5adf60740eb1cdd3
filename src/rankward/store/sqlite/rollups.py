"""Figures of a loop in a SQLite database of their own, which may be deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rankward.errors import Conflict
from rankward.store.rollups import Place, RollupStep
from rankward.store.sqlite.live import as_world_error, connect, os_error_as_ours

FORMAT = 4
"""Of the tables and of what stands in them: a file of another format is thrown away."""
_CHECKPOINT_PAGES = 1_000  # nobody else checkpoints it

_SCHEMA = """
CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), body BLOB NOT NULL);
CREATE TABLE figures (
    series TEXT NOT NULL,
    at INTEGER NOT NULL,
    newest INTEGER NOT NULL,            -- offset in the joined log
    body BLOB NOT NULL,                 -- MessagePack
    PRIMARY KEY (series, at)
) WITHOUT ROWID;
CREATE INDEX figures_newest ON figures (newest);
"""
_SELECT_STATE = "SELECT body FROM state"
_UPSERT_STATE = "INSERT INTO state VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET body = excluded.body"
_SELECT_ROW = "SELECT body FROM figures WHERE series = ? AND at = ?"
_SELECT_ROWS = "SELECT at, body FROM figures WHERE series = ? AND at >= ? AND at < ? ORDER BY at"
_SELECT_NEWEST = "SELECT at, body FROM figures WHERE series = ? ORDER BY at DESC LIMIT ?"
_UPSERT_ROW = "INSERT OR REPLACE INTO figures (series, at, newest, body) VALUES (?, ?, ?, ?)"
_DELETE_BEFORE = "DELETE FROM figures WHERE series = ? AND at < ?"
_DELETE_FROM = "DELETE FROM figures WHERE newest >= ?"
_UNREADABLE = {"SQLITE_NOTADB", "SQLITE_CORRUPT"}


class SqliteRollups:
    """Implements `rollups.Rollups` on one folder."""

    def __init__(self, folder: Path) -> None:
        """Open the figures, making the file if there is none, or none of this format.

        Args:
            folder: of these figures alone.

        Raises:
            StoreUnavailable: the folder cannot be used.
        """
        self._path = folder / "figures.sqlite"
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_error_as_ours(error, folder) from error
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in _UNREADABLE:
                raise as_world_error(error, self._path) from error
            self._discard()
            with self._translated():
                self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path, must_exist=False)
        try:
            # What a loss of power takes away is taken from the joined log again.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute("PRAGMA secure_delete = ON")  # action ids of erased events must not linger
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    [version] = connection.execute("PRAGMA user_version").fetchone()
                    if version != FORMAT:  # and nobody was quicker
                        _make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _discard(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise as_world_error(error, self._path) from error

    def state(self) -> bytes | None:
        """See `rollups.Rollups`."""
        with self._lock, self._translated():
            row = self._connection.execute(_SELECT_STATE).fetchone()
            return row[0] if row else None

    def get(self, places: Collection[Place]) -> Mapping[Place, bytes]:
        """See `rollups.Rollups`."""
        found = {}
        with self._lock, self._translated():
            for place in places:
                row = self._connection.execute(_SELECT_ROW, place).fetchone()
                if row:
                    found[place] = row[0]
        return found

    def read(self, series: str, start: int, end: int) -> Sequence[tuple[int, bytes]]:
        """See `rollups.Rollups`."""
        with self._lock, self._translated():
            return self._connection.execute(_SELECT_ROWS, (series, start, end)).fetchall()

    def newest(self, series: str, *, limit: int) -> Sequence[tuple[int, bytes]]:
        """See `rollups.Rollups`."""
        with self._lock, self._translated():
            return self._connection.execute(_SELECT_NEWEST, (series, limit)).fetchall()[::-1]

    def commit(self, step: RollupStep) -> None:
        """See `rollups.Rollups`."""
        rows = [(place.series, place.at, row.newest, row.body) for place, row in step.rows.items()]
        with self._lock, self._translated(), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(_SELECT_STATE).fetchone()
            if (row[0] if row else None) != step.over:
                raise Conflict("another process keeps these figures, too: begin again from what is on record")
            if step.forget_from is not None:
                connection.execute(_DELETE_FROM, (step.forget_from,))
            connection.executemany(_DELETE_BEFORE, step.drop.items())
            connection.executemany(_UPSERT_ROW, rows)
            connection.execute(_UPSERT_STATE, (step.state,))
        if step.forget_from is not None:
            with self._lock, self._translated():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """See `rollups.Rollups`."""
        with self._lock:
            self._connection.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        connection.execute(f'DROP TABLE "{name}"')
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
