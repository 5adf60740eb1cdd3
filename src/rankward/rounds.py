"""Goes round the loops of an installation, and lets each take a step: what processes do that look after all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from rankward.errors import RankwardError
from rankward.store.ports import EventLog, JoinedLog, Loop
from rankward.wiring import Home

logger = logging.getLogger(__name__)


class Stepper(Protocol):
    """What does one thing for one loop, step by step."""

    def follow(self, loop: Loop) -> None:
        """Take over the loop as the catalog has it now."""

    async def step(self) -> bool:
        """Take a step. Returns whether there may be more to do at once.

        Raises:
            RankwardError: it could not be done. One that is opened anew does it again.
        """

    async def fail(self, failure: str) -> None:
        """Leave word that a step failed."""

    async def close(self) -> None:
        """Let go of all files."""


class Rounds:
    """Lets every loop take one step, one after the other. One that fails holds up no other."""

    def __init__(
        self,
        home: Home,
        make_stepper: Callable[[Loop, EventLog, JoinedLog], Stepper],
        *,
        what: str,
        led_only: bool,
        pause_s: float,
        again_us: int,
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            make_stepper: makes what takes the steps of a loop, and closes its logs when it is closed.
            what: is done for a loop, for messages.
            led_only: whether a node does it for the loops alone that it leads. Two may believe that for a moment.
            pause_s: between two rounds in which there was little to do.
            again_us: so long a loop that failed is left alone.
        """
        self._home = home
        self._make = make_stepper
        self._what = what
        self._led_only = led_only
        self._pause_s = pause_s
        self._again_after_us = again_us
        self._change_mark = -1
        self._loops: Mapping[str, Loop] = {}  # by id
        self._steppers: dict[str, Stepper] = {}
        self._again_us: dict[str, int] = {}  # by the timer: when to try a loop again that failed

    async def run(self, stop: asyncio.Event) -> None:
        """Go round until told to stop."""
        try:
            while not stop.is_set():
                if not await self.round():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), self._pause_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of all files."""
        for stepper in self._steppers.values():
            await stepper.close()
        self._steppers.clear()

    async def round(self) -> bool:
        """Let every loop take one step.

        Returns:
            Whether there may be more to do at once.
        """
        self._follow()
        loops = self._home.led(self._loops.values()) if self._led_only else list(self._loops.values())
        for loop_id in self._steppers.keys() - {loop.loop_id for loop in loops}:
            await self._steppers.pop(loop_id).close()
        busy = False
        for loop in loops:
            if self._home.timer() >= self._again_us.get(loop.loop_id, 0):
                busy |= await self._step(loop)
        return busy

    def _follow(self) -> None:
        mark = self._home.catalog.change_mark()
        if mark == self._change_mark:
            return
        self._change_mark = mark
        self._loops = {loop.loop_id: loop for loop in self._home.catalog.loops()}
        for loop_id in self._steppers.keys() & self._loops.keys():
            self._steppers[loop_id].follow(self._loops[loop_id])

    async def _open(self, loop: Loop) -> Stepper:
        async with contextlib.AsyncExitStack() as opened:
            log = self._home.event_log(loop.loop_id)
            opened.push_async_callback(log.close)
            joined = self._home.joined_log(loop.loop_id)
            opened.push_async_callback(joined.close)
            stepper = self._steppers[loop.loop_id] = self._make(loop, log, joined)
            opened.pop_all()  # the stepper closes them
        return stepper

    async def _step(self, loop: Loop) -> bool:
        """Let one loop take a step. One that fails is opened anew and tried again later."""
        try:
            stepper = self._steppers.get(loop.loop_id) or await self._open(loop)
            return await stepper.step()
        except RankwardError as error:
            self._again_us[loop.loop_id] = self._home.timer() + self._again_after_us
            failed = self._steppers.pop(loop.loop_id, None)
            if any(each.loop_id == loop.loop_id for each in self._home.catalog.loops()):
                logger.error("loop %s: %s: %s. It is tried again.", loop.name, self._what, error)
                if failed is not None:
                    with contextlib.suppress(RankwardError):
                        await failed.fail(str(error))
            if failed is not None:
                await failed.close()
            return False
