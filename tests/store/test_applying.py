"""An event log that is fed by a stream: what it holds follows from the messages alone."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.test_event_log import ALL, DAY_US, HOUR_US, WAIT_US, event_ids, interaction, lookup, offsets, seal

from rankward.errors import StorageFull
from rankward.records import Appended, Known, Observation, Record, Tick
from rankward.store.sqlite.codec import to_row
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.groups import Group, Requested

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.store.homes import Run, SqliteHome

START_US = 1_000_000_000_000


def asked(*records: Record, once: bool = True) -> Requested:
    """What one call asked for."""
    return Requested(once, tuple(to_row(record) for record in records))


def group(sequence: int, *requests: Requested, time_us: int = START_US) -> Group:
    """A message of the stream."""
    return Group(sequence, time_us, requests)


def test_messages_are_applied_as_appends_at_their_times_would_be(sqlite_home: SqliteHome, run: Run) -> None:
    """A replica gives the results that the log itself would have given, whatever its own clock says."""
    sqlite_home.clock.now_us = START_US + 30 * DAY_US
    log = sqlite_home.event_log()
    first = interaction("e1")

    results = run(
        log.apply(
            [
                group(3, asked(first, Tick()), asked(first), asked(interaction("e2"), once=False)),
                group(4, asked(first), asked(interaction("e1", context="other")), time_us=START_US + 5),
                group(9, asked(first), time_us=START_US + WAIT_US + HOUR_US),
            ]
        )
    )
    entries = run(log.read(0, limit=ALL))

    assert [[[type(each) for each in request] for request in requests] for requests in results] == [
        [[Appended, Appended], [Known], [Appended]],
        [[Known], [Appended]],
        [[Appended]],
    ]
    assert [entry.time_us - START_US for entry in entries] == [0, 0, 0, 5, WAIT_US + HOUR_US]
    assert [getattr(entry.record, "repeats", None) for entry in entries] == [False, None, False, True, True]
    assert run(log.place()) == 9
    assert [run(log.arrived(sequence)) for sequence in (3, 4, 9, 5)] == [range(3), range(3, 4), range(4, 5), None]
    assert run(log.messages([0, 2, 4, 7])) == {3, 9}


def test_times_do_not_decrease_when_those_of_the_stream_do(sqlite_home: SqliteHome, run: Run) -> None:
    """The servers' leader may change to one whose clock is behind."""
    log = sqlite_home.event_log(seal_entries=1)

    run(log.apply([group(1, asked(Tick())), group(2, asked(Tick()), time_us=START_US - DAY_US)]))
    seal(run, log)
    run(log.apply([group(3, asked(Tick()), time_us=1)]))

    assert [entry.time_us for entry in run(log.read(0, limit=ALL))] == [START_US] * 3


def test_the_place_is_kept_through_sealing_clearing_and_reopening(sqlite_home: SqliteHome, run: Run) -> None:
    """A replica that began anew would hold everything twice."""
    log = sqlite_home.event_log(seal_entries=1)
    assert run(log.place()) == 0
    run(log.apply([group(7, asked(interaction("e1"))), group(8)]))
    seal(run, log)
    assert run(log.place()) == 8
    assert [run(log.arrived(sequence)) for sequence in (7, 8)] == [range(1), range(1, 1)]
    run(log.apply([group(9, asked(interaction("e1")), asked(interaction("e2")))]))
    assert event_ids(run(log.read(0, limit=ALL))) == ["e1", "e2"]
    seal(run, log)
    run(log.clear())

    again = sqlite_home.event_log()

    assert run(again.place()) == 9
    run(again.apply([group(10, asked(Tick()))]))
    assert offsets(run(again.read(0, limit=ALL))) == [2]


def test_a_log_of_before_there_were_clusters_can_be_fed(sqlite_home: SqliteHome, run: Run) -> None:
    """An embedded installation becomes a node with the files that it has."""
    log = sqlite_home.event_log()
    run(log.append([interaction("e1")]))
    run(log.close())
    [path] = sqlite_home.log_folder.glob("*.live")
    with sqlite3.connect(path) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    assert "message" not in tables

    again = sqlite_home.event_log()
    assert run(again.place()) == 0
    run(again.apply([group(1, asked(interaction("e1"), interaction("e2")), time_us=sqlite_home.clock.now_us)]))

    assert event_ids(run(again.read(0, limit=ALL))) == ["e1", "e2"]


def test_messages_that_find_no_room_leave_nothing_behind(sqlite_home: SqliteHome, run: Run) -> None:
    """They are read again from the place on, which must be where the entries end."""
    log = sqlite_home.event_log()
    run(log.apply([group(1, asked(interaction("e0")))]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in sqlite_home.log_folder.iterdir())
    large = [group(2 + index, asked(interaction(f"e{index + 1}", context="x" * 9_000))) for index in range(40)]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 8_192, limits[1]))
        with pytest.raises(StorageFull):
            run(log.apply(large))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run(log.place()), run(log.extent()).end) == (1, 1)

    run(log.apply(large))

    assert (run(log.place()), run(log.extent()).end) == (41, 41)


RECORDS = st.one_of(
    st.builds(
        interaction,
        st.sampled_from(["a", "b", "c"]),
        wait_us=st.sampled_from([0, WAIT_US]),
        context=st.sampled_from("xy"),
    ),
    st.builds(Observation, event_id=st.sampled_from(["a", "b"]), value=st.just(1.0)),
)
GROUPS = st.lists(
    st.tuples(st.integers(0, HOUR_US), st.lists(st.tuples(st.booleans(), st.lists(RECORDS, min_size=1, max_size=3)))),
    max_size=8,
)
CUTS = st.lists(st.sampled_from(["go on", "new step", "seal"]), min_size=8, max_size=8)


@pytest.mark.slow
@settings(max_examples=40)
@given(groups=GROUPS, one=CUTS, other=CUTS)
def test_replicas_are_equal_however_they_were_fed_and_sealed(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[tuple[int, list[tuple[bool, list[Record]]]]],
    one: list[str],
    other: list[str],
) -> None:
    """Nodes start, stall and seal at times of their own, and have to agree about every offset for ever."""
    made: list[Group] = []
    time_us = START_US
    for sequence, (passed_us, requests) in enumerate(groups, 1):
        time_us += passed_us
        made.append(group(sequence, *(asked(*records, once=once) for once, records in requests), time_us=time_us))

    async def fed(folder: Path, cuts: Sequence[str]) -> tuple[object, object]:
        log = SqliteEventLog(folder, clock=lambda: START_US, seal=SealPolicy(entries=1))
        waiting: list[Group] = []
        for each, cut in zip(made, cuts, strict=False):
            waiting.append(each)
            if cut != "go on":
                await log.apply(waiting)
                waiting = []
            if cut == "seal":
                await log.maintain(joined_before=0, keep_after_us=0)
        await log.apply(waiting)
        held = await log.read(0, limit=ALL), await log.locate([lookup("a"), lookup("b")])
        await log.close()
        return held

    async def both() -> None:
        folder = tmp_path_factory.mktemp("replicas")
        assert await fed(folder / "one", one) == await fed(folder / "other", other)

    asyncio.run(both())
