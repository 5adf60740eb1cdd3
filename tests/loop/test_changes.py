"""What each change does to what was learned, embedded and in a cluster, with Rank served throughout."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from rankward.erasure import forget
from rankward.errors import CallerError, NotFound
from rankward.loops import new_loop_settings
from rankward.records import Action, Features, Interaction, LearningMode, Observation
from rankward.store.ports import ModelVersion
from tests.loop.circle import Circle, newest_version, replayed_weights, weights_of
from tests.service import PATIENCE_S

BALANCED = new_loop_settings()


async def _taught(folder: Path) -> Circle:
    circle = Circle(folder, BALANCED)
    await circle.play(200)
    await circle.circle()
    return circle


def test_a_new_exploration_is_served_at_once_by_the_same_model(root: Path) -> None:
    """Nothing needs to be learned again to explore more."""

    async def story() -> None:
        circle = await _taught(root)
        model = circle.loop.model_id
        await circle.configuration.change("circle", {"exploration": 0.6})
        await circle.follow()
        outcome = await circle.rank("asked", "v1")
        assert outcome.interaction.model_id == model
        assert min(outcome.interaction.pmf) >= 0.2 - 1e-9
        assert "--epsilon 0.6" in circle.loop.settings.policy
        assert len(circle.home.catalog.epochs(circle.loop.loop_id)) == 1
        await circle.close()

    asyncio.run(story())


def test_a_new_exploration_leaves_what_is_learned_as_it_was(root: Path) -> None:
    """The fold does not depend on it."""

    async def story() -> None:
        circle = await _taught(root)
        await circle.configuration.change("circle", {"exploration": 0.6})
        await circle.follow()
        await circle.play(100, prefix="more")
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 300
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "changes",
    [{"reward_wait": timedelta(seconds=30)}, {"learning_mode": LearningMode.APPRENTICE}],
    ids=["wait", "mode"],
)
def test_a_new_wait_or_mode_goes_on_with_the_model(root: Path, changes: dict[str, object]) -> None:
    """Later events follow the setting, earlier ones count as they were decided."""

    async def story() -> None:
        circle = await _taught(root)
        await circle.play(20, prefix="before")
        await circle.configuration.change("circle", changes)
        await circle.follow()
        await circle.play(20, prefix="after")
        circle.pass_time(601)
        await circle.join()
        await circle.train()
        version = newest_version(circle)
        assert (version.epoch_id, version.learned) == (1, 240)
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize("change", ["default_reward", "policy", "preset"])
def test_a_new_reward_or_policy_is_learned_beside_the_old_model(root: Path, change: str) -> None:
    """The old model serves until the new epoch has caught up; then the new one does."""

    async def story() -> None:
        circle = await _taught(root)
        old = circle.loop.model_id
        match change:
            case "default_reward":
                await circle.configuration.change("circle", {"default_reward": 0.5})
            case "policy":
                await circle.configuration.set_policy("circle", "--cb_explore_adf --epsilon 0.1 -q vd")
            case _:
                await circle.configuration.set_preset("circle", "personalizer")
        await circle.follow()
        assert [epoch.state for epoch in circle.home.catalog.epochs(circle.loop.loop_id)] == ["serving", "building"]
        assert (await circle.rank("meanwhile", "v1")).interaction.model_id == old
        await circle.train()
        await circle.follow()
        epochs = circle.home.catalog.epochs(circle.loop.loop_id)
        assert [(epoch.epoch_id, epoch.state) for epoch in epochs] == [(2, "serving")]
        assert (await circle.rank("after", "v1")).interaction.model_id == newest_version(circle).model_id
        assert newest_version(circle).learned == 200
        await circle.close()

    asyncio.run(story())


def test_only_the_newest_part_of_the_log_is_learned_again(root: Path) -> None:
    """A new epoch starts `model_retrain_days` back, not at the beginning of time."""

    async def story() -> None:
        circle = await _taught(root)
        circle.pass_time(3 * 86_400)
        await circle.play(50, prefix="late")
        circle.pass_time(601)
        await circle.join()
        await circle.configuration.change("circle", {"default_reward": 0.5})
        await circle.train()
        assert newest_version(circle).learned == 50
        await circle.close()

    asyncio.run(story())


def test_after_a_roll_back_learning_goes_on_from_that_version(root: Path) -> None:
    """The events learned since stay unlearned, those to come are learned on top."""

    async def story() -> None:
        circle = await _taught(root)
        wanted = newest_version(circle)
        await circle.play(60, prefix="regretted")
        await circle.circle()
        assert circle.loop.model_id != wanted.model_id
        await circle.registry.roll_back("circle", wanted.model_id)
        await circle.follow()
        assert (await circle.rank("asked", "v1")).interaction.model_id == wanted.model_id
        await circle.play(30, prefix="later")
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 31
        assert circle.loop.model_id == version.model_id
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        with pytest.raises(NotFound, match="keeps no model"):
            await circle.registry.roll_back("circle", "nobody")
        await circle.close()

    asyncio.run(story())


def test_building_can_be_stopped_and_what_serves_stays(root: Path) -> None:
    """Whoever changed a policy by mistake wants back what was, not what was asked for under another name."""

    async def story() -> None:
        circle = await _taught(root)
        with pytest.raises(CallerError, match="no model is being built"):
            await circle.registry.keep_serving("circle")
        before = circle.loop
        await circle.configuration.change("circle", {"exploration": 0.3})
        await circle.configuration.set_policy("circle", "--cb_explore_adf --epsilon 0.3 --cb_type dr")
        await circle.configuration.change("circle", {"default_reward": 0.5})
        await circle.registry.keep_serving("circle")
        await circle.follow()

        kept = circle.loop
        assert kept.model_id == before.model_id
        assert kept.settings.preset == before.settings.preset
        assert kept.settings.default_reward == before.settings.default_reward
        assert kept.settings.exploration == 0.3
        assert "--epsilon 0.3" in kept.settings.policy
        assert [epoch.state for epoch in circle.home.catalog.epochs(kept.loop_id)] == ["serving"]
        await circle.play(30, prefix="later")
        await circle.circle()
        assert circle.loop.model_id != kept.model_id
        assert newest_version(circle).epoch_id == circle.home.catalog.epochs(kept.loop_id)[0].epoch_id
        await circle.close()

    asyncio.run(story())


def test_a_deleted_model_is_forgotten_with_the_events_before(root: Path) -> None:
    """Delete means delete: not even events still waiting for their rewards come back."""

    async def story() -> None:
        circle = await _taught(root)
        await circle.play(40, prefix="waiting")
        await circle.registry.delete("circle")
        await circle.follow()
        outcome = await circle.rank("uniform", "v1")
        assert outcome.interaction.model_id is None
        assert set(outcome.interaction.pmf) == {1 / 3}
        await circle.play(25, prefix="new")
        await circle.circle()
        assert newest_version(circle).learned == 26
        await circle.close()

    asyncio.run(story())


def test_a_cleared_log_leaves_the_model(root: Path) -> None:
    """The contract's DELETE of logs removes events, not what was learned from them."""

    async def story() -> None:
        circle = await _taught(root)
        model = circle.loop.model_id
        await circle.play(40, prefix="gone")
        await circle.configuration.clear_log("circle")
        await circle.follow()
        outcome = await circle.rank("asked", "v1")
        assert outcome.interaction.model_id == model
        await circle.circle()
        assert newest_version(circle).learned == 201
        await circle.close()

    asyncio.run(story())


