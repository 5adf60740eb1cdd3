"""The figures of a run are sums that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rankward.simulate.scoreboard import HISTORY_POINTS, WINDOW, Scoreboard
from rankward.simulate.world import Round


def worth(*means: float) -> Round:
    """Return a round whose actions are worth this much."""
    return Round(context=[], actions=[(str(index), []) for index in range(len(means))], means=np.array(means))


def test_averages_regret_and_share() -> None:
    """Best 0.8 and uniform 0.4 throughout: one event got the best, one got chance less 0.4."""
    board = Scoreboard(planned=10)
    board.decided(worth(0.0, 0.4, 0.8), 0.8, reported=1.0)
    board.decided(worth(0.0, 0.4, 0.8), 0.0, reported=0.5)

    progress = board.progress(elapsed_s=4.0)

    assert progress.overall is not None
    assert progress.overall == progress.window
    assert progress.overall.got == pytest.approx(0.4)
    assert progress.overall.best == pytest.approx(0.8)
    assert progress.overall.uniform == pytest.approx(0.4)
    assert progress.overall.share == pytest.approx(0.0)
    assert progress.regret == pytest.approx(0.8)
    assert progress.reported == pytest.approx(0.75)
    assert progress.rate_per_s == 0.5
    assert progress.eta_s == 16.0


def test_before_the_first_event_there_is_nothing_to_average() -> None:
    """No figure is made up."""
    progress = Scoreboard(planned=10).progress(elapsed_s=1.0)

    assert progress.overall is None
    assert progress.window is None
    assert progress.reported is None
    assert progress.eta_s is None
    assert progress.history == ()


def test_a_share_needs_something_to_gain() -> None:
    """Where all actions are worth the same there is no share, rather than a division by zero."""
    board = Scoreboard(planned=1)
    board.decided(worth(0.3, 0.3), 0.3, reported=0.3)

    overall = board.progress(elapsed_s=1.0).overall

    assert overall is not None
    assert overall.share is None


def test_the_window_forgets() -> None:
    """What is shown as now has nothing in it from before the window."""
    board = Scoreboard(planned=2 * WINDOW)
    for _ in range(WINDOW):
        board.decided(worth(0.0, 1.0), 0.0, reported=0.0)
    for _ in range(WINDOW):
        board.decided(worth(0.0, 1.0), 1.0, reported=1.0)

    progress = board.progress(elapsed_s=1.0)

    assert progress.window is not None
    assert progress.overall is not None
    assert progress.window.got == 1.0
    assert progress.overall.got == 0.5


@pytest.mark.parametrize("events", [1, HISTORY_POINTS, HISTORY_POINTS + 1, 3 * HISTORY_POINTS + 7])
def test_the_history_stays_short_and_loses_nothing(events: int) -> None:
    """However long the run, its points weighted by their events give the overall mean."""
    board = Scoreboard(planned=events)
    rng = np.random.default_rng(3)
    for _ in range(events):
        means = rng.uniform(size=3)
        board.decided(worth(*means), means[0], reported=0.0)

    progress = board.progress(elapsed_s=1.0)
    ends = [point.events for point in progress.history]
    weights = np.diff([0, *ends])

    assert len(ends) <= HISTORY_POINTS
    assert ends[-1] == events
    assert progress.overall is not None
    assert np.average([p.averages.got for p in progress.history], weights=weights) == pytest.approx(
        progress.overall.got
    )
