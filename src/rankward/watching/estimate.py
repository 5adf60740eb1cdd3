"""What sums say of a mean reward: the estimate, its interval, and how many events it rests on."""

from __future__ import annotations

import msgspec

from rankward.evaluation.estimators import Sums, cressie_read
from rankward.evaluation.intervals import cressie_read_interval
from rankward.evaluation.judge import RewardRange
from rankward.watching.tally import ActionTally


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """A mean reward per event, in the loop's units, within reward_min to reward_max.

    The interval misses the true mean of this stretch in 5 % of stretches at most. It is made for one look at one
    stretch: of many that are looked at, some miss. What is to be acted on is in `comparison`, whose intervals hold
    at every look.
    """

    value: float
    low: float
    high: float
    events: float  # that judge it, each as often as it stands for
    effective: float  # how many events of the policy's own would tell as much: (sum of weights)² / sum of their squares


def estimate(sums: Sums, rewards: RewardRange) -> Estimated | None:
    """Estimate a policy's mean reward.

    Args:
        sums: over events, with rewards as they were reported.
        rewards: the range of rewards; means are cut to it.

    Returns:
        The estimate. None: no event judges the policy.
    """
    within = _scaled(sums, rewards)
    value, bounds = cressie_read(within), cressie_read_interval(within)
    if value is None or bounds is None:
        return None
    value = min(1.0, max(0.0, value))
    return Estimated(
        value=rewards.value(value),
        low=rewards.value(min(bounds.low, value)),
        high=rewards.value(max(bounds.high, value)),
        events=sums.count,
        effective=sums.weights**2 / sums.weight_squares if sums.weight_squares > 0 else 0.0,
    )


def estimate_shown(tally: ActionTally, rewards: RewardRange) -> Estimated | None:
    """Estimate the mean reward of an action where it was shown. None: it never was."""
    shown = float(tally.shown)
    sums = Sums(
        events=tally.shown,
        count=shown,
        rewards=tally.rewards,
        weights=shown,
        weight_squares=shown,
        weighted_rewards=tally.rewards,
        weight_squares_rewards=tally.rewards,
        weighted_reward_squares=tally.reward_squares,
        weight_max=1.0,
        supported=shown,
    )
    return estimate(sums, rewards)


def _scaled(sums: Sums, rewards: RewardRange) -> Sums:
    """Return the sums as if every reward r had been (r - low) / (high - low)."""
    low, span = rewards.low, rewards.high - rewards.low
    return msgspec.structs.replace(
        sums,
        rewards=(sums.rewards - low * sums.count) / span,
        weighted_rewards=(sums.weighted_rewards - low * sums.weights) / span,
        weight_squares_rewards=(sums.weight_squares_rewards - low * sums.weight_squares) / span,
        weighted_reward_squares=max(
            0.0,
            (sums.weighted_reward_squares - 2 * low * sums.weight_squares_rewards + low**2 * sums.weight_squares)
            / span**2,
        ),
    )
