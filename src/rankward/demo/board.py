"""How well the crowd's front pages did, second by second, beside those they could have had."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np

from rankward.demo.stories import STORIES
from rankward.demo.world import EDITOR, PLACES, Reader, Season, click_rates
from rankward.simulate.world import Floats

SECONDS_KEPT = 240
_SMOOTHED_S = 6  # each point of a line is the mean of so many seconds
_MARKS_KEPT = 8
_INDEX = {story.id: index for index, story in enumerate(STORIES)}


class Clicks(msgspec.Struct, frozen=True):
    """Clicks that a front page is worth, all its places added up: true means, so that chance does not blur them."""

    shown: float
    editor: float
    chance: float  # stories drawn at random
    best: float

    @property
    def share(self) -> float | None:
        """Part of what can be gained over chance that was gained. None: there is nothing to gain.

        >>> Clicks(shown=0.75, editor=0.6, chance=0.5, best=1.0).share
        0.5
        """
        room = self.best - self.chance
        return (self.shown - self.chance) / room if room > 1e-9 else None


def worth(reader: Reader, season: Season, shown: Sequence[str]) -> Clicks:
    """Say what a page is worth to a reader.

    Args:
        reader: whose page it is.
        season: what they like.
        shown: ids of the stories, from the lead down.
    """
    rates = click_rates(reader, season)
    return Clicks(
        shown=_total(rates, shown),
        editor=_total(rates, EDITOR[reader.time]),
        chance=float(rates.mean(axis=1).sum()),
        # Places differ by a factor, so the best page has the best story where most readers look, and so on.
        best=float(sum(np.sort(row)[-place - 1] for place, row in enumerate(rates))),
    )


def _total(rates: Floats, shown: Sequence[str]) -> float:
    return float(rates[np.arange(len(PLACES)), [_INDEX[story_id] for story_id in shown]].sum())


class Point(msgspec.Struct, frozen=True):
    """One second of the lines."""

    second: int  # since the demo began
    clicks: Clicks


class Mark(msgspec.Struct, frozen=True):
    """A moment at which something was changed."""

    second: int
    what: str  # for people


class _Second(msgspec.Struct):
    second: int
    pages: int
    sums: Floats  # shown, editor, chance, best, matched


class Board:
    """Adds up pages as they are decided. Seconds in which none was are left out."""

    def __init__(self) -> None:
        self.pages = 0
        self.clicks = 0
        self.marks: deque[Mark] = deque(maxlen=_MARKS_KEPT)
        self._seconds: deque[_Second] = deque(maxlen=SECONDS_KEPT)

    def mark(self, second: int, what: str) -> None:
        """Note that something was changed."""
        self.marks.append(Mark(second, what))

    def note(self, second: int, page: Clicks, *, clicks: int, matched: float) -> None:
        """Count a page.

        Args:
            second: when it was decided; never less than before.
            page: what it is worth.
            clicks: that it really got.
            matched: share of its places, from 0 to 1, in which the model would have shown what the editor does.
        """
        self.pages += 1
        self.clicks += clicks
        if not self._seconds or self._seconds[-1].second != second:
            self._seconds.append(_Second(second, 0, np.zeros(5)))
        newest = self._seconds[-1]
        newest.pages += 1
        newest.sums += [page.shown, page.editor, page.chance, page.best, matched]

    def lines(self) -> list[Point]:
        """Return the seconds kept, each as the mean over itself and the few before it."""
        kept = list(self._seconds)
        return [
            Point(each.second, _clicks(kept[max(0, index + 1 - _SMOOTHED_S) : index + 1]))
            for index, each in enumerate(kept)
        ]

    @property
    def matched(self) -> float | None:
        """Share of places, lately, in which the model would have done what the editor did. None: no page yet."""
        lately = list(self._seconds)[-_SMOOTHED_S:]
        return float(sum(each.sums[4] for each in lately) / sum(each.pages for each in lately)) if lately else None


def _clicks(seconds: Sequence[_Second]) -> Clicks:
    total = np.sum([each.sums for each in seconds], axis=0) / sum(each.pages for each in seconds)
    return Clicks(*map(float, total[:4]))
