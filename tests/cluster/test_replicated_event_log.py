"""The event log of a cluster: what a stream and the replicas of several nodes promise together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import textwrap
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.service import PATIENCE_S
from tests.store.test_event_log import ALL, event_ids, interaction, offsets

from rankward.cluster.servers import running_servers, wait_until_healthy
from rankward.errors import InvalidRequest, ReplicaOutdated, ServersAway, StoreUnavailable
from rankward.joining.service import JoiningService
from rankward.records import Appended, Erased, Interaction, Known, Observation, Tick
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.codec import EraseEntries, encode_group, encode_keys, encode_request
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.events import EventStream
from rankward.store.nats.feed import Feed
from rankward.store.nats.joined_log import ReplicatedJoinedLog
from rankward.store.sqlite.codec import event_key, to_row
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.groups import Group, Requested
from rankward.store.sqlite.joined_log import SqliteJoinedLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from rankward.cluster.servers import Server
    from rankward.records import JoinedEntry, LogEntry, Offset, Record, TimeUs

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
        self.fed = self._replica()
        self.joined = ReplicatedJoinedLog(self.broker, "loop", SqliteJoinedLog(folder / "joined"), self._replica())
        self.own = SqliteJoinedLog(folder / "joined")
        self._feed = Feed(self.broker, "loop", self.fed, self.own)
        self._joining = JoiningService(self.fed, self.own, clock=now_us)
        self._feeding: asyncio.Task[None] | None = None

    def _replica(self) -> SqliteEventLog:
        return SqliteEventLog(self.folder / "events", clock=now_us)

    def start(self) -> None:
        """Begin to feed."""
        self._feeding = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            busy = False
            with contextlib.suppress(ServersAway):  # they were slow to answer: a worker tries again, too
                busy = await self._feed.step()
            if not busy:
                await asyncio.sleep(0.002)

    async def join(self) -> None:
        """Join what there is to join."""
        while await self._joining.step():
            pass

    async def holds(self) -> tuple[list[LogEntry], list[tuple[Offset, JoinedEntry]]]:
        """All that the two logs hold."""
        return [*await self.log.read(0, limit=ALL)], [*await self.joined.read(0, limit=ALL)]

    async def reach(self, place: int) -> None:
        """Wait until the replica is as far."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.fed.place() < place:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Stop feeding, and let go of everything."""
        if self._feeding is not None:
            self._feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._feeding
        await self._feed.close()
        for each in (self.joined, self.own, self.fed, self.log):
            await each.close()
        self.broker.close()


def options_of(server: Server) -> BrokerOptions:
    """Name an installation of its own."""
    return BrokerOptions(servers=(server.url,), prefix=f"log-{uuid.uuid4().hex}")


@contextlib.asynccontextmanager
async def nodes(
    folder: Path, server: Server, count: int, *, options: BrokerOptions | None = None
) -> AsyncIterator[list[Node]]:
    """Run nodes of one installation."""
    options = options or options_of(server)
    made = [Node(folder / str(number), options) for number in range(count)]
    try:
        for node in made:
            node.start()
        yield made
    finally:
        for node in made:
            await node.close()


async def publish_once(node: Node, *records: Interaction) -> None:
    """Publish what is known already, as a process does that cannot know that yet."""
    rows = tuple(to_row(record) for record in records)
    body = encode_group([encode_request(Requested(once=True, rows=rows))])
    headers = encode_keys([row.event_key for row in rows if row.event_key is not None])
    await node.broker.ask(lambda: node.broker.js.publish(node.broker.subject("events", "loop"), body, headers=headers))


async def last_sequence(node: Node) -> int:
    """How many messages the stream has had."""
    info = await node.broker.ask(lambda: node.broker.js.stream_info(node.broker.stream("events", "loop")))
    return info.state.last_seq


