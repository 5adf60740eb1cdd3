"""A loop whose numbers get intervals: found from its first events, kept with its models, the same everywhere."""

from __future__ import annotations

import asyncio
import io
import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from vowpalwabbit import Workspace

from rankward.administration.effects import effects
from rankward.challenge.following import followed
from rankward.challengers import ChallengerService
from rankward.dsjson.write import write_line
from rankward.errors import InvalidRequest
from rankward.evaluation.files import LogFiles
from rankward.evaluation.replay import Setup
from rankward.evaluation.service import custom, evaluate
from rankward.history.export import LineSink, export
from rankward.joining.reader import read_joined
from rankward.joining.reward import RewardDefinition
from rankward.loops import new_loop_settings
from rankward.ranking.decide import RankRequest
from rankward.ranking.explore import check_pmf, floored
from rankward.ranking.service import Scorer
from rankward.ranking.slots import SlotsRequest
from rankward.records import Action, Features, Interaction, Slot
from rankward.registry.archive import pack, unpack
from rankward.registry.service import Form
from rankward.settings import Aggregation, LoopSettings, Numbers
from rankward.store.ports import Epoch
from rankward.vw.arguments import ProblemType
from rankward.vw.bins import Binner
from rankward.vw.presets import BALANCED, learner_arguments
from rankward.vw.trial import try_out
from tests.challenge.arena import challenge, run_challengers
from tests.loop.circle import Circle, newest_version, replayed_weights, weights_of

RAW = new_loop_settings()
SETTINGS = msgspec.structs.replace(RAW, numbers=Numbers.BINS)
PAGES = msgspec.structs.replace(SETTINGS, policy=BALANCED.policy(ProblemType.MULTI_SLOT).text)
ACTIONS = tuple(Action(f"a{k}", Features(b'[{"dish":{"kind":"k%d"}}]' % k)) for k in range(2))


def context(age: int, **more: float) -> Features:
    """Write what is known of a visitor."""
    return Features(msgspec.json.encode([{"visitor": {"age": age, **more}}]))


async def play(circle: Circle, count: int, *, prefix: str, **more: float) -> float:
    """Let visitors come, ten at a time, who like the second action between 35 and 60, and else the first.

    Returns their mean reward.
    """
    rng = random.Random(prefix)
    total = 0.0

    async def visit(event_id: str, age: int) -> float:
        request = RankRequest(event_id=event_id, context=context(age, **more), actions=ACTIONS)
        outcome = await circle.ranking.rank(request, named=False)
        return float(outcome.interaction.chosen == (35 <= age < 60))

    for first in range(0, count, 10):
        ages = {f"{prefix}{number}": rng.randrange(18, 80) for number in range(first, min(count, first + 10))}
        values = await asyncio.gather(*[visit(*each) for each in ages.items()])
        await asyncio.gather(*[circle.ranking.reward(*each) for each in zip(ages, values, strict=True)])
        total += sum(values)
        circle.pass_time(0.1 * len(ages))
    return total / count


def newest(circle: Circle) -> Epoch:
    """The newest epoch of the loop."""
    return circle.home.catalog.epochs(circle.loop.loop_id)[-1]


async def taught(folder: Path, settings: LoopSettings = SETTINGS) -> Circle:
    """Make a loop that has learned from 300 visitors, and serves what it has learned."""
    circle = Circle(folder, settings)
    await play(circle, 300, prefix="first")
    await circle.circle()
    return circle


@pytest.mark.slow
def test_what_is_liked_between_two_numbers_is_learned(tmp_path: Path) -> None:
    """It is what intervals are for: a straight line cannot say it."""

    async def story() -> None:
        reached = {}
        for name, settings in (("raw", RAW), ("bins", SETTINGS)):
            circle = await taught(tmp_path / name, settings)
            reached[name] = await play(circle, 200, prefix="second")
            await circle.close()
        assert reached["bins"] > reached["raw"] + 0.1, reached

    asyncio.run(story())


