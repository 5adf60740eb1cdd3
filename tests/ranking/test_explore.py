"""From what the learner says to what is drawn."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.ranking.explore import InvalidPmfError, check_pmf, event_uniform, floored, sample_index


def _normalized(weights: list[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


PMFS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50).filter(lambda w: math.fsum(w) > 1e-6).map(_normalized)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1.0]), (2, [0.9, 0.1]), (3, [0.8667, 0.0667, 0.0667]), (4, [0.85, 0.05, 0.05, 0.05])],
)
def test_the_floor_of_a_sure_learner_is_the_originals_distribution(count: int, expected: list[float]) -> None:
    """The contract's examples for an exploration of 0.2: best 1 - e + e/K, every other e/K."""
    assert floored([1.0] + [0.0] * (count - 1), 0.2) == pytest.approx(expected, abs=1e-4)


@given(PMFS, st.floats(0.0, 1.0))
def test_no_probability_is_below_the_floor(pmf: list[float], epsilon: float) -> None:
    """Every policy can be judged from the log only if every action could have been drawn."""
    raised = floored(pmf, epsilon)

    assert math.fsum(raised) == pytest.approx(1.0)
    assert min(raised) >= epsilon / len(pmf) * (1 - 1e-9)


@given(PMFS, st.floats(0.0, 1.0))
def test_the_floor_keeps_the_order_of_the_actions(pmf: list[float], epsilon: float) -> None:
    """It must not prefer an action that the learner likes less."""
    raised = floored(pmf, epsilon)

    for index in range(1, len(pmf)):
        if pmf[index - 1] <= pmf[index]:
            assert raised[index - 1] <= raised[index] * (1 + 1e-12) + 1e-15


@given(PMFS)
def test_without_exploration_nothing_is_raised(pmf: list[float]) -> None:
    """An exploration of 0 is honoured."""
    assert floored(pmf, 0.0) == pmf


@given(PMFS, st.sampled_from([1.0, 2.0, 1.0005, 0.9995]))
def test_a_sum_beside_1_is_divided_out(pmf: list[float], factor: float) -> None:
    """Ties give every tied action the whole; single precision misses 1 by a little."""
    checked = check_pmf([probability * factor for probability in pmf], len(pmf))

    assert checked == pytest.approx(pmf, abs=1e-9)


@pytest.mark.parametrize(
    ("pmf", "count"),
    [
        ([], 1),
        ([0.5, 0.5], 3),
        ([0.4, 0.4], 2),
        ([0.0, 0.0], 2),
        ([1.5, -0.5], 2),
        ([math.nan, 1.0], 2),
        ([math.inf, 0.0], 2),
    ],
)
def test_what_is_no_distribution_is_refused(pmf: list[float], count: int) -> None:
    """It would be logged, and every estimate from the log would be wrong."""
    with pytest.raises(InvalidPmfError):
        check_pmf(pmf, count)


def test_a_rounding_error_below_zero_is_none() -> None:
    """The learner counts in single precision."""
    assert check_pmf([1.0000001, -1e-7], 2) == [1.0, 0.0]


@given(PMFS, st.floats(0.0, 1.0, exclude_max=True))
def test_only_what_has_a_probability_is_drawn(pmf: list[float], uniform: float) -> None:
    """An action with probability 0 would weigh infinitely much in an estimate."""
    assert pmf[sample_index(pmf, uniform)] > 0.0


def test_the_same_event_of_the_same_loop_is_drawn_the_same() -> None:
    """A decision can be made again from its log; another loop draws for itself."""
    assert event_uniform("loop", "e1") == event_uniform("loop", "e1")
    assert event_uniform("loop", "e1") != event_uniform("pool", "e1")
    assert event_uniform("loop", "e1") != event_uniform("loop", "e2")


@given(st.text(), st.text(max_size=256))
def test_any_event_id_gives_a_number_from_0_to_1(loop_id: str, event_id: str) -> None:
    """Event ids are the caller's: any text, of any script."""
    try:
        uniform = event_uniform(loop_id, event_id)
    except UnicodeEncodeError:
        pytest.fail("event ids are always valid text")
    assert 0.0 <= uniform < 1.0


def test_draws_come_as_often_as_they_should() -> None:
    """What is logged as 0.9 happens nine times in ten: chi-squared over 20,000 events, 3 degrees of freedom."""
    pmf = [0.6, 0.0, 0.25, 0.1, 0.05]
    drawn = Counter(sample_index(pmf, event_uniform("loop", f"event-{n}")) for n in range(20_000))

    surprise = sum((drawn[i] - 20_000 * p) ** 2 / (20_000 * p) for i, p in enumerate(pmf) if p)
    assert drawn[1] == 0
    assert surprise < 16.3, drawn  # exceeded by chance once in a thousand; the events are the same every time
