"""Archives the joined log of one loop: an object for what was joined in each hour, and then the index that names it.

What was written and not yet indexed when the process died is written again, under the same name.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from rankward.archiving.layout import (
    ENDING,
    ERASING,
    FORMAT,
    INDEX,
    OBJECT_EVENTS,
    Erasure,
    Index,
    Span,
    folder_of,
    name_of,
    same_hour,
)
from rankward.archiving.lines import pack, packer, to_line, unpack, whose
from rankward.archiving.place import Place
from rankward.errors import Conflict, StoreUnavailable
from rankward.joining.reader import resolve
from rankward.joining.reward import RewardDefinition
from rankward.records import Offset, TimeUs
from rankward.store.ports import Board, EventLog, JoinedLog, Loop

logger = logging.getLogger(__name__)

NOTE = "archiving"
ERASED_EVERY_US = 30_000_000
_READ = 500
_SCAN = 1_000


class ArchivingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log is archived."""

    place: str  # its address
    offset: Offset  # the next joined event
    joined_end: Offset
    keep_from: Offset  # in the event log: nothing from here on may be dropped, as some of it is not archived
    events: int  # archived
    missed: int  # joined events that were gone before there was an archive
    failure: str | None = None  # why the last try failed; None: it did not
    failing_since_us: TimeUs | None = None  # None: it does not
    time_us: TimeUs


class _Known(NamedTuple):
    what: Index
    tag: str | None


