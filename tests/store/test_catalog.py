"""The promises of the catalog, held against every backend; then what only a file can suffer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.settings import LoopSettings
from rankward.store.ports import Catalog, Epoch, Key, Lead, Loop, ModelVersion, SetAside
from rankward.store.sqlite.catalog import FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.store.homes import Home, SqliteHome


@pytest.fixture
def home(replicated_home: Home) -> Home:
    """Also the home of a node of a cluster."""
    return replicated_home


def a_loop(name: str = "news", loop_id: str = "1" * 32) -> Loop:
    """Make a loop."""
    return Loop(name=name, loop_id=loop_id, created_us=5, settings=LoopSettings())


def an_epoch(loop: Loop, reason: str = "created") -> Epoch:
    """Make an epoch that nobody has started."""
    return Epoch(
        epoch_id=0,
        loop_id=loop.loop_id,
        state="building",
        reason=reason,
        created_us=5,
        policy="--cb_explore_adf",
        derives_interactions=True,
        default_reward=0.0,
        reward_aggregation="earliest",
        since_us=0,
    )


def a_version(loop: Loop, model_id: str, *, epoch_id: int = 1, created_us: int = 10) -> ModelVersion:
    """Make a version of a model."""
    return ModelVersion(
        model_id=model_id,
        loop_id=loop.loop_id,
        epoch_id=epoch_id,
        created_us=created_us,
        joined_offset=3,
        learned=3,
        learned_to_us=9,
        policy="--cb_explore_adf",
        interactions=None,
        resumable=True,
        size_bytes=100,
        digest="0" * 64,
    )


def create(catalog: Catalog, loop: Loop) -> Loop:
    """Add a loop with two keys and its first epoch."""
    digests = [f"{loop.name} {slot}".encode() for slot in (1, 2)]
    keys = [Key(loop.name, slot, digest) for slot, digest in enumerate(digests, 1)]
    catalog.create_loop(loop, keys, an_epoch(loop))
    return catalog.loop(loop.name)


def _keys(catalog: Catalog) -> Sequence[Key]:
    return catalog.keys()


def states(catalog: Catalog, loop: Loop) -> list[tuple[int, str]]:
    """The epochs that are not over, by number and state."""
    return [(epoch.epoch_id, epoch.state) for epoch in catalog.epochs(loop.loop_id)]


def test_a_loop_is_there_after_reopening(home: Home) -> None:
    """With its settings, keys and first epoch, which serves from the start as there is nothing before it."""
    loop = a_loop()
    create(home.catalog(), loop)

    catalog = home.catalog()

    assert catalog.loops() == [loop]
    assert catalog.loop("news") == loop
    assert catalog.keys() == [Key("news", 1, b"news 1"), Key("news", 2, b"news 2")]
    [epoch] = catalog.epochs(loop.loop_id)
    assert epoch == msgspec.structs.replace(an_epoch(loop), epoch_id=1, state="serving")


def test_loops_stand_by_name(home: Home) -> None:
    """A list that jumps about cannot be read."""
    catalog = home.catalog()
    for index, name in enumerate(["b", "c", "a"]):
        create(catalog, a_loop(name, f"{index}" * 32))

    assert [loop.name for loop in catalog.loops()] == ["a", "b", "c"]


def test_an_unknown_loop_is_not_found(home: Home) -> None:
    """The caller gets a 404, which says where to look."""
    with pytest.raises(NotFound, match="there is no loop 'news'"):
        home.catalog().loop("news")


def test_a_name_is_given_once(home: Home) -> None:
    """Two people who set up the same loop must not share one unknowingly; nothing of the second is stored."""
    catalog = home.catalog()
    first = create(catalog, a_loop())
    second = a_loop(loop_id="2" * 32)

    with pytest.raises(Conflict, match="there is a loop 'news' already"):
        catalog.create_loop(second, [Key("news", 1, b"stolen")], an_epoch(second))

    assert catalog.loop("news") == first
    assert b"stolen" not in [key.digest for key in _keys(catalog)]
    assert catalog.epochs(second.loop_id) == []


def test_a_key_opens_one_loop(home: Home) -> None:
    """The key selects the loop, so that a key of two loops would select neither."""
    catalog = home.catalog()
    create(catalog, a_loop())
    other = a_loop("other", "2" * 32)

    with pytest.raises(Conflict):
        catalog.create_loop(other, [Key("other", 1, b"news 1")], an_epoch(other))
    with pytest.raises(Conflict):
        catalog.set_key(Key(None, 1, b"news 1"))

    assert [loop.name for loop in catalog.loops()] == ["news"]


def test_a_key_takes_the_place_of_the_one_in_its_slot(home: Home) -> None:
    """Keys are rotated one after the other; the old one stops working at once."""
    catalog = home.catalog()
    create(catalog, a_loop())

    catalog.set_key(Key("news", 1, b"new"))
    catalog.set_key(Key(None, 1, b"admin"))

    assert catalog.keys() == [Key(None, 1, b"admin"), Key("news", 1, b"new"), Key("news", 2, b"news 2")]


def test_a_change_moves_the_revision_on(home: Home) -> None:
    """Whoever holds the older one finds out when writing."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    settings = LoopSettings(reward_wait=timedelta(seconds=2))

    changed = catalog.update_loop(msgspec.structs.replace(loop, settings=settings, forgotten_before=7))

    assert changed == msgspec.structs.replace(loop, settings=settings, forgotten_before=7, revision=loop.revision + 1)
    assert home.catalog().loop("news") == changed


