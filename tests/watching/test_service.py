"""Figures follow the joined log, and whatever is taken out of the logs is taken out of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from rankward.erasure import forget
from rankward.errors import Conflict
from rankward.loops import new_loop_settings
from rankward.settings import LoopSettings
from rankward.watching.fold import DAY_US, STEPS_US, decode_actions, decode_tally
from rankward.watching.service import NOTE, WatchingService, WatchingStatus
from rankward.watching.tally import Tally
from rankward.worker import kept_us
from tests.loop.circle import START_US, Circle

FAR_US = START_US + 10 * DAY_US


class Watched:
    """A loop, and what keeps its figures."""

    def __init__(self, folder: Path, settings: LoopSettings | None = None) -> None:
        quick = msgspec.structs.replace(settings or new_loop_settings(), reward_wait=timedelta(seconds=30))
        self.circle = Circle(folder, quick)
        self.service = self.opened()

    def opened(self) -> WatchingService:
        """Open what keeps the figures, as a process that was just started does."""
        home, loop = self.circle.home, self.circle.loop
        return WatchingService(
            loop,
            log=home.event_log(loop.loop_id),
            joined=home.joined_log(loop.loop_id),
            rollups=home.rollups(loop.loop_id),
            board=home.board,
            clock=home.clock,
            timer=home.timer,
            kept_us=kept_us,
        )

    async def play(self, count: int, prefix: str) -> None:
        """Let visitors come, and their events be joined."""
        await self.circle.play(count, prefix=prefix, seconds_between=1.7)
        self.circle.pass_time(31)
        await self.circle.join()

    async def watch(self) -> None:
        """Bring the figures up to date."""
        self.service.follow(self.circle.loop)
        while await self.service.step():
            pass

    async def restart(self, *, lose: bool = False) -> None:
        """Let another process take over; `lose` the figures before it does."""
        await self.service.close()
        if lose:
            shutil.rmtree(self.circle.home.folder.figures(self.circle.loop.loop_id))
        self.service = self.opened()

    def rows(self) -> Mapping[tuple[str, int], bytes]:
        """Read every row."""
        rollups = self.circle.home.rollups(self.circle.loop.loop_id)
        series = [*STEPS_US, "actions-hour", "actions-day"]
        found = {(name, at): body for name in series for at, body in rollups.read(name, 0, 1 << 62)}
        rollups.close()
        return found

    def total(self) -> Tally:
        """Add up the days."""
        total = Tally()
        for (series, _), body in self.rows().items():
            if series == "day":
                total.merge(decode_tally(body))
        return total

    def status(self) -> WatchingStatus:
        """Read what it left on the board."""
        return msgspec.json.decode(self.circle.home.board.read(self.circle.loop.loop_id)[NOTE], type=WatchingStatus)

    async def close(self) -> None:
        """Let go of everything."""
        await self.service.close()
        await self.circle.close()


def test_figures_that_are_lost_are_taken_again_the_same(tmp_path: Path) -> None:
    """They are derived: nothing but the joined log counts, and when it was read does not matter."""

    async def story() -> None:
        watched = Watched(tmp_path)
        for number in range(6):
            await watched.play(40, f"{number}-")
            await watched.watch()
            if number % 2:
                await watched.restart()
        kept = watched.rows()
        assert watched.total().events == 240
        await watched.restart(lose=True)
        await watched.watch()
        assert watched.rows() == kept
        assert watched.status().behind == 0
        await watched.close()

    asyncio.run(story())


def test_an_erased_event_leaves_the_figures(tmp_path: Path) -> None:
    """Whoever asks to be forgotten is not to be found in the figures either, by an action's name say."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(20, "a")
        await watched.watch()
        home, loop = watched.circle.home, watched.circle.loop
        joined, log = watched.circle.joined, watched.circle.log
        await forget(home.catalog, log, joined, loop_id=loop.loop_id, event_ids=["a3", "a4"], subject=None)
        await watched.watch()
        kept = watched.rows()
        assert watched.total().events == 18
        await watched.restart(lose=True)
        await watched.watch()
        assert watched.rows() == kept
        await watched.close()

    asyncio.run(story())


