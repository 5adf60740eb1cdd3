"""Challengers in the catalog's database, in tables of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rankward.errors import Conflict
from rankward.store.challengers import CHALLENGERS_MAX, Challenger, ChallengerKind
from rankward.store.ports import SetAside
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction

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

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the tables.

        Args:
            path: of a catalog, which has made them.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        self._database = open_database(path)

    @transaction
    def add(self, connection: sqlite3.Connection, challenger: Challenger) -> None:
        """See `challengers.Challengers`."""
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
        return [_challenger.decode(body) for (body,) in self._database.rows(_SELECT, loop_id)]

    @transaction
    def write(self, connection: sqlite3.Connection, challenger: Challenger, *, progress: bytes | None = None) -> bool:
        """See `challengers.Challengers`."""
        return connection.execute(_UPDATE, (_encode(challenger), progress, challenger.key)).rowcount == 1

    def progress(self, key: str) -> bytes | None:
        """See `challengers.Challengers`."""
        rows = self._database.rows(_SELECT_PROGRESS, key)
        return rows[0][0] if rows else None

    @transaction
    def delete(self, connection: sqlite3.Connection, key: str) -> bool:
        """See `challengers.Challengers`."""
        connection.execute(_DELETE_ASIDES, (key,))
        return connection.execute(_DELETE, (key,)).rowcount == 1

    @transaction
    def set_aside(self, connection: sqlite3.Connection, key: str, event: SetAside) -> None:
        """See `challengers.Challengers`."""
        connection.execute(_INSERT_ASIDE, (event.loop_id, event.interaction, _encode(event), key))

    def set_asides(self, key: str) -> Sequence[SetAside]:
        """See `challengers.Challengers`."""
        return [_aside.decode(body) for (body,) in self._database.rows(_SELECT_ASIDES, key)]

    def close(self) -> None:
        """See `challengers.Challengers`."""
        self._database.close()
