"""What an evaluation found: plain records that can be kept, sent, and shown.

A report is written to disk, so a new field has a default and an old one keeps its meaning. Rewards are in the
loop's own units, times in microseconds since 1970, bounds at 95 % unless they say otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from rankward.evaluation.diagnostics import Diagnostics
from rankward.evaluation.estimators import Sums, ips
from rankward.evaluation.facts import FeatureFacts
from rankward.evaluation.intervals import gaussian_half_width
from rankward.records import TimeUs
from rankward.settings import Numbers

MINUTE_US = 60_000_000
WINDOW_US = 5 * MINUTE_US
"""Of the finest series, which all others are made from. Windows begin at multiples of their width since 1970."""

CONTRACT_WINDOWS_US = (WINDOW_US, 60 * MINUTE_US, 360 * MINUTE_US, 1440 * MINUTE_US)
"""Of the series that v1.x of the contract answers, in its order; hours and days begin on the hour and at 0:00 UTC."""


class PolicySource(enum.StrEnum):
    """Where a policy comes from, as the contract says it."""

    ONLINE = "Online"  # the one that acted
    BASELINE = "Baseline"  # what the application would show by itself
    RANDOM = "Random"  # every action as likely as the others
    CUSTOM = "Custom"  # named by whoever asked
    OFFLINE_EXPERIMENTATION = "OfflineExperimentation"  # found by a search


class Verdict(enum.StrEnum):
    """What the log says of a policy against the one that acted, by the interval that holds at every look."""

    REFERENCE = "reference"  # it is the one that acted
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"  # the log is too short, or too unlike the policy, to tell
    UNKNOWN = "unknown"  # no event of the log can judge it, or the logged probabilities cannot be true


class Interval(msgspec.Struct, frozen=True, array_like=True):
    """Both ends included."""

    low: float
    high: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Of a mean reward, or of a difference of two."""

    value: float  # the headline: Cressie-Read; of a difference, the difference of the two headlines
    fixed: Interval  # for a log of a length that was fixed beforehand: Cressie-Read
    always: Interval  # holds at every look at a growing log together: betting; verdicts go by it
    ips: float | None = None  # inverse propensity scoring
    snips: float | None = None  # self-normalized


class Look(msgspec.Struct, frozen=True, array_like=True):
    """The estimate after so many events, for a plot."""

    events: int
    time_us: TimeUs  # of the last of them
    value: float
    low: float  # of the interval that holds at every look
    high: float


class Window(msgspec.Struct, frozen=True, array_like=True):
    """What a policy earned from the decisions of one stretch of time."""

    start_us: TimeUs
    sums: Sums  # of rewards as they were reported


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of one policy, in one slot or overall."""

    name: str
    arguments: str | None  # None: it has none, as the baselines
    source: PolicySource
    slot_id: str = ""  # empty: of a single slot, or overall
    verdict: Verdict
    totals: Sums  # of rewards as they were reported
    windows: tuple[Window, ...] = ()  # ascending; those without events are left out
    estimate: Estimate | None = None  # None: no event judges it
    against_online: Estimate | None = None  # its mean reward less the one of `online`, over the events that judge both
    diagnostics: Diagnostics | None = None
    looks: tuple[Look, ...] = ()
    notes: tuple[str, ...] = ()  # for people: what to know of this result
    numbers: Numbers = Numbers.RAW  # what it saw of them


class EventCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events in the span."""

    judged: int = 0  # by every policy
    baseline_only: int = 0  # of Apprentice and LoggingOnly mode: their rewards are the baseline's, and judge it alone
    never_activated: int = 0  # deferred and not shown: no reward to judge by, passed over
    clipped: int = 0  # rewards outside the range, cut to it in estimates
    unusable: int = 0  # probabilities that are none, or a chosen action that could not be drawn
    skipped: dict[str, int] = {}  # lines of a file that are no joined events, by kind


class Line(msgspec.Struct, frozen=True):
    """A place in a log with what was wrong there, for people."""

    place: str
    why: str


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A setting's place on a rung of a search."""

    name: str
    arguments: str
    against_online: Estimate | None  # over the decisions of the rung; None: it could not be judged
    kept: bool  # whether it went on
    numbers: Numbers = Numbers.RAW  # what it saw of them


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the log along which a search compared settings."""

    share: float  # of the log's decisions that can judge, from its beginning
    judged_from_us: TimeUs  # those before it were learned from, but not compared by
    until_us: TimeUs  # decisions at or after it were not read
    ranking: tuple[Ranked, ...]  # the best first

    def keeps(self, name: str) -> bool:
        """Whether a setting went on."""
        return any(each.kept for each in self.ranking if each.name == name)


class SearchRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a search went, so that it can be looked into and run again."""

    seed: int  # that the settings were drawn with
    own: str  # name of the setting that others were to be better than
    tried: int  # settings, the own among them
    rungs: tuple[Rung, ...]
    gate_from_us: TimeUs  # finalists were judged by decisions from then on, which the search had not used
    finalists: tuple[str, ...]
    promoted: str = ""  # the finalist that is better than `online` beyond doubt; empty: none is
    decision: str = ""  # for people
    stopped: str = ""  # why it ended before its last rung; empty: it did not


