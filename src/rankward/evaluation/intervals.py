"""Intervals around estimates: the contract's, one for a log of fixed length, one that holds at every look.

Rewards are within [0, 1] where an interval depends on their bounds; `alpha` is the share of logs in which an
interval may miss the truth.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import msgspec
import numpy as np

from rankward.evaluation.contrast import CAPS, Contrast, Floats, Indexes
from rankward.evaluation.estimators import Sums, cressie_read
from rankward.evaluation.roots import root, student_quantile

ALPHA = 0.05
_CONTRACT_Z = 1.96  # the contract rounds the normal quantile so
_TELLING = 20  # decisions: the interval of fewer can be a point, which is arithmetic and no evidence
_CLOSE = 1e-9  # products below its square count as 0


class Bounds(NamedTuple):
    """An interval, ends included."""

    low: float
    high: float


def gaussian_half_width(sums: Sums) -> float:
    """Tell half the width of the contract's interval around the mean of wr; 0 with fewer than two events.

    It is what clients of the contract expect, and far too narrow where few events carry large weights: see the
    other intervals for the ones to decide by.
    """
    n = sums.count
    if n <= 1:
        return 0.0
    variance = (sums.weighted_reward_squares - sums.weighted_rewards**2 / n) / (n - 1)
    return _CONTRACT_Z * math.sqrt(max(0.0, variance) / n)


def cressie_read_interval(sums: Sums, *, alpha: float = ALPHA, weight_max: float = math.inf) -> Bounds | None:
    """Bound a policy's value from a log of a length that was fixed beforehand, rewards within [0, 1].

    The interval holds the values that some distribution of (w, r) gives which has mean weight 1, is close to
    what was seen in the Cressie-Read(-2) divergence, and may hold one more decision of an extreme weight.

    Args:
        sums: over the decisions.
        alpha: how often it may miss.
        weight_max: the largest weight possible; infinity: unknown.

    Source: Karampatziakis, Langford and Mineiro, arXiv 1906.03323.

    Returns:
        The bounds; the whole range for fewer than 20 decisions. None: there are no events.
    """
    n = sums.count
    if n == 0:
        return None
    if sums.events < _TELLING:
        return Bounds(0.0, 1.0)
    highest = max(weight_max, sums.weight_max)
    extreme = highest if sums.weights < n else 0.0
    if math.isinf(extreme):
        unconstrained = 1 + 1 / n
    else:
        mean = (extreme + sums.weights) / (1 + n)
        spread = (extreme**2 + sums.weight_squares) / (1 + n) - mean * mean
        unconstrained = (1 + n) * (mean - 1) ** 2 / spread if spread > 0 else 0.0
    # The paper's radius is a quantile of F(1, n), which is the distribution of a squared Student's t.
    radius = (unconstrained + student_quantile(n, 1 - alpha / 2) ** 2) / (2 * (1 + n))
    low = min(_least(sums, weight, 0.0, 1, radius) for weight in (0.0, highest))
    high = -min(_least(sums, weight, 1.0, -1, radius) for weight in (0.0, highest))
    if math.isinf(low) or math.isinf(high) or low > high:
        return Bounds(0.0, 1.0)  # no weights like these average 1: the log says nothing
    return Bounds(min(1.0, max(0.0, low)), min(1.0, max(0.0, high)))


def _least(sums: Sums, extreme: float, reward: float, sign: int, radius: float) -> float:
    """Find the least value of sign·(mean of wr) within the radius, with one more decision (extreme, reward).

    Returns:
        The value; infinity where nothing within the radius has mean weight 1.
    """
    n = sums.count
    if math.isinf(extreme):
        middle = sign * (reward + (sums.weighted_rewards - sums.weights * reward) / n)
        residual = (
            (reward**2 * sums.weight_squares - 2 * reward * sums.weight_squares_rewards + sums.weighted_reward_squares)
            - (reward * sums.weights - sums.weighted_rewards) ** 2 / n
        ) / (1 + n)
        room = radius - 1 / (2 * n)
    else:
        weight = (extreme + sums.weights) / (1 + n)
        weight_square = (extreme**2 + sums.weight_squares) / (1 + n)
        value = sign * (extreme * reward + sums.weighted_rewards) / (1 + n)
        cross = sign * (extreme**2 * reward + sums.weight_squares_rewards) / (1 + n)
        value_square = (extreme**2 * reward**2 + sums.weighted_reward_squares) / (1 + n)
        spread = weight_square - weight**2
        if spread <= 0:
            return math.inf
        slope = (cross - weight * value) / spread
        middle = value + (1 - weight) * slope
        residual = value_square - value**2 - slope * slope * spread
        room = radius - (1 - weight) ** 2 / (2 * spread)
    if abs(residual * room) <= _CLOSE**2:
        return middle - math.sqrt(2) * _CLOSE
    return middle - math.sqrt(2 * residual * room) if room >= 0 and residual >= 0 else math.inf


class Bet(NamedTuple):
    """One way of betting that a mean is larger than claimed."""

    stake: float  # of the wealth, for each unit of payoff
    cap: int | None  # index into CAPS of the control variate's cut; None: without a control variate


def _bets() -> tuple[Bet, ...]:
    stakes = [2.0 ** (1 - 1.5 * step) for step in range(10)]  # 2 to 0.00017: right for some 10 to 10⁸ events
    plain = [Bet(stake, None) for stake in stakes]
    controlled = (Bet(stake, cap) for cap, stake in itertools.product(range(len(CAPS)), stakes))
    return (*plain, *(bet for bet in controlled if bet.cap is not None and bet.stake * CAPS[bet.cap] < 0.9))


BETS = _bets()
_STAKES = np.array([bet.stake for bet in BETS])
_BY_CAP = [(cap, [i for i, bet in enumerate(BETS) if bet.cap == cap]) for cap in (None, *range(len(CAPS)))]
_PRIOR = -math.log(len(BETS))


class WealthState(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Wealth` has come to. It is written to disk, so `BETS` stay as they are, in number and order."""

    log: tuple[float, ...]  # of what each bettor owns, one for each of `BETS`
    events: int
    upweights: float
    known: float
    unit: float
    squares: float
    squares_rewards: float


