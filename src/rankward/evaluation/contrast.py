"""Two policies over the same logged decisions: how differently they weigh the actions that were taken.

Everything an estimate or an interval needs of a policy is here, as arrays of one entry per decision: so the
value of one policy, its upper bound and the difference of two are the same arithmetic on different contrasts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Flags = NDArray[np.bool_]

CAPS = (1.5, 6.0, 24.0, 96.0)
"""Weights at which the bets of `intervals.Wealth` cut their control variates off."""


class Decisions(NamedTuple):
    """Logged decisions of N events, M probabilities in all, one decision after the other."""

    p_log: Floats  # (M,) within [0, 1], summing to 1 for each decision
    starts: Indexes  # (N,) where each decision's probabilities begin, ascending from 0
    chosen: Indexes  # (N,) index into `p_log` of the action taken; its probability is above 0
    rewards: Floats  # (N,) within [0, 1]: scaled from the loop's range
    upweights: Floats  # (N,) of at least 1: 1 / pass_probability of a subsampled event


class Contrast(NamedTuple):
    """How much more one policy puts on what was taken than another does, N decisions.

    With d(a) = p_target(a) - p_other(a), and the means over what the logging policy could have taken.
    """

    gain: Floats  # (N,) d / p_log of the action taken: below 0 where the other policy likes it better
    ahead: Floats  # (N,) sum over all actions of max(d, 0)
    behind: Floats  # (N,) sum over all actions of max(-d, 0)
    ahead_capped: Floats  # (N, len(CAPS)) mean of min(max(d, 0) / p_log, cap)
    behind_capped: Floats  # (N, len(CAPS)) the same of -d

    def of(self, kept: Flags) -> Contrast:
        """Pick the decisions that are marked in (N,)."""
        return Contrast(*(each[kept] for each in self))

    @property
    def reversed(self) -> Contrast:
        """The other policy against this one."""
        return Contrast(-self.gain, self.behind, self.ahead, self.behind_capped, self.ahead_capped)


def contrast(decisions: Decisions, p_target: Floats, p_other: Floats | None = None) -> Contrast:
    """Compare two policies on logged decisions.

    Args:
        decisions: as they were logged.
        p_target: (M,) the policy's probabilities, laid out like `decisions.p_log`.
        p_other: (M,) those of the policy to compare with, such as `decisions.p_log` itself; None: with nothing,
            which makes it the value of the policy alone.

    What a policy puts on actions that were never taken (p_log = 0) counts in `ahead` and `behind` and nowhere
    else: the bounds made from a contrast assume the worst of it.
    """
    more = p_target if p_other is None else p_target - p_other
    chosen = decisions.chosen
    gain = more[chosen] / decisions.p_log[chosen]
    ahead, ahead_capped = _side(np.maximum(more, 0.0), decisions)
    if p_other is None:
        return Contrast(gain, ahead, np.zeros_like(ahead), ahead_capped, np.zeros_like(ahead_capped))
    behind, behind_capped = _side(np.maximum(-more, 0.0), decisions)
    return Contrast(gain, ahead, behind, ahead_capped, behind_capped)


def _side(part: Floats, decisions: Decisions) -> tuple[Floats, Floats]:
    capped = np.empty((len(decisions.starts), len(CAPS)))
    for column, cap in enumerate(CAPS):
        capped[:, column] = np.add.reduceat(np.minimum(part, cap * decisions.p_log), decisions.starts)
    return np.add.reduceat(part, decisions.starts), capped