def test_learning_goes_on_after_events_were_erased(root: Path) -> None:
    """The model keeps what it learned; whoever learns the log anew learns the rest."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        await circle.play(60)
        await circle.circle()
        before = weights_of(circle, newest_version(circle))
        done = await forget(
            circle.home.catalog,
            circle.log,
            circle.joined,
            loop_id=circle.loop.loop_id,
            event_ids=[f"e{n}" for n in range(40)],
            subject=None,
        )
        assert done.events == 40  # of one that earned nothing, a model may have learned nothing
        await circle.play(60, prefix="more")
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 120
        assert weights_of(circle, version) != before
        again = await replayed_weights(circle, version.joined_offset)
        assert again != weights_of(circle, version), "a replay learns less"
        await circle.close()

    asyncio.run(story())


def test_a_new_namespace_starts_a_new_epoch_that_pairs_it(root: Path) -> None:
    """The preset pairs the namespaces a loop sends; when it sends another, that one must count as well."""

    async def story() -> None:
        circle = await _taught(root)
        for number in range(60):
            await circle.log.append([_strange(f"s{number}", b'[{"weather":{"sky":"grey"}}]')])
        circle.pass_time(601)
        await circle.join()
        await circle.train(1)
        await circle.train()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.epoch_id == 2
        assert epoch.interactions is not None
        assert "wd" in epoch.interactions.pairs
        assert newest_version(circle).learned == 260
        await circle.close()

    asyncio.run(story())


def test_an_event_that_the_learner_refuses_is_set_aside_and_the_loop_goes_on(root: Path) -> None:
    """One bad event must not stop a loop, and must stay out of every replay."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        await circle.play(30, prefix="before")
        # The service would never log these: a list of strings is refused at the door.
        await circle.log.append([_strange("bad", b'[{"tags":["a","b"]}]')])
        await circle.log.append([Observation(event_id="bad", value=1.0)])
        await circle.play(30, prefix="after")
        await circle.circle()
        [aside] = circle.home.catalog.set_asides(circle.loop.loop_id)
        assert aside.event_id == "bad"
        assert "parse" in aside.reason
        version = newest_version(circle)
        assert version.learned == 60
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.close()

    asyncio.run(story())


