"""Files that were sent to be imported: their records in the catalog, and each file on the disk that it came to."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rankward.errors import NotFound, Overloaded
from rankward.records import TimeUs
from rankward.store.imports import LogImport
from rankward.store.sqlite.database import Database, transaction
from rankward.store.sqlite.live import os_error_as_ours

UNFINISHED_MAX = 5
"""So many imports of a loop may wait and run."""
_KEPT = 10  # that are over

SCHEMA = """
CREATE TABLE log_import (
    loop_id TEXT NOT NULL,
    key TEXT NOT NULL,                  -- rises with time
    over INTEGER NOT NULL,              -- whether nothing will be done about it any more
    cancelled INTEGER NOT NULL,         -- whether it was asked to let it be
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (loop_id, key)
);
"""
_COUNT_UNFINISHED = "SELECT count(*) FROM log_import WHERE loop_id = ? AND NOT over"
_INSERT = "INSERT INTO log_import VALUES (?, ?, 0, 0, ?)"
_SELECT_ALL = "SELECT body, cancelled FROM log_import WHERE loop_id = ? ORDER BY key DESC"
_SELECT_UNFINISHED = "SELECT body, cancelled FROM log_import WHERE loop_id = ? AND NOT over ORDER BY key"
_SELECT_WANTED = "SELECT 1 FROM log_import WHERE loop_id = ? AND key = ? AND NOT over AND NOT cancelled"
_UPDATE = "UPDATE log_import SET over = ?, body = ? WHERE loop_id = ? AND key = ? AND NOT over"
_CANCEL = "UPDATE log_import SET cancelled = 1 WHERE loop_id = ? AND key = ? AND NOT over"
_DELETE_OLD = (
    "DELETE FROM log_import WHERE loop_id = ? AND over AND key NOT IN "
    "(SELECT key FROM log_import WHERE loop_id = ? AND over ORDER BY key DESC LIMIT ?)"
)

_log_import = msgspec.json.Decoder(LogImport)
_encode = msgspec.json.Encoder().encode


class SqliteImports:
    """Implements `imports.Imports`. Safe to share between threads."""

    def __init__(self, database: Database, folder: Path, *, loop_id: str, node: str) -> None:
        """Prepare.

        Args:
            database: of a catalog, which has made the table.
            folder: for the files.
            loop_id: of the loop.
            node: name of this node; empty: the installation is embedded.
        """
        self._database = database
        self._folder = folder
        self._loop_id = loop_id
        self._node = node

    def add(self, wanted: LogImport, file: Path) -> None:
        """See `imports.Imports`."""
        place = self._folder / wanted.key
        try:  # the file first: what is on record has one
            place.mkdir(parents=True)
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(place / wanted.name)
            self._insert(msgspec.structs.replace(wanted, node=self._node))
        except OSError as error:
            raise os_error_as_ours(error, self._folder) from error
        finally:
            if not any(each.key == wanted.key for each in self.unfinished()):
                shutil.rmtree(place, ignore_errors=True)

    @transaction
    def _insert(self, connection: sqlite3.Connection, wanted: LogImport) -> None:
        [count] = connection.execute(_COUNT_UNFINISHED, (self._loop_id,)).fetchone()
        if count >= UNFINISHED_MAX:
            raise Overloaded(f"{UNFINISHED_MAX} imports are not over yet: wait for one of them", retry_after_s=60)
        connection.execute(_INSERT, (self._loop_id, wanted.key, _encode(wanted)))

    def listed(self) -> Sequence[LogImport]:
        """See `imports.Imports`."""
        return self._found(_SELECT_ALL)

    def unfinished(self) -> Sequence[LogImport]:
        """See `imports.Imports`."""
        found = self._found(_SELECT_UNFINISHED)
        return [each for each in found if each.node == self._node or (self._folder / each.key).exists()]

    def _found(self, query: str) -> list[LogImport]:
        rows = self._database.rows(query, self._loop_id)
        return [
            msgspec.structs.replace(_log_import.decode(body), cancelled=bool(cancelled)) for body, cancelled in rows
        ]

    def write(self, changed: LogImport) -> bool:
        """See `imports.Imports`."""
        written = self._update(changed)
        if changed.is_over:
            shutil.rmtree(self._folder / changed.key, ignore_errors=True)
        return written

    @transaction
    def _update(self, connection: sqlite3.Connection, changed: LogImport) -> bool:
        row = (changed.is_over, _encode(changed), self._loop_id, changed.key)
        written = connection.execute(_UPDATE, row).rowcount == 1
        if changed.is_over:
            connection.execute(_DELETE_OLD, (self._loop_id, self._loop_id, _KEPT))
        return written

    def file(self, wanted: LogImport) -> Path | None:
        """See `imports.Imports`."""
        path = self._folder / wanted.key / wanted.name
        return path if path.exists() else None

    def cancel(self, key: str) -> None:
        """See `imports.Imports`."""
        if not self._cancel(key):
            raise NotFound(f"there is no import {key[:40]!r} that is not over")

    @transaction
    def _cancel(self, connection: sqlite3.Connection, key: str) -> bool:
        return connection.execute(_CANCEL, (self._loop_id, key)).rowcount == 1

    def is_wanted(self, key: str) -> bool:
        """See `imports.Imports`."""
        return bool(self._database.rows(_SELECT_WANTED, self._loop_id, key))

    def tidy(self, *, before_us: TimeUs) -> None:
        """See `imports.Imports`."""
        kept = {each.key for each in self.unfinished()}
        known = {each.key for each in self.listed()}
        for path in self._folder.glob("*/"):
            if path.name not in kept and (path.name in known or path.name < f"{before_us:016x}"):
                shutil.rmtree(path, ignore_errors=True)
