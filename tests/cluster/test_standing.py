"""How a node stands, as its processes tell each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankward.cluster.standing import Standing, read_standing, write_standing

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_said_long_ago_is_not_current_however_the_clock_was_set() -> None:
    """A node that is not fed any more would give old models: a clock that is set back must not hide that."""
    said = Standing(node="a", caught_up=True, cut_off=False, behind={}, workers=(), time_us=10**12)
    assert said.is_current(said.time_us + 2_000_000)
    assert said.is_current(said.time_us - 2_000_000)
    assert not said.is_current(said.time_us + 60_000_000)
    assert not said.is_current(said.time_us - 3_600_000_000)


def test_what_a_power_failure_left_empty_is_read_as_nothing(tmp_path: Path) -> None:
    """It is renamed without a flush, and written again within a second: readiness and doctor must not fail over it."""
    path = tmp_path / "standing.json"
    assert read_standing(path) is None
    path.touch()
    assert read_standing(path) is None
    standing = Standing(node="a", caught_up=True, cut_off=False, behind={"loop": 1}, workers=("a", "b"), time_us=1)
    write_standing(path, standing)
    assert read_standing(path) == standing