def test_edges_are_kept_with_the_epoch_and_its_versions(tmp_path: Path) -> None:
    """A model without them is another one; so they are settled before the first event is learned."""

    async def story() -> None:
        circle = await taught(tmp_path)
        epoch = newest(circle)
        assert epoch.derives_bins
        assert epoch.bins is not None
        assert list(epoch.bins.edges) == ["visitor"]
        assert epoch.bins.events == 300
        await play(circle, 100, prefix="second")
        await circle.circle()
        version = newest_version(circle)
        assert version.bins == newest(circle).bins == epoch.bins, "more events of the same kind change nothing"
        await circle.close()

    asyncio.run(story())


def test_every_decision_can_be_made_again_from_the_log(tmp_path: Path) -> None:
    """The log holds features as they came, and the version the edges: together they give the logged probabilities."""

    async def story() -> None:
        circle = await taught(tmp_path)
        version = next(
            v for v in circle.home.catalog.versions(circle.loop.loop_id) if v.model_id == circle.loop.model_id
        )
        await play(circle, 50, prefix="asked")
        circle.pass_time(circle.loop.settings.reward_wait.total_seconds() + 1)
        await circle.join()
        events, _ = await read_joined(circle.log, circle.joined, 300, limit=50)
        model = circle.home.models.get(circle.loop.loop_id, version.model_id)
        again = Scorer(version, model, circle.loop.settings.exploration)
        for event in events:
            decided = event.interaction
            assert isinstance(decided, Interaction)
            assert decided.model_id == version.model_id
            assert b"[" not in decided.context[1:]
            pmf = floored(check_pmf(again.pmf(decided.context, decided.actions), 2), circle.loop.settings.exploration)
            assert decided.pmf == pytest.approx(pmf, abs=1e-6)
        again.close()
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize("settings", [SETTINGS, msgspec.structs.replace(SETTINGS, policy=LoopSettings().policy)])
def test_a_trainer_that_is_stopped_ends_with_the_same_weights(tmp_path: Path, settings: LoopSettings) -> None:
    """The edges belong to the checkpoint."""

    async def story() -> None:
        circle = Circle(tmp_path, settings)
        for part in range(4):
            await play(circle, 60, prefix=f"p{part}-")
            await circle.circle()
        version = newest_version(circle)
        assert version.learned == 240
        assert version.bins is not None
        assert version.bins.edges
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.close()

    asyncio.run(story())


def test_a_new_loop_begins_without_and_gets_edges_soon(tmp_path: Path) -> None:
    """The first model must not wait for enough numbers, nor be stuck with edges of a handful of them."""

    async def story() -> None:
        circle = Circle(tmp_path, SETTINGS)
        await play(circle, 20, prefix="first")
        await circle.circle()
        first = newest(circle)
        assert first.bins is not None
        assert first.bins.edges == {}
        assert circle.ranking.scorer is not None
        await play(circle, 60, prefix="second")
        await circle.circle()
        second = newest(circle)
        assert second.epoch_id > first.epoch_id
        assert "visitor.age" in second.reason
        assert second.bins is not None
        assert list(second.bins.edges) == ["visitor"]
        await circle.train()
        await circle.follow()
        assert newest_version(circle).bins == second.bins
        assert newest_version(circle).learned == 80
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_numbers_that_turn_up_later_start_an_epoch_of_their_own(tmp_path: Path) -> None:
    """Or a feature that an application adds would never get intervals."""

    async def story() -> None:
        circle = await taught(tmp_path)
        first = newest(circle)
        await play(circle, 150, prefix="second")
        await circle.circle()
        assert newest(circle) == first or newest(circle).epoch_id == first.epoch_id
        for number in range(300):
            await play(circle, 1, prefix=f"third{number}-", height=150 + number % 50)
        await circle.circle()
        assert "visitor.height" in newest(circle).reason
        assert newest(circle).interactions == first.interactions
        await circle.close()

    asyncio.run(story())


