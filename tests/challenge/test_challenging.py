"""Challengers on a real loop, in virtual time: what they learn, how they stand, and what becomes of them."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rankward.challenge.measure import Standing
from rankward.challengers import ChallengerService, Position
from rankward.evaluation.report import Verdict
from rankward.settings import LoopSettings
from tests.challenge.arena import challenge, position, run_challengers
from tests.loop.circle import Circle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

BY_CHANCE = "--cb_explore_adf --epsilon 1.0"
QUICK = "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q vd"
BAG = "--cb_explore_adf --bag 3 --epsilon 0.1 --cb_type mtr -q vd"


def settings() -> LoopSettings:
    """Settings of a loop that decides by chance, so that a challenger has something to win."""
    return LoopSettings(
        policy=BY_CHANCE,
        preset=None,
        exploration=1.0,
        reward_wait=timedelta(seconds=10),
        model_export_frequency=timedelta(seconds=5),
    )


def numbers(standing: Standing) -> list[float]:
    """All that a standing says."""
    assert standing.mean is not None
    assert standing.ahead is not None
    return [
        standing.decisions,
        standing.served or 0.0,
        *(standing.mean.value, standing.mean.always.low, standing.mean.always.high),
        *(standing.ahead.value, standing.ahead.always.low, standing.ahead.always.high),
    ]


async def play(circle: Circle, count: int, prefix: str) -> None:
    """Let visitors come, be rewarded, and everything be joined and learned by the loop itself."""
    await circle.play(count, prefix=prefix)
    await circle.circle()


def test_a_better_challenger_is_found_and_promoted(tmp_path: Path) -> None:
    """The whole of it: it learns beside the loop, is better beyond doubt, and serves with one call."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await play(circle, 100, "before")
        await challenge(circle, "quick", QUICK)
        await play(circle, 400, "e")
        await run_challengers(circle)

        found = await position(circle, "quick")
        assert found.standing.decisions == 400, "it is judged by the decisions since it was added, and by all of them"
        assert 300 < found.learned < 400, "those before, too, and none that would not have been published by then"
        assert found.behind == 0
        assert found.standing.verdict is Verdict.BETTER
        mean, ahead, served = found.standing.mean, found.standing.ahead, found.standing.served
        assert mean is not None
        assert ahead is not None
        assert served is not None
        assert ahead.always.low > 0.2
        assert mean.always.low <= mean.value <= mean.always.high
        assert served == pytest.approx(1 / 3, abs=0.1)
        assert ahead.always.low <= ahead.value <= ahead.always.high

        replaced = circle.loop.model_id
        loop = await ChallengerService(circle.home, circle.home.trail).promote(circle.loop, "quick", log=circle.log)
        assert (loop.settings.policy, loop.settings.exploration) == (QUICK, 0.1)
        assert loop.model_id is not None
        assert loop.model_id.startswith("challenger-")
        assert replaced in {version.model_id for version in circle.home.catalog.versions(loop.loop_id)}
        assert await ChallengerService(circle.home, circle.home.trail).listed(loop) == []
        assert list((tmp_path / "loops" / loop.loop_id / "challengers").iterdir()) == [], "its files are gone"
        await circle.follow()
        assert await circle.play(100, prefix="after") > 0.8, "what it had learned serves at once"
        await circle.circle()
        assert circle.loop.model_id != loop.model_id, "and learning goes on from it"
        await circle.close()

    asyncio.run(story())


def test_killed_anywhere_they_end_where_they_would_have(tmp_path: Path) -> None:
    """What is kept is a place in the log with the learner there: how often one was begun again must not be seen."""

    async def prepare(folder: Path) -> None:
        circle = Circle(folder, settings())
        await play(circle, 100, "before")
        await challenge(circle, "exact", QUICK)
        await challenge(circle, "inexact", BAG)
        await play(circle, 1_100, "e")
        await circle.close()

    async def ends(folder: Path, kills: tuple[int, ...]) -> list[Position]:
        circle = Circle(folder, settings())
        for asked_to in kills:
            await run_challengers(circle, asked_to, kill=True)
        await run_challengers(circle)
        found = [await position(circle, name) for name in ("exact", "inexact")]
        await circle.close()
        return found

    asyncio.run(prepare(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    whole = asyncio.run(ends(tmp_path / "whole", ()))
    killed = asyncio.run(ends(tmp_path / "killed", (150, 400, 800, 1_150)))
    assert [each.learned for each in killed] == [each.learned for each in whole]
    for one, other in zip(killed, whole, strict=True):
        assert numbers(one.standing) == pytest.approx(numbers(other.standing), abs=1e-9)
