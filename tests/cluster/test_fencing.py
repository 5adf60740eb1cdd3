"""Who does not lead a loop any more changes nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.store.test_catalog import a_version

from rankward.errors import NotLeading
from rankward.settings import LoopSettings
from rankward.store.nats.broker import BrokerOptions
from rankward.store.ports import SetAside
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(tmp_path: Path, nats_server: Server) -> Iterator[tuple[Home, Home]]:
    """Two nodes of a cluster."""
    homes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        options = BrokerOptions(servers=(nats_server.url,), prefix="fencing", node=name)
        (tmp_path / name / "node.json").write_bytes(msgspec.json.encode(options))
        homes.append(Home(tmp_path / name))
    one, two = homes
    yield one, two
    one.close()
    two.close()


def test_what_is_done_under_an_old_term_is_refused(nodes: tuple[Home, Home]) -> None:
    """Though the one that does it has not heard of the new one yet: so it is with a worker that slept."""
    one, two = nodes
    loop = one.loops.create("busy", LoopSettings())
    fence = one.catalog.take_lead(loop.loop_id, "one", over_term=0)
    [epoch] = one.catalog.epochs(loop.loop_id)
    aside = SetAside(loop_id=loop.loop_id, interaction=3, event_id="e", reason="odd", time_us=5)
    changes: list[Callable[[], object]] = [
        lambda: one.catalog.publish(a_version(loop, "m2"), serve=True),
        lambda: one.catalog.settle_epoch(epoch),
        lambda: one.catalog.set_aside(aside),
        lambda: one.catalog.update_loop(one.catalog.loop("busy")),
        lambda: one.catalog.forget_version("m1", loop.loop_id),
        lambda: one.challengers.set_aside("key", aside),
    ]
    with one.acting(fence):
        one.catalog.publish(a_version(loop, "m1"), serve=True)
    assert two.node is not None
    two.node.refresh()
    two.catalog.take_lead(loop.loop_id, "two", over_term=fence.term)

    for change in changes:
        with one.acting(fence), pytest.raises(NotLeading):
            change()
    assert one.catalog.loop("busy").model_id == "m1"
    assert one.catalog.set_asides(loop.loop_id) == []
    for change in changes:  # nobody acts for the loop here: people may change it from any node
        change()


def test_a_loop_that_is_gone_is_led_by_nobody(nodes: tuple[Home, Home]) -> None:
    """Its trainer may be in the middle of its work, on a node that has not heard of it."""
    one, two = nodes
    loop = one.loops.create("gone", LoopSettings())
    fence = one.catalog.take_lead(loop.loop_id, "one", over_term=0)
    two.loops.delete("gone")
    with one.acting(fence), pytest.raises(NotLeading):
        one.catalog.publish(a_version(loop, "m1"), serve=True)
