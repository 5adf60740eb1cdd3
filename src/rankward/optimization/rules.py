"""What an optimization may do: whether it is begun, what it makes of what was found, and whether that still holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from rankward.errors import InvalidPolicy
from rankward.evaluation.asking import changes
from rankward.evaluation.report import PolicyResult, PolicySource, Report
from rankward.records import LearningMode, ModelId, TimeUs
from rankward.settings import NEVER, LoopSettings
from rankward.store.optimizations import Finalist, Optimization, OptimizationState
from rankward.store.ports import Epoch, Loop
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of

WINDOW = timedelta(days=28)
"""How far back a run reads, unless it is run more seldom."""
_EPOCH_START = NEVER.replace(year=1970)
_MICROSECOND = timedelta(microseconds=1)


def obstacle(settings: LoopSettings, model_id: ModelId | None) -> str | None:
    """Say why a loop's log cannot tell a better policy. None: it can, as far as settings and model go.

    Args:
        settings: of the loop.
        model_id: of the version that serves it.
    """
    if problem_type_of(settings.policy) is ProblemType.MULTI_SLOT:
        return "the loop decides for several slots, and only policies for a single one are searched for"
    if settings.learning_mode is not LearningMode.ONLINE:
        return (
            f"in {settings.learning_mode} mode the application's own choice is shown, so the log says what that earns "
            "and nothing of other policies: set learning_mode=Online first"
        )
    if settings.exploration <= 0:
        return "exploration is 0, so the log says nothing of what was not chosen: set exploration=0.02 or more first"
    if model_id is None:
        return "no model serves yet, so there is nothing to be better than: wait for the first one"
    return None


def window(settings: LoopSettings, now_us: TimeUs) -> tuple[TimeUs, TimeUs]:
    """Tell which decisions a run looks at.

    None from before the last change that matters to learning: what is found must be better than what serves now.

    Args:
        settings: of the loop.
        now_us: the time.

    Returns:
        The first moment, and the one after the last.
    """
    longest = max(WINDOW, settings.auto_optimization_frequency) // _MICROSECOND
    edited_us = (settings.last_configuration_edit - _EPOCH_START) // _MICROSECOND
    return max(0, now_us - longest, edited_us), now_us


def with_report(optimization: Optimization, report: Report) -> Optimization:
    """Write down what was found, and what is to be made of it.

    Args:
        optimization: one that searches.
        report: of its evaluation.

    Returns:
        The record: retained, refused, a dry run, or to be applied.
    """
    search = report.search
    assert search is not None, "a search was asked for"
    found = [result for result in report.overall() if result.source is PolicySource.OFFLINE_EXPERIMENTATION]
    best = next((result for result in found if result.name == search.promoted), None)
    arguments = "" if best is None else best.arguments or ""
    known = msgspec.structs.replace(
        optimization,
        seed=search.seed,
        tried=search.tried,
        judged=report.counts.judged,
        gate_from_us=search.gate_from_us,
        finalists=tuple(map(_finalist, found)),
        promoted=search.promoted,
        policy=arguments,
    )
    outcome = _outcome(report, arguments, dry_run=optimization.dry_run)
    return msgspec.structs.replace(known, state=outcome.state, why=outcome.why)


class Outcome(NamedTuple):
    """What is to be made of a run, and why."""

    state: OptimizationState
    why: str


def _outcome(report: Report, arguments: str, *, dry_run: bool) -> Outcome:
    search = report.search
    assert search is not None, "a search was asked for"
    if not report.trusted:
        return Outcome(OptimizationState.RETAINED, report.verdict)
    if not arguments:
        early = f" The search ended early: {search.stopped}." if search.stopped else ""
        return Outcome(OptimizationState.RETAINED, search.decision + early)
    try:
        parse_policy(arguments)
    except InvalidPolicy as error:
        return Outcome(OptimizationState.REFUSED, f"{search.decision} Its policy is not allowed: {error}")
    if dry_run:
        return Outcome(OptimizationState.TRIED, f"{search.decision} It was a dry run: nothing was changed.")
    return Outcome(OptimizationState.APPLYING, search.decision)


def _finalist(result: PolicyResult) -> Finalist:
    against = result.against_online
    return Finalist(
        name=result.name,
        arguments=result.arguments or "",
        difference=None if against is None else against.value,
        low=None if against is None else against.always.low,
        high=None if against is None else against.always.high,
        verdict=result.verdict.value,
    )


def objection(optimization: Optimization, asked_under: LoopSettings, loop: Loop) -> str | None:
    """Say why what was found must not be applied to a loop as it is now. None: it may be.

    Args:
        optimization: one that would be applied.
        asked_under: the loop's settings when its evaluation was asked for.
        loop: as it is now.
    """
    changed = changes(asked_under, loop.settings)
    if changed:
        return f"the loop was changed since the run began ({', '.join(changed)}), so what it found does not hold for it"
    if optimization.due_us is not None and not loop.settings.is_auto_optimization_enabled:
        return "automatic optimization was switched off since the run began"
    return obstacle(loop.settings, loop.model_id)


def in_force(optimization: Optimization, loop: Loop, epochs: Sequence[Epoch]) -> bool:
    """Tell whether a loop still is what a run made of it: same settings, and the model goes on from the one applied.

    Args:
        optimization: one that was applied.
        loop: as it is now.
        epochs: of the loop, those that are building or serving.
    """
    assert optimization.applied is not None, "it was applied"
    assert optimization.replaced is not None, "it replaced something"
    return (
        not changes(optimization.applied, loop.settings)
        and loop.forgotten_before == optimization.replaced.forgotten_before
        and goes_on_from(optimization.model_id, epochs)
    )


def goes_on_from(model_id: ModelId, epochs: Sequence[Epoch]) -> bool:
    """Tell whether what serves goes on from a version."""
    return any(epoch.base == model_id and epoch.state == "serving" for epoch in epochs)
