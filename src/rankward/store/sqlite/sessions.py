"""Sessions of the portal, in a database of their own: nothing else has to look again when one is seen."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from rankward.errors import StoreUnavailable
from rankward.records import TimeUs
from rankward.store.sessions import Attempts, Session
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction

_SCHEMA = """
CREATE TABLE session (
    digest BLOB PRIMARY KEY,
    created_us INTEGER NOT NULL,
    seen_us INTEGER NOT NULL,
    notice TEXT,                        -- for the next page
    body BLOB NOT NULL                  -- MessagePack
) WITHOUT ROWID;
CREATE TABLE failure (
    address TEXT NOT NULL,
    time_us INTEGER NOT NULL
);
CREATE INDEX failure_by_time ON failure (time_us);
"""
_COUNT_TABLES = "SELECT count(*) FROM sqlite_schema WHERE name = 'session'"
_INSERT = "INSERT INTO session VALUES (?, ?, ?, NULL, ?)"
_SELECT = "SELECT seen_us, body FROM session WHERE digest = ?"
_TOUCH = "UPDATE session SET seen_us = max(seen_us, ?) WHERE digest = ?"
_LEAVE = "UPDATE session SET notice = ? WHERE digest = ?"
_SELECT_NOTICE = "SELECT notice FROM session WHERE digest = ?"
_DELETE = "DELETE FROM session WHERE digest = ?"
_EXPIRE = "DELETE FROM session WHERE created_us < ? OR seen_us < ?"
_FAIL = "INSERT INTO failure VALUES (?, ?)"
_FORGET_FAILURES = "DELETE FROM failure WHERE time_us < ?"
_COUNT = "SELECT count(*) FILTER (WHERE address = ?), count(*) FROM failure WHERE time_us >= ?"
_FORGIVE = "DELETE FROM failure WHERE address = ?"
_session = msgspec.msgpack.Decoder(Session)


class SqliteSessions:
    """Implements `sessions.Sessions`. Safe to share between threads."""

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the sessions, making their file if there is none.

        Args:
            path: of their file.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        self._database = open_database(path, must_exist=False)
        path.chmod(0o600)
        self._make_tables()

    @transaction
    def _make_tables(self, connection: sqlite3.Connection) -> None:
        [count] = connection.execute(_COUNT_TABLES).fetchone()
        if count == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)

    @transaction
    def begin(self, connection: sqlite3.Connection, session: Session) -> None:
        """See `sessions.Sessions`."""
        connection.execute(
            _INSERT, (session.digest, session.created_us, session.seen_us, msgspec.msgpack.encode(session))
        )

    def find(self, digest: bytes) -> Session | None:
        """See `sessions.Sessions`."""
        rows = self._database.rows(_SELECT, digest)
        with contextlib.suppress(StoreUnavailable):
            if not rows and self._database.refresh():  # it may have begun on another machine, a moment ago
                rows = self._database.rows(_SELECT, digest)
        return msgspec.structs.replace(_session.decode(rows[0][1]), seen_us=rows[0][0]) if rows else None

    @transaction
    def touch(self, connection: sqlite3.Connection, digest: bytes, now_us: TimeUs) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_TOUCH, (now_us, digest))

    @transaction
    def leave_notice(self, connection: sqlite3.Connection, digest: bytes, notice: str) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_LEAVE, (notice, digest))

    def take_notice(self, digest: bytes) -> str | None:
        """See `sessions.Sessions`."""
        rows = self._database.rows(_SELECT_NOTICE, digest)
        if not rows or rows[0][0] is None:
            return None
        return self._take_notice(digest)

    @transaction
    def _take_notice(self, connection: sqlite3.Connection, digest: bytes) -> str | None:
        row = connection.execute(_SELECT_NOTICE, (digest,)).fetchone()
        connection.execute(_LEAVE, (None, digest))
        return None if row is None else row[0]

    @transaction
    def end(self, connection: sqlite3.Connection, digest: bytes) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_DELETE, (digest,))

    @transaction
    def expire(self, connection: sqlite3.Connection, *, created_before_us: TimeUs, seen_before_us: TimeUs) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_EXPIRE, (created_before_us, seen_before_us))

    @transaction
    def note_failure(
        self, connection: sqlite3.Connection, address: str, now_us: TimeUs, *, forget_before_us: TimeUs
    ) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_FORGET_FAILURES, (forget_before_us,))
        connection.execute(_FAIL, (address, now_us))

    def attempts(self, address: str, since_us: TimeUs) -> Attempts:
        """See `sessions.Sessions`."""
        [[from_here, everywhere]] = self._database.rows(_COUNT, address, since_us)
        return Attempts(from_here, everywhere)

    @transaction
    def forgive(self, connection: sqlite3.Connection, address: str) -> None:
        """See `sessions.Sessions`."""
        connection.execute(_FORGIVE, (address,))

    def close(self) -> None:
        """See `sessions.Sessions`."""
        self._database.close()
