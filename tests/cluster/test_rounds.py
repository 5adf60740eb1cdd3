"""What keeps a cluster's nodes startable and its servers tidy: fetched replicas, snapshots in rounds, leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest
from tests.service import PATIENCE_S
from tests.store.test_event_log import ALL, interaction

from rankward.cluster.node import among_others
from rankward.cluster.rounds import GRACE_US, SnapshotRounds
from rankward.errors import NotFound, StoreUnavailable
from rankward.settings import LoopSettings
from rankward.store.nats.broker import BrokerOptions
from rankward.store.nats.events import EventStream
from rankward.wiring import Home
from rankward.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from rankward.cluster.servers import Server
    from rankward.records import LogEntry
    from rankward.store.ports import EventLog, Loop

pytestmark = pytest.mark.slow


@pytest.fixture
def options(nats_server: Server) -> BrokerOptions:
    """A cluster of the test's own."""
    return BrokerOptions(servers=(nats_server.url,), prefix=f"rounds-{uuid4().hex}")


def node(root: Path, options: BrokerOptions) -> Home:
    """Open a node's folder, making it if there is none."""
    root.mkdir(exist_ok=True)
    named = msgspec.structs.replace(options, node=root.name)
    (root / "node.json").write_bytes(msgspec.json.encode(named))
    return Home(root)


