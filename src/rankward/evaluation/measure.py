"""Finds what features are worth to a policy: it is judged with all of them, without each, and with each permuted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from rankward.evaluation.contender import Blindness, Candidate, Trained, Way
from rankward.evaluation.facts import Census, FeatureFacts
from rankward.evaluation.importance import Loss, scored
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import FeatureScore
from rankward.evaluation.service import PROCESSES, CancelledError, Play, Progress, Source, compiled, replayed

CENSUS_EVENTS = 20_000  # of the log, in which features are looked for


class Importances(NamedTuple):
    """What was found."""

    scores: tuple[FeatureScore, ...]  # the most important first; empty: the log cannot judge the policy
    facts: tuple[FeatureFacts, ...]  # of all features, the most frequent first


def take_census(source: Source, *, cancelled: Callable[[], bool] = lambda: False) -> Census:
    """Look which features a log has, in its first events.

    Raises:
        CancelledError: `cancelled` said so.
    """
    census = Census()
    for batch in source.batches():
        for event in batch.events:
            census.take(event.interaction)
        if cancelled():
            raise CancelledError("the search for features was cancelled")
        if census.events >= CENSUS_EVENTS:
            break
    return census


def measure_features(
    source: Source,
    candidate: Candidate,
    setup: Setup,
    *,
    features_max: int,
    seed: int,
    processes: int = PROCESSES,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    keep: Callable[[Trained], None] = lambda _: None,
    checkpoints: Path | None = None,
    play: Play | None = None,
) -> Importances:
    """Judge a policy with all features, without each, and with each permuted. Blocks until it is done.

    Features that go together are left out, and permuted, together.

    Args:
        source: the log.
        candidate: the policy.
        setup: how to judge it.
        features_max: how many features are looked at at most, the most frequent ones.
        seed: of the permutations.
        processes: how many to use at most.
        progress: told now and then how far it has come.
        cancelled: asked now and then whether to stop.
        keep: given what the policy has learned with all features, if it wants it kept.
        checkpoints: see `evaluation.service.evaluate`.
        play: see `evaluation.service.evaluate`.

    Raises:
        CancelledError: `cancelled` said so.
        EvaluationFailedError: a process broke.
    """
    census = take_census(source, cancelled=cancelled)
    kin = census.kin(census.varied(features_max))
    every = [
        Blindness(features=frozenset(features), way=way, seed=(seed, number))
        for way in Way
        for number, features in enumerate(kin)
    ]
    # Each process has the whole policy, as only policies that are side by side can be compared event by event.
    count = max(1, min(processes, len(every)))
    whole = [
        msgspec.structs.replace(
            candidate,
            name=candidate.name if number == 0 else f"{candidate.name}, {number + 1}",
            blind=tuple(every[number::count]),
            keeps_model=candidate.keeps_model and number == 0,
        )
        for number in range(count)
    ]
    parts = replayed(
        source,
        whole,
        setup,
        processes=count,
        progress=progress,
        cancelled=cancelled,
        keep=keep,
        checkpoints=checkpoints,
        play=play,
    ).parts
    if not compiled(parts, whole, setup).trusted:
        return Importances((), census.facts())
    found = {(loss.blindness.features, loss.blindness.way): loss.estimate for part in parts for loss in part.losses}
    losses = [
        Loss(features, found.get((frozenset(features), Way.LEFT_OUT)), found.get((frozenset(features), Way.PERMUTED)))
        for features in kin
    ]
    return Importances(scored(census, losses), census.facts())