def test_two_nodes_give_the_same_request_one_decision_and_hold_the_same(tmp_path: Path, nats_server: Server) -> None:
    """A client that retries reaches another node, while the first one's record is still on its way there."""

    async def race() -> None:
        decided: list[Record] = []
        async with nodes(tmp_path, nats_server, 2) as [one, other]:
            for number in range(100):
                # Each has a model of its own at this moment, and so decides otherwise.
                asked = [
                    msgspec.structs.replace(interaction(f"e{number}"), chosen=chosen, model_id=f"m{chosen}")
                    for chosen in (0, 1)
                ]
                results = await asyncio.gather(
                    one.log.append([asked[0]], once=True), other.log.append([asked[1]], once=True)
                )
                told = [
                    result.entry.record if isinstance(result, Known) else record
                    for [result], record in zip(results, asked, strict=True)
                ]
                assert {type(result) for [result] in results} == {Appended, Known}
                assert told[0] == told[1]
                decided.append(told[0])
            end = await last_sequence(one)
            for node in (one, other):
                await node.reach(end)
            entries = [await node.log.read(0, limit=ALL) for node in (one, other)]
            assert entries[0] == entries[1]
            assert [entry.record for entry in entries[0]] == decided

    asyncio.run(race())


def test_a_node_whose_clock_is_ahead_gives_a_repeated_request_its_first_decision(
    tmp_path: Path, nats_server: Server
) -> None:
    """Its clock says that the request is too old to be a repeat; but the stream's time is what decides."""

    async def repeat() -> None:
        async with nodes(tmp_path, nats_server, 1) as [node]:
            record = interaction("e1")
            await node.log.append([record], once=True)
            await node.reach(await last_sequence(node))
            hours_ahead = SqliteEventLog(node.folder / "events", clock=now_us)
            log = ReplicatedEventLog(node.broker, "loop", hours_ahead, clock=lambda: now_us() + 36_000_000_000)
            try:
                [first] = await log.append([record], once=True)
                [second] = await log.append([msgspec.structs.replace(record, chosen=2)], once=True)
            finally:
                await log.close()
            for known in (first, second):
                assert isinstance(known, Known)
                assert isinstance(known.entry.record, Interaction)
                assert known.entry.record.chosen == record.chosen

    asyncio.run(repeat())


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
            huge = interaction("huge", context=os.urandom(10_000_000).hex())
            refused, stored = await asyncio.gather(
                node.log.append([huge]), node.log.append(many), return_exceptions=True
            )
            assert isinstance(refused, InvalidRequest)
            assert stored == [Appended()] * 600
            await node.reach(await last_sequence(node))
            assert event_ids(await node.log.read(0, limit=ALL)) == [f"e{number}" for number in range(600)]

    asyncio.run(append())


def files_with(folder: Path, marker: str) -> list[Path]:
    """The files under a folder in which something is found."""
    return [path for path in folder.rglob("*") if path.is_file() and marker.encode() in path.read_bytes()]


def test_what_is_erased_is_in_no_file_and_all_nodes_still_hold_the_same(tmp_path: Path, nats_server: Server) -> None:
    """Neither a node that was there, nor the stream, nor one that reads the stream from its beginning has it."""
    marker, other = uuid.uuid4().hex, uuid.uuid4().hex
    options = options_of(nats_server)

    async def erase() -> None:
        async with nodes(tmp_path, nats_server, 2, options=options) as [one, two]:
            secret = interaction(marker, wait_us=0, context=marker)
            other_secret = interaction(other, wait_us=0, context=other)
            await one.log.append(
                [interaction("before", wait_us=0), secret, interaction("beside", wait_us=0)], once=True
            )
            # What is known takes no offset, and bears the content all the same; so does what repeats the id.
            await publish_once(two, secret, interaction("after", wait_us=0))
            await two.log.append([interaction(marker, wait_us=0, context="another"), other_secret], once=True)
            await one.log.append([Observation(event_id=marker, value=1.0, metrics={marker: 1.0}), Tick()])
            for node in (one, two):
                await node.reach(await last_sequence(one))
            await two.join()
            assert files_with(nats_server.folder, marker)

            entries = await one.log.read(0, limit=ALL)
            for name in (marker, other):
                places = {
                    entry.offset: Erased(reward_wait_us=0)
                    for entry in entries
                    if isinstance(entry.record, Interaction) and entry.record.event_id == name
                } | {
                    entry.offset: Erased()
                    for entry in entries
                    if isinstance(entry.record, Observation) and entry.record.event_id == name
                }
                await one.log.erase(places)
                await one.joined.erase(
                    [offset for offset in places if places[offset].reward_wait_us is not None], [name]
                )
                assert files_with(nats_server.folder, name) == []
            for node in (one, two):
                await node.reach(await last_sequence(one))
                await node.join()
            assert await one.holds() == await two.holds()
            held = await one.holds()

        for name in (marker, other):
            assert files_with(tmp_path, name) == []
        async with nodes(tmp_path / "new", nats_server, 1, options=options) as [newcomer]:
            await newcomer.reach(await last_sequence(newcomer))
            await newcomer.join()
            assert await newcomer.holds() == held

    asyncio.run(erase())


