"""Importing: every event once, whatever is imported how often, and however often it is interrupted."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from rankward.errors import InvalidRequest, StoreUnavailable
from rankward.history.importing import BROKEN_NAMED, DUPLICATE, IMPORTED
from rankward.records import AppendResult, History, ImportProgress, Interaction, LearningMode, Observation, Record
from rankward.store.ports import EventLog
from rankward.store.sqlite.event_log import SqliteEventLog
from tests.dsjson.events import TIME_US, order
from tests.history.loops import NOW_US, Logs, lines_of, numbered

DANGLING = b'{"RewardValue":1.0,"EnqueuedTimeUtc":"2026-01-15T12:00:00Z","EventId":"lost","Observations":[]}\n'


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    """A loop's logs."""
    return Logs(tmp_path / "loop")


class _Failing(SqliteEventLog):
    """A log that fails after some appends, as a process that is killed there would."""

    def __init__(self, log: EventLog, appends: int) -> None:
        self._inner = log
        self._left = appends

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        if not self._left:
            raise StoreUnavailable("killed")
        self._left -= 1
        return await self._inner.append(records, once=once)

    def __getattribute__(self, name: str) -> object:
        own = {"append", "_inner", "_left"}
        return object.__getattribute__(self, name) if name in own else getattr(self._inner, name)


def test_lines_become_joined_events(logs: Logs, tmp_path: Path) -> None:
    """They are decided when their own log says, observed as there, and joined when they are imported."""
    file = tmp_path / "log.json"
    file.write_bytes(lines_of([numbered(1)]))
    state = logs.take_in(file)
    assert (state.counts, state.first_us, state.last_us) == ({IMPORTED: 1}, TIME_US + 1, TIME_US + 1)
    [event] = logs.joined()
    assert event.entry.imported
    assert (event.entry.time_us, event.entry.due_us) == (TIME_US + 1, NOW_US)
    assert [each.value for each in event.entry.observations] == [1.0]
    assert (event.interaction.event_id, len(event.interaction.actions)) == ("e1", 2)


def test_importing_twice_changes_nothing(logs: Logs, tmp_path: Path) -> None:
    """A second run must be harmless, of the same file, of a copy, or of one that overlaps."""
    file, copy, overlap = tmp_path / "a.json", tmp_path / "b.json.gz", tmp_path / "c.json"
    file.write_bytes(lines_of([numbered(number) for number in range(5)]))
    copy.write_bytes(gzip.compress(file.read_bytes()))
    overlap.write_bytes(lines_of([numbered(number) for number in (4, 3, 5, 5)]))
    logs.take_in(file)
    before = logs.entries()

    again = logs.take_in(file)
    assert (again.files_known, again.resumed, again.counts) == (1, 5, {IMPORTED: 5})
    assert logs.entries() == before
    assert logs.take_in(copy).counts == {DUPLICATE: 5}
    assert logs.take_in(overlap).counts == {DUPLICATE: 3, IMPORTED: 1}
    assert [event.interaction.event_id for event in logs.joined()] == [f"e{number}" for number in range(6)]


def test_what_was_decided_here_is_not_imported(logs: Logs, tmp_path: Path) -> None:
    """An export that finds its way back must not count twice; another event of the same id must."""
    logs.now_us = TIME_US
    interaction = order().interaction
    assert isinstance(interaction, Interaction)
    logs.append(interaction)
    file = tmp_path / "log.json"
    later = order()
    later = msgspec.structs.replace(later, entry=msgspec.structs.replace(later.entry, time_us=TIME_US + 1))
    file.write_bytes(lines_of([order(), later]))
    assert logs.take_in(file).counts == {DUPLICATE: 1, IMPORTED: 1}


def test_what_is_no_event_is_counted_and_named(logs: Logs, tmp_path: Path) -> None:
    """Whoever moves over must see what was left behind, and where."""
    file = tmp_path / "log.json"
    file.write_bytes(b"{\n" + DANGLING + lines_of([numbered(1)]) + b"[]\n" * (BROKEN_NAMED + 5))
    state = logs.take_in(file)
    assert state.counts == {IMPORTED: 1, "dangling reward": 1, "broken": BROKEN_NAMED + 6}
    assert [each.line for each in state.broken[:2]] == [1, 4]
    assert state.broken[0].file == str(file)
    assert len(state.broken) == BROKEN_NAMED


def test_a_strict_import_stops_at_the_first_broken_line(logs: Logs, tmp_path: Path) -> None:
    """What came before is there, and the file can be mended and imported again."""
    file = tmp_path / "log.json"
    file.write_bytes(lines_of([numbered(1)]) + b"{\n" + lines_of([numbered(2)]))
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="line 2"):
            logs.take_in(file, strict=True)
    assert [event.interaction.event_id for event in logs.joined()] == ["e1"]
    assert logs.take_in(file).counts == {IMPORTED: 2, "broken": 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 2),
        *(
            pytest.param(*stops, marks=pytest.mark.slow)
            for stops in ((0, 0), (0, 4), (1, 0), (1, 1), (2, 1), (2, 3), (3, 2), (4, 1), (4, 4))
        ),
    ],
)
def test_an_interrupted_import_goes_on(logs: Logs, tmp_path: Path, first: int, second: int) -> None:
    """Whenever it stops, what was committed is there with its place, and the end is the same."""
    file = tmp_path / "log.json"
    apprentice = order(0.5, learning_mode=LearningMode.APPRENTICE)
    file.write_bytes(lines_of([apprentice, *(numbered(number) for number in range(900))]))
    for appends in (first, second):
        try:
            logs.take_in(file, through=lambda log, left=appends: _Failing(log, left))  # type: ignore[misc]
        except StoreUnavailable:
            continue
    state = logs.take_in(file)
    whole = Logs(tmp_path / "whole")
    assert whole.take_in(file).counts == state.counts == {IMPORTED: 901}
    assert [event.interaction for event in logs.joined()] == [event.interaction for event in whole.joined()]


def test_progress_stands_with_what_it_is_about(logs: Logs, tmp_path: Path) -> None:
    """One commit holds the events of some lines and how far those lines go: there is never one without the other."""
    file = tmp_path / "log.json"
    file.write_bytes(lines_of([numbered(number) for number in range(600)]))
    logs.take_in(file)
    count = 0
    marks: list[ImportProgress] = []
    for entry in logs.entries():
        if isinstance(entry.record, History):
            count += 1
        elif isinstance(entry.record, ImportProgress):
            marks.append(entry.record)
            assert (entry.record.lines, entry.record.counts) == (count, {IMPORTED: count})
    assert count == 600
    assert [mark.finished for mark in marks] == [False] * (len(marks) - 1) + [True]


def test_imported_rewards_meet_no_decision_of_the_loop(logs: Logs, tmp_path: Path) -> None:
    """A reward that comes for the id of an imported event is not its reward any more."""
    file = tmp_path / "log.json"
    file.write_bytes(lines_of([numbered(0)]))
    logs.take_in(file)
    logs.append(Observation(event_id="e0", value=1.0))
    logs.now_us += 200_000_000
    [event] = logs.joined()
    assert [each.value for each in event.entry.observations] == [0.0]
