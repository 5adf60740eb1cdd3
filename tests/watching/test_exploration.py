"""What exploring costs, what it buys, and what is advised."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.evaluation.judge import RewardRange
from rankward.evaluation.question import Question
from rankward.watching.exploration import Amount, Exploration, exploration
from rankward.watching.exploring import FACTORS, ExploringTally, explore
from rankward.watching.fold import DAY_US

RANGE = RewardRange(0.0, 1.0)
ONE = FACTORS.index(1.0)


def question(p_log: Sequence[float], chosen: int) -> Question:
    """Make a decision of one slot."""
    return Question(0, "", range(len(p_log)), p_log, chosen, 0)


def told(p_log: Sequence[float], worth: Sequence[float], events: int, *, days: float = 7, seed: int = 1) -> Exploration:
    """Let actions be drawn and rewarded, and tell what that says of exploring."""
    rng = random.Random(seed)
    tally, earned = ExploringTally(), 0.0
    for _ in range(events):
        chosen = rng.choices(range(len(p_log)), p_log)[0]
        reward = float(rng.random() < worth[chosen])
        earned += reward
        tally.add(explore([question(p_log, chosen)], [reward]), 1.0)
    return exploration(tally, earned / events if events else None, RANGE, span_us=round(days * DAY_US))


def test_the_cost_is_what_the_likeliest_would_have_earned_more() -> None:
    """The price of exploring, in the coin that the loop is paid in: with an interval that holds the truth."""
    found = told((0.6, 0.2, 0.2), (0.5, 0.1, 0.3), 20_000)
    truth = 0.5 - (0.6 * 0.5 + 0.2 * 0.1 + 0.2 * 0.3)
    assert found.cost is not None
    assert found.cost.low < truth < found.cost.high
    assert found.cost.value == pytest.approx(truth, abs=0.02)
    assert found.mass == pytest.approx(0.4)
    assert found.share == pytest.approx(truth / 0.5, abs=0.03)


def test_intervals_of_the_cost_hold() -> None:
    """At its own length, in at least 95 of 100 logs, give or take what chance gives."""
    truth = 0.5 - (0.8 * 0.5 + 0.1 * 0.2 + 0.1 * 0.2)
    costs = [told((0.8, 0.1, 0.1), (0.5, 0.2, 0.2), 600, seed=seed).cost for seed in range(100)]
    assert sum(cost is not None and cost.low <= truth <= cost.high for cost in costs) >= 90


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=8),
    st.sampled_from([f for f in FACTORS if f < 1]),
)
def test_less_exploring_is_judged_from_the_same_log(shares: list[int], factor: float) -> None:
    """What half the exploring leaves to judge by is what a log says that was explored half as much."""
    p_log = [share / sum(shares) for share in shares]
    highest = max(p_log)
    ties = p_log.count(highest)
    beyond = sum(p for p in p_log if p < highest)
    less = [(1 - factor * beyond) / ties if p == highest else factor * p for p in p_log]
    scaled = explore([question(p_log, 0)], [1.0]).spread[FACTORS.index(factor)]
    assert scaled == pytest.approx(explore([question(less, 0)], [1.0]).spread[ONE])
    assert scaled == pytest.approx(sum(1 / p for p in less) / len(less))


def test_more_exploring_ends_at_chance() -> None:
    """Nothing tells more of all actions than taking each as often as the others."""
    spread = explore([question((0.5, 0.25, 0.25), 0)], [1.0]).spread
    assert spread[FACTORS.index(3.0)] == 3.0
    assert min(spread) == 3.0


def test_ties_are_no_exploring() -> None:
    """Before it has learned anything a loop takes all alike, and could not do better by taking one of them."""
    found = told((0.25,) * 4, (0.1, 0.2, 0.3, 0.4), 2_000)
    assert found.mass == 0.0
    assert found.cost is not None
    assert found.cost.value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("p_log", "worth", "events", "amount"),
    [
        ((0.9, 0.1), (0.5, 0.1), 0, Amount.UNKNOWN),
        ((0.9, 0.1), (0.5, 0.1), 500, Amount.UNKNOWN),
        ((1.0, 0.0), (0.5, 0.1), 2_000, Amount.BLIND),
        ((0.6, 0.4), (0.5, 0.1), 20_000, Amount.LESS),
        ((0.95, 0.05), (0.5, 0.1), 20_000, Amount.KEEP),
        ((0.9999, 0.0001), (0.5, 0.5), 20_000, Amount.MORE),
    ],
)
def test_the_advice_weighs_what_it_costs_against_what_it_buys(
    p_log: Sequence[float], worth: Sequence[float], events: int, amount: Amount
) -> None:
    """Too much costs reward every day; too little leaves nothing to find a better policy with."""
    found = told(p_log, worth, events)
    assert found.advice is amount, found.words
    if found.low is not None and found.high is not None:
        assert found.low < found.high
        assert {Amount.LESS: found.high < p_log[1], Amount.KEEP: found.low <= p_log[1] <= found.high}.get(amount, True)


def test_a_small_loop_is_not_told_to_explore_more_than_it_can_pay() -> None:
    """With little traffic no degree of exploring makes evaluations quick: the span has to be longer."""
    found = told((0.9, 0.05, 0.05), (0.5, 0.1, 0.1), 1_000, days=400)
    assert (found.advice, found.low) == (Amount.KEEP, None)
    assert "longer spans" in found.words
