"""Archive and log, read as one: as if retention had taken nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rankward.archiving.place import Place
from rankward.archiving.whole import WholeLog
from rankward.errors import StoreUnavailable
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.records import JoinedEvent, Offset
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from tests.archiving.bucket import Bucket
from tests.archiving.test_archiving import archived, archiving, play, story_of
from tests.loop.circle import Circle

EVER = 1 << 62


def whole_of(circle: Circle, since_us: int = 0, until_us: int = EVER) -> WholeLog:
    """What reads a loop's archive and log."""
    return circle.home.archives.whole_log(
        circle.loop.loop_id, circle.log, circle.joined, since_us=since_us, until_us=until_us
    )


async def read_all(whole: WholeLog, end: Offset, *, limit: int = 4) -> list[JoinedEvent]:
    """Read from the beginning on."""
    found: list[JoinedEvent] = []
    position = await whole.begin()
    while position < end:
        events, following = await whole.read(position, limit=min(limit, end - position))
        assert position < following <= position + limit
        found += events
        position = following
    return found


async def hours(circle: Circle, *counts: int) -> None:
    """Let so many events come in each hour, each with segments of its own."""
    for count in counts:
        await play(circle, count)
        await circle.log.maintain(joined_before=0, keep_after_us=0)


async def cut_small(circle: Circle) -> None:
    """Let the joined log have small files, so that retention takes some of them, too."""
    await circle.joined.close()
    circle.joined = SqliteJoinedLog(circle.home.folder.joined(circle.loop.loop_id), file_entries=4)
    circle.joining = JoiningService(circle.log, circle.joined, clock=circle.home.clock)


async def forget_hours(circle: Circle, count: int) -> None:
    """Let retention take the oldest hours."""
    firsts = sorted(int(path.stem) for path in circle.home.folder.events(circle.loop.loop_id).glob("*.seg"))
    await circle.log.drop(before=firsts[count])
    await circle.joined.drop(before=(await circle.log.extent()).first)
    assert (await circle.log.extent()).first == firsts[count]


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_what_retention_has_taken_comes_from_the_archive(tmp_path: Path, *, limit: int) -> None:
    """Each event once, and in the same order: also where waits differ, so that decisions of two hours mix."""

    async def tell(circle: Circle) -> None:
        await cut_small(circle)
        circle.home.archives.settle(f"file://{tmp_path}/archive")
        place = circle.home.archives.place()
        assert place is not None
        await hours(circle, 5, 6)
        loop = circle.loop
        longer = msgspec.structs.replace(loop.settings, reward_wait=2 * loop.settings.reward_wait)
        await circle.ranking.follow(msgspec.structs.replace(loop, settings=longer))
        await hours(circle, 7, 8, 9)
        await archived(archiving(circle, place))
        joined, end = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert len(joined) == 35

        for _ in range(3):
            await forget_hours(circle, 1)
            left, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
            assert len(left) < 35
            assert await read_all(whole_of(circle), end, limit=limit) == joined
        middle = joined[8].entry.time_us, joined[27].entry.time_us
        within = [event for event in joined if middle[0] <= event.entry.time_us < middle[1]]
        assert await read_all(whole_of(circle, *middle), end, limit=limit) == within
        first, _ = await circle.joined.extent()
        assert first > 0
        assert await whole_of(circle).archived() >= first

    story_of(tell, tmp_path / "data")


def test_retention_may_go_on_while_it_is_read(tmp_path: Path, bucket: Bucket) -> None:
    """An evaluation of a year takes hours."""

    async def tell(circle: Circle) -> None:
        await cut_small(circle)
        circle.home.archives.settle(bucket.url)
        place = Place(bucket.url)
        await hours(circle, 5, 6, 7, 8, 9)
        service = archiving(circle, place)
        await service.step()
        joined, end = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        whole = whole_of(circle)
        found, position = await whole.read(0, limit=2)
        await archived(service)
        await forget_hours(circle, 2)
        more, position = await whole.read(position, limit=7)
        found += more
        await forget_hours(circle, 1)
        while position < end:
            more, position = await whole.read(position, limit=2)
            found += more

        assert found == joined

    story_of(tell, tmp_path / "data")


def test_the_archive_is_asked_only_for_what_the_log_lacks(tmp_path: Path, bucket: Bucket) -> None:
    """Reading it costs time, and perhaps money."""

    async def tell(circle: Circle) -> None:
        await cut_small(circle)
        circle.home.archives.settle(bucket.url)
        await hours(circle, 5, 6, 7, 8, 9)
        await archived(archiving(circle, Place(bucket.url)))
        joined, end = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        bucket.reads.clear()
        assert await read_all(whole_of(circle), end) == joined
        assert bucket.reads == []

        await forget_hours(circle, 3)
        since_us = joined[30].entry.time_us
        newest = [event for event in joined if event.entry.time_us >= since_us]
        assert await read_all(whole_of(circle, since_us), end) == newest
        assert not any(name.endswith(".zst") for name in bucket.reads)

        bucket.refusing = True
        with pytest.raises(StoreUnavailable):
            await read_all(whole_of(circle), end)

    story_of(tell, tmp_path / "data")