def test_of_two_changes_to_one_revision_the_second_is_refused(home: Home) -> None:
    """Otherwise it would undo the first, and nobody would know; its epoch must not start either."""
    catalog, other = home.catalog(), home.catalog()
    loop = create(catalog, a_loop())
    first = catalog.update_loop(msgspec.structs.replace(loop, forgotten_before=1))

    with pytest.raises(Conflict, match="read it and try again"):
        other.update_loop(msgspec.structs.replace(loop, forgotten_before=2), epoch=an_epoch(loop), retire=True)

    assert other.loop("news") == first
    assert states(other, loop) == [(1, "serving")]


def test_a_change_does_not_reach_another_loop_of_the_same_name(home: Home) -> None:
    """A loop that was deleted and made again begins at the same revision."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.delete_loop("news")
    again = create(catalog, a_loop(loop_id="2" * 32))

    with pytest.raises(Conflict):
        catalog.update_loop(msgspec.structs.replace(loop, forgotten_before=7))

    assert catalog.loop("news") == again


def test_a_changed_loop_comes_back_with_the_model_that_serves(home: Home) -> None:
    """A version may be published between the reading of a loop and its change, and that is no conflict."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.publish(a_version(loop, "m1"), serve=True)

    changed = catalog.update_loop(msgspec.structs.replace(loop, forgotten_before=1))

    assert changed.model_id == "m1"
    assert changed == catalog.loop("news")


def test_a_deleted_loop_leaves_nothing(home: Home) -> None:
    """Its keys open nothing any more; other loops keep theirs."""
    catalog = home.catalog()
    loop, other = create(catalog, a_loop()), create(catalog, a_loop("other", "2" * 32))
    for of in (loop, other):
        catalog.publish(a_version(of, "m1"), serve=True)
        catalog.set_aside(SetAside(loop_id=of.loop_id, interaction=1, event_id="e", reason="r", time_us=1))

    catalog.delete_loop("news")

    assert [each.name for each in catalog.loops()] == ["other"]
    assert {key.loop for key in _keys(catalog)} == {"other"}
    for kept, of in ((0, loop), (1, other)):
        assert len(catalog.epochs(of.loop_id)) == kept
        assert len(catalog.versions(of.loop_id)) == kept
        assert len(catalog.set_asides(of.loop_id)) == kept
    with pytest.raises(NotFound):
        catalog.delete_loop("news")


def test_a_new_epoch_builds_while_the_old_one_serves(home: Home) -> None:
    """A change of the policy must not leave Rank without a model until the new one has caught up."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.publish(a_version(loop, "m1"), serve=True)

    loop = catalog.update_loop(catalog.loop("news"), epoch=an_epoch(loop, "policy"))
    assert states(catalog, loop) == [(1, "serving"), (2, "building")]
    catalog.publish(a_version(loop, "m2", epoch_id=2), serve=False)
    assert states(catalog, loop) == [(1, "serving"), (2, "building")]
    assert catalog.loop("news").model_id == "m1"
    catalog.publish(a_version(loop, "m3", epoch_id=2), serve=True)

    assert states(catalog, loop) == [(2, "serving")]
    assert catalog.loop("news").model_id == "m3"


def test_a_serving_epoch_goes_on_publishing_beside_one_that_builds(home: Home) -> None:
    """Its versions are served, and the younger epoch is not touched by it."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.update_loop(loop, epoch=an_epoch(loop))

    catalog.publish(a_version(loop, "m1", epoch_id=1), serve=True)

    assert states(catalog, loop) == [(1, "serving"), (2, "building")]
    assert catalog.loop("news").model_id == "m1"


