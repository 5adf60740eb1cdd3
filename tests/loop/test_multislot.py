"""The whole circle for several slots: decided, rewarded slot by slot, joined, learned, and served again.

What is kept for slots is held to both homes. What the learner makes of it, and what settings refuse, does not depend on
where it is kept, and takes the learner seconds: that is tried in one.
"""

from __future__ import annotations

import asyncio
import io
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.errors import InvalidRequest, InvalidSettings
from rankward.joining.reader import read_joined
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.ranking.slots import SlotsRequest
from rankward.records import Action, Features, LearningMode, MultiSlotInteraction, Observation, Slot
from rankward.registry.service import Form, Imported
from rankward.settings import Aggregation, LoopSettings
from rankward.vw.arguments import ProblemType
from rankward.vw.presets import BALANCED
from rankward.vw.trial import try_out
from tests.loop.circle import Circle, newest_version, replayed_weights, weights_of

if TYPE_CHECKING:
    from pathlib import Path

POLICY = "--ccb_explore_adf --epsilon 0.2 --cb_type mtr -q ::"
SETTINGS = LoopSettings(
    reward_wait=timedelta(seconds=10),
    model_export_frequency=timedelta(seconds=1),
    policy=POLICY,
    preset=None,
)
KINDS = ("news", "sport", "film", "game")
LIKED = {"hero": 1, "side": 3}
"""Which of the actions is liked in each slot."""


def features(value: object) -> Features:
    """Write features as a request has them once they are checked."""
    return Features(msgspec.json.encode([value]))


def page(event_id: str, **options: bool) -> SlotsRequest:
    """Make a request for two slots of one page."""
    return SlotsRequest(
        event_id=event_id,
        context=features({"visitor": {"device": "phone"}}),
        actions=tuple([Action(f"a{k}", features({"kind": kind})) for k, kind in enumerate(KINDS)]),
        slots=(
            Slot("hero", features({"size": "large"}), baseline=0),
            Slot("side", features({"size": "small"}), 1, (0,)),
        ),
        deferred=options.get("deferred", False),
    )


async def taken(circle: Circle, sent: bytes) -> Imported:
    """Import with the admin key."""
    return await circle.registry.import_model("circle", io.BytesIO(sent), bound=1 << 24, by_admin=True, try_out=try_out)


async def play(circle: Circle, count: int, *, prefix: str = "p") -> float:
    """Let pages be shown whose visitors like one action in each slot. Returns the share of slots that were liked."""
    liked = 0
    for first in range(0, count, 10):
        pages = [page(f"{prefix}{number}") for number in range(first, min(count, first + 10))]
        outcomes = await asyncio.gather(*[circle.ranking.rank_slots(each, named=False) for each in pages])
        rewards = [
            (outcome.interaction.event_id, slot.id, float(choice.chosen == LIKED[slot.id]))
            for outcome in outcomes
            for slot, choice in zip(outcome.interaction.slots, outcome.interaction.choices, strict=True)
        ]
        liked += sum(value > 0 for *_, value in rewards)
        # Slots are rewarded separately.
        await asyncio.gather(
            *[circle.ranking.reward_slots(event_id, [(slot, value)]) for event_id, slot, value in rewards]
        )
        circle.pass_time(0.1 * len(pages))
    return liked / 2 / count


def served(circle: Circle) -> list[dict[int, float]]:
    """The probabilities of each slot's actions as the serving model has them, for a page that draws what is liked."""
    scorer = circle.ranking.scorer
    assert scorer is not None
    request = page("x")
    for seed in range(1_000):
        choices = scorer.choices(request.context, request.actions, request.slots, [seed, seed])
        if choices[0].chosen == LIKED["hero"]:
            return [dict(zip(choice.actions, choice.pmf, strict=True)) for choice in choices]
    raise AssertionError("the hero never draws what is liked there")


@pytest.mark.slow
def test_each_slot_learns_what_is_liked_there(tmp_path: Path) -> None:
    """The promise of multi-slot: served probabilities move towards the good action, slot by slot."""

    async def run() -> None:
        circle = Circle(tmp_path, SETTINGS)
        before = await play(circle, 400, prefix="a")
        assert circle.ranking.scorer is None
        await circle.circle()
        after = await play(circle, 300, prefix="b")
        assert before < 0.4
        assert after > 0.7
        hero, side = served(circle)
        assert hero[1] == pytest.approx(1 - 0.2 + 0.2 / 4, abs=1e-6)
        assert side[3] == pytest.approx(1 - 0.2 + 0.2 / 2, abs=1e-6)  # neither a1, which the hero shows, nor a0
        await circle.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_model_is_the_same_whether_training_was_stopped_or_not(tmp_path: Path) -> None:
    """Checkpoints and a fold from the start end with the same weights."""

    async def run() -> None:
        circle = Circle(tmp_path, SETTINGS)
        for part in range(3):
            await play(circle, 60, prefix=f"p{part}-")
            await circle.circle()
        version = newest_version(circle)
        assert version.learned == 180
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset) != {}
        await circle.close()

    asyncio.run(run())


