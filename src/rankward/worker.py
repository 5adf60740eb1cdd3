"""The worker: joins every loop's events, and keeps a trainer process for every epoch that has something to learn.

Where there are many, each joins all loops, in its own node's folder, but acts only for those that it leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from rankward.archiving.layout import shown
from rankward.archiving.service import NOTE, read_status
from rankward.challenge.desk import ChallengeDesk
from rankward.errors import NotFound, RankwardError, ReplicaOutdated, StorageFull, StoreUnavailable
from rankward.import_run import ImportDesk
from rankward.joining.service import JoiningService
from rankward.optimization.desk import OptimizationDesk
from rankward.optimization.service import OptimizationService
from rankward.records import Offset, TimeUs
from rankward.settings import Limits, LoopSettings
from rankward.store.ports import Epoch, EventLog, Fence, JoinedLog, Loop, SetAside
from rankward.study_run import StudyDesk
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_IDLE_S = 0.05
_REST_AFTER = 40  # rounds in which a loop had nothing to join, after which it rests if nothing waits in it
_REST_ROUNDS = 5  # in one of so many a loop is looked at that rests: most of many loops do
_MAINTAIN_US = 1_000_000
_IDLE_STATUS_US = 5_000_000  # where nothing has changed: each is a file that is written
_MAINTAIN_IDLE_US = 10_000_000  # where nothing was appended, age alone makes something old enough to seal or drop
_RESTART_US = 500_000
_LEAD_US = 250_000  # between two looks at who leads what, when nothing says that it has changed
_LONGEST_PAUSE_US = 10_000_000
_FETCH_LOOK_US = 100_000  # between two looks whether a replica has come
_NEVER_US = 1 << 62
_DAY_US = 86_400_000_000
_ALL: Offset = 1 << 62
_DEADLY = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_KILLED_BOUND = 3  # a learner killed from outside this often at the same event is taken to be killed by it


class Spawn(Protocol):
    """Starts a process of its own for a role, with a pipe as standard input whose end tells it to stop."""

    def __call__(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it. The arguments are those of the role, beside the folder."""


class Leading(Protocol):
    """For which loops a worker acts: trains, challenges, mirrors, optimizes, and lets time pass in the log."""

    @property
    def works(self) -> bool:
        """Whether it may act at all, and run studies."""

    @property
    def name(self) -> str:
        """Of the worker among others; empty: there are no others."""

    def turn(self, behind: Mapping[str, int], *, caught_up: bool, at_work: Collection[str]) -> None:
        """Take loops, and hand loops over, as it is to be now.

        Args:
            behind: by the id of each loop, how many messages the log that is read here lacks.
            caught_up: whether it has, of all loops, what there was when the worker was started.
            at_work: ids of loops for which processes still run. They are not handed over before those have ended.
        """

    def fence(self, loop_id: str) -> Fence | None:
        """Say under which term the worker acts for a loop; None: it does not."""

    def is_elsewhere(self, holder: str) -> bool:
        """Whether another worker of this name lives."""

    def release(self) -> None:
        """Hand over everything: the worker ends."""


class LeadsAll:
    """Implements `Leading` where there is one worker."""

    works = True
    name = ""

    def turn(self, behind: Mapping[str, int], *, caught_up: bool, at_work: Collection[str]) -> None:
        """See `Leading`."""

    def fence(self, loop_id: str) -> Fence:
        """See `Leading`."""
        return Fence(loop_id, 1)

    def is_elsewhere(self, holder: str) -> bool:  # noqa: ARG002
        """See `Leading`."""
        return False

    def release(self) -> None:
        """See `Leading`."""


class JoiningStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far joining has come."""

    counts: dict[str, int]
    head: Offset
    end: Offset  # of the event log
    joined_end: Offset
    now_us: TimeUs  # of the last entry read
    next_due_us: TimeUs | None  # when the oldest waiting interaction will be joined; None: none waits
    time_us: TimeUs  # of this status


class _Trainer:
    """A child process that trains one epoch. Its times are the timer's."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.started_us = 0
        self.pause_us = _RESTART_US  # from one start to the next
        self.last_mark: Offset | None = None
        self.killed_count = 0


