"""Challengers: policies that learn from a loop's log in the background, and never serve.

The record of a challenger is written to disk, so a new field has a default and an old one keeps its meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rankward.records import TimeUs
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch, SetAside

CHALLENGERS_MAX = 5
"""As many may somebody ask for in a loop: each learns everything that is learned."""


class ChallengerKind(enum.StrEnum):
    """Why there is one."""

    ASKED = "asked"  # somebody wants to know how it does
    YOUNGER = "younger"  # a younger model of the loop's own policy, which may take over by itself


class ChallengerState(enum.StrEnum):
    """Whether a challenger goes on."""

    RUNNING = "running"
    FAILED = "failed"


class Challenger(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that is compared with the one that serves. How far it is, is kept beside it."""

    key: str  # 32 hex digits, never used again
    loop_id: str
    name: str  # one of its kind in a loop
    created_us: TimeUs
    preset: str | None  # that its policy is; None: none's
    exploration: float | None  # its own; None: the loop's, whatever it is
    settings: LoopSettings  # of the loop, under which it is judged
    epoch: Epoch  # what it learns, and how; its number is 0
    judged_from_us: TimeUs  # decisions before it are not judged
    kind: ChallengerKind = ChallengerKind.ASKED
    state: ChallengerState = ChallengerState.RUNNING
    description: str = ""  # why it failed, or was begun anew; for people

    @property
    def floor(self) -> float:
        """The exploration that it would serve with."""
        return self.settings.exploration if self.exploration is None else self.exploration


class Challengers(Protocol):
    """The challengers of all loops. Every change is durable on return, and atomic."""

    def add(self, challenger: Challenger) -> None:
        """Add a challenger to its loop.

        Raises:
            Conflict: the loop has one of that name, or as many as may be asked for.
        """

    def listed(self, loop_id: str) -> Sequence[Challenger]:
        """Return the challengers of a loop, oldest first."""

    def write(self, challenger: Challenger, *, progress: bytes | None = None) -> bool:
        """Write a challenger over the one of its key, with how far it is. Without, that is forgotten.

        Returns:
            Whether it was written. It is not where the challenger is gone.
        """

    def progress(self, key: str) -> bytes | None:
        """Return how far a challenger is. None: it has not begun, or is gone."""

    def delete(self, key: str) -> bool:
        """Remove a challenger with all that is kept of it. Returns whether it was there."""

    def set_aside(self, key: str, event: SetAside) -> None:
        """Record an event that a challenger passes over, alone. Recording it again changes nothing."""

    def set_asides(self, key: str) -> Sequence[SetAside]:
        """Return the events that a challenger passes over beside those that its loop does, oldest first."""

    def close(self) -> None:
        """Let go of the files."""
