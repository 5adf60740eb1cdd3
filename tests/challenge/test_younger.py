"""Younger models: the rule by which one takes over, and a loop whose visitors change their minds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rankward.challenge.younger import KEPT, Newest, successor, superfluous
from rankward.challengers import ChallengerService
from rankward.evaluation.judge import RewardRange
from rankward.settings import LoopSettings
from rankward.store.challengers import ChallengerKind
from tests.challenge.arena import run_challengers
from tests.loop.circle import Circle

if TYPE_CHECKING:
    from pathlib import Path


def newest_of(rng: np.random.Generator, decisions: int, *, better_by: float) -> Newest:
    """Judge a model that takes the better of two actions seven times in ten, where the log took it three times."""
    newest = Newest(RewardRange(0.0, 1.0))
    for _ in range(decisions):
        is_better = rng.random() < 0.3
        reward = float(rng.random() < 0.4 + better_by * is_better)
        p_target, p_log = (0.7, 0.3) if is_better else (0.3, 0.7)
        newest.add(p_target=p_target, p_log=p_log, reward=reward)
    return newest


def test_one_that_does_better_is_noticed_within_some_hundred_decisions() -> None:
    """And not before there are enough to tell."""
    rng = np.random.default_rng(1)
    assert newest_of(rng, 199, better_by=0.5).lead is None
    noticed = [(newest_of(rng, 500, better_by=0.5).lead or 0.0) > 0 for _ in range(20)]
    assert sum(noticed) >= 19


def test_one_that_does_the_same_hardly_ever_takes_over() -> None:
    """A change for nothing costs what the elder knew."""
    rng = np.random.default_rng(2)
    mistaken = [(newest_of(rng, 500, better_by=0.0).lead or 0.0) > 0 for _ in range(200)]
    assert sum(mistaken) <= 2


def test_only_the_newest_decisions_count() -> None:
    """What it did before the change says nothing of what it does now."""
    rng = np.random.default_rng(3)
    newest = newest_of(rng, 3_000, better_by=-0.4)
    for _ in range(1_500):
        is_better = rng.random() < 0.3
        p_target, p_log = (0.7, 0.3) if is_better else (0.3, 0.7)
        newest.add(p_target=p_target, p_log=p_log, reward=float(rng.random() < 0.4 + 0.5 * is_better))
    assert newest.lead is not None
    assert newest.lead > 0


def test_it_goes_on_from_what_was_kept() -> None:
    """Whoever was stopped must come to the same."""
    rng = np.random.default_rng(4)
    whole = newest_of(rng, 400, better_by=0.2)
    again = Newest(RewardRange(0.0, 1.0), whole.state())
    for newest in (whole, again):
        newest.add(p_target=0.7, p_log=0.3, reward=1.0)
    assert again.lead == whole.lead


def test_the_best_of_them_takes_over() -> None:
    """None, where none is better or nobody can tell."""
    assert successor([None, 0.1, 0.3]) == 2
    assert successor([None, -0.1]) is None
    assert successor([]) is None


def test_those_that_are_kept_are_of_many_ages() -> None:
    """However long ago the last change was, one has begun not long after it."""
    ages = [500.0]
    for _ in range(200):
        ages = [age + 500 for age in ages] + [500.0]
        while (index := superfluous(ages)) is not None:
            del ages[index]
    assert len(ages) == KEPT + 1
    assert ages[0] == 100_500
    assert ages[-1] == 500
    assert ages == sorted(ages, reverse=True)
    assert ages[1] > 4_000


async def visit(circle: Circle, count: int, *, prefix: str, shift: int) -> None:
    """Let visitors come, each of whom likes one action; which one, is shifted."""
    for number in range(count):
        liked = (number * 7 + shift) % 3
        outcome = await circle.rank(f"{prefix}{number}", f"v{number * 7 % 3}")
        await circle.ranking.reward(f"{prefix}{number}", 1.0 if outcome.interaction.chosen == liked else 0.0)
        circle.pass_time(0.1)


@pytest.mark.slow
def test_a_younger_model_takes_over_when_visitors_change_their_minds(tmp_path: Path) -> None:
    """By itself, with all that it has learned; what served until then can be rolled back to."""

    async def story() -> None:
        settings = LoopSettings(
            policy="--cb_explore_adf --squarecb --gamma_scale 10 --epsilon 0.05 --cb_type mtr --clip_p 1 -q vd",
            preset=None,
            exploration=0.05,
            reward_wait=timedelta(seconds=5),
            model_export_frequency=timedelta(seconds=5),
            younger_models=True,
        )
        circle = Circle(tmp_path, settings)
        replaced = None
        for number in range(24):
            replaced = circle.loop.model_id
            await visit(circle, 100, prefix=f"r{number}-", shift=0 if number < 10 else 1)
            await circle.circle()
            await run_challengers(circle)
            if circle.loop.model_id is not None and circle.loop.model_id.startswith("younger-"):
                assert number >= 10, "while nothing changes, the elder knows more"
                break
        else:
            raise AssertionError("none has taken over")
        served = circle.loop.model_id
        versions = {version.model_id for version in circle.home.catalog.versions(circle.loop.loop_id)}
        assert len(versions) > 2, "what served until then is kept"
        assert replaced is not None
        assert await ChallengerService(circle.home, circle.home.trail).listed(circle.loop) == [], "nobody asked for one"
        kinds = {each.kind for each in circle.home.challengers.listed(circle.loop.loop_id)}
        assert kinds <= {ChallengerKind.YOUNGER}
        await visit(circle, 100, prefix="after", shift=1)
        await circle.circle()
        assert circle.loop.model_id != served, "learning goes on from it"

        await circle.configuration.change("circle", {"younger_models": False})
        await run_challengers(circle)
        assert circle.home.challengers.listed(circle.loop.loop_id) == [], "they are let go of"
        assert list((tmp_path / "loops" / circle.loop.loop_id / "challengers").iterdir()) == []
        await circle.close()

    asyncio.run(story())
