"""Log lines become history of a loop: to train on, and to evaluate by.

How far a file has come is appended to the event log together with the events that it gave, so that an import that was
interrupted, however, goes on where it stopped. The log is also what tells which events are there already.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from rankward.dsjson.read import Skip, Skipped
from rankward.errors import InvalidRequest
from rankward.history.files import digest_of
from rankward.history.sources import open_source
from rankward.ranking.features import FeatureBounds
from rankward.records import AnyHeader, HeaderEntry, History, ImportProgress, LearningMode, Record, TimeUs
from rankward.settings import Limits
from rankward.store.ports import EventLog

IMPORTED = "imported"
DUPLICATE = "duplicate"
BROKEN_NAMED = 20
"""So many broken lines are named; the others are counted."""

_READ = 4_000
_MAINTAIN = 50_000  # events between two looks at whether a segment is full


class BrokenLine(msgspec.Struct, frozen=True):
    """A line that could not be used."""

    file: str
    line: int  # counts from 1
    why: str


class Imported(msgspec.Struct, kw_only=True):
    """What an import has done so far, or in all."""

    files: int
    files_done: int = 0
    files_known: int = 0  # of those done: imported before, as a whole
    bytes_total: int = 0
    bytes_read: int = 0
    counts: Counter[str] = msgspec.field(
        default_factory=Counter
    )  # lines, by what became of them; those of earlier runs too
    resumed: int = 0  # lines that an earlier run had read
    broken: list[BrokenLine] = []
    first_us: TimeUs | None = None  # of the events imported by this run; None: there were none
    last_us: TimeUs | None = None
    oldest_us: TimeUs | None = None  # of everything that was ever imported into the loop and is kept

    @property
    def lines(self) -> int:
        """Lines read, by this run and earlier ones."""
        return self.counts.total()


class _KnownEvents:
    """Which events a log holds already: 8 bytes for each."""

    def __init__(self) -> None:
        self._held = array("q")
        self._added: set[int] = set()

    @staticmethod
    def _key(event_id: str, time_us: TimeUs) -> int:
        named = hashlib.blake2b(f"{time_us} {event_id}".encode(), digest_size=8)
        return int.from_bytes(named.digest(), "big", signed=True)

    def note(self, event_id: str, time_us: TimeUs) -> None:
        """Take in an event that the log holds; before `settle`."""
        self._held.append(self._key(event_id, time_us))

    def settle(self) -> None:
        """All that the log holds has been taken in."""
        self._held = array("q", np.sort(np.frombuffer(self._held, np.int64)).tobytes())

    def add(self, event_id: str, time_us: TimeUs) -> bool:
        """Take in an event that is new. Returns whether it is."""
        key = self._key(event_id, time_us)
        index = bisect_left(self._held, key)
        if key in self._added or (index < len(self._held) and self._held[index] == key):
            return False
        self._added.add(key)
        return True


class Importer:
    """Imports files into one loop. One at a time: whoever makes it holds the loop's import lock."""

    def __init__(
        self,
        log: EventLog,
        *,
        bounds: FeatureBounds,
        limits: Limits,
        reward_wait_us: int,
        strict: bool = False,
        told: Callable[[Imported], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            log: the loop's event log.
            bounds: how much features may hold.
            limits: how long ids may be.
            reward_wait_us: the loop's; lines have none.
            strict: stop at the first broken line.
            told: is told how far it is, after every few hundred lines.
        """
        self._log = log
        self._bounds = bounds
        self._limits = limits
        self._reward_wait_us = reward_wait_us
        self._strict = strict
        self._told = told
        self._known = _KnownEvents()
        self._progress: dict[str, ImportProgress] = {}  # by digest

    async def run(self, files: Sequence[Path]) -> Imported:
        """Import files, in this order.

        Raises:
            InvalidRequest: a file is damaged, or with `strict`, has a broken line. What came before it is imported.
            WorldError: the log cannot be written. Run again, it goes on from there.
        """
        state = Imported(files=len(files), bytes_total=sum(path.stat().st_size for path in files))
        await self._look_through(state)
        for path in files:
            before = state.bytes_read
            await self._file(path, state)
            state.files_done += 1
            state.bytes_read = before + path.stat().st_size
            self._told(state)
        return state

    async def _look_through(self, state: Imported) -> None:
        """Learn what the log holds already."""
        position = (await self._log.extent()).first
        while entries := await self._log.read_headers(position, limit=_READ):
            for entry in entries:
                self._note(entry, state)
            position = entries[-1].offset + 1
        self._known.settle()

    def _note(self, entry: HeaderEntry, state: Imported) -> None:
        match entry.record:
            case History() as past:
                self._known.note(past.interaction.event_id, past.time_us)
                state.oldest_us = _earlier(state.oldest_us, past.time_us)
            case ImportProgress() as progress:
                self._progress[progress.digest] = progress
            case record if isinstance(record, AnyHeader):
                self._known.note(record.event_id, entry.time_us)
            case _:
                pass

    async def _file(self, path: Path, state: Imported) -> None:
        digest = digest_of(path)
        progress = self._progress.get(digest) or ImportProgress(digest=digest, name=path.name, lines=0, counts={})
        counts = Counter(progress.counts)
        state.counts += counts
        state.resumed += progress.lines
        if progress.finished:
            state.files_known += 1
            return
        source = open_source(
            path,
            bounds=self._bounds,
            limits=self._limits,
            reward_wait_us=self._reward_wait_us,
            mode=progress.learning_mode,
        )
        number = progress.lines
        start = state.bytes_read
        unmaintained = 0
        writing: asyncio.Task[object] | None = None  # the last batch, while the next is read
        try:
            source.skip(number)
            while results := source.read():
                batch, stop = self._sort(results, path, number, counts, state)
                number = number + len(results) if stop is None else stop.line - 1
                state.bytes_read = start + source.position
                if batch:
                    if writing is not None:
                        await writing
                    mark = _progress(progress, number, counts, source.mode)
                    writing = asyncio.create_task(_append(self._log, [*batch, mark]))
                    await asyncio.sleep(0)  # so that it begins
                    unmaintained += len(batch)
                    if unmaintained >= _MAINTAIN:
                        await self._log.maintain(joined_before=0, keep_after_us=0)  # seals what is full
                        unmaintained = 0
                self._told(state)
                if stop is not None:
                    raise InvalidRequest(f"{stop.file}, line {stop.line}: {stop.why}. What came before it is imported.")
        finally:
            source.close()
            if writing is not None:
                await writing
        finished = _progress(progress, number, counts, source.mode)
        await self._log.append([msgspec.structs.replace(finished, finished=True)])

    def _sort(
        self, results: Sequence[History | Skipped], path: Path, before: int, counts: Counter[str], state: Imported
    ) -> tuple[list[History], BrokenLine | None]:
        """Count what lines gave. Returns the events that are new, and the line to stop at, if there is one."""
        fresh: list[History] = []
        stop: BrokenLine | None = None
        for line, result in enumerate(results, before + 1):
            if isinstance(result, History):
                kind = DUPLICATE
                if self._known.add(result.interaction.event_id, result.time_us):
                    kind = IMPORTED
                    fresh.append(result)
            else:
                kind = result.kind
                if result.kind is Skip.BROKEN:
                    broken = BrokenLine(str(path), line, result.why)
                    if self._strict:
                        stop = broken
                        break
                    if len(state.broken) < BROKEN_NAMED:
                        state.broken.append(broken)
            counts[kind] += 1
            state.counts[kind] += 1
        for past in fresh:
            state.first_us = _earlier(state.first_us, past.time_us)
            state.oldest_us = _earlier(state.oldest_us, past.time_us)
            state.last_us = past.time_us if state.last_us is None else max(state.last_us, past.time_us)
        return fresh, stop


def _earlier(known: TimeUs | None, time_us: TimeUs) -> TimeUs:
    return time_us if known is None else min(known, time_us)


def _progress(before: ImportProgress, lines: int, counts: Counter[str], mode: LearningMode | None) -> ImportProgress:
    return msgspec.structs.replace(before, lines=lines, counts=dict(counts), learning_mode=mode)


async def _append(log: EventLog, records: Sequence[Record]) -> object:
    return await log.append(records)