def test_changing_the_option_starts_an_epoch_and_is_said(tmp_path: Path) -> None:
    """What serves keeps what it was learned with until the new one has caught up."""

    async def story() -> None:
        circle = await taught(tmp_path, RAW)
        before, serving = circle.loop.settings, circle.loop.model_id
        await circle.configuration.change("circle", {"numbers": Numbers.BINS})
        started = newest(circle)
        assert "numbers" in started.reason
        assert started.derives_bins
        assert circle.loop.model_id == serving
        said = " ".join(effects(before, circle.loop.settings, retrained=True))
        assert "numbers:" in said
        assert "rankward's own client" in said
        await circle.train()
        await circle.follow()
        assert newest_version(circle).bins is not None
        await circle.configuration.change("circle", {"numbers": Numbers.RAW})
        await circle.train()
        assert newest_version(circle).bins is None
        await circle.close()

    asyncio.run(story())


def test_a_loop_that_is_rolled_back_goes_on_with_the_edges_of_that_version(tmp_path: Path) -> None:
    """Whatever the loop's option is by now: the weights are of those intervals."""

    async def story() -> None:
        circle = await taught(tmp_path)
        binned = newest_version(circle)
        await circle.configuration.change("circle", {"numbers": Numbers.RAW})
        await circle.train()
        await circle.follow()
        await circle.registry.roll_back("circle", binned.model_id)
        await circle.follow()
        assert await play(circle, 100, prefix="second") > 0.7
        await circle.circle()
        assert newest_version(circle).bins == newest(circle).bins == binned.bins
        assert newest_version(circle).learned == 100
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_a_model_travels_with_its_bins_or_not_at_all(tmp_path: Path) -> None:
    """Without them it would be served, and decide otherwise, and nobody would know why."""

    async def story() -> None:
        there = await taught(tmp_path / "there")
        version = newest_version(there)
        with pytest.raises(InvalidRequest, match="numbers=bins"):
            await there.registry.exported(version, Form.BARE)
        whole = await there.registry.exported(version, Form.WITH_BINS)
        sent = await there.registry.exported(version, Form.SIGNED)
        assert await there.registry.exported(version, Form.SIGNED) == sent
        asked = RankRequest(event_id="asked", context=context(40), actions=ACTIONS)
        pmf = (await there.ranking.rank(asked, named=False)).interaction.pmf

        for name, archive in (("signed", sent), ("whole", whole)):
            here = Circle(tmp_path / name, RAW)
            await here.registry.import_model(
                "circle", io.BytesIO(archive), bound=1 << 24, by_admin=True, try_out=try_out
            )
            await here.follow()
            assert newest_version(here).bins == version.bins
            assert (await here.ranking.rank(asked, named=False)).interaction.pmf == pytest.approx(pmf)
            await here.close()
        await there.close()

    asyncio.run(story())


def test_bins_that_were_changed_on_the_way_are_not_let_in(tmp_path: Path) -> None:
    """The signature is of both."""

    async def story() -> None:
        circle = await taught(tmp_path)
        version = newest_version(circle)
        assert version.bins is not None
        sent = await circle.registry.exported(version, Form.SIGNED)
        other = msgspec.structs.replace(version, bins=msgspec.structs.replace(version.bins, events=1))
        mixed = io.BytesIO(await circle.registry.exported(other, Form.SIGNED))
        parcels = [unpack(io.BytesIO(sent), bound=1 << 24), unpack(mixed, bound=1 << 24)]
        forged = pack(parcels[0].model, parcels[0].certificate, parcels[0].signature, bins=parcels[1].bins)
        with pytest.raises(InvalidRequest, match="signature"):
            await circle.registry.import_model(
                "circle", io.BytesIO(forged), bound=1 << 24, by_admin=True, try_out=try_out
            )
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_pages_of_several_slots_have_numbers_too(tmp_path: Path) -> None:
    """Contexts, actions and slots alike, and a model is the same whether training was stopped or not."""

    async def story() -> None:
        circle = Circle(tmp_path, PAGES)
        rng = random.Random(5)
        for part in range(4):
            for number in range(80):
                age = rng.randrange(18, 80)
                page = SlotsRequest(
                    event_id=f"p{part}-{number}",
                    context=context(age),
                    actions=ACTIONS,
                    slots=(Slot("hero", Features(b'[{"row":%d}]' % rng.randrange(9)), baseline=0),),
                )
                decided = (await circle.ranking.rank_slots(page, named=False)).interaction
                liked = float(decided.choices[0].chosen == (35 <= age < 60))
                await circle.ranking.reward_slots(decided.event_id, [("hero", liked)])
                circle.pass_time(0.1)
            await circle.circle()
        version = newest_version(circle)
        assert version.bins is not None
        assert set(version.bins.edges) == {"visitor", "sj"}
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset) != {}
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_an_exported_log_is_evaluated_with_the_same_edges(tmp_path: Path) -> None:
    """Lines hold features as they came: an evaluation with the option finds the edges that an epoch of them would."""

    async def story() -> None:
        circle = await taught(tmp_path)
        await play(circle, 500, prefix="second")
        circle.pass_time(circle.loop.settings.reward_wait.total_seconds() + 1)
        await circle.join()
        definition = RewardDefinition(0.0, Aggregation.EARLIEST)
        events, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        file = tmp_path / "log.json"
        file.write_text("".join(write_line(event, definition) + "\n" for event in events), "utf-8")
        await circle.close()
        assert len(events) == 800

        source = LogFiles(paths=(file,), reward_wait_us=1_000_000)
        setup = Setup(rewards=definition, export_us=5_000_000)
        both = [custom(each, BALANCED.name, exploration=0.02, numbers=Numbers(each)) for each in ("raw", "bins")]
        report = evaluate(source, both, setup, processes=1)
        found = {result.name: result for result in report.overall()}
        assert found["bins"].numbers is Numbers.BINS
        assert found["bins"].estimate is not None
        assert found["raw"].estimate is not None
        assert found["bins"].estimate.value > found["raw"].estimate.value + 0.05

    asyncio.run(story())


