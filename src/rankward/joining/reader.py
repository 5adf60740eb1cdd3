"""Reads joined events whole: the joined log's references, with the interactions they refer to."""

from __future__ import annotations

from rankward.records import AnyInteraction, JoinedEvent, Offset, interactions
from rankward.store.ports import EventLog, JoinedLog

_STRAY = 4  # read a stretch in one go if at least one in so many of its entries is wanted


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
    for first, last in _stretches(wanted):
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


def _stretches(wanted: list[Offset]) -> list[tuple[Offset, Offset]]:
    """Cover ascending offsets by few stretches without reading much that is not wanted."""
    stretches: list[tuple[Offset, Offset]] = []
    first = last = wanted[0]
    count = 1
    for offset in wanted[1:]:
        if offset - first + 1 > (count + 1) * _STRAY + 64:
            stretches.append((first, last))
            first, count = offset, 0
        last = offset
        count += 1
    stretches.append((first, last))
    return stretches
