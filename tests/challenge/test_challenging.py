"""Challengers on a real loop, in virtual time: what they learn, how they stand, and what becomes of them."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from rankward.challenge.measure import Standing
from rankward.challenge.service import TRAINING_BEHIND
from rankward.challengers import ChallengerService, Position
from rankward.errors import CallerError
from rankward.evaluation.report import Verdict
from rankward.loops import new_loop_settings
from rankward.records import Features, Interaction, Interactions
from rankward.settings import LoopSettings
from rankward.store.ports import SetAside
from rankward.training.service import TrainingStatus
from rankward.vw.presets import BALANCED
from rankward.vw.rates import STEADY
from tests.challenge.arena import challenge, position, run_challengers, service_of
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
        assert 300 < found.learned <= 400, "those before, too, and none that would not have been published by then"
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


def test_a_changed_loop_begins_the_judging_anew_and_until_then_nothing_is_promoted(tmp_path: Path) -> None:
    """What was found under other settings does not hold; what was learned does, unless rewards mean something else."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        service = ChallengerService(circle.home, circle.home.trail)
        await challenge(circle, "quick", QUICK)
        await play(circle, 200, "e")
        await run_challengers(circle)
        before = await position(circle, "quick")
        assert before.standing.decisions == 200

        await circle.configuration.change("circle", {"model_export_frequency": timedelta(seconds=2)})
        with pytest.raises(CallerError, match=r"model_export_frequency.*has not been judged since"):
            await service.promote(circle.loop, "quick", log=circle.log)
        await run_challengers(circle)
        anew = await position(circle, "quick")
        assert anew.standing.decisions == 0
        assert anew.learned >= before.learned
        assert "model_export_frequency" in anew.challenger.description
        await play(circle, 50, "f")
        await run_challengers(circle)
        assert (await position(circle, "quick")).standing.decisions == 50

        await circle.configuration.change("circle", {"default_reward": 0.5})
        await run_challengers(circle)
        await play(circle, 50, "g")
        await run_challengers(circle)
        again = await position(circle, "quick")
        assert again.challenger.epoch.default_reward == 0.5
        assert again.standing.decisions == 50
        assert again.learned > before.learned, "the whole log, under what rewards mean now"

        await circle.registry.delete("circle")
        await run_challengers(circle)
        forgotten = await position(circle, "quick")
        assert (forgotten.learned, forgotten.standing.decisions) == (0, 0)
        assert circle.loop.forgotten_before == forgotten.challenger.epoch.first_interaction
        await circle.close()

    asyncio.run(story())


def test_an_event_that_a_learner_refuses_is_set_aside_for_its_challenger(tmp_path: Path) -> None:
    """And everything else is learned and judged."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await challenge(circle, "quick", QUICK)
        await challenge(circle, "other", QUICK)
        await circle.play(150, prefix="e")
        broken = (await circle.rank("broken", "v0")).interaction
        await circle.log.append(
            [msgspec.structs.replace(broken, event_id="no features", context=Features(b"{ this is not JSON"))]
        )
        await circle.play(150, prefix="f")
        circle.pass_time(11)
        await circle.join()
        await run_challengers(circle)
        for name in ("quick", "other"):
            found = await position(circle, name)
            [aside] = circle.home.challengers.set_asides(found.challenger.key)
            assert aside.event_id == "no features"
            assert found.standing.decisions == 301
        assert list(circle.home.catalog.set_asides(circle.loop.loop_id)) == []
        await circle.close()

    asyncio.run(story())


def test_what_the_loop_passes_over_its_challengers_do_too(tmp_path: Path) -> None:
    """The loop's own learner meets an event first: what kills it must not kill every challenger after it."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await challenge(circle, "quick", QUICK)
        await play(circle, 100, "e")
        stop = asyncio.Event()
        running = asyncio.create_task(service_of(circle).run(stop))

        async def judged(decisions: int) -> None:
            while (await position(circle, "quick")).standing.decisions < decisions:
                circle.timer.move(1_000_000)
                await asyncio.sleep(0.005)

        await judged(100)
        [entry] = [each for each in await circle.log.read(0, limit=1) if isinstance(each.record, Interaction)]
        deadly = msgspec.structs.replace(entry.record, event_id="deadly", context=Features(b"{ this is not JSON"))
        await circle.log.append([deadly])
        stored = await circle.log.extent()
        circle.home.catalog.set_aside(
            SetAside(
                loop_id=circle.loop.loop_id,
                interaction=stored.end - 1,
                event_id="deadly",
                reason="the learner died of it",
                time_us=circle.now_us,
            )
        )
        circle.pass_time(11)
        await play(circle, 50, "f")
        await judged(150)
        found = await position(circle, "quick")
        assert circle.home.challengers.set_asides(found.challenger.key) == []
        assert found.standing.decisions == 150
        stop.set()
        await running
        await circle.close()

    asyncio.run(story())


