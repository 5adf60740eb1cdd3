"""The event log of one loop as a folder: sealed segments, and a live one at the end.

Any number of processes may append. Each has one writer thread that takes the append lock, puts everything
that waits into one transaction, and so shares one flush among many calls. The lock is a file lock, which
the kernel hands out in the order of asking; SQLite's own, which is polled, is never contended.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import msgspec

from rankward.errors import Overloaded, RankwardError, StoreUnavailable
from rankward.records import (
    Appended,
    AppendResult,
    Interaction,
    Known,
    LogEntry,
    Offset,
    Record,
    TimeUs,
)
from rankward.store.ports import LOOKUP_BACK_US, LOOKUP_NEWEST, Located, LogExtent, Lookup
from rankward.store.sqlite.codec import Row, event_key, to_row
from rankward.store.sqlite.live import LiveSegment, as_world_error, create_live, live_files, os_error_as_ours
from rankward.store.sqlite.sealed import Held, SealedSegment, sync_folder, write_sealed

logger = logging.getLogger(__name__)

REPEAT_GRACE_US = 3_600_000_000  # a Rank may be repeated for its reward wait and this long
_COMMIT_RECORDS = 256  # at most this many records share a transaction
_LOOKS = 8  # how often files may vanish under one reading before that is an error
_APPEND_LOCK = "append.lock"  # whoever writes to the live segment, or puts another in its place
_HOUSEKEEPING_LOCK = "housekeeping.lock"  # whoever seals or drops segments

T = TypeVar("T")


class SealPolicy(msgspec.Struct, frozen=True):
    """When a live segment is sealed: whichever comes first."""

    entries: int = 250_000
    age_us: int = 3_600_000_000


class _Request(msgspec.Struct):
    records: Sequence[Record]
    rows: Sequence[Row]
    once: bool
    known: Mapping[int, Sequence[Located]]  # by event key: what the segments before `live_first` hold
    live_first: Offset
    done: Callable[[Sequence[AppendResult] | RankwardError], None]


class SqliteEventLog:
    """Implements `ports.EventLog` on one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], TimeUs],
        pending_appends: int = 4_096,
        seal: SealPolicy | None = None,
    ) -> None:
        """Open the log, making it if there is none.

        Args:
            folder: of this log alone.
            clock: the time that entries are stamped with, in microseconds since 1970.
            pending_appends: how many records may wait for the disk in this process.
            seal: when a live segment is sealed.
        """
        self.folder = folder
        self._clock = clock
        self._pending_bound = pending_appends
        self._seal = seal or SealPolicy()
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_APPEND_LOCK, _HOUSEKEEPING_LOCK):  # now, as there may be no room when they are needed
            (folder / name).touch(mode=0o600)
        self._segments = _Segments(folder)
        self._reading = threading.Lock()
        self._queue: deque[_Request] = deque()
        self._pending = 0
        self._wake = threading.Condition()
        self._closing = False
        self._writer: threading.Thread | None = None
        self._live: LiveSegment | None = None  # the writer's own connection
        self._writer_lock: int | None = None  # the writer's own descriptor of the append lock
        with self._locked(_APPEND_LOCK), _translated(folder):
            self._segments.refresh()
            if not self._segments.paths:
                create_live(self._live_path(0), first=0, time_us=0)
                sync_folder(folder)
                self._segments.refresh()

    def _live_path(self, first: Offset) -> Path:
        return self.folder / f"{first:020d}.live"

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a file lock, against other processes and against other threads of this one alike."""
        # The lock belongs to what `open` returned: threads that shared that would all be let in at once.
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # Appending

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """See `ports.EventLog`."""
        if self._pending + len(records) > self._pending_bound:
            raise Overloaded(
                f"{self._pending} records wait for the disk, the bound is {self._pending_bound}: try again in a second"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[AppendResult]] = loop.create_future()

        def settle(outcome: Sequence[AppendResult] | RankwardError) -> None:
            if future.cancelled():
                return
            if isinstance(outcome, RankwardError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        rows = [to_row(record) for record in records]
        known: dict[int, Sequence[Located]] = {}
        live_first = 0
        if once:
            keys = [row.event_key for row in rows if row.event_key is not None]
            with self._reading, _translated(self.folder):
                known, live_first = self._segments.locate_before_live(keys, self._clock())

        def done(outcome: Sequence[AppendResult] | RankwardError) -> None:
            loop.call_soon_threadsafe(settle, outcome)

        request = _Request(records, rows, once, known, live_first, done)
        with self._wake:
            if self._closing:
                raise StoreUnavailable(f"{self.folder} is being closed: nothing more is stored")
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name=f"append {self.folder.name}", daemon=True)
                self._writer.start()
            self._pending += len(records)
            self._queue.append(request)
            self._wake.notify()
        return await future

    def _write(self) -> None:
        """Serve the queue until the log is closed: the writer thread."""
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    break
                batch: list[_Request] = []
                count = 0
                while self._queue and count < _COMMIT_RECORDS:
                    batch.append(self._queue.popleft())
                    count += len(batch[-1].records)
            outcomes: Sequence[Sequence[AppendResult] | RankwardError]
            try:
                outcomes = self._commit(batch)
            except Exception as error:  # a mistake of ours: callers are told, and the thread must live
                logger.exception("appending to %s failed", self.folder)
                outcomes = [StoreUnavailable(f"appending to {self.folder} failed: {error!r}")] * len(batch)
            with self._wake:
                self._pending -= count
            for request, outcome in zip(batch, outcomes, strict=True):
                # A caller whose event loop has ended cannot be told; the record is stored all the same.
                with contextlib.suppress(RuntimeError):
                    request.done(outcome)
        self._forget_live()
        if self._writer_lock is not None:
            os.close(self._writer_lock)

    def _commit(self, batch: Sequence[_Request]) -> Sequence[Sequence[AppendResult] | RankwardError]:
        try:
            with self._append_locked():
                live, offset, last_us = self._begin()
                try:
                    fresh = self._fresh_keys(live, batch)
                    now_us = max(last_us, self._clock())
                    outcomes: list[Sequence[AppendResult]] = []
                    for request in batch:
                        results = []
                        for record, row in zip(request.records, request.rows, strict=True):
                            result = self._insert(live, request, record, row, offset, now_us, fresh)
                            offset += isinstance(result, Appended)
                            results.append(result)
                        outcomes.append(results)
                    live.commit()
                except BaseException:
                    live.rollback()
                    raise
        except (sqlite3.Error, OSError, RankwardError) as error:
            self._forget_live()  # whatever state its connection is in
            return [_as_ours(error, self.folder)] * len(batch)
        return outcomes

    def _fresh_keys(self, live: LiveSegment, batch: Sequence[_Request]) -> set[int]:
        """Of the keys that may have been used before, find those that have not, with one question for all."""
        counts = Counter(row.event_key for request in batch for row in request.rows)
        asked = {
            row.event_key
            for request in batch
            if request.once and request.live_first == live.first
            for row in request.rows
            if row.event_key is not None and counts[row.event_key] == 1 and row.event_key not in request.known
        }
        return asked - live.known_keys(asked) if asked else asked

    def _begin(self) -> tuple[LiveSegment, Offset, TimeUs]:
        """Begin a transaction on the segment that is appended to now, and say where it ends."""
        while True:
            if self._live is None:
                self._live = self._open_live()
            offset, last_us = self._live.begin()
            if not self._live.closed:
                return self._live, offset, last_us
            self._forget_live()

    @contextlib.contextmanager
    def _append_locked(self) -> Iterator[None]:
        """Hold the append lock, in the writer thread, by a descriptor of its own that stays open."""
        if self._writer_lock is None:
            self._writer_lock = os.open(self.folder / _APPEND_LOCK, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._writer_lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._writer_lock, fcntl.LOCK_UN)

    def _forget_live(self) -> None:
        if self._live is not None:
            self._live.close()  # and undo what was not committed
        self._live = None

    def _open_live(self) -> LiveSegment:
        """Open the segment that is appended to: the first that is not closed. Needs the append lock."""
        for path in sorted(self.folder.glob("*.live")):
            try:
                live = LiveSegment(path)
            except FileNotFoundError:
                continue  # it has just been sealed
            if not live.closed:
                return live
            live.close()
        raise StoreUnavailable(f"{self.folder} has no segment to append to: restore it from a backup")

    def _insert(
        self,
        live: LiveSegment,
        request: _Request,
        record: Record,
        row: Row,
        offset: Offset,
        now_us: TimeUs,
        fresh: Collection[int],
    ) -> AppendResult:
        if not request.once or row.event_key is None or row.event_key in fresh:
            live.insert(offset, now_us, row)
            return Appended(offset, now_us)
        assert isinstance(record, Interaction), "only interactions have an event key"
        earlier: Sequence[Located]
        if request.live_first == live.first:
            earlier = request.known.get(row.event_key, ())
        else:  # the segment was closed after the request had looked
            with self._reading:
                self._segments.refresh()
                earlier = self._segments.locate_before_live([row.event_key], now_us)[0].get(row.event_key, ())
        repeats = False
        for place in [
            *live.locate(row.event_key, before=offset, ended_us=0, limit=LOOKUP_NEWEST),
            *earlier,
        ]:
            entry = self._entry_at(live, place.offset)
            if entry is None or not isinstance(entry.record, Interaction) or entry.record.event_id != record.event_id:
                continue
            repeats = True
            if entry.record.same_request(record) and now_us - place.time_us < place.reward_wait_us + REPEAT_GRACE_US:
                return Known(entry)
        if repeats:
            row = to_row(msgspec.structs.replace(record, repeats=True))
        live.insert(offset, now_us, row)
        return Appended(offset, now_us, repeats)

    def _entry_at(self, live: LiveSegment, offset: Offset) -> LogEntry | None:
        """Return an entry; None: it has been dropped meanwhile."""
        if offset >= live.first:
            entries = live.read(offset, 1)
        else:
            with self._reading:
                entries = self._segments.read(offset, 1)
        return entries[0] if entries and entries[0].offset == offset else None

    # Reading

    async def read(self, start: Offset, *, limit: int) -> Sequence[LogEntry]:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._read, start, limit)

    def _read(self, start: Offset, limit: int) -> Sequence[LogEntry]:
        with self._reading, _translated(self.folder):
            return self._segments.read(start, limit)

    async def locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._locate, lookups)

    def _locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        with self._reading, _translated(self.folder):
            self._segments.refresh()
            return self._segments.locate(lookups)

    async def extent(self) -> LogExtent:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._extent)

    def _extent(self) -> LogExtent:
        with self._reading, _translated(self.folder):
            self._segments.refresh()
            return self._segments.extent()

    # Housekeeping

    async def drop(self, *, before: Offset) -> None:
        """See `ports.EventLog`."""
        await asyncio.to_thread(self._drop, lambda segment: segment.end <= before)

    async def clear(self) -> Offset:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._clear)

    def _clear(self) -> Offset:
        end = self._rotate()
        self._drop(lambda segment: segment.end <= end)
        return end

    def _drop(self, condition: Callable[[SealedSegment | _Live], bool]) -> None:
        with self._locked(_HOUSEKEEPING_LOCK), self._reading, _translated(self.folder):
            self._segments.refresh()
            self._segments.drop(condition)

    async def maintain(self, *, joined_before: Offset, keep_after_us: TimeUs) -> None:
        """See `ports.EventLog`."""
        await asyncio.to_thread(self._maintain, joined_before, keep_after_us)

    def _maintain(self, joined_before: Offset, keep_after_us: TimeUs) -> None:
        with self._reading, _translated(self.folder):
            self._segments.refresh()
            self._segments.checkpoint()
            first, end, first_time_us = self._segments.live_fill()
            full = end - first >= self._seal.entries
            old = end > first and self._clock() - first_time_us >= self._seal.age_us
        if full or old:
            self._rotate()
        with self._locked(_HOUSEKEEPING_LOCK), _translated(self.folder):
            for path in sorted(self.folder.glob("*.live"))[:-1]:
                self._seal_segment(path)
        self._drop(lambda segment: segment.end <= joined_before and segment.last_time_us < keep_after_us)

    def _rotate(self) -> Offset:
        """Close the live segment and begin the next, unless it is empty. Returns the next entry's offset."""
        with self._locked(_APPEND_LOCK), _translated(self.folder):
            live = self._open_live()
            try:
                live.begin()
                end, last_us = live.tail()
                if end == live.first:
                    live.rollback()
                    return end
                for path in sorted(self.folder.glob("*.live")):
                    if path > live.path:  # of a rotation that did not finish
                        _unlink_live(path)
                # The new one is complete before the old one is closed; while the old one is open, it counts.
                create_live(self._live_path(end), first=end, time_us=last_us)
                sync_folder(self.folder)
                live.close_for_good()
                live.commit()
            finally:
                live.close()
        return end

    def _seal_segment(self, path: Path) -> None:
        live = LiveSegment(path)
        try:
            if not live.closed:
                return
            sealed = path.with_suffix(".seg")
            if not sealed.exists():
                write_sealed(sealed, live.first, live.rows())
        finally:
            live.close()
        with self._reading:
            self._segments.refresh()
        _unlink_live(path)

    async def close(self) -> None:
        """See `ports.EventLog`."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.join)
        with self._reading:
            self._segments.close()


def _unlink_live(path: Path) -> None:
    for file in live_files(path):
        file.unlink(missing_ok=True)


def _as_ours(error: sqlite3.Error | OSError | RankwardError, folder: Path) -> RankwardError:
    if isinstance(error, RankwardError):
        return error
    if isinstance(error, sqlite3.Error):
        return as_world_error(error, folder)
    return os_error_as_ours(error, folder)


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _as_ours(error, folder) from error


class _Gap(Exception):
    """Entries are missing between two segments: one was sealed while the folder was listed, or is lost."""


class _Live(LiveSegment):
    """A live segment as readers see it: its end moves."""

    longest_wait_us = 1 << 62  # not known while it is written: always worth a look

    @property
    def end(self) -> Offset:
        return self.tail()[0]

    @property
    def last_time_us(self) -> TimeUs:
        return self.tail()[1]


class _Segments:
    """This process's view of the folder, for reading. Guarded by the log's reading lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths: list[Path] = []
        self._open: dict[Path, SealedSegment | _Live] = {}
        self._reaches: list[TimeUs] | None = None  # None: not known for these paths
        self._held = Held()

    def refresh(self) -> None:
        """Look at the folder again."""
        self.paths = self._again_when_moved(self._listed, refresh=False)
        self._reaches = None
        for gone in self._open.keys() - set(self.paths):
            self._open.pop(gone).close()

    def _again_when_moved(self, look: Callable[[], T], *, refresh: bool = True) -> T:
        """Look once more when segments were sealed or dropped under our eyes, by whichever process."""
        for _ in range(_LOOKS):
            try:
                return look()
            except (FileNotFoundError, _Gap):
                if refresh:
                    self.refresh()
        try:
            return look()
        except _Gap as gap:
            raise StoreUnavailable(f"{self._folder} lacks {gap}: restore it from a backup") from gap

    def _listed(self) -> list[Path]:
        by_first: dict[str, Path] = {}
        for path in sorted(self._folder.iterdir()):
            if path.suffix in {".live", ".seg"}:
                # Of one stretch, the sealed file comes later in the order, and counts.
                by_first[path.stem] = path
        paths = [by_first[stem] for stem in sorted(by_first)]
        # A segment made by a rotation that did not finish does not count yet.
        while len(paths) > 1 and paths[-1].suffix == paths[-2].suffix == ".live" and not self._is_closed(paths[-2]):
            paths.pop()
        return paths

    def _is_closed(self, path: Path) -> bool:
        segment = _Live(path)
        try:
            return segment.is_closed()
        finally:
            segment.close()

    def _at(self, index: int) -> SealedSegment | _Live:
        path = self.paths[index]
        segment = self._open.get(path)
        if segment is None:
            segment = _Live(path) if path.suffix == ".live" else SealedSegment(path, self._held)
            self._open[path] = segment
        return segment

    def _firsts(self) -> list[Offset]:
        return [int(path.stem) for path in self.paths]

    def read(self, start: Offset, limit: int) -> list[LogEntry]:
        def look() -> list[LogEntry]:
            entries = self._read(start, limit)
            if len(entries) < limit and self._has_moved_on():
                self.refresh()
                entries = self._read(start, limit)
            return entries

        return self._again_when_moved(look)

    def _has_moved_on(self) -> bool:
        """Whether what we hold for the last segment has been closed, so that there is a newer one."""
        last = self._at(len(self.paths) - 1)
        return not isinstance(last, _Live) or last.is_closed()

    def _read(self, start: Offset, limit: int) -> list[LogEntry]:
        entries: list[LogEntry] = []
        firsts = self._firsts()
        following = max(start, firsts[0])
        for index in range(bisect_right(firsts, following) - 1, len(firsts)):
            part = self._at(index).read(following, limit - len(entries))
            if part and part[0].offset != following:
                raise _Gap(f"the entries {following} to {part[0].offset - 1}")
            entries += part
            following += len(part)
            if len(entries) >= limit:
                break
        return entries

    def _waiting(self, ended_us: TimeUs) -> Iterator[int]:
        """Return the indexes, newest first, of segments that may hold waits which end at a time or later."""
        if self._reaches is None:
            segments = map(self._at, range(len(self.paths)))
            self._reaches = list(accumulate((each.last_time_us + each.longest_wait_us for each in segments), max))
        return reversed(range(bisect_left(self._reaches, ended_us), len(self.paths)))

    def locate(self, lookups: Sequence[Lookup]) -> list[list[Located]]:
        return self._again_when_moved(lambda: [self._locate(lookup) for lookup in lookups])

    def _locate(self, lookup: Lookup) -> list[Located]:
        key = event_key(lookup.event_id)
        ended_us = lookup.time_us - LOOKUP_BACK_US
        found: list[Located] = []
        for index in self._waiting(ended_us):
            if int(self.paths[index].stem) < lookup.before and len(found) < LOOKUP_NEWEST:
                found += self._at(index).locate(
                    key, before=lookup.before, ended_us=ended_us, limit=LOOKUP_NEWEST - len(found)
                )
        return found[::-1]

    def locate_before_live(self, keys: Sequence[int], now_us: TimeUs) -> tuple[dict[int, Sequence[Located]], Offset]:
        """Look for event keys, newest first, in the segments before the last whose events may come again."""
        return self._again_when_moved(lambda: self._locate_before_live(keys, now_us))

    def _locate_before_live(self, keys: Sequence[int], now_us: TimeUs) -> tuple[dict[int, Sequence[Located]], Offset]:
        found: dict[int, Sequence[Located]] = {}
        live_first = int(self.paths[-1].stem)
        for index in self._waiting(now_us - REPEAT_GRACE_US):
            if index == len(self.paths) - 1:
                continue
            for key in keys:
                places = self._at(index).locate(key, before=live_first, ended_us=0, limit=LOOKUP_NEWEST)
                if places:
                    found[key] = [*found.get(key, ()), *places]
        return found, live_first

    def live_fill(self) -> tuple[Offset, Offset, TimeUs]:
        """Return the last segment's first offset, end, and the time of its first entry."""
        segment = self._at(len(self.paths) - 1)
        entries = segment.read(segment.first, 1)
        return segment.first, segment.end, entries[0].time_us if entries else 0

    def extent(self) -> LogExtent:
        last = self._at(len(self.paths) - 1)
        end = last.end
        first = int(self.paths[0].stem)
        return LogExtent(first=min(first, end), end=end, last_time_us=last.last_time_us)

    def checkpoint(self) -> None:
        last = self._at(len(self.paths) - 1)
        if isinstance(last, _Live):
            last.checkpoint()

    def drop(self, condition: Callable[[SealedSegment | _Live], bool]) -> None:
        """Unlink the oldest segments for as long as the condition holds; never the last."""
        dropped = False
        while len(self.paths) > 1 and condition(self._at(0)):
            path = self.paths.pop(0)
            self._open.pop(path).close()
            self._reaches = None
            path.with_suffix(".seg").unlink(missing_ok=True)
            _unlink_live(path.with_suffix(".live"))
            dropped = True
        if dropped:
            sync_folder(self._folder)

    def close(self) -> None:
        for segment in self._open.values():
            segment.close()
        self._open.clear()
