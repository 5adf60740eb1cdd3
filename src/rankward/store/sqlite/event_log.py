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
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from rankward.errors import Overloaded, RankwardError, StoreUnavailable
from rankward.records import (
    AnyInteraction,
    Appended,
    AppendResult,
    Erased,
    EventId,
    HeaderEntry,
    Known,
    LogEntry,
    Offset,
    Record,
    TimeUs,
)
from rankward.store.ports import LOOKUP_NEWEST, Located, LogExtent, Lookup
from rankward.store.sqlite.codec import Row, to_record, to_row
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.groups import Group
from rankward.store.sqlite.live import LiveSegment, as_world_error, create_live, os_error_as_ours
from rankward.store.sqlite.sealed import Held, SealedSegment, write_sealed
from rankward.store.sqlite.segments import ANY_OFFSET, REPEAT_GRACE_US, LiveView, Segments, unlink_live

logger = logging.getLogger(__name__)

_APPENDED = Appended()
_COMMIT_RECORDS = 256  # at most this many records share a transaction
_APPEND_LOCK = "append.lock"  # whoever writes to the live segment, or puts another in its place
_HOUSEKEEPING_LOCK = "housekeeping.lock"  # whoever seals or drops segments


class SealPolicy(msgspec.Struct, frozen=True):
    """When a live segment is sealed: whichever comes first."""

    entries: int = 250_000
    age_us: int = 3_600_000_000


_Outcome = Sequence[AppendResult] | RankwardError
_Answer = asyncio.Future[Sequence[AppendResult]]


class _Wanted(msgspec.Struct):
    rows: Sequence[Row]
    once: bool
    known: Mapping[int, Sequence[Located]]  # by event key: what the segments before `live_first` hold
    live_first: Offset


