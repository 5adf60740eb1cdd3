"""Nodes that start together, on three servers that hold nothing yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from rankward.cluster.servers import running_servers
from rankward.store.nats.broker import Broker, BrokerOptions, write_options
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Server]]:
    """Three servers."""
    with running_servers(tmp_path_factory.mktemp("servers"), 3) as servers:
        yield servers


def test_they_make_each_stream_once(servers: Sequence[Server]) -> None:
    """While one makes a stream, servers tell the others that there is one, that there is none, or nothing at all."""
    brokers = [Broker(BrokerOptions(servers=(server.url,), replicas=3)) for server in (*servers, *servers)]
    try:
        with ThreadPoolExecutor(len(brokers)) as threads:
            for name in ("one", "two", "three"):
                makes = [
                    partial(broker.ensure_stream, name, [name], metadata={"maker": str(number)})
                    for number, broker in enumerate(brokers)
                ]
                made = [threads.submit(broker.call, make) for broker, make in zip(brokers, makes, strict=True)]
                for each in made:
                    each.result()
    finally:
        for broker in brokers:
            broker.close()


def test_what_they_need_they_make_together(tmp_path: Path, servers: Sequence[Server]) -> None:
    """Streams, buckets, the first loops and keys: a node that is not the first waits for what the others are making."""

    def start(number: int) -> set[str]:
        root = tmp_path / f"node-{number}"
        root.mkdir()
        url = servers[number % len(servers)].url
        write_options(
            root / "node.json", BrokerOptions(servers=(url,), prefix="together", replicas=3, node=f"node-{number}")
        )
        with closing(Home(root)) as home:
            assert home.node is not None
            home.loops.furnish({})
            home.node.board.listen()
            home.node.vault.read()
            home.sessions().close()
            loops = home.catalog.loops()
            home.models.put(loops[0].loop_id, f"m-{number}", b"learned")
            return {loop.loop_id for loop in loops}

    with ThreadPoolExecutor(6) as threads:
        first, *others = threads.map(start, range(6))
    assert len(first) == 2
    assert all(other == first for other in others)
