"""What joined events add up to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankward.evaluation.estimators import ips
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
from rankward.settings import LoopSettings
from rankward.store.rollups import Place
from rankward.watching.comparison import ComparingState
from rankward.watching.fold import (
    ACTION_HOURS,
    DAYS,
    HOUR_US,
    HOURS,
    MINUTES,
    SIX_HOURS,
    STEPS_US,
    Basis,
    Fold,
    State,
    decode_actions,
    decode_tally,
)
from rankward.watching.tally import ACTIONS_MAX, MODELS_MAX, OTHER_MODELS, ActionTallies, Tally
from tests.evaluation.logs import START_US, event, log

NOW_US = START_US + 30 * HOUR_US
BASIS = Basis.of(LoopSettings())


def folded(events: Sequence[JoinedEvent], sizes: Sequence[int] = (), *, now_us: int = NOW_US) -> dict[Place, bytes]:
    """Fold events in batches of some sizes, the rest at once, with rows that are loaded anew for every batch."""
    rows: dict[Place, bytes] = {}
    state = State(basis=BASIS, erasures=0, offset=0, comparing=ComparingState(since_us=0))
    batches, start = [], 0
    for size in sizes:
        batches.append(events[start : start + size])
        start += size
    for batch in [*batches, events[start:]]:
        fold = Fold(msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State))
        wanted = fold.needs(batch, now_us)
        fold.load(wanted, {place: rows[place] for place in wanted if place in rows})
        for each in batch:
            fold.take(each, now_us)
        rows |= {place: row.body for place, row in fold.rows().items()}
        state = fold.state
    return rows


def tally_of(rows: dict[Place, bytes], series: str = DAYS) -> Tally:
    """Add up a series."""
    total = Tally()
    for place, body in rows.items():
        if place.series == series:
            total.merge(decode_tally(body))
    return total


def actions_of(rows: dict[Place, bytes]) -> ActionTallies:
    """Add up the actions by hours."""
    total = ActionTallies()
    for place, body in rows.items():
        if place.series == ACTION_HOURS:
            total.merge(decode_actions(body))
    return total


@cache
def folded_at_once() -> dict[Place, bytes]:
    """Fold the same events in one batch."""
    return folded(log(150))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_batches_do_not_matter(sizes: list[int]) -> None:
    """Figures are taken in whatever steps there is time for, and taken again in others: to the last bit the same."""
    assert folded(log(150), sizes) == folded_at_once()


def test_every_series_holds_the_same_events() -> None:
    """An hour is its minutes, and a day its hours: a chart must not change its mind when it is zoomed."""
    rows = folded(log(2_000))
    minutes, hours, days = (tally_of(rows, series) for series in (MINUTES, HOURS, DAYS))
    assert [tally_of(rows, series).events for series in STEPS_US] == [2_000] * 5
    assert minutes.baseline.weighted_rewards == pytest.approx(days.baseline.weighted_rewards)
    assert hours.earned.rewards == pytest.approx(days.earned.rewards)
    assert {place.at % HOUR_US for place in rows if place.series == HOURS} == {0}


def test_baseline_and_chance_are_weighed_by_the_logged_probabilities() -> None:
    """What they would have earned, event by event: the first action always, or each as often as the others."""
    events = log(500, pmf=(0.5, 0.25, 0.25))
    total = tally_of(folded(events, now_us=START_US))
    rewards = np.array([each.entry.observations[0].value for each in events])
    chosen = np.array([each.interaction.chosen for each in events if isinstance(each.interaction, Interaction)])
    assert ips(total.baseline) == pytest.approx(np.mean(rewards * (chosen == 0) / 0.5))
    assert ips(total.uniform) == pytest.approx(np.mean(rewards / 3 / np.where(chosen == 0, 0.5, 0.25)))
    assert ips(total.online) == ips(total.earned) == pytest.approx(np.mean(rewards))
    assert total.matched == np.count_nonzero(chosen == 0)


@pytest.mark.slow
def test_the_estimates_are_those_of_importance_sampling() -> None:
    """Weighed by the logged probabilities, baseline and chance come out right in a known world."""
    rows = folded(log(40_000, pmf=(0.5, 0.25, 0.25)), now_us=START_US)
    total = tally_of(rows)
    # Half of the guests like soup, the baseline; half like curry: 0.5 either way, and 0.1 for salad.
    assert ips(total.baseline) == pytest.approx(0.5, abs=0.02)
    assert ips(total.uniform) == pytest.approx((0.5 + 0.1 + 0.5) / 3, abs=0.02)
    assert ips(total.online) == pytest.approx(0.5 * 0.5 + 0.25 * 0.1 + 0.25 * 0.5, abs=0.02)
    assert ips(total.online) == ips(total.earned)
    assert total.matched == pytest.approx(20_000, rel=0.05)
    assert total.preferred == 40_000


def test_what_an_apprentice_is_rewarded_for_is_the_baseline() -> None:
    """In apprentice mode the baseline was shown, whatever was drawn: its rewards say nothing of the draw."""
    events = [event(n, chosen=n % 3, reward=1.0, mode=LearningMode.APPRENTICE) for n in range(30)]
    total = tally_of(folded(events))
    assert ips(total.earned) == ips(total.baseline) == 1.0
    assert total.online.events == total.uniform.events == 0
    assert total.matched == 10
    soup = actions_of(folded(events)).known["soup"]
    assert (soup.shown, soup.chosen, soup.rewards) == (30, 10, 30.0)


def test_events_are_counted_by_what_became_of_them() -> None:
    """Default rewards, decisions never shown, rewards out of range and impossible probabilities are told apart."""
    events = [
        event(0, reward=None),
        event(1, deferred=True),
        event(2, reward=7.0),
        event(3, pmf=(0.6, 0.6, 0.6), reward=1.0),
    ]
    total = tally_of(folded(events))
    assert (total.events, total.defaulted, total.skipped, total.outside, total.unusable) == (3, 1, 1, 1, 1)
    assert total.earned.events == 3
    assert total.online.events == total.baseline.events == 2


def test_a_page_counts_as_one_event() -> None:
    """Slots of one page share its fate: as events of their own they would make intervals too narrow."""
    no_features = Features(b"[]")
    interaction = MultiSlotInteraction(
        event_id="page",
        context=no_features,
        actions=tuple(Action(each, no_features) for each in ("a", "b", "c")),
        slots=(Slot("top", no_features, 0), Slot("side", no_features, 1)),
        choices=(SlotChoice((0, 1, 2), (0.5, 0.25, 0.25)), SlotChoice((2, 1), (0.5, 0.5))),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1,
    )
    observed = (JoinedObservation(1, START_US, 1.0, {}, "top"),)
    total = tally_of(folded([JoinedEvent(0, JoinedEntry(0, START_US, START_US + 1, observed), interaction)]))
    assert (total.events, total.matched, total.earned.rewards) == (1, 0.5, 0.5)
    # Top: baseline drawn at 0.5, reward 1. Side: another one drawn, reward 0.
    assert total.baseline.weighted_rewards == pytest.approx((2.0 * 1.0 + 0.0) / 2)
    assert total.uniform.weighted_rewards == pytest.approx((1 / 3 / 0.5 * 1.0 + 0.5 / 0.5 * 0.0) / 2)


def test_old_stretches_are_left_out() -> None:
    """Taking 90 days again must not make a row for each of their minutes."""
    rows = folded(log(100), now_us=NOW_US + 60 * 24 * HOUR_US)
    assert {place.series for place in rows} == {HOURS, SIX_HOURS, DAYS, "actions-day"}


def test_ids_are_bounded() -> None:
    """Ids come from callers: a stretch tells so many of them apart, and counts the others together."""
    rng = random.Random(1)
    events = []
    for number in range(2_000):
        one = event(number, step_us=1_000, reward=rng.random())
        actions = tuple(Action(f"{each.id}-{number}", each.features) for each in one.interaction.actions)
        interaction = msgspec.structs.replace(one.interaction, actions=actions, model_id=f"1-{number}")
        events.append(msgspec.structs.replace(one, interaction=interaction))
    rows = folded(events)
    known, total = actions_of(rows), tally_of(rows)
    assert len(known.known) == ACTIONS_MAX
    assert known.others.offered + sum(each.offered for each in known.known.values()) == 6_000
    assert len(total.models) == MODELS_MAX + 1
    assert sum(total.models.values()) == 2_000
    assert total.models[OTHER_MODELS] == 2_000 - MODELS_MAX
