"""Whether two features go together: each can be told from the other, and stands in where the other is missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rankward.evaluation.contrast import Floats

_DEPENDS = 0.95  # of a feature's variety that another tells: beyond it the two go together
_SCALE_MIN = 20  # different numbers: with fewer they are taken for names


class Column:
    """The values of a feature, one for each event; None where it is missing."""

    def __init__(self, values: Sequence[object]) -> None:
        self.values = values

    @cached_property
    def ranks(self) -> Floats | None:
        """Ranks of numbers, ties sharing theirs, centred and of length 1. None: they are no scale."""
        if not all(isinstance(value, int | float) for value in self.values):
            return None
        _, inverse, counts = np.unique(
            np.array([float(value) for value in self.values if isinstance(value, int | float)]),
            return_inverse=True,
            return_counts=True,
        )
        if len(counts) < _SCALE_MIN:
            return None
        shared = np.cumsum(counts) - (counts - 1) / 2
        centred = shared[inverse] - shared[inverse].mean()
        found: Floats = centred / np.linalg.norm(centred)
        return found


def go_together(one: Column, other: Column) -> bool:
    """Tell whether each of two features can be told from the other, nearly always.

    Two scales go together if their ranks are correlated (Spearman); anything else if each value of one goes with one
    value of the other (`told_by`).
    """
    if one.ranks is not None and other.ranks is not None:
        return abs(float(one.ranks @ other.ranks)) >= _DEPENDS
    return told_by(one.values, other.values) >= _DEPENDS and told_by(other.values, one.values) >= _DEPENDS


def told_by(column: Sequence[object], other: Sequence[object]) -> float:
    """Tell how much of a column's variety another tells: Goodman and Kruskal's lambda, on rows not learned from.

    What goes with each value is learned from every other row, and guessed in the rows between: or a column in which
    every value is new would seem to tell everything.

    Returns:
        The share of wrong guesses that the other column saves, at most 1; 0 where there are none to save.

    Source: Goodman and Kruskal, "Measures of association for cross classifications", JASA 1954.
    """
    learned, asked = list(zip(column, other, strict=True))[::2], list(zip(column, other, strict=True))[1::2]
    if not asked:
        return 0.0
    commonest = Counter(value for value, _ in learned).most_common(1)[0][0]
    seen: defaultdict[object, Counter[object]] = defaultdict(Counter)
    for value, given in learned:
        seen[given][value] += 1
    best = {given: counts.most_common(1)[0][0] for given, counts in seen.items()}
    wrong = sum(value != commonest for value, _ in asked)
    still_wrong = sum(value != best.get(given, commonest) for value, given in asked)
    return 1 - still_wrong / wrong if wrong else 0.0
