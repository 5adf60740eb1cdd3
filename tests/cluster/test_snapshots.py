"""Snapshots: a node that begins from one becomes what the others are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.store.test_event_log import ALL, interaction

from rankward.errors import StoreUnavailable
from rankward.joining.service import JoiningService
from rankward.records import Erased, Observation
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.feed import Feed
from rankward.store.nats.snapshots import Snapshots
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.folder import DataFolder
from rankward.store.sqlite.joined_log import SqliteJoinedLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rankward.cluster.servers import Server
    from rankward.records import JoinedEntry, LogEntry, Offset, TimeUs

pytestmark = pytest.mark.slow

LOOP = "0" * 32


def now_us() -> TimeUs:
    """The time, in microseconds since 1970."""
    return time.time_ns() // 1000


class Node:
    """A machine with one loop: what appends to its log, feeds it and joins it."""

    def __init__(self, root: Path, options: BrokerOptions) -> None:
        self.folder = DataFolder(root)
        self.broker = Broker(options)
        self.snapshots = Snapshots(self.folder, self.broker, clock=now_us)

    def open(self) -> None:
        """Open the loop's logs."""
        seal = SealPolicy(entries=200, age_us=1 << 60)
        self.replica = SqliteEventLog(self.folder.events(LOOP), clock=now_us, seal=seal)
        self.log = ReplicatedEventLog(self.broker, LOOP, self.replica, clock=now_us)
        self.joined = SqliteJoinedLog(self.folder.joined(LOOP), file_entries=64)
        self._feed = Feed(self.broker, LOOP, self.replica, self.joined)
        self._joining = JoiningService(self.replica, self.joined, clock=now_us)

    async def catch_up(self) -> None:
        """Apply all that the stream has, and join what is due by then."""
        stream = self.broker.stream("events", LOOP)
        info = await self.broker.ask(lambda: self.broker.js.stream_info(stream))
        async with asyncio.timeout(60):
            while await self.replica.place() < info.state.last_seq:
                if not await self._feed.step():
                    await asyncio.sleep(0.005)
        while await self._joining.step():
            pass
        await self.log.maintain(joined_before=0, keep_after_us=0)

    async def holds(self) -> tuple[list[LogEntry], list[tuple[Offset, JoinedEntry]], dict[str, bytes]]:
        """All that its logs hold, and the joined log's files."""
        files = {path.name: path.read_bytes() for path in self.folder.joined(LOOP).glob("*.joined")}
        return [*await self.log.read(0, limit=ALL)], [*await self.joined.read(0, limit=ALL)], files

    async def close(self) -> None:
        """Let go of everything."""
        if hasattr(self, "log"):
            await self._feed.close()
            await self.log.close()
            await self.joined.close()
        self.broker.close()


@contextlib.asynccontextmanager
async def nodes(folder: Path, server: Server, *names: str) -> AsyncIterator[list[Node]]:
    """Run nodes of an installation of their own. The first has its logs open."""
    options = BrokerOptions(servers=(server.url,), prefix=f"snapshots-{uuid4().hex}")
    made = [Node(folder / name, options) for name in names]
    made[0].open()
    try:
        yield made
    finally:
        for node in made:
            await node.close()


async def traffic(node: Node, name: str, count: int = 300) -> None:
    """Decide and report, with waits that end at once, so that all of it is joined when it is read."""
    for begin in range(0, count, 50):
        records = [interaction(f"{name}{number}", wait_us=0) for number in range(begin, begin + 50)]
        await node.log.append(records, once=True)
        await node.log.append(
            [Observation(event_id=f"{name}{number}", value=1.0) for number in range(begin, begin + 50)]
        )
    await node.catch_up()


def tidy(node: Node) -> None:
    """Let go of all that the newest snapshots have made superfluous."""
    node.snapshots.trim(LOOP, through=node.snapshots.keep_few(LOOP))


def test_a_new_node_becomes_what_the_old_one_is_though_the_stream_was_trimmed(
    tmp_path: Path, nats_server: Server
) -> None:
    """Offsets, times and the joined log, byte for byte: it may lead the loop the next moment."""

    async def grow() -> None:
        async with nodes(tmp_path, nats_server, "old", "new") as [old, new]:
            for name in "abc":
                await traffic(old, name)
                taken = await asyncio.to_thread(old.snapshots.take, LOOP)
                await asyncio.to_thread(tidy, old)
            assert len(old.snapshots.of(LOOP)) == 2
            stream = old.broker.stream("events", LOOP)
            info = await old.broker.ask(lambda: old.broker.js.stream_info(stream))
            assert 1 < info.state.first_seq <= taken.place
            await traffic(old, "d")

            restored = await asyncio.to_thread(new.snapshots.restore, LOOP)
            assert restored == taken
            new.open()
            await new.catch_up()
            assert await new.holds() == await old.holds()
            assert (await new.holds())[2], "some of it is in files by now"
            await traffic(new, "e")
            await old.catch_up()
            assert await new.holds() == await old.holds()

    asyncio.run(grow())


