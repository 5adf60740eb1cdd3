"""Feeds a node's replica of one loop's event log: applies what the stream brings, in its order."""

from __future__ import annotations

import asyncio
from collections import deque

from nats.aio.msg import Msg

from rankward.errors import ReplicaOutdated, StoreUnavailable
from rankward.records import TimeUs
from rankward.store.nats.broker import Broker
from rankward.store.nats.codec import (
    ClearLog,
    Command,
    EraseEntries,
    ForgetObservations,
    Patch,
    decode_command,
    decode_group,
)
from rankward.store.nats.events import EventStream
from rankward.store.nats.tail import Tail, stamp_us
from rankward.store.ports import JoinedLog
from rankward.store.sqlite.codec import event_key
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.groups import Group, Requested

_STEP_BYTES = 4_000_000  # of messages, that one step takes in
_STEP_MESSAGES = 1_000
_HELD_BYTES = 16_000_000  # that wait for the next steps


class Feed:
    """Implements `ports.Feed` for one loop. One process of a node may run one.

    What a command changes does not depend on how far the joined log has come: an entry that was joined before loses
    its observations, and one that is joined later finds none.
    """

    def __init__(self, broker: Broker, loop_id: str, replica: SqliteEventLog, joined: JoinedLog) -> None:
        """Make it; the first step begins to read.

        Args:
            broker: the connection.
            loop_id: of the loop.
            replica: what is fed.
            joined: this node's own joined log.
        """
        self._stream = EventStream(broker, loop_id)
        self._broker = broker
        self._replica = replica
        self._joined = joined
        self._place: int | None = None  # None: not asked for yet
        self._goal = 0  # sequence of the stream's last message at the first step
        self._last = 0  # and now, as far as is known
        self._held: deque[tuple[int, Msg]] = deque()  # what has been read and not applied
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def step(self) -> bool:
        """Apply what has come, up to a few megabytes.

        Returns:
            Whether there may be more at once.

        Raises:
            ReplicaOutdated: the stream does not hold the next message any more: begin again from a snapshot.
            WorldError: the replica cannot be written, or the servers do not answer. The next step reads again.
        """
        if self._place is None:
            place = await self._replica.place()
            await self._broker.ask(lambda: self._start(place))
            self._place = place
        if not self._held:
            return False
        taken = await self._broker.ask(self._take_some)
        try:
            await self._apply(self._place, taken)
        except BaseException:
            await self.close()  # what was taken is read again
            raise
        return bool(taken)

    async def _apply(self, place: int, taken: list[tuple[int, Msg]]) -> None:
        groups: list[Group] = []
        for sequence, message in taken:
            groups += [await self._patched(hole) for hole in range(place + 1, sequence)]
            place = sequence
            time_us = self.time_of(message)
            if message.subject == self._stream.commands:
                await self._replica.apply(groups)
                await self._do(decode_command(message.data))
                groups = [Group(sequence, time_us, [])]
            elif message.subject == self._stream.groups:
                groups.append(Group(sequence, time_us, decode_group(message.data)))
            else:
                groups.append(Group(sequence, time_us, []))
        if groups:
            await self._replica.apply(groups)
        self._place = place

    def time_of(self, message: Msg) -> TimeUs:
        """Say the time that the stream gave a message."""
        return stamp_us(message)

    async def _patched(self, hole: int) -> Group:
        """Return what stands for a message that is gone."""
        found = await self._broker.ask(lambda: self._stream.patch(hole))
        if found is None:
            first = await self._broker.ask(self._stream.first)
            if first > hole:
                raise ReplicaOutdated(
                    f"{self._stream.name} begins at message {first}, and the replica needs {hole}: it has to begin "
                    "again from a snapshot"
                )
            raise StoreUnavailable(
                f"{self._stream.name} lacks message {hole}, and nothing stands for it: somebody removed it by hand. "
                "Begin again from a snapshot that is newer"
            )
        patch: Patch = found[1]
        return Group(hole, patch.time_us, [Requested(once=False, rows=tuple(patch.rows))])

    async def _do(self, command: Command) -> None:
        match command:
            case EraseEntries():
                await self._replica.erase(command.places)
            case ClearLog():
                await self._replica.clear()
            case ForgetObservations():
                keys = set(command.keys)
                ids = {each.event_id for each in await self._joined.early()}
                await self._joined.erase(command.interactions, {each for each in ids if event_key(each) in keys})

    @property
    def caught_up(self) -> bool:
        """See `ports.Feed`."""
        return self._place is not None and self._place >= self._goal

    @property
    def behind(self) -> int:
        """See `ports.Feed`."""
        return 0 if self._place is None else max(0, self._last - self._place)

    async def _start(self, place: int) -> None:
        await self._stream.ensure()
        self._last = (await self._broker.js.stream_info(self._stream.name)).state.last_seq
        if self._last < place:
            raise StoreUnavailable(
                f"{self._stream.name} ends at message {self._last}, and the replica has {place}: the servers have lost "
                "what they acknowledged, or are others. Nothing is applied: copy the replica, which may be all "
                "that has it, before it is removed to begin again"
            )
        self._goal = self._goal or self._last
        self._reading = asyncio.create_task(Tail(self._broker, self._stream.name, place + 1, self._hold).run())

    async def _hold(self, message: Msg, sequence: int) -> None:
        while self._held_bytes > _HELD_BYTES:
            self._room.clear()
            await self._room.wait()
        self._held.append((sequence, message))
        self._held_bytes += len(message.data)
        self._last = sequence + (message.metadata.num_pending or 0)

    async def _take_some(self) -> list[tuple[int, Msg]]:
        taken: list[tuple[int, Msg]] = []
        size = 0
        while self._held and size < _STEP_BYTES and len(taken) < _STEP_MESSAGES:
            taken.append(self._held.popleft())
            size += len(taken[-1][1].data)
        self._held_bytes -= size
        self._room.set()
        return taken

    async def close(self) -> None:
        """Stop reading, until the next step. The logs stay open."""
        self._place = None
        await self._broker.ask(self._stop)

    async def _stop(self) -> None:
        if self._reading is not None:
            await Tail.stop(self._reading)
        self._reading = None
        self._held.clear()
        self._held_bytes = 0
