"""Reads joined events whole: the joined log's references, with the interactions they refer to."""

from __future__ import annotations

from rankward.records import AnyInteraction, JoinedEvent, Offset, interactions
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
    wanted = sorted(entry.interaction for _, entry in entries)
    found: dict[Offset, AnyInteraction] = {}
    for first, last in stretches(wanted):
        position = first
        while position <= last:
            stretch = await log.read(position, limit=last - position + 1)
            if not stretch or stretch[0].offset > last:
                break
            found.update({entry.offset: record for entry, record in interactions(stretch)})
            position = stretch[-1].offset + 1
    events = [
        JoinedEvent(offset, entry, found[entry.interaction]) for offset, entry in entries if entry.interaction in found
    ]
    return events, entries[-1][0] + 1
