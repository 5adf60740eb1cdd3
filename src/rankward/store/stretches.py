"""Stretches of a log: how to read many of its entries with few questions."""

from __future__ import annotations

from collections.abc import Sequence

from rankward.records import Offset

_STRAY = 4  # read a stretch in one go if at least one in so many of its entries is wanted


def stretches(wanted: Sequence[Offset]) -> list[tuple[Offset, Offset]]:
    """Cover ascending offsets by few stretches, first and last offset of each, that hold little else.

    >>> stretches([3, 4, 6, 9_000])
    [(3, 6), (9000, 9000)]
    """
    if not wanted:
        return []
    found: list[tuple[Offset, Offset]] = []
    first = last = wanted[0]
    count = 1
    for offset in wanted[1:]:
        if offset - first + 1 > (count + 1) * _STRAY + 64:
            found.append((first, last))
            first, count = offset, 0
        last = offset
        count += 1
    found.append((first, last))
    return found
