"""A whole loop in one process and in virtual time: ranking, joining, training and serving, on real files.

In a folder that is a node's of a cluster, it is on real servers as well: see `root` in `tests/conftest.py`.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from nats.aio.msg import Msg

from rankward.configuration import Configuration
from rankward.errors import ServersAway
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.ranking.decide import RankRequest
from rankward.ranking.service import Outcome, RankingService
from rankward.records import Action, Features, TimeUs
from rankward.registry.service import Registry
from rankward.settings import LoopSettings
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.events import EventStream
from rankward.store.nats.feed import Feed
from rankward.store.nats.joined_log import ReplicatedJoinedLog
from rankward.store.nats.node import Node
from rankward.store.ports import EventLog, JoinedLog, Loop, ModelVersion
from rankward.training.fold import Checkpoint, Fold
from rankward.training.service import TrainingService, TrainingStatus
from rankward.wiring import Home

START_US = 1_760_000_000_000_000
LOOP_ID = "1009c1e5" * 4
"""Always the same: event ids are, too, so that what is drawn and learned does not depend on chance."""
_AT_A_TIME = 10


class Clock:
    """Time that stands still unless it is moved. It knows what it showed at each moment of the real time."""

    def __init__(self) -> None:
        self.now_us = START_US
        self._moved_us = [0]  # in real time
        self._shown_us = [START_US]  # from then on

    def __call__(self) -> TimeUs:
        """Say what time it is."""
        return self.now_us

    def move(self, to_us: TimeUs) -> None:
        """Have it show another time."""
        self.now_us = to_us
        self._moved_us.append(time.time_ns() // 1000)
        self._shown_us.append(to_us)

    def shown_at(self, real_us: TimeUs) -> TimeUs:
        """Say what it showed at a moment of the real time."""
        return self._shown_us[bisect.bisect_right(self._moved_us, real_us) - 1]


class Timer:
    """Goes with a clock, and further where pauses are to be over: how often that is depends on the machine."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._more_us = 0

    def __call__(self) -> int:
        """Microseconds since some moment."""
        return self._clock() + self._more_us

    def move(self, by_us: int) -> None:
        """Let a pause pass, and no time."""
        self._more_us += by_us


class _TimedFeed(Feed):
    """A feed in virtual time: what the servers stamped is told in the time that the test's clock showed then."""

    shown_at: Callable[[TimeUs], TimeUs]

    def time_of(self, message: Msg) -> TimeUs:
        """Say what time it was when a message came."""
        return self.shown_at(super().time_of(message))


class _Feeding:
    """What the worker of a node does all the time: brings its replica of the loop up to the stream."""

    def __init__(self, node: Node, loop_id: str, log: EventLog, joined: JoinedLog, clock: Clock) -> None:
        assert isinstance(log, ReplicatedEventLog), "it is a node's"
        assert isinstance(joined, ReplicatedJoinedLog), "it is a node's"
        self._broker, self._stream = node.broker, EventStream(node.broker, loop_id)
        self._replica = log.replica
        self._feed = _TimedFeed(node.broker, loop_id, log.replica, joined.own)
        self._feed.shown_at = clock.shown_at
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            busy = False
            with contextlib.suppress(ServersAway):  # they were slow to answer: a worker tries again, too
                busy = await self._feed.step()
            if not busy:
                await asyncio.sleep(0.002)

    async def catch_up(self) -> None:
        """Wait until the replica has what the stream has."""
        await self._broker.ask(self._stream.ensure)
        info = await self._broker.ask(lambda: self._broker.js.stream_info(self._stream.name))
        while await self._replica.place() < info.state.last_seq:
            assert not self._task.done(), self._task.exception()
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._feed.close()


