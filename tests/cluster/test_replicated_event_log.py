"""The event log of a cluster: what a stream and the replicas of several nodes promise together."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.service import PATIENCE_S
from tests.store.test_event_log import ALL, event_ids, interaction, offsets

from rankward.errors import InvalidRequest
from rankward.records import Appended, Known, Tick
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.feed import Feed
from rankward.store.sqlite.event_log import SqliteEventLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rankward.cluster.servers import Server
    from rankward.records import TimeUs

pytestmark = pytest.mark.slow


def now_us() -> TimeUs:
    """The time, in microseconds since 1970."""
    return time.time_ns() // 1000


class Node:
    """One node's replica with what feeds it, and one process that appends."""

    def __init__(self, folder: Path, options: BrokerOptions) -> None:
        self.folder = folder
        self.broker = Broker(options)
        self.log = ReplicatedEventLog(self.broker, "loop", self._replica(), clock=now_us)
        self._fed = self._replica()
        self._feed = Feed(self.broker, "loop", self._fed)
        self._feeding: asyncio.Task[None] | None = None

    def _replica(self) -> SqliteEventLog:
        return SqliteEventLog(self.folder, clock=now_us)

    def start(self) -> None:
        """Begin to feed."""
        self._feeding = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            if not await self._feed.step():
                await asyncio.sleep(0.002)

    async def reach(self, place: int) -> None:
        """Wait until the replica is as far."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._fed.place() < place:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Stop feeding, and let go of everything."""
        if self._feeding is not None:
            self._feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._feeding
        await self._feed.close()
        await self._fed.close()
        await self.log.close()
        self.broker.close()


@contextlib.asynccontextmanager
async def nodes(folder: Path, server: Server, count: int) -> AsyncIterator[list[Node]]:
    """Run nodes of an installation of their own."""
    options = BrokerOptions(servers=(server.url,), prefix=f"log-{uuid.uuid4().hex}")
    made = [Node(folder / str(number), options) for number in range(count)]
    try:
        for node in made:
            node.start()
        yield made
    finally:
        for node in made:
            await node.close()


async def last_sequence(node: Node) -> int:
    """How many messages the stream has had."""
    info = await node.broker.ask(lambda: node.broker.js.stream_info(node.broker.stream("events", "loop")))
    return info.state.last_seq


def test_two_nodes_give_the_same_request_one_decision_and_hold_the_same(tmp_path: Path, nats_server: Server) -> None:
    """A client that retries reaches another node, while the first one's record is still on its way there."""

    async def race() -> None:
        async with nodes(tmp_path, nats_server, 2) as [one, other]:
            for number in range(100):
                record = interaction(f"e{number}")
                [first], [second] = await asyncio.gather(
                    one.log.append([record], once=True), other.log.append([record], once=True)
                )
                assert {type(first), type(second)} == {Appended, Known}
            end = await last_sequence(one)
            for node in (one, other):
                await node.reach(end)
            entries = [await node.log.read(0, limit=ALL) for node in (one, other)]
            assert entries[0] == entries[1]
            assert sorted(event_ids(entries[0])) == sorted(f"e{number}" for number in range(100))

    asyncio.run(race())


def test_what_is_acknowledged_is_read_on_every_node(tmp_path: Path, nats_server: Server) -> None:
    """Many calls share a message, and keep their order and their own results."""

    async def append() -> None:
        async with nodes(tmp_path, nats_server, 2) as [one, other]:
            results = await asyncio.gather(
                *(one.log.append([interaction(f"e{number}"), Tick()], once=True) for number in range(300))
            )
            assert results == [[Appended(), Appended()]] * 300
            end = await last_sequence(one)
            assert end < 300
            for node in (one, other):
                await node.reach(end)
                entries = await node.log.read(0, limit=ALL)
                assert offsets(entries) == list(range(600))
                assert event_ids(entries) == [f"e{number}" for number in range(300)]

    asyncio.run(append())


def test_a_call_that_fills_several_messages_is_stored_whole_and_in_order(tmp_path: Path, nats_server: Server) -> None:
    """An import brings more at once than the servers take in one message; what never fits is the caller's to mend."""

    async def append() -> None:
        async with nodes(tmp_path, nats_server, 1) as [node]:
            await node.log.append([Tick()])
            many = [interaction(f"e{number}", context=uuid.uuid4().hex * 1_000) for number in range(600)]
            huge = interaction("huge", context="".join(uuid.uuid4().hex for _ in range(600_000)))
            refused, stored = await asyncio.gather(
                node.log.append([huge]), node.log.append(many), return_exceptions=True
            )
            assert isinstance(refused, InvalidRequest)
            assert stored == [Appended()] * 600
            await node.reach(await last_sequence(node))
            assert event_ids(await node.log.read(0, limit=ALL)) == [f"e{number}" for number in range(600)]

    asyncio.run(append())
