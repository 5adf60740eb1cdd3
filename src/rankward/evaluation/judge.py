"""Judges one policy: takes in what it would have done on logged decisions, and tells what it would have earned."""

from __future__ import annotations

import numpy as np

from rankward.evaluation.contrast import Decisions, Floats, Indexes, contrast
from rankward.evaluation.diagnostics import Diagnostics, diagnose
from rankward.evaluation.estimators import Sums, cressie_read, ips, snips
from rankward.evaluation.intervals import ALPHA, Betting, Bounds, PairedSums, cressie_read_interval
from rankward.evaluation.report import WINDOW_US, Estimate, Interval, Look, Verdict, Window
from rankward.records import TimeUs

LOOKS_MAX = 120  # kept for a plot; at twice as many, every other one is dropped


class RewardRange:
    """The rewards that intervals take for granted: none is outside."""

    def __init__(self, low: float, high: float) -> None:
        assert low < high, "settings were to be checked before"
        self.low = low
        self.high = high

    def scale(self, rewards: Floats) -> Floats:
        """Bring rewards to [0, 1], cutting off what is outside."""
        scaled: Floats = np.clip((rewards - self.low) / (self.high - self.low), 0.0, 1.0)
        return scaled

    def scale_one(self, reward: float) -> float:
        """Bring one reward to [0, 1], cutting it off if it is outside."""
        return min(1.0, max(0.0, (reward - self.low) / (self.high - self.low)))

    def outside(self, rewards: Floats) -> int:
        """Count the rewards that `scale` cuts."""
        return int(((rewards < self.low) | (rewards > self.high)).sum())

    def value(self, scaled: float) -> float:
        """Bring a scaled mean back to the loop's units."""
        return self.low + scaled * (self.high - self.low)

    def difference(self, scaled: float) -> float:
        """Bring a difference of scaled means back to the loop's units."""
        return scaled * (self.high - self.low)


class Windows:
    """Sums by stretches of time."""

    def __init__(self) -> None:
        self._sums: dict[int, Sums] = {}

    def add(self, weights: Floats, rewards: Floats, upweights: Floats, times_us: Indexes) -> None:
        """Take decisions in. Arguments as of `Sums.add`, with the times of the decisions."""
        numbers = times_us // WINDOW_US
        if (numbers == numbers[0]).all():
            self._sums.setdefault(int(numbers[0]), Sums()).add(weights, rewards, upweights)
            return
        for number in np.unique(numbers):
            within = numbers == number
            self._sums.setdefault(int(number), Sums()).add(weights[within], rewards[within], upweights[within])

    def listed(self) -> tuple[Window, ...]:
        """List them, ascending."""
        return tuple([Window(number * WINDOW_US, sums) for number, sums in sorted(self._sums.items())])