def test_an_epoch_that_starts_ends_the_one_that_was_building(home: Home) -> None:
    """Of two changes in a row, only the last one's outcome is wanted; numbers are not used again."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    loop = catalog.update_loop(loop, epoch=an_epoch(loop))

    catalog.update_loop(loop, epoch=an_epoch(loop))

    assert states(catalog, loop) == [(1, "serving"), (3, "building")]


def test_retiring_makes_room_for_an_epoch_that_serves_at_once(home: Home) -> None:
    """A deleted or imported model takes effect now: the loop answers with what it is given, or with none."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.publish(a_version(loop, "m1"), serve=True)
    without = msgspec.structs.replace(catalog.loop("news"), model_id=None, forgotten_before=9)

    changed = catalog.update_loop(without, epoch=an_epoch(loop, "model deleted"), retire=True)

    assert changed.model_id is None
    assert catalog.loop("news") == changed
    assert states(catalog, loop) == [(2, "serving")]


def test_an_epoch_that_is_over_publishes_nothing(home: Home) -> None:
    """The trainer may have been writing when the model was deleted: it must not come back."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.update_loop(loop, epoch=an_epoch(loop), retire=True)

    catalog.publish(a_version(loop, "late", epoch_id=1), serve=True)
    catalog.publish(a_version(loop, "never", epoch_id=9), serve=True)

    assert catalog.versions(loop.loop_id) == []
    assert catalog.loop("news").model_id is None
    assert states(catalog, loop) == [(2, "serving")]


def test_what_an_epoch_settles_is_kept(home: Home) -> None:
    """Its start is settled by the first event, and must be the same after a restart."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    [epoch] = catalog.epochs(loop.loop_id)
    settled = msgspec.structs.replace(epoch, start=4)

    catalog.settle_epoch(settled)

    assert home.catalog().epochs(loop.loop_id) == [settled]


def test_settling_does_not_bring_an_epoch_back(home: Home) -> None:
    """The trainer holds an older view of it than the catalog."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    [epoch] = catalog.epochs(loop.loop_id)
    catalog.update_loop(loop, epoch=an_epoch(loop), retire=True)

    catalog.settle_epoch(msgspec.structs.replace(epoch, start=4))

    assert states(catalog, loop) == [(2, "serving")]


def test_versions_stand_newest_first_and_once(home: Home) -> None:
    """The list is what an operator rolls back by; a trainer that was killed records its last one again."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    for index in range(1, 4):
        catalog.publish(a_version(loop, f"m{index}", created_us=index), serve=True)
    catalog.publish(msgspec.structs.replace(a_version(loop, "m3", created_us=3), learned=99), serve=True)

    assert [version.model_id for version in catalog.versions(loop.loop_id)] == ["m3", "m2", "m1"]
    assert catalog.versions(loop.loop_id)[0] == a_version(loop, "m3", created_us=3)
    catalog.forget_version("m2", loop.loop_id)
    assert [version.model_id for version in catalog.versions(loop.loop_id)] == ["m3", "m1"]


def test_an_event_is_set_aside_once(home: Home) -> None:
    """The learner that it broke is started again, and may break again; the first reason stays."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    event = SetAside(loop_id=loop.loop_id, interaction=9, event_id="e9", reason="crashed", time_us=5)

    for each in (event, msgspec.structs.replace(event, reason="again", time_us=6)):
        catalog.set_aside(each)
    catalog.set_aside(msgspec.structs.replace(event, interaction=3, event_id="e3"))

    assert [each.interaction for each in catalog.set_asides(loop.loop_id)] == [3, 9]
    assert home.catalog().set_asides(loop.loop_id)[1] == event


def test_the_change_mark_moves_with_every_change_and_with_nothing_else(home: Home) -> None:
    """All processes poll it: one that missed a change would serve old settings until its next start."""
    catalog, other = home.catalog(), home.catalog()
    loop = create(catalog, a_loop())
    [epoch] = catalog.epochs(loop.loop_id)
    aside = SetAside(loop_id=loop.loop_id, interaction=9, event_id="e9", reason="crashed", time_us=5)
    marks = [(catalog.change_mark(), other.change_mark())]

    for change in (
        lambda: catalog.set_key(Key("news", 1, b"new")),
        lambda: other.set_key(Key("news", 2, b"newer")),
        lambda: catalog.publish(a_version(loop, "m1"), serve=True),
        lambda: other.update_loop(other.loop("news"), epoch=an_epoch(loop)),
        lambda: catalog.settle_epoch(msgspec.structs.replace(epoch, start=4)),
        lambda: other.set_aside(aside),
        lambda: catalog.delete_loop("news"),
    ):
        change()
        mark = (catalog.change_mark(), other.change_mark())
        assert all(now != before for earlier in marks for now, before in zip(mark, earlier, strict=True))
        catalog.loops()
        other.keys()
        assert (catalog.change_mark(), other.change_mark()) == mark
        marks.append(mark)


_COUNTER = """
    import sys
    from pathlib import Path
    import msgspec
    from rankward.errors import Conflict
    from rankward.store.sqlite.catalog import SqliteCatalog

    catalog = SqliteCatalog(Path(sys.argv[1]))
    sys.stdin.readline()
    done = 0
    while done < 50:
        loop = catalog.loop("news")
        try:
            catalog.update_loop(msgspec.structs.replace(loop, forgotten_before=loop.forgotten_before + 1))
            done += 1
        except Conflict:
            pass