class _Child:
    """A child process that mirrors one loop's log, or goes round all loops. Its times are the timer's."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.started_us = 0

    def end(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process = None


class _LoopWork:
    """What the worker does for one loop. Its times are the timer's."""

    def __init__(self, home: Home, loop: Loop, spawn: Spawn) -> None:
        self.loop = loop
        self.log: EventLog = home.event_log(loop.loop_id)
        self.joined: JoinedLog = home.joined_log(loop.loop_id)
        self.feed = home.feed(loop.loop_id, self.log, self.joined)
        self.joining = JoiningService(self.log, self.joined, clock=home.clock)
        self.joining.ticks = False  # it is led by nobody before that is looked into
        self.maintained_us = 0
        self.told_us = 0  # when the joining status was last posted
        self.told_at: tuple[int, int] | None = None  # the logs' change marks before that
        self.cleaned_us = 0  # when housekeeping was last done
        self.cleaned_at: int | None = None  # the log's change mark before that
        self.quiet_rounds = 0  # since there was something to join, or it was changed
        self.join_again_us = 0
        self.tend_again_us = 0
        self.pause_us = 0  # before the next try, after a failure; 0: all is well
        self.trainers: dict[int, _Trainer] = {}
        self.mirror = _Child()
        self.challenging = ChallengeDesk(home, lambda name: spawn("challenge", name))
        self.importing = ImportDesk(home, loop.loop_id, lambda key: spawn("import", self.loop.name, key))
        self.fence: Fence | None = None  # under which it is acted for; None: another worker leads the loop
        self._leaving: list[subprocess.Popen[bytes]] = []  # processes that were told to end

    @property
    def rests(self) -> bool:
        """Whether it is enough to look at it now and then. A replica never rests: others wait for it."""
        return self.quiet_rounds > _REST_AFTER and self.feed is None and self.joining.next_due_us is None

    @property
    def children(self) -> list[subprocess.Popen[bytes]]:
        """The processes that act for it."""
        self._leaving = [process for process in self._leaving if process.poll() is None]
        trainers = [trainer.process for trainer in self.trainers.values()]
        present = (self.mirror.process, self.challenging.process, *trainers)
        return [*self._leaving, *(each for each in present if each is not None)]

    def follow(self, fence: Fence | None) -> None:
        """Act under another term from now on, or not any more. What runs under the one before is told to end."""
        if fence == self.fence:
            return
        self.end()
        self.fence, self.quiet_rounds = fence, 0
        self.joining.ticks = fence is not None

    def end(self) -> None:
        """Tell the processes that act for it to end."""
        self._leaving = self.children
        for trainer in self.trainers.values():
            _end(trainer)
        self.trainers.clear()
        self.mirror.end()
        self.challenging.end()

    async def close(self) -> None:
        if self.feed is not None:
            await self.feed.close()
        await self.log.close()
        await self.joined.close()


