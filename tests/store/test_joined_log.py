"""The promises of the joined log, held against every backend; then what only files can suffer."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest
import zstandard

from rankward.errors import StorageFull, StoreUnavailable
from rankward.records import JoinedEntry, JoinedObservation
from rankward.store.ports import JoinedLog, JoinState, JoinStep, Match, Unmatched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.store.homes import Home, Run, SqliteHome

ALL = 1_000_000
FILE_ENTRIES = 5


@pytest.fixture
def home(log_home: Home) -> Home:
    """A home of each kind that has logs."""
    return log_home


def entry(interaction: int, *rewards: float) -> JoinedEntry:
    """Make a joined entry with these rewards."""
    observations = tuple(JoinedObservation(100 + index, index, reward) for index, reward in enumerate(rewards))
    return JoinedEntry(interaction, interaction, interaction + 10, observations)


def match(interaction: int, offset: int) -> Match:
    """Make a reward for an interaction."""
    return Match(interaction, JoinedObservation(offset, offset, 0.5, {"seconds": 1.0}), offset)


def unmatched(offset: int) -> Unmatched:
    """Make a reward that may be early."""
    return Unmatched(offset, offset, f"e{offset}", JoinedObservation(offset, offset, 1.0), late=False)


def commit(run: Run, joined: JoinedLog, entries: Sequence[JoinedEntry]) -> None:
    """Commit entries; the state only moves on."""
    run(joined.commit(JoinStep(state=JoinState(head=1), joined=entries)))


def offsets(run: Run, joined: JoinedLog, start: int = 0, limit: int = ALL) -> list[int]:
    """Read, see that offset and entry belong together, and return the offsets."""
    found = run(joined.read(start, limit=limit))
    assert [of.interaction for _, of in found] == [offset for offset, _ in found]
    return [offset for offset, _ in found]


def test_the_mark_moves_with_every_commit_and_only_then(home: Home, run: Run) -> None:
    """Trainers ask for it many times a second, and read the log when it has moved."""
    joined, other = home.joined_log(), home.joined_log()
    marks = [joined.change_mark()]
    assert joined.change_mark() == marks[0]

    for writer in (joined, other, other):
        commit(run, writer, [entry(len(marks) - 1)])
        marks.append(joined.change_mark())
        assert joined.change_mark() == marks[-1]

    assert len(set(marks)) == len(marks)


def test_a_new_log_is_empty(home: Home, run: Run) -> None:
    """The joiner begins at the start of the event log."""
    joined = home.joined_log()

    assert run(joined.state()) == JoinState()
    assert run(joined.extent()) == (0, 0)
    assert run(joined.read(0, limit=10)) == []


def test_a_step_is_there_after_reopening(home: Home, run: Run) -> None:
    """Entries, matches, early observations and the state are written as one, durably."""
    step = JoinStep(
        state=JoinState(head=7, now_us=8, lanes={600: 3, 5: 6}, counts={"joined": 2}),
        joined=[entry(0, 0.5, -1.0), entry(1)],
        matches=[match(5, 6), Match(5, None, 7)],
        early=[unmatched(4)],
    )
    joined = home.joined_log()
    run(joined.commit(step))
    run(joined.close())

    again = home.joined_log()

    assert run(again.state()) == step.state
    assert run(again.read(0, limit=ALL)) == list(enumerate(step.joined))
    assert run(again.matches([5, 6])) == {5: step.matches}
    assert run(again.early()) == step.early


def test_a_step_that_fails_leaves_nothing_behind(sqlite_home: SqliteHome, run: Run) -> None:
    """Half a step would join an event twice, or never."""
    joined = sqlite_home.joined_log()
    run(joined.commit(JoinStep(state=JoinState(head=1), joined=[entry(0)], early=[unmatched(1)])))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in (sqlite_home.folder / "joined").iterdir())
    large = JoinStep(
        state=JoinState(head=2),
        joined=[entry(index, *[0.5] * 1_000) for index in range(1, 200)],
        matches=[match(5, 6)],
        settled=[1],
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 8_192, limits[1]))
        with pytest.raises(StorageFull):
            run(joined.commit(large))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    for each in (joined, sqlite_home.joined_log()):
        assert run(each.state()) == JoinState(head=1)
        assert offsets(run, each) == [0]
        assert run(each.matches([5])) == {}
        assert run(each.early()) == [unmatched(1)]
    run(joined.commit(large))
    assert len(run(joined.read(0, limit=ALL))) == 200


def test_matches_are_kept_until_their_interaction_is_joined(home: Home, run: Run) -> None:
    """They wait as long as the interaction does: up to weeks, over restarts."""
    joined = home.joined_log()
    run(joined.commit(JoinStep(state=JoinState(head=1), matches=[match(3, 9), match(4, 7)])))
    run(joined.commit(JoinStep(state=JoinState(head=2), matches=[match(3, 8), match(3, 10)])))
    assert run(joined.matches([3, 4, 5])) == {
        3: [match(3, 8), match(3, 9), match(3, 10)],
        4: [match(4, 7)],
    }, "each list stands in log order"

    run(joined.commit(JoinStep(state=JoinState(head=3), joined=[entry(3, 0.5)])))

    assert run(joined.matches([3, 4])) == {4: [match(4, 7)]}


def test_the_matches_of_an_event_that_was_only_activated_are_let_go(home: Home, run: Run) -> None:
    """An activation is no observation, and would stay for ever."""
    joined = home.joined_log()
    run(joined.commit(JoinStep(state=JoinState(head=1), matches=[Match(3, None, 9)])))

    run(joined.commit(JoinStep(state=JoinState(head=2), joined=[JoinedEntry(3, 0, 10, activated=True)])))

    assert run(joined.matches([3])) == {}


def test_matches_of_many_interactions_are_found_at_once(home: Home, run: Run) -> None:
    """One step may join thousands: more than one statement can name."""
    joined = home.joined_log()
    run(joined.commit(JoinStep(state=JoinState(), matches=[match(index, 5_000 + index) for index in range(3_000)])))

    assert run(joined.matches(range(3_000))) == {index: [match(index, 5_000 + index)] for index in range(3_000)}


def test_early_observations_are_kept_until_they_are_settled(home: Home, run: Run) -> None:
    """A restart must not lose a reward that overtook its decision."""
    joined = home.joined_log()
    run(joined.commit(JoinStep(state=JoinState(head=1), early=[unmatched(2), unmatched(1)])))
    assert run(joined.early()) == [unmatched(1), unmatched(2)]

    run(joined.commit(JoinStep(state=JoinState(head=2), early=[unmatched(3)], settled=[1])))

    assert run(joined.early()) == [unmatched(2), unmatched(3)]


@pytest.mark.parametrize("per_step", [1, 3, 5, 23])
def test_a_log_reads_the_same_wherever_its_entries_are(home: Home, run: Run, per_step: int) -> None:
    """Old entries move into files, at counts that do not hang on the steps; a reader does not see it."""
    joined = home.joined_log(file_entries=FILE_ENTRIES)
    for begin in range(0, 23, per_step):
        commit(run, joined, [entry(index) for index in range(begin, min(23, begin + per_step))])
        assert offsets(run, joined) == list(range(min(23, begin + per_step)))

    for each in (joined, home.joined_log(file_entries=FILE_ENTRIES)):
        assert run(each.extent()) == (0, 23)
        for start in range(24):
            for limit in (1, 4, 5, 6, ALL):
                assert offsets(run, each, start, limit) == list(range(start, min(23, start + limit)))


def test_files_are_cut_at_fixed_counts(sqlite_home: SqliteHome, run: Run) -> None:
    """So that a rejoin makes the same files, which a backup need not copy again."""
    joined = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    for index in range(23):
        commit(run, joined, [entry(index)])

    names = sorted(path.name for path in (sqlite_home.folder / "joined").glob("*.joined"))
    assert [tuple(int(part) for part in name.split(".")[0].split("-")) for name in names] == [
        (0, 4),
        (5, 9),
        (10, 14),
    ]


@pytest.mark.slow
def test_a_reader_leaves_no_gap_while_another_instance_seals(home: Home, run: Run) -> None:
    """A trainer that missed the entries which were just on the move would never learn them."""
    writer = home.joined_log(file_entries=FILE_ENTRIES)
    reader = home.joined_log(file_entries=FILE_ENTRIES)

    times = 0

    async def write() -> int:
        begin = 0
        while begin < 600 or times < 20:  # the reader may be the slower one
            step = JoinStep(state=JoinState(head=begin), joined=[entry(index) for index in range(begin, begin + 3)])
            await writer.commit(step)
            begin += 3
        return begin

    async def read(writing: asyncio.Task[int]) -> None:
        nonlocal times
        while not writing.done():
            start = max(0, (await reader.extent())[1] - 4 * FILE_ENTRIES)
            found = [offset for offset, _ in await reader.read(start, limit=ALL)]
            assert found == list(range(start, start + len(found)))
            times += 1

    async def both() -> int:
        writing = asyncio.create_task(write())
        await read(writing)
        return await writing

    end = run(both())
    assert offsets(run, reader) == list(range(end))


def test_a_reader_sees_what_another_instance_erases(home: Home, run: Run) -> None:
    """Another process erases; a trainer that has read the file before must not learn from what it remembers of it."""
    joined, other = home.joined_log(file_entries=FILE_ENTRIES), home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index, 0.5) for index in range(3 * FILE_ENTRIES)])
    run(
        joined.commit(
            JoinStep(state=run(joined.state()), matches=[match(90, 91)], early=[unmatched(92), unmatched(93)])
        )
    )
    whole = run(other.read(0, limit=ALL))

    run(joined.erase([0, 2 * FILE_ENTRIES, 90], ["e92"]))

    for each in (joined, other, home.joined_log(file_entries=FILE_ENTRIES)):
        bare = {offset for offset, found in run(each.read(0, limit=ALL)) if not found.observations}
        assert bare == {0, 2 * FILE_ENTRIES}
        assert len(run(each.read(0, limit=ALL))) == len(whole)
        assert run(each.matches([90])) == {}
        assert run(each.early()) == [unmatched(93)]


def test_dropping_follows_the_event_log(home: Home, run: Run) -> None:
    """Entries whose interactions are gone are of no use; only whole files go, and none that is needed."""
    joined = home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index) for index in range(23)])

    run(joined.drop(before=9))
    assert run(joined.extent()) == (5, 23)
    run(joined.drop(before=10))
    assert run(joined.extent()) == (10, 23)
    assert offsets(run, joined, 3) == list(range(10, 23))
    run(joined.drop(before=ALL))

    first, end = run(joined.extent())
    assert end == 23
    assert offsets(run, joined) == list(range(first, 23))
    commit(run, joined, [entry(23)])
    assert run(joined.extent()) == (first, 24)


def test_matches_of_dropped_interactions_are_let_go(home: Home, run: Run) -> None:
    """Of a log that was cleared, nothing may stay: their interactions will never be joined."""
    joined = home.joined_log()
    kept, gone = Match(7, JoinedObservation(8, 1, 1.0), 8), Match(3, JoinedObservation(4, 1, 1.0), 4)
    run(joined.commit(JoinStep(state=JoinState(), matches=[gone, kept])))

    run(joined.drop(before=7))

    assert run(joined.matches([3, 7])) == {7: [kept]}


def test_a_reader_goes_on_when_another_instance_drops(home: Home, run: Run) -> None:
    """The answer then starts with what is there."""
    joined, reader = home.joined_log(file_entries=FILE_ENTRIES), home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index) for index in range(30)])
    assert offsets(run, reader, 0, 7) == list(range(7))

    run(joined.drop(before=15))

    assert offsets(run, reader, 15) == list(range(15, 30))


def test_a_sealing_that_was_cut_off_is_done_again(sqlite_home: SqliteHome, run: Run) -> None:
    """The file is there and the entries are still in the table: they must be read once."""
    joined = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index) for index in range(9)])
    folder = sqlite_home.folder / "joined"
    (folder / f"{0:020d}-{4:020d}.tmp").write_bytes(b"half of it")
    with sqlite3.connect(folder / "joined.sqlite") as connection:
        rows = connection.execute("SELECT * FROM entry").fetchall()
    commit(run, joined, [entry(9)])
    assert len(list(folder.glob("*.joined"))) == 1
    connection.executemany("INSERT INTO entry VALUES (?, ?)", rows[:5])
    connection.commit()
    connection.close()

    again = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    assert offsets(run, again) == list(range(10))
    assert run(again.extent()) == (0, 10)
    commit(run, again, [entry(10)])
    assert offsets(run, again) == list(range(11))


def test_a_damaged_file_is_refused(sqlite_home: SqliteHome, run: Run) -> None:
    """It can be made again from the event log, and the message says so."""
    joined = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index, 0.5) for index in range(10)])
    [path] = (sqlite_home.folder / "joined").glob("*.joined")
    whole = path.read_bytes()

    for damaged in (
        whole[:-1],
        b"",
        *(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))),
    ):
        path.write_bytes(damaged)
        with pytest.raises(StoreUnavailable, match=r"damaged.*rejoin the log"):
            run(sqlite_home.joined_log(file_entries=FILE_ENTRIES).read(0, limit=ALL))


def test_of_a_file_only_what_is_asked_for_is_decoded(sqlite_home: SqliteHome, run: Run) -> None:
    """Somebody who wants one old entry must not wait for the 65,535 beside it: here one that is none stands there."""
    joined = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    commit(run, joined, [entry(index, 0.5) for index in range(10)])
    [path] = (sqlite_home.folder / "joined").glob("*.joined")
    entries = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    path.write_bytes(zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(["no entry", *entries[1:]])))

    reader = sqlite_home.joined_log(file_entries=FILE_ENTRIES)
    assert offsets(run, reader, 1, 3) == [1, 2, 3]
    with pytest.raises(StoreUnavailable, match=r"damaged.*rejoin the log"):
        run(reader.read(0, limit=1))


def test_a_newer_format_is_refused_as_such(sqlite_home: SqliteHome, run: Run) -> None:
    """It must be neither read wrongly nor written to."""
    run(sqlite_home.joined_log().close())
    connection = sqlite3.connect(sqlite_home.folder / "joined" / "joined.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.close()

    with pytest.raises(StoreUnavailable, match="format 2, this rankward knows 1: use the newer one"):
        sqlite_home.joined_log()
