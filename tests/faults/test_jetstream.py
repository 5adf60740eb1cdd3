"""What JetStream promises, on which all else rests: it is held to it by the means that the service is held to it by."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import TYPE_CHECKING

import pytest
from nats.js.errors import NotFoundError

from rankward.cluster.servers import Server, make_servers, running_servers, wait_until_healthy
from rankward.errors import RankwardError
from tests.faults.clocks import can_shift, shift_clock
from tests.faults.disks import Disk, disk, needs_root
from tests.faults.network import network
from tests.faults.streams import connect, leader, step_down, wait_until_replicated
from tests.service import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rankward.store.nats.broker import Broker

pytestmark = pytest.mark.fault


STREAM = "numbers"


class Publisher:
    """Publishes numbers without a break, and remembers which were acknowledged, and as which message."""

    def __init__(self, broker: Broker) -> None:
        self.acknowledged: dict[int, int] = {}  # numbers by sequence in the stream
        self._broker = broker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            body = str(number).encode()
            with contextlib.suppress(RankwardError):
                ack = self._broker.call(lambda body=body: self._broker.js.publish(STREAM, body, timeout=1))  # type: ignore[misc]
                self.acknowledged[ack.seq] = number

    def more(self, count: int = 100) -> None:
        """Wait until so many more were acknowledged."""
        enough = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= enough, "publishing goes on")

    def end(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()


class Servers:
    """Three servers with one stream that is replicated to all of them."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.all = servers
        self.broker = connect(servers)
        self.broker.call(lambda: self.broker.ensure_stream(STREAM, [STREAM]))

    @property
    def leader(self) -> Server:
        """Who orders what comes to the stream."""
        return leader(self.broker, self.all, STREAM)

    def numbers(self) -> dict[int, int]:
        """What is in the stream: numbers by sequence."""

        async def read() -> dict[int, int]:
            try:
                last = (await self.broker.js.stream_info(STREAM)).state.last_seq
                subscription = await self.broker.js.subscribe(STREAM, ordered_consumer=True)
            except NotFoundError:
                return {}
            found: dict[int, int] = {}
            while last not in found:
                message = await subscription.next_msg(timeout=30)
                found[message.metadata.sequence.stream] = int(message.data)
            await subscription.unsubscribe()
            return found

        return self.broker.call(read)

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Publisher]:
        """Publish, and in the end look whether what was acknowledged is there."""
        publisher = Publisher(self.broker)
        try:
            publisher.more()
            yield publisher
        finally:
            publisher.end()
        wait_until_healthy(self.all)
        wait_until_replicated(self.broker, STREAM)
        assert publisher.acknowledged.items() <= self.numbers().items()


@contextlib.contextmanager
def three(folder: Path) -> Iterator[Servers]:
    """Three servers that run, and a stream."""
    with running_servers(folder, 3) as servers:
        made = Servers(servers)
        try:
            yield made
        finally:
            made.broker.close()


def test_what_was_acknowledged_outlives_the_leader(tmp_path: Path) -> None:
    """Each of them in turn, as often as the lead changes."""
    with three(tmp_path) as servers, servers.publishing() as publisher:
        for _ in range(3):
            server = servers.leader
            server.kill()
            publisher.more()
            server.start()
            wait_until_healthy(servers.all)
            wait_until_replicated(servers.broker, STREAM)


@pytest.mark.skipif(not can_shift(), reason="clocks can be shifted on Linux for x86-64 alone")
def test_messages_carry_the_time_of_whoever_leads(tmp_path: Path) -> None:
    """So the times in a stream may go back, and whoever reads them has to know."""
    with three(tmp_path) as servers, servers.publishing() as publisher:
        first = servers.leader
        assert first.process is not None
        shift_clock(first.process.pid, 300)
        publisher.more()
        step_down(servers.broker, STREAM)
        eventually(lambda: servers.leader is not first, "another leads")
        publisher.more()
        publisher.end()

        async def times_s() -> list[float]:
            stamps = []
            for sequence in publisher.acknowledged:
                message = await servers.broker.js.get_msg(STREAM, sequence)
                assert message.time is not None
                stamps.append(message.time.timestamp())
            return stamps

        times = servers.broker.call(times_s)
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(steps) > 200
        assert min(steps) < -200


@needs_root
def test_whoever_is_cut_off_acknowledges_nothing_that_is_lost(tmp_path: Path) -> None:
    """The leader does not know at first that it leads nobody any more."""
    with network(3) as net:
        hosts = [net.address(number) for number in range(3)]
        servers = make_servers(tmp_path, 3, hosts=hosts)
        for number, server in enumerate(servers):
            server.within = net.within(number)
        with _run(servers) as made, made.publishing() as publisher:
            for _ in range(2):
                cut_off = made.leader
                net.isolate(servers.index(cut_off))
                eventually(lambda cut_off=cut_off: _elsewhere(servers, cut_off), "another leads")  # type: ignore[misc]
                publisher.more()
                net.heal()
                wait_until_healthy(servers)
                wait_until_replicated(made.broker, STREAM)


def _elsewhere(servers: Sequence[Server], cut_off: Server) -> bool:
    """Whether the others have elected one of them."""
    others = [server for server in servers if server is not cut_off]
    broker = connect(others)
    try:
        return leader(broker, servers, STREAM) is not cut_off
    finally:
        broker.close()


@needs_root
def test_a_server_without_room_leaves_the_stream_to_the_others(tmp_path: Path) -> None:
    """And has what it missed when there is room again."""
    with contextlib.ExitStack() as stack:
        servers = make_servers(tmp_path, 3)
        disks = _disks(stack, tmp_path, servers)
        made = stack.enter_context(_run(servers))
        with made.publishing() as publisher:
            full = made.leader
            place = disks[servers.index(full)]
            place.fill()
            eventually(lambda: made.leader is not full, "another leads")
            publisher.more()
            place.make_room()
            full.stop()
            full.start()
        full.stop()


@needs_root
@pytest.mark.parametrize(("sync", "safe"), [("always", True), ("2m", False)])
def test_what_was_acknowledged_outlives_a_power_failure_if_it_was_flushed(
    tmp_path: Path, sync: str, safe: bool
) -> None:
    """Of all servers at once. That it is lost when it is flushed lazily shows that the test would see it."""
    with contextlib.ExitStack() as stack:
        servers = make_servers(tmp_path, 3, sync=sync)
        disks = _disks(stack, tmp_path, servers)
        made = stack.enter_context(_run(servers))
        publisher = Publisher(made.broker)
        publisher.more()
        for server in servers:  # before the disks fail, since whoever has no power acknowledges nothing
            server.kill()
        for each in disks:
            each.lose_power()
        publisher.end()
        for each in disks:
            each.unmount()
            each.mount()
        for server in servers:
            server.start()
        wait_until_healthy(servers)
        if safe:
            wait_until_replicated(made.broker, STREAM)
        assert (publisher.acknowledged.items() <= made.numbers().items()) == safe
        for server in servers:
            server.stop()


def _disks(stack: contextlib.ExitStack, folder: Path, servers: Sequence[Server]) -> list[Disk]:
    return [stack.enter_context(disk(folder, server.name)) for server in servers]


@contextlib.contextmanager
def _run(servers: Sequence[Server]) -> Iterator[Servers]:
    try:
        for server in servers:
            server.start()
        wait_until_healthy(servers)
        made = Servers(servers)
        try:
            yield made
        finally:
            made.broker.close()
    finally:
        for server in servers:
            server.kill()
