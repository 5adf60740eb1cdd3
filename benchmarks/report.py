"""A row of the report: one budget, with what was measured beside what it is measured against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One line."""

    what: str
    measured: str
    against: str
    ratio: str
    budget: str
    met: bool | None  # None: there is no budget, it is there to be read


def at_least(measured: float, against: float, bound: float) -> tuple[str, str, bool]:
    """Judge a ratio that should be large. Returns ratio, budget and whether it is met."""
    ratio = measured / against
    return f"{ratio:.2f}", f"at least {bound:g}", ratio >= bound


def at_most(measured: float, against: float, bound: float) -> tuple[str, str, bool]:
    """Judge a ratio that should be small. Returns ratio, budget and whether it is met."""
    ratio = measured / against
    return f"{ratio:.2f}", f"at most {bound:g}", ratio <= bound


def milliseconds(values: Sequence[float]) -> str:
    """Write a median with the spread of its runs."""
    return f"{median(values):.2f} ms ({min(values):.2f} to {max(values):.2f})"


def describe_machine() -> str:
    """Say what the figures were taken on, and how busy it was with other things."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, load average at the start {os.getloadavg()[0]:.2f} (0 is a quiet machine)"


def say(row: Row) -> None:
    """Print a row as soon as it is known."""
    print(f"  {row.what}: {row.measured} · {row.against} · {row.ratio} · {row.budget} · {_met(row)}", flush=True)


def show(rows: Sequence[Row]) -> None:
    """Print all rows as a table."""
    table = Table("what", "measured", "against", "ratio", "budget", "met")
    for row in rows:
        table.add_row(row.what, row.measured, row.against, row.ratio, row.budget, _met(row), end_section=True)
    Console(width=150).print(table)


def _met(row: Row) -> str:
    return "" if row.met is None else "yes" if row.met else "NO"
