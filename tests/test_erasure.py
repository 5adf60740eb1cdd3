"""Forgetting: nothing of an erased event is left in the loop's files, and all else stays as it was."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rankward.administration.events import ToForget
from rankward.administration.service import Administration
from rankward.erasure import IDS_MAX, Forgotten, forget
from rankward.errors import InvalidRequest, WorldError
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.loops import new_loop_settings
from rankward.ranking.features import FeatureBounds
from rankward.records import (
    Action,
    Activation,
    Appended,
    Erased,
    Features,
    History,
    Interaction,
    LearningMode,
    Observation,
)
from rankward.records import PastObservation as Past
from rankward.settings import Limits
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.store.sqlite.sealed import Held, SealedSegment
from tests.loop.circle import Circle
from tests.service import PATIENCE_S

SECRET = "a-secret-of-somebody"


class Loop:
    """A loop whose segments and joined files are so small that a short story has many."""

    def __init__(self, folder: Path) -> None:
        self.circle = Circle(folder / "data", new_loop_settings())
        self.folder = self.circle.home.folder.loops / self.circle.loop.loop_id
        clock = self.circle.home.clock
        self.log = SqliteEventLog(self.circle.home.folder.events(self.circle.loop.loop_id), clock=clock, seal=SMALL)
        self.joined = SqliteJoinedLog(folder / "joined", file_entries=4)
        self.joining = JoiningService(self.log, self.joined, clock=clock)
        self.told: list[tuple[list[str], str | None]] = []  # what others were told to erase

    async def append(self, *event_ids: str, subject: str | None = None) -> None:
        """Log decisions, each with a reward and an activation."""
        for event_id in event_ids:
            await self.log.append([interaction(event_id, subject=subject)])
            await self.log.append([Observation(event_id=event_id, value=0.5), Activation(event_id=event_id)])
            await self.log.maintain(joined_before=0, keep_after_us=0)

    async def join(self) -> None:
        """Let the wait pass, and join."""
        self.circle.pass_time(700)
        while await self.joining.step():
            pass

    async def forget(self, *event_ids: str, subject: str | None = None) -> Forgotten:
        """Erase events."""
        catalog, loop_id = self.circle.home.catalog, self.circle.loop.loop_id

        async def tell(ids: Collection[str], whose: str | None) -> None:
            self.told.append((sorted(ids), whose))

        return await forget(
            catalog,
            self.log,
            self.joined,
            loop_id=loop_id,
            event_ids=list(event_ids),
            subject=subject,
            tell=tell,
        )

    async def event_ids(self) -> list[str]:
        """Of everything that is joined and can be learned."""
        events, _ = await read_joined(self.log, self.joined, 0, limit=1_000)
        return [event.interaction.event_id for event in events]

    def bytes_on_disk(self) -> bytes:
        """All that the files of both logs hold, compressed parts decompressed."""
        found = [path.read_bytes() for path in self.log.folder.iterdir() if path.is_file()]
        found += [path.read_bytes() for path in self.joined.folder.iterdir() if path.is_file()]
        for path in self.log.folder.glob("*.seg"):
            segment = SealedSegment(path, Held())
            found += [repr(row).encode() for row in segment.rows()]
        return b"".join(found)

    async def close(self) -> None:
        """Let go of everything."""
        await self.log.close()
        await self.joined.close()
        await self.circle.close()


SMALL = SealPolicy(entries=7)


def interaction(event_id: str, *, subject: str | None = None) -> Interaction:
    """A decision whose context has the event's id, to be searched for."""
    context = Features(msgspec.json.encode([{"note": {"says": f"{event_id}-context"}}]))
    actions = tuple([Action(name, Features(b'[{"x":1}]')) for name in ("a", "b")])
    return Interaction(
        event_id=event_id,
        context=context,
        actions=actions,
        pmf=(0.5, 0.5),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=600_000_000,
        subject=subject,
    )


def story_of(tell: Callable[[Loop], Awaitable[None]], tmp_path: Path) -> None:
    """Run a story in a loop of its own."""

    async def run() -> None:
        loop = Loop(tmp_path)
        try:
            await tell(loop)
        finally:
            await loop.close()

    asyncio.run(run())


