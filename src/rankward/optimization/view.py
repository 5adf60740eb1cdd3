"""What is shown of a loop's optimizations."""

from __future__ import annotations

import msgspec

from rankward.records import ModelId, TimeUs
from rankward.store.optimizations import Finalist, Optimization, OptimizationState, Step, Watched


class NewOptimization(msgspec.Struct, frozen=True, kw_only=True):
    """A run that somebody asks for."""

    dry_run: bool = False  # whether to do all but apply what is found


class ReplacedView(msgspec.Struct, frozen=True, kw_only=True):
    """What served before a policy was applied."""

    policy: str
    preset: str | None  # None: a policy of its own
    exploration: float
    model_id: ModelId


class OptimizationView(msgspec.Struct, frozen=True, kw_only=True):
    """A run."""

    optimization_id: str
    state: OptimizationState
    why: str  # of the state
    created_us: TimeUs
    ended_us: TimeUs | None  # None: it goes on
    due_us: TimeUs | None  # when it was due by the schedule; None: somebody asked for it
    dry_run: bool
    start_us: TimeUs  # decisions from then on were looked at
    end_us: TimeUs  # and none from then on
    evaluation_id: str | None  # None: none was asked for
    seed: int | None  # that the policies to try were drawn with
    tried: int  # policies, the loop's own among them
    judged: int  # decisions that could judge them
    gate_from_us: TimeUs | None  # finalists are judged by decisions from then on, which had no say in their choice
    finalists: tuple[Finalist, ...]
    promoted: str | None  # the finalist that is better beyond doubt; None: none is
    policy: str | None  # its arguments
    applied_us: TimeUs | None  # None: nothing was applied
    model_id: ModelId | None  # of the version that was applied
    replaced: ReplacedView | None
    watched: Watched | None  # how what was applied does beside what it replaced
    steps: tuple[Step, ...]  # its history, oldest first


class OptimizationHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A loop's optimizations."""

    next_us: TimeUs | None  # when the next one is due; None: automatic optimization is off
    obstacle: str | None  # why it could not be begun now; None: it could, as far as settings and model go
    runs: tuple[OptimizationView, ...]  # newest first


def view(run: Optimization, watched: Watched | None = None) -> OptimizationView:
    """Show a run.

    Args:
        run: its record.
        watched: the newest figures of its watch; None: those on record are.
    """
    replaced = run.replaced
    return OptimizationView(
        optimization_id=run.optimization_id,
        state=run.state,
        why=run.why,
        created_us=run.created_us,
        ended_us=run.ended_us or None,
        due_us=run.due_us,
        dry_run=run.dry_run,
        start_us=run.start_us,
        end_us=run.end_us,
        evaluation_id=run.study_id or None,
        seed=run.seed,
        tried=run.tried,
        judged=run.judged,
        gate_from_us=run.gate_from_us or None,
        finalists=run.finalists,
        promoted=run.promoted or None,
        policy=run.policy or None,
        applied_us=run.applied_us or None,
        model_id=run.model_id if run.applied is not None else None,
        replaced=None
        if replaced is None or run.applied is None
        else ReplacedView(
            policy=replaced.settings.policy,
            preset=replaced.settings.preset,
            exploration=replaced.settings.exploration,
            model_id=replaced.model_id,
        ),
        watched=run.watched or watched,
        steps=run.steps,
    )
