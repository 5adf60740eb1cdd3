"""Finds what each feature is worth: the loop's policy is judged with all of them, and without each."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rankward.evaluation.contender import Candidate, Trained
from rankward.evaluation.findings import FeatureScore
from rankward.evaluation.importance import Census, scored
from rankward.evaluation.replay import Setup
from rankward.evaluation.service import Progress, Source, evaluate


def take_census(source: Source) -> Census:
    """Look which features a log has, in its first events."""
    census = Census()
    for batch in source.batches():
        for event in batch.events:
            census.take(event.interaction)
        if census.is_over:
            break
    return census


def leave_out(
    source: Source,
    candidate: Candidate,
    setup: Setup,
    *,
    features_max: int,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    keep: Callable[[Trained], None] = lambda _: None,
) -> tuple[FeatureScore, ...]:
    """Judge a policy with all features and without each. Blocks until it is done.

    Args:
        source: the log.
        candidate: the policy.
        setup: how to judge it.
        features_max: how many features are left out at most, the most frequent ones.
        progress: told now and then how far it has come.
        cancelled: asked now and then whether to stop.
        keep: given what the policy has learned with all features, if it wants it kept.

    Returns:
        Scores, the most important feature first. Empty: the log cannot judge the policy.

    Raises:
        CancelledError: `cancelled` said so.
        EvaluationFailedError: a process broke.
    """
    census = take_census(source)
    names = {feature: f"without feature {number}" for number, feature in enumerate(census.varied(features_max))}
    without = [
        msgspec.structs.replace(candidate, name=name, leaves_out=feature, keeps_model=False)
        for feature, name in names.items()
    ]
    report = evaluate(source, [candidate, *without], setup, progress=progress, cancelled=cancelled, keep=keep)
    values = {result.name: result.estimate.value for result in report.overall() if result.estimate is not None}
    whole = values.get(candidate.name)
    if whole is None or not report.trusted:
        return ()
    return scored(census, {feature: whole - values[name] for feature, name in names.items() if name in values})
