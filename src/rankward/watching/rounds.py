"""Goes round all loops of an installation and keeps their figures fresh: what the worker's `watch` process does."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from rankward.errors import RankwardError
from rankward.records import TimeUs
from rankward.store.ports import Loop
from rankward.watching.service import WatchingService
from rankward.wiring import Home
from rankward.worker import kept_us

logger = logging.getLogger(__name__)

_PAUSE_S = 0.25  # between two rounds in which there was little to do
_AGAIN_US = 5_000_000


class Rounds:
    """Keeps the figures of every loop of an installation, one step after the other."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._change_mark = -1
        self._loops: dict[str, Loop] = {}  # by id
        self._services: dict[str, WatchingService] = {}
        self._again_us: dict[str, TimeUs] = {}  # when to try a loop again that failed

    async def run(self, stop: asyncio.Event) -> None:
        """Go round until told to stop."""
        try:
            while not stop.is_set():
                if not await self.round():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _PAUSE_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of all files."""
        for service in self._services.values():
            await service.close()
        self._services.clear()

    async def round(self) -> bool:
        """Let every loop take one step.

        Returns:
            Whether there may be more to do at once.
        """
        await self._follow()
        busy = False
        for loop_id, loop in self._loops.items():
            if self._home.clock() >= self._again_us.get(loop_id, 0):
                busy |= await self._step(loop)
        return busy

    async def _step(self, loop: Loop) -> bool:
        """Let one loop take a step. One that fails holds up no other, and is opened anew and tried again later."""
        try:
            service = self._services.get(loop.loop_id) or await self._open(loop)
            return await service.step()
        except RankwardError as error:
            self._again_us[loop.loop_id] = self._home.clock() + _AGAIN_US
            if any(each.loop_id == loop.loop_id for each in self._home.catalog.loops()):
                logger.error("loop %s: its figures: %s. It is tried again.", loop.name, error)
            failed = self._services.pop(loop.loop_id, None)
            if failed is not None:
                with contextlib.suppress(RankwardError):
                    await failed.fail(str(error))
                await failed.close()
            return False

    async def _open(self, loop: Loop) -> WatchingService:
        async with contextlib.AsyncExitStack() as opened:
            log = self._home.event_log(loop.loop_id)
            opened.push_async_callback(log.close)
            joined = self._home.joined_log(loop.loop_id)
            opened.push_async_callback(joined.close)
            service = WatchingService(
                loop,
                log=log,
                joined=joined,
                rollups=self._home.rollups(loop.loop_id),
                board=self._home.board,
                clock=self._home.clock,
                kept_us=kept_us,
            )
            opened.pop_all()
        self._services[loop.loop_id] = service
        return service

    async def _follow(self) -> None:
        mark = self._home.catalog.change_mark()
        if mark == self._change_mark:
            return
        self._change_mark = mark
        self._loops = {loop.loop_id: loop for loop in self._home.catalog.loops()}
        for loop_id in self._services.keys() - self._loops.keys():
            await self._services.pop(loop_id).close()
        for loop_id, service in self._services.items():
            service.follow(self._loops[loop_id])
