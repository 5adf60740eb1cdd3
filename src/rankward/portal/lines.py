"""Turns figures into what static/charts.js draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rankward.evaluation.report import PolicySource, Report
from rankward.records import TimeUs
from rankward.store.ports import ModelVersion
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.estimate import Estimated
from rankward.watching.figures import ActionPoint, Counts, Point, Series

_LINES_MAX = 6  # that can be told apart
_EVENTS_EACH = 100  # of a stretch, for its average to tell something
_STRETCHES_MIN = 8  # of what is known: fewer are no line
_MINUTE_US = 60_000_000
_STEPS_US = [
    _MINUTE_US * minutes for minutes in (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 360, 720, 1_440, 4_320, 10_080)
]
_POLICIES: Sequence[tuple[str, Callable[[Point], Estimated | None]]] = (
    ("online", lambda point: point.online),
    ("baseline", lambda point: point.baseline),
    ("uniform random", lambda point: point.uniform),
)


def calmer_step(series: Series) -> TimeUs | None:
    """Say how long stretches should be for their averages to tell something. None: as long as they are.

    With a handful of events each, lines would jump from end to end, whatever was learned.
    """
    known = len(series.points)
    if not known or series.total.events >= _EVENTS_EACH * known:
        return None
    longest_us = (series.points[-1].at_us - series.points[0].at_us + series.step_us) // _STRETCHES_MIN
    wanted_us = min(longest_us, series.step_us * known * _EVENTS_EACH // max(1, series.total.events))
    fits = [step_us for step_us in _STEPS_US if step_us <= wanted_us and step_us % series.step_us == 0]
    return fits[-1] if fits and fits[-1] > series.step_us else None


def reward_chart(series: Series, versions: Sequence[ModelVersion], rewards: tuple[float, float]) -> dict[str, Any]:
    """Draw what each policy earned, with intervals, and when models were made.

    Policies that no event of the span judges are left out.

    Args:
        series: of the span.
        versions: of the loop.
        rewards: the least and the largest that there are.
    """
    lines = []
    for name, estimate_of in _POLICIES:
        estimates = [estimate_of(point) for point in series.points]
        if any(each is not None for each in estimates):
            lines.append(
                {
                    "name": name,
                    "values": [each and each.value for each in estimates],
                    "low": [each and each.low for each in estimates],
                    "high": [each and each.high for each in estimates],
                }
            )
    times = _middles(series) if lines else []
    return {
        "unit": "reward",
        "times": times,
        "series": lines,
        "range": rewards,
        "marks": _marks(series, versions),
    }


def event_chart(counts: Counts) -> dict[str, Any]:
    """Draw how many events a minute there were, and how many of them nobody rewarded."""
    minutes = counts.step_us / 60_000_000
    return {
        "unit": "events a minute",
        "times": _middles(counts),
        "series": [
            {"name": "events a minute", "values": [point.events / minutes for point in counts.points]},
            {"name": "without a reward", "values": [point.defaulted / minutes for point in counts.points]},
        ],
    }


def probability_chart(actions: dict[str, tuple[ActionPoint, ...]]) -> dict[str, Any]:
    """Draw the mean probability of actions over time."""
    at = {action_id: {point.at_us: point.probability for point in points} for action_id, points in actions.items()}
    times_us = sorted({time_us for points in at.values() for time_us in points})
    return {
        "unit": "probability",
        "times": [time_us / 1e6 for time_us in times_us],
        "series": [
            {"name": action_id, "values": [points.get(time_us) for time_us in times_us]}
            for action_id, points in at.items()
        ],
    }


def looks_chart(report: Report) -> dict[str, Any]:
    """Draw each policy's estimate as the log grew, with the interval that holds at every look.

    The best ones are drawn, beside the policy that acted and the baseline.
    """
    judged = sorted(
        [result for result in report.overall() if result.estimate is not None and result.looks],
        key=lambda result: -(result.estimate.value if result.estimate is not None else 0.0),
    )
    always = [result for result in judged if result.source in {PolicySource.ONLINE, PolicySource.BASELINE}]
    others = [result for result in judged if result not in always][: _LINES_MAX - len(always)]
    shown = [*always, *others]
    times_us = sorted({look.time_us for result in shown for look in result.looks})
    lines = []
    for result in shown:
        at = {look.time_us: look for look in result.looks}
        looks = [at.get(time_us) for time_us in times_us]
        lines.append(
            {
                "name": result.name,
                "values": [look and look.value for look in looks],
                "low": [look and look.low for look in looks],
                "high": [look and look.high for look in looks],
            }
        )
    return {"unit": "reward", "times": [time_us / 1e6 for time_us in times_us], "series": lines}


def apprentice_chart(found: Apprenticeship) -> dict[str, Any]:
    """Draw the match with the baseline and the reward achieved, window by window, in percent."""
    windows = found.windows
    return {
        "unit": "%",
        "times": [window.to_us / 1e6 for window in windows],
        "series": [
            {
                "name": "match",
                "values": [100 * window.match for window in windows],
                "low": [100 * window.match_low for window in windows],
                "high": [100 * window.match_high for window in windows],
            },
            {
                "name": "reward achieved",
                "values": [None if window.achieved is None else 100 * window.achieved for window in windows],
            },
            {"name": "within reach", "values": [100 * window.reachable for window in windows]},
        ],
    }


def _middles(series: Series | Counts) -> list[float]:
    return [(point.at_us + series.step_us / 2) / 1e6 for point in series.points]


def _marks(series: Series, versions: Sequence[ModelVersion]) -> list[dict[str, Any]]:
    """Mark the versions of the span: those of one stretch by one mark, at the newest."""
    by_stretch: dict[int, list[ModelVersion]] = {}
    for version in versions:
        if series.from_us <= version.created_us < series.to_us:
            by_stretch.setdefault(version.created_us // series.step_us, []).append(version)
    marks = []
    for found in by_stretch.values():
        newest = max(found, key=lambda version: version.created_us)
        label = f"model {newest.model_id}" + (f" and {len(found) - 1} before it" if len(found) > 1 else "")
        marks.append({"time": newest.created_us / 1e6, "label": label})
    return marks
