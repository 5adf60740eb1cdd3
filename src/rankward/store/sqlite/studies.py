"""Studies in the catalog's database, in tables of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import zstandard

from rankward.errors import Conflict, Overloaded
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction
from rankward.store.studies import Study, StudyKind, StudyState

SCHEMA = """
CREATE TABLE study (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order in which they were asked
    key TEXT NOT NULL UNIQUE,
    loop_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    study_id TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    UNIQUE (loop_id, kind, study_id)
);
CREATE TABLE finding (
    key TEXT PRIMARY KEY,               -- of its study
    loop_id TEXT NOT NULL,
    body BLOB NOT NULL                  -- compressed
);
"""
_COUNT_UNFINISHED = "SELECT count(*) FROM study WHERE state IN (?, ?) AND kind <> ?"
_INSERT = "INSERT INTO study (key, loop_id, kind, study_id, state, attempts, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
_SELECT_ONE = "SELECT body FROM study WHERE loop_id = ? AND kind = ? AND study_id = ?"
_SELECT_BY_KEY = "SELECT body FROM study WHERE key = ?"
_SELECT_KIND = "SELECT body FROM study WHERE loop_id = ? AND kind = ? ORDER BY number"
_SELECT_UNFINISHED = "SELECT body FROM study WHERE state IN (?, ?) ORDER BY number"
_UPDATE = "UPDATE study SET state = ?, attempts = ?, body = ? WHERE key = ? AND attempts <= ?"
_BEGIN = "UPDATE study SET state = ?, attempts = ?, body = ? WHERE key = ? AND attempts < ?"
_DELETE = "DELETE FROM study WHERE key = ?"
_UPSERT_FINDING = "INSERT INTO finding VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body"
_SELECT_FINDING = "SELECT body FROM finding WHERE key = ?"
_DELETE_FINDING = "DELETE FROM finding WHERE key = ?"

_UNFINISHED = (StudyState.WAITING, StudyState.RUNNING)
_study = msgspec.json.Decoder(Study)
_encode = msgspec.json.Encoder().encode


class SqliteStudies:
    """Implements `studies.Studies`. Safe to share between threads."""

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the tables.

        Args:
            path: of a catalog, which has made them.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        self._database = open_database(path)

    def _first(self, query: str, *arguments: object) -> Study | None:
        rows = self._database.rows(query, *arguments)
        return _study.decode(rows[0][0]) if rows else None

    @transaction
    def add(self, connection: sqlite3.Connection, study: Study, *, waiting_max: int) -> None:
        """See `studies.Studies`."""
        if connection.execute(_SELECT_ONE, (study.loop_id, study.kind, study.study_id)).fetchone():
            raise Conflict(f"there is an {study.kind} {study.study_id!r} already: choose another id")
        [count] = connection.execute(_COUNT_UNFINISHED, (*_UNFINISHED, StudyKind.SHARE)).fetchone()
        if count >= waiting_max:
            raise Overloaded(
                f"{count} evaluations are not finished, the bound is {waiting_max}: wait for one, or delete one",
                retry_after_s=60,
            )
        connection.execute(
            _INSERT,
            (study.key, study.loop_id, study.kind, study.study_id, study.state, study.attempts, _encode(study)),
        )

    def find(self, loop_id: str, kind: StudyKind, study_id: str) -> Study | None:
        """See `studies.Studies`."""
        return self._first(_SELECT_ONE, loop_id, kind, study_id)

    def by_key(self, key: str) -> Study | None:
        """See `studies.Studies`."""
        return self._first(_SELECT_BY_KEY, key)

    def listed(self, loop_id: str, kind: StudyKind) -> Sequence[Study]:
        """See `studies.Studies`."""
        return [_study.decode(body) for (body,) in self._database.rows(_SELECT_KIND, loop_id, kind)]

    def unfinished(self) -> Sequence[Study]:
        """See `studies.Studies`."""
        return [_study.decode(body) for (body,) in self._database.rows(_SELECT_UNFINISHED, *_UNFINISHED)]

    @transaction
    def write(self, connection: sqlite3.Connection, study: Study, *, found: bytes | None = None) -> bool:
        """See `studies.Studies`."""
        written: bool = connection.execute(_UPDATE, _updated(study)).rowcount == 1
        if written and found is not None:
            connection.execute(_UPSERT_FINDING, (study.key, study.loop_id, zstandard.compress(found)))
        return written

    @transaction
    def begin(self, connection: sqlite3.Connection, study: Study) -> bool:
        """See `studies.Studies`."""
        return connection.execute(_BEGIN, _updated(study)).rowcount == 1

    def found(self, key: str) -> bytes | None:
        """See `studies.Studies`."""
        rows = self._database.rows(_SELECT_FINDING, key)
        return zstandard.decompress(rows[0][0]) if rows else None

    @transaction
    def delete(self, connection: sqlite3.Connection, loop_id: str, kind: StudyKind, study_id: str) -> Study | None:
        """See `studies.Studies`."""
        row = connection.execute(_SELECT_ONE, (loop_id, kind, study_id)).fetchone()
        if row is None:
            return None
        study = _study.decode(row[0])
        connection.execute(_DELETE, (study.key,))
        connection.execute(_DELETE_FINDING, (study.key,))
        return study

    def close(self) -> None:
        """See `studies.Studies`."""
        self._database.close()


def _updated(study: Study) -> tuple[object, ...]:
    return (study.state, study.attempts, _encode(study), study.key, study.attempts)
