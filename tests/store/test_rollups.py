"""The promises of `rollups.Rollups`, kept by every backend."""

from __future__ import annotations

import pytest
from tests.store.homes import Home, SqliteHome

from rankward.errors import Conflict
from rankward.store.rollups import Place, RollupStep, Row


def step(state: bytes, rows: dict[int, int] | None = None, **others: object) -> RollupStep:
    """Make a step that writes rows of one series, by place, each with the newest joined event in it."""
    written = {Place("hour", at): Row(b"%d" % at, newest) for at, newest in (rows or {}).items()}
    return RollupStep(state=state, rows=written, **{"over": None, **others})  # type: ignore[arg-type]


def test_a_step_is_seen_by_others_as_a_whole(home: Home) -> None:
    """Who draws a chart must not see figures that go further than the state says."""
    writer, reader = home.rollups(), home.rollups()
    assert reader.state() is None
    writer.commit(step(b"one", {30: 2, 10: 0, 20: 1}))
    assert reader.state() == b"one"
    assert list(reader.read("hour", 10, 30)) == [(10, b"10"), (20, b"20")]
    assert list(reader.newest("hour", limit=2)) == [(20, b"20"), (30, b"30")]
    assert reader.get([Place("hour", 20), Place("hour", 99), Place("day", 20)]) == {Place("hour", 20): b"20"}


def test_a_row_is_replaced_at_its_place(home: Home) -> None:
    """A stretch of time has one row, however often it grew."""
    rollups = home.rollups()
    rollups.commit(step(b"one", {10: 0}))
    again = RollupStep(over=b"one", state=b"two", rows={Place("hour", 10): Row(b"more", 5)})
    rollups.commit(again)
    assert list(rollups.read("hour", 0, 100)) == [(10, b"more")]


def test_two_writers_do_not_count_twice(home: Home) -> None:
    """A process that was taken for dead may still be about to write what its successor has counted already."""
    slow, quick = home.rollups(), home.rollups()
    slow.commit(step(b"one", {10: 0}))
    quick.commit(step(b"two", {20: 1}, over=b"one"))
    with pytest.raises(Conflict):
        slow.commit(step(b"two", {10: 7}, over=b"one"))
    assert list(slow.read("hour", 0, 100)) == [(10, b"10"), (20, b"20")]


def test_old_rows_go_by_series(home: Home) -> None:
    """Minutes are kept for days, days for ever."""
    rollups = home.rollups()
    days = {Place("day", at): Row(b"day", 0) for at in (10, 20)}
    rollups.commit(RollupStep(over=None, state=b"one", rows={**step(b"", {10: 0, 20: 1}).rows, **days}))
    rollups.commit(step(b"two", over=b"one", drop={"hour": 20}))
    assert [at for at, _ in rollups.read("hour", 0, 100)] == [20]
    assert [at for at, _ in rollups.read("day", 0, 100)] == [10, 20]


def test_rows_of_newer_events_are_forgotten(home: Home) -> None:
    """Figures are taken again from what the joined log still has, and those of older events stay."""
    rollups = home.rollups()
    rollups.commit(step(b"one", {10: 4, 20: 5, 30: 6}))
    rollups.commit(step(b"two", {40: 9}, over=b"one", forget_from=5))
    assert [at for at, _ in rollups.read("hour", 0, 100)] == [10, 40]


@pytest.mark.parametrize("content", [b"no database at all" * 300, b""])
def test_what_cannot_be_read_is_begun_again(sqlite_home: SqliteHome, content: bytes) -> None:
    """Figures are derived: a damaged file must not keep a loop from being watched."""
    first = sqlite_home.rollups()
    first.commit(step(b"one", {10: 0}))
    first.close()
    for path in (sqlite_home.folder / "figures").glob("*-*"):
        path.unlink()
    (sqlite_home.folder / "figures" / "figures.sqlite").write_bytes(content)
    again = sqlite_home.rollups()
    assert again.state() is None
    again.commit(step(b"one", {10: 0}))
    assert list(again.read("hour", 0, 100)) == [(10, b"10")]


def test_another_format_is_begun_again(sqlite_home: SqliteHome) -> None:
    """Figures of a newer or older version mean something else, and are taken from the joined log again."""
    rollups = sqlite_home.rollups()
    rollups.commit(step(b"one", {10: 0}))
    rollups._connection.execute("PRAGMA user_version = 77")
    assert sqlite_home.rollups().state() is None
