"""However often and in whatever steps a log is joined, the outcome is the same: so it can be rebuilt."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.records import (
    Action,
    Activation,
    Features,
    History,
    Interaction,
    JoinedEntry,
    JoinedObservation,
    LearningMode,
    LogEntry,
    Observation,
    PastObservation,
    Record,
    Tick,
    TimeUs,
)
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog

S = 1_000_000
TWO_MINUTES_US = 120 * S
DAY_US = 86_400 * S
Clock = Callable[[], TimeUs]
FILE_ENTRIES = 3  # of the joined log
EXAMPLES = int(os.environ.get("REJOIN_EXAMPLES", "40"))


class Act(msgspec.Struct, frozen=True):
    """Something that happens to a log while it is being joined."""

    passing_us: int  # how much time has passed since the act before
    records: tuple[Record, ...] = ()
    steps: int = 0
    restart: bool = False
    maintain: bool = False


class Size(msgspec.Struct, frozen=True):
    """How much one step of joining reads."""

    read: int = 4_000
    lane_read: int = 4_000


def decision(event_id: str, wait_us: int, *, deferred: bool = False) -> Interaction:
    """Make a decision for one of two actions."""
    return Interaction(
        event_id=event_id,
        context=Features(b"[]"),
        actions=(Action("x", Features(b"[]")), Action("y", Features(b"[]"))),
        pmf=(0.5, 0.5),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=wait_us,
        deferred=deferred,
    )


def records() -> st.SearchStrategy[Record]:
    """Draw what an application does, with so few ids and waits that everything meets."""
    ids = st.sampled_from(["a", "b", "c"])
    interactions = st.builds(
        lambda event_id, wait_us, deferred: decision(event_id, wait_us, deferred=deferred),
        ids,
        st.sampled_from([1, S, 2 * S, 10 * S, TWO_MINUTES_US, 300 * S, 2 * DAY_US]),
        st.booleans(),
    )
    observations = st.builds(lambda event_id, value: Observation(event_id=event_id, value=value), ids, st.floats(-1, 1))
    activations = st.builds(lambda event_id: Activation(event_id=event_id), ids)
    imported = st.builds(
        lambda interaction, value: History(
            interaction=interaction,
            time_us=7,
            observations=(PastObservation(8, value),),
            activated=interaction.deferred,
        ),
        interactions,
        st.floats(-1, 1),
    )
    return st.one_of(interactions, interactions, observations, observations, activations, imported, st.just(Tick()))


def acts() -> st.SearchStrategy[list[Act]]:
    """Draw a history: appends, steps of joining, restarts and sealing, in any order."""
    passing = st.sampled_from([0, 0, 1, S - 1, S, 2 * S, 9 * S, 60 * S, TWO_MINUTES_US, TWO_MINUTES_US + 1, DAY_US])
    return st.lists(
        st.builds(
            Act,
            passing,
            st.lists(records(), max_size=6).map(tuple),
            st.integers(0, 3),
            st.booleans(),
            st.booleans(),
        ),
        max_size=12,
    )


def sizes() -> st.SearchStrategy[Size]:
    """Draw how much is read at once: usually too little."""
    return st.builds(Size, st.sampled_from([1, 2, 3, 7, 4_000]), st.sampled_from([1, 2, 3, 7, 4_000]))


async def join_live(
    folder: Path, history: Sequence[Act], size: Size
) -> tuple[list[LogEntry], list[JoinedEntry], Counter[str]]:
    """Join a log while it is written. Returns what was written, what was joined, and what was counted."""
    now_us = S

    def clock() -> TimeUs:
        return now_us

    log = SqliteEventLog(folder / "log", clock=clock, seal=SealPolicy(entries=4))
    joined = SqliteJoinedLog(folder / "joined", file_entries=FILE_ENTRIES)
    service = _service(log, joined, clock, size)
    for act in history:
        now_us += act.passing_us
        if act.records:
            await log.append(act.records)
        if act.maintain:
            await log.maintain(joined_before=await service.joined_before(), keep_after_us=0)
        for _ in range(act.steps):
            await service.step()
        if act.restart:
            await joined.close()
            joined = SqliteJoinedLog(folder / "joined", file_entries=FILE_ENTRIES)
            service = _service(log, joined, clock, size)
    while await service.step():
        pass
    written = list(await log.read(0, limit=1_000_000))
    outcome = await _contents(log, joined)
    await joined.close()
    await log.close()
    return written, *outcome


async def join_again(folder: Path, size: Size) -> tuple[list[JoinedEntry], Counter[str]]:
    """Join a log that is there already, from its start. No time passes."""
    log = SqliteEventLog(folder / "log", clock=lambda: 0)
    joined = SqliteJoinedLog(folder / "joined again", file_entries=FILE_ENTRIES)
    service = _service(log, joined, lambda: 0, size)
    while await service.step():
        pass
    outcome = await _contents(log, joined)
    await joined.close()
    await log.close()
    return outcome


def _service(log: SqliteEventLog, joined: SqliteJoinedLog, clock: Clock, size: Size) -> JoiningService:
    return JoiningService(log, joined, clock=clock, read=size.read, lane_read=size.lane_read)


async def _contents(log: SqliteEventLog, joined: SqliteJoinedLog) -> tuple[list[JoinedEntry], Counter[str]]:
    entries = await joined.read(0, limit=1_000_000)
    assert [offset for offset, _ in entries] == list(range(len(entries)))
    events, following = await read_joined(log, joined, 0, limit=1_000_000)
    assert [event.entry for event in events] == [entry for _, entry in entries]
    assert following == len(entries)
    return [entry for _, entry in entries], Counter((await joined.state()).counts)


def join_by_the_rules(log: Sequence[LogEntry]) -> tuple[list[JoinedEntry], Counter[str]]:
    """Join a whole log the plain way: every observation is held against every interaction."""
    end_us = log[-1].time_us if log else 0
    interactions = [(entry, entry.record) for entry in log if isinstance(entry.record, Interaction)]
    reports = [(entry, entry.record) for entry in log if isinstance(entry.record, Observation | Activation)]
    found: dict[int, list[LogEntry]] = {entry.offset: [] for entry, _ in interactions}
    counts: Counter[str] = Counter()
    for report, record in reports:
        counts["observed" if isinstance(record, Observation) else "activations"] += 1
        same = [(entry, of) for entry, of in interactions if of.event_id == record.event_id]
        held = [
            entry
            for entry, of in same
            if entry.offset < report.offset and report.time_us - entry.time_us < of.reward_wait_us
        ]
        later = [
            entry
            for entry, _ in same
            if entry.offset > report.offset and entry.time_us - report.time_us <= TWO_MINUTES_US
        ]
        if held or later:
            found[(held or later)[0].offset].append(report)
        elif isinstance(record, Observation) and end_us - report.time_us > TWO_MINUTES_US:
            known = [
                entry
                for entry, of in same
                if entry.offset < report.offset and entry.time_us + of.reward_wait_us + DAY_US >= report.time_us
            ]
            counts["late" if known else "unknown"] += 1
    joined = []
    for entry, interaction in interactions:
        counts["ranked"] += 1
        due_us = entry.time_us + interaction.reward_wait_us
        if due_us > end_us:
            continue
        observations = tuple(
            JoinedObservation(report.offset, report.time_us, report.record.value)
            for report in found[entry.offset]
            if isinstance(report.record, Observation)
        )
        activated = any(isinstance(report.record, Activation) for report in found[entry.offset])
        joined.append(JoinedEntry(entry.offset, entry.time_us, due_us, observations, activated))
        counts["joined"] += 1
        if interaction.deferred and not activated:
            counts["never_activated"] += 1
        else:
            counts["rewarded" if observations else "defaulted"] += 1
            counts["baseline_chosen"] += 1
    for entry in log:
        if isinstance(entry.record, History):
            counts["imported"] += 1
            joined.append(entry.record.joined(entry.offset, entry.time_us))
    return sorted(joined, key=lambda entry: (entry.due_us, entry.interaction)), counts


def packed(entries: Sequence[JoinedEntry]) -> bytes:
    """The bytes of joined entries."""
    return msgspec.msgpack.encode(entries)


def hold_to_the_rules(folder: Path, history: Sequence[Act], live: Size, again: Size) -> Counter[str]:
    """Join a history while it happens, again from its log, and by the rules. Returns what was counted."""
    log, entries, counts = asyncio.run(join_live(folder, history, live))
    entries_again, counts_again = asyncio.run(join_again(folder, again))
    expected, expected_counts = join_by_the_rules(log)

    assert entries == expected
    assert packed(entries) == packed(entries_again) == packed(expected)
    assert counts == counts_again == expected_counts
    return counts


@pytest.mark.parametrize(("live", "again"), [(Size(), Size(1, 1)), (Size(2, 1), Size())])
def test_a_log_is_joined_live_as_it_is_joined_again(tmp_path: Path, live: Size, again: Size) -> None:
    """Rewards early, in time, late and of nobody; deferred and imported decisions; over sealing and a restart."""
    decided = [decision(event_id, 10 * S, deferred=event_id == "c") for event_id in "abc"]
    imported = History(interaction=decision("past", S), time_us=7, observations=(PastObservation(8, 0.5),))
    history = [
        Act(0, (Observation(event_id="b", value=-1.0), decided[0], imported), steps=1),
        Act(S, (decided[1], Observation(event_id="a", value=0.25)), steps=1, maintain=True),
        Act(S, (decided[2], Activation(event_id="c"), decision("d", S, deferred=True)), steps=2, restart=True),
        Act(8 * S, (Observation(event_id="a", value=1.0), Observation(event_id="b", value=1.0)), maintain=True),
        Act(TWO_MINUTES_US, (Observation(event_id="nobody", value=1.0), Tick()), steps=3, restart=True),
        Act(TWO_MINUTES_US + 1, (Tick(),)),
    ]
    counts = hold_to_the_rules(tmp_path, history, live, again)
    expected = dict.fromkeys(["defaulted", "never_activated", "activations", "late", "unknown", "imported"], 1)
    assert +counts == expected | {"ranked": 4, "joined": 4, "rewarded": 2, "baseline_chosen": 3, "observed": 5}


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(history=acts(), live=sizes(), again=sizes())
def test_joining_does_not_depend_on_batching(history: list[Act], live: Size, again: Size) -> None:
    """What ran live, over restarts and sealing, equals a rejoin and the plain rules, byte for byte."""
    with tempfile.TemporaryDirectory() as name:
        hold_to_the_rules(Path(name), history, live, again)