@pytest.mark.slow
def test_what_is_derived_for_slots_pairs_their_features_too(tmp_path: Path) -> None:
    """`balanced` has to let an action do well in one slot and badly in another."""
    settings = msgspec.structs.replace(
        SETTINGS, policy=BALANCED.policy(ProblemType.MULTI_SLOT).text, preset="balanced", exploration=0.02
    )

    async def run() -> None:
        circle = Circle(tmp_path, settings)
        await play(circle, 400, prefix="a")
        await circle.circle()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.interactions is not None
        assert set(epoch.interactions.pairs) == {"si", "sj", "vi", "vj"}
        assert epoch.interactions.ignore_linear == ("s", "v")
        assert await play(circle, 200, prefix="b") > 0.6
        await circle.close()

    asyncio.run(run())


def test_rewards_add_up_slot_by_slot(root: Path) -> None:
    """Several for one slot are aggregated, a slot without any gets the default, unknown slots are dropped."""

    async def run() -> None:
        circle = Circle(root, SETTINGS)
        await circle.ranking.rank_slots(page("e1"), named=True)
        await circle.ranking.reward_slots("e1", [("hero", 0.5), ("foot", 1.0)])
        await circle.ranking.reward_slots("e1", [("hero", 0.25)])
        await circle.ranking.reward_slots("e1", [])
        await circle.ranking.rank_slots(page("e2"), named=True)
        await circle.ranking.reward("e2", 0.75)
        circle.pass_time(11)
        await circle.join()
        [(_, first), (_, second)] = await circle.joined.read(0, limit=10)
        assert [(each.slot, each.value) for each in first.observations] == [("hero", 0.5), ("hero", 0.25)]
        assert [(each.slot, each.value) for each in second.observations] == [(None, 0.75)]
        counts = (await circle.joined.state()).counts
        assert (counts["joined"], counts["rewarded"], counts["unknown_slot"]) == (2, 2, 1)
        await circle.close()

    asyncio.run(run())


def test_a_deferred_page_counts_once_it_is_activated(root: Path) -> None:
    """As a whole: a page is shown or not."""

    async def run() -> None:
        circle = Circle(root, SETTINGS)
        for event_id in ("shown", "not-shown"):
            await circle.ranking.rank_slots(page(event_id, deferred=True), named=True)
            await circle.ranking.reward_slots(event_id, [("hero", 1.0)])
        await circle.ranking.activate("shown")
        await circle.circle()
        assert newest_version(circle).learned == 1
        assert (await circle.joined.state()).counts["never_activated"] == 1
        await circle.close()

    asyncio.run(run())


def test_a_page_asked_for_again_gets_the_decision_on_record(root: Path) -> None:
    """Whichever model is current by then, and nothing more is logged."""

    async def run() -> None:
        circle = Circle(root, SETTINGS)
        first = await circle.ranking.rank_slots(page("again"), named=True)
        end = (await circle.log.extent()).end
        await play(circle, 200)
        await circle.circle()
        assert circle.ranking.scorer is not None
        logged = (await circle.log.extent()).end
        again = await circle.ranking.rank_slots(page("again"), named=True)
        assert (again.interaction, again.repeated) == (first.interaction, True)
        await circle.catch_up()
        assert (await circle.log.extent()).end == logged > end
        other = msgspec.structs.replace(page("again"), slots=page("again").slots[:1])
        assert not (await circle.ranking.rank_slots(other, named=True)).repeated
        await circle.close()

    asyncio.run(run())


def test_a_decision_without_slots_is_learned_by_a_loop_that_has_them(root: Path) -> None:
    """Old pages of an application go on calling Rank; they are decided as one slot."""

    async def run() -> None:
        circle = Circle(root, SETTINGS)
        before = await circle.play(300, prefix="a")
        [*_, record] = [
            entry.record for entry in await circle.log.read(0, limit=1_000) if not isinstance(entry.record, Observation)
        ]
        assert isinstance(record, MultiSlotInteraction)
        assert [slot.id for slot in record.slots] == [""]
        await circle.circle()
        assert newest_version(circle).learned == 300
        assert before < 0.45
        assert await circle.play(200, prefix="b") > 0.7
        await circle.close()

    asyncio.run(run())


