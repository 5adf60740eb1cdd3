"""The joined log in an archive: every event once, whatever fails on the way, and nothing dropped that is not in it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from rankward.archiving.layout import INDEX, Index, folder_of
from rankward.archiving.lines import events_in
from rankward.archiving.place import Place
from rankward.archiving.reading import open_archive
from rankward.archiving.service import NOTE, ArchivingService, ArchivingStatus, decode_index, digest_of, read_status
from rankward.errors import Conflict, StoreUnavailable
from rankward.joining.reader import read_joined
from rankward.loops import new_loop_settings
from rankward.records import JoinedEvent
from tests.archiving.bucket import Bucket
from tests.loop.circle import Circle
from tests.service import PATIENCE_S, eventually

HOUR_S = 3_600.0


def archiving(circle: Circle, place: Place, *, object_events: int = 1_000) -> ArchivingService:
    """What archives a loop, begun anew."""
    return ArchivingService(
        circle.loop,
        log=circle.log,
        joined=circle.joined,
        place=place,
        board=circle.home.board,
        clock=circle.home.clock,
        timer=circle.home.timer,
        object_events=object_events,
    )


async def play(circle: Circle, *hours: int) -> None:
    """Let so many events come in each hour, and be joined."""
    for hour, count in enumerate(hours):
        start_us = circle.now_us
        if count:
            await circle.play(count, prefix=f"{start_us}-{hour}-")
        circle.now_us = start_us + round(HOUR_S * 1e6)
        await circle.join()


async def archived(service: ArchivingService) -> int:
    """Archive what there is. Returns in how many steps."""
    steps = 0
    while await service.step():
        steps += 1
    return steps


def index_of(circle: Circle, place: Place) -> Index:
    """The index of the loop's archive."""
    content = place.read(folder_of(circle.loop.name, circle.loop.loop_id) + INDEX)
    assert content is not None
    return decode_index(content, "here")


def events_of(circle: Circle, place: Place) -> list[JoinedEvent]:
    """All events of the loop's archive, each object checked against the index."""
    found: list[JoinedEvent] = []
    folder = folder_of(circle.loop.name, circle.loop.loop_id)
    for span in index_of(circle, place).spans:
        content = place.read(folder + span.name)
        assert content is not None
        events = list(events_in(content, span.name))
        assert (len(events), digest_of(content), len(content)) == (span.events, span.digest, span.size_bytes)
        found += events
    return found


def status_of(circle: Circle, place: Place) -> ArchivingStatus:
    """What was left word of."""
    status = read_status(circle.home.board.read(circle.loop.loop_id).get(NOTE), place.url)
    assert status is not None
    return status


def story_of(tell: Callable[[Circle], Awaitable[None]], root: Path) -> None:
    """Run a story in a loop of its own, in a data folder."""

    async def run() -> None:
        circle = Circle(root, new_loop_settings())
        try:
            await tell(circle)
        finally:
            await circle.close()

    asyncio.run(run())


def test_every_hour_that_is_over_is_archived_as_it_was_joined(root: Path, place: Place) -> None:
    """The newest hour stays in the log: it may not be whole."""

    async def tell(circle: Circle) -> None:
        await play(circle, 7, 0, 5, 3)
        service = archiving(circle, place)
        assert await archived(service) == 2

        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:12]
        assert index_of(circle, place).end == 12
        await play(circle, 4)
        assert await archived(service) == 1
        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:15]
        assert (status_of(circle, place).offset, status_of(circle, place).joined_end) == (15, 19)

    story_of(tell, root)


def test_an_hour_with_more_than_an_object_holds_gets_several(tmp_path: Path, place: Place) -> None:
    """And need not be over for those that are full."""

    async def tell(circle: Circle) -> None:
        await play(circle, 25)
        assert await archived(archiving(circle, place, object_events=10)) == 2

        assert [span.events for span in index_of(circle, place).spans] == [10, 10]
        await play(circle, 1)
        assert await archived(archiving(circle, place, object_events=10)) == 1
        assert [span.events for span in index_of(circle, place).spans] == [10, 10, 5]

    story_of(tell, tmp_path / "data")