"""


@pytest.mark.slow
def test_two_processes_that_change_a_loop_at_once_lose_nothing(sqlite_home: SqliteHome) -> None:
    """Each reads, changes and writes; whoever was overtaken tries again."""
    catalog = sqlite_home.catalog()
    create(catalog, a_loop())
    command = [sys.executable, "-c", textwrap.dedent(_COUNTER), str(sqlite_home.folder / "catalog.sqlite")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()

    assert [process.wait() for process in processes] == [0, 0]
    assert catalog.loop("news").forgotten_before == 100
    assert catalog.loop("news").revision == 100


def test_a_loop_is_led_by_one_at_a_time(home: Home) -> None:
    """Two workers that act for a loop would undo each other's work."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    assert catalog.leads() == {}
    first = catalog.take_lead(loop.loop_id, "one", over_term=0)
    with pytest.raises(Conflict, match="taken"):
        catalog.take_lead(loop.loop_id, "two", over_term=0)
    assert catalog.leads() == {loop.loop_id: Lead("one", first.term)}
    second = catalog.take_lead(loop.loop_id, "two", over_term=first.term)
    assert second.term > first.term
    catalog.release_lead(first)  # it is not its own to give any more
    assert catalog.leads() == {loop.loop_id: Lead("two", second.term)}
    catalog.release_lead(second)
    assert catalog.leads() == {loop.loop_id: Lead("", second.term)}


def test_a_loop_that_is_gone_is_led_by_nobody(home: Home) -> None:
    """A worker that has not heard of it yet must not leave anything behind."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.take_lead(loop.loop_id, "one", over_term=0)
    catalog.delete_loop(loop.name)
    assert catalog.leads() == {}
    with pytest.raises(NotFound):
        catalog.take_lead(loop.loop_id, "one", over_term=1)


def test_an_older_format_is_brought_up_to_date(sqlite_home: SqliteHome) -> None:
    """A folder of an earlier version opens, with all that is in it."""
    loop = create(sqlite_home.catalog(), a_loop())
    connection = sqlite3.connect(sqlite_home.folder / "catalog.sqlite")
    tables = ("study", "finding", "audit", "challenger", "challenger_aside", "optimization", "lead", "log_import")
    connection.executescript("".join([f"DROP TABLE {table};" for table in tables]) + "PRAGMA user_version = 1")
    connection.close()

    assert sqlite_home.catalog().loop("news") == loop
    assert sqlite_home.studies().unfinished() == []
    assert sqlite_home.catalog().loop("news") == loop, "it is brought up to date once"


def test_a_newer_format_is_refused_as_such(sqlite_home: SqliteHome) -> None:
    """It must be neither read wrongly nor written to."""
    create(sqlite_home.catalog(), a_loop())
    connection = sqlite3.connect(sqlite_home.folder / "catalog.sqlite")
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()

    with pytest.raises(StoreUnavailable, match=f"format {FORMAT + 1}, this rankward knows {FORMAT}: use the newer one"):
        sqlite_home.catalog()


def test_a_file_that_is_no_catalog_is_refused(sqlite_home: SqliteHome) -> None:
    """Whatever it is, it is somebody's."""
    path = sqlite_home.folder / "catalog.sqlite"
    path.write_bytes(b"this is no database" * 500)

    with pytest.raises(StoreUnavailable, match="not a database"):
        sqlite_home.catalog()
    assert path.read_bytes() == b"this is no database" * 500


def test_a_version_that_serves_is_not_forgotten_unless_it_is_lost(home: Home) -> None:
    """A loop whose serving version is not on record could not be served after a restart."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.publish(a_version(loop, "m1"), serve=True)

    assert not catalog.forget_version("m1", loop.loop_id)
    assert catalog.loop(loop.name).model_id == "m1"

    catalog.lose_version("m1", loop.loop_id)
    assert catalog.loop(loop.name).model_id is None
    assert catalog.versions(loop.loop_id) == []


def test_a_version_that_an_epoch_goes_on_from_is_not_forgotten(home: Home) -> None:
    """Its trainer would find nothing to go on from."""
    catalog = home.catalog()
    loop = create(catalog, a_loop())
    catalog.add_version(a_version(loop, "base"))
    catalog.update_loop(loop, epoch=msgspec.structs.replace(an_epoch(loop), base="base"))

    assert not catalog.forget_version("base", loop.loop_id)
