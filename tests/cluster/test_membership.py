"""Who is alive, as the servers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.service import eventually

from rankward.cluster.membership import Membership, read_members
from rankward.cluster.standing import Member
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.wiring import elapsed_us

if TYPE_CHECKING:
    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


def _node(name: str, *, works: bool = True) -> Member:
    return Member(name=name, works=works, host="here", version="1", since_us=5)


class Timer:
    """Stands still until it is let go."""

    def __init__(self) -> None:
        self.goes = False

    def __call__(self) -> int:
        """Microseconds since some moment."""
        return elapsed_us() if self.goes else 0


def test_workers_see_each_other_come_and_go(nats_server: Server) -> None:
    """Who says goodbye is not waited for; who says nothing expires by the servers' clock."""
    broker = Broker(BrokerOptions(servers=(nats_server.url,), prefix="membership-test"))
    timer = Timer()
    one, two = Membership(broker, _node("one"), timer=timer), Membership(broker, _node("two"), timer=elapsed_us)
    follower = Membership(broker, _node("three", works=False), timer=elapsed_us)
    assert one.cut_off, "it has never been heard of"
    try:
        one.start()
        follower.start()
        eventually(lambda: one.living == {"one"}, "one sees itself")
        eventually(lambda: not one.cut_off, "the servers have heard of one")
        assert not one.settled, "it has only just come, and another may be on its way"
        timer.goes = True
        two.start()
        one.say(works=True, loops=3, behind=7)
        eventually(lambda: one.living == {"one", "two"}, "one sees two")
        eventually(lambda: [node.loops for node in read_members(broker)] == [3, 0, 0], "what one says is read")
        follower.say(works=True, loops=0, behind=0)
        eventually(lambda: one.living == {"one", "two", "three"}, "three works, too, from now on")
        follower.say(works=False, loops=0, behind=0)
        eventually(
            lambda: [node.name for node in read_members(broker)] == ["one", "three", "two"], "each is named once"
        )
        eventually(lambda: one.settled, "one has seen enough")
        two.close()
        eventually(lambda: one.living == {"one"}, "two has said goodbye")
        eventually(lambda: two.cut_off, "who is not heard of knows it, before another takes its loops")
    finally:
        one.close()
        follower.close()
        broker.close()
