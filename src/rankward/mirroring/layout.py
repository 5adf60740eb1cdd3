"""Where a mirrored log has its lines: the names that Personalizer gave its blobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import msgspec

from rankward.records import JoinedEvent, Offset
from rankward.settings import as_datetime

DATA = "data"
SKIPPED = "skipped-data"
"""Of events that are never learned: deferred, and never activated."""


class Chunk(msgspec.Struct, frozen=True):
    """A stretch of the joined log whose lines go into one blob of each kind."""

    start: Offset
    end: Offset
    folder: str  # of its blobs: see `folder_name`
    day: date  # on which it was joined
    index: int  # of its blobs, on that day and in that folder


class Progress(msgspec.Struct, frozen=True):
    """How far a log is mirrored. Written before a chunk is sent and after it: what is sent twice is sent alike."""

    target: str  # digest of where it goes
    offset: Offset  # the next joined event
    sent: Chunk | None = None  # the last one; None: there has been none
    sending: Chunk | None = None  # may have been sent, wholly or in part


def next_chunk(progress: Progress, events: Sequence[JoinedEvent], end: Offset, *, edited: datetime) -> Chunk:
    """Cut the events that go into the next blob: they were joined on one day.

    Args:
        progress: with nothing being sent.
        events: what follows in the joined log, at least one.
        end: the offset that reading them went to.
        edited: when a setting that matters to training last changed.
    """
    day, folder = joined_on(events[0]), folder_name(edited)
    later = next((event.offset for event in events if joined_on(event) != day), end)
    sent = progress.sent
    index = sent.index + 1 if sent is not None and (sent.folder, sent.day) == (folder, day) else 0
    return Chunk(progress.offset, later, folder, day, index)


def joined_on(event: JoinedEvent) -> date:
    """The day on which an event was joined, in UTC."""
    return as_datetime(event.entry.due_us).date()


def folder_name(edited: datetime) -> str:
    """Name the folder of everything that is mirrored under the same settings.

    >>> folder_name(datetime(1, 1, 1))
    '00010101000000'
    """
    return f"{edited.year:04d}{edited:%m%d%H%M%S}"  # `%Y` leaves out the zeros of the year 1


def blob_name(chunk: Chunk, kind: str) -> str:
    """Name a blob.

    Args:
        chunk: what is in it.
        kind: `DATA` or `SKIPPED`.

    >>> blob_name(Chunk(0, 9, "20260115120000", date(2026, 1, 16), 3), DATA)
    '20260115120000/data/2026/01/16_0000000003.json'
    """
    return f"{chunk.folder}/{kind}/{chunk.day:%Y/%m/%d}_{chunk.index:010d}.json"
