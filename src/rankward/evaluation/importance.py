"""Ranks features by what a policy loses without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rankward.evaluation.facts import Census
from rankward.evaluation.features import Feature
from rankward.evaluation.report import Estimate, FeatureScore


class Loss(NamedTuple):
    """What a policy loses of its mean reward without a group of features; below 0 where it does better."""

    features: tuple[Feature, ...]  # that go together
    left_out: Estimate | None  # learned anew without them; None: it could not be judged
    permuted: Estimate | None  # as it is, and shown those of other decisions


def scored(census: Census, losses: Sequence[Loss]) -> tuple[FeatureScore, ...]:
    """Rank features by what is lost without each.

    Args:
        census: of the log.
        losses: without each group of those that vary; no feature is in two.

    Returns:
        The most important first. The best has score 1, those that lose nothing have 0, as constant ones do. Features
        that go together share what is lost without all of them.
    """
    known = [loss for loss in losses if loss.left_out is not None]
    ranked = sorted(known, key=_value, reverse=True)
    best = max([0.0, *map(_value, ranked)])
    found = []
    for loss in ranked:
        group = tuple([name for feature in loss.features for name in census.shown(feature)])
        found += [
            FeatureScore(
                namespace=feature.namespace,
                name=feature.name,
                score=max(0.0, _value(loss)) / best if best > 0 else 0.0,
                loss=_value(loss),
                group=group,
                left_out=loss.left_out,
                permuted=loss.permuted,
                shared_with=tuple([f"{each.namespace}.{each.name}" for each in loss.features if each != feature]),
            )
            for feature in loss.features
        ]
    for feature in census.constant():
        group = census.shown(feature)
        found.append(FeatureScore(namespace=feature.namespace, name=feature.name, score=0.0, group=group))
    return tuple(found)


def _value(loss: Loss) -> float:
    assert loss.left_out is not None, "those that could not be judged are left out"
    return loss.left_out.value


def groups(scores: Sequence[FeatureScore]) -> list[list[str]]:
    """List groups of features as v1 of the contract does: the most important first, each name in one group."""
    listed: list[list[str]] = []
    seen: set[str] = set()
    for score in scores:
        group = [name for name in score.group if name not in seen]
        seen.update(group)
        if group:
            listed.append(group)
    return listed