def test_what_never_changes_is_stored_once(tmp_path: Path, nats_server: Server) -> None:
    """A loop of months has gigabytes of sealed files: each snapshot brings only what is new."""

    async def grow() -> None:
        async with nodes(tmp_path, nats_server, "only") as [node]:
            await traffic(node, "a", 600)
            first = await asyncio.to_thread(node.snapshots.take, LOOP)
            sealed = {part for part in first.parts if not part.packed}
            assert sealed
            await traffic(node, "b", 600)
            second = await asyncio.to_thread(node.snapshots.take, LOOP)
            assert sealed < {part for part in second.parts if not part.packed}

    asyncio.run(grow())


def test_what_was_erased_is_in_no_snapshot_any_more(tmp_path: Path, nats_server: Server) -> None:
    """Whoever is forgotten is forgotten at the next snapshot, in all that is kept."""

    async def erase() -> None:
        async with nodes(tmp_path, nats_server, "only", "new") as [node, new]:
            await traffic(node, "a")
            before = await asyncio.to_thread(node.snapshots.take, LOOP)
            await node.replica.erase({0: Erased(reward_wait_us=0)})
            await node.joined.erase([0], ["a0"])
            await asyncio.to_thread(node.snapshots.take, LOOP)
            await traffic(node, "b", 50)
            after = await asyncio.to_thread(node.snapshots.take, LOOP)
            await asyncio.to_thread(tidy, node)
            assert node.snapshots.of(LOOP)[-1] == after
            assert all(each.erasures == 1 for each in node.snapshots.of(LOOP))
            digests = {part.digest for each in node.snapshots.of(LOOP) for part in each.parts}
            gone = {part.digest for part in before.parts} - digests
            assert gone
            left = {stored.name.rpartition("/")[2] for stored in node.snapshots.parts.listed()}
            assert not gone & left
            assert left == digests
            await asyncio.to_thread(new.snapshots.restore, LOOP)
            new.open()
            assert isinstance((await new.log.read(0, limit=1))[0].record, Erased)

    asyncio.run(erase())


def test_a_snapshot_that_lacks_something_is_passed_over(tmp_path: Path, nats_server: Server) -> None:
    """There is one before, from which the stream still goes on; and where there is none, that is said."""

    async def damage() -> None:
        async with nodes(tmp_path, nats_server, "old", "new", "late") as [old, new, late]:
            await traffic(old, "a")
            first = await asyncio.to_thread(old.snapshots.take, LOOP)
            await traffic(old, "b")
            second = await asyncio.to_thread(old.snapshots.take, LOOP)
            [lost] = [part for part in second.parts if part.path.endswith(".live")]
            old.snapshots.parts.forget(f"{LOOP}/{lost.digest}")
            assert await asyncio.to_thread(new.snapshots.restore, LOOP) == first
            new.open()
            await new.catch_up()
            assert await new.holds() == await old.holds()
            for part in first.parts:
                old.snapshots.parts.forget(f"{LOOP}/{part.digest}")
            with pytest.raises(StoreUnavailable, match="lacks"):
                await asyncio.to_thread(late.snapshots.restore, LOOP)
            assert not late.folder.events(LOOP).exists()

    asyncio.run(damage())


def test_a_folder_that_is_just_being_made_is_copied_another_time(tmp_path: Path, nats_server: Server) -> None:
    """Whoever goes round the loops comes by at any moment, and must not die of it."""

    async def come_by() -> None:
        async with nodes(tmp_path, nats_server, "old", "new") as [old, new]:
            await traffic(old, "a", 50)
            first = await asyncio.to_thread(old.snapshots.take, LOOP)
            await traffic(old, "b", 50)
            assert first.place < (old.snapshots.place(LOOP) or 0)
            begun = new.folder.joined(LOOP)
            begun.mkdir(parents=True)
            (begun / "joined.sqlite").touch()
            log = SqliteEventLog(new.folder.events(LOOP), clock=now_us)
            await log.append([interaction("e")])
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(new.snapshots.is_due, first, LOOP, every_us=1 << 60)
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(new.snapshots.take, LOOP)
            await log.close()

    asyncio.run(come_by())


def test_a_loop_without_a_snapshot_begins_with_its_stream(tmp_path: Path, nats_server: Server) -> None:
    """Every loop does, at first."""

    async def begin() -> None:
        async with nodes(tmp_path, nats_server, "old", "new") as [old, new]:
            await traffic(old, "a", 50)
            assert await asyncio.to_thread(new.snapshots.restore, LOOP) is None
            new.open()
            await new.catch_up()
            assert await new.holds() == await old.holds()

    asyncio.run(begin())


def test_putting_a_snapshot_in_place_goes_on_where_it_was_cut_off(tmp_path: Path, nats_server: Server) -> None:
    """A replica whose joined log is ahead of its event log would leave out what comes next."""

    async def cut() -> None:
        async with nodes(tmp_path, nats_server, "old", "new") as [old, new]:
            await traffic(old, "a")
            await asyncio.to_thread(old.snapshots.take, LOOP)
            await asyncio.to_thread(new.snapshots.restore, LOOP)
            target = new.folder.loops / LOOP
            (target / "restored").mkdir()
            (target / "events").rename(target / "restored" / "events")  # the last that is put in place
            (target / "events").mkdir()
            (target / "events" / "old").touch()
            new.snapshots.finish(LOOP)
            new.open()
            await new.catch_up()
            assert await new.holds() == await old.holds()
            assert not (target / "restored").exists()

    asyncio.run(cut())