class BettingState(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Betting` has come to: it goes on from here as if it had never stopped."""

    above: WealthState
    below: WealthState


class Wealth:
    """What bettors own who bet, event by event, that a contrast is larger than claimed.

    A payoff X of mean v is known to be at least -1/stake. Then the product of (1 + stake·X) over that of (1 + stake·v)
    is a martingale; and the product of (1 + stake·v) over t events is at most (1 + stake·m)^t, where m is the mean
    of v over them, the logarithm being concave. So for the true m, the product of (1 + stake·X) over (1 + stake·m)^t
    is ever beyond 1/alpha with probability alpha at the most (Ville), whatever the policies learn meanwhile: m is
    the mean, over the events so far, of what they were worth then. Wealth is averaged over fixed stakes and over
    control variates; its size does not depend on the number of events.

    The payoff of a contrast d = p_target - p_other is r·max(d, 0)/p_log + (1 - r)·max(-d, 0)/p_log, less the sum of
    max(-d, 0), which is known. Control variates: c·(min(w, cap) - its mean), where c is the reward expected from the
    events before, and the cap keeps the payoff above its bound.

    Sources: betting: Waudby-Smith and Ramdas, arXiv 2102.09540; for policies, with clipped doubly robust payoffs:
    Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, arXiv 2210.10768.
    """

    def __init__(self, state: WealthState | None = None) -> None:
        """Begin, or go on from what another has come to."""
        self._log = np.zeros(len(BETS)) if state is None else np.array(state.log)
        assert len(self._log) == len(BETS), "what was kept is of other bets"
        self._events = 0 if state is None else state.events
        self._upweights = 0.0 if state is None else state.upweights
        self._known = 0.0 if state is None else state.known  # sum of what payoffs are raised by, times upweight
        # Upweight of the first event, which all are measured by; 0: none yet.
        self._unit = 0.0 if state is None else state.unit
        # Of gains, and of those times the rewards, for the control variate.
        self._squares = 0.0 if state is None else state.squares
        self._squares_rewards = 0.0 if state is None else state.squares_rewards

    def state(self) -> WealthState:
        """Tell what it has come to."""
        return WealthState(
            log=tuple(self._log.tolist()),
            events=self._events,
            upweights=self._upweights,
            known=self._known,
            unit=self._unit,
            squares=self._squares,
            squares_rewards=self._squares_rewards,
        )

    def add(self, against: Contrast, rewards: Floats, upweights: Floats, *, starts: Indexes | None = None) -> None:
        """Bet on more events, in log order.

        Args:
            against: (N,) what is claimed to be small.
            rewards: (N,) within [0, 1].
            upweights: (N,) at least 1.
            starts: (E,) where the decisions of each event begin, ascending from 0. An event is worth the mean of its
                decisions, and is one bet: its slots share what becomes of the page, and to bet on each by itself
                would count that as often. All of an event must come at once. None: each decision is an event.
        """
        if not len(rewards):
            return
        self._unit = self._unit or float(upweights[0])
        relative = upweights / self._unit
        of_event = _EachItsOwn() if starts is None else _Together(starts, len(rewards))
        ahead = np.maximum(against.gain, 0.0)
        behind = np.maximum(-against.gain, 0.0)
        payoff = ahead * rewards + behind * (1 - rewards)
        expected = self._expect(against.gain, rewards, of_event) * np.minimum(1.0, 1 / relative)
        unexpected = (1 - expected) * np.minimum(1.0, 1 / relative)
        for cap, bets in _BY_CAP:
            paid = payoff
            if cap is not None:
                paid = (
                    payoff
                    - expected * (np.minimum(ahead, CAPS[cap]) - against.ahead_capped[:, cap])
                    - unexpected * (np.minimum(behind, CAPS[cap]) - against.behind_capped[:, cap])
                )
            self._log[bets] += _log_growth(_STAKES[bets], of_event.mean(paid * relative))
        upweight = of_event.mean(relative)
        self._events += len(upweight)
        self._upweights += float(upweight.sum())
        self._known += float(of_event.mean(relative * against.behind).sum())

    def _expect(self, gain: Floats, rewards: Floats, of_event: _EachItsOwn | _Together) -> Floats:
        """Tell for each decision the reward to expect from the events before its own."""
        squares = gain * gain
        all_squares = np.concatenate(([self._squares], of_event.mean(squares))).cumsum()
        all_rewards = np.concatenate(([self._squares_rewards], of_event.mean(squares * rewards))).cumsum()
        self._squares, self._squares_rewards = float(all_squares[-1]), float(all_rewards[-1])
        return of_event.spread((all_rewards[:-1] + 0.5) / (all_squares[:-1] + 1.0))

    def lower(self, alpha: float = ALPHA / 2) -> float:
        """Tell below what the contrast's mean is not, at this and every other look together.

        Args:
            alpha: how often it may be wrong.

        Returns:
            The bound, within [-1, 1]: -1 while nothing is known.
        """
        if not self._events:
            return -1.0
        spread = self._upweights / self._events
        known = self._known / self._upweights
        threshold = -math.log(alpha)

        def excess(claim: float) -> float:
            owned = self._log - self._events * np.log1p(_STAKES * (spread * (claim + known)))
            most = float(owned.max())
            return most + math.log(float(np.exp(owned - most).sum())) + _PRIOR - threshold

        lowest = -known  # the payoff's mean is not negative
        if excess(lowest) <= 0:
            return lowest
        if excess(1.0) >= 0:
            return 1.0
        return root(excess, lowest, 1.0, within=1e-8)


class _EachItsOwn:
    """Decisions that are an event each."""

    def mean(self, values: Floats) -> Floats:
        """Return the mean of each event's values."""
        return values

    def spread(self, values: Floats) -> Floats:
        """Return each event's value for each of its decisions."""
        return values


class _Together:
    """Decisions of which several may make an event."""

    def __init__(self, starts: Indexes, count: int) -> None:
        self._starts = starts
        self._sizes = np.diff(np.append(starts, count))

    def mean(self, values: Floats) -> Floats:
        """Return the mean of each event's values."""
        means: Floats = np.add.reduceat(values, self._starts) / self._sizes
        return means

    def spread(self, values: Floats) -> Floats:
        """Return each event's value for each of its decisions."""
        return np.repeat(values, self._sizes)


_AT_ONCE = 16  # factors multiplied before a logarithm is taken: few enough not to leave the range of a float


def _log_growth(stakes: Floats, paid: Floats) -> Floats:
    """Sum up the logarithms of 1 + stake·payoff over events, for each stake."""
    padded = np.zeros(-(-len(paid) // _AT_ONCE) * _AT_ONCE)
    padded[: len(paid)] = paid
    factors = 1.0 + np.outer(stakes, padded).reshape(len(stakes), -1, _AT_ONCE)
    growth: Floats = np.log(factors.prod(axis=2)).sum(axis=1)
    return growth


class Betting:
    """A confidence sequence: bounds of a value, or of a difference of values, that hold at every look together."""

    def __init__(self, state: BettingState | None = None) -> None:
        """Begin, or go on from what another has come to."""
        self._above = Wealth(None if state is None else state.above)
        self._below = Wealth(None if state is None else state.below)

    def state(self) -> BettingState:
        """Tell what it has come to, to go on from later."""
        return BettingState(above=self._above.state(), below=self._below.state())

    def add(self, more: Contrast, rewards: Floats, upweights: Floats, *, starts: Indexes | None = None) -> None:
        """Take more events in, in log order. Shapes and ranges as in `Wealth.add`."""
        self._above.add(more, rewards, upweights, starts=starts)
        self._below.add(more.reversed, rewards, upweights, starts=starts)

    def bounds(self, alpha: float = ALPHA) -> Bounds:
        """Tell the bounds so far: of the mean of what the policy was worth, or was worth more than the other."""
        low, high = self._above.lower(alpha / 2), -self._below.lower(alpha / 2)
        return Bounds(min(low, high), max(low, high))


class PairedSums:
    """Sums for the fixed-length interval of a difference.

    A decision's |d| / p_log stands in for its weight and r or 1 - r, by the sign of d, for its reward: then the mean
    of both together is the difference, plus what the other policy puts ahead of this one, which is known.
    """

    def __init__(self, sums: Sums | None = None, *, size: float = 0.0, known: float = 0.0) -> None:
        """Begin, or go on.

        Args:
            sums: of decisions so far, with those stand-ins; None: there were none.
            size: sum of all |d| so far.
            known: sum of what the other policy puts ahead of this one.
        """
        self._sums = Sums() if sums is None else sums
        self._size = size
        self._known = known

    def add(self, more: Contrast, rewards: Floats, upweights: Floats) -> None:
        """Take more events in. Shapes and ranges as in `Wealth.add`."""
        self._sums.add(np.abs(more.gain), np.where(more.gain >= 0, rewards, 1 - rewards), upweights)
        self._size += float(((more.ahead + more.behind) * upweights).sum())
        self._known += float((more.behind * upweights).sum())

    @property
    def count(self) -> float:
        """How many decisions there were, before subsampling."""
        return self._sums.count

    def value(self) -> float | None:
        """Estimate the difference, by the weights that the interval goes by. None: there are no events."""
        n = self._sums.count
        if not n:
            return None
        size, known = self._size / n, self._known / n
        if size == 0.0:
            return 0.0  # the same policy
        found = cressie_read(scaled(self._sums, 1 / size))
        assert found is not None, "there are events"
        return size * found - known

    def interval(self, alpha: float = ALPHA) -> Bounds | None:
        """Bound the difference at a length fixed beforehand. None: there are no events."""
        n = self._sums.count
        if not n:
            return None
        size, known = self._size / n, self._known / n
        if size == 0.0:
            return Bounds(0.0, 0.0)  # the same policy
        found = cressie_read_interval(scaled(self._sums, 1 / size), alpha=alpha)
        assert found is not None, "there are events"
        return Bounds(size * found.low - known, size * found.high - known)


def scaled(sums: Sums, factor: float) -> Sums:
    """Return the sums as if every weight had been multiplied by a factor above 0."""
    return Sums(
        events=sums.events,
        count=sums.count,
        rewards=sums.rewards,
        weights=sums.weights * factor,
        weight_squares=sums.weight_squares * factor**2,
        weighted_rewards=sums.weighted_rewards * factor,
        weight_squares_rewards=sums.weight_squares_rewards * factor**2,
        weighted_reward_squares=sums.weighted_reward_squares * factor**2,
        weight_max=sums.weight_max * factor,
        supported=sums.supported,
    )
