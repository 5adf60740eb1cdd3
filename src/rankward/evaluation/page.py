"""An evaluation's report as one page of HTML, plots included, which needs nothing from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from rankward.evaluation.facts import FeatureFacts, Remark
from rankward.evaluation.report import Estimate, FeatureScore, Interval, PolicyResult, Report, Verdict
from rankward.evaluation.search import apply_command
from rankward.settings import as_datetime

WIDTH = 720  # of a plot, in pixels as the SVG has them; the page scales it
_ROW = 26
_HEIGHT = 150  # of a policy's plot over time
_LABELS = 170  # room for names, left of the plot
_MARGIN = 12
_TICKS = 5
_FEATURES_SHOWN = 30  # in a plot

VERDICTS = {
    Verdict.REFERENCE: "acted",
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.UNDECIDED: "undecided",
    Verdict.UNKNOWN: "cannot be judged",
}
"""Verdicts as people read them."""


class Scale(NamedTuple):
    """Brings values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place a value."""
        within = (min(self.high, max(self.low, value)) - self.low) / (self.high - self.low)
        return round(self.start + within * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Place some round values, with their texts."""
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step)
        digits = max(0, -math.floor(math.log10(step)))
        values = (number * step for number in range(first, math.floor(self.high / step) + 1))
        return [(self(value), f"{value:.{digits}f}") for value in values]


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * factor for factor in (1, 2, 5, 10) if rough <= size * factor * 1.0001)


def _scale(intervals: Sequence[Interval], *, start: float, end: float) -> Scale:
    low = min(interval.low for interval in intervals)
    high = max(interval.high for interval in intervals)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    room = (high - low) * 0.03
    return Scale(low - room, high + room, start, end)


class _Row(NamedTuple):
    name: str
    y: float
    fixed: tuple[float, float]
    always: tuple[float, float]
    value: float


def _forest(results: Sequence[PolicyResult], *, against: bool) -> dict[str, object] | None:
    """Lay out the plot of all policies' intervals. None: there is nothing to show."""
    shown = {result.name: result.against_online if against else result.estimate for result in results}
    estimates = {name: estimate for name, estimate in shown.items() if estimate is not None}
    acted = (shown[result.name] for result in results if result.verdict is Verdict.REFERENCE)
    return _intervals(estimates, mark=0.0 if against else next((each.value for each in acted if each), None))


def _intervals(estimates: Mapping[str, Estimate], *, mark: float | None) -> dict[str, object] | None:
    """Lay out a plot of estimates with their intervals, one below the other. None: there are none."""
    if not estimates:
        return None
    spans = [estimate.always for estimate in estimates.values()]
    scale = _scale(spans if mark is None else [*spans, Interval(mark, mark)], start=_LABELS, end=WIDTH - _MARGIN)
    rows = [
        _Row(
            name,
            _ROW * (number + 0.5),
            (scale(estimate.fixed.low), scale(estimate.fixed.high)),
            (scale(estimate.always.low), scale(estimate.always.high)),
            scale(estimate.value),
        )
        for number, (name, estimate) in enumerate(estimates.items())
    ]
    return {
        "width": WIDTH,
        "height": _ROW * len(rows) + 24,
        "bottom": _ROW * len(rows),
        "rows": rows,
        "ticks": scale.ticks(),
        "mark": None if mark is None else scale(mark),
    }


def _losses(scores: Sequence[FeatureScore], *, permuted: bool) -> dict[str, object] | None:
    """Lay out the plot of what is lost without the most important features. None: there is nothing to show."""
    shown = {feature_name(each): each.permuted if permuted else each.left_out for each in scores[:_FEATURES_SHOWN]}
    return _intervals({name: estimate for name, estimate in shown.items() if estimate is not None}, mark=0.0)


def feature_name(feature: FeatureScore | FeatureFacts) -> str:
    """Write a feature's name."""
    return f"{feature.namespace}.{feature.name}"


def oddities(facts: Sequence[FeatureFacts]) -> dict[str, str]:
    """Say what is odd about features, by name; those about which nothing is are left out."""
    return {
        feature_name(each): ", ".join(_oddity(each, remark) for remark in each.remarks)
        for each in facts
        if each.remarks
    }


def _oddity(facts: FeatureFacts, remark: Remark) -> str:
    match remark:
        case Remark.CONSTANT:
            return "the same in every decision"
        case Remark.MISSING:
            return f"missing from {100 * facts.missing:.0f} %"
        case Remark.NEAR_UNIQUE:
            return f"nearly unique: {facts.distinct:,} values in {facts.events:,} events"
        case Remark.COLLIDING:
            return f"first letter as {', '.join(facts.collides_with)}"


def _over_time(result: PolicyResult, everywhere: Scale, events_max: int) -> dict[str, object] | None:
    """Lay out how an estimate and its bounds came about. None: there is too little to show."""
    if len(result.looks) < 2:
        return None
    across = Scale(0, events_max, 56, WIDTH - _MARGIN)
    high = [f"{across(look.events)},{everywhere(look.high)}" for look in result.looks]
    low = [f"{across(look.events)},{everywhere(look.low)}" for look in result.looks]
    return {
        "name": result.name,
        "width": WIDTH,
        "height": _HEIGHT + 20,
        "bottom": _HEIGHT,
        "band": " ".join([*high, *reversed(low)]),
        "line": " ".join(f"{across(look.events)},{everywhere(look.value)}" for look in result.looks),
        "ticks": everywhere.ticks(),
        "across": across.ticks(),
    }


def render(report: Report, *, title: str, version: str) -> str:
    """Write the page.

    Args:
        report: what to show.
        title: what the evaluation is called.
        version: of rankward.
    """
    environment = Environment(
        loader=PackageLoader("rankward.evaluation"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    environment.filters["figure"] = figure
    environment.filters["moment"] = lambda time_us: f"{as_datetime(time_us):%Y-%m-%d %H:%M}"
    environment.filters["feature_name"] = feature_name
    environment.filters["share"] = lambda share: f"{100 * share:.1f} %"
    overall = report.overall()
    looks = [Interval(look.low, look.high) for result in overall for look in result.looks]
    everywhere = _scale(looks, start=_HEIGHT, end=4) if looks else None
    events_max = max((result.looks[-1].events for result in overall if result.looks), default=1)
    plots = [] if everywhere is None else [_over_time(result, everywhere, events_max) for result in overall]
    return environment.get_template("report.html").render(
        report=report,
        apply_command=apply_command(report),
        title=title,
        version=version,
        results=report.policies,
        verdicts=VERDICTS,
        values=_forest(overall, against=False),
        differences=_forest([each for each in overall if each.against_online is not None], against=True),
        left_out=_losses(report.features, permuted=False),
        permuted=_losses(report.features, permuted=True),
        oddities=oddities(report.facts),
        plots=[plot for plot in plots if plot is not None],
        wait=timedelta(microseconds=report.reward_wait_us),
        export=timedelta(microseconds=report.export_us),
    )


def figure(value: float | None) -> str:
    """Write a number as short as it says enough; a dash stands for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
