"""Feeds a node's replica of one loop's event log: applies what the stream brings, in its order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from nats.aio.msg import Msg

from rankward.records import TimeUs
from rankward.store.nats.broker import Broker
from rankward.store.nats.codec import decode_group
from rankward.store.nats.event_log import ensure_events
from rankward.store.nats.tail import Tail
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.groups import Group

_STEP_BYTES = 4_000_000  # of messages, that one transaction takes in
_HELD_BYTES = 16_000_000  # that wait for the next steps


class Feed:
    """Applies one loop's stream to its replica. One process of a node may run one."""

    def __init__(self, broker: Broker, loop_id: str, replica: SqliteEventLog) -> None:
        """Make it; the first step begins to read.

        Args:
            broker: the connection.
            loop_id: of the loop.
            replica: what is fed.
        """
        self._broker = broker
        self._loop_id = loop_id
        self._replica = replica
        self._place: int | None = None  # None: not asked for yet
        self._held: deque[tuple[int, Msg]] = deque()  # what has been read and not applied
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def step(self) -> bool:
        """Apply what has come, up to a few megabytes.

        Returns:
            Whether there may be more at once.

        Raises:
            StoreUnavailable: the stream does not hold the next message any more, or the replica cannot be written.
        """
        if self._place is None:
            self._place = await self._replica.place()
            await self._broker.ask(self._start)
        taken = await self._broker.ask(self._take_some)
        if not taken:
            return False
        await self._replica.apply([_group(message, sequence) for sequence, message in taken])
        self._place = taken[-1][0]
        return True

    async def _start(self) -> None:
        assert self._place is not None, "it has been asked for"
        await ensure_events(self._broker, self._loop_id)
        tail = Tail(self._broker, self._broker.stream("events", self._loop_id), self._place + 1, self._hold)
        self._reading = asyncio.create_task(tail.run())

    async def _hold(self, message: Msg, sequence: int) -> None:
        while self._held_bytes > _HELD_BYTES:
            self._room.clear()
            await self._room.wait()
        self._held.append((sequence, message))
        self._held_bytes += len(message.data)

    async def _take_some(self) -> list[tuple[int, Msg]]:
        taken = []
        size = 0
        while self._held and size < _STEP_BYTES:
            taken.append(self._held.popleft())
            size += len(taken[-1][1].data)
        self._held_bytes -= size
        self._room.set()
        return taken

    async def close(self) -> None:
        """Stop reading. The replica stays open."""
        await self._broker.ask(self._stop)

    async def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading


def _group(message: Msg, sequence: int) -> Group:
    return Group(sequence, _time_us(message), decode_group(message.data))


def _time_us(message: Msg) -> TimeUs:
    """The time that the stream gave, in microseconds since 1970."""
    seconds = message.metadata.timestamp.timestamp()
    return round(seconds * 1_000_000)
