"""What waits on a node for the servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rankward.records import Observation
from rankward.store.nats.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path


def _spool(folder: Path) -> Spool:
    return Spool(folder, clock=lambda: 1_000_000, pending_appends=100)


def _lose_marks(folder: Path) -> None:
    for mark in folder.glob("*.mark"):
        mark.unlink()


def test_what_waits_is_found_though_a_power_failure_took_the_marks(tmp_path: Path) -> None:
    """Records are flushed before they are acknowledged; marks are not."""

    async def check() -> None:
        spool = _spool(tmp_path)
        await spool.put([Observation(event_id="e1", value=1.0, report="r1")], once=False)
        await spool.close()
        _lose_marks(tmp_path)
        again = _spool(tmp_path)
        assert not again.waits
        await again.recover()
        assert again.waits
        [entry] = await again.read()
        assert isinstance(entry.record, Observation)
        assert entry.record.report == "r1"
        again.sent(entry.offset + 1)
        await again.settle()
        assert not again.waits
        await again.close()

    asyncio.run(check())


def test_what_was_sent_is_not_found_again(tmp_path: Path) -> None:
    """A node that starts anew must not send everything twice."""

    async def check() -> None:
        spool = _spool(tmp_path)
        await spool.recover()  # an empty one
        assert not spool.waits
        await spool.put([Observation(event_id="e1", value=1.0, report="r1")], once=False)
        [entry] = await spool.read()
        spool.sent(entry.offset + 1)
        await spool.settle()
        await spool.recover()
        assert not spool.waits
        await spool.close()

    asyncio.run(check())
