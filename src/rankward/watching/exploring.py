"""What an event says of exploring, and what a stretch of time adds up to: see `watching.exploration`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from rankward.evaluation.estimators import Sums
from rankward.evaluation.question import Question

FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Degrees of exploring that are told apart, as multiples of what is done."""


class Explored(NamedTuple):
    """What one event says of exploring: the mean over its slots. Rewards are scaled to [0, 1]."""

    mass: float  # probability of the actions that were not the likeliest
    weight: float  # |d| / p_log of what was taken, d being how much more the likeliest actions would get
    reward: float  # r, or 1 - r where d is below 0
    spread: tuple[float, ...]  # for each of FACTORS: the mean over actions of 1 / p
    blind: bool  # an action had probability 0, of which nothing can be known


def explore(asked: Sequence[Question], rewards: Sequence[float]) -> Explored:
    """Look at how an event explored.

    Args:
        asked: its slots, decided online with probabilities that can be true.
        rewards: of each, scaled to [0, 1].
    """
    mass = weight = weighted = 0.0
    spread = [0.0] * len(FACTORS)
    blind = False
    slots = len(asked)
    for question, reward in zip(asked, rewards, strict=True):
        p_log, count = question.p_log, len(question.p_log)
        highest = max(p_log)
        others = [p for p in p_log if p < highest]
        share = 1 / (count - len(others))  # what each of the likeliest would get
        beyond = sum(others)
        taken = p_log[question.chosen]
        gain = ((share if taken == highest else 0.0) - taken) / taken
        mass += beyond / slots
        weight += abs(gain) / slots
        weighted += abs(gain) * (reward if gain >= 0 else 1 - reward) / slots
        if others and min(others) <= 0:
            blind = True
            continue
        inverse = sum(1 / p for p in others)
        for place, factor in enumerate(FACTORS):
            left = (1 - factor * beyond) * share
            if left * count <= 1:  # no more than chance is left: then each is as likely as the others
                spread[place] += count / slots
            else:
                spread[place] += (1 / (share * left) + inverse / factor) / count / slots
    return Explored(mass, weight, weighted / weight if weight else 0.0, tuple(spread), blind)


class ExploringTally(msgspec.Struct, array_like=True):
    """Sums over events decided online."""

    events: int = 0
    count: float = 0.0  # the same, each as often as it stands for
    blind: int = 0  # events with an action of probability 0
    mass: float = 0.0  # sum of `Explored.mass`
    spread: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(FACTORS))  # sums over those not blind
    paired: Sums = msgspec.field(default_factory=Sums)  # of the likeliest actions against those taken

    def add(self, explored: Explored, upweight: float) -> None:
        """Take an event in."""
        self.events += 1
        self.count += upweight
        self.mass += explored.mass * upweight
        self.paired.add_one(explored.weight, explored.reward, upweight)
        if explored.blind:
            self.blind += 1
            return
        for place, value in enumerate(explored.spread):
            self.spread[place] += value

    def merge(self, other: ExploringTally) -> None:
        """Take the events of another stretch in."""
        self.events += other.events
        self.count += other.count
        self.blind += other.blind
        self.mass += other.mass
        self.spread = [mine + theirs for mine, theirs in zip(self.spread, other.spread, strict=True)]
        self.paired.merge(other.paired)
