"""The whole way, embedded and in a cluster: rank, reward, join, learn, serve."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.loops import new_loop_settings
from rankward.records import Interaction, JoinedEntry, LearningMode
from rankward.store.ports import JoinedLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.training.service import TrainingStatus
from tests.loop.circle import Circle, newest_version, replayed_weights, weights_of

BALANCED = new_loop_settings()


def test_what_is_rewarded_is_chosen_more_often(root: Path) -> None:
    """The one thing that everything else is for."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        before = await circle.play(300, prefix="before")
        await circle.circle()
        after = await circle.play(300, prefix="after")
        await circle.close()
        assert before < 0.5
        assert after > 0.9

    asyncio.run(story())


def test_nothing_is_learned_before_the_reward_wait_is_over(root: Path) -> None:
    """Rewarded events learned earlier than others would bias the model."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        await circle.play(50, seconds_between=0.01)
        circle.pass_time(598)
        await circle.join()
        assert (await circle.joined.extent())[1] == 0
        circle.pass_time(10)
        await circle.join()
        assert (await circle.joined.extent())[1] == 50
        await circle.close()

    asyncio.run(story())


def test_the_probability_logged_is_the_one_drawn_from_and_answered(root: Path) -> None:
    """Every estimate made from the log rests on it."""

    async def story() -> None:
        circle = Circle(root, msgspec.structs.replace(BALANCED, exploration=0.3))
        await circle.play(200)
        await circle.circle()
        outcome = await circle.rank("asked", "v1", actions=5)
        await circle.catch_up()
        extent = await circle.log.extent()
        [entry] = await circle.log.read(extent.end - 1, limit=1)
        assert entry.record == outcome.interaction
        assert isinstance(entry.record, Interaction)
        assert abs(sum(entry.record.pmf) - 1) < 1e-9
        assert min(entry.record.pmf) >= 0.3 / 5 - 1e-12
        assert entry.record.model_id == circle.loop.model_id
        await circle.close()

    asyncio.run(story())


def test_a_repeated_rank_is_answered_the_same_and_logged_once(root: Path) -> None:
    """A client that retries must not be told two things, nor count twice: whichever model is current by then."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        first = await circle.rank("same", "v0", named=True)
        await circle.play(300)
        await circle.circle()
        again = await circle.rank("same", "v0", named=True)
        assert again.repeated
        assert again.interaction == first.interaction
        assert again.interaction.model_id is None
        assert circle.loop.model_id is not None
        await circle.close()

        reopened = Circle(root, BALANCED)
        reopened.now_us = circle.now_us
        await reopened.follow()
        once_more = await reopened.rank("same", "v0", named=True)
        assert once_more.interaction == first.interaction
        await reopened.join()
        counts = [
            entry.record.event_id
            for entry in await reopened.log.read(0, limit=10_000)
            if isinstance(entry.record, Interaction) and entry.record.event_id == "same"
        ]
        assert counts == ["same"]
        await reopened.close()

    asyncio.run(story())


def test_a_step_is_wanted_when_something_came_or_is_due(root: Path) -> None:
    """An idle loop must cost nothing, and no event may wait for that."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        wait_s = circle.loop.settings.reward_wait.total_seconds()
        assert circle.joining.wants_step()
        await circle.join()
        assert not circle.joining.wants_step()

        await circle.rank("asked", "v0")
        await circle.catch_up()
        assert circle.joining.wants_step()
        await circle.join()
        circle.pass_time(wait_s - 1)
        assert not circle.joining.wants_step()
        circle.pass_time(1)
        assert circle.joining.wants_step(), "its wait is over, and nobody else lets time pass in the log"
        await circle.join()
        assert circle.joining.has_joined
        assert not circle.joining.wants_step()
        await circle.close()

    asyncio.run(story())


def test_a_trainer_that_has_idled_learns_what_comes(root: Path) -> None:
    """It reads the joined log when that has moved: nothing may be passed over."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        stop = asyncio.Event()
        epoch_id = circle.home.catalog.epochs(circle.loop.loop_id)[-1].epoch_id
        running = asyncio.create_task(circle.home.training("circle", epoch_id, circle.log, circle.joined).run(stop))
        learned = 0
        for prefix in ("first", "second", "third"):
            while (seen := circle.home.board.read(circle.loop.loop_id).get(f"training-{epoch_id}")) is None or (
                msgspec.json.decode(seen, type=TrainingStatus).learned < learned
            ):
                circle.pass_time(1)  # so that the trainer says how far it is
                await asyncio.sleep(0.005)
            await circle.play(20, prefix=prefix)
            circle.pass_time(circle.loop.settings.reward_wait.total_seconds() + 1)
            await circle.join()
            learned += 20
        stop.set()
        await running
        await circle.train()

        assert newest_version(circle).learned == 60
        await circle.close()

    asyncio.run(story())


