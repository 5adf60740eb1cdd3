"""A node's worker among the others: it shows that it lives, follows what they change, and leads its share of loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from rankward import __version__
from rankward.cluster.leading import Leads
from rankward.cluster.membership import Membership
from rankward.cluster.standing import Member, write_standing
from rankward.wiring import Home


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
    membership = Membership(home.broker, member)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(home.follow())
        await asyncio.to_thread(membership.start)
        try:
            yield Leads(
                home.catalog,
                membership,
                may_work=may_work,
                tell=lambda standing: write_standing(home.folder.standing, standing),
                clock=home.clock,
            )
        finally:
            following.cancel()
            await asyncio.to_thread(membership.close)
