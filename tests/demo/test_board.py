"""The lines beside the demo's front page say what is true of the crowd."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rankward.demo.board import SECONDS_KEPT, Board, Clicks, worth
from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import EDITOR, PLACES, Device, Reader, Season, Time, click_rates

READER = Reader(device=Device.PHONE, time=Time.EVENING, follows=(Topic.SPORT, Topic.MONEY))


def test_the_best_page_is_the_best_of_all() -> None:
    """It is found by sorting; here every page is tried."""
    rates = click_rates(READER, Season.STORM)
    pages = np.array(list(itertools.permutations(range(len(STORIES)), len(PLACES))))
    assert worth(READER, Season.STORM, EDITOR[READER.time]).best == pytest.approx(
        rates[np.arange(len(PLACES)), pages].sum(axis=1).max()
    )


def test_chance_is_the_mean_of_all_pages() -> None:
    """Stories drawn at random, none of them twice: each place shows each story as often."""
    rates = click_rates(READER, Season.ORDINARY)
    pages = np.array(list(itertools.permutations(range(len(STORIES)), len(PLACES))))
    assert worth(READER, Season.ORDINARY, EDITOR[READER.time]).chance == pytest.approx(
        rates[np.arange(len(PLACES)), pages].sum(axis=1).mean()
    )


def test_the_editors_page_is_worth_what_it_is_worth() -> None:
    """While an apprentice watches, both lines are one."""
    page = worth(READER, Season.ORDINARY, EDITOR[READER.time])
    assert page.shown == page.editor


def test_a_line_is_the_mean_over_pages_not_over_seconds() -> None:
    """A second with one page must not weigh as much as one with fifty."""
    board = Board()
    low, high = Clicks(0.0, 0.0, 0.0, 1.0), Clicks(1.0, 0.0, 0.0, 1.0)
    for _ in range(3):
        board.note(7, low, clicks=0, matched=0.0)
    board.note(8, high, clicks=2, matched=1.0)
    assert [(point.second, point.clicks.shown) for point in board.lines()] == [(7, 0.0), (8, 0.25)]
    assert board.matched == 0.25
    assert (board.pages, board.clicks) == (4, 2)


def test_a_board_does_not_grow_for_ever() -> None:
    """A demo is left running over a whole fair."""
    board = Board()
    for second in range(3 * SECONDS_KEPT):
        board.note(second, Clicks(0.0, 0.0, 0.0, 1.0), clicks=0, matched=0.0)
        board.mark(second, "again")
    assert len(board.lines()) == SECONDS_KEPT
    assert len(board.marks) < SECONDS_KEPT


def test_nobody_has_been_there_yet() -> None:
    """The page is shown before the first reader comes."""
    assert Board().lines() == []
    assert Board().matched is None
