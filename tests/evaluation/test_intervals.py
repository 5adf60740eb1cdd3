"""Intervals: the arithmetic of the contract and of the papers, and that they hold what they promise."""

import math
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from estimators.bandits import cressieread as reference_cressie_read
from estimators.bandits import gaussian as reference_gaussian
from hypothesis import given
from hypothesis import strategies as st

from rankward.evaluation.contrast import Decisions, Floats, contrast
from rankward.evaluation.estimators import Sums
from rankward.evaluation.intervals import (
    Betting,
    BettingState,
    Bounds,
    PairedSums,
    cressie_read_interval,
    gaussian_half_width,
)
from tests.evaluation.known_world import KnownWorld
from tests.evaluation.test_estimators import arrays, pairs, sums_of


@pytest.mark.parametrize("weight_max", [math.inf, 60.0])
@pytest.mark.parametrize("events", [20, 300, 5_000])
@pytest.mark.parametrize("target_right", [0.9, 0.2])
def test_the_fixed_length_interval_agrees_with_vw_estimators(
    events: int, weight_max: float, target_right: float
) -> None:
    """The paper's formulas leave room for slips; another hand wrote them down as well."""
    log = KnownWorld(target_right=target_right).log(events, np.random.default_rng(events))
    known = reference_cressie_read.Interval(wmax=weight_max)
    for weight, reward in zip(log.value().gain.tolist(), log.decisions.rewards.tolist(), strict=True):
        known.add_example(1.0, reward, weight)
    ours = cressie_read_interval(log.sums(), weight_max=weight_max)
    assert ours is not None
    assert ours == pytest.approx(tuple(known.get()), abs=1e-9)


@given(st.one_of(pairs, st.tuples(pairs, pairs).map(lambda two: [*two[0], *two[1]])))
def test_the_fixed_length_interval_is_one_whatever_the_log(drawn: list[tuple[float, float]]) -> None:
    """Weights that cannot be true must not turn it inside out, nor a handful of decisions make it a point."""
    weights, rewards = arrays(drawn)
    bounds = cressie_read_interval(sums_of(weights, rewards))
    assert bounds is not None
    assert 0 <= bounds.low <= bounds.high <= 1
    if len(drawn) < 20:
        assert bounds == (0, 1)


@given(pairs)
def test_the_contracts_interval_agrees_with_vw_estimators(drawn: list[tuple[float, float]]) -> None:
    """But for its quantile, which the contract rounds to 1.96."""
    weights, rewards = arrays(drawn)
    known = reference_gaussian.Interval()
    for weight, reward in drawn:
        known.add_example(1.0, reward, weight)
    low, high = known.get()
    expected = 0.0 if low is None or high is None else (high - low) / 2 / 1.959963984540054 * 1.96
    assert gaussian_half_width(sums_of(weights, rewards)) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_the_contracts_interval_by_hand() -> None:
    """1.96 · sqrt(s²/n), s² = (sum of squares - n · mean²) / (n - 1)."""
    sums = sums_of(np.array([2.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.5]))  # weighted: 2, 0, 0.5
    variance = (4.25 - 3 * (2.5 / 3) ** 2) / 2
    assert gaussian_half_width(sums) == pytest.approx(1.96 * math.sqrt(variance / 3))


class Outcome(NamedTuple):
    """What came of many logs."""

    missed: float  # share of logs
    width: float  # mean, at the end