class Circle:
    """One loop, whose time stands still unless it is moved."""

    def __init__(self, folder: Path, settings: LoopSettings, clock: Clock | None = None) -> None:
        self.clock = Clock() if clock is None else clock  # nodes of one cluster have one
        self.timer = Timer(self.clock)
        self.home = Home(folder, clock=self.clock, timer=self.timer)
        names = {loop.name for loop in self.home.catalog.loops()}
        if "circle" not in names:
            self.home.loops.create("circle", settings, loop_id=LOOP_ID)
        self.home.fetch_replica(self.loop.loop_id)  # another node may have made it
        self.log: EventLog = self.home.event_log(self.loop.loop_id)
        self.joined: JoinedLog = self.home.joined_log(self.loop.loop_id)
        self._feeding: _Feeding | None = None  # embedded, the log is written where it is read
        if self.home.node is not None:
            self._feeding = _Feeding(self.home.node, self.loop.loop_id, self.log, self.joined, self.clock)
        self.joining = JoiningService(self.log, self.joined, clock=self.clock)
        catalog, loop_id = self.home.catalog, self.loop.loop_id
        self.ranking = RankingService(self.loop, self.log, self.home.models, lambda: catalog.versions(loop_id))
        trail = self.home.trail
        self.configuration = Configuration(catalog, log=lambda _: self.log, clock=self.clock, trail=trail)
        self.registry = Registry(
            catalog,
            self.home.models,
            self.home.signing,
            log=lambda _: self.log,
            joined=lambda _: self.joined,
            clock=self.clock,
            trail=trail,
        )

    @property
    def loop(self) -> Loop:
        """The loop as the catalog has it."""
        return self.home.catalog.loop("circle")

    @property
    def now_us(self) -> TimeUs:
        """What time it is."""
        return self.clock()

    @now_us.setter
    def now_us(self, to_us: TimeUs) -> None:
        self.clock.move(to_us)

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now_us += round(seconds * 1_000_000)

    async def catch_up(self) -> None:
        """Wait until what was appended can be read, which takes a node a moment more."""
        if self._feeding is not None:
            await self._feeding.catch_up()

    async def rank(
        self, event_id: str, who: str, actions: int = 3, *, named: bool = False, deferred: bool = False
    ) -> Outcome:
        """Rank for a visitor of a kind."""
        request = RankRequest(
            event_id=event_id,
            context=Features(msgspec.json.encode([{"visitor": {"who": who}}])),
            actions=tuple(
                [Action(f"a{k}", Features(msgspec.json.encode([{"dish": {"kind": f"k{k}"}}]))) for k in range(actions)]
            ),
            deferred=deferred,
        )
        return await self.ranking.rank(request, named=named)

    async def play(self, count: int, *, prefix: str = "e", seconds_between: float = 0.1) -> float:
        """Let visitors come, a few at a time, each of whom likes one action. Returns their average reward."""
        total = 0.0
        for first in range(0, count, _AT_A_TIME):
            liked = {f"{prefix}{number}": number * 7 % 3 for number in range(first, min(count, first + _AT_A_TIME))}
            outcomes = await asyncio.gather(*[self.rank(event_id, f"v{likes}") for event_id, likes in liked.items()])
            rewards = {
                event_id: float(outcome.interaction.chosen == likes)
                for (event_id, likes), outcome in zip(liked.items(), outcomes, strict=True)
            }
            await asyncio.gather(*[self.ranking.reward(event_id, value) for event_id, value in rewards.items()])
            total += sum(rewards.values())
            self.pass_time(seconds_between * len(liked))
        return total / count

    async def join(self) -> None:
        """Join everything whose wait is over."""
        await self.catch_up()
        while await self.joining.step():
            await self.catch_up()  # it may have let time pass in the log

    async def train(self, epoch_id: int | None = None) -> None:
        """Train an epoch, the newest if none is named, as far as the joined log goes, and publish."""
        epochs = self.home.catalog.epochs(self.loop.loop_id)
        wanted = epochs[-1].epoch_id if epoch_id is None else epoch_id
        service = self.home.training("circle", wanted, self.log, self.joined)
        await run_through(service, self, wanted)

    async def follow(self) -> None:
        """Take over new settings and models."""
        await self.ranking.follow(self.loop)

    async def circle(self) -> None:
        """Wait out the reward wait, join, train, serve."""
        self.pass_time(self.loop.settings.reward_wait.total_seconds() + 1)
        await self.join()
        await self.train()
        await self.follow()

    async def close(self) -> None:
        """Let go of everything."""
        self.ranking.close()
        if self._feeding is not None:
            await self.catch_up()
            await self._feeding.close()
        await self.log.close()
        await self.joined.close()
        self.home.close()


async def run_through(service: TrainingService, circle: Circle, epoch_id: int) -> None:
    """Run a trainer until it has read the whole joined log, then stop it."""
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    end = (await circle.joined.extent())[1]
    while not running.done():
        circle.timer.move(1_000_000)  # so that the trainer says how far it is
        note = circle.home.board.read(circle.loop.loop_id).get(f"training-{epoch_id}")
        if note is not None and msgspec.json.decode(note, type=TrainingStatus).joined_offset >= end:
            break
        await asyncio.sleep(0.005)
    stop.set()
    await running


def newest_version(circle: Circle) -> ModelVersion:
    """The newest version of the loop."""
    versions = circle.home.catalog.versions(circle.loop.loop_id)
    return max(versions, key=lambda version: (version.epoch_id, version.joined_offset, not version.resumable))


def weights_of(circle: Circle, version: ModelVersion) -> dict[int, float]:
    """The weights of a version."""
    epoch = next(e for e in circle.home.catalog.epochs(circle.loop.loop_id) if e.epoch_id == version.epoch_id)
    model = circle.home.models.get(circle.loop.loop_id, version.model_id)
    checkpoint = Checkpoint(joined_offset=0, learned=1, learned_to_us=0, model=model)
    fold = Fold(epoch, checkpoint, exploration=0.0, set_aside=())
    try:
        return fold.weights()
    finally:
        fold.close()


async def replayed_weights(circle: Circle, until: int) -> dict[int, float]:
    """The weights of a run over the newest epoch that was never stopped, up to a joined offset."""
    epoch = circle.home.catalog.epochs(circle.loop.loop_id)[-1]
    set_aside = {event.interaction for event in circle.home.catalog.set_asides(circle.loop.loop_id)}
    base = None if epoch.base is None else circle.home.models.get(circle.loop.loop_id, epoch.base)
    start = Checkpoint(joined_offset=epoch.start or 0, learned=0, learned_to_us=0, model=base)
    fold = Fold(epoch, start, exploration=0.0, set_aside=set_aside)
    offset = start.joined_offset
    while offset < until:
        events, offset = await read_joined(circle.log, circle.joined, offset, limit=until - offset)
        for event in events:
            fold.take(event, before=lambda _: None)
    weights = fold.weights()
    fold.close()
    return weights
