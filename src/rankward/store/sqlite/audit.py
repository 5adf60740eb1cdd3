"""The audit trail in the catalog's database, in a table of its own that refuses to forget."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rankward.store.audit import AuditEntry, AuditFilter
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction

SCHEMA = """
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time_us INTEGER NOT NULL,
    loop TEXT,                          -- its name; NULL: about no loop
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    body BLOB NOT NULL                  -- JSON
);
CREATE INDEX audit_by_loop ON audit (loop, number);
CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END
"""
_INSERT = "INSERT INTO audit (time_us, loop, what, who, body) VALUES (?, ?, ?, ?, ?)"
_SELECT_KINDS = "SELECT DISTINCT what FROM audit ORDER BY what"
_entry = msgspec.json.Decoder(AuditEntry)
_encode = msgspec.json.Encoder().encode


class SqliteAudit:
    """Implements `audit.Audit`. Safe to share between threads."""

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the table.

        Args:
            path: of a catalog, which has made it.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        self._database = open_database(path)

    @transaction
    def append(self, connection: sqlite3.Connection, entry: AuditEntry) -> AuditEntry:
        """See `audit.Audit`."""
        row = (entry.time_us, entry.loop, entry.what, entry.who, _encode(entry))
        number = connection.execute(_INSERT, row).lastrowid
        assert number is not None, "a row was inserted"
        return msgspec.structs.replace(entry, number=number)

    def entries(self, wanted: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        """See `audit.Audit`."""
        conditions: list[tuple[str, tuple[object, ...]]] = []
        if wanted.loops is not None:
            conditions.append((f"loop IN ({', '.join('?' * len(wanted.loops))})", tuple(wanted.loops)))
        if wanted.what is not None:
            conditions.append(("what = ?", (wanted.what,)))
        if wanted.who is not None:
            conditions.append(("instr(lower(who), lower(?)) > 0", (wanted.who,)))
        if wanted.before is not None:
            conditions.append(("number < ?", (wanted.before,)))
        if wanted.since_us is not None:
            conditions.append(("time_us >= ?", (wanted.since_us,)))
        where = " AND ".join(text for text, _ in conditions) or "1"
        arguments = [value for _, values in conditions for value in values]
        query = f"SELECT number, body FROM audit WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608
        rows = self._database.rows(query, *arguments, limit)
        return [msgspec.structs.replace(_entry.decode(body), number=number) for number, body in rows]

    def kinds(self) -> Sequence[str]:
        """See `audit.Audit`."""
        return [what for (what,) in self._database.rows(_SELECT_KINDS)]

    def close(self) -> None:
        """See `audit.Audit`."""
        self._database.close()
