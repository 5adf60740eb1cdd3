"""The worker's part: keeps a process for the challengers of a loop that has any, and sees to what one died of."""

from __future__ import annotations

import logging
import signal
import subprocess
from collections import Counter
from collections.abc import Callable

from rankward.records import Offset
from rankward.store.challengers import ChallengerState
from rankward.store.ports import Loop, SetAside
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_US = 500_000
_LONGEST_PAUSE_US = 10_000_000
_DEADLY = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_KILLED_BOUND = 3  # a process killed from outside this often at the same event is taken to be killed by it


class ChallengeDesk:
    """Looks after the process that runs a loop's challengers."""

    def __init__(self, home: Home, spawn: Callable[[str], subprocess.Popen[bytes]]) -> None:
        """Prepare.

        Args:
            home: the installation.
            spawn: starts the process for a loop, by name. Its standard input is a pipe whose end tells it to stop.
        """
        self._home = home
        self._spawn = spawn
        self._keys: list[str] = []  # of challengers that run
        self._is_wanted = False
        self._started_us = 0  # by the timer
        self._pause_us = _SHORTEST_PAUSE_US  # from one start to the next
        self._killed: Counter[tuple[str, Offset]] = Counter()
        self.process: subprocess.Popen[bytes] | None = None

    def follow(self, loop: Loop) -> None:
        """Take over which challengers there are."""
        listed = self._home.challengers.listed(loop.loop_id)
        self._keys = [each.key for each in listed if each.state is ChallengerState.RUNNING]
        self._is_wanted = bool(self._keys) or loop.settings.younger_models

    def tend(self, loop: Loop, *, busy: bool) -> None:
        """Start the process if it is wanted and not there. It ends by itself when there is nothing left to do.

        Args:
            loop: whose challengers.
            busy: whether joining is behind: then none is started.
        """
        if self.process is not None:
            if self.process.poll() is None:
                return
            self._bury(loop, self.process.returncode)
            self.end()
        if self._is_wanted and not busy and self._home.timer() - self._started_us >= self._pause_us:
            self._started_us = self._home.timer()
            self.process = self._spawn(loop.name)

    def end(self) -> None:
        """Tell the process to stop."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None

    def _bury(self, loop: Loop, code: int) -> None:
        lived_us = self._home.timer() - self._started_us
        self._pause_us = (
            _SHORTEST_PAUSE_US if lived_us > _LONGEST_PAUSE_US else min(_LONGEST_PAUSE_US, 2 * self._pause_us)
        )
        if code > 0:
            logger.error("loop %s: the process of its challengers ended with %d", loop.name, code)
        if code >= 0:
            return
        name = signal.Signals(-code).name
        for key in self._keys:
            mark = self._home.challenger_mark(loop.loop_id, key)
            interaction = mark.get()
            if interaction is None:
                continue
            mark.clear()
            self._killed[key, interaction] += 1
            if -code not in _DEADLY and self._killed[key, interaction] < _KILLED_BOUND:
                continue
            logger.error("loop %s: a challenger died of %s at offset %d", loop.name, name, interaction)
            self._home.challengers.set_aside(
                key,
                SetAside(
                    loop_id=loop.loop_id,
                    interaction=interaction,
                    event_id="",
                    reason=f"the learner died of {name}",
                    time_us=self._home.clock(),
                ),
            )
