"""A preset that suits its rate to the noise of rewards: the epochs that this starts, and what they leave exact."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec
import numpy as np
import pytest

from rankward.evaluation.asking import own_candidate, setup_of
from rankward.evaluation.replay import Replay
from rankward.joining.reader import read_joined
from rankward.loops import new_loop_settings
from rankward.records import ModelId, TimeUs
from rankward.vw.learner import Learner
from rankward.vw.presets import PERSONALIZER, learner_arguments
from rankward.vw.rates import STEADY
from tests.loop.circle import Circle, Clock, newest_version, replayed_weights, weights_of


async def clicks(circle: Circle, count: int, *, prefix: str) -> None:
    """Let visitors come, ten at a time, who click one time in twenty, whatever they are shown."""
    rng = np.random.default_rng(3)
    for first in range(0, count, 10):
        numbers = range(first, first + 10)
        await asyncio.gather(*[circle.rank(f"{prefix}{number}", f"v{number * 7 % 3}") for number in numbers])
        await asyncio.gather(
            *[circle.ranking.reward(f"{prefix}{number}", float(rng.random() < 0.05)) for number in numbers]
        )
        circle.pass_time(1)


class Kept(NamedTuple):
    """A loop that several tests go on with."""

    folder: Path
    now_us: TimeUs

    async def taken_up(self, folder: Path) -> Circle:
        """Go on with a copy of it."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        clock = Clock()
        clock.move(self.now_us)
        circle = Circle(folder, new_loop_settings(), clock)
        await circle.follow()
        return circle


@pytest.fixture(scope="module")
def clicked(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A loop with noisy rewards, of which it has learned nothing yet."""

    async def story(folder: Path) -> Kept:
        circle = Circle(folder, new_loop_settings())
        await clicks(circle, 600, prefix="first")
        await circle.close()
        return Kept(folder, circle.now_us)

    return asyncio.run(story(tmp_path_factory.mktemp("clicked")))


@pytest.fixture(scope="module")
def noisy(clicked: Kept, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The same, when it has begun a steady epoch, and serves it."""

    async def story(folder: Path) -> Kept:
        circle = await clicked.taken_up(folder)
        await circle.circle()
        assert [epoch.epoch_id for epoch in circle.home.catalog.epochs(circle.loop.loop_id)] == [1, 2]
        await circle.train()
        await circle.close()
        return Kept(folder, circle.now_us)

    return asyncio.run(story(tmp_path_factory.mktemp("noisy")))


def test_noisy_rewards_start_a_steady_epoch(noisy: Kept, tmp_path: Path) -> None:
    """It learns the same events anew, keeps what else was derived, and does not start another."""

    async def story() -> None:
        circle = await noisy.taken_up(tmp_path)
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        version = newest_version(circle)
        assert epoch.rate is not None
        assert epoch.rate.name == STEADY
        assert epoch.interactions is not None
        assert set(epoch.interactions.pairs) == {"vd", "vi"}
        assert "noise" in epoch.reason
        assert version.rate == epoch.rate
        assert version.learned == 600
        assert circle.loop.model_id == version.model_id
        assert circle.ranking.scorer is not None
        assert circle.ranking.scorer.model_id == version.model_id
        await circle.close()

    asyncio.run(story())


def test_a_steady_epoch_that_is_interrupted_ends_with_the_same_weights(noisy: Kept, tmp_path: Path) -> None:
    """A fold that goes on from a checkpoint must go on with the rate that it was begun with."""

    async def story() -> None:
        circle = await noisy.taken_up(tmp_path)
        await clicks(circle, 100, prefix="second")
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 700
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.close()

    asyncio.run(story())


def test_rewards_without_noise_keep_the_epoch(tmp_path: Path) -> None:
    """Whoever has clean rewards must not wait for a rebuild, or learn more slowly."""

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        await circle.play(600)
        await circle.circle()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert (epoch.epoch_id, epoch.rate) == (1, None)
        await circle.close()

    asyncio.run(story())


def test_a_test_of_the_rate_that_breaks_off_ends_one_trainer_and_no_more(
    clicked: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it, a loop must go on learning at the rate that it has."""

    def broken(*_: object) -> NoReturn:
        raise RuntimeError("as a test has it")

    async def story() -> None:
        circle = await clicked.taken_up(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr("rankward.training.service.measure", broken)
            with pytest.raises(RuntimeError, match="as a test has it"):
                await circle.circle()
            await circle.train()
        assert newest_version(circle).learned == 600
        await clicks(circle, 600, prefix="later")
        await circle.circle()
        assert len(circle.home.catalog.epochs(circle.loop.loop_id)) == 2, "it is put to the test at twice as many"
        await circle.close()

    asyncio.run(story())


def test_the_original_policy_stays_as_it_is(tmp_path: Path) -> None:
    """Whoever brings a policy gets that policy, whatever its rewards are."""

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        await circle.configuration.set_preset("circle", PERSONALIZER.name)
        await clicks(circle, 600, prefix="e")
        await circle.circle()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.rate is None
        await circle.close()

    asyncio.run(story())


def test_a_loop_that_is_rolled_back_stays_there(noisy: Kept, tmp_path: Path) -> None:
    """Somebody wanted that version: the loop must not leave it by itself, and goes on with its rate."""

    async def story() -> None:
        circle = await noisy.taken_up(tmp_path)
        steady = newest_version(circle)
        quick: ModelId = next(v.model_id for v in circle.home.catalog.versions(circle.loop.loop_id) if v.rate is None)
        for wanted, rate in ((quick, None), (steady.model_id, steady.rate)):
            await circle.registry.roll_back("circle", wanted)
            await clicks(circle, 300, prefix=f"after {wanted} ")
            await circle.circle()
            [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
            assert (epoch.base, epoch.rate) == (wanted, rate)
            assert newest_version(circle).rate == rate
        await circle.close()

    asyncio.run(story())


def test_an_evaluation_learns_as_the_loop_does(noisy: Kept, tmp_path: Path) -> None:
    """It judged the preset with its quick rate only, so it judged noisy loops by a policy that they do not have."""

    async def story() -> None:
        circle = await noisy.taken_up(tmp_path)
        events, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        settings = circle.loop.settings
        weights = []
        for wanted in (True, False):
            own = own_candidate(settings, keeps_model=True)
            assert own.derives_rate
            replay = Replay([msgspec.structs.replace(own, derives_rate=wanted)], setup_of(settings), references=False)
            for event in events:
                replay.take(event)
            [trained] = replay.end().trained
            assert (None if trained.rate is None else trained.rate.name) == (STEADY if wanted else None)
            learner = Learner(
                learner_arguments(trained.policy, trained.interactions, trained.exploration, trained.rate),
                trained.model,
            )
            weights.append(learner.weights())
            learner.close()
        assert weights[0] == pytest.approx(weights_of(circle, newest_version(circle)), abs=1e-6)
        assert weights[0] != pytest.approx(weights[1], abs=1e-6)
        await circle.close()

    asyncio.run(story())
