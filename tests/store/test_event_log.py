"""The promises of the event log, held against every backend; then what only files can suffer."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.service import PATIENCE_S

from rankward.errors import Overloaded, StorageFull, StoreUnavailable
from rankward.records import (
    Action,
    Activation,
    AnyInteraction,
    Appended,
    Features,
    Interaction,
    InteractionHeader,
    Known,
    LearningMode,
    LogEntry,
    MultiSlotHeader,
    MultiSlotInteraction,
    Observation,
    Record,
    SettingsChange,
    Slot,
    SlotChoice,
    Tick,
)
from rankward.store.ports import LOOKUP_BACK_US, LOOKUP_NEWEST, EventLog, Lookup
from rankward.store.sqlite.live import LiveSegment, create_live
from rankward.store.sqlite.sealed import MAGIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.store.homes import Home, Run, SqliteHome

S = 1_000_000
HOUR_US = 3_600 * S
DAY_US = 24 * HOUR_US
WAIT_US = 600 * S
ALL = 1_000_000
FOREVER = 1 << 60


@pytest.fixture
def home(log_home: Home) -> Home:
    """A home of each kind that has logs."""
    return log_home


def interaction(event_id: str, *, wait_us: int = WAIT_US, context: str = "x", actions: int = 3) -> Interaction:
    """Make an interaction whose body tells which one it is."""
    return Interaction(
        event_id=event_id,
        context=Features(f'[{{"context":"{context}"}}]'.encode()),
        actions=tuple(Action(f"a{index}", Features(b'[{"size":%d}]' % index)) for index in range(actions)),
        pmf=(1 / actions,) * actions,
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=wait_us,
    )


def page(event_id: str) -> MultiSlotInteraction:
    """Make a decision for two slots."""
    actions = tuple(Action(name, Features(b'[{"n":1}]')) for name in "abc")
    return MultiSlotInteraction(
        event_id=event_id,
        context=Features(b"[]"),
        actions=actions,
        slots=(Slot("hero", Features(b'[{"size":1}]'), baseline=2, excluded=(1,)), Slot("side", Features(b"[]"), 0)),
        choices=(SlotChoice((0, 2), (0.5, 0.5)), SlotChoice((1, 2), (0.5, 0.5))),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
    )


def offsets(entries: Sequence[LogEntry]) -> list[int]:
    """The offsets of entries."""
    return [entry.offset for entry in entries]


def event_ids(entries: Sequence[LogEntry]) -> list[str]:
    """The event ids of entries."""
    return [entry.record.event_id for entry in entries if isinstance(entry.record, AnyInteraction)]


def append_each(run: Run, log: EventLog, records: Sequence[Record]) -> None:
    """Append records one by one, so that each has a commit of its own."""
    for record in records:
        run(log.append([record]))


def seal(run: Run, log: EventLog) -> None:
    """Seal what there is; drop nothing."""
    run(log.maintain(joined_before=0, keep_after_us=0))


# Appending


def test_what_is_appended_is_read_back(home: Home, run: Run) -> None:
    """Every kind of record, whole, in order."""
    log = home.event_log()
    written: list[Record] = [
        interaction("e1"),
        msgspec.structs.replace(interaction("e2"), excluded=(1,), deferred=True, subject="somebody"),
        Observation(event_id="e1", value=0.5, metrics={"seconds": 2.0}),
        Activation(event_id="e2"),
        SettingsChange(settings=msgspec.Raw(b'{"reward_wait":"PT10M"}')),
        Tick(),
        interaction("e1 again"),
    ]

    results = run(log.append(written))
    entries = run(log.read(0, limit=ALL))

    assert [entry.record for entry in entries] == written
    assert results == [Appended()] * len(written)
    assert offsets(entries) == list(range(len(written)))
    assert [entry.time_us for entry in entries] == [home.clock.now_us] * len(written)


@pytest.mark.parametrize("sealed", [False, True])
def test_headers_are_what_the_whole_entries_say(home: Home, run: Run, sealed: bool) -> None:
    """Joining reads nothing else: what it misread would be joined wrong for ever."""
    log = home.event_log(seal_entries=1)
    deferred = msgspec.structs.replace(interaction("e1", wait_us=7), excluded=(0, 2), chosen=1, deferred=True)
    others: list[Record] = [
        Observation(event_id="e1", value=0.5, metrics={"seconds": 2.0}),
        Activation(event_id="e1"),
        SettingsChange(settings=msgspec.Raw(b'{"reward_wait":"PT10M"}')),
        Tick(),
    ]
    whole_page = page("e2")
    append_each(run, log, [deferred, *others, whole_page, interaction("e1")])
    if sealed:
        seal(run, log)

    entries = run(log.read_headers(0, limit=ALL))
    first, *between, of_page, last = [entry.record for entry in entries]

    assert [(entry.offset, entry.time_us) for entry in entries] == [
        (entry.offset, entry.time_us) for entry in run(log.read(0, limit=ALL))
    ]
    assert first == InteractionHeader(event_id="e1", chosen=1, reward_wait_us=7, excluded=(0, 2), deferred=True)
    assert first.chose_baseline
    assert deferred.chose_baseline
    assert between == others
    assert of_page == MultiSlotHeader(
        event_id="e2", slots=whole_page.slots, choices=whole_page.choices, reward_wait_us=whole_page.reward_wait_us
    )
    assert of_page.chose_baseline == whole_page.chose_baseline
    assert last == InteractionHeader(event_id="e1", chosen=0, reward_wait_us=WAIT_US)
    assert [entry.offset for entry in run(log.read_headers(2, limit=3))] == [2, 3, 4]


def test_offsets_are_dense_when_many_append_at_once(home: Home, run: Run) -> None:
    """Callers share commits; what came in one call still stands together, in its order."""
    log = home.event_log()

    async def append_all() -> None:
        await asyncio.gather(*(log.append([interaction(f"e{index}"), Tick()]) for index in range(500)))

    run(append_all())
    entries = run(log.read(0, limit=ALL))

    assert offsets(entries) == list(range(1_000))
    assert sorted(event_ids(entries[::2])) == sorted(f"e{index}" for index in range(500))
    assert {type(entry.record) for entry in entries[1::2]} == {Tick}


def test_many_calls_share_one_commit(sqlite_home: SqliteHome, run: Run) -> None:
    """A flush per call would bound the service to a few hundred decisions a second."""
    log = sqlite_home.event_log()

    async def append_all() -> None:
        with log._locked("append.lock"):  # so that all of them have asked before the second commit, at the latest
            appending = [asyncio.create_task(log.append([Tick()])) for _ in range(200)]
            await asyncio.sleep(0)
        await asyncio.gather(*appending)

    run(append_all())
    sqlite_home.clock.now_us += 1
    wal = next(sqlite_home.log_folder.glob("*.live-wal")).read_bytes()
    page_bytes = int.from_bytes(wal[8:12], "big")
    frames = range(32, len(wal), page_bytes + 24)
    commits = sum(1 for start in frames if int.from_bytes(wal[start + 4 : start + 8], "big"))

    assert commits < 20


def test_times_do_not_decrease_when_the_clock_is_set_back(home: Home, run: Run) -> None:
    """Joining counts on it, also across segments, a reopening and a clearing of the log."""
    log = home.event_log(seal_entries=1)
    latest_us = home.clock.now_us
    run(log.append([Tick()]))
    home.clock.now_us -= DAY_US
    run(log.append([Tick()]))
    seal(run, log)
    run(log.append([Tick()]))
    assert [entry.time_us for entry in run(log.read(0, limit=ALL))] == [latest_us] * 3

    end = run(log.clear())
    run(home.event_log().append([Tick()]))

    [entry] = run(log.read(end, limit=ALL))
    assert entry.time_us == latest_us
    assert run(log.extent()).last_time_us == latest_us


def test_what_was_acknowledged_is_there_after_reopening(home: Home, run: Run) -> None:
    """A 201 from Rank means that the decision is durable."""
    log = home.event_log()
    run(log.append([interaction("e1"), interaction("e2")]))
    run(log.close())

    again = home.event_log()
    run(again.append([interaction("e3")]))

    assert event_ids(run(again.read(0, limit=ALL))) == ["e1", "e2", "e3"]


def test_the_mark_moves_with_every_append_and_only_then(home: Home, run: Run) -> None:
    """Whoever waits for events asks for it many times a second, and reads the log when it has moved."""
    log, other = home.event_log(), home.event_log(seal_entries=1)
    marks = [log.change_mark()]
    assert log.change_mark() == marks[0]

    for writer in (log, other):
        run(writer.append([interaction(f"e{len(marks)}")]))
        marks.append(log.change_mark())
        assert log.change_mark() == marks[-1]
    seal(run, other)  # what was looked at is closed, and another segment is written from here on
    run(other.append([interaction("e3")]))
    marks.append(log.change_mark())
    run(log.append([interaction("e4")]))
    marks.append(log.change_mark())

    assert len(set(marks)) == len(marks)


def test_a_closed_log_takes_nothing_more(home: Home, run: Run) -> None:
    """A caller that waited for ever would hold up the shutdown."""
    log = home.event_log()
    run(log.append([Tick()]))
    run(log.close())

    with pytest.raises(StoreUnavailable, match="closed"):
        run(log.append([Tick()]))


def test_more_than_the_bound_is_turned_away(home: Home, run: Run) -> None:
    """Overload answers before memory grows, and stores nothing of the call."""
    log = home.event_log(pending_appends=10)

    async def append_all() -> list[object]:
        return await asyncio.gather(*(log.append([Tick()] * 4) for _ in range(5)), return_exceptions=True)

    outcomes = run(append_all())

    assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False, False, True, True, True]
    assert run(log.extent()).end == 8
    assert len(run(log.append([Tick()] * 10))) == 10


def test_a_reader_sees_what_another_instance_appends(home: Home, run: Run) -> None:
    """The worker reads what the api processes write, across the segments that either of them begins."""
    writer, reader = home.event_log(seal_entries=2), home.event_log(seal_entries=2)
    for index in range(6):
        run(writer.append([interaction(f"e{index}")]))
        assert event_ids(run(reader.read(index, limit=ALL))) == [f"e{index}"]
        seal(run, (writer, reader)[index % 2])

    assert event_ids(run(reader.read(0, limit=ALL))) == [f"e{index}" for index in range(6)]
    assert run(reader.extent()) == run(writer.extent())


_WRITER = """
    import asyncio, os, sys, time
    from pathlib import Path
    from rankward.errors import RankwardError
    from rankward.records import *
    from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog

    folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    together, once = int(sys.argv[4]), bool(int(sys.argv[5]))

    def interaction(index):
        return Interaction(
            event_id=f"{name}{index}", context=Features(b"[]"), actions=(Action("a", Features(b"[]")),),
            pmf=(1.0,), chosen=0, learning_mode=LearningMode.ONLINE, reward_wait_us=600_000_000,
        )

    async def main():
        log = SqliteEventLog(
            folder, clock=lambda: time.time_ns() // 1000, seal=SealPolicy(entries=100, age_us=1 << 60)
        )
        async def append(index):
            [result] = await log.append([interaction(index)], once=once)
            os.write(1, f"{index} {type(result).__name__}\\n".encode())
        for begin in range(0, count, together):
            await asyncio.gather(*(append(index) for index in range(begin, begin + together)))
            if begin % 50 == 0 and together > 1:
                await log.maintain(joined_before=0, keep_after_us=0)
        await log.close()

    os.write(1, b"ready\\n")
    sys.stdin.readline()
    asyncio.run(main())
