"""What is forgotten is taken out of the archive, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zstandard

from rankward.archiving.layout import INDEX, Erasure
from rankward.archiving.place import Place
from rankward.archiving.service import ERASED_EVERY_US
from rankward.errors import StoreUnavailable
from rankward.joining.reader import read_joined
from tests.archiving.bucket import Bucket
from tests.archiving.test_archiving import archived, archiving, events_of, index_of, play, story_of
from tests.loop.circle import Circle
from tests.test_cli import Shell


def ids_of(circle: Circle, place: Place) -> list[str]:
    """The ids of all archived events."""
    return [event.interaction.event_id for event in events_of(circle, place)]


def texts_in(bucket: Bucket) -> bytes:
    """All that the bucket holds, decompressed."""
    return b"".join(
        zstandard.ZstdDecompressor().decompressobj().decompress(content) if name.endswith(".zst") else content
        for name, content in bucket.objects.items()
    )


def test_an_event_is_taken_out_of_its_object(root: Path, bucket: Bucket) -> None:
    """All else stays as it was, and where it was."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        circle.home.archives.settle(bucket.url)
        await play(circle, 5, 4, 3, 1)
        service = archiving(circle, place)
        await archived(service)
        before, names = ids_of(circle, place), set(bucket.objects)
        gone = before[5]
        circle.home.archives.erase(circle.loop.loop_id, "one", Erasure(event_ids=(gone, "unknown")))
        assert not await service.step(), "it has looked just now"
        circle.pass_time(ERASED_EVERY_US / 1e6)
        await archived(service)

        assert gone.encode() not in texts_in(bucket)
        assert ids_of(circle, place) == [name for name in before if name != gone]
        assert set(bucket.objects) == names
        assert not await archived(archiving(circle, place))

    story_of(tell, root)


def test_an_object_of_which_all_is_forgotten_goes(root: Path, bucket: Bucket) -> None:
    """And one that was written and not indexed when the process died, as it may have some of it."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        circle.home.archives.settle(bucket.url)
        await play(circle, 5, 1)
        await archived(archiving(circle, place))
        [index] = [name for name in bucket.objects if name.endswith(INDEX)]
        before = bucket.objects[index]
        await play(circle, 3, 2)
        await archived(archiving(circle, place))
        ids = ids_of(circle, place)
        bucket.objects[index] = before
        circle.home.archives.erase(circle.loop.loop_id, "one", Erasure(event_ids=tuple(ids)))
        assert await archiving(circle, place).step()

        assert [name for name in bucket.objects if name.endswith(".zst")] == []
        assert not any(each.encode() in texts_in(bucket) for each in ids)

    story_of(tell, root)


def test_an_erasure_that_was_cut_short_is_done_again(root: Path, bucket: Bucket) -> None:
    """Objects may have been written by then that the index does not describe any more."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        circle.home.archives.settle(bucket.url)
        await play(circle, 5, 4, 1)
        await archived(archiving(circle, place))
        ids = ids_of(circle, place)
        [index] = [name for name in bucket.objects if name.endswith(INDEX)]
        before = bucket.objects[index]
        circle.home.archives.erase(circle.loop.loop_id, "one", Erasure(event_ids=(ids[0],)))
        asked = {name: content for name, content in bucket.objects.items() if "/erasing/" in name}
        await archiving(circle, place).step()
        bucket.objects |= {index: before, **asked}  # as if it had died before the index was written
        await archiving(circle, place).step()

        assert ids_of(circle, place) == ids[1:]
        assert index_of(circle, place).spans[0].events == 4

    story_of(tell, root)


def test_what_is_forgotten_by_command_reaches_the_archive(tmp_path: Path) -> None:
    """By ids that the log has, and those that only the archive has."""
    shell = Shell(tmp_path / "data")
    url = f"file://{tmp_path}/archive"

    async def tell(circle: Circle) -> None:
        place = Place(url)
        circle.home.archives.settle(url)
        await play(circle, 5, 4, 1)
        await archived(archiving(circle, place))
        ids = ids_of(circle, place)
        await circle.log.drop(before=(await circle.log.extent()).end)
        await asyncio.to_thread(shell.ok, "forget", "circle", ids[2], "--yes")
        await archived(archiving(circle, place))

        assert ids_of(circle, place) == [*ids[:2], *ids[3:]]
        assert not any("/erasing/" in name for name in place.names())

    story_of(tell, tmp_path / "data")


def test_a_log_that_is_cleared_is_cleared_in_the_archive(root: Path, bucket: Bucket) -> None:
    """Whoever deletes a loop's log means all of it. What comes later is archived."""

    async def tell(circle: Circle) -> None:
        place = Place(bucket.url)
        circle.home.archives.settle(bucket.url)
        await play(circle, 5, 4, 1)
        service = archiving(circle, place)
        await archived(service)
        old = ids_of(circle, place)
        end = await circle.log.clear()
        await circle.home.archives.clear(circle.loop.loop_id, end)
        await play(circle, 3, 1)
        circle.pass_time(ERASED_EVERY_US / 1e6)
        await archived(service)

        joined, _ = await read_joined(circle.log, circle.joined, 0, limit=1_000)
        assert events_of(circle, place) == joined[:3]
        assert not any(each.encode() in texts_in(bucket) for each in old)

    story_of(tell, root)


def test_nothing_is_forgotten_where_the_archive_cannot_be_told(root: Path, bucket: Bucket) -> None:
    """It would be thought gone, and would still be there."""

    async def tell(circle: Circle) -> None:
        circle.home.archives.settle(bucket.url)
        bucket.refusing = True
        with pytest.raises(StoreUnavailable):
            circle.home.archives.erase(circle.loop.loop_id, "one", Erasure(event_ids=("e",)))

    story_of(tell, root)