def test_challengers_wait_while_the_loop_itself_is_behind(tmp_path: Path) -> None:
    """The machine is the loop's own first, and whoever looks is told."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await challenge(circle, "quick", QUICK)
        await play(circle, 100, "e")

        def behind(count: int) -> None:
            status = TrainingStatus(
                epoch_id=1, joined_offset=0, joined_end=count, learned=0, rate_per_s=0.0, time_us=circle.now_us
            )
            circle.home.board.post(circle.loop.loop_id, "training-1", msgspec.json.encode(status))

        stop = asyncio.Event()
        behind(TRAINING_BEHIND + 1)
        running = asyncio.create_task(service_of(circle).run(stop))
        while not (await position(circle, "quick")).waits:
            circle.timer.move(1_000_000)
            behind(TRAINING_BEHIND + 1)
            await asyncio.sleep(0.005)
        assert (await position(circle, "quick")).standing.decisions == 0
        while (await position(circle, "quick")).standing.decisions < 100:
            circle.timer.move(1_000_000)
            behind(TRAINING_BEHIND)
            await asyncio.sleep(0.005)
        assert not (await position(circle, "quick")).waits
        stop.set()
        await running
        await circle.close()

    asyncio.run(story())


def test_one_that_is_removed_while_it_runs_leaves_nothing(tmp_path: Path) -> None:
    """Whoever runs it is late, and must not bring it back."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await challenge(circle, "quick", QUICK)
        await play(circle, 100, "e")
        stop = asyncio.Event()
        running = asyncio.create_task(service_of(circle).run(stop))
        while not (await position(circle, "quick")).standing.decisions:
            circle.timer.move(1_000_000)
            await asyncio.sleep(0.005)
        ChallengerService(circle.home, circle.home.trail).remove(circle.loop, "quick")
        await running
        assert circle.home.challengers.listed(circle.loop.loop_id) == []
        kept = tmp_path / "loops" / circle.loop.loop_id / "challengers"
        assert not kept.exists() or list(kept.iterdir()) == []
        await circle.close()

    asyncio.run(story())


def test_a_preset_chooses_its_rate_as_a_challenger_too(tmp_path: Path) -> None:
    """Else it would be judged by what it would not do: where rewards are noise, it learns in smaller steps."""

    async def story() -> None:
        circle = Circle(tmp_path, settings())
        await challenge(circle, "balanced", BALANCED.policy().text)
        rng = np.random.default_rng(3)
        for number in range(600):
            await circle.rank(f"e{number}", f"v{number * 7 % 3}")
            await circle.ranking.reward(f"e{number}", float(rng.random() < 0.05))
            circle.pass_time(0.1)
        await circle.circle()
        await run_challengers(circle)
        found = await position(circle, "balanced")
        rate = found.challenger.epoch.rate
        assert rate is not None
        assert rate.name == STEADY
        assert found.learned > 400, "it has learned the same events anew"
        assert found.standing.decisions == 600, "and is judged on, not again"
        await circle.close()

    asyncio.run(story())


def test_what_the_loop_has_begun_to_pair_a_challenger_pairs_too(tmp_path: Path) -> None:
    """A new group of features must not be lost on it."""

    async def story() -> None:
        quick = settings()
        circle = Circle(
            tmp_path,
            msgspec.structs.replace(
                new_loop_settings(),
                reward_wait=quick.reward_wait,
                model_export_frequency=quick.model_export_frequency,
            ),
        )
        await challenge(circle, "twin", BALANCED.policy().text)
        await play(circle, 60, "e")
        await run_challengers(circle)
        before = (await position(circle, "twin")).challenger.epoch.interactions
        assert before is not None
        assert set(before.pairs) == {"vd", "vi"}
        [serving] = circle.home.catalog.epochs(circle.loop.loop_id)
        more = Interactions((*before.pairs, "wd", "wi"), (*before.ignore_linear, "w"))
        circle.home.catalog.settle_epoch(msgspec.structs.replace(serving, interactions=more))
        await play(circle, 20, "f")
        await run_challengers(circle)
        after = await position(circle, "twin")
        assert after.challenger.epoch.interactions == more
        assert after.standing.decisions == 80
        assert after.learned > 0
        await circle.close()

    asyncio.run(story())