"""


def writer(
    folder: Path, name: str, *, count: int, together: int, once: bool = False, under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a process that appends interactions, and writes a line for each that was acknowledged."""
    arguments = [str(folder), name, str(count), str(together), str(int(once))]
    process = subprocess.Popen(
        [*under, sys.executable, "-c", textwrap.dedent(_WRITER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def acknowledged(process: subprocess.Popen[str]) -> dict[int, str]:
    """Wait for the end of a writer. Returns for each index the kind of the answer."""
    output, _ = process.communicate()
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return {int(index): kind for index, kind in lines}


def go(*processes: subprocess.Popen[str]) -> None:
    """Let writers begin."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.mark.slow
def test_two_processes_that_append_at_once_lose_and_repeat_nothing(sqlite_home: SqliteHome, run: Run) -> None:
    """Several api processes share one log, while segments are sealed under them."""
    names = ("p", "q")
    processes = [writer(sqlite_home.log_folder, name, count=500, together=10) for name in names]
    go(*processes)
    answers = [acknowledged(process) for process in processes]

    entries = run(sqlite_home.event_log().read(0, limit=ALL))

    assert [process.returncode for process in processes] == [0, 0]
    assert offsets(entries) == list(range(1_000))
    assert all(before.time_us <= after.time_us for before, after in pairwise(entries))
    assert [answer.keys() for answer in answers] == [set(range(500))] * 2
    assert sorted(event_ids(entries)) == sorted(f"{name}{index}" for name in names for index in range(500))


@pytest.mark.slow
def test_two_processes_that_ask_the_same_at_once_get_one_decision(sqlite_home: SqliteHome, run: Run) -> None:
    """A client that retries may reach another process than the first time."""
    processes = [writer(sqlite_home.log_folder, "e", count=200, together=10, once=True) for _ in range(2)]
    go(*processes)
    first, second = (acknowledged(process) for process in processes)

    entries = run(sqlite_home.event_log().read(0, limit=ALL))

    assert sorted(event_ids(entries)) == sorted(f"e{index}" for index in range(200))
    assert all({first[index], second[index]} == {"Appended", "Known"} for index in range(200))


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 40, 333])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(sqlite_home: SqliteHome, run: Run, after: int) -> None:
    """`kill -9` comes at any time; whoever has an answer must find it in the log."""
    process = writer(sqlite_home.log_folder, "e", count=100_000, together=5)
    go(process)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    answers = acknowledged(process) | {int(index): kind for index, kind in (line.split() for line in seen)}

    log = sqlite_home.event_log()
    run(log.append([interaction("next")]))
    entries = run(log.read(0, limit=ALL))

    assert len(answers) >= after
    assert offsets(entries) == list(range(len(entries)))
    assert {f"e{index}" for index in answers} <= set(event_ids(entries))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed: apt install strace",
)
def test_the_disk_is_flushed_before_the_answer(tmp_path: Path) -> None:
    """An answer that only the page cache backs would not outlive a power cut."""
    trace = tmp_path / "trace"
    under = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=write,fsync,fdatasync"]
    process = writer(tmp_path / "log", "e", count=20, together=1, under=under)
    go(process)
    assert len(acknowledged(process)) == 20

    flushed: list[bool] = []  # for each answer, whether the write-ahead log was flushed since the one before
    begun: dict[str, bool] = {}  # by thread: whether it is flushing the write-ahead log
    fresh = False
    for line in trace.read_text().splitlines():
        thread = line.split()[0]
        if re.search(r"\b(fsync|fdatasync)\(\d+<", line):
            begun[thread] = "-wal>" in line
        if begun.get(thread) and re.search(r"(fsync|fdatasync)(\(| resumed>).*= 0$", line):
            fresh = True
        if re.search(r'write\(1<[^>]*>, "\d+ Appended', line):
            flushed.append(fresh)
            fresh = False

    assert flushed == [True] * 20


def test_commits_flush_the_disk(sqlite_home: SqliteHome, run: Run) -> None:
    """With less than FULL, SQLite leaves the flush of a commit in WAL mode for later."""
    log = sqlite_home.event_log()
    run(log.append([Tick()]))

    live = log._live
    assert live is not None
    assert live._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert live._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Asking once


def test_the_same_request_again_gets_the_decision_on_record(home: Home, run: Run) -> None:
    """A client that retries must show what it was told the first time, whatever would be drawn now."""
    log = home.event_log()
    first = interaction("e1")
    run(log.append([first], once=True))
    home.clock.now_us += S

    [result] = run(log.append([msgspec.structs.replace(first, chosen=2, model_id="newer")], once=True))

    assert result == Known(LogEntry(0, home.clock.now_us - S, first))
    assert run(log.extent()).end == 1


def test_decisions_for_slots_are_known_by_their_whole_request(home: Home, run: Run) -> None:
    """Other slots, or one of the other kind under the same id, are other questions."""
    log = home.event_log()
    first = page("e1")
    asked_again = msgspec.structs.replace(first, model_id="newer")
    fewer_slots = msgspec.structs.replace(first, slots=first.slots[:1], choices=first.choices[:1])
    run(log.append([first, page("e2")], once=True))

    results = run(log.append([asked_again, fewer_slots, interaction("e1")], once=True))

    assert isinstance(results[0], Known)
    assert results[0].entry.record == first
    assert results[1:] == [Appended(), Appended()]
    stored = [entry.record for entry in run(log.read(2, limit=ALL))]
    assert [isinstance(record, AnyInteraction) and record.repeats for record in stored] == [True, True]
    assert [[place.offset for place in places] for places in run(log.locate([Lookup("e2", 10, 0)]))] == [[1]]


def test_known_and_new_requests_may_come_in_one_call(home: Home, run: Run) -> None:
    """Results stand in the order of the records; what is known takes no offset."""
    log = home.event_log()
    run(log.append([interaction("e1")], once=True))

    results = run(log.append([interaction("e2"), interaction("e1"), interaction("e2"), interaction("e3")], once=True))

    assert [type(result) for result in results] == [Appended, Known, Known, Appended]
    assert event_ids(run(log.read(0, limit=ALL))) == ["e1", "e2", "e3"]


def test_the_same_request_at_the_same_moment_is_stored_once(home: Home, run: Run) -> None:
    """A client with two connections, or two api processes, and none has seen the other's record."""
    logs = [home.event_log(), home.event_log()]

    async def ask() -> list[object]:
        results = await asyncio.gather(*(logs[index % 2].append([interaction("e1")], once=True) for index in range(20)))
        return [type(result) for [result] in results]

    assert sorted(run(ask()), key=str) == [Appended] + [Known] * 19
    assert run(logs[0].extent()).end == 1


def test_a_decision_that_waits_for_a_reading_does_not_hold_up_the_others(sqlite_home: SqliteHome, run: Run) -> None:
    """A log lets in one reader at a time, and the event loop serves everybody."""
    log = sqlite_home.event_log()
    begun, over = threading.Event(), threading.Event()
    ended: list[bool] = []

    def read() -> None:
        with log._reading:
            begun.set()
            ended.append(over.wait(PATIENCE_S))

    async def ask() -> None:
        asking = asyncio.create_task(log.append([interaction("e1")], once=True))
        await asyncio.sleep(0)  # so that it begins
        over.set()
        await asking

    reading = threading.Thread(target=read)
    reading.start()
    begun.wait()
    run(ask())
    reading.join()

    assert ended == [True], "the event loop stood still until the reading was over"
    assert event_ids(run(log.read(0, limit=ALL))) == ["e1"]


def test_another_body_with_a_known_id_is_a_repeat(home: Home, run: Run) -> None:
    """Another question gets a decision of its own; that the id was used twice is written down."""
    log = home.event_log()
    run(log.append([interaction("e1")], once=True))

    [result] = run(log.append([interaction("e1", context="other")], once=True))

    assert isinstance(result, Appended)
    [first, second] = [entry.record for entry in run(log.read(0, limit=ALL))]
    assert isinstance(first, Interaction)
    assert isinstance(second, Interaction)
    assert (first.repeats, second.repeats) == (False, True)


def test_the_older_of_two_requests_with_one_id_is_found_too(home: Home, run: Run) -> None:
    """A repeat between must not hide the request that is asked again."""
    log = home.event_log()
    run(log.append([interaction("e1"), interaction("e1", context="other")], once=True))

    [result] = run(log.append([interaction("e1")], once=True))

    assert isinstance(result, Known)
    assert result.entry.offset == 0


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("later_us", "kind"), [(WAIT_US + HOUR_US - 1, Known), (WAIT_US + HOUR_US + 1, Appended)])
def test_a_request_is_known_for_its_wait_and_an_hour(
    home: Home, run: Run, sealed: bool, later_us: int, kind: type
) -> None:
    """After that it is a new interaction, with a window of its own for rewards."""
    log = home.event_log(seal_entries=1)
    run(log.append([interaction("e1")], once=True))
    if sealed:
        seal(run, log)
        run(log.append([Tick()]))
    home.clock.now_us += later_us

    [result] = run(log.append([interaction("e1")], once=True))

    assert type(result) is kind


def test_a_request_is_known_across_sealing_and_reopening(home: Home, run: Run) -> None:
    """Segments are the store's own affair, and a restart is not the client's."""
    log = home.event_log(seal_entries=1)
    first = interaction("e1")
    run(log.append([first], once=True))
    for _ in range(3):
        seal(run, log)
        run(log.append([Tick()]))
    other = home.event_log(seal_entries=1)

    for asked in (log, other):
        [result] = run(asked.append([first], once=True))
        assert result == Known(LogEntry(0, home.clock.now_us, first))


def test_an_instance_that_looked_before_a_sealing_still_finds_the_request(home: Home, run: Run) -> None:
    """Another process may seal between its look at old segments and its turn to write."""
    api, worker = home.event_log(), home.event_log(seal_entries=1)
    run(api.append([interaction("e1")], once=True))
    seal(run, worker)
    run(worker.append([Tick()]))
    seal(run, worker)

    [result] = run(api.append([interaction("e1")], once=True))

    assert isinstance(result, Known)


def test_an_event_of_a_cleared_log_is_not_known(home: Home, run: Run) -> None:
    """Who cleared the log wants nothing of it to come back, least of all from another process's memory."""
    api, worker = home.event_log(), home.event_log(seal_entries=1)
    run(api.append([interaction("e1")], once=True))
    seal(run, worker)
    run(api.append([interaction("e2")], once=True))
    run(worker.clear())

    results = run(api.append([interaction("e1"), interaction("e2")], once=True))

    assert [type(result) for result in results] == [Appended, Appended]


def test_without_once_the_same_interaction_is_stored_again(home: Home, run: Run) -> None:
    """An import may hold what it likes."""
    log = home.event_log()
    run(log.append([interaction("e1"), interaction("e1")]))

    assert run(log.extent()).end == 2


# Locating


def lookup(event_id: str, *, before: int = ALL, time_us: int = 0) -> Lookup:
    """Ask for everything of an event id."""
    return Lookup(event_id, before, time_us)


@pytest.fixture
def located(home: Home, run: Run) -> EventLog:
    """A log of 3 sealed segments and a live one: `even` and `odd` in turn, with an observation after each."""
    log = home.event_log(seal_entries=10)
    for index in range(20):
        run(log.append([interaction(("even", "odd")[index % 2]), Observation(event_id="even", value=1.0)]))
        if index in {4, 9, 14}:
            seal(run, log)
    return log


def test_interactions_are_located_across_segments_oldest_first(located: EventLog, run: Run) -> None:
    """A reward goes to the first whose window holds it, wherever that stands; observations are not found."""
    even, odd, unknown = run(located.locate([lookup("even"), lookup("odd"), lookup("nobody")]))

    assert [place.offset for place in even] == list(range(0, 40, 4))
    assert [place.offset for place in odd] == list(range(2, 40, 4))
    assert unknown == []
    assert {place.reward_wait_us for place in even} == {WAIT_US}
    entries = run(located.read(0, limit=ALL))
    assert [place.time_us for place in odd] == [entries[place.offset].time_us for place in odd]


@pytest.mark.parametrize("before", [0, 1, 2, 3, 10, 11, 22, 33, 39])
def test_only_what_stands_before_is_located(located: EventLog, run: Run, before: int) -> None:
    """A rejoin looks from the same place, whatever was appended since."""
    [odd] = run(located.locate([lookup("odd", before=before)]))

    assert [place.offset for place in odd] == list(range(2, before, 4))


@pytest.mark.parametrize("seal_entries", [ALL, 30])
def test_at_most_the_newest_of_an_id_are_located(home: Home, run: Run, seal_entries: int) -> None:
    """An application that gives all its events one id must not make each reward read the whole log."""
    log = home.event_log(seal_entries=seal_entries)
    for _ in range(4):
        run(log.append([interaction("e1")] * 30))
        seal(run, log)

    [found, earlier] = run(log.locate([lookup("e1"), lookup("e1", before=100)]))

    assert [place.offset for place in found] == list(range(120 - LOOKUP_NEWEST, 120))
    assert [place.offset for place in earlier] == list(range(100 - LOOKUP_NEWEST, 100))


@pytest.mark.parametrize("sealed", [False, True])
def test_interactions_whose_wait_ended_long_ago_are_not_located(home: Home, run: Run, sealed: bool) -> None:
    """It bounds how far back a lookup reads; what is found must not hang on where segments end."""
    log = home.event_log(seal_entries=1 if sealed else ALL)
    begin_us = home.clock.now_us
    for wait_us in (10 * DAY_US, S, S):
        run(log.append([interaction("e1", wait_us=wait_us)]))
        seal(run, log)

    def find(time_us: int) -> list[int]:
        [found] = run(log.locate([lookup("e1", time_us=time_us)]))
        return [place.offset for place in found]

    assert find(begin_us + S + LOOKUP_BACK_US) == [0, 1, 2]
    assert find(begin_us + S + LOOKUP_BACK_US + 1) == [0]
    assert find(begin_us + 10 * DAY_US + LOOKUP_BACK_US + 1) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_events_whose_wait_is_long_over_do_not_crowd_out_others(home: Home, run: Run, sealed: bool) -> None:
    """The newest are counted among those that are asked for."""
    log = home.event_log(seal_entries=1 if sealed else ALL)
    run(log.append([interaction("e1", wait_us=10 * DAY_US)]))
    run(log.append([interaction("e1", wait_us=S)] * LOOKUP_NEWEST + [interaction("e2", wait_us=10 * DAY_US)]))
    seal(run, log)
    run(log.append([Tick()]))

    [found] = run(log.locate([lookup("e1", time_us=home.clock.now_us + 5 * DAY_US)]))

    assert [place.offset for place in found] == [0]


# Segments


def test_a_log_reads_the_same_however_it_is_cut(home: Home, run: Run) -> None:
    """Sealing happens while others read, and must not be seen."""
    log = home.event_log(seal_entries=7)
    before: list[LogEntry] = []
    for index in range(30):
        home.clock.now_us += S
        run(log.append([interaction(f"e{index}", actions=1 + index % 3), Tick()]))
        if index % 3 == 0:
            seal(run, log)
            before = list(run(log.read(0, limit=ALL)))
    reopened = home.event_log()

    after = run(reopened.read(0, limit=ALL))

    assert after[: len(before)] == before
    assert offsets(after) == list(range(60))
    for start in range(61):
        assert offsets(run(reopened.read(start, limit=9))) == list(range(start, min(60, start + 9)))


def test_a_segment_larger_than_a_block_is_read_whole(sqlite_home: SqliteHome, run: Run) -> None:
    """Sealed files are read block by block, and a stretch may begin and end inside any."""
    log = sqlite_home.event_log(seal_entries=1, pending_appends=10_000)
    run(log.append([interaction(f"e{index}", actions=1) for index in range(4_100)]))
    seal(run, log)

    assert offsets(run(log.read(0, limit=ALL))) == list(range(4_100))
    for start in (0, 2_047, 2_048, 2_049, 4_095, 4_096, 4_099):
        assert event_ids(run(log.read(start, limit=3))) == [f"e{i}" for i in range(start, min(start + 3, 4_100))]
    [[place]] = run(log.locate([lookup("e4099")]))
    assert place.offset == 4_099


def test_a_segment_is_sealed_when_it_is_full_or_old(sqlite_home: SqliteHome, run: Run) -> None:
    """Sealed files are what is small, checked and can be dropped; a quiet loop gets there, too."""
    log = sqlite_home.event_log(seal_entries=3, seal_age_us=HOUR_US)

    def sealed() -> list[str]:
        return sorted(path.stem.lstrip("0") for path in sqlite_home.log_folder.glob("*.seg"))

    run(log.append([Tick()] * 2))
    seal(run, log)
    assert sealed() == []
    run(log.append([Tick()]))
    seal(run, log)
    assert sealed() == [""]
    sqlite_home.clock.now_us += 2 * HOUR_US
    seal(run, log)
    assert sealed() == [""], "an empty segment is not worth a file"
    run(log.append([Tick()]))
    sqlite_home.clock.now_us += HOUR_US
    seal(run, log)
    assert sealed() == ["", "3"]
    assert len(list(sqlite_home.log_folder.glob("*.live*"))) <= 3, "one live segment with its two helpers"


def test_clearing_forgets_every_entry_but_no_offset(home: Home, run: Run) -> None:
    """An offset that was used twice would join rewards to somebody else's decision."""
    log, other = home.event_log(seal_entries=2), home.event_log()
    run(log.append([interaction("e1")] * 3))
    seal(run, log)
    run(log.append([interaction("e2")]))

    assert run(log.clear()) == 4
    assert run(log.clear()) == 4

    for each in (log, other, home.event_log()):
        extent = run(each.extent())
        assert (extent.first, extent.end) == (4, 4)
        assert run(each.read(0, limit=ALL)) == []
        assert run(each.locate([lookup("e1"), lookup("e2")])) == [[], []]
    run(other.append([interaction("e3")]))
    entries = run(log.read(0, limit=ALL))
    assert (offsets(entries), event_ids(entries)) == ([4], ["e3"])


def test_dropping_forgets_whole_files_before_an_offset(home: Home, run: Run) -> None:
    """Retention unlinks files and rewrites none. The answer then starts with the first entry there is."""
    log = home.event_log(seal_entries=5)
    for _ in range(3):
        run(log.append([interaction("e1")] * 5))
        seal(run, log)

    run(log.drop(before=9))
    assert run(log.extent()).first == 5
    assert offsets(run(log.read(0, limit=3))) == [5, 6, 7]
    run(log.drop(before=10))
    assert run(log.extent()).first == 10
    run(log.drop(before=ALL))

    extent = run(log.extent())
    assert (extent.first, extent.end) == (15, 15)


def test_retention_drops_what_is_old_and_joined(home: Home, run: Run) -> None:
    """What is not joined yet would be lost for learning, however old it is."""
    log = home.event_log(seal_entries=5)
    for _ in range(3):
        run(log.append([interaction("e1")] * 5))
        seal(run, log)
        home.clock.now_us += DAY_US
    latest_us = home.clock.now_us

    def first_after(*, joined_before: int, keep_after_us: int) -> int:
        run(log.maintain(joined_before=joined_before, keep_after_us=keep_after_us))
        return run(log.extent()).first

    assert first_after(joined_before=15, keep_after_us=latest_us - 4 * DAY_US) == 0
    assert first_after(joined_before=4, keep_after_us=FOREVER) == 0
    assert first_after(joined_before=15, keep_after_us=latest_us - 3 * DAY_US + 1) == 5
    assert first_after(joined_before=9, keep_after_us=FOREVER) == 5
    assert first_after(joined_before=15, keep_after_us=FOREVER) == 15
    assert run(log.extent()).end == 15


def test_a_reader_goes_on_when_another_instance_drops_what_it_has_open(home: Home, run: Run) -> None:
    """An evaluation may be reading when retention comes by."""
    log, reader = home.event_log(seal_entries=5), home.event_log()
    for _ in range(3):
        run(log.append([interaction("e1")] * 5))
        seal(run, log)
    assert offsets(run(reader.read(2, limit=2))) == [2, 3]

    run(log.drop(before=10))

    assert offsets(run(reader.read(4, limit=ALL)))[-5:] == list(range(10, 15))
    assert [place.offset for [*places] in run(reader.locate([lookup("e1")])) for place in places] == list(range(10, 15))


def test_appending_and_housekeeping_in_one_process_keep_out_of_each_others_way(home: Home, run: Run) -> None:
    """The writer's thread and the housekeeper's share a process, and must still take turns."""
    log = home.event_log(seal_entries=1)

    async def append_and_seal() -> None:
        async def keep_house() -> None:
            for _ in range(25):
                await log.maintain(joined_before=0, keep_after_us=0)

        async def write(name: str) -> None:
            for index in range(60):
                await log.append([interaction(f"{name}{index}")], once=True)

        await asyncio.gather(keep_house(), keep_house(), *(write(name) for name in "abcd"))

    run(append_and_seal())
    entries = run(home.event_log().read(0, limit=ALL))

    assert offsets(entries) == list(range(240))
    assert len(set(event_ids(entries))) == 240


# Files: what only the embedded home can suffer


def sealed_file(home: SqliteHome, run: Run) -> Path:
    """Write a log of one sealed segment, and close it."""
    log = home.event_log(seal_entries=1)
    run(log.append([interaction(f"e{index}", context="x" * index) for index in range(50)]))
    seal(run, log)
    run(log.close())
    [path] = home.log_folder.glob("*.seg")
    return path


def use_all(run: Run, log: EventLog) -> None:
    """Read and locate everything."""
    assert event_ids(run(log.read(0, limit=ALL))) == [f"e{index}" for index in range(50)]
    found = run(log.locate([lookup(f"e{index}") for index in range(50)]))
    assert [[place.offset for place in places] for places in found] == [[index] for index in range(50)]


def test_a_damaged_sealed_file_is_refused_wherever_the_damage_is(sqlite_home: SqliteHome, run: Run) -> None:
    """Learning from a wrong byte would be worse than stopping: every byte of the file is under a checksum."""
    path = sealed_file(sqlite_home, run)
    whole = path.read_bytes()
    use_all(run, sqlite_home.event_log())

    for position in range(0, len(whole), 13):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
        with pytest.raises(StoreUnavailable, match=re.escape(path.name)):
            use_all(run, sqlite_home.event_log())

    path.write_bytes(whole)
    use_all(run, sqlite_home.event_log())


@pytest.mark.parametrize("left", [0, 7, 30, 200, -1, -20])
def test_a_sealed_file_that_was_cut_off_is_refused(sqlite_home: SqliteHome, run: Run, left: int) -> None:
    """A copy that broke off must not look like a log that is shorter."""
    path = sealed_file(sqlite_home, run)
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(StoreUnavailable, match=r"is damaged.*[Rr]estore it from a backup"):
        use_all(run, sqlite_home.event_log())


def test_a_sealed_file_that_is_gone_is_missed(sqlite_home: SqliteHome, run: Run) -> None:
    """Reading over the hole would join rewards without their interactions, and say nothing."""
    log = sqlite_home.event_log(seal_entries=5)
    for _ in range(3):
        run(log.append([interaction("e1")] * 5))
        seal(run, log)
    run(log.close())
    sorted(sqlite_home.log_folder.glob("*.seg"))[1].unlink()

    with pytest.raises(StoreUnavailable, match="entries 5 to 9"):
        run(sqlite_home.event_log().read(0, limit=ALL))


def test_appending_does_not_need_old_segments(sqlite_home: SqliteHome, run: Run) -> None:
    """A damaged file of last week must not stop the decisions of today."""
    path = sealed_file(sqlite_home, run)
    path.write_bytes(b"")
    log = sqlite_home.event_log()

    [result] = run(log.append([Observation(event_id="e1", value=1.0)]))

    assert isinstance(result, Appended)
    assert offsets(run(log.read(50, limit=ALL))) == [50]


def test_a_sealed_file_of_a_newer_format_is_refused_as_such(sqlite_home: SqliteHome, run: Run) -> None:
    """After a downgrade the file is in good order: "damaged" would send its owner the wrong way."""
    path = sealed_file(sqlite_home, run)
    newer = MAGIC.replace(b"\x00\x01", b"\x00\x02")
    path.write_bytes(path.read_bytes().replace(MAGIC, newer))

    with pytest.raises(StoreUnavailable, match="format 2, this rankward knows 1: use the newer one"):
        use_all(run, sqlite_home.event_log())


def test_a_live_segment_of_a_newer_format_is_refused_as_such(sqlite_home: SqliteHome, run: Run) -> None:
    """It must be left as it is, neither read wrongly nor appended to."""
    log = sqlite_home.event_log()
    run(log.append([Tick()]))
    run(log.close())
    [path] = sqlite_home.log_folder.glob("*.live")
    live = LiveSegment(path)
    live._connection.execute("PRAGMA user_version = 2")
    live.close()
    again = sqlite_home.event_log()

    with pytest.raises(StoreUnavailable, match="format 2, this rankward knows 1: use the newer one"):
        run(again.append([Tick()]))
    with pytest.raises(StoreUnavailable, match="format 2, this rankward knows 1: use the newer one"):
        run(again.read(0, limit=ALL))


def test_a_new_segment_is_as_every_process_opens_it(tmp_path: Path) -> None:
    """It is in WAL mode from the first: of two processes that have to turn it at once, one fails."""
    path = tmp_path / "0.live"
    create_live(path, first=0, time_us=0)

    assert path.read_bytes()[18:20] == b"\2\2"  # the versions of format to write and to read: 2 is WAL
    assert list(tmp_path.iterdir()) == [path], "all of it is in one file"


def test_a_rotation_that_did_not_finish_counts_for_nothing(sqlite_home: SqliteHome, run: Run) -> None:
    """The next segment lies there already, but the one before is open: that is where appending goes on."""
    log = sqlite_home.event_log(seal_entries=1)
    run(log.append([interaction("e0")]))
    run(log.close())
    create_live(sqlite_home.log_folder / f"{1:020d}.live", first=1, time_us=0)

    log = sqlite_home.event_log(seal_entries=3)
    append_each(run, log, [interaction("e1"), interaction("e2")])
    assert event_ids(run(sqlite_home.event_log().read(0, limit=ALL))) == ["e0", "e1", "e2"]
    seal(run, log)
    append_each(run, log, [interaction("e3")])

    again = sqlite_home.event_log()
    assert event_ids(run(again.read(0, limit=ALL))) == ["e0", "e1", "e2", "e3"]
    assert run(again.extent()).end == 4
    assert not (sqlite_home.log_folder / f"{1:020d}.live").exists()


def test_files_of_an_unfinished_sealing_are_passed_over(sqlite_home: SqliteHome, run: Run) -> None:
    """The file that was being written is not one yet; the segment it was made from is still there."""
    log = sqlite_home.event_log(seal_entries=1)
    run(log.append([interaction("e0")]))
    (sqlite_home.log_folder / f"{0:020d}.tmp").write_bytes(MAGIC + b"half of it")

    assert event_ids(run(sqlite_home.event_log().read(0, limit=ALL))) == ["e0"]
    seal(run, log)
    assert [path.suffix for path in sqlite_home.log_folder.glob(f"{0:020d}.*")] == [".seg"]
    assert event_ids(run(log.read(0, limit=ALL))) == ["e0"]


def test_a_segment_that_is_there_twice_is_read_once(sqlite_home: SqliteHome, run: Run) -> None:
    """Between the renaming of the sealed file and the removal of the live one, the power may fail."""
    log = sqlite_home.event_log(seal_entries=1)
    run(log.append([interaction("e0")]))
    [live] = sqlite_home.log_folder.glob("*.live")
    run(log.close())
    kept = live.read_bytes()
    log = sqlite_home.event_log(seal_entries=1)
    seal(run, log)
    assert not live.exists()
    live.write_bytes(kept)
    again = LiveSegment(live)
    again.begin()
    again.close_for_good()
    again.commit()
    again.close()

    log = sqlite_home.event_log(seal_entries=ALL)
    run(log.append([interaction("e1")], once=True))
    assert event_ids(run(log.read(0, limit=ALL))) == ["e0", "e1"]
    seal(run, log)
    assert not live.exists()
    assert event_ids(run(log.read(0, limit=ALL))) == ["e0", "e1"]


def test_a_log_whose_making_was_cut_off_is_made_again(sqlite_home: SqliteHome, run: Run) -> None:
    """The first start may be the one that is killed."""
    sqlite_home.log_folder.mkdir(parents=True)
    (sqlite_home.log_folder / f"{0:020d}.tmp").write_bytes(b"")
    log = sqlite_home.event_log()

    run(log.append([Tick()]))

    assert run(log.extent()).end == 1


def test_a_folder_that_cannot_be_used_is_not_called_a_full_disk(sqlite_home: SqliteHome, run: Run) -> None:
    """Whoever is told to free some space looks in the wrong place."""
    log = sqlite_home.event_log()
    [path] = sqlite_home.log_folder.glob("*.live")
    path.write_bytes(b"this is no database" * 500)

    with pytest.raises(StoreUnavailable, match="not a database"):
        run(log.append([Tick()]))


def test_recurring_actions_are_stored_once(sqlite_home: SqliteHome, run: Run) -> None:
    """An offer of twenty actions repeats with every decision, and would be most of the log."""
    log = sqlite_home.event_log(seal_entries=1)
    padding = Features(b'[{"text":"' + os.urandom(2_000).hex().encode() + b'"}]')
    offer = tuple(Action(f"a{index}", padding) for index in range(3))
    written = [msgspec.structs.replace(interaction(f"e{index}"), actions=offer) for index in range(100)]
    append_each(run, log, written)
    assert [entry.record for entry in run(log.read(0, limit=ALL))] == written
    seal(run, log)

    assert [entry.record for entry in run(log.read(0, limit=ALL))] == written
    assert sum(path.stat().st_size for path in sqlite_home.log_folder.glob("*.seg")) < 100_000


def test_an_append_that_failed_leaves_the_log_usable(sqlite_home: SqliteHome, run: Run) -> None:
    """One bad moment of the disk must not need a restart, and nothing of the failed call may appear."""
    log = sqlite_home.event_log()
    run(log.append([interaction("e0")]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in sqlite_home.log_folder.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 8_192, limits[1]))
        with pytest.raises(StorageFull, match="no room on the disk"):
            run(log.append([interaction(f"lost{index}", context="x" * 4_096) for index in range(40)]))
        with pytest.raises(StorageFull, match="no room on the disk"):
            run(log.append([interaction("lost", context="x" * 100_000)], once=True))
        assert event_ids(run(log.read(0, limit=ALL))) == ["e0"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    run(log.append([interaction("e1")]))

    assert event_ids(run(log.read(0, limit=ALL))) == ["e0", "e1"]
    assert event_ids(run(sqlite_home.event_log().read(0, limit=ALL))) == ["e0", "e1"]


def test_a_sealing_that_finds_no_room_can_be_done_later(sqlite_home: SqliteHome, run: Run) -> None:
    """Retention may make room first; the live segment stays what it is until its file is whole."""
    log = sqlite_home.event_log(seal_entries=1)
    written = [interaction(f"e{index}", context=os.urandom(4_000).hex()) for index in range(50)]
    run(log.append(written))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(StorageFull, match="no room on the disk"):
            seal(run, log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.record for entry in run(log.read(0, limit=ALL))] == written
    assert list(sqlite_home.log_folder.glob("*.seg")) == []

    seal(run, log)

    assert [entry.record for entry in run(log.read(0, limit=ALL))] == written
    assert len(list(sqlite_home.log_folder.glob("*.seg"))) == 1


def test_retention_makes_room_though_nothing_can_be_written(sqlite_home: SqliteHome, run: Run) -> None:
    """On a full disk it is what helps, so it must not wait for what needs room itself."""
    log = sqlite_home.event_log(seal_entries=1)
    run(log.append([interaction("old")]))
    seal(run, log)
    sqlite_home.clock.now_us += DAY_US
    run(log.append([interaction("new")]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        with pytest.raises(StorageFull, match="no room on the disk"):
            run(log.maintain(joined_before=1, keep_after_us=FOREVER))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert event_ids(run(log.read(0, limit=ALL))) == ["new"]


@pytest.mark.slow
def test_open_files_do_not_grow_with_the_log(sqlite_home: SqliteHome, run: Run) -> None:
    """Ninety days of hourly segments are more than the files that a process may open."""
    log = sqlite_home.event_log(seal_entries=1)
    for index in range(160):
        run(log.append([interaction(f"e{index}")]))
        seal(run, log)

    assert [len(found) for found in run(log.locate([lookup("e0"), lookup("e159")]))] == [1, 1]
    assert offsets(run(log.read(0, limit=ALL))) == list(range(160))
    links = [link.readlink() for link in list(Path("/dev/fd").iterdir()) if link.exists()]
    assert sum(link.suffix == ".seg" and link.parent == log.folder for link in links) <= 128
