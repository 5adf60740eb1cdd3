"""Follows which event ids the newest messages of a stream carry: those that the node's own replica may not show yet."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection

from nats.aio.msg import Msg

from rankward.errors import RankwardError
from rankward.records import TimeUs
from rankward.store.nats.broker import Broker
from rankward.store.nats.codec import decode_keys
from rankward.store.nats.tail import Tail, stamp_us

_FORGET_S = 1.0


class Follower:
    """One for each stream and process. All of it runs beside the connection.

    What it remembers is bounded by how far the replica is behind: it forgets what that has had for a second or two.
    """

    def __init__(self, broker: Broker, stream: str, place: Callable[[], Awaitable[int]]) -> None:
        """Make it; the first `start` sets it going.

        Args:
            broker: the connection.
            stream: to follow.
            place: asks the replica how far it has applied the stream.
        """
        self._broker = broker
        self._stream = stream
        self._ask_place = place
        self.place = 0  # that the replica has reached at least
        self.forgotten = 0  # the messages up to this one are not remembered
        self.time_us: TimeUs = 0  # no message that is still to come gets an earlier one in the log
        self._seen = 0
        self._last: dict[int, int] = {}  # by key: the newest message that carried it
        self._messages: deque[tuple[int, Collection[int]]] = deque()  # with their keys
        self._repeated: dict[int, set[int]] = {}  # by message: keys that stand in it twice, or in one before it
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Begin at the replica's place, once."""
        async with self._starting:
            if not self._tasks:
                self.place = self.forgotten = self._seen = await self._ask_place()
                tail = Tail(self._broker, self._stream, self._seen + 1, self._take, headers_only=True)
                self._tasks = [asyncio.create_task(tail.run()), asyncio.create_task(self._forget())]

    async def _take(self, message: Msg, sequence: int) -> None:
        keys = decode_keys(message.headers)
        if keys:
            repeated = {key for key in keys if key in self._last}
            once = dict.fromkeys(keys, sequence)
            if len(once) < len(keys):
                repeated |= {key for key in once if keys.count(key) > 1}
            if repeated:
                self._repeated[sequence] = repeated
            self._last |= once
            self._messages.append((sequence, keys))
        self._seen = sequence
        self.time_us = max(self.time_us, stamp_us(message))
        while self._waiting and self._waiting[0][0] <= sequence:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    async def _forget(self) -> None:
        """Forget what the replica had the last time, so that who has looked there meanwhile has seen it there."""
        while True:
            await asyncio.sleep(_FORGET_S)
            self.forgotten = max(self.forgotten, min(self.place, self._seen))
            while self._messages and self._messages[0][0] <= self.forgotten:
                sequence, keys = self._messages.popleft()
                self._repeated.pop(sequence, None)
                for key in keys:
                    if self._last.get(key) == sequence:
                        del self._last[key]
            try:
                self.place = await self._ask_place()
            except RankwardError:  # the replica's trouble is told by whoever reads it
                continue

    async def reach(self, sequence: int, *, within_s: float) -> None:
        """Wait until a message has been seen.

        Raises:
            TimeoutError: it was not.
        """
        if self._seen < sequence:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (sequence, id(future), future))
            await asyncio.wait_for(future, within_s)

    def repeated(self, sequence: int, *, since: int) -> Collection[int] | None:
        """Tell which keys of a message that was seen stand in it twice, or in another one since the replica's place.

        Args:
            sequence: of the message.
            since: a place of the replica.

        Returns:
            The keys; None: some of what came since is forgotten, as the replica has it by now.
        """
        return None if self.forgotten > since else self._repeated.get(sequence, ())

    async def reach_replica(self, sequence: int, *, within_s: float) -> None:
        """Wait until the replica has applied a message.

        Raises:
            TimeoutError: it has not.
        """
        deadline = time.monotonic() + within_s
        while self.place < sequence:
            self.place = max(self.place, await self._ask_place())
            if self.place < sequence:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the replica stands at {self.place}")
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Stop following."""
        for task in self._tasks:
            await Tail.stop(task)
