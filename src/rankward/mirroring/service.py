"""Mirrors the joined log of one loop: reads what is joined, writes lines, sends them on, and notes how far it is.

It runs in a process of its own, so that a store that does not answer holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from rankward.dsjson.write import write_line
from rankward.errors import WorldError
from rankward.joining.reader import read_joined
from rankward.joining.reward import RewardDefinition
from rankward.mirroring.layout import DATA, SKIPPED, Chunk, Progress, blob_name, next_chunk
from rankward.mirroring.target import Target
from rankward.records import JoinedEvent, Offset, TimeUs
from rankward.store.ports import Board, Catalog, EventLog, JoinedLog, Loop, Notebook

logger = logging.getLogger(__name__)

NOTE = "mirroring"
CHUNK_EVENTS = 20_000
CHUNK_AGE_US = 60_000_000  # what was joined waits no longer for company
_READ = 500
_IDLE_S = 1.0
_PAUSE_S = 1.0  # after a failure, doubled with every one that follows
_LONGEST_PAUSE_S = 60.0


class MirroringStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log is mirrored."""

    offset: Offset  # the next joined event
    joined_end: Offset
    missed: int  # joined events that retention removed before they were mirrored
    failure: str | None  # why the last try failed; None: it did not
    time_us: TimeUs


class MirroringService:
    """Mirrors one loop for as long as it is set to be."""

    def __init__(
        self,
        loop_name: str,
        *,
        catalog: Catalog,
        log: EventLog,
        joined: JoinedLog,
        notebook: Notebook,
        board: Board,
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
        open_target: Callable[[str], Target],
    ) -> None:
        """Prepare.

        Args:
            loop_name: of the loop.
            catalog: of loops.
            log: the loop's event log.
            joined: the loop's joined log.
            notebook: where this loop's progress is kept.
            board: where others look how far it is.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells: for pauses.
            open_target: makes a target of an address.
        """
        self._name = loop_name
        self._catalog = catalog
        self._log = log
        self._joined = joined
        self._notebook = notebook
        self._board = board
        self._clock = clock
        self._timer = timer
        self._open_target = open_target
        self._missed = 0
        self._waiting_since_us: int | None = None  # by the timer: since when joined events wait; None: none does
        self._has_sent = False

    async def run(self, stop: asyncio.Event) -> None:
        """Mirror until told to stop, or until the loop is not to be mirrored any more."""
        pause_s = _PAUSE_S
        while not stop.is_set():
            loop = self._catalog.loop(self._name)
            uri = loop.settings.log_mirror_sas_uri
            if not loop.settings.log_mirror_enabled or uri is None:
                break
            failure = None
            try:
                busy = await self.step(loop, self._open_target(uri))
                pause_s = _PAUSE_S
            except WorldError as error:
                busy, failure = False, str(error)
                logger.error("loop %s: %s. It is tried again.", self._name, error)
            await self._post(loop, failure)
            if not busy:
                await _wait(stop, pause_s if failure else _IDLE_S)
            if failure:
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        self._board.take_down(self._catalog.loop(self._name).loop_id, NOTE)

    async def step(self, loop: Loop, target: Target) -> bool:
        """Send one chunk, if there is one to send.

        Returns:
            Whether one was sent, so that there may be more.

        Raises:
            WorldError: it could not be sent, or read. The next step does it again.
        """
        progress = await self._progress(target)
        whole = True  # whether the chunk is all that there was to send
        if progress.sending is None:
            first, end = await self._joined.extent()
            if first > progress.offset:  # what was deleted, or is older than it is kept
                self._missed += first - progress.offset
                progress = msgspec.structs.replace(progress, offset=first)
            if not self._is_time(progress, end):
                return False
            edited = loop.settings.last_configuration_edit
            events, reached = await self._read(progress.offset, CHUNK_EVENTS)
            if not events:
                self._write(msgspec.structs.replace(progress, offset=reached))
                return reached > progress.offset
            progress = msgspec.structs.replace(progress, sending=next_chunk(progress, events, reached, edited=edited))
            self._write(progress)
            whole = progress.sending is None or progress.sending.end == reached
        chunk = progress.sending
        assert chunk is not None, "it was just made"
        events, _ = await self._read(chunk.start, chunk.end - chunk.start)
        await self._send(loop, target, chunk, [event for event in events if event.offset < chunk.end])
        self._write(Progress(target.digest, chunk.end, sent=chunk))
        self._has_sent = True
        if whole:
            self._waiting_since_us = None
        return True

    async def _progress(self, target: Target) -> Progress:
        """Read how far it is. A new target gets what is joined from now on."""
        written = self._notebook.read()
        progress = msgspec.json.decode(written, type=Progress) if written else None
        if progress is None or progress.target != target.digest:
            progress = Progress(target.digest, (await self._joined.extent())[1])
            self._write(progress)
        return progress

    def _write(self, progress: Progress) -> None:
        self._notebook.write(msgspec.json.encode(progress))

    def _is_time(self, progress: Progress, end: Offset) -> bool:
        waiting = end - progress.offset
        if not waiting:
            self._waiting_since_us = None
            return False
        passed_us = self._timer()
        if self._waiting_since_us is None:
            self._waiting_since_us = passed_us
        if not self._has_sent:  # the first lines come at once, for whoever looks whether it works
            return True
        return waiting >= CHUNK_EVENTS or passed_us - self._waiting_since_us >= CHUNK_AGE_US

    async def _read(self, start: Offset, limit: int) -> tuple[list[JoinedEvent], Offset]:
        events: list[JoinedEvent] = []
        end = start + limit
        while start < end:
            found, reached = await read_joined(self._log, self._joined, start, limit=min(_READ, end - start))
            if reached == start:
                break
            events += found
            start = reached
        return events, start

    async def _send(self, loop: Loop, target: Target, chunk: Chunk, events: Sequence[JoinedEvent]) -> None:
        settings = loop.settings
        definition = RewardDefinition(settings.default_reward, settings.reward_aggregation)
        for kind, skipped in ((DATA, False), (SKIPPED, True)):
            lines = [write_line(event, definition) for event in events if event.skip_learn == skipped]
            if lines:
                content = "".join(f"{line}\n" for line in lines).encode()
                await target.put(blob_name(chunk, kind), content)

    async def _post(self, loop: Loop, failure: str | None) -> None:
        written = self._notebook.read()
        progress = msgspec.json.decode(written, type=Progress) if written else None
        _, end = await self._joined.extent()
        status = MirroringStatus(
            offset=progress.offset if progress else end,
            joined_end=end,
            missed=self._missed,
            failure=failure,
            time_us=self._clock(),
        )
        self._board.post(loop.loop_id, NOTE, msgspec.json.encode(status))


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