def test_lines_with_intervals_replay_on_a_learner_that_knows_of_none(tmp_path: Path) -> None:
    """Whoever takes a log to Vowpal Wabbit by itself must be able to get what the loop has."""

    async def story() -> None:
        circle = await taught(tmp_path / "data")
        version = newest_version(circle)
        assert version.bins is not None
        file = tmp_path / "log.json"
        with file.open("wb") as opened:
            sink = LineSink(opened, RewardDefinition(0.0, Aggregation.EARLIEST), Binner(version.bins))
            done = await export(circle.log, circle.joined, sink)
        assert done.written == version.learned == 300
        arguments = learner_arguments(version.policy, version.interactions, 0.0, version.rate)
        alone = Workspace(f"{arguments} --dsjson --quiet -d {file}")
        weights = {i: alone.get_weight(i) for i in range(alone.num_weights()) if alone.get_weight(i) != 0}
        assert weights == weights_of(circle, version) != {}
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_a_challenger_sees_numbers_as_the_loop_does_and_keeps_its_edges_when_promoted(tmp_path: Path) -> None:
    """It is compared with what serves: it must not be worse, or better, for another sight of numbers."""
    by_chance = msgspec.structs.replace(
        SETTINGS,
        policy="--cb_explore_adf --epsilon 1.0",
        preset=None,
        exploration=1.0,
        reward_wait=timedelta(seconds=10),
        model_export_frequency=timedelta(seconds=5),
    )

    async def story() -> None:
        circle = await taught(tmp_path, by_chance)
        await challenge(circle, "quick", "--cb_explore_adf --epsilon 0.05 --cb_type mtr -q vd")
        await play(circle, 300, prefix="second")
        await circle.circle()
        await run_challengers(circle)
        [running] = circle.home.challengers.listed(circle.loop.loop_id)
        raw = msgspec.structs.replace(circle.loop.settings, numbers=Numbers.RAW)
        onward = followed(running, msgspec.structs.replace(circle.loop, settings=raw), now_us=circle.now_us)
        assert not onward.epoch.derives_bins, "what it has learned does not hold under another treatment"
        loop = await ChallengerService(circle.home, circle.home.trail).promote(circle.loop, "quick", log=circle.log)
        promoted = circle.registry.version(loop, str(loop.model_id))
        assert loop.settings.numbers is Numbers.BINS
        assert promoted.bins is not None
        assert list(promoted.bins.edges) == ["visitor"]
        assert newest(circle).bins == promoted.bins
        await circle.follow()
        assert await play(circle, 100, prefix="third") > 0.7
        await circle.close()

    asyncio.run(story())
