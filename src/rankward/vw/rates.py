"""The learner's rate: how far one event moves the weights, chosen by what it earns on a loop's own events.

With rewards that features explain, a quick learner is right after a few events. With rewards that are mostly noise
(one visitor in fifty clicks, whatever is shown) it chases every click, and never settles. So both are asked to
predict the newest events, each before it learns it (progressive validation), and the one with the smaller
squared error is to be used. That is the quantity that SquareCB's regret is bounded by: of two regressions under it,
the one that predicts better also decides better. The errors are weighted by 1 / probability of the chosen action, so
that they are about all actions: once the best is known, nearly all events are its, and a learner that
knows nothing else would predict them well.

Source: Foster and Rakhlin, "Beyond UCB", ICML 2020; progressive validation: Blum, Kalai and Langford, COLT 1999.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from rankward.records import Bins, Interactions, Rate
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner, shared_parser
from rankward.vw.parser import Lesson

QUICK: Final = "quick"  # as the policy has it
STEADY: Final = "steady"
RATES: Final = {
    QUICK: "",
    STEADY: "--learning_rate 0.1 --power_t 0.25",
}
"""Options of each rate, in place of the policy's.

A small step that shrinks slowly: settled on for clicks of 1.6, 5 and 20 %.
"""
EVENTS_MIN: Final = 250  # that a rate is chosen by
EVENTS_MAX: Final = 4_000  # the newest
SETTLED: Final = 10_000  # events after which another rate waits until the one in use is so old:
SETTLED_US: Final = 86_400_000_000
_STANDARD_ERRORS: Final = 3.0
_GAMMA_NOISE: Final = 4.0
_GAMMA_FACTOR: Final = 2.0
_NOISE_MIN: Final = 1e-6  # so that gamma stays within what the learner takes


class Errors(NamedTuple):
    """How far each rate's predictions were off, event by event, and what each event counts."""

    squared: Mapping[str, Sequence[float]]  # by name of the rate, in units of reward squared
    weights: Sequence[float]  # 1 / probability of the chosen action, and of the event having been kept

    def mean(self, name: str) -> float:
        """Return the weighted mean of a rate's squared errors."""
        return float(np.average(self.squared[name], weights=self.weights))


def next_check(learned: int) -> int:
    """Tell after how many learned events a rate that was chosen after so many is put to the test again.

    Doubling bounds how often an epoch can be begun anew: some ten times for each thousandfold of events.
    """
    return max(EVENTS_MIN, 2 * learned)


def measure(
    policy: str, interactions: Interactions | None, lessons: Sequence[Lesson], bins: Bins | None = None
) -> Errors:
    """Let learners of every rate predict events and learn them, starting afresh.

    Args:
        policy: arguments that passed the allow-list.
        interactions: those derived for the epoch; None: the policy names its own.
        lessons: the events, oldest first.
        bins: those of the epoch; None: numbers are seen as they are.
    """
    arguments = parse_policy(policy)
    if interactions is not None:
        arguments = arguments.with_interactions(interactions.pairs, interactions.ignore_linear)
    policies = {name: arguments.with_options(options) for name, options in RATES.items()}
    parser = shared_parser(policies[QUICK].estimator_text, bins)
    learners = {name: Learner(policy.estimator_text, parser=parser) for name, policy in policies.items()}
    squared: dict[str, list[float]] = {name: [] for name in RATES}
    try:
        for lesson in lessons:
            for name, learner in learners.items():
                expected = learner.estimates(lesson.context, lesson.actions)[lesson.chosen]
                squared[name].append((expected - lesson.reward) ** 2)
            for learner in learners.values():
                learner.learn_from(lesson)
    finally:
        parser.close()
        for learner in learners.values():
            learner.close()
    return Errors(squared, [1 / (lesson.probability * lesson.pass_probability) for lesson in lessons])


def choose_rate(errors: Errors, current: Rate | None, *, learned: int) -> Rate | None:
    """Say which rate an epoch should have.

    Args:
        errors: measured on the newest events.
        current: the epoch's; None: the policy's own, which is the quick one.
        learned: events that the epoch has learned.

    Returns:
        The rate to begin a new epoch with; None: go on with the current one. The other rate must be better by three
        standard errors of the paired difference. A steady rate whose gamma is twice or half of what the
        noise asks for is renewed.
    """
    name = QUICK if current is None else current.name
    other = STEADY if name == QUICK else QUICK
    difference = np.multiply(np.subtract(errors.squared[name], errors.squared[other]), errors.weights)
    if difference.mean() > _STANDARD_ERRORS * difference.std() / len(difference) ** 0.5:
        chosen = other
    elif current is not None and name == STEADY and _is_far(gamma_scale(errors.squared[STEADY]), current):
        chosen = STEADY
    else:
        return None
    options = RATES[chosen]
    if chosen == STEADY:
        options += f" --gamma_scale {gamma_scale(errors.squared[STEADY]):.3g}"
    means = {each: errors.mean(each) for each in RATES}
    return Rate(name=chosen, options=options, learned=learned, events=len(difference), errors=means)


def _is_far(gamma: float, rate: Rate) -> bool:
    current = float(parse_policy(f"--cb_explore_adf {rate.options}").value("gamma_scale") or gamma)
    return not 1 / _GAMMA_FACTOR < gamma / current < _GAMMA_FACTOR


def gamma_scale(squared_errors: Sequence[float]) -> float:
    """Say how greedy SquareCB should be, from the noise of rewards: 4 / (their standard deviation).

    Args:
        squared_errors: of predictions of the chosen actions' rewards.

    The analysis of SquareCB sets gamma in proportion to sqrt(actions * events / squared regret of the regression); that
    regret grows with the variance of the noise, so gamma goes with 1 / its standard deviation. A loop
    that counts its rewards in cents instead of euros explores as before. 4 gives the preset's own 10
    where that is .4, as with clicks of 20 %, and 32 at 1.6 %.

    >>> gamma_scale([0.16, 0.16])
    10.0
    """
    noise = max(float(np.sqrt(np.mean(squared_errors))), _NOISE_MIN)
    return _GAMMA_NOISE / noise


def describe(rate: Rate) -> str:
    """Say what a rate is and what it was chosen by, in one line."""
    errors = ", ".join(f"{error:.3g} {name}" for name, error in rate.errors.items())
    return f"{rate.name}{rate.options and ': ' + rate.options}; squared error {errors}, over {rate.events:,} events"
