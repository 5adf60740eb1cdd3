"""What is read from the figures of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankward.errors import InvalidRequest
from rankward.loops import new_loop_settings
from rankward.records import JoinedEvent, LearningMode
from rankward.settings import as_datetime
from rankward.store.ports import Loop
from rankward.store.rollups import Rollups, RollupStep
from rankward.watching.comparison import ComparingState, Side, since_of
from rankward.watching.figures import POINTS, Figures, Series
from rankward.watching.fold import DAY_US, HOUR_US, MINUTE_US, Basis, Fold, State
from rankward.wiring import Home
from tests.evaluation.logs import START_US, event, log

NOW_US = START_US + 12 * HOUR_US


class Told:
    """A loop whose figures were told some events, at a time that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now_us = NOW_US
        self.home = Home(folder, clock=lambda: self.now_us)
        self.loop: Loop = self.home.loops.create("told", new_loop_settings())
        self.figures: Figures = self.home.figures()

    def tell(self, events: Sequence[JoinedEvent]) -> None:
        """Take events in, all at once."""
        rollups = self.home.rollups(self.loop.loop_id)
        comparing = ComparingState(since_us=since_of(self.loop.settings))
        fold = Fold(State(basis=Basis.of(self.loop.settings), erasures=0, offset=0, comparing=comparing))
        fold.load(fold.needs(events, self.now_us), {})
        for each in events:
            fold.take(each, self.now_us)
        rollups.commit(RollupStep(over=None, state=fold.encoded_state(), rows=fold.rows()))
        rollups.close()

    def series(self, hours: float = 12, step_us: int | None = None) -> Series:
        """Read the last hours."""
        from_us = self.now_us - round(hours * HOUR_US)
        return self.figures.series(self.loop, from_us=from_us, to_us=self.now_us, step_us=step_us)


class Counting:
    """Where figures are kept, telling how many rows were read."""

    def __init__(self, rollups: Rollups, counts: list[int]) -> None:
        self.rollups = rollups
        self.counts = counts

    def read(self, series: str, start: int, end: int) -> Sequence[tuple[int, bytes]]:
        """Read, and count."""
        rows = self.rollups.read(series, start, end)
        self.counts.append(len(rows))
        return rows

    def __getattr__(self, name: str) -> object:
        return getattr(self.rollups, name)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """One, closed at the end."""
    made = Told(tmp_path)
    yield made
    made.home.close()


@pytest.fixture
def three_days(told: Told) -> Told:
    """A loop with a decision every six minutes for two days, looked at when the minutes of the first are kept still."""
    told.tell([event(n, reward=None if n % 3 else n % 2, step_us=6 * MINUTE_US) for n in range(480)])
    told.now_us = START_US + 2 * DAY_US
    return told


def test_a_loop_without_events_has_empty_figures(told: Told) -> None:
    """A page of a new loop is opened before anything happened."""
    series = told.series()
    assert series.points == ()
    assert series.total.events == 0
    assert series.total.earned is None
    assert told.figures.actions(told.loop, from_us=0, to_us=NOW_US).actions == ()
    assert told.figures.status(told.loop) is None
    assert told.figures.comparison(told.loop).events == 0


def test_a_span_is_told_in_stretches(told: Told) -> None:
    """The line of a chart: as many stretches as fit it, and the same sums however long they are."""
    told.tell(log(2_400))  # four a minute, for ten hours
    chosen, hours, minutes = told.series(), told.series(step_us=HOUR_US), told.series(step_us=MINUTE_US)
    assert (chosen.step_us, len(chosen.points)) == (5 * MINUTE_US, 120)
    assert (len(hours.points), len(minutes.points)) == (10, 600)
    assert len(chosen.points) <= POINTS
    assert [point.events for point in hours.points] == [240] * 10
    assert chosen.total.events == hours.total.events == minutes.total.events == 2_400
    assert hours.total.baseline is not None
    assert minutes.total.baseline is not None
    assert hours.total.baseline.value == pytest.approx(minutes.total.baseline.value)


