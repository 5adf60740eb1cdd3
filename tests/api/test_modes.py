"""Learning modes and deferred activation, from the call to the log and to what is learned of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.records import Arm, JoinedEvent, LearningMode, SlotChoice
from rankward.settings import Aggregation, LoopSettings
from tests.service import eventually, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow

QUICK = LoopSettings(
    model_export_frequency=timedelta(milliseconds=100),
    default_reward=0.25,
)
REWARD = RewardDefinition(0.25, Aggregation.EARLIEST)
EVENTS = 40  # that of two actions only one is drawn has a chance of 2 * 0.5 ** 40 = 2e-12


@pytest.fixture(autouse=True)
def _passing(service: RunningService) -> Iterator[None]:
    with service.passing_loops():
        yield


def joined(service: RunningService, loop: LoopClient, count: int) -> dict[str, JoinedEvent]:
    """Let the waits be over, wait until so many events are joined, and return them by event id."""
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) >= count, f"{count} events are joined")
    events = {event.interaction.event_id: event for event in service.joined(loop.loop)}
    assert len(events) == count
    return events


def test_online_shows_and_logs_the_draw(service: RunningService) -> None:
    """What the caller was told is what is learned from."""
    loop = service.new_loop()
    answers = [loop.rank(request("a", "b", "c")).json() for _ in range(60)]  # so that chance leaves out none

    shown = [answer["rewardActionId"] for answer in answers]
    records = service.records(loop.loop)
    assert set(shown) == {"a", "b", "c"}
    assert [record.actions[record.chosen].id for record in records] == shown
    assert {(record.learning_mode, record.arm) for record in records} == {(LearningMode.ONLINE, Arm.POLICY)}


def test_an_apprentice_shows_the_baseline_and_learns_to_match_it(service: RunningService) -> None:
    """The log has the model's draw and distribution; the learned reward is 1 where that was the baseline."""
    loop = service.new_loop(QUICK)
    assert loop.put("/configurations/service", {"learningMode": "Apprentice"}).status_code == 200

    for n in range(EVENTS):
        body = loop.rank(request("a", "b", "c", excludedActions=["a"], eventId=f"e{n}")).json()
        assert [action["id"] for action in body["ranking"]] == ["a", "b", "c"]
        assert [action["probability"] for action in body["ranking"]] == [0.0, 0.5, 0.5]
        assert body["rewardActionId"] == "b"
        assert loop.reward(f"e{n}", 0.75).status_code == 204

    events = joined(service, loop, EVENTS).values()
    assert {
        event.interaction.actions[choice.chosen].id for event in events for choice in event.interaction.choices
    } == {
        "b",
        "c",
    }
    assert {event.interaction.learning_mode for event in events} == {LearningMode.APPRENTICE}
    for event in events:
        assert training_reward(event, REWARD) == float(event.interaction.chose_baseline)
        assert observed_reward(event, REWARD) == 0.75


def test_logging_only_shows_and_logs_the_baseline(service: RunningService) -> None:
    """Request order, probability 1, and the application's own reward."""
    loop = service.new_loop(QUICK)
    loop.put("/configurations/service", {"learningMode": "LoggingOnly"})

    for n in range(EVENTS):
        body = loop.rank(request("a", "b", "c", eventId=f"e{n}")).json()
        assert [action["id"] for action in body["ranking"]] == ["a", "b", "c"]
        assert body["rewardActionId"] == "a"
        loop.reward(f"e{n}", 0.75)

    for event in joined(service, loop, EVENTS).values():
        assert event.interaction.choices == (SlotChoice((0, 1, 2), (1.0, 0.0, 0.0)),)
        assert training_reward(event, REWARD) == 0.75


def test_a_switch_of_modes_forgets_nothing(service: RunningService) -> None:
    """Events are learned as they were logged, whatever mode they came from; a repeat stays what it was."""
    loop = service.new_loop(QUICK)
    loop.put("/configurations/service", {"learningMode": "Apprentice"})
    apprentice = loop.rank(request("a", "b", eventId="before")).json()
    loop.put("/configurations/service", {"learningMode": "Online"})
    loop.rank(request("a", "b", eventId="after"))

    assert loop.rank(request("a", "b", eventId="before")).json() == apprentice

    events = joined(service, loop, 2)
    assert events["before"].interaction.learning_mode is LearningMode.APPRENTICE
    assert events["after"].interaction.learning_mode is LearningMode.ONLINE
    loop_id = service.loop(loop.loop).loop_id

    def learned() -> bool:
        versions = service.home.catalog.versions(loop_id)
        return bool(versions) and versions[0].learned == 2

    eventually(learned, "both are learned")


def test_a_deferred_event_counts_only_once_activated(service: RunningService) -> None:
    """Never activated: not learned, rewards ignored. Activated without a reward: the default."""
    loop = service.new_loop(QUICK)
    for event_id in ("shown", "shown-unrewarded", "unshown", "unshown-rewarded"):
        loop.rank(request("a", "b", eventId=event_id, deferActivation=True))
    loop.rank(request("a", "b", eventId="at-once"))
    for event_id in ("shown", "unshown-rewarded", "at-once"):
        loop.reward(event_id, 0.75)
    for event_id in ("shown", "shown-unrewarded", "shown-unrewarded"):
        loop.activate(event_id)

    events = joined(service, loop, 5)
    skipped = {event_id for event_id, event in events.items() if event.skip_learn}
    rewards = {event_id: training_reward(event, REWARD) for event_id, event in events.items() if not event.skip_learn}
    assert skipped == {"unshown", "unshown-rewarded"}
    assert rewards == {"shown": 0.75, "shown-unrewarded": 0.25, "at-once": 0.75}
    loop_id = service.loop(loop.loop).loop_id

    def learned() -> bool:
        versions = service.home.catalog.versions(loop_id)
        return bool(versions) and versions[0].learned == 3

    eventually(learned, "the three that were shown are learned, and no other")


def test_a_late_activation_does_not_count(service: RunningService) -> None:
    """The window starts at Rank, even when activation is deferred."""
    loop = service.new_loop(QUICK)
    loop.rank(request("a", "b", eventId="late", deferActivation=True))
    joined(service, loop, 1)

    assert loop.activate("late").status_code == 204
    assert joined(service, loop, 1)["late"].skip_learn


def test_an_early_reward_joins_its_event(service: RunningService) -> None:
    """A reward may overtake its Rank by a little: the two paths do not wait for each other."""
    loop = service.new_loop(QUICK)
    loop.reward("e1", 0.75)
    loop.rank(request("a", "b", eventId="e1"))

    assert observed_reward(joined(service, loop, 1)["e1"], REWARD) == 0.75


def test_rewards_add_up_as_the_loop_wants_it(service: RunningService) -> None:
    """The original's `max` fell back to the default reward below zero; here it does not."""
    expected = {"earliest": -0.5, "sum": -1.0, "average": -1 / 3, "median": -0.375, "min": -0.5, "max": -0.125}
    loops = {aggregation: service.new_loop(QUICK) for aggregation in expected}
    for aggregation, loop in loops.items():
        loop.put("/configurations/service", {"rewardAggregation": aggregation})
        loop.rank(request("a", "b", eventId="e1"))
        for value in (-0.5, -0.375, -0.125):
            loop.reward("e1", value)

    found = {}
    for aggregation, loop in loops.items():
        settings = service.loop(loop.loop).settings
        definition = RewardDefinition(settings.default_reward, settings.reward_aggregation)
        found[aggregation] = training_reward(joined(service, loop, 1)["e1"], definition)
    assert found == pytest.approx(expected)
