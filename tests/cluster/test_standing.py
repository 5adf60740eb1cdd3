"""How a node stands, as its processes tell each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankward.cluster.standing import Standing, read_standing, write_standing

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_power_failure_left_empty_is_read_as_nothing(tmp_path: Path) -> None:
    """It is renamed without a flush, and written again within a second: readiness and doctor must not fail over it."""
    path = tmp_path / "standing.json"
    assert read_standing(path) is None
    path.touch()
    assert read_standing(path) is None
    standing = Standing(node="a", caught_up=True, cut_off=False, behind={"loop": 1}, workers=("a", "b"), time_us=1)
    write_standing(path, standing)
    assert read_standing(path) == standing
