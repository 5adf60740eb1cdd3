"""A small database that the processes of a machine share: its transactions, and the hint that there was one."""

from __future__ import annotations

import functools
import mmap
import secrets
import sqlite3
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rankward.errors import StoreUnavailable
from rankward.store.sqlite.live import as_world_error, change_mark, connect

T = TypeVar("T")
P = ParamSpec("P")
H = TypeVar("H", bound="_HasDatabase")

_HINT = struct.Struct("<Q")


class Database(Protocol):
    """What keeps rows, here alone or on many machines. Safe to share between threads."""

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in a transaction: all that it writes is kept, or, if it raises, nothing.

        Args:
            work: is run again, on what is there by then, if somebody on another machine was quicker. So all that it
                does is done with the connection; and what it writes depends on nothing but its arguments and the rows,
                read in an order that is asked for: no time, no randomness.

        Raises:
            StoreUnavailable: it cannot be written. Of a change that is made on many machines, this may mean that nobody
                knows: if it was kept, it is seen in a moment.
        """

    def rows(self, query: str, *arguments: object) -> list[Any]:
        """Return what a query finds."""

    def refresh(self) -> bool:
        """Fetch what was written on other machines. Returns whether there was something."""

    def change_mark(self) -> int:
        """Return a number that differs after anything was changed."""

    def change_hint(self) -> int:
        """Return a number that soon differs after anything was changed, and costs nothing to ask for."""

    def close(self) -> None:
        """Let go of the files."""


class OpenDatabase(Protocol):
    """Opens a database: `FileDatabase`, or what a node of a cluster has in its place."""

    def __call__(self, path: Path, *, must_exist: bool = True) -> Database:
        """Open the one at a path. Raises StoreUnavailable if it cannot be used."""


class _HasDatabase(Protocol):
    _database: Database


def transaction(method: Callable[Concatenate[H, sqlite3.Connection, P], T]) -> Callable[Concatenate[H, P], T]:
    """Make a method a transaction: it is given the connection, and may be run again, as `Database.change` says."""

    @functools.wraps(method)
    def changing(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._database.change(lambda connection: method(self, connection, *args, **kwargs))

    return changing


class FileDatabase:
    """Implements `Database` with one file."""

    def __init__(self, path: Path, *, must_exist: bool = True) -> None:
        """Open the file.

        Args:
            path: of the file.
            must_exist: whether a file that is not there is an error, or is made.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = connect(path, must_exist=must_exist)
        except sqlite3.Error as error:
            raise as_world_error(error, path) from error
        try:
            self.hint = ChangeHint(path.with_suffix(".hint"))  # to be moved by who changes the file by other ways, too
        except BaseException:
            self._connection.close()
            raise

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See `Database`."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                result = work(self._connection)
                self._connection.execute("COMMIT")
                self.hint.move()
                return result
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error
            finally:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")

    def rows(self, query: str, *arguments: object) -> list[Any]:
        """See `Database`."""
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def refresh(self) -> bool:
        """See `Database`. There are no others."""
        return False

    def change_mark(self) -> int:
        """See `Database`."""
        with self._lock:
            try:
                return change_mark(self._connection)
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def change_hint(self) -> int:
        """See `Database`."""
        return self.hint.read()

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._connection.close()
            self.hint.close()


class ChangeHint:
    """A number in memory that all processes of a machine share. Its file may be deleted while nothing runs."""

    def __init__(self, path: Path) -> None:
        """Map the file, making it if there is none.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        try:
            with path.open("ab") as file:
                if file.tell() < _HINT.size:
                    file.write(bytes(_HINT.size))
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _HINT.size)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be used: {error}") from error

    def read(self) -> int:
        """Return the number. To ask SQLite instead would let go of the interpreter, and wait to get it back."""
        [hint] = _HINT.unpack_from(self._map, 0)
        return int(hint)

    def move(self) -> None:
        """Make it another number: random, not counted, since two that count at once could arrive at the same."""
        _HINT.pack_into(self._map, 0, secrets.randbits(64))

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()


def cut_loose(path: Path) -> None:
    """Make a copy of a node's replica, which nobody has open, a database of its own. Any other stays as it is."""
    try:
        with closing(connect(path)) as connection:
            connection.execute("DROP TABLE IF EXISTS replica")
    except sqlite3.Error as error:
        raise as_world_error(error, path) from error
