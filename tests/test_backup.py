"""A backup is a consistent copy, whatever happens while it is made, and a folder restored from it goes on."""

from __future__ import annotations

import asyncio
import stat
import threading
import time
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.backup import MANIFEST, back_up, restore
from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.loops import playground_settings
from rankward.records import Action, Features, Interaction, LearningMode, Observation, Record, interactions
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.wiring import Home, now_us
from tests.service import PATIENCE_S, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rankward.records import JoinedEvent, LogEntry, TimeUs
    from rankward.store.ports import Loop

WAIT_US = 1_000
ACTIONS = tuple(Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b"))


def decision(event_id: str) -> Interaction:
    """Make a decision that is learnable within a millisecond."""
    return Interaction(
        event_id=event_id,
        context=Features(b'[{"hour":9}]'),
        actions=ACTIONS,
        pmf=(0.5, 0.5),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
    )


class Traffic:
    """A loop that is written to, joined and sealed by a thread of its own, as fast as it goes."""

    def __init__(self, home: Home, loop: Loop) -> None:
        self.home = home
        self.loop = loop
        self.acknowledged: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def go_on(self, events: int) -> None:
        """Wait until so many more events are acknowledged."""
        enough = len(self.acknowledged) + events
        eventually(lambda: len(self.acknowledged) >= enough, "events are acknowledged")

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        folder = self.home.folder.events(self.loop.loop_id)
        log = SqliteEventLog(folder, clock=now_us, seal=SealPolicy(entries=60))
        joined = self.home.joined_log(self.loop.loop_id)
        joining = JoiningService(log, joined, clock=now_us)
        for number in count():
            if self._stop.is_set():
                break
            event_id = f"event-{number}"
            await log.append([decision(event_id), Observation(event_id=event_id, value=1.0)])
            self.acknowledged.append(event_id)
            await joining.step()
            if number % 5 == 0:
                await log.maintain(joined_before=await joining.joined_before(), keep_after_us=0)
        await log.close()
        await joined.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A data folder as a first start makes it."""
    with closing(Home(tmp_path / "data")) as made:
        made.loops.furnish({})
        yield made


def playground(home: Home) -> Loop:
    """The loop that learns soon."""
    return home.catalog.loop("playground")


def append(home: Home, records: Sequence[Record], *, seal: bool = False) -> None:
    """Write to the playground's log."""

    async def run() -> None:
        folder = home.folder.events(playground(home).loop_id)
        log = SqliteEventLog(folder, clock=now_us, seal=SealPolicy(entries=1))
        await log.append(list(records))
        if seal:
            await log.maintain(joined_before=0, keep_after_us=0)
        await log.close()

    asyncio.run(run())


def entries_of(home: Home, loop: Loop) -> list[LogEntry]:
    """Read a loop's whole event log."""

    async def run() -> list[LogEntry]:
        log = home.event_log(loop.loop_id)
        try:
            return list(await log.read(0, limit=1_000_000))
        finally:
            await log.close()

    return asyncio.run(run())


@pytest.mark.slow
def test_whatever_was_acknowledged_before_a_backup_is_in_it(home: Home, tmp_path: Path) -> None:
    """Segments are closed, sealed and joined under the copy's eyes, and nothing may fall between."""
    loop = playground(home)
    copies = []
    with Traffic(home, loop) as traffic:
        for number in range(6):
            traffic.go_on(40)
            acknowledged = list(traffic.acknowledged)
            back_up(home.folder.root, tmp_path / f"copy-{number}", link=number % 2 == 0)
            copies.append((tmp_path / f"copy-{number}", acknowledged))
    for copy, acknowledged in copies:
        restore(copy, tmp_path / f"restored-{copy.name}")
        with closing(Home(tmp_path / f"restored-{copy.name}")) as restored:
            entries = entries_of(restored, loop)
            ids = [each.event_id for _, each in interactions(entries)]

            assert ids[: len(acknowledged)] == acknowledged
            assert [entry.offset for entry in entries] == list(range(len(entries)))
            assert len(joined_of(restored, loop)) == joined_end(restored, loop)  # none refers to what is not there
    assert any(list(copy.glob("loops/*/events/*.seg")) for copy, _ in copies), "nothing was sealed meanwhile"


def joined_of(home: Home, loop: Loop) -> list[JoinedEvent]:
    """Read a loop's joined events with their interactions."""

    async def run() -> list[JoinedEvent]:
        log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
        try:
            return (await read_joined(log, joined, 0, limit=1_000_000))[0]
        finally:
            await log.close()
            await joined.close()

    return asyncio.run(run())


def joined_end(home: Home, loop: Loop) -> int:
    """How many events a loop's joined log has."""

    async def run() -> int:
        joined = home.joined_log(loop.loop_id)
        try:
            return (await joined.extent())[1]
        finally:
            await joined.close()

    return asyncio.run(run())


def test_joining_and_training_go_on_from_a_restored_folder(home: Home, tmp_path: Path) -> None:
    """What a restored folder learns in the end is every event that it has, once."""
    loop = playground(home)
    with Traffic(home, loop) as traffic:
        traffic.go_on(40)
        learn(home, loop, until=lambda end: end > 20)
        made = back_up(home.folder.root, tmp_path / "copy.tar")
    restore(tmp_path / "copy.tar", tmp_path / "restored")

    with closing(Home(tmp_path / "restored")) as restored:
        begun = restored.catalog.versions(loop.loop_id)[0].learned
        join(restored, loop)
        whole = joined_end(restored, loop)
        learned = learn(restored, loop, until=lambda end: end == whole)
        ids = {each.event_id for _, each in interactions(entries_of(restored, loop))}
        assert 0 < begun <= learned == len(ids)
    assert {each.name for each in made.loops} == {"default", "playground"}


def join(home: Home, loop: Loop) -> None:
    """Let all waits be over, and join everything."""

    def later() -> TimeUs:
        return now_us() + 2 * WAIT_US

    async def run() -> None:
        log, joined = SqliteEventLog(home.folder.events(loop.loop_id), clock=later), home.joined_log(loop.loop_id)
        joining = JoiningService(log, joined, clock=later)
        while await joining.step():
            pass
        await log.close()
        await joined.close()

    asyncio.run(run())


def learn(home: Home, loop: Loop, *, until: Callable[[int], bool]) -> int:
    """Train the loop's epoch until its newest model has gone so far. Returns how much that has learned."""

    async def run() -> None:
        log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
        stop = asyncio.Event()
        [epoch] = home.catalog.epochs(loop.loop_id)
        settings = msgspec.structs.replace(playground_settings(), model_export_frequency=timedelta(milliseconds=1))
        found = home.catalog.loop(loop.name)
        home.catalog.update_loop(msgspec.structs.replace(found, settings=settings))
        training = asyncio.create_task(home.training(loop.name, epoch.epoch_id, log, joined).run(stop))
        deadline = time.monotonic() + PATIENCE_S
        while not any(until(version.joined_offset) for version in home.catalog.versions(loop.loop_id)):
            assert time.monotonic() < deadline, "training does not get there"
            assert not training.done(), training
            await asyncio.sleep(0.02)
        stop.set()
        await training
        await log.close()
        await joined.close()

    asyncio.run(run())
    return max(version.learned for version in home.catalog.versions(loop.loop_id))


def test_keys_go_along_readable_by_their_owner_only(home: Home, tmp_path: Path) -> None:
    """Clients must not need new keys after a restore, and a backup must not give them away."""
    keys, signs = home.loops.keys(), home.signing.keyring().certificate
    back_up(home.folder.root, tmp_path / "copy")
    back_up(home.folder.root, tmp_path / "copy.tar")
    for name in ("copy", "copy.tar"):
        restore(tmp_path / name, tmp_path / f"from-{name}")
        with closing(Home(tmp_path / f"from-{name}")) as restored:
            assert restored.loops.keys() == keys
            assert restored.signing.keyring().certificate == signs, "its own exports must not be foreign to it"
            for path in (restored.folder.keys, restored.folder.signing):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "copy.tar").stat().st_mode) == 0o600