class Judge:
    """What is known of one policy so far. Its size grows with the span of the log by windows, not by events."""

    def __init__(self, rewards: RewardRange, *, judged_from_us: TimeUs = 0, alpha: float = ALPHA) -> None:
        """Begin.

        Args:
            rewards: what intervals take for granted.
            judged_from_us: decisions before it are in the sums and windows, and in no estimate.
            alpha: how often an interval of a difference may miss.
        """
        self._range = rewards
        self._judged_from_us = judged_from_us
        self._alpha = alpha
        self.totals = Sums()  # of rewards as they were reported
        self._windows = Windows()
        self.judged = Sums()  # as the totals, of decisions that estimates are of
        self._scaled = Sums()
        self._agreed = 0.0
        self._value = Betting()
        self._shared = Sums()  # scaled, over the events that judge `online` as well
        self._online = Sums()
        self._against = Betting()
        self._paired = PairedSums()
        self._looks: list[Look] = []
        self._stride = self._until_look = 1  # in calls of `add`

    def add(
        self, p_target: Floats, decisions: Decisions, reported: Floats, times_us: Indexes, *, shown: bool = True
    ) -> None:
        """Take in what the policy would have done on more decisions, in log order.

        Args:
            p_target: (M,) the policy's probabilities, laid out like `decisions.p_log`.
            decisions: N of them, with rewards scaled to [0, 1].
            reported: (N,) the rewards as they were reported.
            times_us: (N,) of the decisions.
            shown: whether what was logged was what was shown; if not, the decisions stand for what was shown, and
                say nothing of the logging policy.
        """
        if not len(reported):
            return
        value = contrast(decisions, p_target)
        rewards, upweights = decisions.rewards, decisions.upweights
        self.totals.add(value.gain, reported, upweights)
        self._windows.add(value.gain, reported, upweights, times_us)
        first_choice = np.maximum.reduceat(p_target, decisions.starts)
        agreed = p_target[decisions.chosen] >= first_choice
        against = contrast(decisions, p_target, decisions.p_log) if shown else None
        if (early := times_us < self._judged_from_us).any():
            if early.all():
                return
            judged = ~early
            value, against = value.of(judged), None if against is None else against.of(judged)
            rewards, upweights, reported = rewards[judged], upweights[judged], reported[judged]
            agreed, times_us = agreed[judged], times_us[judged]
        self.judged.add(value.gain, reported, upweights)
        self._scaled.add(value.gain, rewards, upweights)
        self._value.add(value, rewards, upweights)
        self._agreed += float(upweights[agreed].sum())
        if against is not None:
            self._shared.add(value.gain, rewards, upweights)
            self._online.add(np.ones(len(rewards)), rewards, upweights)
            self._against.add(against, rewards, upweights)
            self._paired.add(against, rewards, upweights)
        self._look(int(times_us[-1]))

    def _look(self, time_us: int) -> None:
        self._until_look -= 1
        if self._until_look > 0:
            return
        bounds = self._value.bounds()
        scaled = cressie_read(self._scaled)
        assert scaled is not None, "there are events"
        value, low, high = (self._range.value(each) for each in (scaled, *clipped(bounds)))
        self._looks.append(Look(self._scaled.events, time_us, value, low, high))
        if len(self._looks) >= 2 * LOOKS_MAX:
            self._looks = self._looks[1::2]
            self._stride *= 2
        self._until_look = self._stride

    def estimate(self, alpha: float = ALPHA) -> Estimate | None:
        """Tell its mean reward, with intervals that miss it with a probability of alpha. None: no event judges it."""
        value, fixed = cressie_read(self._scaled), cressie_read_interval(self._scaled, alpha=alpha)
        if value is None or fixed is None:
            return None
        always = clipped(self._value.bounds(alpha))
        return Estimate(
            value=self._range.value(value),
            fixed=Interval(*map(self._range.value, fixed)),
            always=Interval(*map(self._range.value, always)),
            ips=ips(self.judged),
            snips=snips(self.judged),
        )

    def against_online(self, *, share: int = 1) -> Estimate | None:
        """Tell by how much its mean reward is above that of the policy that acted. None: no event judges both.

        Args:
            share: of how many estimates this is one that have to hold together.
        """
        alpha = self._alpha / share
        value, online, fixed = cressie_read(self._shared), ips(self._online), self._paired.interval(alpha)
        if value is None or online is None or fixed is None:
            return None
        return Estimate(
            value=self._range.difference(value - online),
            fixed=Interval(*map(self._range.difference, fixed)),
            always=Interval(*map(self._range.difference, self._against.bounds(alpha))),
        )

    def diagnostics(self) -> Diagnostics | None:
        """Describe its weights. None: no event judges it."""
        return diagnose(self._scaled, agreed=self._agreed)

    def windows(self) -> tuple[Window, ...]:
        """List what it earned in each stretch of time, ascending."""
        return self._windows.listed()

    def looks(self) -> tuple[Look, ...]:
        """List its estimates while the log grew."""
        return tuple(self._looks)


def clipped(bounds: Bounds) -> Bounds:
    """Keep the bounds of a value within [0, 1]."""
    return Bounds(min(1.0, max(0.0, bounds.low)), min(1.0, max(0.0, bounds.high)))


def verdict_of(against: Estimate | None) -> Verdict:
    """Tell whether a policy is better than the one that acted, by the interval that holds at every look."""
    if against is None:
        return Verdict.UNKNOWN
    if against.always.low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if against.always.high < 0 else Verdict.UNDECIDED
