"""What tests ask JetStream itself: who leads a stream, and what is in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rankward.errors import RankwardError
from rankward.store.nats.broker import Broker, BrokerOptions
from tests.service import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.js.api import StreamInfo

    from rankward.cluster.servers import Server


def connect(servers: Sequence[Server]) -> Broker:
    """Connect to any of them, whatever they promise."""
    urls = tuple(server.url for server in servers)
    return Broker(BrokerOptions(servers=urls, replicas=len(urls), accept_lazy_flush=True))


def leader(broker: Broker, servers: Sequence[Server], stream: str) -> Server:
    """Find the server that orders what comes to a stream, waiting for it to be elected."""
    by_name = {server.name: server for server in servers}
    found: list[Server] = []

    def elected() -> bool:
        info = _info(broker, stream)
        if info is not None and info.cluster is not None and info.cluster.leader in by_name:
            found.append(by_name[info.cluster.leader])
        else:  # the server that was asked may be cut off from those that have elected one
            broker.call(broker.client.force_reconnect)
        return bool(found)

    eventually(elected, f"{stream} has a leader")
    return found[0]


def step_down(broker: Broker, stream: str) -> None:
    """Let another server lead a stream."""
    subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}"
    broker.call(lambda: broker.client.request(subject, b"", timeout=5))


def wait_until_replicated(broker: Broker, stream: str) -> None:
    """Wait until every server that should have a stream has all of it."""

    def replicated() -> bool:
        info = _info(broker, stream)
        replicas = info.cluster.replicas if info is not None and info.cluster is not None else None
        enough = len(replicas or ()) == broker.options.replicas - 1
        return enough and all(peer.current and not peer.offline and not peer.lag for peer in replicas or ())

    eventually(replicated, f"all replicas of {stream} are complete")


def _info(broker: Broker, stream: str) -> StreamInfo | None:
    with contextlib.suppress(RankwardError):
        return broker.call(lambda: broker.js.stream_info(stream))
    return None
