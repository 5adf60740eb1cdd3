"""A whole loop in one process and in virtual time: ranking, joining, training and serving, on real files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from rankward.configuration import Configuration
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.ranking.decide import RankRequest
from rankward.ranking.service import Outcome, RankingService
from rankward.records import Action, Features
from rankward.registry.service import Registry
from rankward.settings import LoopSettings
from rankward.store.ports import EventLog, JoinedLog, Loop, ModelVersion
from rankward.training.fold import Checkpoint, Fold
from rankward.training.service import TrainingService, TrainingStatus
from rankward.wiring import Home

START_US = 1_760_000_000_000_000


class Circle:
    """One loop, whose time stands still unless it is moved."""

    def __init__(self, folder: Path, settings: LoopSettings) -> None:
        self.now_us = START_US
        self.home = Home(folder, clock=lambda: self.now_us)
        names = {loop.name for loop in self.home.catalog.loops()}
        if "circle" not in names:
            self.home.loops.create("circle", settings)
        self.log: EventLog = self.home.event_log(self.loop.loop_id)
        self.joined: JoinedLog = self.home.joined_log(self.loop.loop_id)
        self.joining = JoiningService(self.log, self.joined, clock=lambda: self.now_us)
        catalog, loop_id = self.home.catalog, self.loop.loop_id
        self.ranking = RankingService(self.loop, self.log, self.home.models, lambda: catalog.versions(loop_id))
        trail = self.home.trail
        self.configuration = Configuration(catalog, log=lambda _: self.log, clock=lambda: self.now_us, trail=trail)
        self.registry = Registry(
            catalog,
            self.home.models,
            self.home.signing,
            log=lambda _: self.log,
            joined=lambda _: self.joined,
            clock=lambda: self.now_us,
            trail=trail,
        )

    @property
    def loop(self) -> Loop:
        """The loop as the catalog has it."""
        return self.home.catalog.loop("circle")

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now_us += round(seconds * 1_000_000)

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
        """Let visitors come, each of whom likes one action. Returns their average reward."""
        total = 0.0
        for number in range(count):
            liked = number * 7 % 3
            outcome = await self.rank(f"{prefix}{number}", f"v{liked}")
            value = 1.0 if outcome.interaction.chosen == liked else 0.0
            total += value
            await self.ranking.reward(f"{prefix}{number}", value)
            self.pass_time(seconds_between)
        return total / count

    async def join(self) -> None:
        """Join everything whose wait is over."""
        while await self.joining.step():
            pass

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
        await self.log.close()
        await self.joined.close()
        self.home.close()


async def run_through(service: TrainingService, circle: Circle, epoch_id: int) -> None:
    """Run a trainer until it has read the whole joined log, then stop it."""
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    end = (await circle.joined.extent())[1]
    while not running.done():
        circle.now_us += 1_000_000  # so that the trainer says how far it is
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