@pytest.mark.parametrize("joined_before", [True, False])
def test_nothing_of_an_erased_event_is_left_in_the_files(tmp_path: Path, joined_before: bool) -> None:
    """Not in sealed segments, nor in the live one, nor in what SQLite keeps of rows that are gone."""

    async def tell(loop: Loop) -> None:
        await loop.append("e1", SECRET, "e2", "e3", "e4", f"{SECRET}-2", "e5")
        if joined_before:
            await loop.join()
        assert SECRET.encode() in loop.bytes_on_disk()

        done = await loop.forget(SECRET, f"{SECRET}-2", "unknown")

        assert done == Forgotten(events=2, records=6)
        assert SECRET.encode() not in loop.bytes_on_disk()
        await loop.join()
        assert await loop.event_ids() == ["e1", "e2", "e3", "e4", "e5"]
        assert await loop.forget(SECRET) == Forgotten(events=0, records=0), "it is gone"

    story_of(tell, tmp_path)


def test_a_subject_is_forgotten_with_all_that_was_said_of_its_events(tmp_path: Path) -> None:
    """Its rewards bear the ids of its events, and need not name it."""

    async def tell(loop: Loop) -> None:
        await loop.append("a1", "a2", subject="ann")
        await loop.append("b1", subject="bob")
        await loop.append("a3", subject="ann")
        await loop.append("n1")
        await loop.join()

        assert await loop.forget(subject="ann") == Forgotten(events=3, records=9)
        assert loop.told == 2 * [(["a1", "a2", "a3"], "ann")], "before the log forgets which they were, and after"

        assert await loop.event_ids() == ["b1", "n1"]

    story_of(tell, tmp_path)


def test_imported_events_are_forgotten_too(tmp_path: Path) -> None:
    """Whatever log they came from."""

    async def tell(loop: Loop) -> None:
        past = (Past(1, 0.5),)
        records = [
            History(interaction=interaction(f"h{n}", subject="ann"), time_us=5 + n, observations=past) for n in (1, 2)
        ]
        await loop.log.append(records)
        await loop.join()

        assert await loop.forget("h1") == Forgotten(events=1, records=1)

        assert await loop.event_ids() == ["h2"]
        assert (await loop.forget(subject="ann")).events == 1

    story_of(tell, tmp_path)


def test_a_rejoin_of_the_log_gives_the_joined_log_as_it_is_after_erasing(tmp_path: Path) -> None:
    """Entries keep their offsets, so models, evaluations and mirrors go on where they were."""

    async def tell(loop: Loop) -> None:
        await loop.append(*(f"e{n}" for n in range(10)))
        await loop.log.append([History(interaction=interaction("h"), time_us=5, observations=(Past(1, 0.5),))])
        await loop.join()
        await loop.append(*(f"f{n}" for n in range(5)))
        await loop.forget("e3", "h", "f1")
        await loop.join()

        again = SqliteJoinedLog(tmp_path / "again", file_entries=4)
        rejoining = JoiningService(loop.log, again, clock=loop.circle.home.clock, read=3, lane_read=2)
        while await rejoining.step():
            pass
        assert await again.read(0, limit=100) == await loop.joined.read(0, limit=100)
        await again.close()

    story_of(tell, tmp_path)


def test_a_step_of_joining_that_began_before_does_not_bring_anything_back(tmp_path: Path) -> None:
    """The worker may be in the middle of one while events are erased by another process."""

    async def tell(loop: Loop) -> None:
        await loop.append("e1", "e2")
        while await loop.joining.step():
            pass
        await loop.log.append([Observation(event_id="e1", value=0.25), Observation(event_id="e2", value=0.25)])
        joiner_of_the_worker = loop.joining
        await loop.forget("e1")
        loop.circle.pass_time(700)
        while await joiner_of_the_worker.step():
            pass

        entries = [entry for _, entry in await loop.joined.read(0, limit=10)]
        assert [len(entry.observations) for entry in entries] == [0, 2]

    story_of(tell, tmp_path)


def test_a_reader_that_holds_the_old_file_reads_the_new_one(tmp_path: Path) -> None:
    """Other processes have the segment open, and know where its blocks were."""

    async def tell(loop: Loop) -> None:
        await loop.append("e1", SECRET, "e2", "e3")
        other = SqliteEventLog(loop.log.folder, clock=loop.circle.home.clock, seal=SMALL)
        before = await other.read(0, limit=100)
        await loop.forget(SECRET)
        after = await other.read(0, limit=100)
        await other.close()

        assert [entry.offset for entry in after] == [entry.offset for entry in before]
        assert [entry.time_us for entry in after] == [entry.time_us for entry in before]
        erased = [entry.record for entry in after if isinstance(entry.record, Erased)]
        assert erased == [Erased(reward_wait_us=600_000_000), Erased(), Erased()]
        assert SECRET not in repr(after)

    story_of(tell, tmp_path)


