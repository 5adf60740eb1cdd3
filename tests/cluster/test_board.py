"""Notes of what each process does, as all nodes see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rankward.store.nats.board import SharedBoard
from rankward.store.nats.broker import Broker, BrokerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow

LOOP = "0" * 32


@pytest.fixture
def broker(nats_server: Server) -> Iterator[Broker]:
    """A connection, for an installation of the test's own."""
    connection = Broker(BrokerOptions(servers=(nats_server.url,), prefix=f"notes-{uuid4().hex}"))
    yield connection
    connection.close()


def board(folder: Path, broker: Broker, *, listening: bool = True) -> SharedBoard:
    """A node's board."""
    (folder / LOOP).mkdir(parents=True)
    made = SharedBoard(folder, broker, node=folder.name, own=("joining",))
    if listening:
        made.listen()
    return made


def wait_for(fact: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_what_the_leader_posts_is_read_on_every_node(tmp_path: Path, broker: Broker) -> None:
    """The doctor and the metrics of a node that only answers requests must say how training stands."""
    leader, other = board(tmp_path / "leader", broker), board(tmp_path / "other", broker)
    leader.post(LOOP, "training-1", b"first")
    leader.post(LOOP, "joining", b"of the leader")
    for count in range(50):  # told at most once a second, but the last is told
        leader.post(LOOP, "training-1", b"%d" % count)
    assert leader.read(LOOP)["training-1"] == b"49"
    wait_for(lambda: other.read(LOOP) == {"training-1": b"49"})
    leader.take_down(LOOP, "training-1")
    wait_for(lambda: other.read(LOOP) == {})
    assert leader.read(LOOP) == {"joining": b"of the leader"}


def test_a_node_that_comes_later_reads_what_was_posted_before(tmp_path: Path, broker: Broker) -> None:
    """Some notes are posted once in minutes."""
    leader, witness = board(tmp_path / "leader", broker), board(tmp_path / "witness", broker)
    leader.post(LOOP, "study", b"half")
    wait_for(lambda: witness.read(LOOP) == {"study": b"half"})
    assert board(tmp_path / "late", broker).read(LOOP) == {"study": b"half"}


def test_posting_does_not_need_the_servers(tmp_path: Path, nats_server: Server) -> None:
    """A note is not worth failing for."""
    broker = Broker(BrokerOptions(servers=(nats_server.url,), prefix="notes-closed"))
    alone = board(tmp_path / "alone", broker, listening=False)
    broker.call(broker.client.close)
    alone.post(LOOP, "training-1", b"note")
    assert alone.read(LOOP) == {"training-1": b"note"}
    broker.close()