def test_an_erasure_that_broke_off_is_finished_by_the_next(tmp_path: Path, nats_server: Server) -> None:
    """Whoever erased may have died when the command was out, and the content still in the stream."""
    marker = uuid.uuid4().hex

    async def erase() -> None:
        async with nodes(tmp_path, nats_server, 1) as [node]:
            await node.log.append([interaction(marker), interaction("beside")], once=True)
            stream = EventStream(node.broker, "loop")
            command = EraseEntries({0: Erased(reward_wait_us=600_000_000)}, [event_key(marker)])
            await node.reach(await node.broker.ask(lambda: stream.command(command)))
            assert files_with(nats_server.folder, marker)

            await node.log.erase({})

            assert files_with(nats_server.folder, marker) == files_with(tmp_path, marker) == []
            before = await last_sequence(node)
            await node.log.erase({})
            assert await last_sequence(node) == before

    asyncio.run(erase())


def test_a_stream_that_does_not_meet_the_replica_is_said_so(tmp_path: Path, nats_server: Server) -> None:
    """To go on over a gap, or after the servers lost something, would be to differ from the others for ever."""

    async def part(node: Node, change: Callable[[str], Coroutine[Any, Any, object]]) -> Feed:
        """Change the stream, and make a feed for what the replica has."""
        name = node.broker.stream("events", "loop")
        await node.broker.ask(lambda: change(name))
        return Feed(node.broker, "loop", node.fed, node.own)

    async def step(feed: Feed) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await feed.step()
                await asyncio.sleep(0.005)

    async def meet() -> None:
        node = Node(tmp_path, options_of(nats_server))
        js = node.broker.js
        for number in range(5):
            await node.log.append([interaction(f"e{number}")])
        feed = await part(node, lambda name: js.delete_msg(name, 3))
        with pytest.raises(StoreUnavailable, match="lacks message 3"):
            await step(feed)
        feed = await part(node, lambda name: js.purge_stream(name, seq=5))
        with pytest.raises(ReplicaOutdated, match="begins at message 5, and the replica needs 1"):
            await step(feed)
        await node.fed.apply([Group(4, now_us(), [])])
        feed = await part(node, js.delete_stream)
        with pytest.raises(StoreUnavailable, match="ends at message 0, and the replica has 4"):
            await step(feed)
        await node.close()

    asyncio.run(meet())


def test_a_cleared_log_is_cleared_on_every_node_at_the_same_place(tmp_path: Path, nats_server: Server) -> None:
    """What came before is gone and what came after is there, at offsets that were never used, wherever it is read."""

    async def clear() -> None:
        async with nodes(tmp_path, nats_server, 2) as [one, two]:
            await one.log.append([interaction("e1"), interaction("e2")], once=True)
            await two.reach(await last_sequence(two))
            assert await two.log.clear() == 2
            await one.reach(await last_sequence(one))  # until then, it answers with the decision that it knows
            assert await one.log.append([interaction("e1")], once=True) == [Appended()]
            for node in (one, two):
                await node.reach(await last_sequence(node))
                entries = await node.log.read(0, limit=ALL)
                assert (offsets(entries), event_ids(entries)) == ([2], ["e1"])

    asyncio.run(clear())