class ArchivingService:
    """Archives one loop. One process at a time does."""

    def __init__(
        self,
        loop: Loop,
        *,
        log: EventLog,
        joined: JoinedLog,
        place: Place,
        board: Board,
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
        object_events: int = OBJECT_EVENTS,
    ) -> None:
        """Prepare.

        Args:
            loop: whose log.
            log: its event log.
            joined: its joined log.
            place: where to.
            board: where others look how far it is.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells: for pauses.
            object_events: how many events an object holds at most.
        """
        self._loop = loop
        self._log = log
        self._joined = joined
        self._place = place
        self._board = board
        self._clock = clock
        self._timer = timer
        self._object_events = object_events
        self._folder = folder_of(loop.name, loop.loop_id)
        self._known: _Known | None = None  # None: not read, or not up to date
        self._erase_again_us = 0  # by the timer
        self._lowest: deque[tuple[Offset, Offset]] = deque()  # see `_keep_from`
        self._scanned: Offset = 0

    def follow(self, loop: Loop) -> None:
        """Take over what was changed of the loop."""
        self._loop = loop

    async def close(self) -> None:
        """Let go of the logs."""
        await self._log.close()
        await self._joined.close()

    async def step(self) -> bool:
        """Erase what is to be erased, or archive an hour that is over, if there is one.

        Returns:
            Whether something was done, so that there may be more to do.

        Raises:
            WorldError: it could not be done. The next step does it again.
            Conflict: the archive has another history of this loop, or another process has written to it.
        """
        state = await self._joined.state()  # first: what is joined later is of interactions that wait now
        waiting_from = min([state.head, *state.lanes.values()])
        first, end = await self._joined.extent()
        try:
            index, tag = await self._index(end)
            done = await self._erase(index, tag) or await self._archive(index, tag, max(first, index.end), end)
        except Conflict:
            self._known = None
            raise
        index, _ = await self._index(end)
        keep_from = min(waiting_from, await self._keep_from(max(first, index.end), end))
        status = ArchivingStatus(
            place=self._place.url,
            offset=index.end,
            joined_end=end,
            keep_from=keep_from,
            events=index.events,
            missed=index.missed,
            time_us=self._clock(),
        )
        self._board.post(self._loop.loop_id, NOTE, msgspec.json.encode(status))
        return done

    async def fail(self, failure: str) -> None:
        """Leave word that it failed. What had to be kept before still has to be."""
        before = read_status(self._board.read(self._loop.loop_id).get(NOTE), self._place.url)
        now_us = self._clock()
        since_us = now_us if before is None or before.failing_since_us is None else before.failing_since_us
        if before is None:
            before = ArchivingStatus(
                place=self._place.url, offset=0, joined_end=0, keep_from=0, events=0, missed=0, time_us=now_us
            )
        status = msgspec.structs.replace(before, failure=failure, failing_since_us=since_us, time_us=now_us)
        self._board.post(self._loop.loop_id, NOTE, msgspec.json.encode(status))

    async def _index(self, joined_end: Offset) -> _Known:
        """Read the index, unless what is known of it holds still."""
        if self._known is None:
            found = await asyncio.to_thread(self._place.read_tagged, self._folder + INDEX)
            if found is None:
                self._known = _Known(Index(loop=self._loop.name, loop_id=self._loop.loop_id), None)
            else:
                self._known = _Known(decode_index(found.content, f"{self._place.url}/{self._folder}"), found.tag)
            await self._check(self._known.what, joined_end)
        return self._known

    async def _check(self, index: Index, joined_end: Offset) -> None:
        """Make sure that the archive is of this very log, and not of one that went on from another backup."""
        entries = await self._joined.read(index.end - 1, limit=1) if index.end else []
        before = [(entry.interaction, entry.due_us) for offset, entry in entries if offset == index.end - 1]
        if index.end > joined_end or (before and before[0] != index.last):
            raise Conflict(
                f"{self._place.url}/{self._folder} was written from a log that went on differently after joined event "
                f"{min(index.end, joined_end):,}, as one does that was restored from a backup: give another --archive"
            )

    async def _write_index(self, index: Index, tag: str | None) -> None:
        self._known = None  # until it is known to be written
        content = msgspec.json.format(msgspec.json.encode(index), indent=1)
        tag = await asyncio.to_thread(self._place.replace, self._folder + INDEX, content, tag)
        self._known = _Known(index, tag)

    async def _archive(self, index: Index, tag: str | None, start: Offset, end: Offset) -> bool:
        """Archive what was joined in the hour that comes next, or a part of it that fills an object."""
        ends = (
            [entry for at in (start, end - 1) for entry in await self._joined.read(at, limit=1)] if start < end else []
        )
        if not ends or (end - start < self._object_events and same_hour(ends, ends[0][1].due_us) == len(ends)):
            return False
        due_us = ends[0][1].due_us
        settings = self._loop.settings
        definition = RewardDefinition(settings.default_reward, settings.reward_aggregation)
        take, finish = packer()
        parts: list[bytes] = []
        times: list[TimeUs] = []
        position, last, newest, wait_us = start, index.last, 0, 0
        while position < start + self._object_events:
            limit = min(_READ, start + self._object_events - position)
            entries = await self._joined.read(position, limit=limit)
            entries = entries[: same_hour(entries, due_us)]
            if not entries:
                break
            events = await resolve(self._log, entries)
            parts += [take(to_line(event, definition)) for event in events]
            times += [event.entry.time_us for event in events]
            newest = max([newest, *(event.entry.interaction for event in events)])
            waits = (event.entry.due_us - event.entry.time_us for event in events if not event.entry.imported)
            wait_us = max([wait_us, *waits])
            position, last = entries[-1][0] + 1, (entries[-1][1].interaction, entries[-1][1].due_us)
        spans = index.spans
        if times:
            name = name_of(start, due_us)
            content = b"".join([*parts, finish()])
            await asyncio.to_thread(self._place.write, self._folder + name, content)
            span = Span(
                start=start,
                end=position,
                events=len(times),
                first_us=min(times),
                last_us=max(times),
                wait_us=wait_us,
                newest=newest,
                name=name,
                size_bytes=len(content),
                digest=digest_of(content),
            )
            spans = (*spans, span)
        missed = index.missed + start - index.end
        await self._write_index(
            msgspec.structs.replace(index, end=position, last=last, missed=missed, spans=spans), tag
        )
        return True

    async def _keep_from(self, start: Offset, end: Offset) -> Offset:
        """Find the oldest interaction, by its place in the event log, of those joined and not archived.

        They stand in the order of their joining, so all are looked at, each once. Of stretches of them, the end and
        the lowest are kept, so what is found may be a little older.
        """
        self._scanned = max(self._scanned, start)
        while self._scanned < end:
            entries = await self._joined.read(self._scanned, limit=min(_SCAN, end - self._scanned))
            if not entries:
                break
            self._scanned = entries[-1][0] + 1
            self._lowest.append((self._scanned, min(entry.interaction for _, entry in entries)))
        while self._lowest and self._lowest[0][0] <= start:
            self._lowest.popleft()
        return min((lowest for _, lowest in self._lowest), default=1 << 62)

    async def _erase(self, index: Index, tag: str | None) -> bool:
        """Erase what was asked for since the last look."""
        if self._timer() < self._erase_again_us:
            return False
        asked = await asyncio.to_thread(self._place.names, self._folder + ERASING)
        if not asked:
            self._erase_again_us = self._timer() + ERASED_EVERY_US
            return False
        contents = [await asyncio.to_thread(self._place.read, name) for name in asked]
        erasures = [msgspec.json.decode(content, type=Erasure) for content in contents if content is not None]
        spans = [await asyncio.to_thread(self._without, span, erasures) for span in index.spans]
        kept = tuple(span for span in spans if span is not None)
        if kept != index.spans:
            await self._write_index(msgspec.structs.replace(index, spans=kept), tag)
        # What the index does not name is empty now, or was not indexed any more before the process died.
        named = {self._folder + name for name in (INDEX, *(span.name for span in kept))}
        found = await asyncio.to_thread(self._place.names, self._folder)
        strays = [name for name in found if name.endswith(ENDING) and name not in named]
        for name in [*strays, *asked]:
            await asyncio.to_thread(self._place.remove, name)
        return True

    def _without(self, span: Span, erasures: list[Erasure]) -> Span | None:
        """Erase events from an object. Returns what it holds now; None: nothing, and it may go."""
        before = max(erasure.before for erasure in erasures)
        if span.newest < before:
            return None
        ids = {event_id for erasure in erasures for event_id in erasure.event_ids}
        subjects = {erasure.subject for erasure in erasures} - {None}
        content = self._place.read(self._folder + span.name)
        if content is None:
            return span  # a check of the archive says so
        kept = []
        found = 0
        for line in unpack(content, span.name):
            event_id, subject, interaction = whose(line)
            found += 1
            if event_id not in ids and subject not in subjects and interaction >= before:
                kept.append(line)
        if len(kept) < found:
            content = pack(kept)
            if kept:
                self._place.write(self._folder + span.name, content)
        if not kept:
            return None
        # It may have been written by an erasure that was cut short, and not be as the index says.
        return msgspec.structs.replace(span, events=len(kept), size_bytes=len(content), digest=digest_of(content))


