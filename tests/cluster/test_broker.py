"""The connection to the servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
from typing import TYPE_CHECKING

import nats.errors
import pytest
from tests.service import PATIENCE_S

from rankward.cluster.servers import free_ports, make_servers, running_servers, wait_until_healthy
from rankward.errors import StoreUnavailable
from rankward.store.nats.broker import Broker, BrokerOptions, read_options, write_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


def test_what_is_published_is_there_for_another_connection(nats_server: Server) -> None:
    """Without this nothing works."""
    options = BrokerOptions(servers=(nats_server.url,), prefix="broker-test")
    one, other = Broker(options), Broker(options)
    try:
        one.call(lambda: one.ensure_stream(one.stream("words"), [one.subject("words")]))
        one.call(lambda: one.ensure_stream(one.stream("words"), [one.subject("words")]))  # again: it is there
        ack = one.call(lambda: one.js.publish(one.subject("words"), b"hello"))
        assert other.call(lambda: other.js.get_msg(other.stream("words"), ack.seq)).data == b"hello"
    finally:
        one.close()
        other.close()


def test_a_server_that_does_not_answer_is_said_so() -> None:
    """An operator who mistyped the address reads which one."""
    [port] = free_ports(1)
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}"):
        Broker(BrokerOptions(servers=(f"nats://127.0.0.1:{port}",)))


def test_a_server_that_flushes_lazily_is_refused_unless_it_is_accepted(tmp_path: Path) -> None:
    """What was acknowledged must outlive a power failure, or the operator has said that it need not."""
    with running_servers(tmp_path, 1, sync="2m") as [server]:
        with pytest.raises(StoreUnavailable, match="sync_interval: always"):
            Broker(BrokerOptions(servers=(server.url,)))
        Broker(BrokerOptions(servers=(server.url,), accept_lazy_flush=True)).close()


@contextlib.contextmanager
def standing_still(server: Server, for_s: float) -> Iterator[None]:
    """Let a server stand still for a while, as one does whose machine is busy."""
    assert server.process is not None, "it runs"
    server.process.send_signal(signal.SIGSTOP)
    going_on = threading.Timer(for_s, server.process.send_signal, (signal.SIGCONT,))
    going_on.start()
    yield
    going_on.join()


def test_each_of_several_servers_is_asked_how_it_flushes(tmp_path: Path) -> None:
    """One that is lazy may be in the quorum, and after a power failure so may be what it has lost."""
    servers = make_servers(tmp_path, 3)
    lazy = tmp_path / "node-3.conf"
    lazy.write_text(lazy.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    try:
        for server in servers:
            server.start()
        wait_until_healthy(servers)
        for server in servers:
            with pytest.raises(StoreUnavailable, match="node-3 keeps what it has acknowledged in memory"):
                Broker(BrokerOptions(servers=(server.url,)))
        with (
            standing_still(servers[2], 1.0),
            pytest.raises(StoreUnavailable, match="node-3 keeps what it has acknowledged in memory"),
        ):
            Broker(BrokerOptions(servers=(servers[0].url,)))
        servers[2].stop()
        broker = Broker(BrokerOptions(servers=(servers[0].url,)))
        assert broker.count_servers() == 3
        broker.close()
    finally:
        for server in servers:
            server.kill()


def test_a_connection_that_is_lost_can_be_closed(tmp_path: Path) -> None:
    """A service that is stopped while the servers are away ends, whatever it had to send."""
    with running_servers(tmp_path, 1) as [server]:
        broker = Broker(BrokerOptions(servers=(server.url,)))
        server.kill()
        with pytest.raises(StoreUnavailable):
            broker.call(lambda: broker.js.publish(broker.subject("words"), b"hello", timeout=0.5))
        broker.close()


def test_who_has_gone_is_not_told_what_failed(nats_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A process that ends gives up what it waits for, and hangs up: a traceback would look as if it had crashed."""
    broker = Broker(BrokerOptions(servers=(nats_server.url,)))
    waits = threading.Event()

    async def wait() -> None:
        subscription = await broker.client.subscribe("news")
        waits.set()
        try:
            await subscription.next_msg(PATIENCE_S)
        except asyncio.CancelledError:
            raise nats.errors.ConnectionClosedError from None  # as the client does while it is being closed

    async def leave() -> None:
        asking = asyncio.create_task(broker.ask(wait))
        await asyncio.to_thread(waits.wait)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(leave())
    broker.close()
    gc.collect()
    assert not caplog.records


def test_a_node_remembers_where_its_servers_are(tmp_path: Path) -> None:
    """Each process of a node opens the folder alone."""
    assert read_options(tmp_path / "node.json") is None
    (tmp_path / "node.json").write_text('{"servers": ["nats://here:4222"], "replicas": 3}')
    assert read_options(tmp_path / "node.json") == BrokerOptions(
        servers=("nats://here:4222",), replicas=3, node=socket.gethostname()
    )
    written = BrokerOptions(servers=("tls://one:4222", "tls://other:4222"), credentials="/etc/credentials", node="one")
    write_options(tmp_path / "node.json", written)
    assert read_options(tmp_path / "node.json") == written
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(StoreUnavailable, match=r"node\.json"):
        read_options(tmp_path / "node.json")


def test_what_nobody_received_is_published_again_until_somebody_leads_the_stream(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each change of leader there is none for a second or two, and callers need not know."""
    monkeypatch.setattr(
        "rankward.store.nats.broker.ACK_S", PATIENCE_S
    )  # making the stream may take a busy machine long
    broker = Broker(BrokerOptions(servers=(nats_server.url,), prefix="nobody"))

    async def publish() -> int:
        early = asyncio.create_task(broker.publish(broker.subject("words"), b"hello"))
        await asyncio.wait([early], timeout=0.1)  # a server that does not know the stream says so at once
        await broker.ensure_stream(broker.stream("words"), [broker.subject("words")])
        return (await early).seq

    try:
        assert broker.call(publish) == 1
    finally:
        broker.close()


def test_a_password_in_an_address_is_shown_to_nobody() -> None:
    """Addresses stand in messages, and messages in logs."""
    options = BrokerOptions(servers=("nats://rankward:secret@here:4222", "tls://there"))
    assert options.shown == ["here:4222", "there:4222"]
    with pytest.raises(StoreUnavailable) as refused:
        Broker(BrokerOptions(servers=("nats://rankward:secret@127.0.0.1:1",)))
    assert "secret" not in str(refused.value)
