"""What one node may do at a time: taken, kept, lost, and taken over."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from nats.js.api import KeyValueConfig, StorageType
from tests.service import PATIENCE_S, eventually

from rankward.errors import DataFolderHeld
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker(nats_server: Server) -> Iterator[Broker]:
    """A connection, for an installation of these tests' own."""
    connection = Broker(BrokerOptions(servers=(nats_server.url,), prefix=f"leases-{uuid4().hex}"))
    # No key expires before a test is over, however slow the machine is.
    lasting = KeyValueConfig(bucket=connection.stream("leases"), ttl=PATIENCE_S * 60, storage=StorageType.MEMORY)
    connection.call(lambda: connection.ensure_bucket(lasting))
    yield connection
    connection.close()


def lease(broker: Broker, holder: str, key: str) -> Lease:
    """What a node asks for."""
    return Lease(broker, key, holder=holder, what="an import")


def test_a_node_is_refused_what_another_does_and_told_which(broker: Broker) -> None:
    """Who is refused wants to know where to look."""
    one = lease(broker, "one", "a")
    with one.held():
        eventually(lambda: one.holds, "one has it")
        with (
            pytest.raises(DataFolderHeld, match="an import is under way on the node one"),
            lease(broker, "two", "a").held(),
        ):
            pytest.fail("both have it")
        with lease(broker, "two", "b").held():
            pass  # something else
    with lease(broker, "two", "a").held():
        pass  # it was let go


def test_a_node_goes_on_with_what_its_dead_process_had(broker: Broker) -> None:
    """A restart must not have to wait until the sign of life of the process before has run out."""
    with ExitStack() as stack:
        dead = lease(broker, "one", "c")
        stack.enter_context(dead.held())
        with lease(broker, "one", "c").held():
            pass


def test_who_was_taken_for_dead_knows_it_soon(broker: Broker) -> None:
    """It was cut off, and another does it by now: two at once is what a lease is there to prevent."""
    one = lease(broker, "one", "d")
    with one.held():
        stream = f"KV_{broker.stream('leases')}"
        broker.call(lambda: broker.js.purge_stream(stream, subject=f"$KV.{broker.stream('leases')}.d"))  # it expired
        with lease(broker, "two", "d").held():
            eventually(lambda: not one.holds, "one knows")