def test_the_same_id_can_be_used_again(tmp_path: Path) -> None:
    """As if it had never been."""

    async def tell(loop: Loop) -> None:
        await loop.append("e1", "again", "e2", "e3")
        await loop.forget("again")

        [result] = await loop.log.append([interaction("again")], once=True)

        assert result == Appended()
        [entry] = await loop.log.read((await loop.log.extent()).end - 1, limit=1)
        assert entry.record == interaction("again")

    story_of(tell, tmp_path)


def test_a_run_after_one_that_broke_off_forgets_the_rest(tmp_path: Path) -> None:
    """The disk may fill up anywhere: between two segments, and between the two logs."""

    async def tell(loop: Loop) -> None:
        await loop.append(f"{SECRET}-1", "e1", "e2", "e3", subject="ann")
        await loop.log.append([Observation(event_id=f"{SECRET}-1", value=0.75)])
        await loop.append("e4", "e5", "e6", "e7")
        await loop.join()
        segments = sorted(loop.log.folder.glob("*.seg"))
        late = next(path for path in segments[1:] if SECRET in repr(list(SealedSegment(path, Held()).rows())))
        for obstacle in (late.with_suffix(".tmp"), next(loop.joined.folder.glob("*.joined")).with_suffix(".tmp")):
            obstacle.mkdir()  # in place of the file that would be written aside
            with pytest.raises(WorldError):
                await loop.forget(subject="ann")
            obstacle.rmdir()

        await loop.forget(subject="ann")

        assert SECRET.encode() not in loop.bytes_on_disk()
        assert await loop.event_ids() == ["e4", "e5", "e6", "e7"]
        entries = [entry for _, entry in await loop.joined.read(0, limit=100)]
        assert [len(entry.observations) for entry in entries] == [0, 0, 0, 0, 1, 1, 1, 1]

    story_of(tell, tmp_path)


def test_erasing_holds_up_nothing_but_the_log(tmp_path: Path) -> None:
    """It may take minutes, in the process that decides: whoever asks how far the log is must not stop that."""

    async def tell(loop: Loop) -> None:
        await loop.append(*(f"e{n}" for n in range(8)))
        await loop.join()
        path = next(loop.joined.folder.glob("*.joined"))
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)  # whoever reads it waits until somebody writes
        erasing = asyncio.create_task(loop.joined.erase([0], []))
        pipe = await asyncio.to_thread(path.open, "wb")  # returns once it is being read

        def write() -> None:
            with pipe:
                pipe.write(content)

        rescue = threading.Timer(PATIENCE_S / 2, write)
        rescue.start()
        asking = asyncio.create_task(loop.joined.extent())
        await asyncio.sleep(0)  # so that it begins
        held_up = not rescue.is_alive()
        if not held_up:
            rescue.cancel()
            write()
        await erasing
        assert await asking == (0, 8)
        assert not held_up

    story_of(tell, tmp_path)


def test_decisions_do_not_wait_while_the_log_is_looked_through(tmp_path: Path) -> None:
    """It is opened for that alone: a log lets in one reader at a time."""

    async def tell() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        await circle.play(3)

        def in_use(_: str) -> Any:
            pytest.fail("the log that decisions go to is in use")

        administration = Administration(
            circle.home,
            circle.configuration,
            circle.registry,
            log=in_use,
            joined=in_use,
            limits=Limits(),
            bounds=FeatureBounds(),
        )
        done = await administration.events.forget(circle.loop.name, ToForget(event_ids=["e1"]))
        assert done.events == 1
        await circle.close()

    asyncio.run(tell())


def test_what_cannot_be_looked_for_is_refused(tmp_path: Path) -> None:
    """Rather than to erase nothing, or to read the log with no end."""

    async def tell(loop: Loop) -> None:
        with pytest.raises(InvalidRequest, match="name events or a subject"):
            await loop.forget()
        with pytest.raises(InvalidRequest, match="several calls"):
            await loop.forget(*(f"e{n}" for n in range(IDS_MAX + 1)))

    story_of(tell, tmp_path)
