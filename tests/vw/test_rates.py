"""The learner's rate, chosen by how well each predicts a loop's own events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rankward.records import Action, Features, Interactions, Rate
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner
from rankward.vw.parser import Lesson
from rankward.vw.presets import BALANCED, learner_arguments
from rankward.vw.rates import (
    EVENTS_MIN,
    QUICK,
    RATES,
    STEADY,
    Errors,
    choose_rate,
    describe,
    gamma_scale,
    measure,
    next_check,
)

INTERACTIONS = Interactions(("wi",), ("w",))
ACTIONS = [Action(name, Features(b"[]")) for name in "abcd"]


def lessons(count: int, *, noise: bool, scale: float = 1.0) -> list[Lesson]:
    """Draw events: each visitor likes one action, or everybody clicks one time in twenty, whatever is shown."""
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(count):
        who, chosen = (int(k) for k in rng.integers(len(ACTIONS), size=2))
        earned = rng.random() < 0.05 if noise else who == chosen
        context = Features(f'[{{"who":{{"is":"v{who}"}}}}]'.encode())
        drawn.append(Lesson(context, ACTIONS, chosen, 1 / len(ACTIONS), scale * float(earned)))
    return drawn


def chosen_for(drawn: Sequence[Lesson], current: Rate | None = None) -> Rate | None:
    """Measure and choose."""
    return choose_rate(measure(BALANCED.arguments, INTERACTIONS, drawn), current, learned=len(drawn))


def test_noise_asks_for_the_steady_rate() -> None:
    """A quick learner chases every click: it predicts worse than one that hardly moves."""
    rate = chosen_for(lessons(500, noise=True))

    assert rate is not None
    assert rate.name == STEADY
    assert rate.errors[STEADY] < rate.errors[QUICK]
    assert "--gamma_scale" in describe(rate)
    parse_policy(learner_arguments(BALANCED.arguments, None, 0.02, rate))


def test_what_features_explain_keeps_the_quick_rate() -> None:
    """Where there is no noise, small steps only cost events."""
    assert chosen_for(lessons(500, noise=False)) is None


def test_a_steady_loop_without_noise_goes_back() -> None:
    """An application that begins to report clean rewards must not stay slow."""
    steady = chosen_for(lessons(500, noise=True))

    rate = chosen_for(lessons(500, noise=False), steady)

    assert rate is not None
    assert (rate.name, rate.options) == (QUICK, "")


def test_the_same_events_choose_once() -> None:
    """Otherwise a new epoch, which begins with the events that started it, would be replaced at once."""
    drawn = lessons(500, noise=True)

    assert chosen_for(drawn, chosen_for(drawn)) is None


@pytest.mark.parametrize("rewards", [0.0, 1.0])
def test_rewards_that_are_all_equal_change_nothing(rewards: float) -> None:
    """A loop that nobody sends rewards to is not noisy."""
    same = [replace(lesson, reward=rewards) for lesson in lessons(500, noise=True)]

    assert chosen_for(same) is None


def test_a_difference_within_chance_changes_nothing() -> None:
    """One odd event is never evidence enough, however much it weighs."""
    errors = Errors({QUICK: [0.0] * 299 + [9.0], STEADY: [0.0] * 300}, [1.0] * 299 + [500.0])

    assert choose_rate(errors, None, learned=300) is None


def test_exploration_does_not_depend_on_the_unit_of_rewards() -> None:
    """Cents instead of euros: every error is a hundred times as large, and gamma must make up for it."""
    assert gamma_scale([0.01, 0.03]) == pytest.approx(100 * gamma_scale([100.0, 300.0]))


def test_gamma_is_renewed_by_a_wide_margin_only() -> None:
    """A new epoch learns everything anew: not for a few per cent."""
    rate = Rate(name=STEADY, options=f"{RATES[STEADY]} --gamma_scale 10", learned=300, events=300, errors={})

    def renewed(squared_error: float) -> Rate | None:
        errors = Errors({name: [squared_error] * 300 for name in RATES}, [1.0] * 300)
        return choose_rate(errors, rate, learned=1_000)

    assert renewed(0.16 * 1.5**2) is None
    assert renewed(0.16 / 1.5**2) is None
    smaller = renewed(0.16 * 3**2)
    assert smaller is not None
    assert smaller.options == f"{RATES[STEADY]} --gamma_scale 3.33"


def test_checks_become_rare() -> None:
    """Each may begin the epoch anew."""
    assert next_check(0) == EVENTS_MIN
    assert next_check(10_000) == 20_000


@pytest.mark.parametrize("options", RATES.values())
def test_what_estimates_learns_what_decides(options: str) -> None:
    """The errors that are measured must be those of the learner that will serve."""
    policy = parse_policy(BALANCED.arguments).with_options(options)
    policy = policy.with_interactions(INTERACTIONS.pairs, INTERACTIONS.ignore_linear)
    deciding, estimating = Learner(policy.learner_text), Learner(policy.estimator_text)

    for lesson in lessons(200, noise=False):
        for learner in (deciding, estimating):
            learner.learn_from(lesson)

    assert estimating.weights() == deciding.weights() != {}
