"""A day in the life of a loop, lived through in virtual time: so that pages have something to show."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rankward.configuration import Configuration
from rankward.joining.service import JoiningService
from rankward.loops import playground_settings
from rankward.ranking.decide import RankRequest
from rankward.ranking.service import RankingService
from rankward.records import Action, Features
from rankward.simulate.worlds import make_world
from rankward.store.audit import Actor, Door
from rankward.training.service import TrainingStatus
from rankward.wiring import Home, now_us

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rankward.simulate.world import FeatureObjects

DAY_US = 86_400_000_000
_GRACE_US = 600_000_000  # before now, the day ends: what the service itself does comes after it
PEOPLE = (Actor("ada@example.org", Door.PORTAL), Actor("command line user grace", Door.COMMAND_LINE))


class Day:
    """The day before now, of one loop, on a folder that no service has opened."""

    def __init__(self, folder: Path) -> None:
        self.now_us = now_us() - DAY_US - _GRACE_US
        self.home = Home(folder, clock=lambda: self.now_us)
        self._rng = np.random.default_rng(7)

    def live(self, loop: str, *, world: str, events: int, models: int = 24) -> None:
        """Make a loop, and let visitors come and go, more of them by day; a model is published now and then.

        Args:
            loop: its name.
            world: where its visitors come from.
            events: how many decisions.
            models: how often something is learned.
        """
        asyncio.run(self._live(loop, world, events, models))

    async def _live(self, name: str, world_name: str, events: int, models: int) -> None:
        self.home.loops.create(name, playground_settings(), actor=PEOPLE[0])
        loop = self.home.catalog.loop(name)
        world = make_world(world_name)
        log, joined = self.home.event_log(loop.loop_id), self.home.joined_log(loop.loop_id)
        joining = JoiningService(log, joined, clock=lambda: self.now_us)
        ranking = RankingService(loop, log, self.home.models, lambda: self.home.catalog.versions(loop.loop_id))
        configuration = Configuration(
            self.home.catalog, log=lambda _: log, clock=lambda: self.now_us, trail=self.home.trail
        )
        begin_us = self.now_us
        hours = np.arange(events) / events * 24
        busy = 1.2 + np.sin((hours - 9) / 24 * 2 * math.pi)
        times = np.cumsum(1 / busy)
        for number, (played, at) in enumerate(zip(world.rounds(self._rng), times / times[-1], strict=False)):
            self.now_us = max(self.now_us, begin_us + round(at * DAY_US))
            event_id = f"{name}-{number}"
            outcome = await ranking.rank(
                RankRequest(
                    event_id=event_id,
                    context=_features(played.context),
                    actions=tuple([Action(action, _features(features)) for action, features in played.actions]),
                ),
                named=False,
            )
            for _, value in world.rewards(played, outcome.interaction.chosen, self._rng):
                await ranking.reward(event_id, value)
            if number == events // 3:
                await configuration.by(PEOPLE[1]).change(name, {"exploration": 0.1})
            if number % max(1, events // models) == events // models - 1:
                self.now_us += 3_000_000
                while await joining.step():
                    pass
                await self._train(name)
                await ranking.follow(self.home.catalog.loop(name))
        ranking.close()
        await log.close()
        await joined.close()
        self.now_us = begin_us

    async def _train(self, name: str) -> None:
        """Learn what was joined, and publish."""
        loop = self.home.catalog.loop(name)
        epoch = self.home.catalog.epochs(loop.loop_id)[-1].epoch_id
        log, joined = self.home.event_log(loop.loop_id), self.home.joined_log(loop.loop_id)
        stop = asyncio.Event()
        running = asyncio.create_task(self.home.training(name, epoch, log, joined).run(stop))
        end = (await joined.extent())[1]
        while not running.done():
            self.now_us += 1_000_000  # so that the trainer says how far it is
            note = self.home.board.read(loop.loop_id).get(f"training-{epoch}")
            if note is not None and msgspec.json.decode(note, type=TrainingStatus).joined_offset >= end:
                break
            await asyncio.sleep(0.005)
        stop.set()
        await running
        await log.close()
        await joined.close()

    def close(self) -> None:
        """Let go of the folder."""
        self.home.close()


def _features(objects: FeatureObjects | Sequence[object]) -> Features:
    return Features(msgspec.json.encode(objects))