def test_what_was_written_before_a_death_is_there_once(root: Path, bucket: Bucket) -> None:
    """The object is in the bucket, and the index does not know of it: it is written again, in its place."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        await play(circle, 5, 5, 1)
        await archiving(circle, place).step()
        before = dict(bucket.objects)
        await archiving(circle, place).step()
        [index] = [name for name in bucket.objects if name.endswith(INDEX)]
        bucket.objects[index] = before[index]  # as if it had died before that
        names = set(bucket.objects)

        await archived(archiving(circle, place))

        assert set(bucket.objects) == names
        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:10]

    story_of(tell, root)


def test_one_that_was_paused_undoes_nothing(root: Path, bucket: Bucket) -> None:
    """Its successor has archived more meanwhile: what it would write over the index is refused, and it reads again."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        await play(circle, 5, 1)
        paused = archiving(circle, place)
        await archived(paused)
        await play(circle, 5, 1)
        await archived(archiving(circle, place))
        await play(circle, 5, 1)

        with pytest.raises(Conflict):
            await paused.step()
        await archived(paused)
        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:17]

    story_of(tell, root)


def test_the_log_of_a_backup_does_not_go_on_in_the_archive_of_the_first(tmp_path: Path) -> None:
    """Its offsets would be those of other events."""
    place = Place(f"file://{tmp_path}/archive")

    async def first(circle: Circle) -> None:
        await play(circle, 5, 5, 1)
        await archived(archiving(circle, place))

    async def other(circle: Circle) -> None:
        loop = msgspec.structs.replace(circle.loop, loop_id=ids[0])
        await play(circle, *hours)
        service = ArchivingService(
            loop,
            log=circle.log,
            joined=circle.joined,
            place=place,
            board=circle.home.board,
            clock=circle.home.clock,
            timer=circle.home.timer,
        )
        with pytest.raises(Conflict, match="restored from a backup"):
            await service.step()

    story_of(first, tmp_path / "one" / "data")
    ids = [name.split("/")[1] for name in place.names()]
    hours = [5]
    story_of(other, tmp_path / "behind" / "data")
    hours = [4, 7, 5]
    story_of(other, tmp_path / "ahead" / "data")


def test_what_is_not_archived_has_to_be_kept(root: Path, bucket: Bucket) -> None:
    """Retention goes by it, also while the archive does not answer, and after a restart."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        await play(circle, 5, 5, 5)
        service = archiving(circle, place)
        await archived(service)
        entries = await circle.joined.read(10, limit=5)
        assert 0 < status_of(circle, place).keep_from <= min(entry.interaction for _, entry in entries)

        kept = status_of(circle, place).keep_from
        bucket.refusing = True
        await play(circle, 5, 5)
        with pytest.raises(StoreUnavailable):
            await service.step()
        await service.fail("it does not answer")
        failing_since_us = circle.now_us
        circle.pass_time(60)
        await archiving(circle, place).fail("it does not answer")
        status = status_of(circle, place)
        assert (status.keep_from, status.failure) == (kept, "it does not answer")
        assert status.failing_since_us == failing_since_us

        bucket.refusing = False
        await archived(archiving(circle, place))
        status = status_of(circle, place)
        assert (status.failure, status.failing_since_us) == (None, None)
        assert status.keep_from > kept
        assert read_status(circle.home.board.read(circle.loop.loop_id)[NOTE], "s3://another") is None

    story_of(tell, root)


def test_an_archive_that_begins_late_says_what_it_misses(root: Path, place: Place) -> None:
    """Retention had taken it before."""

    async def tell(circle: Circle) -> None:
        await play(circle, 5, 5, 1)
        end = (await circle.log.extent()).end
        await circle.log.clear()
        await circle.joined.drop(before=end)
        await play(circle, 3, 1)
        await archived(archiving(circle, place))

        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:3]

    story_of(tell, root)


@pytest.mark.slow
def test_the_process_archives_every_loop_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """One that fails holds up no other."""
    place = Place(f"file://{tmp_path}/archive")

    async def tell(circle: Circle) -> None:
        circle.home.archives.settle(f"file://{tmp_path}/archive")
        await play(circle, 5, 4, 1)
        broken = circle.home.loops.create("a-broken-one", new_loop_settings())
        folder = circle.home.folder.joined(broken.loop_id)
        folder.mkdir(parents=True)
        (folder / "joined.sqlite").write_bytes(b"no database" * 1_000)
        command = [sys.executable, "-m", "rankward.roles", "archive", str(circle.home.folder.root)]
        with await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.PIPE) as process:
            folder_name = folder_of(circle.loop.name, circle.loop.loop_id)

            def is_done() -> bool:
                archive = open_archive(place, folder_name)
                return archive is not None and archive.index.end == 9

            await asyncio.to_thread(eventually, is_done, "both hours are archived")
            assert process.stdin is not None
            process.stdin.close()
            assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:9]

    story_of(tell, tmp_path / "data")
