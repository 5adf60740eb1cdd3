"""Keeps one watch, in a process of its own: it follows the joined log, and writes down what it has come to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import msgspec

from rankward.joining.reader import read_joined
from rankward.optimization.service import OptimizationService
from rankward.optimization.watch import Verdict, Watch, WatchState
from rankward.records import JoinedEvent, TimeUs
from rankward.store.optimizations import Optimization, Watched
from rankward.store.ports import EventLog, JoinedLog, Loop
from rankward.training.fold import EventRefusedError
from rankward.wiring import Home

logger = logging.getLogger(__name__)

NOTE = "optimization-watch"
"""The name of a watch's note on the board."""
_READ = 500
_PAUSE_S = 0.4
_KEEP_US = 30_000_000  # from one writing down to the next
_TELL_US = 1_000_000


class Watcher:
    """One watch, until it has come to something or is told to stop."""

    def __init__(
        self,
        home: Home,
        loop: Loop,
        run: Optimization,
        optimizations: OptimizationService,
        *,
        log: EventLog,
        joined: JoinedLog,
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            loop: whose log is followed.
            run: the optimization whose watch it is.
            optimizations: keeps the watch's state.
            log: the loop's event log.
            joined: its joined log.
        """
        self._catalog = home.catalog
        self._board = home.board
        self._clock = home.clock
        self._timer = home.timer
        self._loop = loop
        self._run = run
        self._optimizations = optimizations
        self._log = log
        self._joined = joined

    async def run(self, stop: asyncio.Event) -> None:
        """Watch.

        Raises:
            NotFound: the watch's state is lost.
        """
        state = await asyncio.to_thread(self._optimizations.watch, self._run)
        while state.verdict is Verdict.UNDECIDED and not stop.is_set():
            set_aside = {event.interaction for event in self._catalog.set_asides(self._loop.loop_id)}
            watch = Watch(state, self._loop.settings, set_aside=set_aside)
            try:
                state = await self._follow(watch, state, stop)
            except EventRefusedError as error:
                logger.warning("watch %s: passes over an event: %s", self._run.optimization_id, error)
                state = msgspec.structs.replace(state, refused=(*state.refused, error.event.entry.interaction))
                await self._keep(state)
            finally:
                watch.close()
        self._board.take_down(self._loop.loop_id, NOTE)

    async def _follow(self, watch: Watch, state: WatchState, stop: asyncio.Event) -> WatchState:
        """Follow the log until there is a verdict, or it is to stop. Returns what was written down last."""
        offset = state.checkpoint.joined_offset
        kept_us = told_us = self._timer()
        read_at: int | None = None  # the joined log's change mark before it was last read to its end
        verdict, watched = watch.look(self._clock())
        is_new = False  # whether something has come since it was written down
        while True:
            mark, start = self._joined.change_mark(), offset
            events: list[JoinedEvent] = []
            if mark != read_at:
                events, offset = await read_joined(self._log, self._joined, start, limit=_READ)
                if offset == start:
                    read_at = mark
            for event in events:
                watch.take(event)
            now_us, passed_us = self._clock(), self._timer()
            if events:
                is_new = True
                verdict, watched = watch.look(now_us)
            elif read_at is not None and self._is_late(state, now_us):
                verdict = Verdict.OVER if verdict is Verdict.UNDECIDED else verdict
            ends = verdict is not Verdict.UNDECIDED or stop.is_set()
            if ends or passed_us - told_us >= _TELL_US:
                told_us = passed_us
                self._board.post(self._loop.loop_id, NOTE, msgspec.json.encode(watched))
            if ends or (is_new and passed_us - kept_us >= _KEEP_US):
                kept_us, is_new = passed_us, False
                state = watch.state(verdict, watched)
                await self._keep(state)
            if ends:
                return state
            if read_at is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _PAUSE_S)

    def _is_late(self, state: WatchState, now_us: TimeUs) -> bool:
        """Whether nothing has come by now that was decided before the end of the watch."""
        wait_us = round(self._loop.settings.reward_wait.total_seconds() * 1_000_000)
        return now_us >= state.until_us + 2 * wait_us

    async def _keep(self, state: WatchState) -> None:
        await asyncio.to_thread(self._optimizations.keep_watch, self._run, state)


def read_watched(notes: Mapping[str, bytes]) -> Watched | None:
    """Read the newest figures of a loop's watch from its notes. None: there is none."""
    return msgspec.json.decode(notes[NOTE], type=Watched) if NOTE in notes else None
