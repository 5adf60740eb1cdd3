"""An event log with a past: traffic that was never sent, written in virtual time."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.bodies import bodies
from benchmarks.installation import LOOP
from rankward.api.schema.ranking import read_rank
from rankward.loops import playground_settings
from rankward.ranking.decide import new_event_id
from rankward.ranking.features import FeatureBounds
from rankward.records import Interaction, LearningMode, Observation, Record
from rankward.settings import Limits
from rankward.wiring import Home

_GAP_US = 3_000  # between two events, on average; the last is a minute ago
_FEW = 50_000
_BATCH = 8  # records that share a commit, and so a time
_BATCH_OF_MANY = 250  # to be done sooner
_MAINTAIN = 50_000


class _Clock:
    """Time that is moved."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def write_history(root: Path, *, events: int, actions: int = 10, features: int = 5) -> None:
    """Make an installation whose loop `bench` has logged events: nothing is joined or learned yet.

    Args:
        root: its data folder.
        events: interactions; half of them are rewarded.
        actions: offered in each, out of a hundred that recur.
        features: of each action.
    """
    asyncio.run(_write(root, events, actions, features))


async def _write(root: Path, events: int, actions: int, features: int) -> None:
    clock = _Clock(time.time_ns() // 1000 - events * _GAP_US - 60_000_000)
    home = Home(root, clock=clock)
    if LOOP not in {loop.name for loop in home.catalog.loops()}:
        home.loops.create(LOOP, playground_settings())
    log = home.event_log(home.catalog.loop(LOOP).loop_id)
    rng = random.Random(5)
    batch = _BATCH if events <= _FEW else _BATCH_OF_MANY
    records: list[Record] = []
    rewards: list[tuple[int, str, float]] = []  # by the moment they come: moment, event id, value
    try:
        for number, interaction in enumerate(_interactions(clock, events, actions, features)):
            records.append(interaction)
            if number % 2:
                liked = int(interaction.actions[interaction.chosen].id.rpartition("-")[2]) < 50
                moment_us = clock.now_us + rng.randint(50_000, 900_000)
                heapq.heappush(rewards, (moment_us, interaction.event_id, float(liked)))
            while rewards and (rewards[0][0] <= clock.now_us or number == events - 1):
                _, event_id, value = heapq.heappop(rewards)
                records.append(Observation(event_id=event_id, value=value))
            if len(records) >= batch or number == events - 1:
                await log.append(records)
                records = []
            if number % _MAINTAIN == _MAINTAIN - 1:
                await log.maintain(joined_before=0, keep_after_us=0)
            clock.now_us += round(rng.expovariate(1 / _GAP_US))
    finally:
        await log.close()
        home.close()


def _interactions(clock: _Clock, events: int, actions: int, features: int) -> Iterator[Interaction]:
    rng = random.Random(7)
    pmfs = np.random.default_rng(7).dirichlet(np.full(actions, 0.3), 4096) * 0.98 + 0.02 / actions
    limits, bounds = Limits(), FeatureBounds()
    for number, body in zip(range(events), bodies(actions, features, seed=2), strict=False):
        request, _ = read_rank(body, limits=limits, bounds=bounds)
        moment = datetime.fromtimestamp(clock.now_us / 1_000_000, UTC)
        pmf = pmfs[number % len(pmfs)] * (1 + 1e-9 * number)  # no two alike
        pmf /= pmf.sum()
        yield Interaction(
            event_id=new_event_id(UUID(int=rng.getrandbits(128), version=4), moment),
            context=request.context,
            actions=request.actions,
            pmf=tuple(pmf.tolist()),
            chosen=rng.choices(range(actions), pmf)[0],
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=2_000_000,
            model_id=f"1-{number // 1000}",
        )