class _Request(_Wanted):
    answer: _Answer


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
        with _translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_APPEND_LOCK, _HOUSEKEEPING_LOCK):  # now, as there may be no room when they are needed
                (folder / name).touch(mode=0o600)
        self._segments = Segments(folder)
        self._reading = threading.Lock()
        self._queue: deque[_Request] = deque()
        self._pending = 0
        self._wake = threading.Condition()
        self._closing = False
        self._writer: threading.Thread | None = None
        self._writing = threading.Lock()  # guards the two that follow
        self._live: LiveSegment | None = None  # the writer's own connection
        self._writer_lock: int | None = None  # the writer's own descriptor of the append lock
        with _translated(folder), self._locked(_APPEND_LOCK):
            self._segments.refresh()
            if not self._segments.paths:
                create_live(self._live_path(0), first=0, time_us=0)
                sync_folder(folder)
                self._segments.refresh()

    def _live_path(self, first: Offset) -> Path:
        return self.folder / f"{first:020d}.live"

    def _locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        return _locked(self.folder / name)

    # Appending

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """See `ports.EventLog`."""
        with self._wake:
            if self._pending + len(records) > self._pending_bound:
                raise Overloaded(
                    f"{self._pending} records wait for the disk, the bound is {self._pending_bound}: "
                    "try again in a second"
                )
            self._pending += len(records)
        try:
            answer = self._enqueue(await self._prepare(records, once=once))
        except BaseException:
            with self._wake:
                self._pending -= len(records)
            raise
        return await answer

    async def _prepare(self, records: Sequence[Record], *, once: bool) -> _Request:
        rows = [to_row(record) for record in records]
        known: dict[int, Sequence[Located]] = {}
        live_first = 0
        if once:
            keys = [row.event_key for row in rows if row.event_key is not None]
            if self._reading.acquire(blocking=False):
                try:
                    known, live_first = self._locate_before_live(keys)
                finally:
                    self._reading.release()
            else:  # a long reading is under way, and must not hold up the event loop
                known, live_first = await asyncio.to_thread(self._wait_and_locate_before_live, keys)
        return _Request(rows, once, known, live_first, asyncio.get_running_loop().create_future())

    def _enqueue(self, request: _Request) -> _Answer:
        with self._wake:
            if self._closing:
                raise StoreUnavailable(f"{self.folder} is being closed: nothing more is stored")
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name=f"append {self.folder.name}", daemon=True)
                self._writer.start()
            self._queue.append(request)
            self._wake.notify()
        return request.answer

    def _locate_before_live(self, keys: Sequence[int]) -> tuple[dict[int, Sequence[Located]], Offset]:
        with _translated(self.folder):
            return self._segments.locate_before_live(keys, self._clock())

    def _wait_and_locate_before_live(self, keys: Sequence[int]) -> tuple[dict[int, Sequence[Located]], Offset]:
        with self._reading:
            return self._locate_before_live(keys)

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
                    count += len(batch[-1].rows)
            outcomes: Sequence[_Outcome]
            try:
                outcomes = self._commit(batch)
            except Exception as error:  # a mistake of ours: callers are told, and the thread must live
                logger.exception("appending to %s failed", self.folder)
                outcomes = [StoreUnavailable(f"appending to {self.folder} failed: {error!r}")] * len(batch)
            with self._wake:
                self._pending -= count
            _tell(batch, outcomes)

    def _commit(self, batch: Sequence[_Request]) -> Sequence[_Outcome]:
        try:
            with self._transaction() as (live, end, last_us):
                offset = end
                fresh = self._fresh_keys(live, batch)
                now_us = max(last_us, self._clock())
                outcomes: list[Sequence[AppendResult]] = []
                for request in batch:
                    outcomes.append(self._insert_each(live, request, offset, now_us, fresh))
                    offset += _stored(outcomes[-1])
        except RankwardError as error:
            return [error] * len(batch)
        return outcomes

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[tuple[LiveSegment, Offset, TimeUs]]:
        """Write to the live segment, all or nothing: gives it, the offset that comes next and the last time."""
        with self._writing:
            try:
                with self._append_locked():
                    live, offset, last_us = self._begin()
                    try:
                        yield live, offset, last_us
                        live.commit()
                    except BaseException:
                        live.rollback()
                        raise
            except (sqlite3.Error, OSError, RankwardError) as error:
                self._forget_live()  # whatever state its connection is in
                raise _as_ours(error, self.folder) from error

    def _fresh_keys(self, live: LiveSegment, batch: Sequence[_Wanted]) -> set[int]:
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

    def _insert_each(
        self, live: LiveSegment, request: _Wanted, offset: Offset, now_us: TimeUs, fresh: Collection[int]
    ) -> Sequence[AppendResult]:
        results: list[AppendResult] = []
        for row in request.rows:
            known = None
            if request.once and row.event_key is not None and row.event_key not in fresh:
                known, row = self._known(live, request, row, row.event_key, offset, now_us)  # noqa: PLW2901
            if known is None:
                live.insert(offset, now_us, row)
                offset += 1
            results.append(_APPENDED if known is None else Known(known))
        return results

    def _known(
        self, live: LiveSegment, request: _Wanted, row: Row, key: int, offset: Offset, now_us: TimeUs
    ) -> tuple[LogEntry | None, Row]:
        """Find the entry that makes a request known, if there is one; else the row may say that its id repeats.

        What is found depends on what the log holds and the time alone, and not on how it is cut into segments.
        """
        earlier: Sequence[Located]
        if request.live_first == live.first:
            earlier = request.known.get(key, ())
        else:  # the segment was closed after the request had looked
            with self._reading:
                self._segments.refresh()
                earlier = self._segments.locate_before_live([key], now_us)[0].get(key, ())
        ended_us = now_us - REPEAT_GRACE_US + 1
        places = [
            *live.locate(key, before=offset, ended_us=ended_us, limit=LOOKUP_NEWEST),
            *(place for place in earlier if place.time_us + place.reward_wait_us >= ended_us),
        ]
        record = to_record(row.body, row.actions) if places else None
        repeats = False
        for place in places[:LOOKUP_NEWEST]:
            assert isinstance(record, AnyInteraction), "only interactions have an event key"
            entry = self._entry_at(live, place.offset)
            earlier_one = _decision_of(entry, record.event_id)
            if entry is None or earlier_one is None:
                continue
            repeats = True
            if earlier_one.same_request(record):
                return entry, row
        if repeats:
            assert isinstance(record, AnyInteraction), "only interactions have an event key"
            row = to_row(msgspec.structs.replace(record, repeats=True))
        return None, row

    def _entry_at(self, live: LiveSegment, offset: Offset) -> LogEntry | None:
        """Return an entry; None: it has been dropped meanwhile."""
        if offset >= live.first:
            entries = live.read(offset, 1)
        else:
            with self._reading:
                entries = self._segments.read(offset, 1)
        return entries[0] if entries and entries[0].offset == offset else None

    # Following a stream

    async def apply(self, groups: Sequence[Group]) -> Sequence[Sequence[Sequence[AppendResult]]]:
        """Append what a stream brings, each group at its own time, and note the place in the stream: all or nothing.

        Whether an interaction is known, its offset and its time follow from the groups alone.

        Args:
            groups: in the order of the stream, from the place on.

        Returns:
            For each group and each of its requests what `append` would return.

        Raises:
            StorageFull, StoreUnavailable: nothing was stored.
        """
        return await asyncio.to_thread(self._apply, groups)

    def _apply(self, groups: Sequence[Group]) -> Sequence[Sequence[Sequence[AppendResult]]]:
        with self._transaction() as (live, end, last_us):
            known, live_first = self._known_before(live, groups, last_us)
            wanted = [[_Wanted(each.rows, each.once, known, live_first) for each in group.requests] for group in groups]
            fresh = self._fresh_keys(live, [each for requests in wanted for each in requests])
            outcomes = []
            offset, time_us = end, last_us
            for group, requests in zip(groups, wanted, strict=True):
                first, time_us = offset, max(time_us, group.time_us)
                results = []
                for request in requests:
                    results.append(self._insert_each(live, request, offset, time_us, fresh))
                    offset += _stored(results[-1])
                live.arrive(group.sequence, first, offset - first)
                outcomes.append(results)
        return outcomes

    def _known_before(
        self, live: LiveSegment, groups: Sequence[Group], last_us: TimeUs
    ) -> tuple[dict[int, Sequence[Located]], Offset]:
        keys = [
            row.event_key
            for group in groups
            for request in group.requests
            if request.once
            for row in request.rows
            if row.event_key is not None
        ]
        if not keys:
            return {}, live.first
        with self._reading:
            if self._segments.paths[-1] != live.path:
                self._segments.refresh()
            return self._segments.locate_before_live(keys, last_us)

    async def place(self) -> int:
        """Return how far the stream has been applied: the sequence of its last message; 0: nothing has been."""
        return await asyncio.to_thread(self._place)

    def _place(self) -> int:
        with self._reading, _translated(self.folder):
            return self._segments.place()

    async def arrived(self, sequence: int) -> range | None:
        """Tell the offsets of the entries that a message brought; None: the folder does not say any more."""
        return await asyncio.to_thread(self._arrived, sequence)

    def _arrived(self, sequence: int) -> range | None:
        with self._reading, _translated(self.folder):
            return self._segments.arrived(sequence)

    async def messages(self, offsets: Collection[Offset]) -> set[int]:
        """Find the messages that brought the entries at these offsets."""
        return await asyncio.to_thread(self._messages, offsets)

    def _messages(self, offsets: Collection[Offset]) -> set[int]:
        with self._reading, _translated(self.folder):
            return self._segments.messages(offsets)

    async def find(
        self, rows: Sequence[Row], *, before: Offset = ANY_OFFSET, ended_us: TimeUs = 0
    ) -> Sequence[LogEntry | None]:
        """Find for each interaction the newest entry of the same request; None: there is none.

        Args:
            rows: of interactions.
            before: entries before this offset.
            ended_us: entries whose waits end at this time or later.
        """
        if self._reading.acquire(blocking=False):
            try:
                return self._find(rows, before, ended_us)
            finally:
                self._reading.release()
        return await asyncio.to_thread(self._wait_and_find, rows, before, ended_us)

    def _wait_and_find(self, rows: Sequence[Row], before: Offset, ended_us: TimeUs) -> Sequence[LogEntry | None]:
        with self._reading:
            return self._find(rows, before, ended_us)

    def _find(self, rows: Sequence[Row], before: Offset, ended_us: TimeUs) -> Sequence[LogEntry | None]:
        keys = {row.event_key for row in rows if row.event_key is not None}
        with _translated(self.folder):
            found = self._segments.locate_all(keys, before=before, ended_us=ended_us)
            return [self._newest_of_request(row, found.get(row.event_key or 0, ())) for row in rows]

    def _newest_of_request(self, row: Row, places: Sequence[Located]) -> LogEntry | None:
        if not places:
            return None
        record = to_record(row.body, row.actions)
        assert isinstance(record, AnyInteraction), "only interactions have an event key"
        for place in places:
            entries = self._segments.read(place.offset, 1)
            entry = entries[0] if entries and entries[0].offset == place.offset else None
            decision = _decision_of(entry, record.event_id)
            if decision is not None and decision.same_request(record):
                return entry
        return None

    # Reading

    async def read(self, start: Offset, *, limit: int) -> Sequence[LogEntry]:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._read, start, limit)

    def _read(self, start: Offset, limit: int) -> Sequence[LogEntry]:
        with self._reading, _translated(self.folder):
            return self._segments.read(start, limit)

    async def read_headers(self, start: Offset, *, limit: int) -> Sequence[HeaderEntry]:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._read_headers, start, limit)

    def _read_headers(self, start: Offset, limit: int) -> Sequence[HeaderEntry]:
        with self._reading, _translated(self.folder):
            return self._segments.read_headers(start, limit)

    async def locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        """See `ports.EventLog`."""
        return await asyncio.to_thread(self._locate, lookups)

    def _locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        with self._reading, _translated(self.folder):
            self._segments.refresh()
            return self._segments.locate(lookups)

    def change_mark(self) -> int:
        """See `ports.EventLog`."""
        with self._reading, _translated(self.folder):
            return self._segments.change_mark()

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

    def _drop(self, condition: Callable[[SealedSegment | LiveView], bool]) -> None:
        with self._locked(_HOUSEKEEPING_LOCK), self._reading, _translated(self.folder):
            self._segments.refresh()
            self._segments.drop(condition)

    async def erase(self, places: Mapping[Offset, Erased]) -> None:
        """See `ports.EventLog`."""
        await asyncio.to_thread(self._erase, places)

    def _erase(self, places: Mapping[Offset, Erased]) -> None:
        rows = {offset: to_row(erased) for offset, erased in places.items()}
        with self._locked(_HOUSEKEEPING_LOCK), _translated(self.folder):
            with self._reading:
                self._segments.refresh()
                paths = list(self._segments.paths)
            ends = [int(path.stem) for path in paths[1:]] + [max(rows, default=0) + 1]
            for path, end in zip(paths, ends, strict=True):
                here = {offset: row for offset, row in rows.items() if int(path.stem) <= offset < end}
                if here and path.suffix == ".live":
                    self._erase_live(path, here)
                elif here:
                    self._erase_sealed(path, here)

    def _erase_live(self, path: Path, rows: Mapping[Offset, Row]) -> None:
        with self._locked(_APPEND_LOCK):
            live = LiveSegment(path)
            try:
                live.erase(rows)
            finally:
                live.close()

    def _erase_sealed(self, path: Path, rows: Mapping[Offset, Row]) -> None:
        segment = SealedSegment(path, Held())
        kept = ((time_us, rows.get(segment.first + index, row)) for index, (time_us, row) in enumerate(segment.rows()))
        write_sealed(path, segment.first, kept, segment.messages())

    async def maintain(self, *, joined_before: Offset, keep_after_us: TimeUs) -> None:
        """See `ports.EventLog`."""
        await asyncio.to_thread(self._maintain, joined_before, keep_after_us)

    def _maintain(self, joined_before: Offset, keep_after_us: TimeUs) -> None:
        # First what makes room, then what needs some: the disk may be full.
        repeats_after_us = self._clock() - 2 * REPEAT_GRACE_US  # twice: clocks of nodes differ, what they hold must not

        def is_old(segment: SealedSegment | LiveView) -> bool:
            if segment.end > joined_before or segment.last_time_us >= keep_after_us:
                return False
            # A decision that may still be asked for again is kept, however long its wait was.
            return isinstance(segment, LiveView) or segment.last_time_us + segment.longest_wait_us < repeats_after_us

        self._drop(is_old)
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
                        unlink_live(path)
                # The new one is complete before the old one is closed; while the old one is open, it counts.
                create_live(self._live_path(end), first=end, time_us=last_us, place=live.place)
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
                write_sealed(sealed, live.first, live.rows(), live.messages())
        finally:
            live.close()
        with self._reading:
            self._segments.refresh()
        unlink_live(path)

    async def close(self) -> None:
        """See `ports.EventLog`."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.join)
        with self._writing:
            self._forget_live()
            if self._writer_lock is not None:
                os.close(self._writer_lock)
                self._writer_lock = None
        with self._reading:
            self._segments.close()


def _stored(results: Sequence[AppendResult]) -> int:
    """Count what was not known."""
    return sum(result is _APPENDED for result in results)


def _decision_of(entry: LogEntry | None, event_id: EventId) -> AnyInteraction | None:
    """Two ids may share a key, and an entry may have been dropped meanwhile."""
    if entry is None or not isinstance(entry.record, AnyInteraction) or entry.record.event_id != event_id:
        return None
    return entry.record


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock, against other processes and against other threads of this one alike."""
    # The lock belongs to what `open` returned: threads that shared that would all be let in at once.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def undisturbed(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep all processes from sealing, dropping and erasing in an event log's folder. They go on appending."""
    return _locked(folder / _HOUSEKEEPING_LOCK)


def _tell(batch: Sequence[_Request], outcomes: Sequence[_Outcome]) -> None:
    """Give callers what became of their records, waking each event loop once."""
    told: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Answer, _Outcome]]] = defaultdict(list)
    for request, outcome in zip(batch, outcomes, strict=True):
        told[request.answer.get_loop()].append((request.answer, outcome))
    for loop, answers in told.items():
        # A caller whose event loop has ended cannot be told; the record is stored all the same.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, answers)


def settle(answers: Sequence[tuple[_Answer, _Outcome]]) -> None:
    """Give waiting callers their outcomes."""
    for answer, outcome in answers:
        if answer.cancelled():
            continue
        if isinstance(outcome, RankwardError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


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