def test_a_cleared_log_clears_the_figures(tmp_path: Path) -> None:
    """Who deletes all events means their sums, too; what comes later counts from there."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(20, "a")
        await watched.watch()
        await watched.circle.configuration.clear_log("circle")
        await watched.watch()
        assert watched.rows() == {}
        await watched.play(7, "b")
        await watched.watch()
        assert watched.total().events == 7
        await watched.close()

    asyncio.run(story())


def test_figures_outlive_the_log(tmp_path: Path) -> None:
    """Days are kept for ever: what falls out of retention is no reason to lose a year's chart."""

    async def story() -> None:
        settings = msgspec.structs.replace(new_loop_settings(), log_retention_days=3)
        watched = Watched(tmp_path, settings)
        home, loop = watched.circle.home, watched.circle.loop
        await watched.play(20, "a")
        await watched.watch()
        watched.circle.pass_time(5 * 86_400)
        for _ in range(2):  # the first seals what is old, the second drops it
            await watched.circle.log.maintain(
                joined_before=await watched.circle.joining.joined_before(),
                keep_after_us=watched.circle.now_us - kept_us(loop.settings),
            )
        await watched.play(9, "b")
        await watched.watch()
        assert watched.total().events == 29
        joined, log = watched.circle.joined, watched.circle.log
        await forget(home.catalog, log, joined, loop_id=loop.loop_id, event_ids=["b1"], subject=None)
        await watched.watch()
        assert watched.total().events == 28
        await watched.close()

    asyncio.run(story())


def test_another_reward_is_counted_from_the_whole_log(tmp_path: Path) -> None:
    """A chart half of whose line means one reward and half another would be read as a change of what is earned."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(20, "a")
        for number in range(10):
            await watched.circle.rank(f"silent{number}", "v0")
        watched.circle.pass_time(31)
        await watched.circle.join()
        await watched.watch()
        before = watched.total()
        await watched.circle.configuration.change("circle", {"default_reward": 0.5})
        await watched.watch()
        after = watched.total()
        assert after.events == before.events == 30
        assert after.earned.rewards == pytest.approx(before.earned.rewards + 10 * 0.5)
        await watched.close()

    asyncio.run(story())


def test_a_joined_log_that_was_made_anew_is_noticed(tmp_path: Path) -> None:
    """An operator may delete the joined log, so that it is joined again: places in it mean something else then."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(20, "a")
        await watched.watch()
        kept = watched.rows()
        folder = watched.circle.home.folder.joined(watched.circle.loop.loop_id)
        await watched.close()
        shutil.rmtree(folder)
        again = Watched(tmp_path)
        again.circle.now_us = watched.circle.now_us
        await again.watch()
        assert again.rows() == {}
        await again.circle.join()
        await again.watch()
        assert again.rows() == kept
        await again.close()

    asyncio.run(story())


def test_two_processes_do_not_count_an_event_twice(tmp_path: Path) -> None:
    """The one before may still be on its way out."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(5, "a")
        await watched.watch()
        other = watched.opened()
        await watched.play(5, "b")
        while await other.step():
            pass
        with pytest.raises(Conflict):
            await watched.service.step()
        await watched.watch()
        assert watched.total().events == 10
        await other.close()
        await watched.close()

    asyncio.run(story())


def test_actions_are_told_apart(tmp_path: Path) -> None:
    """The board of actions says how often each was offered, drawn and shown, and what it earned."""

    async def story() -> None:
        watched = Watched(tmp_path)
        await watched.play(30, "a")
        await watched.watch()
        [(_, body)] = [(at, body) for (series, at), body in watched.rows().items() if series == "actions-day"]
        known = decode_actions(body).known
        assert {each: tally.offered for each, tally in known.items()} == {"a0": 30, "a1": 30, "a2": 30}
        assert sum(tally.shown for tally in known.values()) == 30
        assert sum(tally.probability for tally in known.values()) == pytest.approx(30)
        await watched.close()

    asyncio.run(story())