def test_estimates_come_with_intervals(told: Told) -> None:
    """A line without its band would show noise as news."""
    told.tell(log(2_400))
    total = told.series().total
    assert total.online is not None
    assert total.uniform is not None
    assert total.online.low < total.online.value < total.online.high
    assert total.uniform.effective < total.online.effective == 2_400
    assert total.uniform.high - total.uniform.low > total.online.high - total.online.low


def test_estimates_are_in_the_loops_units(told: Told) -> None:
    """The range of rewards may be set later: the same sums are read in it, and what is unknown gets wider."""
    wide = msgspec.structs.replace(told.loop.settings, reward_min=-1.0)
    told.tell(log(300))
    narrow = told.series().total
    told.loop = msgspec.structs.replace(told.loop, settings=wide)
    total = told.series().total
    assert narrow.earned is not None
    assert narrow.uniform is not None
    assert total.earned is not None
    assert total.uniform is not None
    assert total.earned.value == pytest.approx(narrow.earned.value)
    assert total.uniform.high - total.uniform.low > narrow.uniform.high - narrow.uniform.low


def test_what_is_not_kept_finely_is_told_coarsely(told: Told) -> None:
    """Minutes go after two days, hours after 90; whoever asks for them gets what there is, and is told so."""
    told.tell(log(100))
    told.now_us = NOW_US + 3 * DAY_US
    assert told.series(hours=96, step_us=MINUTE_US).step_us == HOUR_US
    assert told.series(hours=96, step_us=90 * MINUTE_US).step_us == 2 * HOUR_US
    told.now_us = NOW_US + 100 * DAY_US
    late = told.series(hours=24 * 101, step_us=HOUR_US)
    assert (late.step_us, late.total.events) == (DAY_US, 100)


