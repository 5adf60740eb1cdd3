"""What may be asked of the place where a loop's figures are kept: rows by series and place, and how far they go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from rankward.records import Offset


class Place(NamedTuple):
    """Where a row stands."""

    series: str
    at: int  # within the series; of those over time: when the stretch begins, in microseconds since 1970


class Row(NamedTuple):
    """A row as its writer encoded it."""

    body: bytes
    newest: Offset  # of the joined events in it, in the joined log


class RollupStep(msgspec.Struct, frozen=True, kw_only=True):
    """What one step changes, all of it or nothing. Rows go before others are written."""

    over: bytes | None  # the state that the step began from; None: there was none
    state: bytes
    rows: Mapping[Place, Row] = {}
    drop: Mapping[str, int] = {}  # by series: rows at places below go
    forget_from: Offset | None = None  # rows that hold this joined event or a newer one go; None: none does


class Rollups(Protocol):
    """Figures of one loop, taken from its joined log: they can be lost, and are then taken again.

    One process writes, any number read, and none of them waits for another. Reading costs by the rows that are
    read, however long the log and the series are.
    """

    def state(self) -> bytes | None:
        """Return the state of the last step. None: there has been none, or what there was could not be read."""

    def get(self, places: Collection[Place]) -> Mapping[Place, bytes]:
        """Return the bodies of the rows at these places. Those that are not there are left out."""

    def read(self, series: str, start: int, end: int) -> Sequence[tuple[int, bytes]]:
        """Return the rows of a series from `start` on and below `end`, ascending, each with its place."""

    def newest(self, series: str, *, limit: int) -> Sequence[tuple[int, bytes]]:
        """Return the last rows of a series, ascending, each with its place."""

    def commit(self, step: RollupStep) -> None:
        """Write a step as a whole. After a loss of power, the newest steps may be gone, one after the other.

        Raises:
            Conflict: another process has committed since the state that the step began from; nothing of it was written.
            StorageFull, StoreUnavailable: nothing of it was written.
        """

    def close(self) -> None:
        """Let go of the file."""
