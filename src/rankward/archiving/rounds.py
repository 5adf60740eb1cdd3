"""Goes round the loops of an installation and archives their logs: what the worker's `archive` process does.

In a cluster each node does it for the loops that it leads. Where two believe that for a moment, the index refuses one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from rankward.archiving.place import Place
from rankward.archiving.service import ArchivingService
from rankward.errors import RankwardError
from rankward.records import TimeUs
from rankward.store.ports import Loop
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_PAUSE_S = 2.0  # between two rounds in which there was nothing to do
_AGAIN_US = 10_000_000


class ArchivingRounds:
    """Archives every loop of an installation, one step after the other."""

    def __init__(self, home: Home, place: Place) -> None:
        """Prepare.

        Args:
            home: the installation.
            place: where its logs are archived.
        """
        self._home = home
        self._place = place
        self._services: dict[str, ArchivingService] = {}
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
        loops = {loop.loop_id: loop for loop in self._led()}
        for loop_id in self._services.keys() - loops.keys():
            await self._services.pop(loop_id).close()
        busy = False
        for loop_id, loop in loops.items():
            if self._home.clock() >= self._again_us.get(loop_id, 0):
                busy |= await self._step(loop)
        return busy

    def _led(self) -> list[Loop]:
        loops = list(self._home.catalog.loops())
        if self._home.broker is None:
            return loops
        leads, node = self._home.catalog.leads(), self._home.broker.options.node
        return [loop for loop in loops if loop.loop_id in leads and leads[loop.loop_id].holder == node]

    async def _step(self, loop: Loop) -> bool:
        """Let one loop take a step. One that fails holds up no other, and is tried again later."""
        try:
            service = self._services.get(loop.loop_id)
            if service is None:
                service = self._services[loop.loop_id] = self._home.archives.archiving(loop, self._place)
            service.follow(loop)
            return await service.step()
        except RankwardError as error:
            self._again_us[loop.loop_id] = self._home.clock() + _AGAIN_US
            if any(each.loop_id == loop.loop_id for each in self._home.catalog.loops()):
                logger.error("loop %s: its archive: %s. It is tried again.", loop.name, error)
                if loop.loop_id in self._services:
                    self._services[loop.loop_id].fail(str(error))
            return False
