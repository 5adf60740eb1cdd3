"""What a loop's log holds: how many entries, and decisions from when to when."""

from __future__ import annotations

import msgspec

from rankward.records import AnyHeader, HeaderEntry, TimeUs
from rankward.store.ports import EventLog, JoinedLog

_FIRST_READ = 50  # entries: mostly one of them is a decision
_READ = 2_000  # at once at the most, after twice as many each time


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What a log holds now. Imported events have times of their own, which count for `entries` and `joined` alone."""

    entries: int  # of all kinds: decisions, rewards, activations, settings
    joined: int  # events that are joined with their rewards: these can be exported
    first_us: TimeUs | None  # of the oldest decision made here; None: there is none
    newest_us: TimeUs | None


async def holding(log: EventLog, joined: JoinedLog) -> Holding:
    """Look what a loop's log and its joined log hold, from both ends: what lies between is not read."""
    extent = await log.extent()
    joined_first, joined_end = await joined.extent()
    first_us = newest_us = None
    start, limit = extent.first, _FIRST_READ
    while first_us is None and start < extent.end and (entries := await log.read_headers(start, limit=limit)):
        first_us = next((entry.time_us for entry in entries if _decided(entry)), None)
        start, limit = entries[-1].offset + 1, min(2 * limit, _READ)
    end, limit = extent.end, _FIRST_READ
    while first_us is not None and newest_us is None:
        begin = max(extent.first, end - limit)
        found = [entry for entry in await log.read_headers(begin, limit=end - begin) if entry.offset < end]
        newest_us = next((entry.time_us for entry in reversed(found) if _decided(entry)), None)
        if begin == extent.first:
            break
        end, limit = begin, min(2 * limit, _READ)
    return Holding(
        entries=extent.end - extent.first, joined=joined_end - joined_first, first_us=first_us, newest_us=newest_us
    )


def _decided(entry: HeaderEntry) -> bool:
    return isinstance(entry.record, AnyHeader)
