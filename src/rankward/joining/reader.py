"""Reads joined events whole: the joined log's references, with the interactions they refer to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rankward.records import AnyInteraction, History, JoinedEntry, JoinedEvent, LogEntry, Offset, TimeUs
from rankward.store.ports import EventLog, JoinedLog
from rankward.store.stretches import stretches


async def read_joined(
    log: EventLog, joined: JoinedLog, start: Offset, *, limit: int
) -> tuple[list[JoinedEvent], Offset]:
    """Read the joined events from an offset on.

    Returns:
        The events, in order, and the offset to go on from. Entries whose interactions have been deleted are
        passed over.
    """
    entries = await joined.read(start, limit=limit)
    if not entries:
        return [], start
    return await resolve(log, entries), entries[-1][0] + 1


async def resolve(log: EventLog, entries: Sequence[tuple[Offset, JoinedEntry]]) -> list[JoinedEvent]:
    """Put the interactions to entries of the joined log. Those whose interactions have been deleted are passed over."""
    wanted = sorted(entry.interaction for _, entry in entries)
    found: dict[Offset, AnyInteraction] = {}
    for first, last in stretches(wanted):
        position = first
        while position <= last:
            stretch = await log.read(position, limit=last - position + 1)
            if not stretch or stretch[0].offset > last:
                break
            found.update(_interactions(stretch))
            position = stretch[-1].offset + 1
    return [
        JoinedEvent(offset, entry, found[entry.interaction]) for offset, entry in entries if entry.interaction in found
    ]


async def first_due(joined: JoinedLog, since_us: TimeUs) -> Offset:
    """Find the first joined event whose wait was over at a time or later: no decision of later stands before it."""
    low, high = await joined.extent()
    while low < high:
        middle = (low + high) // 2
        entries = await joined.read(middle, limit=1)
        if entries and entries[0][1].due_us < since_us:
            low = middle + 1
        else:
            high = middle
    return low


def _interactions(stretch: Sequence[LogEntry]) -> Iterator[tuple[Offset, AnyInteraction]]:
    """Pick the interactions out of a stretch of the log, those of imported events too."""
    for entry in stretch:
        record = entry.record.interaction if isinstance(entry.record, History) else entry.record
        if isinstance(record, AnyInteraction):
            yield entry.offset, record
