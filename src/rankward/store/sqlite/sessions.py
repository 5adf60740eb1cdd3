"""Sessions of the portal, in a database of their own: nothing else has to look again when one is seen."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rankward.records import TimeUs
from rankward.store.sessions import Attempts, Session
from rankward.store.sqlite.live import as_world_error, connect

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    digest BLOB PRIMARY KEY,
    created_us INTEGER NOT NULL,
    seen_us INTEGER NOT NULL,
    notice TEXT,                        -- for the next page
    body BLOB NOT NULL                  -- MessagePack
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    address TEXT NOT NULL,
    time_us INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS failure_by_time ON failure (time_us);
"""
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

    def __init__(self, path: Path) -> None:
        """Open the sessions, making their file if there is none.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = connect(path, must_exist=False)
            path.chmod(0o600)
            with self._change() as connection:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
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

    def _row(self, query: str, *arguments: object) -> Any:
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchone()
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def begin(self, session: Session) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(
                _INSERT, (session.digest, session.created_us, session.seen_us, msgspec.msgpack.encode(session))
            )

    def find(self, digest: bytes) -> Session | None:
        """See `sessions.Sessions`."""
        row = self._row(_SELECT, digest)
        return None if row is None else msgspec.structs.replace(_session.decode(row[1]), seen_us=row[0])

    def touch(self, digest: bytes, now_us: TimeUs) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_TOUCH, (now_us, digest))

    def leave_notice(self, digest: bytes, notice: str) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_LEAVE, (notice, digest))

    def take_notice(self, digest: bytes) -> str | None:
        """See `sessions.Sessions`."""
        row = self._row(_SELECT_NOTICE, digest)
        if row is None or row[0] is None:
            return None
        with self._change() as connection:
            connection.execute(_LEAVE, (None, digest))
        return str(row[0])

    def end(self, digest: bytes) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_DELETE, (digest,))

    def expire(self, *, created_before_us: TimeUs, seen_before_us: TimeUs) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_EXPIRE, (created_before_us, seen_before_us))

    def note_failure(self, address: str, now_us: TimeUs, *, forget_before_us: TimeUs) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_FORGET_FAILURES, (forget_before_us,))
            connection.execute(_FAIL, (address, now_us))

    def attempts(self, address: str, since_us: TimeUs) -> Attempts:
        """See `sessions.Sessions`."""
        from_here, everywhere = self._row(_COUNT, address, since_us)
        return Attempts(from_here, everywhere)

    def forgive(self, address: str) -> None:
        """See `sessions.Sessions`."""
        with self._change() as connection:
            connection.execute(_FORGIVE, (address,))

    def close(self) -> None:
        """See `sessions.Sessions`."""
        with self._lock:
            self._connection.close()
