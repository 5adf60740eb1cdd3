"""An event log that goes on while the servers are away: what they cannot take is kept in the node's folder.

Only where a loop's setting says so. What waits is an event log of its own, flushed before anybody is told, and shared
by the processes of the node. One of them sends it when the servers are back: at least once, and counted once, because
interactions are appended `once` and reports bear a name.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rankward.errors import StorageFull, StoreUnavailable
from rankward.records import (
    Activation,
    AnyInteraction,
    AppendResult,
    Known,
    LogEntry,
    Observation,
    Offset,
    Record,
    TimeUs,
)
from rankward.store.nats.broker import Broker
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.sqlite.codec import to_row
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.folder import FileMark
from rankward.store.sqlite.segments import REPEAT_GRACE_US

logger = logging.getLogger(__name__)

SPOOL_RECORDS = 1_000_000
"""So many records of a loop may wait on a node before it answers 507."""
_TOGETHER = 512
_AT_ONCE = SealPolicy(entries=1, age_us=0)  # what was sent is dropped as soon as it can be


class Spool:
    """What waits on this node for the servers, of one loop. Its processes share it, one of them sends."""

    def __init__(self, folder: Path, *, clock: Callable[[], TimeUs], pending_appends: int) -> None:
        """Look at it. Nothing is opened before something is to wait.

        Args:
            folder: for this alone.
            clock: the time, in microseconds since 1970.
            pending_appends: how many records may wait for the disk in this process.
        """
        self._folder = folder
        self._clock = clock
        self._pending_appends = pending_appends
        self._waiting = FileMark(folder / "waiting.mark")  # read at every call, and so in mapped memory
        self._sent = FileMark(folder / "sent.mark")
        self._log: SqliteEventLog | None = None

    @property
    def waits(self) -> bool:
        """Whether something waits: what comes then waits, too, so that the order is kept."""
        return self._waiting.get() is not None

    def _opened(self) -> SqliteEventLog:
        if self._log is None:
            self._log = SqliteEventLog(
                self._folder / "records", clock=self._clock, pending_appends=self._pending_appends, seal=_AT_ONCE
            )
        return self._log

    async def recover(self) -> None:
        """Look whether something waits though the mark does not say so: a power failure may have taken the mark."""
        if (self._folder / "records").exists():
            extent = await self._opened().extent()
            if extent.end > max(extent.first, self._sent.get() or 0):
                self._waiting.set(0)

    async def put(self, records: Sequence[Record], *, once: bool) -> Sequence[AppendResult]:
        """Let records wait, durably.

        Raises:
            StorageFull: too many do, or there is no room on the disk.
            Overloaded: too many wait for the disk.
        """
        log = self._opened()
        if (await log.extent()).end - (self._sent.get() or 0) + len(records) > SPOOL_RECORDS:
            raise StorageFull(
                f"{SPOOL_RECORDS:,} records of this loop wait on this node for the JetStream servers, which is the "
                "bound: bring the servers back"
            )
        results = await log.append(records, once=once)
        # After the records: whoever finds the mark and nothing that waits takes it away, but not the other way round.
        self._waiting.set(0)
        return results

    async def read(self) -> Sequence[LogEntry]:
        """Return what is to be sent next, in order."""
        return await self._opened().read(self._sent.get() or 0, limit=_TOGETHER)

    def sent(self, end: Offset) -> None:
        """Note that what stands before this is with the servers."""
        self._sent.set(end)

    async def settle(self) -> None:
        """Drop what was sent, and say that nothing waits, unless something has come meanwhile."""
        log, sent = self._opened(), self._sent.get() or 0
        for _ in range(2):  # the first time seals what the second drops
            await log.maintain(joined_before=sent, keep_after_us=1 << 62)
        self._waiting.clear()
        if (await log.extent()).end > sent:
            self._waiting.set(0)

    async def close(self) -> None:
        """Let go of the files."""
        if self._log is not None:
            await self._log.close()


class SpoolingEventLog(ReplicatedEventLog):
    """An event log that takes decisions, rewards and activations while the servers are away, where that is wanted."""

    def __init__(
        self,
        broker: Broker,
        loop_id: str,
        replica: SqliteEventLog,
        *,
        spool: Spool,
        wanted: Callable[[], bool],
        clock: Callable[[], TimeUs],
        pending_appends: int = 4_096,
    ) -> None:
        """Make it: see `ReplicatedEventLog`.

        Args:
            broker: the connection.
            loop_id: of the loop.
            replica: in this node's folder.
            spool: where records wait. It is closed with this log.
            wanted: whether they are to. Asked at every call.
            clock: the time, in microseconds since 1970.
            pending_appends: how many records may wait in this process.
        """
        super().__init__(broker, loop_id, replica, clock=clock, pending_appends=pending_appends)
        self.spool = spool
        self._connection = broker.client
        self._is_wanted = wanted
        self._now = clock

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """See `ports.EventLog`. While the servers are away, what is answered may have been kept on this node only."""
        if not self._is_wanted() or not all(map(_may_wait, records)):
            return await super().append(records, once=once)
        records = [_named(record) for record in records]
        if not self.spool.waits and self._connection.is_connected:
            try:
                return await super().append(records, once=once)
            except StoreUnavailable as error:
                logger.warning("decisions and rewards wait on this node: %s", error)
        return await self._put_aside(records, once=once)

    async def _put_aside(self, records: Sequence[Record], *, once: bool) -> Sequence[AppendResult]:
        known: list[LogEntry | None] = [None] * len(records)
        if once:
            asked = [number for number, record in enumerate(records) if isinstance(record, AnyInteraction)]
            rows = [to_row(records[number]) for number in asked]
            found = await self.replica.find(rows, ended_us=self._now() - REPEAT_GRACE_US)
            for number, entry in zip(asked, found, strict=True):
                known[number] = entry
        new = [record for record, entry in zip(records, known, strict=True) if entry is None]
        put = iter(await self.spool.put(new, once=once) if new else ())
        return [next(put) if entry is None else Known(entry) for entry in known]

    async def send(self) -> None:
        """Send what waits. One process of a node at a time.

        Raises:
            StoreUnavailable: the servers are still away. What they have not taken goes on waiting.
        """
        while entries := await self.spool.read():
            records = [entry.record for entry in entries]
            decisions = [
                msgspec.structs.replace(each, repeats=False) for each in records if isinstance(each, AnyInteraction)
            ]
            others = [each for each in records if not isinstance(each, AnyInteraction)]
            # Decisions first: a reward may as well come later, but not before what it is about.
            for some, once in ((decisions, True), (others, False)):
                if some:
                    await super().append(some, once=once)
            self.spool.sent(entries[-1].offset + 1)
            logger.info("%d records that waited on this node are with the servers", len(entries))
        await self.spool.settle()

    async def close(self) -> None:
        """See `ports.EventLog`."""
        await super().close()
        await self.spool.close()


def _may_wait(record: Record) -> bool:
    return isinstance(record, AnyInteraction | Observation | Activation)


def _named(record: Record) -> Record:
    """Give a report a name: it may be sent twice, when it is not known whether the servers have it, and counts once."""
    if isinstance(record, Observation) and record.report is None:
        return msgspec.structs.replace(record, report=uuid.uuid4().hex)
    return record
