"""A sparkline: numbers over time as the path of a small picture."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Sparkline(msgspec.Struct, frozen=True):
    """Two paths in a box of `width` by `height`: the line, and the area below it."""

    line: str
    area: str
    width: float
    height: float


def sparkline(values: Sequence[float | None], *, width: float = 160.0, height: float = 40.0) -> Sparkline:
    """Draw numbers at equal distances, scaled to fill the box.

    Args:
        values: oldest first; None: there is none, and the line has a gap.
        width: of the box, in units of the picture.
        height: of the box.
    """
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    step = width / max(len(values) - 1, 1)
    inset = 2.0  # so that a thick line is not cut off

    def y(value: float) -> float:
        share = 0.5 if high == low else (value - low) / (high - low)
        return height - inset - share * (height - 2 * inset)

    runs: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index * step, y(value)))
    drawn = [run for run in runs if run]
    line = " ".join("M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in drawn)
    area = " ".join(
        f"M{run[0][0]:.1f} {height:.1f} L"
        + " L".join(f"{x:.1f} {y:.1f}" for x, y in run)
        + f" L{run[-1][0]:.1f} {height:.1f} Z"
        for run in drawn
    )
    return Sparkline(line, area, width, height)
