"""Keeps the figures of all loops of an installation fresh: what the worker's `watch` process does."""

from __future__ import annotations

from rankward.rounds import Rounds
from rankward.store.ports import EventLog, JoinedLog, Loop
from rankward.watching.service import WatchingService
from rankward.wiring import Home
from rankward.worker import kept_us

_PAUSE_S = 0.25
_AGAIN_US = 5_000_000


def watching_rounds(home: Home) -> Rounds:
    """Make what goes round the loops."""

    def watching(loop: Loop, log: EventLog, joined: JoinedLog) -> WatchingService:
        return WatchingService(
            loop,
            log=log,
            joined=joined,
            rollups=home.rollups(loop.loop_id),
            board=home.board,
            clock=home.clock,
            timer=home.timer,
            kept_us=kept_us,
        )

    return Rounds(home, watching, what="its figures", led_only=False, pause_s=_PAUSE_S, again_us=_AGAIN_US)
