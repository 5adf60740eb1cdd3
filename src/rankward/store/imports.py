"""Files that were sent to be imported into a loop, with what became of each."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from rankward.ranking.features import FeatureBounds
from rankward.records import TimeUs
from rankward.settings import Limits
from rankward.store.audit import Actor


class ImportState(enum.StrEnum):
    """What there is to say of an import."""

    WAITING = "waiting"  # for its process, at first or again
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LogImport(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent, and the import of it."""

    key: str  # rises with time
    name: str  # of the file, without folders
    size_bytes: int
    created_us: TimeUs
    actor: Actor
    trains: bool  # whether a new epoch is to learn from all of it
    limits: Limits
    bounds: FeatureBounds
    state: ImportState = ImportState.WAITING
    attempts: int = 0  # that were begun and not stopped on purpose
    description: str = ""  # what became of it, or of the attempt before, for people
    ended_us: TimeUs | None = None  # None: it goes on

    @property
    def is_over(self) -> bool:
        """Whether nothing will be done about it any more."""
        return self.ended_us is not None


class Imports(Protocol):
    """The imports of one loop. Every change is durable on return."""

    def add(self, wanted: LogImport, file: Path) -> None:
        """Add an import.

        Args:
            wanted: its key is not in use.
            file: on the same file system. It is moved away.

        Raises:
            Overloaded: too many are not over yet.
            StorageFull: there is no room.
        """

    def listed(self) -> Sequence[LogImport]:
        """Return the imports, newest first: those that are not over, and the last ones that are."""

    def unfinished(self) -> Sequence[LogImport]:
        """Return the imports that are not over, oldest first."""

    def write(self, changed: LogImport) -> None:
        """Write an import over the one of its key. When it is over its file is removed."""

    def file(self, key: str) -> Path:
        """Say where the file of an import lies that is not over.

        Raises:
            NotFound: there is none.
        """

    def cancel(self, key: str) -> None:
        """Ask for an import to be let be. Whoever runs it sees to it.

        Raises:
            NotFound: there is none that is not over.
        """

    def is_cancelled(self, key: str) -> bool:
        """Whether that was asked."""
