"""The worker's part in optimizations: begins what is due, makes runs go on, and keeps a process for each watch."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from rankward.errors import NotFound, RankwardError
from rankward.optimization.schedule import due, following
from rankward.optimization.service import OptimizationService
from rankward.optimization.watcher import NOTE as WATCH
from rankward.records import Offset, TimeUs
from rankward.store.optimizations import Optimization, OptimizationState
from rankward.store.ports import Fence, Loop
from rankward.wiring import Home

logger = logging.getLogger(__name__)

NOTE = "optimization"
"""The name of a loop's note on the board."""
DEATHS_MAX = 3
_LOOK_US = 1_000_000
_AGAIN_US = 10_000_000


class OptimizationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a loop's optimizations stand."""

    runs: dict[str, int]  # by state
    next_us: TimeUs | None  # when the next one is due; None: automatic optimization is off


class _Watch:
    """A child process that keeps a watch."""

    def __init__(self, run: Optimization) -> None:
        self.run = run
        self.process: subprocess.Popen[bytes] | None = None
        self.started_us = 0  # by the timer
        self.deaths = 0  # since it last came on
        self.cursor: Offset | None = None  # how far it had come when it died last

    def end(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()


class OptimizationDesk:
    """Looks after the runs of all loops that a worker acts for."""

    def __init__(
        self, home: Home, service: OptimizationService, spawn: Callable[[str, str], subprocess.Popen[bytes]]
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            service: makes runs go on.
            spawn: starts the process of a watch, by the loop's name and the run's id. Its standard input is a pipe
                whose end tells it to stop.
        """
        self._service = service
        self._acting = home.acting
        self._catalog = home.catalog
        self._optimizations = home.optimizations
        self._board = home.board
        self._clock = home.clock
        self._timer = home.timer
        self._spawn = spawn
        self._again_us = 0  # by the timer
        self._loops_again_us: dict[str, int] = {}  # what failed, by loop id: by the timer, when to try again
        self._last_us: dict[str, TimeUs | None] = {}  # by loop id: the newest time of the schedule that was made use of
        self._noted: dict[str, OptimizationStatus] = {}
        self._watches: dict[str, _Watch] = {}  # by loop id

    async def turn(self, loops: Mapping[Fence, Loop]) -> None:
        """Do what there is to do.

        Args:
            loops: those that the worker acts for, each under its term.
        """
        passed_us = self._timer()
        if passed_us < self._again_us:
            return
        self._again_us = passed_us + _LOOK_US
        try:
            unfinished = {run.loop_id: run for run in self._optimizations.unfinished()}
        except RankwardError as error:
            logger.error("optimizations: %s. They are looked at again.", error)
            return
        led = {fence.loop_id for fence in loops}
        for loop_id in self._watches.keys() - led:
            self._leave(loop_id)
        self._last_us = {loop_id: last_us for loop_id, last_us in self._last_us.items() if loop_id in led}
        for fence, loop in loops.items():
            loop_id = loop.loop_id
            if self._loops_again_us.get(loop_id, 0) > passed_us:
                continue
            run = unfinished.get(loop_id)
            try:
                with self._acting(fence):
                    # What a run does to a loop depends on how it is at this very moment.
                    await self._turn_of(loop if run is None else self._catalog.loop(loop.name), run)
            except RankwardError as error:
                logger.error("optimization of loop %s: %s. It is tried again.", loop.name, error)
                self._loops_again_us[loop_id] = passed_us + _AGAIN_US

    async def _turn_of(self, loop: Loop, run: Optimization | None) -> None:
        if run is not None:
            run = await self._service.go_on(loop, run)
        else:
            run = await self._begin(loop)
        if run is not None and run.state is OptimizationState.WATCHING:
            self._tend(loop, run)
        else:
            self._let_go(loop.loop_id)
        self._note(loop, changed=run is not None)

    async def _begin(self, loop: Loop) -> Optimization | None:
        """Begin a run if one is due, and what serves is what the settings say."""
        if not loop.settings.is_auto_optimization_enabled:
            return None
        if loop.loop_id not in self._last_us:
            past = [run.due_us for run in self._optimizations.listed(loop.loop_id) if run.due_us is not None]
            self._last_us[loop.loop_id] = max(past, default=None)
        due_us = due(
            loop.settings,
            created_us=loop.created_us,
            last_us=self._last_us[loop.loop_id],
            now_us=self._clock(),
        )
        if due_us is None or self._service.builds(loop):
            return None
        run = await self._service.begin(loop, due_us=due_us)
        self._last_us[loop.loop_id] = due_us
        return run

    def _tend(self, loop: Loop, run: Optimization) -> None:
        """Keep a process at a watch for as long as it goes on."""
        watch = self._watches.get(loop.loop_id)
        if watch is None or watch.run.optimization_id != run.optimization_id:
            self._let_go(loop.loop_id)
            if loop.loop_id in self._watches:
                return  # the one before is on its way out
            watch = self._watches[loop.loop_id] = _Watch(run)
        passed_us = self._timer()
        if watch.process is not None and (code := watch.process.poll()) is not None:
            watch.end()
            watch.process = None
            why = self._lost(watch, died=code not in {0, os.EX_TEMPFAIL})  # the latter: the servers were away
            if why is not None:
                self._service.give_up_watch(run, why)
                del self._watches[loop.loop_id]
                return
        if watch.process is None and passed_us - watch.started_us >= _AGAIN_US:
            watch.started_us = passed_us
            watch.process = self._spawn(loop.name, run.optimization_id)

    def _lost(self, watch: _Watch, *, died: bool) -> str | None:
        """Say why a watch whose process has ended cannot go on. None: it can."""
        try:
            cursor = self._service.watch(watch.run).cursor
        except NotFound:
            return "what its watch had come to is lost"
        if died:
            watch.deaths = watch.deaths + 1 if cursor == watch.cursor else 1
            watch.cursor = cursor
        if watch.deaths < DEATHS_MAX:
            return None
        return f"its watch is given up: the process died {DEATHS_MAX} times, and the service's log may say of what"

    def _let_go(self, loop_id: str) -> None:
        """Tell a watch's process to stop, and remove what it wrote down last, once it has gone."""
        watch = self._watches.get(loop_id)
        if watch is None:
            return
        watch.end()
        if watch.process is None or watch.process.poll() is not None:
            self._service.forget_watch(watch.run)
            self._board.take_down(loop_id, WATCH)
            del self._watches[loop_id]

    def _leave(self, loop_id: str) -> None:
        """Tell the process of a watch to stop that another worker goes on with, or whose loop was deleted."""
        watch = self._watches[loop_id]
        watch.end()
        if watch.process is None or watch.process.poll() is not None:
            del self._watches[loop_id]

    def at_work(self) -> set[str]:
        """Name the loops, by id, for which a process keeps a watch."""
        return set(self._watches)

    def _note(self, loop: Loop, *, changed: bool) -> None:
        """Say how the loop's optimizations stand, where that has changed."""
        known = self._noted.get(loop.loop_id)
        next_us = following(loop.settings, created_us=loop.created_us, now_us=self._clock())
        if known is not None and not changed and known.next_us == next_us:
            return
        runs = Counter(str(run.state) for run in self._optimizations.listed(loop.loop_id))
        status = OptimizationStatus(runs=dict(runs), next_us=next_us)
        if status != known:
            self._noted[loop.loop_id] = status
            self._board.post(loop.loop_id, NOTE, msgspec.json.encode(status))

    def stop(self) -> None:
        """Tell every watch's process to stop. They go on when there is a worker again."""
        for watch in self._watches.values():
            watch.end()

    def close(self, wait: Callable[[subprocess.Popen[bytes]], None]) -> None:
        """Wait for the processes to stop.

        Args:
            wait: for a process, as long as is to be waited.
        """
        for watch in self._watches.values():
            if watch.process is not None:
                wait(watch.process)
        self._watches.clear()
