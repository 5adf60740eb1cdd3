"""The process of a loop's challengers is kept running, and what it dies of is found out."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rankward.challenge.desk import ChallengeDesk
from rankward.loops import new_loop_settings
from rankward.store.challengers import ChallengerState
from rankward.wiring import Home
from tests.store.test_challengers import a_challenger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.store.ports import Loop

pytestmark = pytest.mark.slow

WAITS = "import sys; sys.stdin.read()"
ABORTS = "import os; os.abort()"


class Scene:
    """An installation with a loop, and a desk whose processes are real, and do something else."""

    def __init__(self, folder: Path) -> None:
        self.now_us = 1_760_000_000_000_000
        self.home = Home(folder, clock=lambda: self.now_us, timer=lambda: self.now_us)
        self.loop: Loop = self.home.loops.create("news", new_loop_settings())
        self.home.board.post(self.loop.loop_id, "joining", b"{}")
        self.code = WAITS
        self.started: list[subprocess.Popen[bytes]] = []
        self.desk = ChallengeDesk(self.home, self._spawn)

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        assert name == self.loop.name
        self.started.append(subprocess.Popen([sys.executable, "-c", self.code], stdin=subprocess.PIPE))
        return self.started[-1]

    def add(self, number: int, **changes: object) -> str:
        """Add a challenger. Returns its key."""
        challenger = a_challenger(number, loop_id=self.loop.loop_id, **changes)
        self.home.challengers.add(challenger)
        self.desk.follow(self.loop)
        return challenger.key

    def tend(self, *, busy: bool = False) -> None:
        """Give the desk a turn, after a pause in which it may start another process."""
        self.now_us += 20_000_000
        self.desk.tend(self.loop, busy=busy)

    def die_at(self, key: str, interaction: int, number: int) -> None:
        """Let the running process die of a signal while a challenger is given an event."""
        self.home.challenger_mark(self.loop.loop_id, key).set(interaction)
        self.started[-1].send_signal(number)
        self.started[-1].wait()

    def aside(self, key: str) -> list[int]:
        """The events that a challenger passes over."""
        return [event.interaction for event in self.home.challengers.set_asides(key)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A desk with nothing to do yet."""
    made = Scene(tmp_path)
    yield made
    made.desk.end()
    for process in made.started:
        process.kill()
        process.wait()
    made.home.close()


def test_there_is_a_process_where_there_is_a_challenger(scene: Scene) -> None:
    """One for all of a loop; none where nobody asked for it, where all have failed, or while joining is behind."""
    scene.tend()
    scene.add(1, state=ChallengerState.FAILED)
    scene.tend()
    assert scene.started == []
    scene.add(2)
    scene.add(3)
    scene.tend(busy=True)
    assert scene.started == []
    scene.tend()
    scene.tend()
    assert len(scene.started) == 1


def test_an_event_that_kills_it_is_set_aside_for_its_challenger_alone(scene: Scene) -> None:
    """The others were given nothing, and go on with the next process."""
    scene.code = ABORTS
    guilty, other = scene.add(1), scene.add(2)
    scene.tend()
    scene.die_at(guilty, 7, signal.SIGABRT)
    scene.tend()
    assert (scene.aside(guilty), scene.aside(other)) == ([7], [])
    assert "the learner died of SIGABRT" in scene.home.challengers.set_asides(guilty)[0].reason
    assert len(scene.started) == 2


def test_one_that_is_killed_from_outside_is_started_again(scene: Scene) -> None:
    """Its event is innocent, unless that happens every time."""
    key = scene.add(1)
    for expected in ([], [], [7]):
        scene.tend()
        scene.die_at(key, 7, signal.SIGKILL)
        scene.tend()
        assert scene.aside(key) == expected
    assert len(scene.started) == 4
