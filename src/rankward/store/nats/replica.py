"""A database of which every machine keeps a replica: changes are published before they are kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rankward.errors import RankwardError, StoreUnavailable
from rankward.store.nats.transactions import START, LostRaceError, Place, Statement, Transaction, Transactions
from rankward.store.sqlite.copying import copy_database
from rankward.store.sqlite.database import FileDatabase
from rankward.store.sqlite.leads import check_lead
from rankward.store.sqlite.live import as_world_error, connect

logger = logging.getLogger(__name__)

T = TypeVar("T")

_HAS_TABLE = "SELECT 1 FROM sqlite_schema WHERE name = 'replica'"
_HAS_OTHERS = "SELECT 1 FROM sqlite_schema WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'replica')"
_CREATE = """
CREATE TABLE IF NOT EXISTS replica (    -- another process may have made it at this moment
    installation TEXT NOT NULL,
    sequence INTEGER,                   -- of the transaction applied last; NULL: none was looked for yet
    mark BLOB NOT NULL                  -- its own
)
"""
_INSERT = "INSERT INTO replica SELECT ?, NULL, x'' WHERE NOT EXISTS (SELECT 1 FROM replica)"
_SELECT_INSTALLATION = "SELECT installation FROM replica"
_SELECT = "SELECT sequence, mark FROM replica WHERE sequence IS NOT NULL"
_UPDATE = "UPDATE replica SET sequence = ?, mark = ?"
_AGAIN_S = 1.0
_LOOKED_S = 60.0
_COPIED_EVERY = 1_000
_LARGE_BYTES = 256 * 1024 * 1024
_STALE_S = 0.01  # a follower of the servers may learn of a message a moment after its leader said so


class Recorder(sqlite3.Connection):
    """A connection that remembers what was written with it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.recorded: list[Statement] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """See `sqlite3.Connection`."""
        cursor = super().execute(sql, parameters)
        # What has changed no row here would change none elsewhere. Statements that are not about rows have no count.
        if _writes(sql) and cursor.rowcount != 0:
            self.recorded.append(Statement(sql, [parameters]))
        return cursor

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """See `sqlite3.Connection`."""
        rows = list(rows)
        cursor = super().executemany(sql, rows)
        if cursor.rowcount != 0:
            self.recorded.append(Statement(sql, rows))
        return cursor


def _writes(sql: str) -> bool:
    word = sql.strip()[:6].upper()
    return word not in {"", "SELECT"} and (word != "PRAGMA" or "=" in sql)


