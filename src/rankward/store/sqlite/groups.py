"""Groups of appends, as a stream brings them to an event log: what one message of a cluster's stream holds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rankward.records import TimeUs
from rankward.store.sqlite.codec import Row


class Requested(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one call of `append` asked for."""

    once: bool
    rows: tuple[Row, ...]


class Group(msgspec.Struct, frozen=True):
    """Appends that were made durable together, and share a time."""

    sequence: int  # in the stream
    time_us: TimeUs  # that the stream gave
    requests: Sequence[Requested]
