"""What a challenger would have earned, beside what was earned: intervals that hold at every look together.

A decision for several slots counts as many times as it has slots, each judged given what the slots before it showed:
so the figures of such a loop are those of a slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from rankward.evaluation.contrast import Decisions, contrast
from rankward.evaluation.estimators import Sums, cressie_read, ips
from rankward.evaluation.intervals import Betting, BettingState, Bounds
from rankward.evaluation.judge import RewardRange, clipped
from rankward.evaluation.question import Question
from rankward.evaluation.report import Interval, Verdict

_BLOCK = 64  # decisions judged together, as the arithmetic is that of arrays


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """A mean reward, or a difference of two, in the loop's units."""

    value: float
    always: Interval  # holds at every look together, 95 times out of 100


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a challenger stands against what serves."""

    decisions: int  # that it was judged by
    mean: Mean | None = None  # of its reward; None: it was judged by nothing yet
    served: float | None = None  # mean reward of what was served meanwhile
    ahead: Mean | None = None  # by how much its mean reward is above that

    @property
    def verdict(self) -> Verdict:
        """Whether it is better than what serves, beyond doubt."""
        if self.ahead is None:
            return Verdict.UNKNOWN
        if self.ahead.always.low > 0:
            return Verdict.BETTER
        return Verdict.WORSE if self.ahead.always.high < 0 else Verdict.UNDECIDED


class MeasureState(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Measure` has come to: it goes on from here as if it had never stopped."""

    mean: BettingState
    ahead: BettingState
    sums: Sums  # scaled
    served: Sums  # scaled


class Measure:
    """Takes decisions in as they are answered, and tells how the challenger stands."""

    def __init__(self, rewards: RewardRange, state: MeasureState | None = None) -> None:
        """Begin, or go on.

        Args:
            rewards: what intervals take for granted.
            state: of another that was under the same rewards; None: it begins.
        """
        self._range = rewards
        self._mean = Betting(None if state is None else state.mean)
        self._ahead = Betting(None if state is None else state.ahead)
        self._sums = Sums() if state is None else state.sums
        self._served = Sums() if state is None else state.served
        self._begin_block()

    def _begin_block(self) -> None:
        self._p_log: list[float] = []
        self._p_target: list[float] = []
        self._starts: list[int] = []
        self._chosen: list[int] = []
        self._rewards: list[float] = []
        self._upweights: list[float] = []

    def add(self, question: Question, p_target: Sequence[float], *, reward: float, upweight: float) -> None:
        """Take a decision in, in log order.

        Args:
            question: without a flaw.
            p_target: what the challenger would have drawn from, one for each of the question's actions.
            reward: that was reported.
            upweight: 1 / pass_probability of the event.
        """
        start = len(self._p_log)
        self._starts.append(start)
        self._chosen.append(start + question.chosen)
        self._p_log.extend(question.p_log)
        self._p_target.extend(p_target)
        self._rewards.append(reward)
        self._upweights.append(upweight)
        if len(self._starts) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._starts:
            return
        decisions = Decisions(
            p_log=np.array(self._p_log),
            starts=np.array(self._starts),
            chosen=np.array(self._chosen),
            rewards=self._range.scale(np.array(self._rewards)),
            upweights=np.array(self._upweights),
        )
        p_target = np.array(self._p_target)
        value, ahead = contrast(decisions, p_target), contrast(decisions, p_target, decisions.p_log)
        rewards, upweights = decisions.rewards, decisions.upweights
        self._mean.add(value, rewards, upweights)
        self._ahead.add(ahead, rewards, upweights)
        self._sums.add(value.gain, rewards, upweights)
        self._served.add(np.ones(len(rewards)), rewards, upweights)
        self._begin_block()

    def standing(self) -> Standing:
        """Tell how the challenger stands."""
        self._flush()
        mean, served = cressie_read(self._sums), ips(self._served)
        if mean is None or served is None:
            return Standing(decisions=0)
        of_mean, of_ahead = clipped(self._mean.bounds()), self._ahead.bounds()
        return Standing(
            decisions=self._sums.events,
            mean=Mean(
                value=self._range.value(_within(mean, of_mean)),
                always=Interval(*map(self._range.value, of_mean)),
            ),
            served=self._range.value(served),
            ahead=Mean(
                value=self._range.difference(_within(mean - served, of_ahead)),
                always=Interval(*map(self._range.difference, of_ahead)),
            ),
        )

    def state(self) -> MeasureState:
        """Tell what it has come to, to go on from later."""
        self._flush()
        return MeasureState(mean=self._mean.state(), ahead=self._ahead.state(), sums=self._sums, served=self._served)


def _within(value: float, bounds: Bounds) -> float:
    """Bring an estimate to where it can be: it is made otherwise than the interval, and may lie beyond an end."""
    return min(bounds.high, max(bounds.low, value))
