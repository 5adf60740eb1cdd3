"""Rewards: how the observations of one interaction add up."""

from __future__ import annotations

import msgspec
import pytest

from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.records import (
    Action,
    Features,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation

VALUES = [0.5, -1.0, 1.0, 0.25]
NOTHING = Features(b"[]")


def joined(
    *values: float,
    mode: LearningMode = LearningMode.ONLINE,
    chosen: int = 0,
    excluded: tuple[int, ...] = (),
) -> JoinedEvent:
    """Make a joined event that was rewarded with these values, one a second."""
    interaction = Interaction(
        event_id="e1",
        context=NOTHING,
        actions=tuple(Action(name, NOTHING) for name in "abc"),
        pmf=(0.4, 0.3, 0.3),
        chosen=chosen,
        excluded=excluded,
        learning_mode=mode,
        reward_wait_us=600_000_000,
    )
    observations = tuple(
        JoinedObservation(index + 1, 1_000_000 * (index + 1), value) for index, value in enumerate(values)
    )
    return JoinedEvent(0, JoinedEntry(0, 0, 600_000_000, observations), interaction)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation.EARLIEST, 0.5),
        (Aggregation.SUM, 0.75),
        (Aggregation.AVERAGE, 0.1875),
        (Aggregation.MEDIAN, 0.375),
        (Aggregation.MIN, -1.0),
        (Aggregation.MAX, 1.0),
    ],
)
def test_each_aggregation_adds_up_its_own_way(aggregation: Aggregation, expected: float) -> None:
    """The contract offers six, and each names a different number for the same four rewards."""
    assert observed_reward(joined(*VALUES), RewardDefinition(0.0, aggregation)) == expected


def test_every_aggregation_has_its_sum() -> None:
    """A new name in the settings without a way to compute it would fail only once rewards have come."""
    for aggregation in Aggregation:
        assert RewardDefinition(0.0, aggregation).of([0.5]) == 0.5


def test_the_maximum_of_negative_rewards_is_the_largest_of_them() -> None:
    """The original answered the default reward here: a defect that is not copied."""
    definition = RewardDefinition(0.0, Aggregation.MAX)

    assert observed_reward(joined(-1.0, -0.5), definition) == -0.5


def test_the_median_of_an_odd_count_is_the_one_in_the_middle() -> None:
    """Only an even count has two middle values to take the mean of."""
    assert RewardDefinition(0.0, Aggregation.MEDIAN).of([1.0, -1.0, 0.5]) == 0.5


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_without_observations_the_default_is_the_reward(aggregation: Aggregation) -> None:
    """Most events are never rewarded: what they count for is the loop's to say."""
    assert observed_reward(joined(), RewardDefinition(0.25, aggregation)) == 0.25


def test_a_reward_of_zero_is_not_taken_for_none() -> None:
    """An application that reports 0 said something, whatever the default is."""
    assert observed_reward(joined(0.0), RewardDefinition(1.0, Aggregation.EARLIEST)) == 0.0


def test_a_sum_may_leave_the_range_of_one_reward() -> None:
    """The contract bounds each reward, not what they add up to."""
    assert observed_reward(joined(1.0, 1.0, 1.0), RewardDefinition(0.0, Aggregation.SUM)) == 3.0


@pytest.mark.parametrize(("chosen", "expected"), [(1, 1.0), (2, 0.0)])
def test_an_apprentice_is_rewarded_for_matching_the_baseline(chosen: int, expected: float) -> None:
    """It was not shown, so what users did says nothing of it; the baseline is the first not excluded."""
    event = joined(0.5, mode=LearningMode.APPRENTICE, chosen=chosen, excluded=(0,))
    definition = RewardDefinition(0.0, Aggregation.EARLIEST)

    assert training_reward(event, definition) == expected
    assert observed_reward(event, definition) == 0.5


@pytest.mark.parametrize("mode", [LearningMode.ONLINE, LearningMode.LOGGING_ONLY])
def test_in_other_modes_the_learner_is_told_what_was_observed(mode: LearningMode) -> None:
    """What was shown is what was chosen, or is logged as such."""
    event = joined(0.5, mode=mode, chosen=2)

    assert training_reward(event, RewardDefinition(0.0, Aggregation.EARLIEST)) == 0.5


def test_a_deferred_event_is_learned_only_if_activated() -> None:
    """What was never shown was neither liked nor disliked."""
    plain = joined()
    deferred = JoinedEvent(0, plain.entry, msgspec.structs.replace(plain.interaction, deferred=True))
    activated = JoinedEvent(0, JoinedEntry(0, 0, 600_000_000, activated=True), deferred.interaction)

    assert [plain.skip_learn, deferred.skip_learn, activated.skip_learn] == [False, True, False]


def page(*observations: tuple[str | None, float], mode: LearningMode = LearningMode.ONLINE) -> JoinedEvent:
    """Make a joined event of two slots: `hero` drew its baseline, `side` did not."""
    interaction = MultiSlotInteraction(
        event_id="e1",
        context=NOTHING,
        actions=tuple(Action(name, NOTHING) for name in "abc"),
        slots=(Slot("hero", NOTHING, baseline=2), Slot("side", NOTHING, baseline=0)),
        choices=(SlotChoice((2, 0, 1), (0.8, 0.1, 0.1)), SlotChoice((1, 0), (0.5, 0.5))),
        learning_mode=mode,
        reward_wait_us=600_000_000,
    )
    joined = tuple(
        JoinedObservation(index + 1, index + 1, value, slot=slot) for index, (slot, value) in enumerate(observations)
    )
    return JoinedEvent(0, JoinedEntry(0, 0, 600_000_000, joined), interaction)


def test_each_slot_adds_up_its_own_rewards() -> None:
    """A click on the hero says nothing of the side; what is said of the whole event counts for both."""
    event = page(("hero", 1.0), ("side", 0.25), (None, 0.5), ("hero", 0.75))
    definition = RewardDefinition(-1.0, Aggregation.SUM)

    assert [observed_reward(event, definition, slot) for slot in (0, 1)] == [2.25, 0.75]
    assert [observed_reward(page(("side", 0.5)), definition, slot) for slot in (0, 1)] == [-1.0, 0.5]


def test_an_apprentice_is_rewarded_slot_by_slot() -> None:
    """Each slot is compared with its own baseline; what the application earned stays what it was."""
    event = page(("hero", 0.25), ("side", 0.75), mode=LearningMode.APPRENTICE)
    definition = RewardDefinition(0.0, Aggregation.EARLIEST)

    assert [training_reward(event, definition, slot) for slot in (0, 1)] == [1.0, 0.0]
    assert [observed_reward(event, definition, slot) for slot in (0, 1)] == [0.25, 0.75]