def test_sealed_files_are_shared_unless_copies_are_wanted(home: Home, tmp_path: Path) -> None:
    """A backup on the same disk costs no room for what never changes."""
    append(home, [decision("e1")], seal=True)
    back_up(home.folder.root, tmp_path / "linked")
    back_up(home.folder.root, tmp_path / "copied", link=False)

    [original] = home.folder.root.glob("loops/*/events/*.seg")
    [linked] = (tmp_path / "linked").glob("loops/*/events/*.seg")
    [copied] = (tmp_path / "copied").glob("loops/*/events/*.seg")
    assert linked.samefile(original)
    assert not copied.samefile(original)


def test_only_listed_models_are_copied(home: Home, tmp_path: Path) -> None:
    """A stray file would be taken for the model that is published later under its name."""
    loop = playground(home)
    home.models.put(loop.loop_id, "1-500", b"of another life")
    back_up(home.folder.root, tmp_path / "copy")
    assert list((tmp_path / "copy").glob("loops/*/models/*")) == []


def test_what_was_learned_in_evaluations_goes_along(home: Home, tmp_path: Path) -> None:
    """So that an evaluation can be applied after a restore, too."""
    loop = home.loops.create("news", playground_settings())
    home.study_models.put(loop.loop_id, "study-0", b"learned")
    back_up(home.folder.root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    with closing(Home(tmp_path / "restored")) as restored:
        assert restored.study_models.get(loop.loop_id, "study-0") == b"learned"


def test_a_listed_model_whose_file_is_lost_is_left_out_and_named(home: Home, tmp_path: Path) -> None:
    """One lost file must not stand in the way of saving everything else."""
    loop = playground(home)
    append(home, [decision(f"e{number}") for number in range(30)])
    join(home, loop)
    learn(home, loop, until=lambda end: end == 30)
    for path in home.folder.root.glob("loops/*/models/*.vw"):
        path.unlink()

    made = back_up(home.folder.root, tmp_path / "copy")

    assert made.missing
    assert all(name.startswith("playground/") for name in made.missing)
    restore(tmp_path / "copy", tmp_path / "restored")
    with closing(Home(tmp_path / "restored")) as restored:
        assert restored.catalog.versions(loop.loop_id) == []
        assert learn(restored, loop, until=lambda end: end == 30) == 30


def test_a_backup_is_made_whole_or_not_at_all(home: Home, tmp_path: Path) -> None:
    """Whatever bears the name of a backup can be trusted."""
    append(home, [decision("e1")], seal=True)
    [sealed] = home.folder.root.glob("loops/*/events/*.seg")
    damage(sealed)

    with pytest.raises(StoreUnavailable, match="damaged"):
        back_up(home.folder.root, tmp_path / "backups" / "copy")

    assert list((tmp_path / "backups").iterdir()) == []


def damage(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)


def test_a_backup_is_not_made_over_something_or_inside_the_folder(home: Home, tmp_path: Path) -> None:
    """A backup of yesterday is worth more than a tidy command line."""
    (tmp_path / "there").mkdir()
    for target in (tmp_path / "there", home.folder.root / "copy", tmp_path / "copy.tar.gz"):
        with pytest.raises(Conflict):
            back_up(home.folder.root, target)
    with pytest.raises(NotFound):
        back_up(tmp_path / "nowhere", tmp_path / "copy")


def test_a_folder_that_is_not_empty_is_not_restored_into(home: Home, tmp_path: Path) -> None:
    """The data that is there may be all there is."""
    back_up(home.folder.root, tmp_path / "copy")
    with pytest.raises(Conflict, match="not empty"):
        restore(tmp_path / "copy", home.folder.root)
    assert home.catalog.loops()


@pytest.mark.parametrize("how", ["segment", "model", "live", "catalog", "gone", "newer", "cut", "no backup"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(home: Home, tmp_path: Path, how: str) -> None:
    """A service must not go on from something that is not what was saved."""
    loop = playground(home)
    append(home, [decision("e1"), decision("e2")], seal=True)
    join(home, loop)
    learn(home, loop, until=lambda end: end == 2)
    source = tmp_path / "copy"
    back_up(home.folder.root, source, link=False)
    [sealed] = source.glob("loops/*/events/*.seg")
    match how:
        case "segment":
            damage(sealed)
        case "model":
            damage(next(source.glob("loops/*/models/*.vw")))
        case "live":
            next(path for path in source.glob(f"loops/{loop.loop_id}/events/*.live")).write_bytes(b"no database" * 99)
        case "catalog":
            (source / "catalog.sqlite").write_bytes(b"no database" * 99)
        case "gone":
            append(home, [decision("e3")], seal=True)
            source = tmp_path / "second"
            back_up(home.folder.root, source, link=False)
            sorted(source.glob("loops/*/events/*.seg"))[1].unlink()
        case "newer":
            (source / "format").write_text("99\n")
        case "cut":
            source = tmp_path / "copy.tar"
            back_up(home.folder.root, source)
            source.write_bytes(source.read_bytes()[:9_000])
        case _:
            (source / MANIFEST).unlink()

    with pytest.raises(StoreUnavailable):
        restore(source, tmp_path / "restored")

    assert not (tmp_path / "restored").exists()


@pytest.mark.slow
def test_a_running_service_is_saved_and_the_restored_one_goes_on(tmp_path: Path) -> None:
    """The way an operator takes it: copy while it runs, then serve the copy."""
    running = RunningService(tmp_path / "old")
    again = RunningService(tmp_path / "new")
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    try:
        client = running.start().client("playground")
        for number in range(30):
            assert client.rank(request("a", "b", eventId=f"e{number}")).status_code == 201
            assert client.reward(f"e{number}", 1.0).status_code == 204
        back_up(running.root, tmp_path / "copy.tar")
        running.kill()
        restore(tmp_path / "copy.tar", again.root)

        client = again.start().client("playground")
        first = client.rank(request("a", "b", eventId="e29"))
        assert first.status_code == 201
        ids = [record.event_id for record in again.records("playground") if isinstance(record, Interaction)]
        assert ids == [f"e{number}" for number in range(30)]  # the last one is known, and was not logged again
        eventually(lambda: again.loop("playground").model_id is not None, "it learns from what was saved")
    finally:
        running.close()
        again.close()
