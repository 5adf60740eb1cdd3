"""The joined log of a loop from its beginning: out of the archive what retention has taken, the rest out of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta

from rankward.archiving.layout import Span
from rankward.archiving.reading import Archive
from rankward.errors import StoreUnavailable
from rankward.joining.reader import first_due, resolve
from rankward.records import JoinedEvent, Offset, TimeUs
from rankward.settings import REWARD_WAIT_MAX
from rankward.store.ports import EventLog, JoinedLog

_LONGEST_WAIT_US = REWARD_WAIT_MAX // timedelta(microseconds=1)


class WholeLog:
    """Reads the decisions of a span of time, wherever they are, each once and in the order of the joined log."""

    def __init__(
        self,
        log: EventLog,
        joined: JoinedLog,
        open_archive: Callable[[], Archive | None],
        *,
        since_us: TimeUs,
        until_us: TimeUs,
    ) -> None:
        """Prepare.

        Args:
            log: the loop's event log.
            joined: its joined log.
            open_archive: opens its archive, if there is one: asked for when the log does not have everything.
            since_us: decisions before it are left out.
            until_us: decisions at it or later are left out.
        """
        self._log = log
        self._joined = joined
        self._open_archive = open_archive
        self._since_us = since_us
        self._until_us = until_us
        self._archive: Archive | None = None
        self._log_first: Offset = 0  # of the event log, when `_split` was found
        self._split: Offset = 0  # in the joined log: what comes before is read from the archive
        self._spans: list[Span] = []  # of the archive, that are yet to be read
        self._events: Iterator[JoinedEvent] = iter(())  # of the one that is being read
        self._next: JoinedEvent | None = None
        self._reached: Offset | None = None  # to where the archive has been read; None: not begun

    async def begin(self) -> Offset:
        """Find from where in the joined log decisions of the span are to be had.

        Raises:
            StoreUnavailable: the archive is needed, and does not answer.
        """
        begin = await first_due(self._joined, self._since_us)
        first, _ = await self._joined.extent()
        split = await self._settle(begin if begin > first else 0)  # at the first, there may be more before
        spans = self._within(0, split)
        return min(spans[0].start, begin) if spans else begin

    async def archived(self) -> int:
        """Count the events of the span that only the archive has: about, as objects are counted whole.

        Raises:
            StoreUnavailable: as of `begin`.
        """
        await self._settle(0)
        first, _ = await self._joined.extent()
        return sum(span.events for span in self._within(0, first))

    async def read(self, start: Offset, *, limit: int) -> tuple[list[JoinedEvent], Offset]:
        """Read the decisions of the span among the joined events of the next so many offsets.

        Returns:
            The events, in order, and the offset to go on from. What is nowhere any more is passed over.

        Raises:
            StoreUnavailable: the archive is needed, and does not answer or is damaged.
        """
        end = start + limit
        while True:
            split = await self._settle(start)
            if start < split:
                end = min(end, split)
                return await asyncio.to_thread(self._read_archive, start, end), end
            entries = [each for each in await self._joined.read(start, limit=limit) if each[0] < end]
            within = [each for each in entries if self._since_us <= each[1].time_us < self._until_us]
            events = await resolve(self._log, within) if within else []
            if (await self._log.extent()).first == self._log_first:
                return events, end
            # Retention has taken something meanwhile, perhaps of these: look where they are now.

    async def _settle(self, start: Offset) -> Offset:
        """Find the offset of the joined log from which on the log has everything; from there on, any will do."""
        extent = await self._log.extent()
        if extent.first == self._log_first:
            return self._split
        entries = await self._log.read(extent.first, limit=1)
        oldest_us = entries[0].time_us if entries else extent.last_time_us
        if start >= await first_due(self._joined, oldest_us + _LONGEST_WAIT_US):
            self._log_first, self._split = extent.first, 0
            return 0
        # Anew each time: what retention has just taken was archived just before, perhaps.
        self._archive = await asyncio.to_thread(self._open_archive)
        split = 0
        if self._archive is not None:
            index = self._archive.index
            longest_us = max((span.wait_us for span in index.spans), default=0)
            split = min(index.end, await first_due(self._joined, oldest_us + longest_us))
        self._log_first, self._split, self._reached = extent.first, split, None
        return split

    def _within(self, start: Offset, before: Offset) -> list[Span]:
        if self._archive is None:
            return []
        return self._archive.spans(start=start, before=before, since_us=self._since_us, until_us=self._until_us)

    def _read_archive(self, start: Offset, end: Offset) -> list[JoinedEvent]:
        """Read on in the archive, or begin there."""
        if self._reached != start:
            self._spans, self._events, self._next = self._within(start, self._split), iter(()), None
        self._reached = end
        found: list[JoinedEvent] = []
        while True:
            if self._next is None:
                self._next = next(self._events, None)
            if self._next is None:
                if not self._spans or self._spans[0].start >= end:
                    return found
                self._events = self._open_object(self._spans.pop(0))
            elif self._next.offset >= end:
                return found
            else:
                if self._next.offset >= start and self._since_us <= self._next.entry.time_us < self._until_us:
                    found.append(self._next)
                self._next = None

    def _open_object(self, span: Span) -> Iterator[JoinedEvent]:
        assert self._archive is not None, "its object was found in it"
        try:
            return self._archive.events(span)
        except StoreUnavailable:
            again = self._open_archive()
            if again is None or any(each.name == span.name for each in again.index.spans):
                raise
            return iter(())  # all of it was erased meanwhile
