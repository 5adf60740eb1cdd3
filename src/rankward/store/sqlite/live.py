"""A live segment: the stretch of the event log that is being written, as a SQLite database."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rankward.errors import StorageFull, StoreUnavailable, WorldError
from rankward.records import Action, HeaderEntry, LogEntry, Offset, TimeUs
from rankward.store.ports import LOOKUP_NEWEST, Located
from rankward.store.sqlite.codec import Row, to_header, to_record

FORMAT = 1
_PARTS_REMEMBERED = 65_536
_OFFERS_REMEMBERED = 4_096
_CHECKPOINT_PAGES = 20_000  # the worker checkpoints every second; this is for a folder without one

_SCHEMA = """
CREATE TABLE segment (
    first INTEGER NOT NULL,         -- offset that the first entry has
    time_us INTEGER NOT NULL,       -- of the last entry before this segment
    closed INTEGER NOT NULL         -- 1: nothing is appended here any more
);
CREATE TABLE entry (
    offset INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    event_key INTEGER,              -- of interactions: hash of the event id
    reward_wait_us INTEGER,         -- of interactions
    body BLOB NOT NULL,             -- MessagePack; of interactions without the actions
    actions BLOB                    -- of interactions: MessagePack list of part numbers and whole actions
);
CREATE INDEX entry_event_key ON entry (event_key) WHERE event_key IS NOT NULL;
CREATE TABLE part (                 -- actions that recur, stored once
    number INTEGER PRIMARY KEY,
    action BLOB NOT NULL UNIQUE
);
"""
# Segments made before there were clusters have none until the first message comes.
_SCHEMA_MESSAGES = """
CREATE TABLE IF NOT EXISTS message (    -- of the stream that a cluster's event log comes from
    sequence INTEGER PRIMARY KEY,
    offset INTEGER NOT NULL,            -- of its first entry
    count INTEGER NOT NULL              -- of its entries; -1: they are in the segments before
)
"""
_ELSEWHERE = -1
_HAS_MESSAGES = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'message'"
_INSERT_MESSAGE = "INSERT INTO message VALUES (?, ?, ?)"
_SELECT_PLACE = "SELECT max(sequence) FROM message"
_SELECT_MESSAGES = "SELECT sequence, offset, count FROM message WHERE count >= 0 ORDER BY sequence"
_SELECT_MESSAGE = "SELECT offset, count FROM message WHERE sequence = ? AND count >= 0"
_INSERT_SEGMENT = "INSERT INTO segment (first, time_us, closed) VALUES (?, ?, 0)"
_SELECT_SEGMENT = "SELECT first, time_us, closed FROM segment"
_CLOSE_SEGMENT = "UPDATE segment SET closed = 1"
_SELECT_LAST = "SELECT offset, time_us FROM entry ORDER BY offset DESC LIMIT 1"
_SELECT_BEGINNING = (
    "SELECT closed, (SELECT max(offset) FROM entry), (SELECT time_us FROM entry ORDER BY offset DESC LIMIT 1) "
    "FROM segment"
)
_INSERT_ENTRIES = "INSERT INTO entry VALUES "
_ENTRY_VALUES = "(?, ?, ?, ?, ?, ?)"
_ROWS_TOGETHER = 64
_ERASE_ENTRY = "UPDATE entry SET event_key = NULL, reward_wait_us = NULL, body = ?, actions = NULL WHERE offset = ?"
_SELECT_KNOWN = "SELECT DISTINCT event_key FROM entry WHERE event_key IN ({})"
_SELECT_ENTRIES = "SELECT offset, time_us, body, actions FROM entry WHERE offset >= ? ORDER BY offset LIMIT ?"
_SELECT_HEADERS = "SELECT offset, time_us, body FROM entry WHERE offset >= ? ORDER BY offset LIMIT ?"
_SELECT_ROWS = "SELECT time_us, event_key, reward_wait_us, body, actions FROM entry ORDER BY offset"
_LOCATE = (
    "SELECT offset, time_us, reward_wait_us FROM entry WHERE event_key = ? AND offset < ? "
    "AND time_us + reward_wait_us >= ? ORDER BY offset DESC LIMIT ?"
)
# Each search by itself would cost more to ask for than to make.
_LOCATE_EACH = """
WITH search (number, key, before, ended_us) AS (VALUES {})
SELECT number, offset, time_us, reward_wait_us FROM search CROSS JOIN entry ON offset IN (
    SELECT offset FROM entry WHERE event_key = key AND offset < before
    AND time_us + reward_wait_us >= ended_us ORDER BY offset DESC LIMIT ?
) ORDER BY number, offset DESC
"""
_SEARCHES_TOGETHER = 64
_INSERT_PART = "INSERT OR IGNORE INTO part (action) VALUES (?)"
_SELECT_PART = "SELECT number FROM part WHERE action = ?"
_SELECT_PART_BY_NUMBER = "SELECT action FROM part WHERE number = ?"


class Search(NamedTuple):
    """A search for interactions by the key of their event id."""

    key: int
    before: Offset  # they stand before this offset
    ended_us: TimeUs  # their waits end at this time or later


_offered = msgspec.msgpack.Decoder(list[int | Action])
_action = msgspec.msgpack.Decoder(Action)
_encode = msgspec.msgpack.Encoder().encode

# To SQLite, a limit on the size of a file is just an I/O error of writing.
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"}
_NO_ROOM_BYTES = 65_536  # with less, SQLite cannot open a database: it makes two files beside it


def connect(
    path: Path, *, must_exist: bool = True, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """Open a database in WAL mode, flushed to the disk at every commit."""
    mode = "rw" if must_exist else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=30,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS needs to be told twice
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def change_mark(connection: sqlite3.Connection) -> int:
    """Return a number that differs after anything in the database was changed, by this connection or by another."""
    [[mark]] = connection.execute("PRAGMA data_version").fetchall()
    # The first number moves with the changes of other connections only, the second with our own.
    return int(mark) << 40 | connection.total_changes


def as_world_error(error: sqlite3.Error, path: Path) -> WorldError:
    """Say what failed in our own terms."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _FULL or (name == "SQLITE_CANTOPEN" and path.exists() and _no_room(path.parent)):
        return StorageFull(
            f"there is no room on the disk for {path.parent} ({error}): free some, or shorten log_retention_days"
        )
    return StoreUnavailable(f"{path} failed: {error}")


