"""Challengers in the catalog's database, in tables of their own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rankward.errors import Conflict
from rankward.store.challengers import CHALLENGERS_MAX, Challenger, ChallengerKind
from rankward.store.ports import SetAside
from rankward.store.sqlite.live import as_world_error, connect

SCHEMA = """
CREATE TABLE challenger (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order in which they were added
    key TEXT NOT NULL UNIQUE,
    loop_id TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    progress BLOB,
    UNIQUE (loop_id, name)
);
CREATE TABLE challenger_aside (
    key TEXT NOT NULL,                  -- of the challenger
    loop_id TEXT NOT NULL,
    interaction INTEGER NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (key, interaction)
);
"""
_INSERT = "INSERT INTO challenger (key, loop_id, name, body) VALUES (?, ?, ?, ?)"
_SELECT = "SELECT body FROM challenger WHERE loop_id = ? ORDER BY number"
_UPDATE = "UPDATE challenger SET body = ?, progress = ? WHERE key = ?"
_SELECT_PROGRESS = "SELECT progress FROM challenger WHERE key = ?"
_DELETE = "DELETE FROM challenger WHERE key = ?"
_INSERT_ASIDE = (
    "INSERT OR IGNORE INTO challenger_aside SELECT key, ?, ?, ? FROM challenger WHERE key = ?"  # unless it is gone
)
_SELECT_ASIDES = "SELECT body FROM challenger_aside WHERE key = ? ORDER BY interaction"
_DELETE_ASIDES = "DELETE FROM challenger_aside WHERE key = ?"

_challenger = msgspec.json.Decoder(Challenger)
_aside = msgspec.json.Decoder(SetAside)
_encode = msgspec.json.Encoder().encode


class SqliteChallengers:
    """Implements `challengers.Challengers`. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open the tables.

        Args:
            path: of a catalog, which has made them.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = connect(path)
        except sqlite3.Error as error:
            raise as_world_error(error, path) from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _rows(self, query: str, *arguments: object) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def add(self, challenger: Challenger) -> None:
        """See `challengers.Challengers`."""
        with self._change() as connection:
            others = [_challenger.decode(body) for (body,) in connection.execute(_SELECT, (challenger.loop_id,))]
            if any(each.name == challenger.name for each in others):
                raise Conflict(
                    f"there is a challenger {challenger.name!r} already: choose another name, or remove that one first"
                )
            asked = sum(each.kind is ChallengerKind.ASKED for each in others)
            if challenger.kind is ChallengerKind.ASKED and asked >= CHALLENGERS_MAX:
                raise Conflict(
                    f"the loop has {asked} challengers, the bound is {CHALLENGERS_MAX}: remove one of them first"
                )
            connection.execute(_INSERT, (challenger.key, challenger.loop_id, challenger.name, _encode(challenger)))

    def listed(self, loop_id: str) -> Sequence[Challenger]:
        """See `challengers.Challengers`."""
        return [_challenger.decode(body) for (body,) in self._rows(_SELECT, loop_id)]

    def write(self, challenger: Challenger, *, progress: bytes | None = None) -> bool:
        """See `challengers.Challengers`."""
        with self._change() as connection:
            return connection.execute(_UPDATE, (_encode(challenger), progress, challenger.key)).rowcount == 1

    def progress(self, key: str) -> bytes | None:
        """See `challengers.Challengers`."""
        rows = self._rows(_SELECT_PROGRESS, key)
        return rows[0][0] if rows else None

    def delete(self, key: str) -> bool:
        """See `challengers.Challengers`."""
        with self._change() as connection:
            connection.execute(_DELETE_ASIDES, (key,))
            return connection.execute(_DELETE, (key,)).rowcount == 1

    def set_aside(self, key: str, event: SetAside) -> None:
        """See `challengers.Challengers`."""
        with self._change() as connection:
            connection.execute(_INSERT_ASIDE, (event.loop_id, event.interaction, _encode(event), key))

    def set_asides(self, key: str) -> Sequence[SetAside]:
        """See `challengers.Challengers`."""
        return [_aside.decode(body) for (body,) in self._rows(_SELECT_ASIDES, key)]

    def close(self) -> None:
        """See `challengers.Challengers`."""
        with self._lock:
            self._connection.close()
