"""The joined log of a span of time as a file: log lines, or Parquet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import IO, Protocol

import msgspec

from rankward.dsjson.write import write_line
from rankward.joining.reader import first_due, read_joined
from rankward.joining.reward import RewardDefinition
from rankward.records import JoinedEvent, TimeUs
from rankward.store.ports import EventLog, JoinedLog
from rankward.vw.bins import Binner

_READ = 2_000


class Sink(Protocol):
    """What events are written to."""

    def write(self, events: Sequence[JoinedEvent]) -> None:
        """Write events, after those before."""

    def close(self) -> None:
        """Write what ends the file. The file itself stays open."""


class LineSink:
    """Writes events as log lines. Implements `Sink`."""

    def __init__(self, file: IO[bytes], definition: RewardDefinition, binner: Binner | None = None) -> None:
        """Prepare.

        Args:
            file: to write to.
            definition: of the reward that the lines state.
            binner: writes intervals beside numbers; None: features are written as they came.
        """
        self._file = file
        self._definition = definition
        self._binner = binner

    def write(self, events: Sequence[JoinedEvent]) -> None:
        """See `Sink`."""
        if self._binner is not None:
            seen = self._binner.interaction
            events = [JoinedEvent(event.offset, event.entry, seen(event.interaction)) for event in events]
        self._file.write("".join([write_line(event, self._definition) + "\n" for event in events]).encode())

    def close(self) -> None:
        """See `Sink`."""


class Exported(msgspec.Struct, kw_only=True):
    """How far an export is."""

    read: int = 0  # joined events looked at
    total: int  # to look at
    written: int = 0


async def export(
    log: EventLog,
    joined: JoinedLog,
    sink: Sink,
    *,
    since_us: TimeUs | None = None,
    until_us: TimeUs | None = None,
    told: Callable[[Exported], None] = lambda _: None,
) -> Exported:
    """Write the events that are joined now, in the order of their joining.

    Args:
        log: the loop's event log.
        joined: its joined log.
        sink: where to.
        since_us: decisions before this time are left out; None: they are not.
        until_us: decisions at this time or later are left out; None: they are not.
        told: is told how far it is, every few thousand events.
    """
    state = Exported(total=0)
    async for wanted, state.read, state.total in stretches_within(log, joined, since_us=since_us, until_us=until_us):
        sink.write(wanted)
        state.written += len(wanted)
        told(state)
    sink.close()
    return state


async def stretches_within(
    log: EventLog, joined: JoinedLog, *, since_us: TimeUs | None, until_us: TimeUs | None
) -> AsyncIterator[tuple[list[JoinedEvent], int, int]]:
    """Read the events that are joined now, in the order of their joining, at most some thousands at once.

    Args:
        log: the loop's event log.
        joined: its joined log.
        since_us: decisions before this time are left out; None: they are not.
        until_us: decisions at this time or later are left out; None: they are not.

    Yields:
        Events, how many joined events were looked at so far, and how many there are to look at.
    """
    first, end = await joined.extent()
    start = first if since_us is None else await first_due(joined, since_us)
    offset = start
    while offset < end:
        events, following = await read_joined(log, joined, offset, limit=min(_READ, end - offset))
        if following == offset:
            break
        offset = following
        yield (
            [event for event in events if _within(event.entry.time_us, since_us, until_us)],
            offset - start,
            end - start,
        )


def _within(time_us: TimeUs, since_us: TimeUs | None, until_us: TimeUs | None) -> bool:
    return (since_us is None or time_us >= since_us) and (until_us is None or time_us < until_us)
