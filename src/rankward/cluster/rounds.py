"""Takes the snapshots of the loops that a node leads, and removes leftovers, in rounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from rankward.errors import NotFound, RankwardError
from rankward.store.nats.snapshots import Snapshot
from rankward.wiring import Home

logger = logging.getLogger(__name__)

EVERY_US = 3_600_000_000
"""So old may a snapshot become while something happens in its loop."""
GRACE_US = 60_000_000
"""So long the stream keeps what a new snapshot has: a node that is a little behind need not begin again."""
_ROUND_S = 10.0
_SWEEP_US = 3_600_000_000


class SnapshotRounds:
    """Goes round the loops. Two nodes that both believe that they lead one do no harm."""

    def __init__(self, home: Home, *, every_us: int = EVERY_US, grace_us: int = GRACE_US) -> None:
        """Prepare.

        Args:
            home: a node's.
            every_us: how old a snapshot may become.
            grace_us: how long after that the stream is trimmed.
        """
        assert home.node is not None, "only nodes keep snapshots"
        self._home = home
        self._node = home.node
        self._every_us = every_us
        self._grace_us = grace_us
        self._newest: dict[str, Snapshot] = {}
        self._trimming: dict[str, deque[tuple[int, int]]] = {}  # by loop: when, by the timer, and up to which message
        self._sweep = home.node.sweep(home.catalog)
        self._swept_us = home.timer()

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop."""
        while not stop.is_set():
            await asyncio.to_thread(self.go_round)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _ROUND_S)

    def go_round(self) -> None:
        """Take the snapshots that are due, and sweep now and then. What fails is tried again in the next round."""
        for loop in self._home.led(self._home.catalog.loops()):
            try:
                self._look_after(loop.loop_id)
            except NotFound:  # it was deleted, or is not here any more
                self._newest.pop(loop.loop_id, None)
                self._trimming.pop(loop.loop_id, None)
            except RankwardError as error:
                logger.error("loop %s: no snapshot, and it is tried again: %s", loop.name, error)
        if self._home.timer() - self._swept_us >= _SWEEP_US:
            self._swept_us = self._home.timer()
            try:
                self._sweep.sweep()
            except RankwardError as error:
                logger.error("leftovers stay where they are for now: %s", error)

    def _look_after(self, loop_id: str) -> None:
        snapshots = self._node.snapshots
        if loop_id not in self._newest and (found := snapshots.of(loop_id)):
            self._newest[loop_id] = found[-1]
            self._keep_few(loop_id)  # whoever took it may not have come to that
        if snapshots.is_due(self._newest.get(loop_id), loop_id, every_us=self._every_us):
            self._newest[loop_id] = snapshots.take(loop_id)
            self._keep_few(loop_id)
        trimming = self._trimming.get(loop_id, deque())
        while trimming and self._home.timer() >= trimming[0][0]:
            snapshots.trim(loop_id, through=trimming[0][1])
            trimming.popleft()

    def _keep_few(self, loop_id: str) -> None:
        through = self._node.snapshots.keep_few(loop_id)
        if through:
            self._trimming.setdefault(loop_id, deque()).append((self._home.timer() + self._grace_us, through))
