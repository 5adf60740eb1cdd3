"""The rows of one loop in a catalog, to be carried into another catalog."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from rankward.errors import Conflict
from rankward.store.sqlite.database import Database

Select = Callable[..., list[Any]]  # given a query and its arguments, returns the rows

# Who leads a loop is no affair of the loop's, and what is to be imported lies on a disk.
_LEFT = frozenset({"loop", "lead", "log_import"})
_TOGETHER = frozenset({"epoch", "study", "challenger", "optimization"})  # what processes look for
_ROWS_AT_ONCE = 200
_SELECT_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
_SELECT_COLUMNS = "SELECT name, pk FROM pragma_table_info(?)"
_SELECT_LOOP = "SELECT * FROM loop WHERE loop_id = ?"
_SELECT_KEYS = "SELECT slot, digest FROM key WHERE loop = ? ORDER BY slot"
_SELECT_AUDIT = "SELECT time_us, loop, what, who, body FROM audit WHERE loop = ? ORDER BY number"
_INSERT_LOOP = (
    "INSERT INTO loop (name, loop_id, created_us, settings, revision, model_id, forgotten_before) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_SELECT_TAKEN = "SELECT loop_id FROM loop WHERE name = ? OR loop_id = ?"
_SELECT_KEY = "SELECT loop FROM key WHERE digest = ?"
_INSERT_KEY = "INSERT INTO key (loop, slot, digest) VALUES (?, ?, ?)"
_SELECT_NOTED = "SELECT 1 FROM audit WHERE time_us = ? AND loop = ? AND what = ? AND who = ? AND body = ?"
_INSERT_AUDIT = "INSERT INTO audit (time_us, loop, what, who, body) VALUES (?, ?, ?, ?, ?)"


class Rows(msgspec.Struct, frozen=True):
    """What a table has of a loop, in order, without the numbers that each catalog gives by itself."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


def rows_of(select: Select, loop_id: str) -> list[Rows]:
    """Read what all tables have of a loop, but for its own row, its keys and the audit trail."""
    found = []
    for (table,) in select(_SELECT_TABLES):
        described = select(_SELECT_COLUMNS, table)
        columns = [name for name, _ in described]
        if "loop_id" not in columns or table in _LEFT:
            continue
        order = ", ".join(name for name, number in sorted(described, key=lambda each: each[1]) if number)
        kept = tuple(name for name in columns if name != "number")
        query = f"SELECT {', '.join(kept)} FROM {table} WHERE loop_id = ? ORDER BY {order}"  # noqa: S608
        found.append(Rows(table, kept, select(query, loop_id)))
    return found


def digest_of(select: Select, name: str, loop_id: str) -> tuple[int, str]:
    """Say what a catalog holds of a loop, but for the audit trail: how many rows, and their SHA-256, hex."""
    count, digest = 0, hashlib.sha256()
    own = Rows("loop", (), select(_SELECT_LOOP, loop_id))
    keys = Rows("key", (), select(_SELECT_KEYS, name))
    for rows in (own, keys, *rows_of(select, loop_id)):
        count += len(rows.rows)
        digest.update(msgspec.msgpack.encode(rows))
    return count, digest.hexdigest()


def carry(source: Database, target: Database, name: str, loop_id: str) -> tuple[int, str]:
    """Write all that one catalog has of a loop into another. Until the last stroke, nobody sees it there.

    Returns:
        What the other one holds of it then: see `digest_of`.

    Raises:
        Conflict: there is a loop of that name or id, or one of its keys opens something else.
    """

    def clear(connection: sqlite3.Connection) -> None:
        _refuse_taken(connection, name, loop_id)
        for rows in tables:
            connection.execute(f"DELETE FROM {rows.table} WHERE loop_id = ?", (loop_id,))  # noqa: S608

    def finish(connection: sqlite3.Connection) -> tuple[int, str]:
        _refuse_taken(connection, name, loop_id)
        for rows in tables:
            if rows.table in _TOGETHER:
                _insert(connection, rows, rows.rows)
        for slot, digest in source.rows(_SELECT_KEYS, name):
            if connection.execute(_SELECT_KEY, (digest,)).fetchone():
                raise Conflict(f"key {slot} of loop {name} opens another loop there: renew one of them first")
            connection.execute(_INSERT_KEY, (name, slot, digest))
        connection.execute(_INSERT_LOOP, tuple(source.rows(_SELECT_LOOP, loop_id)[0]))
        return digest_of(lambda query, *more: connection.execute(query, more).fetchall(), name, loop_id)

    tables = rows_of(source.rows, loop_id)
    target.change(clear)
    for rows in tables:
        if rows.table not in _TOGETHER:
            for some in _portions(rows.rows):
                target.change(partial(_insert, rows=rows, some=some))
    return target.change(finish)


def carry_audit(source: Database, target: Database, name: str) -> None:
    """Write what the audit trail says of a loop into another, unless it is there."""

    def note(connection: sqlite3.Connection, some: Sequence[Sequence[Any]]) -> None:
        for row in some:
            if not connection.execute(_SELECT_NOTED, row).fetchone():
                connection.execute(_INSERT_AUDIT, row)

    for some in _portions(source.rows(_SELECT_AUDIT, name)):
        target.change(partial(note, some=some))


def _refuse_taken(connection: sqlite3.Connection, name: str, loop_id: str) -> None:
    if connection.execute(_SELECT_TAKEN, (name, loop_id)).fetchone():
        raise Conflict(f"there is a loop {name!r} already: name the loops to copy with --loop, or delete that one")


def _insert(connection: sqlite3.Connection, rows: Rows, some: Sequence[Sequence[Any]]) -> None:
    places = ", ".join("?" * len(rows.columns))
    query = f"INSERT INTO {rows.table} ({', '.join(rows.columns)}) VALUES ({places})"  # noqa: S608
    connection.executemany(query, some)


def _portions(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        yield some
