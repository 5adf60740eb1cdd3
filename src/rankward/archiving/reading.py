"""Reads an archive: what is in it, whether all of it is as it was written, and its events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from rankward.archiving.layout import ENDING, INDEX, Index, Span
from rankward.archiving.lines import events_in
from rankward.archiving.place import Place
from rankward.archiving.service import decode_index, digest_of
from rankward.errors import InvalidRequest, NotFound, StoreUnavailable
from rankward.records import JoinedEvent, Offset, TimeUs


class Archive(msgspec.Struct, frozen=True):
    """The archive of one loop, as its index was when it was opened."""

    place: Place
    folder: str  # within the place
    index: Index

    def spans(self, *, start: Offset, before: Offset, since_us: TimeUs | None, until_us: TimeUs | None) -> list[Span]:
        """Find the objects that may hold some events: see `events`."""
        return [
            span
            for span in self.index.spans
            if span.end > start
            and span.start < before
            and (since_us is None or span.last_us >= since_us)
            and (until_us is None or span.first_us < until_us)
        ]

    def events(self, span: Span) -> Iterator[JoinedEvent]:
        """Read the events of an object, in the order of the joined log.

        Raises:
            StoreUnavailable: it is missing or damaged, or the store does not answer.
        """
        content = self.place.read(self.folder + span.name)
        if content is None:
            raise StoreUnavailable(f"{span.name} is missing from the archive {self.place.url}/{self.folder}")
        return events_in(content, span.name)


def open_archive(place: Place, folder: str) -> Archive | None:
    """Open the archive of a loop.

    Args:
        place: where the archive is.
        folder: of the loop, as `layout.folder_of` names it.

    Returns:
        None: there is none yet.

    Raises:
        StoreUnavailable: its index cannot be read.
    """
    content = place.read(folder + INDEX)
    return None if content is None else Archive(place, folder, decode_index(content, f"{place.url}/{folder}"))


def find_archive(place: Place) -> Archive:
    """Open the archive at an address: that of a loop, or of an installation that has archived one loop.

    Raises:
        NotFound: there is none.
        InvalidRequest: there are several.
        StoreUnavailable: it cannot be read.
    """
    folders = [""]
    for _ in range(3):  # of a loop, of its name, of the installation
        found = [archive for folder in folders if (archive := open_archive(place, folder)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{place.url}/{each.folder}" for each in found[:5])
            raise InvalidRequest(f"{place.url} has the archives of several loops: name one of {names}")
        folders = [name for folder in folders for name in place.folders(folder)]
    raise NotFound(f"there is no archive at {place.url}: it would have an {INDEX}")


class Flaw(msgspec.Struct, frozen=True):
    """What is wrong with an archive."""

    name: str  # of the object
    why: str


def check(archive: Archive) -> Iterator[list[Flaw]]:
    """Read every object once, and compare it with the index.

    Yields:
        After each object what is wrong with it, and at last what is wrong with the whole.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    for span in archive.index.spans:
        why = _flaw(archive, span)
        yield [] if why is None else [Flaw(span.name, why)]
    yield _of_the_whole(archive)


def _flaw(archive: Archive, span: Span) -> str | None:
    content = archive.place.read(archive.folder + span.name)
    if content is None:
        return "it is missing"
    if digest_of(content) != span.digest:
        return "it is not what was written"
    try:
        offsets = [event.offset for event in events_in(content, span.name)]
    except StoreUnavailable as error:
        return str(error)
    if len(offsets) != span.events or offsets != sorted(set(offsets)):
        return f"it has {len(offsets):,} events, and should have {span.events:,}, each once and in order"
    if offsets and not span.start <= offsets[0] <= offsets[-1] < span.end:
        return f"its events are not of {span.start:,} to {span.end:,}"
    return None


def _of_the_whole(archive: Archive) -> list[Flaw]:
    flaws = [
        Flaw(later.name, f"it begins at {later.start:,}, within the object before, which ends at {earlier.end:,}")
        for earlier, later in pairwise(archive.index.spans)
        if later.start < earlier.end
    ]
    named = {archive.folder + span.name for span in archive.index.spans}
    strays = [name for name in archive.place.names(archive.folder) if name.endswith(ENDING) and name not in named]
    return flaws + [Flaw(name.removeprefix(archive.folder), "the index does not know of it") for name in strays]
