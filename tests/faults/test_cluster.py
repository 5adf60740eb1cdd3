"""Three servers and four nodes, under load: any of them dies, stands still, is cut off, full, or wrong about time."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from rankward.cluster.servers import Server, wait_until_healthy
from tests.faults.clocks import can_shift, shift_clock
from tests.faults.cluster import KEY, Cluster, running_cluster
from tests.faults.disks import disk, needs_root
from tests.faults.network import network
from tests.faults.streams import step_down, wait_until_replicated
from tests.service import KEY_HEADER, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.traffic import Traffic

needs_clocks = pytest.mark.skipif(not can_shift(), reason="clocks can be shifted on Linux for x86-64 alone")

SKEW_S = 300
WITHOUT_QUORUM_S = 30

WHICH: dict[str, Callable[[Cluster], Server | RunningService]] = {
    "the leader of the stream": lambda cluster: cluster.leader,
    "a follower": lambda cluster: next(server for server in cluster.servers if server is not cluster.leader),
    "the worker that leads": lambda cluster: cluster.worker,
    "an api node": lambda cluster: cluster.nodes["api-1"],
}
each_part = pytest.mark.parametrize("which", WHICH)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of its own: what is done to it would show in other tests."""
    with running_cluster(tmp_path) as running:
        yield running


@pytest.mark.slow
def test_a_server_and_an_api_node_die_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    """The short form of what follows: the server that leads the stream, and the node that clients speak with."""
    with cluster.traffic() as traffic:
        server, node = cluster.leader, cluster.nodes["api-1"]
        server.kill()
        traffic.more(50)
        node.kill()
        traffic.more(50)
        node.launch()
        server.start()


@pytest.mark.fault
@each_part
def test_a_part_is_killed(cluster: Cluster, which: str) -> None:
    """The promise that a 201 and a 204 make, and that it goes on by itself."""
    with cluster.traffic() as traffic:
        for _ in range(2):
            part = WHICH[which](cluster)
            part.kill()
            _notice(cluster, part, traffic)
            _start(part)
            _settle(cluster)


@pytest.mark.fault
@each_part
def test_a_part_stands_still_and_goes_on(cluster: Cluster, which: str) -> None:
    """Long enough for the others to have gone on without it: what it believes then is out of date."""
    with cluster.traffic() as traffic:
        part = WHICH[which](cluster)
        _signal(part, signal.SIGSTOP)
        try:
            _notice(cluster, part, traffic)
        finally:
            _signal(part, signal.SIGCONT)


@pytest.mark.fault
def test_all_servers_are_restarted_one_after_the_other(cluster: Cluster) -> None:
    """As an upgrade does it."""
    with cluster.traffic() as traffic:
        for server in cluster.servers:
            server.stop()
            server.start()
            _settle(cluster)
            traffic.more(50)


@pytest.mark.fault
def test_without_a_quorum_calls_are_refused_and_told_to_come_back(cluster: Cluster) -> None:
    """An answer would be a promise that nobody can keep; and with the servers back, it goes on by itself."""
    with cluster.traffic() as traffic:
        for server in cluster.servers[:2]:
            server.kill()
        with httpx.Client(base_url=f"{cluster.apis[0].url}/personalizer/v1.0", headers={KEY_HEADER: KEY}) as client:
            until = time.monotonic() + WITHOUT_QUORUM_S
            statuses: list[int] = []
            while time.monotonic() < until:
                answer = client.post("/rank", json=request("a", "b"), timeout=60)
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    assert int(answer.headers["Retry-After"]) >= 1
        assert set(statuses[1:]) == {503}  # the first may have been under way
        before = len(traffic.ranked)
        for server in cluster.servers[:2]:
            server.start()
        wait_until_healthy(cluster.servers)
        traffic.more(100)
        assert before < len(traffic.ranked)
    assert all(says_when for status, says_when in traffic.refused if status == 503)