def os_error_as_ours(error: OSError, folder: Path) -> WorldError:
    """Say what failed in our own terms."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StorageFull(f"there is no room on the disk for {folder}: free some, or shorten log_retention_days")
    return StoreUnavailable(f"{folder} failed: {error}")


def _no_room(folder: Path) -> bool:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < _NO_ROOM_BYTES or room.f_favail == 0 < room.f_files


def create_live(path: Path, *, first: Offset, time_us: TimeUs, place: int = 0) -> None:
    """Make an empty segment. It is made aside: what bears its name is whole.

    Args:
        path: of the file to make.
        first: offset of the first entry.
        time_us: of the last entry before.
        place: in the stream that the log comes from, up to which it has been applied; 0: it comes from none.
    """
    aside = path.with_suffix(".tmp")
    aside.unlink(missing_ok=True)
    connection = sqlite3.connect(aside, isolation_level=None)
    try:
        connection.executescript("BEGIN;" + _SCHEMA)
        connection.execute(_INSERT_SEGMENT, (first, time_us))
        if place:
            connection.execute(_SCHEMA_MESSAGES)
            connection.execute(_INSERT_MESSAGE, (place, first, _ELSEWHERE))
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
        # Now, while nobody else has it open: two that turn it into one of WAL mode at once are not made to wait, but
        # one of them fails. All of it is in the one file that is renamed, since closing leaves no other behind.
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    aside.rename(path)


def forget_messages(path: Path) -> None:
    """Forget where a live segment's entries came from: they come from no stream from now on."""
    connection = connect(path)
    try:
        connection.execute("DROP TABLE IF EXISTS message")
    finally:
        connection.close()


