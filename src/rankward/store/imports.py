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
    node: str = ""  # the name of the one whose disk has the file; empty: the installation is embedded
    cancelled: bool = False  # whether it was asked to let it be

    @property
    def is_over(self) -> bool:
        """Whether nothing will be done about it any more."""
        return self.ended_us is not None


class Imports(Protocol):
    """The imports of one loop: on record for all nodes, each file on the disk of one. Changes are durable on return."""

    def add(self, wanted: LogImport, file: Path) -> None:
        """Add an import.

        Args:
            wanted: its key is not in use.
            file: on the same file system. It is moved away.

        Raises:
            Overloaded: too many are not over yet.
            StorageFull: there is no room.
            StoreUnavailable: it cannot be put on record now.
        """

    def listed(self) -> Sequence[LogImport]:
        """Return the imports of all nodes, newest first: those that are not over, and the last ones that are."""

    def unfinished(self) -> Sequence[LogImport]:
        """Return the imports that are not over and are this node's to run, oldest first."""

    def write(self, changed: LogImport) -> bool:
        """Write an import over the one of its key, unless that is over by now. When it is over its file is removed.

        Returns:
            Whether it was written.
        """

    def file(self, wanted: LogImport) -> Path | None:
        """Say where the file of an import lies. None: not on this disk."""

    def cancel(self, key: str) -> None:
        """Ask for an import to be let be, on whichever node. Whoever runs it sees to it.

        Raises:
            NotFound: there is none that is not over.
        """

    def is_wanted(self, key: str) -> bool:
        """Whether an import is not over, and nobody asked to let it be."""

    def tidy(self, *, before_us: TimeUs) -> None:
        """Remove the files on this disk whose import is over; those that came before a time and have none, too."""
