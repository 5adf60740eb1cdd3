"""Turns figures into what static/charts.js draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rankward.store.ports import ModelVersion
from rankward.watching.estimate import Estimated
from rankward.watching.figures import ActionPoint, Point, Series

_POLICIES: Sequence[tuple[str, Callable[[Point], Estimated | None]]] = (
    ("online", lambda point: point.online),
    ("baseline", lambda point: point.baseline),
    ("uniform random", lambda point: point.uniform),
)


def reward_chart(series: Series, versions: Sequence[ModelVersion]) -> dict[str, Any]:
    """Draw what each policy earned, with intervals, and when models were made.

    Policies that no event of the span judges are left out.
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
    return {"unit": "reward", "times": times, "series": lines, "marks": _marks(series, versions)}


def event_chart(series: Series) -> dict[str, Any]:
    """Draw how many events a minute there were, and how many of them nobody rewarded."""
    minutes = series.step_us / 60_000_000
    return {
        "unit": "events a minute",
        "times": _middles(series),
        "series": [
            {"name": "events a minute", "values": [point.events / minutes for point in series.points]},
            {"name": "with the default reward", "values": [point.defaulted / minutes for point in series.points]},
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


def _middles(series: Series) -> list[float]:
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
