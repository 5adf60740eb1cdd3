"""What is shown live of a loop is true, however often it is looked at."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pytest

from rankward.evaluation.judge import RewardRange
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
    Features,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation
from rankward.watching.comparison import Comparing, ComparingState, LiveComparison, Side, Value
from rankward.watching.seen import see
from tests.evaluation.logs import START_US, event, log

LOGS = int(os.environ.get("COMPARISON_LOGS", "40"))
LOOK = 100
DEFINITION = RewardDefinition(0.0, Aggregation.EARLIEST)
RANGE = RewardRange(0.0, 1.0)
NONE = Features(b"[]")


class Truth(NamedTuple):
    """What an event was worth, on average over what could have been drawn."""

    online: float
    baseline: float
    uniform: float


def compared(events: Sequence[JoinedEvent], rewards: RewardRange = RANGE, *, since_us: int = 0) -> LiveComparison:
    """Compare on events, all at once."""
    comparing = Comparing(ComparingState(since_us=since_us), rewards)
    comparing.add([see(each, DEFINITION) for each in events if not each.skip_learn])
    return comparing.told()


def clicks(events: int, rng: random.Random) -> Iterator[tuple[JoinedEvent, Truth]]:
    """Rare clicks, on a policy that learns as it goes and a world whose tastes change halfway."""
    worth = [0.05, 0.02, 0.10]
    for number in range(events):
        if number == events // 2:
            worth.reverse()
        sure = min(0.85, 0.34 + number / events)
        pmf = [(1 - sure) / 2, (1 - sure) / 2, sure]
        chosen = rng.choices(range(3), pmf)[0]
        reward = float(rng.random() < worth[chosen])
        online = sum(p * w for p, w in zip(pmf, worth, strict=True))
        yield event(number, pmf=pmf, chosen=chosen, reward=reward), Truth(online, worth[0], sum(worth) / 3)


def pages(events: int, rng: random.Random) -> Iterator[tuple[JoinedEvent, Truth]]:
    """Pages of four slots whose rewards are one: the page is bought from, or it is not."""
    actions = tuple(Action(f"a{k}", NONE) for k in range(8))
    slots = tuple(Slot(f"s{k}", NONE, 2 * k) for k in range(4))
    for number in range(events):
        drawn = [rng.random() < 0.25 for _ in slots]  # the other one of each slot's two
        choices = tuple(
            SlotChoice((2 * k + 1, 2 * k), (0.25, 0.75)) if other else SlotChoice((2 * k, 2 * k + 1), (0.75, 0.25))
            for k, other in enumerate(drawn)
        )
        bought = float(rng.random() < 0.5)
        interaction = MultiSlotInteraction(
            event_id=f"e{number}",
            context=NONE,
            actions=actions,
            slots=slots,
            choices=choices,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=1,
        )
        entry = JoinedEntry(number, START_US + number, START_US + number + 1, (JoinedObservation(0, START_US, bought),))
        yield JoinedEvent(number, entry, interaction), Truth(0.5, 0.5, 0.5)


def misses(told: LiveComparison, worth: Sequence[Truth]) -> bool:
    """Whether anything that is told is not true."""
    online, baseline, uniform = (sum(each) / len(worth) for each in zip(*worth, strict=True))
    claims: list[tuple[Value | None, float]] = [
        (told.online, online),
        (told.baseline, baseline),
        (told.uniform, uniform),
        (told.over_baseline, online - baseline),
        (told.over_uniform, online - uniform),
    ]
    return any(value is None or not value.low <= truth <= value.high for value, truth in claims)


@pytest.mark.slow
@pytest.mark.parametrize("world", [clicks, pages])
def test_what_is_shown_is_true_at_every_look(world: type[Iterator[tuple[JoinedEvent, Truth]]]) -> None:
    """A dashboard is looked at until it says what one hopes for: an interval for one look would lie to every second.

    Each of so many logs is looked at every 100 events, at all five intervals; at most 5 % of logs may ever be wrong.
    """
    wrong = 0
    for seed in range(LOGS):
        comparing = Comparing(ComparingState(since_us=0), RANGE)
        worth: list[Truth] = []
        stretch: list[JoinedEvent] = []
        for one, truth in world(1_000, random.Random(seed)):  # type: ignore[call-arg]
            worth.append(truth)
            stretch.append(one)
            if len(stretch) == LOOK:
                comparing.add([see(each, DEFINITION) for each in stretch])
                stretch.clear()
                if misses(comparing.told(), worth):
                    wrong += 1
                    break
    assert wrong <= 0.05 * LOGS, f"{wrong} of {LOGS} logs were wrong at some look"


def test_what_is_better_is_told_beyond_doubt() -> None:
    """An interval that is always true could be one that never says anything."""
    good = [event(n, pmf=(0.2, 0.6, 0.2), chosen=n % 5 % 3, reward=float(n % 5 % 3 == 1)) for n in range(3_000)]
    told = compared(good)
    assert told.events == 3_000
    assert told.against_baseline is Side.ONLINE
    assert told.against_uniform is Side.ONLINE
    bad = [event(n, pmf=(0.2, 0.6, 0.2), chosen=n % 5 % 3, reward=float(n % 5 % 3 == 0)) for n in range(3_000)]
    assert compared(bad).against_baseline is Side.OTHER
    assert compared(log(50)).against_baseline is Side.UNDECIDED


def test_nothing_is_said_of_nothing() -> None:
    """A page of a new loop has no numbers that were made up."""
    told = compared([])
    assert (told.events, told.shown_events) == (0, 0)
    assert told.online is told.over_baseline is told.shown is None
    assert told.against_baseline is Side.UNDECIDED


def test_estimates_lie_within_their_intervals_and_units() -> None:
    """In a loop of rewards from -1 to 1, a difference counts for what it is there, and is less sure."""
    wide = RewardRange(-1.0, 1.0)
    told = compared(log(2_000), wide)
    for value in (told.online, told.baseline, told.uniform, told.over_baseline, told.over_uniform):
        assert value is not None
        assert value.low <= value.value <= value.high
    assert told.online is not None
    assert told.over_baseline is not None
    narrow = compared(log(2_000))
    assert narrow.online is not None
    assert told.online.value == pytest.approx(narrow.online.value)
    assert narrow.over_baseline is not None
    assert told.over_baseline.high - told.over_baseline.low > narrow.over_baseline.high - narrow.over_baseline.low


def test_a_comparison_goes_on_from_what_was_kept() -> None:
    """It runs for months, through restarts and whatever batches the traffic makes."""
    events = [see(each, DEFINITION) for each in log(600)]
    whole = Comparing(ComparingState(since_us=0), RANGE)
    whole.add(events)
    state = ComparingState(since_us=0)
    for start in range(0, 600, 37):
        part = Comparing(state, RANGE)
        part.add(events[start : start + 37])
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(part.state()), type=ComparingState)
    kept, told = Comparing(state, RANGE).told(), whole.told()
    assert (kept.events, kept.newest_us) == (told.events, told.newest_us)
    for one, other in ((kept.online, told.online), (kept.over_baseline, told.over_baseline)):
        assert one is not None
        assert other is not None
        assert msgspec.structs.astuple(one) == pytest.approx(msgspec.structs.astuple(other), abs=1e-7)


def test_what_an_apprentice_showed_judges_the_baseline_alone() -> None:
    """Its draws were not shown, so that their rewards are not theirs."""
    told = compared([event(n, chosen=n % 3, reward=0.5, mode=LearningMode.APPRENTICE) for n in range(500)])
    assert told.events == 0
    assert told.baseline is None
    assert told.shown_events == 500
    assert told.shown is not None
    assert told.shown.low < 0.5 < told.shown.high
    assert told.shown.value == pytest.approx(0.5)


def test_only_what_was_decided_since_the_last_edit_counts() -> None:
    """The policy of before an edit is another one: what it earned says nothing of this one."""
    events = log(200)
    since_us = events[120].entry.time_us
    assert compared(events, since_us=since_us).events == 80