class LiveSegment:
    """One connection to a live segment. Not to be shared between threads without a lock."""

    def __init__(self, path: Path) -> None:
        """Open the segment.

        Raises:
            StoreUnavailable: it cannot be read, or was written by a newer version.
            FileNotFoundError: it has been sealed or dropped.
        """
        self.path = path
        try:
            self._connection = connect(path)
        except sqlite3.Error as error:
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, "the segment is gone", str(path)) from error
            raise as_world_error(error, path) from error
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise
        self._part_numbers: OrderedDict[Action, int] = OrderedDict()
        self._seen_once: OrderedDict[Action, None] = OrderedDict()
        self._parts: dict[int, Action] = {}
        self._inserted: list[tuple[object, ...]] = []  # entries not written yet
        self._inserted_keys: set[int] = set()
        self._offers: dict[bytes, tuple[Action, ...]] = {}
        self._has_messages = False  # as far as this connection knows

    def _open(self) -> None:
        try:
            [version] = self._connection.execute("PRAGMA user_version").fetchone()
            if version == FORMAT:
                self.first, self._before_us, closed = self._connection.execute(_SELECT_SEGMENT).fetchone()
                self.closed = bool(closed)
        except sqlite3.Error as error:
            if self.path.exists():
                raise as_world_error(error, self.path) from error
        # Its files are removed one by one: of one that vanishes while it is opened, a part may be all we saw.
        if not self.path.exists():
            raise FileNotFoundError(errno.ENOENT, "the segment is gone", str(self.path))
        if version != FORMAT:
            raise StoreUnavailable(f"{self.path} has format {version}, this rankward knows {FORMAT}: use the newer one")

    def begin(self) -> tuple[Offset, TimeUs]:
        """Start writing. The append lock keeps other writers away.

        Returns:
            The offset that the next entry will have, and the time of the last one.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        closed, last, last_us = self._connection.execute(_SELECT_BEGINNING).fetchone()
        self.closed = bool(closed)
        return (self.first, self._before_us) if last is None else (last + 1, last_us)

    def change_mark(self) -> int:
        """See the function of this name."""
        return change_mark(self._connection)

    def is_closed(self) -> bool:
        """Whether the file says by now that nothing is appended here any more."""
        return bool(self._connection.execute(_SELECT_SEGMENT).fetchone()[2])

    def commit(self) -> None:
        """Flush what was written to the disk."""
        self._write()
        self._connection.execute("COMMIT")

    def _write(self) -> None:
        """Write the entries that were inserted, many in one statement.

        Each statement lets go of the interpreter, and has to wait for the thread that answers requests to get
        it back.
        """
        for begin in range(0, len(self._inserted), _ROWS_TOGETHER):
            rows = self._inserted[begin : begin + _ROWS_TOGETHER]
            values = [value for row in rows for value in row]
            self._connection.execute(_INSERT_ENTRIES + ", ".join([_ENTRY_VALUES] * len(rows)), values)
        self._inserted.clear()
        self._inserted_keys.clear()

    def rollback(self) -> None:
        """Undo what was written since `begin`."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._inserted.clear()
        self._inserted_keys.clear()
        self._has_messages = False
        self._part_numbers.clear()  # their rows may be gone
        self._parts.clear()
        self._offers.clear()

    def close_for_good(self) -> None:
        """Mark the segment: from the commit on, nothing is appended here."""
        self._connection.execute(_CLOSE_SEGMENT)

    def tail(self) -> tuple[Offset, TimeUs]:
        """Return the offset that the next entry will have, and the time of the last one."""
        last = self._connection.execute(_SELECT_LAST).fetchone()
        return (last[0] + 1, last[1]) if last else (self.first, self._before_us)

    def insert(self, offset: Offset, time_us: TimeUs, row: Row) -> None:
        """Add an entry. It is written with the next commit."""
        actions = None if row.actions is None else _encode([self._part(action) for action in row.actions])
        self._inserted.append((offset, time_us, row.event_key, row.reward_wait_us, row.body, actions))
        if row.event_key is not None:
            self._inserted_keys.add(row.event_key)

    def known_keys(self, keys: Collection[int]) -> set[int]:
        """Tell which of these keys of event ids some interaction here has."""
        query = _SELECT_KNOWN.format(",".join("?" * len(keys)))
        return {key for (key,) in self._connection.execute(query, [*keys])}

    @property
    def place(self) -> int:
        """How far the stream that the log comes from has been applied; 0: not at all."""
        if not self._connection.execute(_HAS_MESSAGES).fetchall():
            return 0
        return int(self._connection.execute(_SELECT_PLACE).fetchone()[0] or 0)

    def arrive(self, sequence: int, offset: Offset, count: int) -> None:
        """Note which entries a message of the stream brought: the place is its sequence now."""
        if not self._has_messages:
            self._connection.execute(_SCHEMA_MESSAGES)
            self._has_messages = True
        self._connection.execute(_INSERT_MESSAGE, (sequence, offset, count))

    def arrived(self, sequence: int) -> range | None:
        """Tell the offsets of the entries that a message of the stream brought; None: it did not come here."""
        if not self._connection.execute(_HAS_MESSAGES).fetchall():
            return None
        row = self._connection.execute(_SELECT_MESSAGE, (sequence,)).fetchone()
        return None if row is None else range(row[0], row[0] + row[1])

    def messages(self) -> list[tuple[int, Offset, int]]:
        """Return the messages that brought entries here: sequence, offset of the first entry, how many; in order."""
        if not self._connection.execute(_HAS_MESSAGES).fetchall():
            return []
        return self._connection.execute(_SELECT_MESSAGES).fetchall()

    def _part(self, action: Action) -> int | Action:
        """Return the number of an action that recurs; an action seen for the first time is written out.

        So an application whose actions never recur pays no index for them.
        """
        number = self._part_numbers.get(action)
        if number is not None:
            return number
        if action not in self._seen_once:
            self._seen_once[action] = None
            if len(self._seen_once) > _PARTS_REMEMBERED:
                self._seen_once.popitem(last=False)
            return action
        encoded = _encode(action)
        self._connection.execute(_INSERT_PART, (encoded,))
        [number] = self._connection.execute(_SELECT_PART, (encoded,)).fetchone()
        self._part_numbers[action] = number
        if len(self._part_numbers) > _PARTS_REMEMBERED:
            self._part_numbers.popitem(last=False)
        return int(number)

    def _action(self, part: int) -> Action:
        action = self._parts.get(part)
        if action is None:
            [encoded] = self._connection.execute(_SELECT_PART_BY_NUMBER, (part,)).fetchone()
            action = _action.decode(encoded)
            if len(self._parts) >= _PARTS_REMEMBERED:
                self._parts.clear()
            self._parts[part] = action
        return action

    def _actions(self, encoded: bytes | None) -> tuple[Action, ...] | None:
        if encoded is None:
            return None
        actions = self._offers.get(encoded)
        if actions is None:
            parts = _offered.decode(encoded)
            try:
                actions = tuple([self._parts[part] for part in parts])  # type: ignore[index]
            except KeyError:  # some are written out, or are parts not read before
                actions = tuple([part if isinstance(part, Action) else self._action(part) for part in parts])
            else:  # all recur, so the whole offer may
                if len(self._offers) >= _OFFERS_REMEMBERED:
                    self._offers.clear()
                self._offers[encoded] = actions
        return actions

    def read(self, start: Offset, limit: int) -> list[LogEntry]:
        """Return at most `limit` entries from `start` on."""
        return [
            LogEntry(offset, time_us, to_record(body, self._actions(actions)))
            for offset, time_us, body, actions in self._connection.execute(_SELECT_ENTRIES, (start, limit)).fetchall()
        ]

    def read_headers(self, start: Offset, limit: int) -> list[HeaderEntry]:
        """Return what joining needs of at most `limit` entries from `start` on."""
        return [
            HeaderEntry(offset, time_us, to_header(body))
            for offset, time_us, body in self._connection.execute(_SELECT_HEADERS, (start, limit)).fetchall()
        ]

    def erase(self, rows: Mapping[Offset, Row]) -> None:
        """Put other entries in the place of these. The append lock keeps writers away."""
        self._connection.execute("PRAGMA secure_delete = ON")  # what is overwritten is not to be found in the file
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_ERASE_ENTRY, [(row.body, offset) for offset, row in rows.items()])
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def rows(self) -> Iterator[tuple[TimeUs, Row]]:
        """Return every entry for sealing, in log order."""
        for time_us, key, wait_us, body, actions in self._connection.execute(_SELECT_ROWS):
            yield time_us, Row(body, self._actions(actions), key, wait_us)

    def locate(self, key: int, *, before: Offset, ended_us: TimeUs, limit: int) -> list[Located]:
        """Find interactions by the key of their event id, newest first.

        Args:
            key: of the event id.
            before: they stand before this offset.
            ended_us: their waits end at this time or later.
            limit: find the newest, and at most so many.
        """
        if key in self._inserted_keys:
            self._write()
        query = self._connection.execute(_LOCATE, (key, before, ended_us, limit))
        return [Located(*row) for row in query.fetchall()]

    def locate_each(self, searches: Sequence[Search]) -> list[list[Located]]:
        """Find for each search the newest interactions, newest first: at most `LOOKUP_NEWEST`."""
        found: list[list[Located]] = [[] for _ in searches]
        for begin in range(0, len(searches), _SEARCHES_TOGETHER):
            together = searches[begin : begin + _SEARCHES_TOGETHER]
            values = [value for number, search in enumerate(together, begin) for value in (number, *search)]
            query = _LOCATE_EACH.format(", ".join(["(?, ?, ?, ?)"] * len(together)))
            for number, *place in self._connection.execute(query, [*values, LOOKUP_NEWEST]).fetchall():
                found[number].append(Located(*place))
        return found

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log to its place, as far as that holds up nobody."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def live_files(path: Path) -> Sequence[Path]:
    """The files of a live segment."""
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
