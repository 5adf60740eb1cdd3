"""Point estimates of what a policy would have earned, from weights and rewards of logged decisions.

A weight is w = p_target / p_log of the action taken. What fits into sums is computed from `Sums`, whose size
does not depend on the log; what needs every event takes arrays. Rewards are in the units they are given in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from rankward.evaluation.contrast import Floats
from rankward.evaluation.roots import root


class Sums(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sums over decisions, from which most estimates follow.

    An event that was kept with probability q counts as 1/q events: its weight is divided by q, and the 1/q - 1
    that were dropped stand in with weight 0.
    """

    events: int = 0  # decisions in the log
    count: float = 0.0  # of 1/q: decisions before subsampling
    rewards: float = 0.0  # of r/q
    weights: float = 0.0  # of w/q, and so on below
    weight_squares: float = 0.0
    weighted_rewards: float = 0.0
    weight_squares_rewards: float = 0.0
    weighted_reward_squares: float = 0.0  # of (wr/q)²
    weight_max: float = 0.0
    supported: float = 0.0  # of 1/q, where w > 0

    def add(self, weights: Floats, rewards: Floats, upweights: Floats) -> None:
        """Take more decisions in.

        Args:
            weights: (N,) p_target / p_log, at least 0.
            rewards: (N,)
            upweights: (N,) 1/q, at least 1.
        """
        if not len(weights):
            return
        raised = weights * upweights
        weighted = raised * rewards
        self.events += len(weights)
        self.count += float(upweights.sum())
        self.rewards += float((rewards * upweights).sum())
        self.weights += float(raised.sum())
        self.weight_squares += float((raised * raised).sum())
        self.weighted_rewards += float(weighted.sum())
        self.weight_squares_rewards += float((raised * weighted).sum())
        self.weighted_reward_squares += float((weighted * weighted).sum())
        self.weight_max = max(self.weight_max, float(raised.max()))
        self.supported += float(upweights[weights > 0].sum())

    def add_one(self, weight: float, reward: float, upweight: float) -> None:
        """Take one more decision in. Ranges as of `add`; decision by decision, the sums do not depend on batches."""
        raised = weight * upweight
        weighted = raised * reward
        self.events += 1
        self.count += upweight
        self.rewards += reward * upweight
        self.weights += raised
        self.weight_squares += raised * raised
        self.weighted_rewards += weighted
        self.weight_squares_rewards += raised * weighted
        self.weighted_reward_squares += weighted * weighted
        if raised > self.weight_max:  # noqa: PLR1730  # a call for each event and stretch is what this must not cost
            self.weight_max = raised
        if weight > 0:
            self.supported += upweight

    def merge(self, other: Sums) -> None:
        """Take the decisions of other sums in."""
        self.events += other.events
        self.count += other.count
        self.rewards += other.rewards
        self.weights += other.weights
        self.weight_squares += other.weight_squares
        self.weighted_rewards += other.weighted_rewards
        self.weight_squares_rewards += other.weight_squares_rewards
        self.weighted_reward_squares += other.weighted_reward_squares
        self.weight_max = max(self.weight_max, other.weight_max)
        self.supported += other.supported


def ips(sums: Sums) -> float | None:
    """Estimate by inverse propensity scoring: unbiased, and noisy where weights are large.

    Source: Horvitz and Thompson, JASA 1952; Dudik, Langford and Li, arXiv 1103.4601.

    Returns:
        The mean of wr. None: there are no events.
    """
    return sums.weighted_rewards / sums.count if sums.count else None


def snips(sums: Sums) -> float | None:
    """Estimate by self-normalized importance sampling: always within the rewards seen; biased but consistent.

    Source: Swaminathan and Joachims, NeurIPS 2015.

    Returns:
        The mean of r, weighted by w. None: every weight is 0, so the log says nothing of this policy.
    """
    return sums.weighted_rewards / sums.weights if sums.weights > 0 else None


def cressie_read(sums: Sums, *, weight_max: float = math.inf) -> float | None:
    """Estimate by empirical likelihood in its Cressie-Read(-2) form, which knows that weights average 1.

    What is missing of a mean weight of 1 is taken to earn the log's mean reward. It needs sums only, and errs
    about as little as full `empirical_likelihood`; it is the estimate that reports show.

    Args:
        sums: over the decisions.
        weight_max: the largest weight possible; infinity: unknown.

    Source: Karampatziakis, Langford and Mineiro, arXiv 1906.03323.

    Returns:
        The estimate. None: there are no events.
    """
    n = sums.count
    if n == 0:
        return None
    extreme = max(weight_max, sums.weight_max) if sums.weights < n else 0.0
    if math.isinf(extreme):
        constant, slope = (1 + n) / n, 0.0
    else:
        mean = (extreme + sums.weights) / (1 + n)
        square = (extreme * extreme + sums.weight_squares) / (1 + n)
        spread = square - mean * mean
        if spread <= 0:
            return sums.weighted_rewards / n
        constant, slope = (square - mean) / spread, (1 - mean) / spread
    estimate = (constant * sums.weighted_rewards + slope * sums.weight_squares_rewards) / (1 + n)
    missing = max(0.0, 1 - (constant * sums.weights + slope * sums.weight_squares) / (1 + n))
    return estimate + missing * sums.rewards / n