def test_a_late_reward_is_counted_without_further_traffic(root: Path) -> None:
    """Whoever tries it by hand sends nothing else, and must be able to see why nothing is learned."""

    async def story() -> None:
        circle = Circle(root, msgspec.structs.replace(BALANCED, reward_wait=timedelta(seconds=2)))
        await circle.rank("slow", "v0")
        circle.pass_time(5)
        await circle.ranking.reward("slow", 1.0)
        await circle.ranking.reward("nobody", 1.0)
        await circle.join()
        circle.pass_time(121)
        await circle.join()
        counts = (await circle.joining.state()).counts
        assert (counts["late"], counts["unknown"], counts["defaulted"]) == (1, 1, 1)
        await circle.close()

    asyncio.run(story())


def test_a_rejoin_gives_the_joined_log_byte_for_byte(root: Path) -> None:
    """The joined log is derived: it can be thrown away and made again, whatever settings changed meanwhile."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        for number, wait_s in enumerate((600, 30, 1200)):
            await circle.configuration.change("circle", {"reward_wait": timedelta(seconds=wait_s)})
            await circle.follow()
            await circle.play(120, prefix=f"w{number}-", seconds_between=1)
            await circle.join()
        circle.pass_time(1300)
        await circle.join()
        live = await _all(circle.joined)
        again = SqliteJoinedLog(root / "again")
        joining = JoiningService(circle.log, again, clock=lambda: circle.now_us)
        while await joining.step():
            pass
        rejoined = await _all(again)
        await again.close()
        await circle.close()
        assert len(live) == 360
        assert msgspec.msgpack.encode(rejoined) == msgspec.msgpack.encode(live)

    asyncio.run(story())


async def _all(joined: JoinedLog) -> list[tuple[int, JoinedEntry]]:
    return list(await joined.read(0, limit=1_000_000))


@pytest.mark.parametrize(
    "policy",
    [
        BALANCED.policy,
        "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::",
        "--cb_explore_adf --bag 3 --epsilon 0.1 -q ::",
        "--cb_explore_adf --softmax --lambda 5 --cb_type dr -q ::",
    ],
)
def test_a_trainer_that_is_stopped_anywhere_ends_with_the_same_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """A checkpoint is exact: stopping and going on leaves no trace, not even with learners that hide state."""
    monkeypatch.setattr("rankward.training.fold.RELOAD_EVERY", 50)

    async def story() -> None:
        circle = Circle(root, msgspec.structs.replace(BALANCED, policy=policy, preset=None))
        for part in range(5):
            await circle.play(52, prefix=f"part{part}-", seconds_between=1)
            circle.pass_time(601)
            await circle.join()
            await circle.train()
        version = newest_version(circle)
        assert version.learned == 260
        versions = circle.home.catalog.versions(circle.loop.loop_id)
        assert max(v.joined_offset for v in versions if v.resumable) >= 250, "it can go on from near the end"
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.close()

    asyncio.run(story())


def test_a_deferred_decision_is_learned_only_once_activated(root: Path) -> None:
    """What was not shown cannot have been disliked."""

    async def story() -> None:
        circle = Circle(root, BALANCED)
        await circle.rank("shown", "v0", deferred=True)
        await circle.rank("hidden", "v0", deferred=True)
        await circle.ranking.activate("shown")
        await circle.ranking.reward("hidden", 1.0)
        await circle.circle()
        events, _ = await read_joined(circle.log, circle.joined, 0, limit=10)
        assert {event.interaction.event_id: event.skip_learn for event in events} == {"shown": False, "hidden": True}
        [version, *_] = circle.home.catalog.versions(circle.loop.loop_id)
        assert version.learned == 1
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize(("mode", "rewards"), [(LearningMode.APPRENTICE, False), (LearningMode.LOGGING_ONLY, True)])
def test_the_baseline_is_learned_without_being_risked(root: Path, mode: LearningMode, rewards: bool) -> None:
    """Apprentice and logging only show what the application would show, and still learn."""

    async def story() -> None:
        circle = Circle(root, msgspec.structs.replace(BALANCED, learning_mode=mode))
        outcomes = await asyncio.gather(*[circle.rank(f"e{number}", f"v{number % 3}") for number in range(300)])
        assert {outcome.interaction.shown for outcome in outcomes} == {0}
        await asyncio.gather(*[circle.ranking.reward(f"e{number}", float(rewards)) for number in range(300)])
        await circle.circle()
        await circle.configuration.change("circle", {"learning_mode": LearningMode.ONLINE})
        await circle.follow()
        outcome = await circle.rank("asked", "v1")
        assert outcome.interaction.pmf[0] == max(outcome.interaction.pmf)
        assert outcome.interaction.pmf[0] > 0.5
        await circle.close()

    asyncio.run(story())