def test_a_loop_goes_over_to_slots_and_back(tmp_path: Path) -> None:
    """A policy change like any other: uniform until there is a model of the new kind, and nothing is lost."""

    async def run() -> None:
        circle = Circle(tmp_path, LoopSettings(reward_wait=timedelta(seconds=10), default_reward=0.0))
        with pytest.raises(InvalidRequest) as refused:
            await circle.ranking.rank_slots(page("e"), named=True)
        assert refused.value.code == "InvalidMultiSlotApiAccess"
        await circle.play(60, prefix="single")
        await circle.circle()
        single = circle.loop.model_id
        asked = (await circle.rank("kept", "v0", named=True)).interaction

        await circle.configuration.set_policy("circle", POLICY)
        await circle.follow()
        first = (await circle.ranking.rank_slots(page("first"), named=True)).interaction
        assert first.model_id is None
        assert [choice.pmf for choice in first.choices] == [
            (0.25,) * 4,
            (0.5,) * 2 if first.choices[0].chosen else (1 / 3,) * 3,
        ]
        again = await circle.rank("kept", "v0", named=True)
        assert (again.interaction, again.repeated) == (asked, True)
        await play(circle, 60, prefix="multi")
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 61
        assert circle.loop.model_id == version.model_id
        assert (await circle.ranking.rank_slots(page("second"), named=True)).interaction.model_id == version.model_id
        assert single is not None
        with pytest.raises(InvalidSettings, match="give the loop a policy of the model's kind first"):
            await circle.registry.roll_back("circle", single)

        await circle.configuration.reset_policy("circle")
        assert circle.loop.settings.preset == "personalizer"
        assert "--ccb_explore_adf" in circle.loop.settings.policy
        await circle.configuration.set_policy("circle", LoopSettings().policy)
        await circle.follow()
        assert (await circle.rank("uniform", "v0")).interaction.model_id is None
        await circle.circle()
        assert newest_version(circle).learned >= 61  # the decisions from before the excursion
        assert (await circle.rank("served", "v0")).interaction.model_id == circle.loop.model_id
        await circle.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_model_for_slots_moves_to_another_loop_for_slots(tmp_path: Path) -> None:
    """It serves there at once and goes on learning; a loop for single slots has no use for it."""

    async def run() -> None:
        here, there = Circle(tmp_path / "here", SETTINGS), Circle(tmp_path / "there", SETTINGS)
        await play(here, 60)
        await here.circle()
        archive = await here.registry.exported(newest_version(here), Form.SIGNED)

        imported = await taken(there, archive)
        await there.follow()
        first = (await there.ranking.rank_slots(page("first"), named=True)).interaction
        assert first.model_id == imported.model_id
        assert served(there) == served(here)
        await play(there, 20)
        await there.circle()
        assert newest_version(there).learned == 21
        assert there.loop.model_id == newest_version(there).model_id

        await there.configuration.set_policy("circle", LoopSettings().policy)
        with pytest.raises(InvalidRequest, match="give the loop the policy `--ccb_explore_adf") as refused:
            await taken(there, archive)
        assert refused.value.code == "InvalidModelImportFormat"
        await here.close()
        await there.close()

    asyncio.run(run())


@pytest.mark.parametrize("mode", [LearningMode.APPRENTICE, LearningMode.LOGGING_ONLY])
def test_other_modes_show_the_baselines(tmp_path: Path, mode: LearningMode) -> None:
    """An apprentice learns to match each slot's own; logging only learns from what the application earned."""
    settings = msgspec.structs.replace(SETTINGS, learning_mode=mode)

    async def run() -> None:
        circle = Circle(tmp_path, settings)
        pages = [page(f"e{number}") for number in range(300)]
        outcomes = await asyncio.gather(*[circle.ranking.rank_slots(each, named=False) for each in pages])
        assert all(outcome.interaction.shown == [0, 1] for outcome in outcomes)
        await asyncio.gather(*[circle.ranking.reward_slots(each.event_id, [("side", 1.0)]) for each in pages])
        await circle.circle()
        scorer = circle.ranking.scorer
        assert scorer is not None
        if mode is LearningMode.APPRENTICE:
            request = page("x")
            drawn = [
                [
                    c.chosen
                    for c in scorer.choices(request.context, request.actions, request.slots, [seed, seed + 1_000])
                ]
                for seed in range(200)
            ]
            assert sum(hero == 0 for hero, _ in drawn) > 150
            assert sum(side == 1 for _, side in drawn) > 150
        await circle.close()

    asyncio.run(run())


def test_auto_optimization_and_slots_exclude_each_other(tmp_path: Path) -> None:
    """The contract says so, whichever comes second."""

    async def run() -> None:
        circle = Circle(tmp_path, SETTINGS)
        with pytest.raises(InvalidSettings) as refused:
            await circle.configuration.change("circle", {"is_auto_optimization_enabled": True})
        assert refused.value.code == "ProblemTypeIncompatibleWithAutoOptimization"
        await circle.configuration.set_policy("circle", LoopSettings().policy)
        await circle.configuration.change("circle", {"is_auto_optimization_enabled": True})
        with pytest.raises(InvalidSettings) as refused:
            await circle.configuration.set_policy("circle", POLICY)
        assert refused.value.code == "ProblemTypeIncompatibleWithAutoOptimization"
        assert circle.loop.settings.policy == LoopSettings().policy
        await circle.close()

    asyncio.run(run())


def test_an_observation_of_a_slot_is_read_with_its_reward(root: Path) -> None:
    """What training reads from the logs is what was reported."""

    async def run() -> None:
        circle = Circle(root, SETTINGS)
        await circle.ranking.rank_slots(page("e1"), named=True)
        await circle.ranking.reward_slots("e1", [("side", 0.75)])
        await circle.circle()
        [event], _ = await read_joined(circle.log, circle.joined, 0, limit=10)
        definition = RewardDefinition(0.125, Aggregation.EARLIEST)
        assert [observed_reward(event, definition, slot) for slot in (0, 1)] == [0.125, 0.75]
        await circle.close()

    asyncio.run(run())
