"""Automatic optimizations: what each run of a loop found, what was made of it, and what came of that.

The record of a run is written to disk, so a new field has a default and an old one keeps its meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rankward.records import ModelId, Offset, TimeUs
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch


class OptimizationState(enum.StrEnum):
    """How far a run has come."""

    SEARCHING = "searching"  # its evaluation waits or runs
    APPLYING = "applying"  # a better policy was found, and is on its way to the loop
    WATCHING = "watching"  # the policy is the loop's, and is compared with the one that it replaced
    RETURNING = "rolling back"  # it is worse beyond doubt, and the replaced one is on its way back
    SKIPPED = "skipped"  # there was nothing to search, or nothing to judge by
    FAILED = "failed"  # its evaluation came to no end
    RETAINED = "retained"  # no policy is better beyond doubt
    TRIED = "dry run"  # one is, and was to be left where it is
    REFUSED = "refused"  # one is, and must not be applied
    CONFIRMED = "confirmed"  # applied, and better than the replaced one beyond doubt since
    KEPT = "kept"  # applied; the watch ended without telling the two apart
    SUPERSEDED = "superseded"  # applied; the loop was changed by somebody else before the watch ended
    ROLLED_BACK = "rolled back"  # applied, worse than the replaced one beyond doubt, and undone

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of the run."""
        return self not in _UNFINISHED


_UNFINISHED = frozenset(
    {
        OptimizationState.SEARCHING,
        OptimizationState.APPLYING,
        OptimizationState.WATCHING,
        OptimizationState.RETURNING,
    }
)


class Finalist(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that a run found, judged by decisions that had no say in its choice."""

    name: str
    arguments: str
    difference: float | None  # of its mean reward to that of the policy that acted; None: no decision judges it
    low: float | None  # bounds of the difference, at every look
    high: float | None
    verdict: str


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """What served before a policy was applied."""

    settings: LoopSettings
    model_id: ModelId
    epoch: Epoch  # that went on learning it
    forgotten_before: Offset  # of the loop


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """How the policy that was applied does beside the one that it replaced."""

    events: int  # decisions that compare them
    difference: float | None  # of the applied policy's mean reward to the replaced one's; None: no decision yet
    low: float  # bounds of the difference, at every look
    high: float
    time_us: TimeUs  # of this figure
    until_us: TimeUs  # the watch ends then at the latest


class Step(msgspec.Struct, frozen=True):
    """Something that happened to a run."""

    time_us: TimeUs
    what: str  # for people


class Optimization(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a search of the log, the decision on what it found, and the watch over what was applied."""

    optimization_id: str  # 12 hex digits
    loop_id: str
    created_us: TimeUs
    due_us: TimeUs | None  # when it was due by the schedule; None: somebody asked for it
    dry_run: bool  # whether all but the application was wanted
    start_us: TimeUs  # decisions before it are left out
    end_us: TimeUs  # and those at or after it
    state: OptimizationState = OptimizationState.SEARCHING
    why: str = ""  # of the state, for people
    study_id: str = ""  # of its evaluation; empty: none was asked for
    asked: bool = False  # whether the evaluation is in the queue, or was
    seed: int | None = None  # that the policies to try were drawn with; None: nothing was tried
    tried: int = 0  # policies, the loop's own among them
    judged: int = 0  # decisions of the span that could judge policies
    gate_from_us: TimeUs = 0  # finalists are judged by decisions from then on
    finalists: tuple[Finalist, ...] = ()
    promoted: str = ""  # the finalist that is better beyond doubt; empty: none is
    policy: str = ""  # its arguments
    replaced: Replaced | None = None  # None: nothing was applied
    keeps_replaced: bool = False  # whether the version that served before must not be pruned
    applied: LoopSettings | None = None  # what the application set the loop to; None: nothing was applied
    applied_us: TimeUs = 0
    watched: Watched | None = None  # None: there was no watch, or it has not come to anything yet
    ended_us: TimeUs = 0  # 0: it goes on
    steps: tuple[Step, ...] = ()  # its history, oldest first

    @property
    def model_id(self) -> ModelId:
        """The version that it serves, if it applies anything."""
        return f"optimized-{self.optimization_id}"

    @property
    def restored_model_id(self) -> ModelId:
        """The version that it serves, if it undoes what it applied."""
        return f"restored-{self.optimization_id}"


class Optimizations(Protocol):
    """The runs of all loops. Every change is durable on return, and atomic. Only the worker writes over a record."""

    def add(self, optimization: Optimization) -> None:
        """Put a run on record.

        Raises:
            Conflict: it is to go on, and another of its loop has not finished.
        """

    def write(self, optimization: Optimization) -> bool:
        """Write a run over the one of its id. Returns whether it was there: its loop may have been deleted."""

    def find(self, loop_id: str, optimization_id: str) -> Optimization | None:
        """Return a run. None: there is none."""

    def listed(self, loop_id: str) -> Sequence[Optimization]:
        """Return the runs of a loop, newest first."""

    def unfinished(self) -> Sequence[Optimization]:
        """Return the runs of all loops that go on."""

    def close(self) -> None:
        """Let go of the files."""
