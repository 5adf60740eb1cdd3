"""A real cluster for tests: three JetStream servers, and nodes, each of which can be killed, paused and cut off."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import cached_property
from typing import TYPE_CHECKING

import httpx

from rankward.cluster.servers import Server, make_servers, wait_until_healthy
from rankward.loops import playground_settings
from rankward.records import Tick
from rankward.store.nats.broker import BrokerOptions
from rankward.wiring import Home
from tests.faults.audit import audit_nodes
from tests.faults.clocks import shift_clock
from tests.faults.streams import connect, leader, wait_until_replicated
from tests.faults.traffic import Traffic
from tests.service import RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rankward.store.nats.broker import Broker
    from tests.faults.network import Network

LOOP = "busy"
KEY = "the-key-of-the-busy-loop"
NODES = {"api-1": "api", "api-2": "api", "worker-1": "worker", "worker-2": "worker"}


class Cluster:
    """Servers and nodes, and a loop whose events are learned within seconds."""

    def __init__(self, folder: Path, net: Network | None = None) -> None:
        """Prepare it: nothing runs yet.

        Args:
            folder: for all files.
            net: with a host for each server and node. None: all are on this machine's own address.
        """
        names = ["node-1", "node-2", "node-3", *NODES]
        self.hosts = {name: number for number, name in enumerate(names)}
        self._net = net
        self.servers = make_servers(folder, 3, hosts=[self._address(name) for name in names[:3]])
        for server in self.servers:
            server.within = self._within(server.name)
        urls = tuple(server.url for server in self.servers)
        self.nodes = {
            name: RunningService(
                folder / "running" / name,
                node=BrokerOptions(servers=urls, replicas=len(urls), node=name),
                part=part,
                data=folder / name / "data",
                host=self._address(name),
                within=self._within(name),
            )
            for name, part in NODES.items()
        }
        self._closing = threading.Event()
        self._manager = threading.Thread(target=self._manage)

    def _address(self, name: str) -> str:
        return "127.0.0.1" if self._net is None else self._net.address(self.hosts[name])

    def _within(self, name: str) -> tuple[str, ...]:
        return () if self._net is None else self._net.within(self.hosts[name])

    def start(self) -> None:
        """Start everything, make the loop, and wait until all nodes serve it."""
        for server in self.servers:
            server.start()
        wait_until_healthy(self.servers)
        for node in self.nodes.values():
            node.launch()
        self._manager.start()
        self.wait_until_ready()
        self.home("api-1").loops.create(LOOP, playground_settings(), {1: KEY})
        for node in self.apis:
            eventually(lambda node=node: self._serves(node), f"{node.name} serves the loop")  # type: ignore[misc]

    def _manage(self) -> None:
        while not self._closing.wait(0.5):
            for node in self.nodes.values():
                node.tend()

    @property
    def apis(self) -> Sequence[RunningService]:
        """The nodes that answer HTTP."""
        return [node for node in self.nodes.values() if node.part == "api"]

    def wait_until_ready(self) -> None:
        """Wait until all nodes that answer HTTP can rank."""
        for node in self.apis:
            eventually(node.ready, f"{node.name} is ready: see {node.output}")

    def _serves(self, node: RunningService) -> bool:
        headers = {"Ocp-Apim-Subscription-Key": KEY}
        with contextlib.suppress(httpx.HTTPError):
            url = f"{node.url}/personalizer/v1.0/configurations/service"
            return httpx.get(url, headers=headers, timeout=2).status_code == 200
        return False

    def home(self, name: str) -> Home:
        """A node's installation, as another process of the node sees it."""
        return self.nodes[name].home

    def let_go(self) -> None:
        """Close what this process has open of the nodes' folders."""
        for node in self.nodes.values():
            node.let_go()

    @cached_property
    def broker(self) -> Broker:
        """A connection of the test's own."""
        return connect(self.servers)

    @property
    def stream(self) -> str:
        """The stream of the loop's events."""
        return self.broker.stream("events", self.loop_id)

    @cached_property
    def loop_id(self) -> str:
        """Of the loop."""
        return self.home("api-1").catalog.loop(LOOP).loop_id

    @property
    def leader(self) -> Server:
        """The server that orders what comes to the loop's stream."""
        return leader(self.broker, self.servers, self.stream)

    @property
    def worker(self) -> RunningService:
        """The node whose worker leads the loop, waiting for it to be settled."""
        holders: list[str] = []

        def led() -> bool:
            lead = self.home("api-1").catalog.leads().get(self.loop_id)
            holders[:] = [] if lead is None or not lead.holder else [lead.holder]
            return bool(holders)

        eventually(led, "a worker leads the loop")
        return self.nodes[holders[0]]

    @contextlib.contextmanager
    def traffic(
        self, *, clients: int = 3, pause_s: float = 0.02, after: Callable[[], object] = lambda: None
    ) -> Iterator[Traffic]:
        """Have traffic, and in the end hold every node to every promise.

        Args:
            clients: how many.
            pause_s: of each, between two visits.
            after: done when the traffic has ended, before all is waited for.
        """
        traffic = Traffic([node.url for node in self.apis], KEY, clients=clients, pause_s=pause_s)
        try:
            traffic.more(50)
            yield traffic
            traffic.more(50)
        finally:
            traffic.end()
        after()
        wait_until_healthy(self.servers)
        wait_until_replicated(self.broker, self.stream)
        self.wait_until_ready()
        audit_nodes([*self.nodes.values()], LOOP, traffic)

    def pass_time(self, by_s: int) -> None:
        """Let time pass in the loop's log, so that the reward wait of all that it has is over.

        Args:
            by_s: that the clocks of the servers are ahead of the machine while it does.
        """
        for server in self.servers:
            assert server.process is not None, "it runs"
            shift_clock(server.process.pid, by_s)
        log = self.home("api-1").event_log(self.loop_id)

        async def append() -> None:
            try:
                await log.append([Tick()])
            finally:
                await log.close()

        asyncio.run(append())

    def close(self) -> None:
        """Leave nothing behind but files."""
        self._closing.set()
        if self._manager.is_alive():
            self._manager.join()
        for node in self.nodes.values():
            node.kill()
            node.close()
        if "broker" in self.__dict__:
            self.broker.close()
        for server in self.servers:
            server.kill()


@contextlib.contextmanager
def running_cluster(folder: Path, net: Network | None = None) -> Iterator[Cluster]:
    """Have a cluster, and stop it in the end."""
    cluster = Cluster(folder, net)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
