"""An evaluation's report as one page of HTML, plots included, which needs nothing from anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from rankward.evaluation.report import Interval, PolicyResult, Report, Verdict
from rankward.evaluation.search import apply_command
from rankward.settings import as_datetime

WIDTH = 720  # of a plot, in pixels as the SVG has them; the page scales it
_ROW = 26
_HEIGHT = 150  # of a policy's plot over time
_LABELS = 170  # room for names, left of the plot
_MARGIN = 12
_TICKS = 5

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
    result: PolicyResult
    y: float
    fixed: tuple[float, float]
    always: tuple[float, float]
    value: float


def _forest(results: Sequence[PolicyResult], *, against: bool) -> dict[str, object] | None:
    """Lay out the plot of all policies' intervals. None: there is nothing to show."""
    shown = [(result, result.against_online if against else result.estimate) for result in results]
    kept = [(result, estimate) for result, estimate in shown if estimate is not None]
    if not kept:
        return None
    # Wide intervals of single policies must not make the others unreadable.
    spans = [estimate.always for _, estimate in kept] + ([Interval(0.0, 0.0)] if against else [])
    scale = _scale(spans, start=_LABELS, end=WIDTH - _MARGIN)
    rows = [
        _Row(
            result,
            _ROW * (number + 0.5),
            (scale(estimate.fixed.low), scale(estimate.fixed.high)),
            (scale(estimate.always.low), scale(estimate.always.high)),
            scale(estimate.value),
        )
        for number, (result, estimate) in enumerate(kept)
    ]
    acted = next((row.value for row in rows if row.result.verdict is Verdict.REFERENCE), None)
    return {
        "width": WIDTH,
        "height": _ROW * len(rows) + 24,
        "bottom": _ROW * len(rows),
        "rows": rows,
        "ticks": scale.ticks(),
        "mark": scale(0.0) if against else acted,
    }


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
        plots=[plot for plot in plots if plot is not None],
        wait=timedelta(microseconds=report.reward_wait_us),
        export=timedelta(microseconds=report.export_us),
    )


def figure(value: float | None) -> str:
    """Write a number as short as it says enough; a dash stands for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
