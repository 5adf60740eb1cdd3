"""Traffic to a cluster on this machine, and what is seen of it meanwhile, in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.live import Live

from rankward.cluster.view import draw, line, look, traffic
from rankward.errors import RankwardError
from rankward.simulate.traffic import FailoverTarget, HttpTarget, Pace, drive
from rankward.wiring import Home

if TYPE_CHECKING:
    from rich.console import Console

    from rankward.cluster.local import LocalCluster
    from rankward.cluster.view import Seen
    from rankward.simulate.scoreboard import Progress
    from rankward.simulate.world import World

_FOREVER = sys.maxsize  # decisions
_LOOK_EVERY_S = 1.0
_LINE_EVERY_S = 2.0
_TEND_EVERY_S = 0.2
_CALL_S = 6.0  # longer than a node waits for the servers before it refuses


class Show:
    """Sends decisions and rewards, starts again what dies, and says what is going on."""

    def __init__(self, cluster: LocalCluster, loop: str, world: World, console: Console) -> None:
        """Prepare it.

        Args:
            cluster: which runs.
            loop: the name of the loop that decides.
            world: where the traffic comes from.
            console: where it is shown.

        Raises:
            StoreUnavailable: the cluster cannot be looked at.
        """
        self._cluster = cluster
        self._loop = loop
        self._world = world
        self._console = console
        self._home = Home(cluster.folder(next(iter(cluster.endpoints))))
        self._seen: Seen | None = None
        self._trouble = ""
        self._progress: Progress | None = None
        self._targets = [
            HttpTarget(f"{endpoint}/loops/{loop}", cluster.admin_key, timeout_s=_CALL_S)
            for endpoint in cluster.endpoints.values()
        ]
        self._target = FailoverTarget(self._targets)

    def close(self) -> None:
        """Look no longer."""
        self._home.close()

    async def run(self, *, pace: Pace, events: int | None, seconds: float | None) -> Progress:
        """Let it go on, until Ctrl-C if nothing else is said.

        Args:
            pace: of the traffic.
            events: after so many decisions it ends.
            seconds: after so long it ends.

        Raises:
            WorldError: not one decision got through.
        """
        stop = asyncio.Event()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_stopped_by_signals(stop))
            for target in self._targets:
                await stack.enter_async_context(target)
            background = [asyncio.create_task(work) for work in (self._tend(), self._look(), self._tell())]
            try:
                progress = await drive(
                    self._world,
                    self._target,
                    events=events or _FOREVER,
                    seed=1,
                    pace=pace,
                    on_progress=self._note,
                    stop=stop,
                )
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
        self._console.print(traffic(progress, failed=self._target.failed), soft_wrap=True)
        return progress

    def _note(self, progress: Progress) -> None:
        self._progress = progress

    async def _tend(self) -> None:
        while True:
            self._cluster.tend()
            await asyncio.sleep(_TEND_EVERY_S)

    async def _look(self) -> None:
        while True:
            try:
                self._seen = await asyncio.to_thread(look, self._home)
                self._trouble = ""
            except RankwardError as error:
                self._trouble = str(error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell(self) -> None:
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while True:
                    live.update(draw(*self._state(), failed=self._target.failed, trouble=self._trouble), refresh=True)
                    await asyncio.sleep(_TEND_EVERY_S)
        while True:
            await asyncio.sleep(_LINE_EVERY_S)
            told = line(*self._state(), failed=self._target.failed, trouble=self._trouble)
            self._console.print(told, soft_wrap=True)

    def _state(self) -> tuple[LocalCluster, Seen | None, Progress | None]:
        return self._cluster, self._seen, self._progress


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