@pytest.mark.parametrize("a_minute", [1, 5])
def test_a_picture_is_drawn_from_as_many_rows_as_it_has_points(told: Told, a_minute: int) -> None:
    """A day whose every minute is full is the normal case: to read each of them made pages slow to open."""
    told.tell([event(n, reward=1.0, step_us=MINUTE_US // a_minute) for n in range(720 * a_minute)])
    counts: list[int] = []
    figures = Figures(
        lambda loop_id: cast("Rollups", Counting(told.home.rollups(loop_id), counts)), told.home.board, told.home.clock
    )

    def rows(ask: Callable[..., object], hours: int) -> int:
        counts.clear()
        ask(told.loop, from_us=NOW_US - hours * HOUR_US, to_us=NOW_US)
        return sum(counts)

    day, hours = rows(figures.series, 24), rows(figures.series, 12)
    assert (day, rows(figures.counts, 24)) == (72, 72)
    assert hours == 720, "here the points are minutes, by the five"
    assert rows(figures.total, 24) == rows(figures.total, 12) == 2, "two times six hours"
    assert rows(figures.series, 24 * 80) == 2
    assert rows(figures.exploration, 24 * 7) <= 2 + 6


@given(start=st.integers(-200, 3_000), length=st.integers(1, 3_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_a_total_is_that_of_its_stretches(three_days: Told, start: int, length: int) -> None:
    """What stands above a chart is of the same events as the chart, though it is read from other rows."""
    span = {"from_us": START_US + start * MINUTE_US, "to_us": START_US + (start + length) * MINUTE_US}
    series = three_days.figures.series(three_days.loop, **span)
    total = three_days.figures.total(three_days.loop, **span)
    counts = three_days.figures.counts(three_days.loop, **span)
    assert (total.at_us, total.events, total.defaulted) == (series.from_us, series.total.events, series.total.defaulted)
    assert total.modes == series.total.modes
    for found, expected in ((total.earned, series.total.earned), (total.uniform, series.total.uniform)):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found.value == pytest.approx(expected.value)
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert [(each.at_us, each.events, each.defaulted) for each in counts.points] == [
        (each.at_us, each.events, each.defaulted) for each in series.points
    ]


def test_a_span_of_exploring_begins_with_its_first_decision(told: Told) -> None:
    """How much traffic a month has is told from the hour in which the loop began, though days are read as a whole."""
    told.tell([event(n, chosen=n % 3, reward=1.0 if n % 3 else 0.0) for n in range(700, 2_000)])
    told.now_us = NOW_US + 60 * HOUR_US
    first_us = START_US + 11 * HOUR_US
    week, since = told.figures.exploration(told.loop), told.figures.exploration(told.loop, from_us=first_us)
    assert week.low is not None
    assert week.low == pytest.approx(since.low)
    assert week.words == since.words


@pytest.mark.parametrize("ask", [lambda told: told.series(hours=0), lambda told: told.series(hours=-1)])
def test_an_empty_span_is_refused(told: Told, ask: Callable[[Told], object]) -> None:
    """A typing error must not read as "nothing happened"."""
    with pytest.raises(InvalidRequest, match="the span is empty"):
        ask(told)


def test_too_many_stretches_are_refused(told: Told) -> None:
    """One page must not read a year by the hour."""
    with pytest.raises(InvalidRequest, match="more than 3000"):
        told.series(hours=24 * 365 * 20, step_us=DAY_US)
    with pytest.raises(InvalidRequest, match="no multiple"):
        told.series(step_us=1_000_000)


def test_actions_are_ranked_by_how_often_they_were_shown(told: Told) -> None:
    """The board: each action's share, probability and reward, the most shown first."""
    told.tell(log(2_000))
    board = told.figures.actions(told.loop, from_us=START_US, to_us=NOW_US)
    soup = board.actions[0]
    assert soup.action_id == "soup"
    assert (soup.offered, soup.chosen) == (2_000, soup.shown)
    assert soup.probability == pytest.approx(0.6)
    assert soup.reward is not None
    assert soup.reward.low < 0.5 < soup.reward.high
    assert board.others is None
    two = told.figures.actions(told.loop, from_us=START_US, to_us=NOW_US, limit=2)
    assert (len(two.actions), two.left_out) == (2, 1)


def test_an_action_is_followed_over_time(told: Told) -> None:
    """Its probability over time is what learning looks like."""
    early = [event(n, pmf=(0.8, 0.1, 0.1), step_us=MINUTE_US) for n in range(60)]
    late = [event(60 + n, pmf=(0.2, 0.7, 0.1), chosen=1, reward=1.0, step_us=MINUTE_US) for n in range(60)]
    told.tell([*early, *late])
    found = told.figures.action_series(told.loop, ["salad", "nobody"], from_us=START_US, to_us=NOW_US)
    assert [round(point.probability, 6) for point in found["salad"]] == [0.1, 0.7]
    assert [point.reward for point in found["salad"]] == [None, 1.0]
    assert found["nobody"] == ()


def test_the_loop_is_compared_with_its_baseline(told: Told) -> None:
    """The one line that everybody asks for: is it better than what we did before, and is that sure?"""
    told.tell(log(1_000))
    comparison = told.figures.comparison(told.loop)
    assert comparison.events == 1_000
    assert comparison.against_baseline in Side
    edited = msgspec.structs.replace(told.loop.settings, last_configuration_edit=as_datetime(NOW_US))
    told.loop = msgspec.structs.replace(told.loop, settings=edited)
    begun = told.figures.comparison(told.loop)
    assert (begun.events, begun.online) == (0, None)
    assert NOW_US < begun.since_us <= NOW_US + 1_000_000


def test_exploring_and_apprenticeship_are_read_from_rows(told: Told) -> None:
    """Both pages ask for what is going on now."""
    told.tell([*log(2_000), *(event(2_000 + n, mode=LearningMode.APPRENTICE, reward=1.0) for n in range(250))])
    told.now_us = NOW_US + 60 * HOUR_US
    exploring = told.figures.exploration(told.loop)
    assert exploring.events == 2_000
    assert exploring.mass == pytest.approx(0.4)
    assert exploring.degrees[0].factor < 1
    apprentice = told.figures.apprentice(told.loop)
    assert [window.events for window in apprentice.windows] == [100, 200, 250]
    assert told.figures.exploration(told.loop, from_us=0, to_us=START_US).events == 0
