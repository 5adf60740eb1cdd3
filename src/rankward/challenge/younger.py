"""Younger models of a loop's own policy: when one is begun, which are kept, and when one takes over.

What has learned for long moves slowly, and where visitors change their minds all at once it is wrong for long. A model
that began lately has less to unlearn. So some are kept beside the one that serves, begun at staggered places of the
log, and the newest decisions tell which does best. While nothing changes the eldest knows most, and stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from rankward.evaluation.judge import RewardRange

SPACING = 500
"""Joined events between the beginnings of two."""
KEPT = 3
"""As many are kept beside the one that serves."""
LOOK_EVERY = 50
"""Joined events between two looks at who does best."""
_WINDOW = 500  # decisions: one counts 1/e of the newest when as many have followed
_JUDGED_MIN = 200  # decisions before anything is concluded
_STANDARD_ERRORS = 3.0
_WEIGHT_MAX = 5.0


class NewestState(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Newest` has come to. Sums are discounted: a decision counts a little less with every one that follows."""

    decisions: int = 0
    count: float = 0.0
    differences: float = 0.0
    squares: float = 0.0
    rewards: float = 0.0  # scaled


class Newest:
    """By how much a model would have done better than what was served, by the newest decisions.

    The difference of two policies' mean rewards is the mean of (p_target - p_log) / p_log · (reward - c) for any c, as
    the weights average 0; c is the mean reward of the decisions before, which takes most of the noise away. Weights are
    cut off, which bounds what one lucky draw can do: this is a heuristic that is quick to notice, not an interval that
    holds at every look. What it costs to be wrong is small, as the model that takes over goes on learning.
    """

    def __init__(self, rewards: RewardRange, state: NewestState | None = None) -> None:
        """Begin, or go on from what another has come to."""
        self._range = rewards
        self._state = state or NewestState()

    def add(self, *, p_target: float, p_log: float, reward: float) -> None:
        """Take a decision in, in log order.

        Args:
            p_target: the model's probability of the action that was chosen.
            p_log: that which it was chosen with, above 0.
            reward: that was reported.
        """
        before = self._state
        kept = 1 - 1 / _WINDOW
        scaled = min(1.0, max(0.0, (reward - self._range.low) / (self._range.high - self._range.low)))
        expected = before.rewards / before.count if before.count else scaled
        weight = min(_WEIGHT_MAX, max(-_WEIGHT_MAX, (p_target - p_log) / p_log))
        difference = weight * (scaled - expected)
        self._state = NewestState(
            decisions=before.decisions + 1,
            count=kept * before.count + 1,
            differences=kept * before.differences + difference,
            squares=kept * before.squares + difference * difference,
            rewards=kept * before.rewards + scaled,
        )

    @property
    def lead(self) -> float | None:
        """How much better it does at least, by three standard errors, rewards being scaled. None: too early to say."""
        state = self._state
        if state.decisions < _JUDGED_MIN:
            return None
        mean = state.differences / state.count
        variance = max(0.0, state.squares / state.count - mean * mean)
        return mean - _STANDARD_ERRORS * math.sqrt(variance / min(state.decisions, _WINDOW))

    def state(self) -> NewestState:
        """Tell what it has come to, to go on from later."""
        return self._state


def successor(leads: Sequence[float | None]) -> int | None:
    """Tell which takes over. None: the one that serves stays."""
    best = max(range(len(leads)), key=lambda index: _or_least(leads[index]), default=None)
    return best if best is not None and _or_least(leads[best]) > 0 else None


def _or_least(lead: float | None) -> float:
    return float("-inf") if lead is None else lead


def superfluous(ages: Sequence[float]) -> int | None:
    """Tell which to let go of, so that those left differ in age by about the same factor. None: there are not too many.

    Args:
        ages: of the one that serves, then of the younger ones, eldest first; all above 0.

    Returns:
        Index into `ages`; neither that of the one that serves nor that of the youngest.

    >>> superfluous([8000, 2000, 1500, 1000, 500])
    2
    """
    if len(ages) - 1 <= KEPT:
        return None
    return min(range(1, len(ages) - 1), key=lambda index: ages[index - 1] / ages[index + 1])
