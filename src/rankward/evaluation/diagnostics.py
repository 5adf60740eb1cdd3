"""How much a log can say about a policy, and whether its probabilities can be true."""

from __future__ import annotations

import math

import msgspec

from rankward.evaluation.estimators import Sums

_TESTABLE = 100  # events: with fewer, the normal test would cry wolf


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside an estimate."""

    effective_sample_size: float  # events of weight 1 that would say as much
    weight_mean: float  # near 1 if the logged probabilities are true and every action had a chance
    weight_mean_p_value: float  # of such a mean weight or a stranger one; 1: as it should be
    weight_max: float
    zero_support_share: float  # of events: the policy never takes the action that was logged
    agreement: float  # of events: the logged action is the policy's own first choice


def diagnose(sums: Sums, *, agreed: float) -> Diagnostics | None:
    """Judge the weights of a policy.

    Args:
        sums: over its decisions.
        agreed: sum of 1/q over the events whose action was the policy's first choice.

    Returns:
        None: there are no events.
    """
    if not sums.count:
        return None
    return Diagnostics(
        effective_sample_size=sums.weights**2 / sums.weight_squares if sums.weight_squares else 0.0,
        weight_mean=sums.weights / sums.count,
        weight_mean_p_value=mean_weight_p_value(sums),
        weight_max=sums.weight_max,
        zero_support_share=1 - sums.supported / sums.count,
        agreement=agreed / sums.count,
    )


def mean_weight_p_value(sums: Sums) -> float:
    """Test whether weights average 1, by a two-sided normal test.

    It should not reject: the mean of p_target / p_log over what p_log draws is 1. A small value tells of logged
    probabilities that are not the ones drawn from, or of actions that the logging policy never takes. It is rough
    where few events carry the weight.
    """
    n = sums.count
    if n < _TESTABLE:
        return 1.0
    mean = sums.weights / n
    variance = (sums.weight_squares - n * mean * mean) / (n - 1)
    # Weights that are all alike leave rounding errors, and nothing to test by.
    if variance <= 1e-12 * max(1.0, mean * mean):
        return 1.0 if abs(mean - 1) < 1e-9 else 0.0
    return math.erfc(abs(mean - 1) * math.sqrt(n / (2 * variance)))