def test_servers_that_restart_lose_and_repeat_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Callers are told that the store is not there; what they were told is stored is there once, on every node."""

    async def restart(server: Server) -> None:
        async with nodes(tmp_path / "nodes", server, 2) as [one, two]:
            acknowledged: set[str] = set()
            asked = 0
            stop = asyncio.Event()

            async def ask(node: Node) -> None:
                nonlocal asked
                while not stop.is_set():
                    asked += 1
                    event_id = f"e{asked}"
                    try:
                        assert await node.log.append([interaction(event_id)], once=True) == [Appended()]
                    except StoreUnavailable:
                        continue
                    acknowledged.add(event_id)

            asking = asyncio.gather(*(ask(node) for node in (one, two) for _ in range(8)))

            async def more() -> None:
                before = len(acknowledged)
                async with asyncio.timeout(PATIENCE_S):
                    while len(acknowledged) < before + 200:
                        await asyncio.sleep(0.01)

            for end in (server.stop, server.kill):
                await more()
                await asyncio.to_thread(end)
                server.start()
                await asyncio.to_thread(wait_until_healthy, [server])
            await more()
            stop.set()
            await asking
            for node in (one, two):
                await node.reach(await last_sequence(one))
            entries = await one.log.read(0, limit=ALL)
            assert entries == await two.log.read(0, limit=ALL)
            stored = event_ids(entries)
            assert len(stored) == len(set(stored))
            assert acknowledged <= set(stored)

    with running_servers(tmp_path, 1) as [server]:
        asyncio.run(restart(server))


_FEEDER = """
    import asyncio, sys, time
    from pathlib import Path
    import msgspec
    from rankward.store.nats.broker import Broker, BrokerOptions
    from rankward.store.nats.feed import Feed
    from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
    from rankward.store.sqlite.joined_log import SqliteJoinedLog

    folder, options = Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=BrokerOptions)

    async def main():
        log = SqliteEventLog(folder / "events", clock=lambda: time.time_ns() // 1000, seal=SealPolicy(entries=50))
        feed = Feed(Broker(options), "loop", log, SqliteJoinedLog(folder / "joined"))
        while True:
            if not await feed.step():
                await asyncio.sleep(0.001)
            await log.maintain(joined_before=0, keep_after_us=0)

    asyncio.run(main())
"""


def test_a_replica_whose_feed_is_killed_goes_on_where_it_stood(tmp_path: Path, nats_server: Server) -> None:
    """`kill -9` comes at any time, also while messages are applied or a segment is sealed."""
    options = options_of(nats_server)
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(_FEEDER),
        str(tmp_path / "killed"),
        msgspec.json.encode(options).decode(),
    ]

    async def kill() -> None:
        async with nodes(tmp_path / "nodes", nats_server, 1, options=options) as [node]:
            killed = SqliteEventLog(tmp_path / "killed" / "events", clock=now_us)
            for number in range(6):
                feeder = await asyncio.create_subprocess_exec(*command)
                try:
                    at = (await killed.extent()).end
                    async with asyncio.timeout(PATIENCE_S):
                        while (await killed.extent()).end < at + 40:  # so that it is killed at its work
                            names = [f"{number}-{uuid.uuid4().hex}" for _ in range(4)]
                            await asyncio.gather(*(node.log.append([interaction(name)], once=True) for name in names))
                finally:
                    feeder.kill()
                    await feeder.wait()
            feed = Feed(node.broker, "loop", killed, SqliteJoinedLog(tmp_path / "killed" / "joined"))
            end = await last_sequence(node)
            while await killed.place() < end:
                await feed.step()
            await node.reach(end)
            assert await killed.read(0, limit=ALL) == await node.log.read(0, limit=ALL)
            await feed.close()
            await killed.close()

    asyncio.run(kill())
