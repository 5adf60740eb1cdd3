"""What is said of the weights themselves."""

import numpy as np
import pytest

from rankward.evaluation.diagnostics import diagnose, mean_weight_p_value
from rankward.evaluation.estimators import Sums
from tests.evaluation.known_world import KnownWorld
from tests.evaluation.test_estimators import sums_of


def test_weights_are_described() -> None:
    """They say how far an estimate can be trusted before any interval does."""
    described = diagnose(sums_of(np.array([2.0, 2.0, 0.0, 0.0]), np.ones(4)), agreed=1.0)
    assert described is not None
    assert described.effective_sample_size == pytest.approx(2.0)
    assert described.weight_mean == 1.0
    assert described.weight_max == 2.0
    assert described.zero_support_share == 0.5
    assert described.agreement == 0.25
    assert diagnose(Sums(), agreed=0.0) is None


def test_false_probabilities_show_in_the_mean_weight() -> None:
    """A log that states other probabilities than it drew from makes every estimate wrong."""
    log = KnownWorld().log(20_000, np.random.default_rng(21))
    weights = log.value().gain
    assert mean_weight_p_value(sums_of(weights, log.decisions.rewards)) > 0.001
    assert mean_weight_p_value(sums_of(weights * 1.3, log.decisions.rewards)) < 1e-6


def test_weights_of_one_are_as_they_should_be() -> None:
    """Of the logging policy itself there is nothing to doubt."""
    assert mean_weight_p_value(sums_of(np.ones(500), np.ones(500))) == 1.0
