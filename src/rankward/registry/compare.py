"""What two models would do in the same situations, one beside the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rankward.errors import InvalidRequest
from rankward.ranking.explore import check_pmf
from rankward.records import Action, Features, Interaction


class Scoring(Protocol):
    """A model that gives probabilities."""

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give each action's probability, in the order of `actions`."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How far two models agree on some decisions."""

    decisions: int
    same_best_share: float  # of the decisions in which both find the same action likeliest
    distance_mean: float  # total variation between their probabilities: 0 where they agree, 1 where nothing is shared
    distance_max: float


def compare(first: Scoring, second: Scoring, decisions: Sequence[Interaction]) -> Comparison:
    """Ask both models about the same decisions.

    Args:
        first: a model.
        second: another.
        decisions: with at least one of two actions or more.

    Raises:
        InvalidRequest: there is nothing to compare them on.
    """
    same = 0
    distances = []
    for decision in decisions:
        actions = [decision.actions[index] for index in decision.rankable]
        if len(actions) < 2:
            continue
        one, other = (check_pmf(model.pmf(decision.context, actions), len(actions)) for model in (first, second))
        same += one.index(max(one)) == other.index(max(other))
        distances.append(math.fsum(abs(p - q) for p, q in zip(one, other, strict=True)) / 2)
    if not distances:
        raise InvalidRequest("no decision between several actions for a single slot has been joined yet: try later")
    return Comparison(
        decisions=len(distances),
        same_best_share=same / len(distances),
        distance_mean=math.fsum(distances) / len(distances),
        distance_max=max(distances),
    )