class FeatureScore(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature is worth to a policy."""

    namespace: str  # as the learner has it
    name: str
    score: float  # within [0, 1]; 1: of the most important one
    loss: float | None = None  # of mean reward without it, in the loop's units; None: it cannot matter
    group: tuple[str, ...] = ()  # what the contract of v1 calls it and those that go with it
    left_out: Estimate | None = None  # the loss, with intervals: of the policy learned anew without it
    permuted: Estimate | None = None  # of the policy as it is, shown the values of other decisions
    shared_with: tuple[
        str, ...
    ] = ()  # `namespace.name` of those that go with it: all are left out, and permuted, as one


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of an evaluation's results."""

    start_us: TimeUs  # of the first event; 0: there was none
    end_us: TimeUs  # of the last
    reward_min: float
    reward_max: float
    reward_wait_us: int  # what predictions lagged behind: an event is learned so long after its decision,
    export_us: int  # and served from the next multiple of this on
    counts: EventCounts
    policies: tuple[PolicyResult, ...]  # custom ones, found ones, `online`, `baseline1`, `baselineRand`
    optimal: str = ""  # name of the policy to take; empty: there is none to tell
    verdict: str = ""  # for people: what the log says on the whole, and whether its probabilities can be true
    trusted: bool = True  # False: the logged probabilities cannot be true, so no estimate can be
    flaws: tuple[Line, ...] = ()  # the first few lines that could not be used
    search: SearchRun | None = None  # None: nothing was searched for
    features: tuple[FeatureScore, ...] = ()  # the most important first; empty: not asked for, or kept beside the report
    facts: tuple[FeatureFacts, ...] = ()  # the same of what is known of each feature

    def overall(self) -> list[PolicyResult]:
        """Pick the results that are not of single slots."""
        return [result for result in self.policies if not result.slot_id]


class ContractSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that the contract shows of a policy in a stretch of time: plain IPS, and its Gaussian interval."""

    time_us: TimeUs
    window_us: int  # 0: the whole span
    ips_numerator: float  # sum of weighted rewards
    ips_denominator: float  # number of events
    snips_denominator: float  # sum of weights
    non_zero_probability: float | None  # number of events the policy could have acted in; None: of `online`
    sum_of_squares: float | None  # of weighted rewards; None: of `online`
    confidence_interval: float  # half its width
    average_reward: float


def contract_summary(sums: Sums, source: PolicySource, *, time_us: TimeUs, window_us: int) -> ContractSummary:
    """Write sums as the contract has them. Of `online` it shows no interval and no squares."""
    online = source is PolicySource.ONLINE
    return ContractSummary(
        time_us=time_us,
        window_us=window_us,
        ips_numerator=sums.weighted_rewards,
        ips_denominator=sums.count,
        snips_denominator=sums.count if online else sums.weights,
        non_zero_probability=None if online else sums.supported,
        sum_of_squares=None if online else sums.weighted_reward_squares,
        confidence_interval=0.0 if online else gaussian_half_width(sums),
        average_reward=ips(sums) or 0.0,
    )


def total_summary(result: PolicyResult, *, end_us: TimeUs) -> ContractSummary:
    """Sum a policy up as v1.x does: its time is the end of the span."""
    return contract_summary(result.totals, result.source, time_us=end_us, window_us=0)


def summaries(result: PolicyResult) -> list[ContractSummary]:
    """List a policy's windows as v1.x does: all of five minutes from first to last data, then hours and so on."""
    return [
        contract_summary(sums, result.source, time_us=start_us, window_us=window_us)
        for window_us in CONTRACT_WINDOWS_US
        for start_us, sums in _filled(merged(result.windows, window_us), window_us)
    ]


def merged(windows: Sequence[Window], width_us: int) -> list[Window]:
    """Join windows to wider ones.

    Args:
        windows: ascending.
        width_us: a multiple of `WINDOW_US`.

    Returns:
        Those that have data, ascending.
    """
    wider: list[Window] = []
    for window in windows:
        start_us = window.start_us // width_us * width_us
        if not wider or wider[-1].start_us != start_us:
            wider.append(Window(start_us, Sums()))
        wider[-1].sums.merge(window.sums)
    return wider


def _filled(windows: Sequence[Window], width_us: int) -> Iterator[tuple[TimeUs, Sums]]:
    """Put empty windows between those that have data."""
    for window, following in pairwise(windows):
        yield window.start_us, window.sums
        for start_us in range(window.start_us + width_us, following.start_us, width_us):
            yield start_us, Sums()
    if windows:
        yield windows[-1].start_us, windows[-1].sums


class Point(msgspec.Struct, frozen=True):
    """The contract's estimate at one moment, as its 2022 version answers it."""

    time_us: TimeUs  # when the window ends
    expected_reward: float
    interval: Interval  # Gaussian, and not clipped to the reward's range


def point(sums: Sums, *, time_us: TimeUs) -> Point:
    """Write sums as the contract of 2022 has them."""
    mean, half = ips(sums) or 0.0, gaussian_half_width(sums)
    return Point(time_us, mean, Interval(mean - half, mean + half))


def series(result: PolicyResult, *, start_us: TimeUs, end_us: TimeUs, width_us: int, expanding: bool) -> list[Point]:
    """List a policy's estimates over time as the contract of 2022 does: only moments that have data.

    Args:
        result: of the policy.
        start_us: windows that begin before it are left out.
        end_us: windows that begin at or after it are left out.
        width_us: a multiple of `WINDOW_US`.
        expanding: whether each point counts all from `start_us` on, or its own window only.
    """
    within = [window for window in result.windows if start_us <= window.start_us < end_us]
    points, so_far = [], Sums()
    for window in merged(within, width_us):
        if expanding:
            so_far.merge(window.sums)
        points.append(point(so_far if expanding else window.sums, time_us=window.start_us + width_us))
    return points


def overall_point(result: PolicyResult, *, start_us: TimeUs, end_us: TimeUs) -> Point:
    """Sum up a part of the span as the contract of 2022 does."""
    found = series(result, start_us=start_us, end_us=end_us, width_us=WINDOW_US, expanding=True)
    return found[-1] if found else point(Sums(), time_us=end_us)
