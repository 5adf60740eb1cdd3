"""The joined log of one loop in a cluster: every node joins its own, and forgets at the same place of the stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rankward.records import EventId, JoinedEntry, Offset
from rankward.store.nats.broker import Broker
from rankward.store.nats.events import Commands, EventStream
from rankward.store.ports import JoinState, JoinStep, Match, Unmatched
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog


class ReplicatedJoinedLog:
    """Implements `ports.JoinedLog` on this node's own.

    All nodes join the same, since the event log is all that it follows from. Only what is to be forgotten is told them.
    """

    def __init__(self, broker: Broker, loop_id: str, own: SqliteJoinedLog, replica: SqliteEventLog) -> None:
        """Make it.

        Args:
            broker: the connection.
            loop_id: of the loop.
            own: in this node's folder. It is closed with this log.
            replica: of the event log. It is closed with this log, too.
        """
        self.own = own
        self._replica = replica
        self._commands = Commands(EventStream(broker, loop_id), replica)

    async def state(self) -> JoinState:
        """See `ports.JoinedLog`."""
        return await self.own.state()

    async def early(self) -> Sequence[Unmatched]:
        """See `ports.JoinedLog`."""
        return await self.own.early()

    async def matches(self, interactions: Sequence[Offset]) -> Mapping[Offset, Sequence[Match]]:
        """See `ports.JoinedLog`."""
        return await self.own.matches(interactions)

    async def commit(self, step: JoinStep) -> None:
        """See `ports.JoinedLog`."""
        await self.own.commit(step)

    async def erase(self, interactions: Collection[Offset], event_ids: Collection[EventId]) -> None:
        """See `ports.JoinedLog`. Other nodes forget when they come to that place of the stream."""
        await self._commands.forget(interactions, event_ids)

    async def read(self, start: Offset, *, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        """See `ports.JoinedLog`."""
        return await self.own.read(start, limit=limit)

    def change_mark(self) -> int:
        """See `ports.JoinedLog`."""
        return self.own.change_mark()

    async def extent(self) -> tuple[Offset, Offset]:
        """See `ports.JoinedLog`."""
        return await self.own.extent()

    async def drop(self, *, before: Offset) -> None:
        """See `ports.JoinedLog`."""
        await self.own.drop(before=before)

    async def close(self) -> None:
        """See `ports.JoinedLog`."""
        await self.own.close()
        await self._replica.close()