def asleep(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process that does nothing until it is told to end, whatever its role."""
    del role, arguments
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE)


@contextlib.asynccontextmanager
async def at_work(home: Home) -> AsyncIterator[None]:
    """Run a node's worker, which leads nothing."""
    stop = asyncio.Event()
    async with among_others(home, may_work=False) as leading:
        running = asyncio.create_task(Worker(home, asleep, leading).run(stop))
        try:
            yield
        finally:
            stop.set()
            await running


async def until(fact: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not fact():
            await asyncio.sleep(0.02)


async def append(home: Home, loop: Loop, name: str, count: int = 20) -> None:
    """Decide."""
    log: EventLog = home.event_log(loop.loop_id)
    for number in range(count):
        await log.append([interaction(f"{name}{number}")])
    await log.close()


async def entries(home: Home, loop: Loop) -> list[LogEntry]:
    """All that a node's log holds."""
    log = home.event_log(loop.loop_id)
    try:
        return [*await log.read(0, limit=ALL)]
    finally:
        await log.close()


def snapshots_of(home: Home, loop: Loop) -> int:
    """How many snapshots there are of a loop."""
    assert home.node is not None
    return len(home.node.snapshots.of(loop.loop_id))


def test_a_new_node_fetches_what_the_stream_has_forgotten(tmp_path: Path, options: BrokerOptions) -> None:
    """Until it has, it opens no empty log in the place of the loop's, which would give offsets anew."""

    async def live() -> None:
        with closing(node(tmp_path / "old", options)) as old:
            loop = old.loops.create("newsroom", LoopSettings())
            old.catalog.take_lead(loop.loop_id, "old", over_term=0)
            rounds = SnapshotRounds(old, every_us=0, grace_us=0)
            async with at_work(old):
                for name in "abc":
                    await append(old, loop, name)
                    await settled(old, loop)
                    await asyncio.to_thread(rounds.go_round)
                assert snapshots_of(old, loop) == 2
                await append(old, loop, "d")
                await settled(old, loop)
                with closing(node(tmp_path / "new", options)) as new:
                    assert new.lacks_replica(loop.loop_id)
                    for opening in (new.event_log, new.joined_log, new.rollups):
                        with pytest.raises(StoreUnavailable, match="fetching"):
                            opening(loop.loop_id)
                    async with at_work(new):
                        await until(lambda: not new.lacks_replica(loop.loop_id))
                        await settled(new, loop)
                        assert await entries(new, loop) == await entries(old, loop)

    asyncio.run(live())


async def settled(home: Home, loop: Loop) -> None:
    """Wait until a node's replica has all that the stream has."""
    assert home.node is not None
    broker, snapshots = home.node.broker, home.node.snapshots
    info = await broker.ask(lambda: broker.js.stream_info(broker.stream("events", loop.loop_id)))
    await until(lambda: (snapshots.place(loop.loop_id) or 0) >= info.state.last_seq)


def test_a_node_that_fell_too_far_behind_begins_again(tmp_path: Path, options: BrokerOptions) -> None:
    """It says so; when nothing has the folder open, it is given up and fetched like a new one."""

    async def live() -> None:
        with closing(node(tmp_path / "old", options)) as old, closing(node(tmp_path / "late", options)) as late:
            loop = old.loops.create("newsroom", LoopSettings())
            old.catalog.take_lead(loop.loop_id, "old", over_term=0)
            rounds = SnapshotRounds(old, every_us=0, grace_us=0)
            async with at_work(old):
                await append(old, loop, "a")
                await settled(old, loop)
                async with at_work(late):
                    await until(lambda: not late.lacks_replica(loop.loop_id))
                    await settled(late, loop)
                for name in "bcd":
                    await append(old, loop, name)
                    await settled(old, loop)
                    await asyncio.to_thread(rounds.go_round)
                async with at_work(late):
                    await until(lambda: late.is_outdated)
                late.give_up_outdated()
                assert not late.is_outdated
                assert late.lacks_replica(loop.loop_id)
                async with at_work(late):
                    await until(lambda: not late.lacks_replica(loop.loop_id))
                    await settled(late, loop)
                    assert await entries(late, loop) == await entries(old, loop)

    asyncio.run(live())


def first_message(home: Home, loop: Loop) -> int:
    """Where a loop's stream begins."""
    assert home.node is not None
    broker = home.node.broker
    return broker.call(lambda: broker.js.stream_info(broker.stream("events", loop.loop_id))).state.first_seq


def test_a_node_that_is_a_little_behind_goes_on(tmp_path: Path, options: BrokerOptions) -> None:
    """Were the stream trimmed at once, whoever had not read its last message would stop, to begin anew."""

    async def live() -> None:
        with closing(node(tmp_path / "old", options)) as old, closing(node(tmp_path / "slow", options)) as slow:
            loop = old.loops.create("newsroom", LoopSettings())
            old.catalog.take_lead(loop.loop_id, "old", over_term=0)
            async with at_work(slow):
                await until(lambda: not slow.lacks_replica(loop.loop_id))
            rounds = SnapshotRounds(old, every_us=0, grace_us=100 * GRACE_US)  # it may be slow itself
            async with at_work(old):
                for name in "abc":
                    await append(old, loop, name)
                    await settled(old, loop)
                    await asyncio.to_thread(rounds.go_round)
            assert snapshots_of(old, loop) == 2
            assert await asyncio.to_thread(first_message, old, loop) == 1
            async with at_work(slow):
                await settled(slow, loop)
                assert not slow.is_outdated
            assert await entries(slow, loop) == await entries(old, loop)
            # Who leads next has the same to trim, after a grace of its own.
            await asyncio.to_thread(SnapshotRounds(old, every_us=0, grace_us=0).go_round)
            assert await asyncio.to_thread(first_message, old, loop) > 1

    asyncio.run(live())


def test_the_only_snapshot_has_the_whole_stream_beside_it(tmp_path: Path, options: BrokerOptions) -> None:
    """Should it be damaged, a node begins without it; but what was erased is kept nowhere for that."""

    async def live() -> None:
        with closing(node(tmp_path / "only", options)) as home:
            loop = home.loops.create("newsroom", LoopSettings())
            home.catalog.take_lead(loop.loop_id, "only", over_term=0)
            rounds = SnapshotRounds(home, every_us=0, grace_us=0)
            async with at_work(home):
                await append(home, loop, "a")
                await settled(home, loop)
                await asyncio.to_thread(rounds.go_round)
                assert snapshots_of(home, loop) == 1
                assert await asyncio.to_thread(first_message, home, loop) == 1
                log = home.event_log(loop.loop_id)
                await log.clear()
                await log.close()
                await settled(home, loop)
                await asyncio.to_thread(rounds.go_round)
                assert snapshots_of(home, loop) == 1
                assert await asyncio.to_thread(first_message, home, loop) > 1

    asyncio.run(live())


def test_a_replica_of_what_the_servers_have_lost_is_kept(tmp_path: Path, options: BrokerOptions) -> None:
    """It may be the only copy of what was acknowledged: an operator decides what becomes of it."""

    async def live() -> None:
        with closing(node(tmp_path / "only", options)) as home:
            assert home.node is not None
            broker, snapshots = home.node.broker, home.node.snapshots
            loop = home.loops.create("newsroom", LoopSettings())
            async with at_work(home):
                await append(home, loop, "a")
                await settled(home, loop)
            await asyncio.to_thread(snapshots.take, loop.loop_id)
            await broker.ask(lambda: broker.js.delete_stream(broker.stream("events", loop.loop_id)))
            await broker.ask(EventStream(broker, loop.loop_id).ensure)
            await asyncio.to_thread(home.outdate, loop.loop_id)  # as the worker does when its feed refuses
            assert not home.is_outdated
            assert len(await entries(home, loop)) == 20

    asyncio.run(live())


def test_a_loop_that_is_not_led_here_or_stands_still_is_left_alone(tmp_path: Path, options: BrokerOptions) -> None:
    """Snapshots cost the servers room, and one node takes them."""

    async def live() -> None:
        with closing(node(tmp_path / "only", options)) as home:
            loop = home.loops.create("newsroom", LoopSettings())
            rounds = SnapshotRounds(home, every_us=0)
            async with at_work(home):
                await append(home, loop, "a")
                await settled(home, loop)
                await asyncio.to_thread(rounds.go_round)
                assert snapshots_of(home, loop) == 0
                home.catalog.take_lead(loop.loop_id, "only", over_term=0)
                for _ in range(3):
                    await asyncio.to_thread(rounds.go_round)
                assert snapshots_of(home, loop) == 1

    asyncio.run(live())


def test_what_a_deleted_loop_leaves_is_swept(tmp_path: Path, options: BrokerOptions) -> None:
    """Its stream, snapshots and models go from the servers; what is on its way, or on record, stays."""

    async def live() -> None:
        with closing(node(tmp_path / "only", options)) as home:
            assert home.node is not None
            broker, snapshots = home.node.broker, home.node.snapshots
            sweep = home.node.sweep(home.catalog)
            gone, kept = (home.loops.create(name, LoopSettings()) for name in ("gone", "kept"))
            async with at_work(home):
                for loop in (gone, kept):
                    await append(home, loop, "a", 3)
                    await settled(home, loop)
                    await asyncio.to_thread(snapshots.take, loop.loop_id)
                    home.study_models.put(loop.loop_id, "study-0", b"learned")
                    home.models.put(loop.loop_id, "1-1", b"never recorded")
                snapshots.announce("0" * 32)
                home.node.model_store("studies", recorded=None).send("0" * 32, "study-0", b"arrives")
                home.loops.delete("gone")
                await asyncio.to_thread(sweep.sweep)
                assert len(snapshots.of(gone.loop_id)) == 1, "it may just be on its way"
                await asyncio.to_thread(sweep.sweep)
                await asyncio.to_thread(sweep.sweep)
            names = [stored.name for each in (snapshots.lists, snapshots.parts) for stored in each.listed()]
            assert not [name for name in names if name.startswith(gone.loop_id)]
            assert len(snapshots.of(kept.loop_id)) == 1
            assert home.study_models.get(kept.loop_id, "study-0") == b"learned"
            assert home.study_models.get("0" * 32, "study-0") == b"arrives"
            with pytest.raises(NotFound):
                home.study_models.get(gone.loop_id, "study-0")
            assert not (home.folder.loops / kept.loop_id / "models" / "1-1.vw").exists()
            streams = [info.config.name for info in broker.call(broker.js.streams_info)]
            assert broker.stream("events", kept.loop_id) in streams
            assert broker.stream("events", gone.loop_id) not in streams

    asyncio.run(live())
