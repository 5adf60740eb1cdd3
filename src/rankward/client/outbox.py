"""Reports on their way to the service: sent in order, tried again with growing pauses, bounded in memory."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rankward.client.calls import Letter
from rankward.client.stats import Tally

_AT_ONCE = 16
_PAUSE_S = 0.1  # after the first failure; it doubles
_PAUSE_MAX_S = 30.0
_PAUSE_FLUSHING_S = 0.2  # while somebody waits for it

Send = Callable[[Letter], Awaitable[float | None]]
"""Sends a report. None: it need not be sent again; else so many seconds must pass before it may be, at least."""


class Outbox:
    """A queue that empties itself. It belongs to one event loop."""

    def __init__(self, send: Send, *, size: int, tally: Tally) -> None:
        """Prepare; nothing runs before there is something to send.

        Args:
            send: sends one report.
            size: reports that may wait; the oldest are given up for newer ones.
            tally: told what is given up.
        """
        self._send = send
        self._size = size
        self._tally = tally
        self._waiting: deque[Letter] = deque()
        self._under_way = 0
        self._flushing = 0
        self._filled = asyncio.Event()
        self._hurry = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def put(self, letter: Letter) -> None:
        """Add a letter."""
        self._waiting.append(letter)
        self._bound()
        self._empty.clear()
        self._filled.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all is sent. Returns whether it was, within the time."""
        self._flushing += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._flushing -= 1

    async def close(self) -> None:
        """Stop. What waits is given up."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._tally.count("dropped", len(self))
        self._waiting.clear()
        self._under_way = 0
        self._empty.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._filled.wait()
            taken = self._take()
            pauses = await asyncio.gather(*[self._send(letter) for letter in taken])
            self._under_way = 0
            again = [letter for letter, pause in zip(taken, pauses, strict=True) if pause is not None]
            self._waiting.extendleft(reversed(again))
            self._bound()
            if not self._waiting:
                self._filled.clear()
                self._empty.set()
            if again:
                failures += 1
                await self._rest(failures, max(pause for pause in pauses if pause is not None))
            else:
                failures = 0

    def _take(self) -> list[Letter]:
        """Take the oldest reports. Those of one event are never under way together, so they arrive in order."""
        taken: list[Letter] = []
        events: set[str] = set()
        while self._waiting and len(taken) < _AT_ONCE and self._waiting[0].event_id not in events:
            taken.append(self._waiting.popleft())
            events.add(taken[-1].event_id)
        self._under_way = len(taken)
        return taken

    def _bound(self) -> None:
        surplus = len(self._waiting) - self._size
        for _ in itertools.repeat(None, surplus):
            self._waiting.popleft()
        if surplus > 0:
            self._tally.count("dropped", surplus)

    async def _rest(self, failures: int, at_least_s: float) -> None:
        """Pause before the next attempt. Half of it is drawn, so that many clients do not come back at once."""
        longest = min(_PAUSE_MAX_S, _PAUSE_S * 2 ** min(failures, 16))
        pause = max(at_least_s, longest * random.uniform(0.5, 1.0))  # noqa: S311
        if self._flushing:
            pause = min(pause, _PAUSE_FLUSHING_S)
        self._hurry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._hurry.wait()
