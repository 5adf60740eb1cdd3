"""Whether the features that carry a policy are found: a row of `make bench-evaluation`.

Thirty features, of which six were planted: what a visitor clicks depends on two of text and on one number of the
context, each together with one feature of the action. The other 24 look alike, and mean nothing. Choices are uniform.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

import msgspec
import numpy as np

from benchmarks.report import Row
from rankward.evaluation.contrast import Floats
from rankward.evaluation.features import Feature
from rankward.evaluation.measure import Importances, measure_features
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import Estimate, FeatureScore
from rankward.evaluation.service import Batch, custom
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
    Features,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
)
from rankward.settings import Aggregation
from rankward.vw.presets import BALANCED

ACTIONS = 5
VALUES = ("red", "green", "blue")
PLANTED = frozenset(
    [
        *(Feature("visitor", name) for name in ("text0", "text1")),
        Feature("measured", "number0"),
        *(Feature("item", f"trait{number}") for number in range(3)),
    ]
)
FEATURES_MAX = 40
SECOND_US = 1_000_000
START_US = 1_767_225_600 * SECOND_US
_ONE_VALUE_EACH = (0.25, -0.125, -0.125)  # what a pair of values adds to the mean reward, shuffled for each value


class PlantedLog(msgspec.Struct, frozen=True):
    """A log whose rewards depend on the planted features. Implements `Source`."""

    events: int
    seed: int
    of_each: int = 10  # features: so many texts, numbers and traits

    def batches(self) -> Iterator[Batch]:
        """Draw it; the same whenever it is read."""
        rng = np.random.default_rng(self.seed)
        tables = [np.array([np.roll(_ONE_VALUE_EACH, number) for number in rng.permutation(3)]) for _ in range(2)]
        slopes = rng.permutation((0.25, 0.0, -0.25))
        for begin in range(0, self.events, 500):
            end = min(self.events, begin + 500)
            events = [_event(number, self.of_each, rng, tables, slopes) for number in range(begin, end)]
            yield Batch(events, end / self.events)


def _event(number: int, of_each: int, rng: np.random.Generator, tables: list[Floats], slopes: Floats) -> JoinedEvent:
    texts = rng.integers(0, 3, of_each)
    numbers = rng.uniform(-1, 1, of_each)
    traits = rng.integers(0, 3, (ACTIONS, of_each))
    chosen = int(rng.integers(ACTIONS))
    mine = traits[chosen]
    rate = 0.4 + tables[0][texts[0], mine[0]] + tables[1][texts[1], mine[1]] + slopes[mine[2]] * numbers[0]
    clicked = float(rng.random() < rate)
    time_us = START_US + number * 10 * SECOND_US
    context = {
        "visitor": {f"text{place}": VALUES[value] for place, value in enumerate(texts)},
        "measured": {f"number{place}": round(float(value), 4) for place, value in enumerate(numbers)},
    }
    actions = [{"item": {f"trait{place}": VALUES[value] for place, value in enumerate(row)}} for row in traits]
    return JoinedEvent(
        offset=number,
        entry=JoinedEntry(number, time_us, time_us + 600 * SECOND_US, (JoinedObservation(number, time_us, clicked),)),
        interaction=Interaction(
            event_id=f"e{number}",
            context=Features(msgspec.json.encode([context])),
            actions=tuple(
                [Action(f"{place}", Features(msgspec.json.encode([each]))) for place, each in enumerate(actions)]
            ),
            pmf=(1 / ACTIONS,) * ACTIONS,
            chosen=chosen,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=600 * SECOND_US,
        ),
    )


def measured(log: PlantedLog) -> Importances:
    """Measure what the features of such a log are worth to the preset `balanced`."""
    setup = Setup(rewards=RewardDefinition(0.0, Aggregation.EARLIEST), export_us=300 * SECOND_US)
    candidate = custom("balanced", BALANCED.name, exploration=0.02)
    return measure_features(log, candidate, setup, features_max=FEATURES_MAX, seed=log.seed)


def ranking_auc(scores: dict[Feature, float]) -> float:
    """Tell how often a planted feature is ranked above another one; ties count half."""
    planted = [score for feature, score in scores.items() if feature in PLANTED]
    others = [score for feature, score in scores.items() if feature not in PLANTED]
    return mean((one > other) + (one == other) / 2 for one in planted for other in others)


def losses(found: Importances, way: str) -> dict[Feature, Estimate]:
    """Pick what is lost without each feature, in one of both ways."""
    picked: dict[str, dict[Feature, Estimate | None]] = {
        "left out": {_named(each): each.left_out for each in found.scores},
        "permuted": {_named(each): each.permuted for each in found.scores},
    }
    return {feature: each for feature, each in picked[way].items() if each is not None}


def _named(score: FeatureScore) -> Feature:
    return Feature(score.namespace, score.name)


def importance(quick: bool) -> Iterator[Row]:
    """How well planted features are ranked above others, and whether the intervals tell them apart."""
    events, seeds = (5_000, 1) if quick else (20_000, 3)
    every = [measured(PlantedLog(events, seed)) for seed in range(seeds)]
    for way in ("left out", "permuted"):
        found = [losses(each, way) for each in every]
        areas = [ranking_auc({feature: each.value for feature, each in one.items()}) for one in found]
        told = mean(sum(each.fixed.low > 0 for feature, each in one.items() if feature in PLANTED) for one in found)
        wrong = mean(
            sum(not each.fixed.low <= 0 for feature, each in one.items() if feature not in PLANTED) for one in found
        )
        yield Row(
            f"importance, {way}: {len(PLANTED)} planted among 30 features, {events:,} events, {seeds} seeds: AUC",
            f"{min(areas):.3f} to {max(areas):.3f}",
            f"above 0 beyond doubt: {told:.1f} of 6 planted, {wrong:.1f} of the others",
            "",
            "at least 0.95",
            min(areas) >= 0.95,
        )