class Replica:
    """Implements `Database` with one file, in which the stream's transactions are applied in its order.

    A change is made here first, with the write lock of the file held. What it wrote is published, with the place of the
    last transaction that was applied here. If that is the stream's last one, the servers take it, and it is committed
    here. If not, it is undone, what the stream has is applied, and the change is made anew.

    What the stream no longer holds is in a copy of the whole database, which takes the place of what is in the file.

    A process that dies between the two has published a change that this file does not have: it is applied from the
    stream, as if another machine had made it. So is one whose acknowledgement did not come in time.
    """

    def __init__(
        self, path: Path, transactions: Transactions, *, must_exist: bool = True, newest_format: int = 0
    ) -> None:
        """Open the file. It may be behind: see `refresh`.

        Args:
            path: of the file.
            transactions: the stream.
            must_exist: whether a file that is not there is an error, or is made.
            newest_format: the newest that this version knows. One that was brought beyond it is read, but not changed.

        Raises:
            StoreUnavailable: it cannot be used, or is not of this cluster.
        """
        self._path = path
        self._newest_format = newest_format
        self._transactions = transactions
        self._lock = threading.Lock()
        self._reading = FileDatabase(path, must_exist=must_exist)  # by itself: a change waits for the servers
        try:
            self._connection = _recorder(path)
            self._adopt()
        except BaseException:
            self._reading.close()
            raise

    def _adopt(self) -> None:
        """Make a new file one of the stream's, and refuse another's."""
        try:
            if not self._connection.execute(_HAS_TABLE).fetchone():
                self._connection.execute("BEGIN IMMEDIATE")
                if self._connection.execute(_HAS_OTHERS).fetchone():
                    raise StoreUnavailable(
                        f"{self._path} is of an embedded installation, not of a cluster: copy the installation there "
                        "with `rankward copy`, and give the node an empty folder"
                    )
                self._connection.execute(_CREATE)
                self._connection.execute(_INSERT, (self._transactions.installation,))
                self._connection.execute("COMMIT")
            [installation] = self._connection.execute(_SELECT_INSTALLATION).fetchone()
        except sqlite3.Error as error:
            raise as_world_error(error, self._path) from error
        finally:
            self._undo()
        if installation != self._transactions.installation:
            raise self._strange()

    def _strange(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._path} is a replica of something else than what the servers hold: give the node the servers and "
            "the prefix that it had, or an empty folder. If the servers have lost what they had acknowledged, do what "
            "docs/runbook.md says of disks that are lost"
        )

    def _place(self) -> Place | None:
        row = self._connection.execute(_SELECT).fetchone()
        return None if row is None else Place(*row)

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See `Database`.

        What `work` refuses, it refuses on the newest: before an error of ours is raised, what the stream has is
        applied, and if there was something, the change is made anew.
        """
        with self._lock:
            while True:
                try:
                    return self._try(work)
                except LostRaceError:
                    self._wait_for_more()
                except sqlite3.Error as error:
                    raise as_world_error(error, self._path) from error
                except RankwardError as refusal:
                    if isinstance(refusal, StoreUnavailable) or not self._catch_up():
                        raise

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            applied = self._place()
            if applied is None:
                raise LostRaceError  # others may have been here before
            self._check_format()
            check_lead(self._connection)
            self._connection.recorded = []
            result = work(self._connection)
            written = self._connection.recorded
            if written:
                self._connection.execute(_UPDATE, self._transactions.append(written, after=applied))
                self._connection.execute("COMMIT")
                self._reading.hint.move()
            return result
        finally:
            self._undo()

    def _check_format(self) -> None:
        """Refuse to change what a node of a newer version has made more of than this one knows."""
        [version] = self._connection.execute("PRAGMA user_version").fetchone()
        if version > self._newest_format:
            raise StoreUnavailable(
                f"{self._path.name} has format {version} by now, this rankward knows {self._newest_format}: nothing is "
                "changed here until this node is of the newer version, too"
            )

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _wait_for_more(self) -> None:
        """Apply what won the race."""
        while not self._catch_up():
            if self._transactions.last() < (self.applied() or 0):
                raise self._strange()
            time.sleep(_STALE_S)

    def refresh(self) -> bool:
        """See `Database`."""
        with self._lock:
            return self._catch_up()

    def applied(self) -> int | None:
        """Return the place of the last transaction that is applied here; 0: none is; None: none was looked for yet."""
        rows = self._reading.rows(_SELECT)
        return int(rows[0][0]) if rows else None

    def _catch_up(self) -> bool:
        before = self.applied()
        if before is None:
            self._start_from_copy(None)
        while transactions := self._transactions.read(after=self.applied() or 0):
            applied = self.applied() or 0
            if transactions[0].place.sequence > applied + 1:
                self._start_from_copy(applied)
                continue
            try:
                self._apply(transactions)
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error
            finally:
                self._undo()
            self._reading.hint.move()
        return self.applied() != before

    def _start_from_copy(self, before: int | None) -> None:
        """Put the newest copy in the place of what is here; of a file that is new, note it if there is none.

        Args:
            before: what is applied here; if that has changed by now, another process has done it.
        """
        copies = self._transactions.copies
        with self._aside() as aside:  # nothing goes back to what another process has gone on from
            while self.applied() == before:
                newest = max(copies.places(), default=None)
                if newest is not None and (before is None or newest > before):
                    if copies.get(newest, aside):  # if not, there is a newer one by now
                        self._replace(aside)
                elif before is None:
                    self._note_that_there_is_none()
                else:
                    raise StoreUnavailable(
                        f"{self._path} is behind what the servers still hold, and they have no newer copy: restore "
                        "their bucket `databases`, or copy the folder of a node that is not behind"
                    )
            self._reading.hint.move()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Path]:
        """Be the only process of this machine that has to do with a copy, and name a file for it."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            aside = self._path.with_suffix(".copy")
            try:
                yield aside
            finally:
                aside.unlink(missing_ok=True)

    def _note_that_there_is_none(self) -> None:
        try:
            self._connection.execute(_UPDATE, START)
        except sqlite3.Error as error:
            raise as_world_error(error, self._path) from error

    def _replace(self, by: Path) -> None:
        try:
            with contextlib.closing(sqlite3.connect(by)) as copy:
                copy.backup(self._connection)
        except sqlite3.Error as error:
            raise as_world_error(error, self._path) from error

    def _apply(self, transactions: Sequence[Transaction]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        applied = self._place() or START
        for transaction in transactions:
            if transaction.place.sequence <= applied.sequence:
                continue  # another process of this machine was quicker
            if transaction.after != applied.mark:
                raise self._strange()
            for statement in transaction.statements:
                for row in statement.rows:
                    self._connection.execute(statement.sql, row)
            applied = transaction.place
        self._connection.execute(_UPDATE, applied)
        self._connection.execute("COMMIT")

    def compact(self, *, every: int = _COPIED_EVERY) -> bool:
        """Copy the database into the object store when much was changed since the last copy, and shorten the stream.

        The stream keeps what stands after the copy before: a node that is not long behind has no need for a copy. If
        that is large, the next copy is made the next time.

        Args:
            every: how many transactions are much.

        Returns:
            Whether a copy was made.
        """
        copies = self._transactions.copies
        places = copies.places()
        newest = places[-1] if places else 0
        self.refresh()
        more = (self.applied() or 0) - newest
        if more == 0 or (more < every and self._transactions.size_bytes() < _LARGE_BYTES):
            return False
        with self._aside() as aside:
            copy_database(self._path, aside)
            with contextlib.closing(sqlite3.connect(aside)) as copy:
                place, _ = copy.execute(_SELECT).fetchone()
            copies.put(place, aside)
        if newest:
            self._transactions.trim(through=newest)
        for place in places[:-1]:
            copies.forget(place)
        return True

    async def follow(self) -> None:
        """Apply what others publish as soon as they do, until cancelled."""
        while True:
            try:
                await self._transactions.news()
                await asyncio.to_thread(self.refresh)
            except RankwardError as error:
                level = logging.WARNING if self._transactions.connected else logging.DEBUG  # else that is known already
                logger.log(level, "%s does not follow the cluster for now: %s", self._path.name, error)
                await asyncio.sleep(_AGAIN_S)

    async def shorten(self) -> None:
        """Call `compact` now and then, until cancelled."""
        while True:
            await asyncio.sleep(_LOOKED_S * random.uniform(0.5, 1.5))  # noqa: S311  # so that it is seldom two at once
            try:
                await asyncio.to_thread(self.compact)
            except RankwardError as error:
                logger.warning("the stream of %s stays as long as it is for now: %s", self._path.name, error)

    def rows(self, query: str, *arguments: object) -> list[Any]:
        """See `Database`."""
        return self._reading.rows(query, *arguments)

    def change_mark(self) -> int:
        """See `Database`."""
        return self._reading.change_mark()

    def change_hint(self) -> int:
        """See `Database`."""
        return self._reading.change_hint()

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._connection.close()
            self._reading.close()


def _recorder(path: Path) -> Recorder:
    try:
        connection = connect(path, factory=Recorder)
    except sqlite3.Error as error:
        raise as_world_error(error, path) from error
    assert isinstance(connection, Recorder), "it was made by the factory"
    return connection