def empirical_likelihood(weights: Floats, rewards: Floats, *, weight_max: float = math.inf) -> float | None:
    """Estimate by the most likely distribution of (w, r) under which weights average 1.

    Args:
        weights: (N,) at least 0.
        rewards: (N,)
        weight_max: the largest weight possible; infinity: unknown.

    Source: Karampatziakis, Langford and Mineiro, arXiv 1906.03323.

    Returns:
        The estimate. None: there are no events.
    """
    n = len(weights)
    if n == 0:
        return None
    off = weights - 1
    highest = max(weight_max, float(weights.max()))
    # The dual variable keeps every decision's likelihood within (0, 1].
    upper = float(np.min((n - 1) / -off[off < 0], initial=n))
    lower = 0.0
    if 1 < highest < math.inf:
        lower = max(n / (1 - highest), float(np.max((1 - n) / off[off > 0], initial=-math.inf)))

    def slope(dual: float) -> float:
        return math.fsum(off / (off * dual + n))

    at_lower, at_upper = slope(lower), slope(upper)
    inner = at_lower * at_upper < 0
    dual = root(slope, lower, upper) if inner else lower if at_lower < 0 else upper
    likelihood = weights / (off * dual + n)
    missing = max(0.0, 1 - math.fsum(likelihood))
    return math.fsum(likelihood * rewards) + missing * math.fsum(rewards) / n


def direct_method(q_target: Floats) -> float:
    """Estimate by what a reward model says of the target policy: as good, and as biased, as the model.

    Args:
        q_target: (N,) the model's reward, averaged over the target policy's actions.

    Source: Dudik, Langford and Li, arXiv 1103.4601.
    """
    return float(q_target.mean())


def doubly_robust(weights: Floats, rewards: Floats, q_logged: Floats, q_target: Floats) -> float:
    """Estimate by a reward model, corrected by weighted residuals: unbiased whatever the model says.

    Args:
        weights: (N,)
        rewards: (N,)
        q_logged: (N,) the model's reward of the action taken, fitted on other events.
        q_target: (N,) the same, averaged over the target policy's actions.

    Source: Dudik, Langford and Li, arXiv 1103.4601.
    """
    return float((q_target + weights * (rewards - q_logged)).mean())


def self_normalized_doubly_robust(weights: Floats, rewards: Floats, q_logged: Floats, q_target: Floats) -> float:
    """Estimate as `doubly_robust` does, with residuals weighted relative to the sum of weights.

    Source: Thomas and Brunskill, arXiv 1604.00923. Where every weight is 0, the reward model alone remains.
    """
    total = float(weights.sum())
    correction = float((weights * (rewards - q_logged)).sum()) / total if total > 0 else 0.0
    return float(q_target.mean()) + correction


def shrunk_doubly_robust(
    weights: Floats, rewards: Floats, q_logged: Floats, q_target: Floats, *, shrinkages: Sequence[float]
) -> float:
    """Estimate as `doubly_robust` does, with optimistically shrunk weights: less variance for some bias.

    A weight w becomes s·w / (w² + s). The s among `shrinkages` is taken that has the least sum of estimated
    variance and squared bias bound.

    Args:
        weights: (N,)
        rewards: (N,)
        q_logged: (N,) as in `doubly_robust`.
        q_target: (N,)
        shrinkages: values of s to choose from, above 0; infinity does not shrink.

    Source: Su, Dimakopoulou, Krishnamurthy and Dudik, arXiv 1907.09623.
    """
    assert len(shrinkages) > 0, "without a value there is nothing to choose"
    residuals = rewards - q_logged
    best = (math.inf, math.nan)
    for shrinkage in shrinkages:
        shrunk = weights if math.isinf(shrinkage) else shrinkage * weights / (weights**2 + shrinkage)
        values = q_target + shrunk * residuals
        bias = float(((shrunk - weights) * residuals).mean())
        best = min(best, (float(values.var()) / len(values) + bias * bias, float(values.mean())))
    return best[1]


def pseudo_inverse_weights(slot_weights: Floats) -> Floats:
    """Weigh whole pages by the weights of their slots, for a page's reward that adds up over slots.

    Args:
        slot_weights: (N, S) each slot's p_target / p_log, given what the slots before it show.

    Returns:
        (N,) 1 - S + the sum of a page's slot weights; it may be negative.

    Source: Swaminathan and others, arXiv 1605.04812, example 4: exact where slots are drawn independently.
    """
    total: Floats = 1.0 - slot_weights.shape[1] + slot_weights.sum(axis=1)
    return total
