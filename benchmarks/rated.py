"""Whether an evaluation of `balanced` says what a loop with it would earn: a row of `make bench-evaluation`.

The preset changes its rate of learning where rewards are mostly noise, as clicks are. It runs in the world `clicks` as
a loop would, and its true mean reward is known; then it is judged by a log of the same visitors with uniform choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec
import numpy as np

from benchmarks.learning import Played, Scene, Setting, play, stage
from benchmarks.report import Row
from rankward.evaluation.replay import Replay, Setup
from rankward.evaluation.report import Estimate
from rankward.evaluation.service import custom
from rankward.joining.reward import RewardDefinition
from rankward.records import Interaction, JoinedEntry, JoinedEvent, JoinedObservation, LearningMode
from rankward.settings import Aggregation
from rankward.simulate.worlds import make_world
from rankward.vw.presets import BALANCED

BASE_RATE = 0.05
EVERY, BEHIND = 50, 100  # events between two models served, and events that one has not seen: one event a second
SECOND_US = 1_000_000
START_US = 1_767_225_600 * SECOND_US


def rate(quick: bool) -> Iterator[Row]:
    """The estimate with and without the change of rate, beside what a loop earns."""
    for seed in range(1 if quick else 3):
        scene = _scene(12_000 if quick else 30_000, seed)
        estimates = _judged(scene, seed)
        for name, derives_rate in (("as it is", True), ("with its quick rate only", False)):
            loop = _played(scene, derives_rate=derives_rate)
            truth, estimate = float(loop.value.mean()), estimates[derives_rate]
            yield Row(
                f"balanced {name}, world clicks of {100 * BASE_RATE:g} %, {len(scene.requests):,} events, seed {seed}",
                f"judged {estimate.value:.4f} ({estimate.fixed.low:.4f} to {estimate.fixed.high:.4f})",
                f"a loop earns {truth:.4f}",
                f"{estimate.value / truth:.2f}",
                "its interval holds what a loop earns",
                estimate.fixed.low <= truth <= estimate.fixed.high,
            )


def _scene(events: int, seed: int) -> Scene:
    world, clicks = make_world("clicks", base_rate=BASE_RATE), np.random.default_rng((seed, 1))
    rounds = islice(world.rounds(np.random.default_rng((seed, 0))), events)
    return stage(rounds, lambda played, index: float(clicks.random() < played.means[index]), seed=seed)


def _played(scene: Scene, *, derives_rate: bool) -> Played:
    return play(scene, Setting.of(BALANCED)._replace(derives_rate=derives_rate), every=EVERY, behind=BEHIND)


def _judged(scene: Scene, seed: int) -> dict[bool, Estimate]:
    """Judge the preset with and without the change of rate, by uniform choices."""
    whole = custom("True", BALANCED.name, exploration=0.02)
    candidates = [whole, msgspec.structs.replace(whole, name="False", derives_rate=False)]
    setup = Setup(rewards=RewardDefinition(0.0, Aggregation.EARLIEST), export_us=EVERY * SECOND_US)
    replay, dice = Replay(candidates, setup, references=False), np.random.default_rng((seed, 2))
    for number, (request, rewards) in enumerate(zip(scene.requests, scene.rewards, strict=True)):
        count, time_us = len(request.actions), START_US + number * SECOND_US
        chosen = int(dice.integers(count))
        observed = (JoinedObservation(number, time_us, float(rewards[chosen])),)
        interaction = Interaction(
            event_id=request.event_id,
            context=request.context,
            actions=request.actions,
            pmf=(1 / count,) * count,
            chosen=chosen,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=BEHIND * SECOND_US,
        )
        entry = JoinedEntry(number, time_us, time_us + BEHIND * SECOND_US, observed)
        replay.take(JoinedEvent(number, entry, interaction))
    found = {}
    for result in replay.end().policies:
        assert result.estimate is not None, "every event judges"
        found[result.name == "True"] = result.estimate
    return found
