"""The joined log of one loop: a database for its newest part and the joiner's state, files for the rest."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

import msgspec
import zstandard

from rankward.errors import Conflict, StoreUnavailable
from rankward.records import EventId, JoinedEntry, JoinedObservation, Offset
from rankward.store.ports import JoinState, JoinStep, Match, Unmatched
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.live import as_world_error, change_mark, connect, os_error_as_ours
from rankward.store.sqlite.sealed import COMPRESSION_LEVEL
from rankward.store.stretches import stretches

FORMAT = 1
FILE_ENTRIES = 65_536  # every sealed file holds this many, so that a rejoin makes the same files

_SCHEMA = """
CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), body BLOB NOT NULL);
CREATE TABLE entry (offset INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE match (
    interaction INTEGER NOT NULL,   -- offset in the event log
    offset INTEGER NOT NULL,        -- of the observation or activation
    body BLOB,                      -- MessagePack of the observation; NULL: an activation
    PRIMARY KEY (interaction, offset)
) WITHOUT ROWID;
CREATE TABLE early (offset INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""
_SELECT_STATE = "SELECT body FROM state"
_UPSERT_STATE = "INSERT INTO state VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET body = excluded.body"
_INSERT_ENTRY = "INSERT INTO entry VALUES (?, ?)"
_SELECT_ENTRIES = "SELECT offset, body FROM entry WHERE offset >= ? ORDER BY offset LIMIT ?"
_SELECT_ALL_ENTRIES = "SELECT offset, body FROM entry"
_UPDATE_ENTRY = "UPDATE entry SET body = ? WHERE offset = ?"
# Two searches: asked for both at once, SQLite reads the whole table.
_SELECT_RANGE = "SELECT (SELECT min(offset) FROM entry), (SELECT max(offset) FROM entry)"
_DELETE_ENTRIES = "DELETE FROM entry WHERE offset < ?"
_INSERT_MATCH = "INSERT OR REPLACE INTO match VALUES (?, ?, ?)"
_SELECT_MATCHES = (
    "SELECT interaction, offset, body FROM match WHERE interaction BETWEEN ? AND ? ORDER BY interaction, offset"
)
_DELETE_MATCH = "DELETE FROM match WHERE interaction = ?"
_SELECT_MATCH_BEFORE = "SELECT 1 FROM match WHERE interaction < ? LIMIT 1"
_DELETE_MATCHES_BEFORE = "DELETE FROM match WHERE interaction < ?"
_INSERT_EARLY = "INSERT OR REPLACE INTO early VALUES (?, ?)"
_SELECT_EARLY = "SELECT body FROM early ORDER BY offset"
_DELETE_EARLY = "DELETE FROM early WHERE offset = ?"

_encode = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(JoinedEntry)
_entries = msgspec.msgpack.Decoder(list[msgspec.Raw])  # told apart, and decoded when they are asked for
_observation = msgspec.msgpack.Decoder(JoinedObservation)
_unmatched = msgspec.msgpack.Decoder(Unmatched)
_state = msgspec.msgpack.Decoder(JoinState)


class SqliteJoinedLog:
    """Implements `ports.JoinedLog` on one folder."""

    def __init__(self, folder: Path, *, file_entries: int = FILE_ENTRIES) -> None:
        """Open the log, making it if there is none.

        Args:
            folder: of this log alone.
            file_entries: how many entries a sealed file holds: the same at every opening.

        Raises:
            StoreUnavailable: it cannot be read, or was written by a newer version.
        """
        self.folder = folder
        self._file_entries = file_entries
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "joined.sqlite"
        self._lock = threading.Lock()
        with self._translated():
            self._connection = connect(self._path, must_exist=False)
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                [version] = self._connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {FORMAT}")
        if version not in (0, FORMAT):
            self._connection.close()
            raise StoreUnavailable(
                f"{self._path} has format {version}, this rankward knows {FORMAT}: use the newer one"
            )
        self._file_as_it_is = lru_cache(maxsize=2)(lambda path, _state: _read_file(path))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise as_world_error(error, self._path) from error
        except OSError as error:
            raise os_error_as_ours(error, self.folder) from error

    async def state(self) -> JoinState:
        """See `ports.JoinedLog`."""
        with self._lock, self._translated():
            return self._state()

    def _state(self) -> JoinState:
        row = self._connection.execute(_SELECT_STATE).fetchone()
        return _state.decode(row[0]) if row else JoinState()

    async def early(self) -> Sequence[Unmatched]:
        """See `ports.JoinedLog`."""
        with self._lock, self._translated():
            return [_unmatched.decode(body) for (body,) in self._connection.execute(_SELECT_EARLY)]

    async def matches(self, interactions: Sequence[Offset]) -> Mapping[Offset, Sequence[Match]]:
        """See `ports.JoinedLog`."""
        found: dict[Offset, list[Match]] = {}
        wanted = set(interactions)
        with self._lock, self._translated():
            for stretch in stretches(sorted(wanted)):
                for interaction, offset, body in self._connection.execute(_SELECT_MATCHES, stretch):
                    if interaction in wanted:
                        observation = None if body is None else _observation.decode(body)
                        found.setdefault(interaction, []).append(Match(interaction, observation, offset))
        return found

    async def commit(self, step: JoinStep) -> None:
        """See `ports.JoinedLog`."""
        await asyncio.to_thread(self._commit, step)

    def _commit(self, step: JoinStep) -> None:
        matches = [
            (
                match.interaction,
                match.offset,
                None if match.observation is None else _encode(match.observation),
            )
            for match in step.matches
        ]
        rewarded = [(entry.interaction,) for entry in step.joined if entry.observations or entry.activated]
        with self._lock, self._translated():
            with self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                if self._state().erasures != step.state.erasures:
                    raise Conflict("something was erased from the joined log: begin again from what is on record")
                end = self._end()
                joined = [(end + index, _encode(entry)) for index, entry in enumerate(step.joined)]
                connection.executemany(_INSERT_MATCH, matches)
                connection.executemany(_INSERT_EARLY, [(early.offset, _encode(early)) for early in step.early])
                connection.executemany(_DELETE_EARLY, [(offset,) for offset in step.settled])
                connection.executemany(_INSERT_ENTRY, joined)
                connection.executemany(_DELETE_MATCH, rewarded)
                connection.execute(_UPSERT_STATE, (_encode(step.state),))
            self._seal()

    async def erase(self, interactions: Collection[Offset], event_ids: Collection[EventId]) -> None:
        """See `ports.JoinedLog`."""
        await asyncio.to_thread(self._erase, set(interactions), set(event_ids))

    def _erase(self, interactions: set[Offset], event_ids: set[EventId]) -> None:
        with self._lock, self._translated():
            self._connection.execute("PRAGMA secure_delete = ON")
            with self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                state = self._state()
                entries = [(offset, _entry.decode(body)) for offset, body in connection.execute(_SELECT_ALL_ENTRIES)]
                connection.executemany(
                    _UPDATE_ENTRY,
                    [(_encode(_bare(e)), o) for o, e in entries if e.interaction in interactions and _bare(e) != e],
                )
                connection.executemany(_DELETE_MATCH, [(interaction,) for interaction in interactions])
                waiting = [_unmatched.decode(body) for (body,) in connection.execute(_SELECT_EARLY)]
                connection.executemany(
                    _DELETE_EARLY, [(early.offset,) for early in waiting if early.event_id in event_ids]
                )
                state = msgspec.structs.replace(state, erasures=state.erasures + 1)
                connection.execute(_UPSERT_STATE, (_encode(state),))
            self._connection.execute("PRAGMA secure_delete = OFF")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            for _, _, newest, path in self._files():
                if interactions and newest >= min(interactions):
                    self._erase_in(path, interactions)

    def _erase_in(self, path: Path, interactions: set[Offset]) -> None:
        entries = _decoded(path, _read_file(path))
        bare = [_bare(each) if each.interaction in interactions else each for each in entries]
        if bare != entries:
            _write_file(path, bare)

    def _end(self) -> Offset:
        last = self._connection.execute(_SELECT_RANGE).fetchone()[1]
        if last is not None:
            return int(last) + 1
        files = self._files()
        return files[-1][1] if files else 0

    def _files(self) -> list[tuple[Offset, Offset, Offset, Path]]:
        """List the sealed files: first, end, the newest interaction in it, path; in order."""
        files = []
        for path in sorted(self.folder.glob("*.joined")):
            first, newest = path.stem.split("-")
            files.append((int(first), int(first) + self._file_entries, int(newest), path))
        return files

    def _seal(self) -> None:
        """Move whole files' worth of entries out of the database, keeping at least one file's worth in it."""
        while True:
            first, last = self._connection.execute(_SELECT_RANGE).fetchone()
            if first is None or last - first + 1 < 2 * self._file_entries:
                return
            rows = self._connection.execute(_SELECT_ENTRIES, (first, self._file_entries)).fetchall()
            entries = [_entry.decode(body) for _, body in rows]
            newest = max(entry.interaction for entry in entries)
            path = self.folder / f"{first:020d}-{newest:020d}.joined"
            _write_file(path, entries)
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(_DELETE_ENTRIES, (first + self._file_entries,))

    async def read(self, start: Offset, *, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        """See `ports.JoinedLog`."""
        return await asyncio.to_thread(self._read, start, limit)

    def _read(self, start: Offset, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        with self._lock, self._translated(), self._connection:
            # One transaction, in which the table stands still: what it has lost by now is in files by now.
            self._connection.execute("BEGIN")
            first = self._connection.execute(_SELECT_RANGE).fetchone()[0]
            found = [] if first is None or first <= start else self._read_files(start, min(limit, first - start))
            reached = found[-1][0] + 1 if found else start
            rows = self._connection.execute(_SELECT_ENTRIES, (reached, limit - len(found))).fetchall()
            return found + [(offset, _entry.decode(body)) for offset, body in rows]

    def _file(self, path: Path) -> list[msgspec.Raw]:
        state = path.stat()  # another process may have erased something, and so have made another file of the name
        return self._file_as_it_is(path, (state.st_ino, state.st_mtime_ns))

    def _read_files(self, start: Offset, limit: int) -> list[tuple[Offset, JoinedEntry]]:
        found: list[tuple[Offset, JoinedEntry]] = []
        for first, end, _, path in self._files():
            if end <= start:
                continue
            try:
                bodies = self._file(path)
            except FileNotFoundError:  # dropped, with all before it
                found.clear()
                continue
            begin = max(0, start - first)
            entries = _decoded(path, bodies[begin : begin + limit - len(found)])
            found += enumerate(entries, first + begin)
            if len(found) >= limit:
                break
        return found

    def change_mark(self) -> int:
        """See `ports.JoinedLog`."""
        with self._lock, self._translated():
            return change_mark(self._connection)

    async def extent(self) -> tuple[Offset, Offset]:
        """See `ports.JoinedLog`."""
        return await asyncio.to_thread(self._extent)

    def _extent(self) -> tuple[Offset, Offset]:
        with self._lock, self._translated():
            files = self._files()
            end = self._end()
            if files:
                return files[0][0], end
            first = self._connection.execute(_SELECT_RANGE).fetchone()[0]
            return (end if first is None else int(first)), end

    async def drop(self, *, before: Offset) -> None:
        """See `ports.JoinedLog`."""
        with self._lock, self._translated():
            for _, _, newest, path in self._files():
                if newest >= before:
                    break
                path.unlink(missing_ok=True)
            if self._connection.execute(_SELECT_MATCH_BEFORE, (before,)).fetchone():
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._connection.execute(_DELETE_MATCHES_BEFORE, (before,))

    async def close(self) -> None:
        """See `ports.JoinedLog`."""
        with self._lock:
            self._connection.close()


def _bare(entry: JoinedEntry) -> JoinedEntry:
    """What stays of an entry whose interaction was erased."""
    return msgspec.structs.replace(entry, observations=(), activated=False)


def _write_file(path: Path, entries: Sequence[JoinedEntry]) -> None:
    """Write a sealed file aside, flush it to the disk, and rename it into place."""
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
        file.write(compressor.compress(_encode(entries)))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def _read_file(path: Path) -> list[msgspec.Raw]:
    """Read the entries of a sealed file, each as it was encoded."""
    try:
        return _entries.decode(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise _damaged(path, error) from error


def _decoded(path: Path, bodies: Sequence[msgspec.Raw]) -> list[JoinedEntry]:
    try:
        return [_entry.decode(body) for body in bodies]
    except msgspec.MsgspecError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"{path} is damaged: {error}. Restore it from a backup, or rejoin the log.")


def erasures_in(folder: Path) -> int:
    """Say how often something was erased from the joined log in a folder; 0 where there is none."""
    path = folder / "joined.sqlite"
    if not path.exists():
        return 0
    with closing(connect(path)) as connection:
        rows = connection.execute(_SELECT_STATE).fetchall()
    return _state.decode(rows[0][0]).erasures if rows else 0


def decode_entry(body: bytes) -> JoinedEntry:
    """Read an entry as the table keeps it."""
    return _entry.decode(body)
