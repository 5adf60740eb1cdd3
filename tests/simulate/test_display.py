"""What is shown says what ran and how it went, in a terminal and in a file."""

from __future__ import annotations

import asyncio
import io
import itertools
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from rankward.simulate.display import header, line, panel, plot, show
from rankward.simulate.frontpage import PLACES
from rankward.simulate.scoreboard import Progress, Scoreboard
from rankward.simulate.traffic import Actions, Pace, Slots
from rankward.simulate.worlds import make_world

if TYPE_CHECKING:
    from rankward.simulate.world import FeatureObjects


class FirstAction:
    """Always shows the first action."""

    async def rank(self, context: FeatureObjects, actions: Actions) -> tuple[str, str]:
        """Choose it."""
        assert context
        return "e", actions[0][0]

    async def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Slots) -> tuple[str, list[str]]:
        """Choose the first ones."""
        assert context
        return "e", [action_id for action_id, _ in actions[: len(slots)]]

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Forget the reward."""
        assert slot is None or slot in PLACES
        assert event_id == "e"
        assert value >= 0


def some_progress(events: int = 500) -> Progress:
    """Return the state of a run of 1,000, after so many events."""
    board = Scoreboard(planned=1000)
    for each in itertools.islice(make_world("grocery").rounds(np.random.default_rng(1)), events):
        board.decided(each, float(each.means[0]), reported=0.0)
    return board.progress(elapsed_s=5.0)


def test_the_header_tells_how_to_run_it_again() -> None:
    """World, every parameter, seed, events and call rate."""
    text = header(make_world("clicks"), events=100, seed=7, pace=Pace(rate_per_s=50)).plain

    for each in (
        "clicks",
        "base_rate=0.016",
        "inventory=10",
        "renewal=1000",
        "events=100",
        "seed=7",
        "rate=50/s",
    ):
        assert each in text


def test_a_line_has_all_the_figures() -> None:
    """In a log file one line has to be enough."""
    text = line(some_progress())

    for each in (
        "500/1000 events",
        "reward 0.",
        "best 0.",
        "uniform 0.",
        "share ",
        "regret ",
        "100/s",
        "ETA 0:05",
    ):
        assert each in text


def test_the_plot_has_its_size_and_all_three_lines() -> None:
    """Braille dots, an axis and a legend."""
    text = plot(some_progress().history, width=30, height=5).plain.splitlines()

    assert [len(row) for row in text[:5]] == [38] * 5
    assert all(name in text[5] for name in ("got", "best", "uniform", "500 events"))
    assert all(any(char > "\u2800" for char in row) for row in (text[0], text[4]))


def test_the_plot_smooths_short_stretches() -> None:
    """Points of a few events are noise; the line is an average of enough of them."""
    board = Scoreboard(planned=1000)
    for number, each in enumerate(itertools.islice(make_world("grocery").rounds(np.random.default_rng(1)), 500)):
        board.decided(each, float(each.means.max() if number % 2 else each.means.min()), reported=0.0)

    rows = plot(board.progress(elapsed_s=1.0).history, width=30, height=8).plain.splitlines()
    high, low = float(rows[0][:7]), float(rows[7][:7])

    assert 0.75 < high < 1.0  # near the mean of the best action
    assert 0.3 < low < 0.55  # near that of a random one, where single points reach 0.1


def test_a_panel_can_be_drawn_at_any_moment() -> None:
    """Before the first event too, and on a terminal without the characters of the plot."""
    out = io.StringIO()
    console = Console(file=out, width=100)
    for progress in (Scoreboard(planned=5).progress(elapsed_s=0.0), some_progress(1), some_progress()):
        for encoding in ("utf-8", "ascii"):
            console.print(panel(progress, encoding=encoding))

    assert "share of the optimum" in out.getvalue()


def test_a_run_prints_plain_lines_where_nobody_watches() -> None:
    """Header, progress and summary, without control characters."""
    for terminal in (False, True):
        out = io.StringIO()
        progress = asyncio.run(
            show(
                make_world("grocery"),
                FirstAction(),
                events=50,
                seed=1,
                pace=Pace(),
                console=Console(file=out, width=120, force_terminal=terminal),
            )
        )

        assert progress.events == 50
        assert ("\x1b" in out.getvalue()) is terminal
        assert "done: 50 events" in out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
