"""The contract's numbers, made from what was found."""

from __future__ import annotations

import math

import msgspec
import pytest

from rankward.evaluation.page import render
from rankward.evaluation.replay import Replay
from rankward.evaluation.report import (
    MINUTE_US,
    Report,
    overall_point,
    series,
    summaries,
    total_summary,
)
from rankward.evaluation.service import compiled, custom
from tests.evaluation.logs import POLICY, SETUP, START_US, event, log, named, replayed

HOUR_US = 60 * MINUTE_US


def report_of(*, name: str = "mine", count: int = 600) -> Report:
    """Judge a small log."""
    candidates = [custom(name, POLICY, exploration=0.2)]
    return compiled([replayed(Replay(candidates, SETUP, references=True), log(count))], candidates, SETUP)


def test_the_contracts_arithmetic() -> None:
    """Clients compute with these numbers, so they must be the ones they know."""
    report = report_of()
    mine = total_summary(named(report, "mine"), end_us=report.end_us)
    n = mine.ips_denominator
    assert n == 600
    assert (mine.time_us, mine.window_us) == (report.end_us, 0)
    assert mine.average_reward == pytest.approx(mine.ips_numerator / n)
    assert mine.sum_of_squares is not None
    variance = (mine.sum_of_squares - n * mine.average_reward**2) / (n - 1)
    assert mine.confidence_interval == pytest.approx(1.96 * math.sqrt(variance / n))
    assert mine.non_zero_probability == 600


def test_online_is_shown_without_an_interval() -> None:
    """As the original did: its denominators are the count, and squares are left out."""
    report = report_of()
    online = total_summary(named(report, "online"), end_us=report.end_us)
    assert (online.ips_denominator, online.snips_denominator) == (600, 600)
    assert (online.sum_of_squares, online.non_zero_probability, online.confidence_interval) == (None, None, 0.0)


def test_windows_are_filled_from_first_to_last() -> None:
    """Clients plot them as they come."""
    found = replayed(Replay([], SETUP, references=True), [event(0), event(1), event(200), event(1500)])
    listed = summaries(named(found, "online"))
    by_width = {width: [each for each in listed if each.window_us == width] for width in {s.window_us for s in listed}}
    assert sorted(by_width) == [5 * MINUTE_US, HOUR_US, 6 * HOUR_US, 24 * HOUR_US]
    fives = by_width[5 * MINUTE_US]
    assert len(fives) == 1500 // 5 + 1
    assert [each.ips_denominator for each in fives[:2]] == [2, 0]
    assert [each.ips_denominator for each in by_width[24 * HOUR_US]] == [3, 1]
    assert [each.time_us for each in by_width[6 * HOUR_US]][:2] == [START_US, START_US + 6 * HOUR_US]


def test_an_expanding_series_ends_with_the_total() -> None:
    """Each point counts everything before it; moments without data are left out."""
    report = report_of()
    mine = named(report, "mine")
    points = series(mine, start_us=0, end_us=2**62, width_us=5 * MINUTE_US, expanding=True)
    total = total_summary(mine, end_us=report.end_us)
    assert len(points) == 600 / (4 * 5)
    assert points[-1].expected_reward == pytest.approx(total.average_reward)
    assert points[-1].interval.high - points[-1].interval.low == pytest.approx(2 * total.confidence_interval)
    assert overall_point(mine, start_us=0, end_us=2**62) == points[-1]


def test_a_rolling_series_adds_up() -> None:
    """Each point counts its own window only."""
    mine = named(report_of(), "mine")
    points = series(mine, start_us=0, end_us=2**62, width_us=HOUR_US, expanding=False)
    assert [point.time_us for point in points] == [START_US + HOUR_US * hour for hour in (1, 2, 3)]
    part = series(mine, start_us=START_US + HOUR_US, end_us=START_US + 2 * HOUR_US, width_us=HOUR_US, expanding=True)
    assert part[0].expected_reward == points[1].expected_reward


def test_a_report_comes_back_as_it_was_written() -> None:
    """It is kept for months."""
    report = report_of()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """It is mailed around, and read on trains."""
    page = render(report_of(), title="Week 3", version="1")
    for sign in ("http:", "https:", "src=", "@import", "url(", "<script", "<link"):
        assert sign not in page
    assert page.count("<svg") == 6  # values, differences, and four policies while the log grew


def test_the_page_shows_names_as_they_are() -> None:
    """A name is not markup."""
    page = render(report_of(name="<b>mine"), title="<i>Week", version="1")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;mine" in page


def test_an_empty_report_has_a_page() -> None:
    """It says that there was nothing."""
    empty = compiled([replayed(Replay([], SETUP, references=True), [])], [], SETUP)
    assert "There is no event to judge by." in render(empty, title="None", version="1")
