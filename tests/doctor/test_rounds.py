"""The doctor of a process that serves: he reads aside from decisions, and once for all who ask."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from rankward.doctor.rounds import Rounds
from rankward.settings import LoopSettings
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankward.records import TimeUs

NOW_US: TimeUs = 1_800_000_000_000_000


def readings(folder: Path, ask: Callable[[Rounds, Home], object]) -> list[int]:
    """Ask with a clock that notes which threads look at it. Returns those of the readings, one for each."""
    looked: list[int] = []

    def clock() -> TimeUs:
        looked.append(threading.get_ident())
        return NOW_US

    with closing(Home(folder, clock=clock)) as home:
        home.loops.create("shop", LoopSettings())
        looked.clear()
        ask(Rounds(home), home)
    return [thread for thread in looked if thread != threading.get_ident()]


def test_a_reading_leaves_the_event_loop_to_decisions(tmp_path: Path) -> None:
    """Pages ask every few seconds: each time, every Rank of the process would wait for thousands of log entries."""

    def ask(rounds: Rounds, home: Home) -> None:
        asyncio.run(rounds.report(home.catalog.loop("shop")))

    assert readings(tmp_path, ask), "the facts are gathered in another thread"


def test_who_asks_at_once_or_for_what_may_be_old_shares_a_reading(tmp_path: Path) -> None:
    """A wall of screens must cost no more than one; who changed something asks for what is newer."""

    def ask_together(rounds: Rounds, home: Home) -> None:
        async def asked() -> None:
            loop = home.catalog.loop("shop")
            reports = await asyncio.gather(*[rounds.report(loop, age_us=1) for _ in range(5)])
            assert len({id(each) for each in reports}) == 1

        asyncio.run(asked())

    def ask_once(rounds: Rounds, home: Home) -> None:
        asyncio.run(rounds.report(home.catalog.loop("shop")))

    assert len(readings(tmp_path / "many", ask_together)) == len(readings(tmp_path / "one", ask_once))