def look(world: KnownWorld, *, logs: int, looks: int, events: int, paired: bool) -> Outcome:
    """Read the decision interval again and again while logs grow, and see how often it is ever wrong."""
    rng = np.random.default_rng(11)
    truth = world.target_value - (world.logging_value if paired else 0.0)
    missed, widths = 0, []
    for _ in range(logs):
        log = world.log(events, rng)
        betting, wrong = Betting(), False
        for start in range(0, events, events // looks):
            part = log.part(start, start + events // looks)
            more = part.against_logging() if paired else part.value()
            betting.add(more, part.decisions.rewards, part.decisions.upweights)
            bounds = betting.bounds()
            wrong = wrong or not bounds.low <= truth <= bounds.high
        missed += wrong
        widths.append(bounds.high - bounds.low)
    return Outcome(missed / logs, float(np.mean(widths)))


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
def test_the_decision_interval_holds_at_every_look(paired: bool) -> None:
    """It is what policies are promoted by, and people look whenever they like."""
    outcome = look(KnownWorld(), logs=40, looks=16, events=4_000, paired=paired)
    assert outcome.missed <= 0.05
    assert outcome.width <= 0.18


@pytest.mark.parametrize("events", [250, 1_000])
@pytest.mark.parametrize("target_right", [0.9, 0.5, 0.1])
def test_the_fixed_length_interval_covers(events: int, target_right: float) -> None:
    """Of twenty logs, at most one may miss; with some room for chance in so few logs."""
    rng = np.random.default_rng(12)
    world = KnownWorld(target_right=target_right)
    difference = world.target_value - world.logging_value
    covered = paired = 0
    for _ in range(200):
        log = world.log(events, rng)
        bounds = cressie_read_interval(log.sums())
        sums = PairedSums()
        sums.add(log.against_logging(), log.decisions.rewards, log.decisions.upweights)
        against = sums.interval()
        assert bounds is not None
        assert against is not None
        covered += bounds.low <= world.target_value <= bounds.high
        paired += against.low <= difference <= against.high
    assert covered >= 0.92 * 200
    assert paired >= 0.92 * 200


def drifting(events: int, rng: np.random.Generator) -> tuple[Decisions, Floats, Floats]:
    """Two actions; the target learns to take the first, which pays in the second half only. Gives its true values."""
    rows = np.arange(events)
    p_log = np.tile([0.5, 0.5], events)
    first = np.linspace(0.1, 0.9, events)
    pays = np.where(rows < events / 2, 0.2, 0.8)
    taken = rng.integers(0, 2, events)
    means = np.where(taken == 0, pays, 0.5)
    rewards = (rng.random(events) < means).astype(np.float64)
    p_target = np.stack([first, 1 - first], axis=1).ravel()
    decisions = Decisions(p_log, rows * 2, rows * 2 + taken, rewards, np.ones(events))
    return decisions, p_target, first * pays + (1 - first) * 0.5


@pytest.mark.slow
def test_the_decision_interval_holds_for_a_policy_that_learns_in_a_world_that_changes() -> None:
    """What it bounds is what the policy was worth on average so far, not a value that never changes."""
    rng = np.random.default_rng(13)
    missed = 0
    for _ in range(40):
        decisions, p_target, values = drifting(2_000, rng)
        betting, wrong = Betting(), False
        for start in range(0, 2_000, 200):
            rows = slice(2 * start, 2 * (start + 200))
            part = Decisions(
                decisions.p_log[rows],
                np.arange(200) * 2,
                decisions.chosen[start : start + 200] - 2 * start,
                decisions.rewards[start : start + 200],
                np.ones(200),
            )
            betting.add(contrast(part, p_target[rows]), part.rewards, part.upweights)
            bounds = betting.bounds()
            wrong = wrong or not bounds.low <= values[: start + 200].mean() <= bounds.high
        missed += wrong
    assert missed <= 2


def test_what_was_never_tried_keeps_the_bounds_apart() -> None:
    """No number of events tells what an action earns that was never taken."""
    events = 5_000
    rows = np.arange(events)
    decisions = Decisions(np.tile([1.0, 0.0], events), rows * 2, rows * 2, np.full(events, 0.5), np.ones(events))
    p_target = np.tile([0.5, 0.5], events)
    betting, against = Betting(), Betting()
    betting.add(contrast(decisions, p_target), decisions.rewards, decisions.upweights)
    against.add(contrast(decisions, p_target, decisions.p_log), decisions.rewards, decisions.upweights)
    value, difference = betting.bounds(), against.bounds()
    assert value.low <= 0.25
    assert value.high >= 0.75
    assert difference.low <= -0.25
    assert difference.high >= 0.25


def test_the_same_policy_differs_by_nothing() -> None:
    """A copy of the logging policy is neither better nor worse, and the interval says so at once."""
    log = KnownWorld().log(100, np.random.default_rng(14))
    same = contrast(log.decisions, log.decisions.p_log, log.decisions.p_log)
    betting, sums = Betting(), PairedSums()
    betting.add(same, log.decisions.rewards, log.decisions.upweights)
    sums.add(same, log.decisions.rewards, log.decisions.upweights)
    assert betting.bounds() == pytest.approx((0.0, 0.0), abs=1e-6)
    assert sums.interval() == Bounds(0.0, 0.0)


def test_bets_do_not_depend_on_batches() -> None:
    """So an evaluation that was interrupted, or read in other pieces, ends with the same bounds."""
    log = KnownWorld().log(1_000, np.random.default_rng(15))
    at_once, in_parts = Betting(), Betting()
    at_once.add(log.value(), log.decisions.rewards, log.decisions.upweights)
    for start, end in ((0, 1), (1, 38), (38, 700), (700, 1_000)):
        part = log.part(start, end)
        in_parts.add(part.value(), part.decisions.rewards, part.decisions.upweights)
    assert in_parts.bounds() == pytest.approx(at_once.bounds(), abs=1e-7)


def test_decisions_that_are_an_event_each_are_bet_on_as_ever() -> None:
    """Pages of one slot are what single decisions are; of two alike, they tell what one of them does."""
    log = KnownWorld().log(500, np.random.default_rng(3))
    single, paged, doubled = Betting(), Betting(), Betting()
    facts = (log.decisions.rewards, log.decisions.upweights)
    single.add(log.value(), *facts)
    paged.add(log.value(), *facts, starts=np.arange(500))
    twice = np.repeat(np.arange(500), 2)
    value = type(log.value())(*(each[twice] for each in log.value()))
    doubled.add(value, *(each[twice] for each in facts), starts=2 * np.arange(500))
    assert paged.bounds() == single.bounds()
    assert doubled.bounds() == pytest.approx(single.bounds(), abs=1e-9)


def test_bets_go_on_from_what_was_kept() -> None:
    """Whoever watches a policy for weeks is stopped now and then, and must come to the same bounds."""
    log = KnownWorld().log(1_000, np.random.default_rng(2))
    whole, stopped = Betting(), Betting()
    for start in range(0, 1_000, 100):
        part = log.part(start, start + 100)
        facts = (part.against_logging(), part.decisions.rewards, part.decisions.upweights)
        whole.add(*facts)
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(stopped.state()), type=BettingState)
        stopped = Betting(kept)
        stopped.add(*facts)
    assert stopped.bounds() == whole.bounds()


def test_subsampled_events_count_for_those_that_were_dropped() -> None:
    """The mean is that of all events, those that were kept with a smaller probability weighing more."""
    rng = np.random.default_rng(16)
    events = 20_000
    rows = np.arange(events)
    rare = rng.random(events) < 0.5  # kept with probability a quarter; worth 1, the others 0
    decisions = Decisions(
        np.tile([0.5, 0.5], events),
        rows * 2,
        rows * 2 + rng.integers(0, 2, events),
        rare.astype(np.float64),
        np.where(rare, 4.0, 1.0),
    )
    betting = Betting()
    betting.add(contrast(decisions, np.tile([1.0, 0.0], events)), decisions.rewards, decisions.upweights)
    bounds = betting.bounds()
    truth = float((decisions.upweights * decisions.rewards).sum() / decisions.upweights.sum())
    assert truth == pytest.approx(0.8, abs=0.02)
    assert bounds.low <= truth <= bounds.high
    assert bounds.high - bounds.low < 0.1


def test_no_events_bound_nothing() -> None:
    """The whole range is what is known of nothing."""
    assert Betting().bounds() == (-1.0, 1.0)
    assert cressie_read_interval(Sums()) is None
    assert PairedSums().interval() is None
    assert gaussian_half_width(Sums()) == 0.0
