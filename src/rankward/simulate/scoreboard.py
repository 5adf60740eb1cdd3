"""How well a policy does in a world whose true rewards are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from rankward.simulate.world import Floats, Page, Round

WINDOW = 1000
HISTORY_POINTS = 240  # at most this many, however long the run


class Averages(msgspec.Struct, frozen=True):
    """Mean rewards over the same events: what was got, and what could have been."""

    got: float  # true mean of the actions chosen; of a page, the sum over its slots
    best: float
    uniform: float

    @property
    def share(self) -> float | None:
        """Part of what can be gained over chance that was gained. None: all actions are worth the same.

        >>> Averages(got=0.5, best=0.75, uniform=0.25).share
        0.5
        """
        room = self.best - self.uniform
        return (self.got - self.uniform) / room if room > 1e-12 else None


class Point(msgspec.Struct, frozen=True):
    """A stretch of the run."""

    events: int  # since the start, at its end
    averages: Averages


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run, at one moment."""

    events: int
    planned: int
    elapsed_s: float
    overall: Averages | None  # None: no event yet
    window: Averages | None  # of the last `WINDOW` events, or of all when there are fewer
    regret: float  # sum over events of best less got
    reported: float | None  # mean of all that was reported for an event, noise included
    history: tuple[Point, ...]
    rewards_sent: int
    rewards_waiting: int  # reported later, since the world is slow to answer
    rewards_lost: int  # given up after retries, or still waiting when the run was stopped
    ranks_lost: int  # given up after retries: no event came of them
    retries: int
    last_error: str | None
    stopped: bool  # before all planned events were through

    @property
    def rate_per_s(self) -> float:
        """Events a second since the start."""
        return self.events / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds still to go at this rate. None: not known yet."""
        rate = self.rate_per_s
        return max(0, self.planned - self.events - self.ranks_lost) / rate if rate > 0 else None


class Scoreboard:
    """Adds up events in the order they are decided.

    Args:
        planned: events that the run is to have.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.events = 0
        self.rewards_sent = self.rewards_waiting = self.rewards_lost = 0
        self.ranks_lost = self.retries = 0
        self.last_error: str | None = None
        self.stopped = False
        self._sums = np.zeros(4)  # got, best, uniform, reported
        self._ring = np.zeros((WINDOW, 3))
        self._stride = 1  # events to a bin
        self._bins: list[Floats] = []  # sums of got, best, uniform; all full but the last
        self._in_last = 0  # events in the last bin

    def decided(self, played: Round | Page, got: float, *, reported: float) -> None:
        """Count an event: `got` is the true mean of what was chosen, `reported` the sum of all rewards it will get."""
        row = np.array([got, played.best, played.uniform])
        self._ring[self.events % WINDOW] = row
        self._sums += [*row, reported]
        self.events += 1
        if not self._bins or self._in_last == self._stride:
            if len(self._bins) == HISTORY_POINTS:
                self._bins = [a + b for a, b in zip(self._bins[::2], self._bins[1::2], strict=True)]
                self._stride *= 2
            self._bins.append(np.zeros(3))
            self._in_last = 0
        self._bins[-1] += row
        self._in_last += 1

    def progress(self, elapsed_s: float) -> Progress:
        """Return the state of the run, `elapsed_s` after its start."""
        recent = self._ring[: min(self.events, WINDOW)]
        return Progress(
            events=self.events,
            planned=self.planned,
            elapsed_s=elapsed_s,
            overall=_averages(self._sums[:3] / self.events) if self.events else None,
            window=_averages(recent.mean(axis=0)) if self.events else None,
            regret=float(self._sums[1] - self._sums[0]),
            reported=float(self._sums[3] / self.events) if self.events else None,
            history=tuple(self._history()),
            rewards_sent=self.rewards_sent,
            rewards_waiting=self.rewards_waiting,
            rewards_lost=self.rewards_lost,
            ranks_lost=self.ranks_lost,
            retries=self.retries,
            last_error=self.last_error,
            stopped=self.stopped,
        )

    def _history(self) -> list[Point]:
        full = [
            Point(events=(number + 1) * self._stride, averages=_averages(sums / self._stride))
            for number, sums in enumerate(self._bins[:-1])
        ]
        if not self._bins:
            return full
        return [*full, Point(events=self.events, averages=_averages(self._bins[-1] / self._in_last))]


def _averages(row: Floats) -> Averages:
    return Averages(got=float(row[0]), best=float(row[1]), uniform=float(row[2]))