@pytest.mark.fault
@needs_root
@each_part
def test_a_part_is_cut_off_and_comes_back(tmp_path: Path, which: str) -> None:
    """It does not die, and does not know."""
    with network(7) as net, running_cluster(tmp_path, net) as cluster, cluster.traffic() as traffic:
        part = WHICH[which](cluster)
        net.isolate(cluster.hosts[part.name])
        try:
            _notice(cluster, part, traffic)
        finally:
            net.heal()


@pytest.mark.fault
@needs_root
@each_part
def test_the_disk_of_a_part_is_full(tmp_path: Path, which: str) -> None:
    """The others go on, and with room again, so does it."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path)
        places = [*(server.name for server in cluster.servers), *cluster.nodes]
        disks = {name: stack.enter_context(disk(tmp_path, name)) for name in places}
        stack.callback(cluster.close)
        cluster.start()
        with cluster.traffic() as traffic:
            part = WHICH[which](cluster)
            disks[part.name].fill()
            traffic.more(200)
            disks[part.name].make_room()
            if isinstance(part, Server):  # it does not take up JetStream again by itself
                part.stop()
                part.start()


@pytest.mark.fault
@needs_clocks
def test_the_servers_disagree_about_the_time(cluster: Cluster) -> None:
    """Each stamps what it orders, so that with each change of leader time jumps, or goes back."""
    with cluster.traffic(after=lambda: cluster.pass_time(2 * SKEW_S)) as traffic:
        for by_s in (SKEW_S, -SKEW_S):
            server = cluster.leader
            assert server.process is not None
            shift_clock(server.process.pid, by_s)
            traffic.more(50)
            step_down(cluster.broker, cluster.stream)
            eventually(lambda server=server: cluster.leader is not server, "another leads")  # type: ignore[misc]
            traffic.more(50)


@pytest.mark.fault
@needs_clocks
def test_api_nodes_disagree_about_the_time(cluster: Cluster) -> None:
    """Their clocks must not decide anything that is written down."""
    with cluster.traffic() as traffic:
        for node, by_s in zip(cluster.apis, (SKEW_S, -SKEW_S), strict=True):
            for process in node.processes():
                shift_clock(process.pid, by_s)
        traffic.more(200)


@pytest.mark.fault
@needs_root
def test_the_power_fails_everywhere_at_once(tmp_path: Path) -> None:
    """What was not flushed is lost: on the servers, and in the replicas of the nodes."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path)
        places = [*(server.name for server in cluster.servers), *cluster.nodes]
        disks = [stack.enter_context(disk(tmp_path, name)) for name in places]
        stack.callback(cluster.close)
        cluster.start()
        with cluster.traffic() as traffic:
            traffic.more(300)
            for node in cluster.nodes.values():
                node.kill()
            for server in cluster.servers:
                server.kill()
            cluster.let_go()
            for each in disks:
                each.lose_power()
                each.unmount()
                each.mount()
            for server in cluster.servers:
                server.start()
            wait_until_healthy(cluster.servers)
            for node in cluster.nodes.values():
                node.launch()
            cluster.wait_until_ready()


def _notice(cluster: Cluster, part: Server | RunningService, traffic: Traffic) -> None:
    """Wait until the others have gone on without a part."""
    if isinstance(part, Server):
        eventually(lambda: cluster.leader is not part, "another server leads")
    elif part.part == "worker":
        eventually(lambda: cluster.worker is not part, "another worker leads")
    traffic.more(100)


def _settle(cluster: Cluster) -> None:
    """Wait until the servers are whole again, so that the next one may be lost."""
    wait_until_healthy(cluster.servers)
    wait_until_replicated(cluster.broker, cluster.stream)


def _start(part: Server | RunningService) -> None:
    if isinstance(part, Server):
        part.start()
    else:
        part.launch()  # it may take a while until it can do its work


def _signal(part: Server | RunningService, number: int) -> None:
    if isinstance(part, Server):
        assert part.process is not None
        part.process.send_signal(number)
    else:
        for process in part.processes():
            process.send_signal(number)