def digest_of(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


def decode_index(content: bytes, where: str) -> Index:
    """Read an index.

    Args:
        content: of it.
        where: it lies, for people.

    Raises:
        StoreUnavailable: it is damaged, or was written by a newer version.
    """
    try:
        found = msgspec.json.decode(content, type=Index)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"the index of the archive in {where} is damaged: {error}") from error
    if found.format != FORMAT:
        raise StoreUnavailable(f"the archive in {where} has format {found.format}: use the newer rankward")
    return found


def read_status(note: bytes | None, place: str) -> ArchivingStatus | None:
    """Read how far a loop is archived.

    Args:
        note: from the board; None: there is none.
        place: that the installation archives to.

    Returns:
        None: nobody has said yet, or of another place.
    """
    found = None if note is None else msgspec.json.decode(note, type=ArchivingStatus)
    return found if found is not None and found.place == place else None


def ask_to_erase(place: Place, loop: Loop, name: str, erasure: Erasure) -> None:
    """Leave word in the archive of what is to be erased from it: whoever archives the loop sees to it within a minute.

    Args:
        place: where the archive is.
        loop: whose events.
        name: of this request; what is asked again under its name is asked once.
        erasure: what to erase.

    Raises:
        StoreUnavailable: it cannot be left there.
    """
    place.write(f"{folder_of(loop.name, loop.loop_id)}{ERASING}{name}.json", msgspec.json.encode(erasure))
