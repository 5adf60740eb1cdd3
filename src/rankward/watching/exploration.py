"""What exploring costs a loop, what it buys, and how much of it is worth having.

Exploring is giving probability to other actions than the likeliest. It costs the difference between what the likeliest
actions would have earned and what was earned. It buys the power to judge other policies from the log: a policy is
judged by the events that agree with it, weighed by 1 / p, so small probabilities leave few events that count.

Giving every action but the likeliest `factor` times its probability costs `factor` times as much, and what that
leaves to judge by is known too: so one log judges other degrees of exploring.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Sequence

import msgspec

from rankward.evaluation.intervals import PairedSums
from rankward.evaluation.judge import RewardRange
from rankward.watching.estimate import Estimated
from rankward.watching.exploring import FACTORS, ExploringTally

WANTED = 1_000.0  # effective events in a period, which make evaluations worth running
PERIOD_DAYS = 28.0  # the contract's default of how often to optimize
COST_MAX = 0.05  # of what the likeliest actions earn above reward_min
EVENTS_MIN = 1_000  # fewer say nothing of a cost
_DAY_US = 86_400_000_000


class Amount(enum.StrEnum):
    """What to do about exploring."""

    UNKNOWN = "unknown"  # there are too few events to tell
    BLIND = "blind"  # nothing can be evaluated: actions have probability 0
    LESS = "less"
    KEEP = "keep"
    MORE = "more"


class Degree(msgspec.Struct, frozen=True, kw_only=True):
    """What another degree of exploring would cost and buy."""

    factor: float  # of the probability that actions other than the likeliest get now
    mass: float  # that probability, at most that of choosing by chance
    cost: float  # reward per event, in the loop's units, against always taking the likeliest; at least 0
    effective: float  # share of events that count when another policy is judged: 1 / the mean of 1 / p


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """What a loop pays for exploring in a span of time, and what would be better. Online decisions only."""

    events: int
    mass: float | None  # mean probability of the actions that are not the likeliest; None: there were no events
    cost: Estimated | None  # reward per event that the likeliest actions would have earned more; None: no events
    share: float | None  # of what they would have earned above reward_min that is lost; None: they earn nothing
    degrees: tuple[Degree, ...]  # by factor, ascending; empty: nothing can be said
    low: float | None  # of `mass`: from here on evaluations have enough to judge by; None: nothing known, or in reach
    high: float | None  # of `mass`: up to here it costs at most 5 % of the reward; None: nothing known, or lost
    advice: Amount
    words: str  # the advice, for people


def exploration(tally: ExploringTally, earned: float | None, rewards: RewardRange, *, span_us: int) -> Exploration:
    """Tell what a loop pays for exploring.

    Args:
        tally: of its online decisions in the span.
        earned: mean reward of these, in the loop's units; None: there were none.
        rewards: the loop's range.
        span_us: length of the span from its first decision on.
    """
    if not tally.events or earned is None:
        return _unknown(tally, None, None, "no decision of online mode has been joined in this span")
    mass = tally.mass / tally.count
    # Both sides of the difference put as much where the other has less.
    paired = PairedSums(tally.paired, size=2 * tally.mass, known=tally.mass)
    value, bounds = paired.value(), paired.interval()
    assert value is not None, "there are events"
    assert bounds is not None, "there are events"
    cost = Estimated(
        value=rewards.difference(value),
        low=rewards.difference(min(bounds.low, value)),
        high=rewards.difference(max(bounds.high, value)),
        events=tally.count,
        effective=tally.paired.weights**2 / tally.paired.weight_squares if tally.paired.weight_squares else 0.0,
    )
    seeing = tally.events - tally.blind
    if tally.blind > tally.events / 2:
        return _unknown(
            tally,
            mass,
            cost,
            f"{tally.blind} of {tally.events} decisions left actions without any probability: no other policy can be "
            "evaluated from such a log. Give `exploration` a value above 0",
            advice=Amount.BLIND,
        )
    if tally.events < EVENTS_MIN:
        return _unknown(
            tally,
            mass,
            cost,
            f"{tally.events} decisions are too few to tell what exploring costs: wait for {EVENTS_MIN:,}",
        )
    lost = max(0.0, cost.value)
    best = earned - rewards.low + lost
    degrees = tuple(
        [
            Degree(factor=factor, mass=min(1.0, factor * mass), cost=factor * lost, effective=seeing / total)
            for factor, total in zip(FACTORS, tally.spread, strict=True)
        ]
    )
    per_period = tally.events * PERIOD_DAYS * _DAY_US / max(span_us, 1)
    low = _least(degrees, WANTED / per_period)
    high = min(1.0, mass * COST_MAX * best / lost) if lost > 0 else None
    share = lost / best if best > 0 else None
    advice, words = _advice(mass, share or 0.0, low, high, is_sure=cost.low > 0)
    return Exploration(
        events=tally.events,
        mass=mass,
        cost=cost,
        share=share,
        degrees=degrees,
        low=low,
        high=high,
        advice=advice,
        words=words,
    )


def _least(degrees: Sequence[Degree], effective: float) -> float | None:
    """Find the least mass that leaves a share of events to judge by, between the degrees that are known. None: none."""
    if degrees[0].effective >= effective:
        return degrees[0].mass
    for below, above in itertools.pairwise(degrees):
        if above.effective >= effective:
            part = math.log(effective / below.effective) / math.log(above.effective / below.effective)
            return min(1.0, below.mass * math.pow(above.factor / below.factor, part))
    return None


def _unknown(
    tally: ExploringTally, mass: float | None, cost: Estimated | None, words: str, advice: Amount = Amount.UNKNOWN
) -> Exploration:
    return Exploration(
        events=tally.events,
        mass=mass,
        cost=cost,
        share=None,
        degrees=(),
        low=None,
        high=None,
        advice=advice,
        words=words,
    )


def percent(part: float) -> str:
    """Write a part of 1 for people, to a tenth where it is more than that.

    >>> percent(0.0896), percent(0.00042)
    ('9.0 %', '0.042 %')
    """
    return f"{100 * part:.1f} %" if part >= 0.001 else f"{100 * part:.2g} %"


def _advice(mass: float, share: float, low: float | None, high: float | None, *, is_sure: bool) -> tuple[Amount, str]:
    now = (
        f"{percent(mass)} of the probability goes to others than the likeliest actions, and costs {percent(share)} of "
        "the reward"
    )
    enough = f"{WANTED:,.0f} events that count in {PERIOD_DAYS:.0f} days"
    if low is None:
        return Amount.KEEP, (
            f"{now}. However it explores, this traffic does not give evaluations {enough}: let them have longer spans"
        )
    if high is not None and low > high:
        return Amount.KEEP, (
            f"{now}. Evaluations need {percent(low)} for {enough}, and more than {percent(high)} costs more than "
            f"{percent(COST_MAX)}: what is cheap tells little here, so let them have longer spans"
        )
    most = "" if high is None else f", and up to {percent(high)} it costs at most {percent(COST_MAX)}"
    reach = f"from {percent(low)} on evaluations have {enough}{most}"
    if mass < low:
        return Amount.MORE, f"{now}; {reach}: raise `exploration` in proportion"
    if high is None or mass <= high:
        return Amount.KEEP, f"{now}; {reach}: that is well"
    if not is_sure:
        return Amount.KEEP, f"{now}; {reach}: but it is not sure yet that it costs anything, so wait for more events"
    return Amount.LESS, f"{now}; {reach}: lower `exploration` in proportion, or take a policy that explores less"