def test_an_epoch_that_was_kept_just_as_it_caught_up_serves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept now and then on its way. Where nothing comes after that, the old policy would go on deciding."""
    monkeypatch.setattr("rankward.training.service._CHECKPOINT_US", 0)  # so that it is kept after every stretch

    async def story() -> None:
        circle = await _taught(root)
        await circle.configuration.change("circle", {"default_reward": 0.5})
        await circle.train()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.default_reward == 0.5
        assert circle.loop.model_id == newest_version(circle).model_id
        await circle.close()

    asyncio.run(story())


def test_an_epoch_that_was_stopped_just_as_it_caught_up_serves(root: Path) -> None:
    """The next trainer finds nothing more to learn, and what was learned must serve all the same."""

    async def story() -> None:
        circle = await _taught(root)
        await circle.configuration.change("circle", {"default_reward": 0.5})
        stop = asyncio.Event()

        class Kept:
            """The catalog, which has the trainer stopped as soon as something is kept, and lets nothing serve."""

            def __getattr__(self, name: str) -> object:
                return getattr(circle.home.catalog, name)

            def publish(self, version: ModelVersion, **_: object) -> None:
                """Keep it."""
                circle.home.catalog.publish(version, serve=False)
                stop.set()

        trainer = circle.home.training("circle", 2, circle.log, circle.joined)
        trainer._catalog = Kept()  # type: ignore[assignment]
        await trainer.run(stop)
        assert [epoch.state for epoch in circle.home.catalog.epochs(circle.loop.loop_id)] == ["serving", "building"]
        await circle.train()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.default_reward == 0.5
        await circle.close()

    asyncio.run(story())


def _strange(event_id: str, context: bytes) -> Interaction:
    actions = tuple([Action(f"a{k}", Features(msgspec.json.encode([{"dish": {"kind": f"k{k}"}}]))) for k in range(3)])
    return Interaction(
        event_id=event_id,
        context=Features(context),
        actions=actions,
        pmf=(1 / 3, 1 / 3, 1 / 3),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=600_000_000,
    )


def test_a_trainer_does_not_go_on_under_its_loops_name_with_another_loop(root: Path) -> None:
    """What was deleted must not come back as the model of a loop that was made anew under the name."""

    async def story() -> None:
        circle = await _taught(root)
        service = circle.home.training("circle", 1, circle.log, circle.joined)
        circle.home.loops.delete("circle")
        again = circle.home.loops.create("circle", BALANCED)
        await asyncio.wait_for(service.run(asyncio.Event()), PATIENCE_S)
        assert circle.home.catalog.versions(again.loop_id) == []
        assert circle.loop.model_id is None
        await circle.close()

    asyncio.run(story())
