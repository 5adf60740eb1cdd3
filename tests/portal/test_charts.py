"""Charts and sparklines: drawn from JSON, under the content security policy, and readable without seeing them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.portal.lines import calmer_step
from rankward.portal.sparkline import sparkline
from rankward.watching.figures import Point, Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.portal.browser import Visitor

DATA = {
    "times": [1_700_000_000 + 60 * minute for minute in range(30)],
    "series": [
        {
            "name": "online <b>",
            "values": [0.5 + minute / 100 if minute != 7 else None for minute in range(30)],
            "low": [0.4] * 30,
            "high": [0.9] * 30,
        },
        {"name": "baseline", "values": [0.3] * 30},
    ],
    "marks": [{"time": 1_700_000_600, "label": "model 12"}],
}
_PUT = """
async ([data, module]) => {
  const figure = document.createElement("figure");
  figure.className = "chart card";
  figure.dataset.chart = data;
  figure.innerHTML = "<figcaption>Average reward</figcaption>";
  document.querySelector("main").append(figure);
  (await import(module)).drawCharts(document);
}
"""


def put(page: Page, data: object) -> None:
    """Put a chart onto a page."""
    script = page.locator("script[type=module]").get_attribute("src") or ""
    page.evaluate(_PUT, [json.dumps(data), script.replace("portal.js", "charts.js")])


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1440])
def test_a_chart_is_drawn_read_and_taken_away(visit: Callable[..., Visitor], width: int) -> None:
    """Whoever does not see the picture has the same numbers, and whoever wants to count with them has a file."""
    visitor = visit(width)
    page = visitor.open("/portal/about")
    put(page, DATA)

    page.locator("figure.chart canvas").wait_for()
    page.locator(".canvas").hover(position={"x": 120, "y": 100})
    assert page.locator(".legend dt").first.inner_text() == "online <b>", "names are text"
    page.get_by_text("As a table").click()
    page.locator(".numbers tbody tr").last.wait_for()
    assert page.locator(".numbers tbody tr").count() == len(DATA["times"])  # type: ignore[arg-type]
    visitor.check()

    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "time,online <b>,online <b> low,online <b> high,baseline"
    assert lines[1] == "2023-11-14T22:13:20.000Z,0.5,0.4,0.9,0.3"
    assert lines[8].split(",")[1] == "", "what is not known is empty, not 0"

    page.get_by_role("button", name="Switch between light and dark").click()
    page.locator("figure.chart canvas").wait_for()
    visitor.check()


@pytest.mark.slow
def test_a_chart_of_nothing_says_so(visit: Callable[..., Visitor]) -> None:
    """An empty frame looks like a page that is broken."""
    visitor = visit()
    page = visitor.open("/portal/about")
    put(page, {"times": [], "series": []})

    page.get_by_text("There is nothing to draw yet.").wait_for()
    visitor.check()


def test_a_sparkline_fills_its_box_and_leaves_gaps() -> None:
    """It has no axes: what it shows is its shape."""
    drawn = sparkline([0.0, 1.0, None, 0.5], width=90, height=10)

    assert drawn.line == "M0.0 8.0 L30.0 2.0 M90.0 5.0"


@pytest.mark.parametrize("values", [[], [None], [3.0], [2.0, 2.0, 2.0]])
def test_a_sparkline_of_few_or_equal_values_is_flat(values: list[float | None]) -> None:
    """There is nothing to scale them by."""
    assert "nan" not in sparkline(values).line


MINUTE_US = 60_000_000


def series(*, events_each: int, points: int, step_us: int = 10 * MINUTE_US) -> Series:
    """A day, of which so many stretches have events."""
    return Series(
        from_us=0,
        to_us=1_440 * MINUTE_US,
        step_us=step_us,
        points=tuple([point(number * step_us, events_each) for number in range(points)]),
        total=point(0, events_each * points),
    )


def point(at_us: int, events: int) -> Point:
    """A stretch in which so much happened."""
    counts = dict.fromkeys(("skipped", "defaulted", "unusable", "outside", "matched", "preferred"), 0)
    unknown = dict.fromkeys(("earned", "online", "baseline", "uniform"))
    return msgspec.convert({"at_us": at_us, "events": events, "modes": {}, "models": {}, **counts, **unknown}, Point)


@pytest.mark.parametrize(
    ("events_each", "points", "minutes"),
    [
        (100, 144, None),
        (30, 144, 30),
        (1, 144, 180),
        (0, 0, None),
        (20, 3, None),
        (20, 20, 20),
        (60, 100, None),
        (40, 144, 20),
    ],
)
def test_quiet_loops_are_drawn_in_longer_stretches(events_each: int, points: int, minutes: int | None) -> None:
    """Averages of ten events each jump from end to end of the plot, and their intervals cover it."""
    wanted = calmer_step(series(events_each=events_each, points=points))

    assert wanted == (None if minutes is None else minutes * MINUTE_US)
