"""Studies: questions put to a loop's log whose answers take minutes, and what became of them.

The record of a study is written to disk, so a new field has a default and an old one keeps its meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rankward.records import Offset, TimeUs
from rankward.settings import LoopSettings


class StudyKind(enum.StrEnum):
    """What is asked."""

    EVALUATION = "evaluation"  # what policies would have earned
    IMPORTANCE = "importance"  # what each feature is worth
    SHARE = "share"  # a share of the policies of one of those, for any worker to judge: nobody asks for one


class StudyState(enum.StrEnum):
    """How far a study has come."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed out"

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in {StudyState.WAITING, StudyState.RUNNING}


class AskedPolicy(msgspec.Struct, frozen=True):
    """A policy that whoever asked wants judged."""

    name: str
    arguments: str  # as they were sent


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its state. What was found is kept beside it."""

    key: str  # 32 hex digits, never used again
    kind: StudyKind
    loop_id: str
    study_id: str  # by which callers know it: one of its kind in a loop
    name: str
    created_us: TimeUs
    start_us: TimeUs  # decisions before it are left out
    end_us: TimeUs  # and those at or after it
    settings: LoopSettings  # of the loop when it was asked
    forgotten_before: Offset  # of the loop when it was asked
    time_limit_s: float
    policies: tuple[AskedPolicy, ...] = ()
    searches: bool = False  # whether better policies are to be looked for
    state: StudyState = StudyState.WAITING
    attempts: int = 0  # at running it
    joined_end: Offset | None = None  # joined events from then on are left out; None: no attempt has been made yet
    interrupted: int = 0  # of those, how many were stopped on purpose
    description: str = ""  # why it failed, or what was asked and not done; for people
    optimal: str = ""  # name of the policy to take; empty: none is known
    applied: tuple[LoopSettings, ...] = ()  # what the loop was set to by applying what was found
    automatic: bool = False  # whether an automatic optimization asked
    concluded: bool = False  # whether that has decided on what was found
    holder: str = ""  # name of the node that runs it, where there are many
    joined_start: Offset | None = None  # joined events before are left out; None: as `joined_end`
    share_of: str = ""  # key of the study that this is a share of; empty: it is none
    share: bytes = b""  # what the share is: MessagePack of `evaluation.sharing.Share`


class Studies(Protocol):
    """The studies of all loops. Every change is durable on return, and atomic."""

    def add(self, study: Study, *, waiting_max: int) -> None:
        """Put a study at the end of the queue.

        Args:
            study: one that waits.
            waiting_max: how many may be unfinished beside it, in all loops. Shares do not count.

        Raises:
            Conflict: its loop has one of its kind under its id.
            Overloaded: too many are unfinished.
        """

    def find(self, loop_id: str, kind: StudyKind, study_id: str) -> Study | None:
        """Return a study. None: there is none."""

    def by_key(self, key: str) -> Study | None:
        """Return a study by its key. None: it is gone."""

    def listed(self, loop_id: str, kind: StudyKind) -> Sequence[Study]:
        """Return the studies of one kind in a loop, oldest first."""

    def unfinished(self) -> Sequence[Study]:
        """Return the studies of all loops that wait or run, shares too, in the order in which they were asked."""

    def write(self, study: Study, *, found: bytes | None = None) -> bool:
        """Write a study over the one of its key, and what was found beside it.

        Returns:
            Whether it was written. It is not where the study is gone, or was begun once more meanwhile (its
            `attempts` are more): whoever wrote is late.
        """

    def begin(self, study: Study) -> bool:
        """Write a study whose next attempt is about to begin.

        Returns:
            Whether it may. It may not where the study is gone, or somebody else has begun this attempt.
        """

    def found(self, key: str) -> bytes | None:
        """Return what was found. None: nothing was, or the study is gone."""

    def delete(self, loop_id: str, kind: StudyKind, study_id: str) -> Study | None:
        """Remove a study with what was found. Returns it; None: there was none."""

    def close(self) -> None:
        """Let go of the files."""
