"""A node's worker among the others: it shows that it lives, follows what they change, and leads its share of loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

from rankward import __version__
from rankward.cluster.leading import Leads
from rankward.cluster.membership import Membership
from rankward.cluster.standing import Member, write_standing
from rankward.errors import RankwardError
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_LOOK_S = 0.5  # between two looks at what waits


@contextlib.asynccontextmanager
async def among_others(home: Home, *, may_work: bool) -> AsyncIterator[Leads]:
    """Be one of the nodes, until the end of the block.

    Args:
        home: a node's.
        may_work: whether it may lead loops once its replica has caught up.
    """
    assert home.broker is not None, "the folder is a node's"
    host = socket.gethostname()
    member = Member(name=home.broker.options.node, works=False, host=host, version=__version__, since_us=home.clock())
    membership = Membership(home.broker, member, timer=home.timer)
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(home.follow()), group.create_task(_send_what_waits(home))]
        await asyncio.to_thread(membership.start)
        try:
            yield Leads(
                home.catalog,
                membership,
                may_work=may_work,
                tell=lambda standing: write_standing(home.folder.standing, standing),
                clock=home.clock,
                timer=home.timer,
            )
        finally:
            for task in following:
                task.cancel()
            await asyncio.to_thread(membership.close)


async def _send_what_waits(home: Home) -> None:
    """Send what waits on this node for the servers, when they are back, until cancelled."""
    recovered = False
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            if not recovered:
                await home.recover_what_waits()
                recovered = True
            await home.send_what_waits()
        except RankwardError as error:
            logger.info("what waits on this node cannot be sent yet: %s", error)