class Worker:
    """Does the background work of an installation, or a node's share of it. One to a folder, guarded by its lock."""

    def __init__(self, home: Home, spawn: Spawn, leading: Leading) -> None:
        """Prepare the worker.

        Args:
            home: the installation.
            spawn: starts the processes that train, mirror, evaluate and watch.
            leading: says for which loops it acts.
        """
        self._home = home
        self._spawn = spawn
        self._leading = leading
        self._lead_us = 0  # when that was last asked
        self._desk = StudyDesk(home, lambda key: spawn("study", key), leading)
        self._work: dict[str, _LoopWork] = {}
        self._optimizing = OptimizationDesk(
            home,
            OptimizationService(
                home,
                log=lambda loop_id: self._work[loop_id].log,
                joined=lambda loop_id: self._work[loop_id].joined,
                limits=Limits(),
            ),
            lambda loop_name, optimization_id: spawn("optimization-watch", loop_name, optimization_id),
        )
        self._rounds = 0
        self._change_mark = -1
        self._loops: list[Loop] = []
        self._open_again_us = _NEVER_US  # when to try loops again that could not be opened
        self._epochs: dict[str, list[Epoch]] = {}
        self._leaving: dict[str, list[subprocess.Popen[bytes]]] = {}  # children of deleted loops, by loop id
        self._watch = _Child()
        self._archive = _Child()
        self._snapshots = _Child()
        self._fetching: dict[str, asyncio.Task[None]] = {}  # of replicas, by loop id
        self._archive_url = home.archives.url

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        self._home.loops.sweep(busy=())
        try:
            while not stop.is_set():
                busy = await self._round()
                if not busy:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _IDLE_S)
        finally:
            await self._close()

    async def _round(self) -> bool:
        mark = self._home.catalog.change_mark()
        if mark != self._change_mark or self._home.timer() >= self._open_again_us:
            await self._follow()
            self._desk.look()
            self._change_mark = mark
            self._lead_us = 0
        self._lead()
        self._sweep()
        self._tend_watch()
        self._tend_archive()
        self._tend_snapshots()
        busy = False
        self._rounds += 1
        for place, work in enumerate(list(self._work.values()), self._rounds):
            if not work.rests or place % _REST_ROUNDS == 0:
                busy |= await self._work_on(work)
        acting = {work.fence: work.loop for work in self._work.values() if work.fence is not None}
        await self._optimizing.turn(acting)
        if self._leading.works:
            self._desk.turn(busy=busy)
        return busy

    def _lead(self) -> None:
        """Take up the loops that are this worker's now, and let go of those that are not."""
        passed_us = self._home.timer()
        if passed_us - self._lead_us >= _LEAD_US:
            self._lead_us = passed_us
            at_work = {loop_id for loop_id, work in self._work.items() if work.children} | self._optimizing.at_work()
            feeds = {loop_id: work.feed for loop_id, work in self._work.items()}
            # All loops, whether they can be opened here or not: else workers would not agree on how they are spread.
            behind = dict.fromkeys((loop.loop_id for loop in self._loops), 0)
            behind |= {loop_id: feed.behind for loop_id, feed in feeds.items() if feed is not None}
            caught_up = not self._fetching and all(feed is None or feed.caught_up for feed in feeds.values())
            self._leading.turn(behind, caught_up=caught_up, at_work=at_work)
        for loop_id, work in self._work.items():
            work.follow(self._leading.fence(loop_id))

    async def _work_on(self, work: _LoopWork) -> bool:
        """Do what there is to do for one loop. A loop that fails holds up no other, and is tried again later."""
        busy = False
        if self._home.timer() >= work.join_again_us:
            try:
                if work.feed is not None:
                    busy = await work.feed.step()
                work.quiet_rounds += 1
                if work.joining.wants_step():
                    work.quiet_rounds = 0
                    await work.joining.step()
                # What has just come can wait for more: each step is a flush of the disk that Rank needs, too.
                busy = busy or work.joining.behind
                work.pause_us = 0
            except RankwardError as error:
                work.join_again_us = self._stumble(work, error)
                if isinstance(error, ReplicaOutdated):
                    with contextlib.suppress(StoreUnavailable):  # it is looked into again
                        await asyncio.to_thread(self._home.outdate, work.loop.loop_id)
        try:
            await self._maintain(work)
        except RankwardError as error:
            work.maintained_us = self._stumble(work, error)
        if work.fence is not None and self._home.timer() >= work.tend_again_us:
            try:
                with self._home.acting(work.fence):
                    self._tend(work)
                    self._tend_mirror(work)
                    work.challenging.tend(work.loop, busy=busy)
            except RankwardError as error:
                work.tend_again_us = self._stumble(work, error)
        work.importing.tend()
        return busy

    def _stumble(self, work: _LoopWork, error: RankwardError) -> int:
        """Say what went wrong with a loop. Returns when, by the timer, to try again: later and later."""
        work.pause_us = min(_LONGEST_PAUSE_US, max(_RESTART_US, 2 * work.pause_us))
        if isinstance(error, StorageFull):
            self._home.folder.give_reserve()
        if any(loop.loop_id == work.loop.loop_id for loop in self._home.catalog.loops()):
            logger.error("loop %s: %s. It is tried again.", work.loop.name, error)
        return self._home.timer() + work.pause_us

    async def _follow(self) -> None:
        self._loops = list(self._home.catalog.loops())
        self._open_again_us = _NEVER_US
        present = {loop.loop_id: loop for loop in self._loops}
        gone = self._work.keys() - present.keys()
        for loop_id in self._fetching.keys() - present.keys():
            del self._fetching[loop_id]
        rounds = [each.process for each in (self._watch, self._archive, self._snapshots) if each.process is not None]
        for child in (self._watch, self._archive, self._snapshots) if gone else ():
            child.end()  # it has files of them open, and is started again
            child.started_us = 0
        for loop_id in gone:
            work = self._work.pop(loop_id)
            work.end()
            self._leaving[loop_id] = [*rounds, *work.children]
            if work.importing.process is not None:
                self._leaving[loop_id].append(work.importing.process)
            work.importing.end()
            await work.close()
        for loop_id, loop in present.items():
            if loop_id not in self._work and self._has_replica(loop):
                try:
                    self._work[loop_id] = _LoopWork(self._home, loop, self._spawn)
                except RankwardError as error:
                    logger.error("loop %s cannot be opened, and is tried again: %s", loop.name, error)
                    self._open_again_us = min(self._open_again_us, self._home.timer() + _LONGEST_PAUSE_US)
            if loop_id not in self._work:
                continue
            work = self._work[loop_id]
            epochs = list(self._home.catalog.epochs(loop_id))
            if (work.loop, self._epochs.get(loop_id)) != (loop, epochs):
                work.quiet_rounds = 0
            work.loop = loop
            work.challenging.follow(loop)
            self._epochs[loop_id] = epochs

    def _has_replica(self, loop: Loop) -> bool:
        """Whether a loop has a folder here; if not, it is fetched beside all else."""
        fetching = self._fetching.get(loop.loop_id)
        if fetching is None:
            if not self._home.lacks_replica(loop.loop_id):
                return True
            fetch = asyncio.to_thread(self._home.fetch_replica, loop.loop_id)
            self._fetching[loop.loop_id] = asyncio.create_task(fetch)
        elif fetching.done():
            del self._fetching[loop.loop_id]
            error = fetching.exception()
            if error is None:
                return True
            logger.error("loop %s cannot be fetched, and that is tried again: %s", loop.name, error)
            self._open_again_us = min(self._open_again_us, self._home.timer() + _LONGEST_PAUSE_US)
            return False
        self._open_again_us = min(self._open_again_us, self._home.timer() + _FETCH_LOOK_US)
        return False

    def _sweep(self) -> None:
        """Remove the files of deleted loops, once their children have gone."""
        for loop_id, processes in list(self._leaving.items()):
            if all(process.poll() is not None for process in processes):
                del self._leaving[loop_id]
                self._home.loops.sweep(busy=self._leaving)

    async def _maintain(self, work: _LoopWork) -> None:
        now_us, passed_us = self._home.clock(), self._home.timer()
        if passed_us - work.maintained_us < _MAINTAIN_US:
            return
        work.maintained_us = passed_us
        mark = work.log.change_mark()
        if mark != work.cleaned_at or passed_us - work.cleaned_us >= _MAINTAIN_IDLE_US:
            keep_after_us = max(0, now_us - kept_us(work.loop.settings))
            done_before = min(await work.joining.joined_before(), self._archived_before(work.loop))
            await work.log.maintain(joined_before=done_before, keep_after_us=keep_after_us)
            await work.joined.drop(before=(await work.log.extent()).first)
            work.cleaned_at, work.cleaned_us = mark, passed_us
        self._home.folder.keep_reserve()
        marks = mark, work.joined.change_mark()
        if marks == work.told_at and passed_us - work.told_us < _IDLE_STATUS_US:
            return
        work.told_at, work.told_us = marks, passed_us
        extent = await work.log.extent()
        state = await work.joining.state()
        status = JoiningStatus(
            counts=state.counts,
            head=state.head,
            end=extent.end,
            joined_end=(await work.joined.extent())[1],
            now_us=state.now_us,
            next_due_us=work.joining.next_due_us,
            time_us=now_us,
        )
        self._home.board.post(work.loop.loop_id, "joining", msgspec.json.encode(status))

    def _archived_before(self, loop: Loop) -> Offset:
        """Say what retention may take of a loop's event log: where there is an archive, what is in it."""
        if self._archive_url is None:
            return _ALL
        status = read_status(self._home.board.read(loop.loop_id).get(NOTE), shown(self._archive_url))
        return 0 if status is None else status.keep_from

    def _tend(self, work: _LoopWork) -> None:
        """Start the trainers that are wanted, and see to those that have ended."""
        wanted = {epoch.epoch_id: epoch for epoch in self._epochs.get(work.loop.loop_id, [])}
        for epoch_id in work.trainers.keys() - wanted.keys():
            trainer = work.trainers[epoch_id]
            if trainer.process is None or trainer.process.poll() is not None:
                _end(trainer)
                del work.trainers[epoch_id]
                self._home.forget_marks(work.loop.loop_id, but=[*wanted, *work.trainers])
        if not work.joining.has_joined:
            return
        for epoch_id in wanted:
            trainer = work.trainers.setdefault(epoch_id, _Trainer())
            if trainer.process is not None and trainer.process.poll() is not None:
                self._bury(work, epoch_id, trainer)
            if trainer.process is None and self._home.timer() - trainer.started_us >= trainer.pause_us:
                trainer.started_us = self._home.timer()
                trainer.process = self._spawn("trainer", work.loop.name, str(epoch_id))

    def _tend_mirror(self, work: _LoopWork) -> None:
        """Keep a process that mirrors, for as long as the loop is to be mirrored. It ends by itself then."""
        mirror, settings = work.mirror, work.loop.settings
        if mirror.process is not None and mirror.process.poll() is not None:
            mirror.end()
        wanted = settings.log_mirror_enabled and settings.log_mirror_sas_uri is not None
        if wanted and mirror.process is None and self._home.timer() - mirror.started_us >= _LONGEST_PAUSE_US:
            mirror.started_us = self._home.timer()
            mirror.process = self._spawn("mirror", work.loop.name)

    def _tend_watch(self) -> None:
        """Keep the process that keeps the figures of all loops, from when there is something joined."""
        watch = self._watch
        if watch.process is not None and watch.process.poll() is not None:
            logger.error("the process that watches ended with %d, and is started again", watch.process.returncode)
            watch.end()
        wanted = any(work.joining.has_joined for work in self._work.values())
        if wanted and watch.process is None and self._home.timer() - watch.started_us >= _LONGEST_PAUSE_US:
            watch.started_us = self._home.timer()
            watch.process = self._spawn("watch")

    def _tend_archive(self) -> None:
        """Keep the process that archives the logs of all loops, if there is an archive."""
        archive = self._archive
        if archive.process is not None and archive.process.poll() is not None:
            logger.error("the process that archives ended with %d, and is started again", archive.process.returncode)
            archive.end()
        wanted = self._archive_url is not None and any(work.fence is not None for work in self._work.values())
        if wanted and archive.process is None and self._home.timer() - archive.started_us >= _LONGEST_PAUSE_US:
            archive.started_us = self._home.timer()
            archive.process = self._spawn("archive")

    def _tend_snapshots(self) -> None:
        """Keep the process that takes the snapshots of a node's loops, where it leads some."""
        snapshots = self._snapshots
        if snapshots.process is not None and snapshots.process.poll() is not None:
            logger.error(
                "the process of the snapshots ended with %d, and is started again", snapshots.process.returncode
            )
            snapshots.end()
        wanted = self._home.broker is not None and any(work.fence is not None for work in self._work.values())
        if wanted and snapshots.process is None and self._home.timer() - snapshots.started_us >= _LONGEST_PAUSE_US:
            snapshots.started_us = self._home.timer()
            snapshots.process = self._spawn("snapshots")

    def _bury(self, work: _LoopWork, epoch_id: int, trainer: _Trainer) -> None:
        """Set aside the event that a learner died on, before the next one starts."""
        assert trainer.process is not None, "only what has lived can be buried"
        code = trainer.process.returncode
        _end(trainer)
        if code >= 0:
            lived_us = self._home.timer() - trainer.started_us
            trainer.pause_us = (
                _RESTART_US if lived_us > _LONGEST_PAUSE_US else min(_LONGEST_PAUSE_US, 2 * trainer.pause_us)
            )
            if code:
                logger.error("loop %s: the trainer of epoch %d ended with %d", work.loop.name, epoch_id, code)
            return
        mark = self._home.mark(work.loop.loop_id, epoch_id)
        interaction = mark.get()
        deadly = -code in _DEADLY
        if interaction is not None and not deadly:
            trainer.killed_count = trainer.killed_count + 1 if trainer.last_mark == interaction else 1
            trainer.last_mark = interaction
            deadly = trainer.killed_count >= _KILLED_BOUND
        name = signal.Signals(-code).name
        logger.error("loop %s: the learner of epoch %d died of %s", work.loop.name, epoch_id, name)
        if interaction is not None and deadly:
            self._home.catalog.set_aside(
                SetAside(
                    loop_id=work.loop.loop_id,
                    interaction=interaction,
                    event_id="",
                    reason=f"the learner died of {name}",
                    time_us=self._home.clock(),
                )
            )
        mark.clear()

    async def _close(self) -> None:
        self._desk.stop()
        self._optimizing.stop()
        acting, others = [], []
        for work in self._work.values():
            work.end()
            acting += work.children
            if work.importing.process is not None:
                others.append(work.importing.process)
            work.importing.end()
        for rounds in (self._watch, self._archive, self._snapshots):
            if rounds.process is not None:
                others.append(rounds.process)
            rounds.end()
        for child in acting:
            await asyncio.to_thread(_wait_or_kill, child)
        await asyncio.to_thread(self._optimizing.close, _wait_or_kill)
        await asyncio.to_thread(self._leading.release)  # another may go on: nothing acts any more
        for child in others:
            await asyncio.to_thread(_wait_or_kill, child)
        await asyncio.to_thread(self._desk.close, _wait_or_kill)
        for work in self._work.values():
            with contextlib.suppress(NotFound):
                await work.close()


def kept_us(settings: LoopSettings) -> int:
    """How long events are kept, in microseconds: at least until they are joined, and a day."""
    if settings.log_retention_days == -1:
        return 1 << 62
    least = round(settings.reward_wait.total_seconds() * 1_000_000) + _DAY_US
    return max(least, settings.log_retention_days * _DAY_US)


def _end(trainer: _Trainer) -> None:
    if trainer.process is not None and trainer.process.stdin is not None:
        trainer.process.stdin.close()
        trainer.process = None


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def spawner(home: Home) -> Spawn:
    """Make what starts processes: this Python, in the roles of `rankward.roles`. They act under the starter's term."""

    def spawn(role: str, *arguments: str) -> subprocess.Popen[bytes]:
        fence = home.fence()
        under = [] if fence is None else ["under", fence.loop_id, str(fence.term)]
        command = [sys.executable, "-m", "rankward.roles", role, str(home.folder.root), *arguments, *under]
        return subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603

    return spawn
