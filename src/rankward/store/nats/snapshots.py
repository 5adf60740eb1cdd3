"""Snapshots of loops' folders in the object store: where a node begins that has no replica, or one that is too old.

A snapshot is a list of files, each stored under its digest, and so once for all snapshots that have it. The list is
stored last: what is listed is there. Each bears its place in the loop's stream, from where a node that took it goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import zstandard

from rankward import __version__
from rankward.errors import NotFound, StoreUnavailable
from rankward.records import Offset, TimeUs
from rankward.store.nats.broker import Broker
from rankward.store.nats.objects import Objects
from rankward.store.sqlite.copying import (
    as_ours,
    check_database,
    check_events,
    check_joined,
    copy_database,
    copy_events,
    copy_joined,
    segments_in,
    sync_all,
)
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.event_log import undisturbed
from rankward.store.sqlite.folder import DataFolder
from rankward.store.sqlite.joined_log import erasures_in
from rankward.store.sqlite.live import LiveSegment

KEPT = 2
"""A stream is trimmed up to the oldest of so many: should the newest be damaged, there is one before."""
ARRIVING = "arriving/"
"""Begins the names of marks among the lists: loops that are on their way here."""
_ROOMS = ("figures", "joined", "events")  # what is derived before what it is derived from, as it is copied
_PACKED = {".live", ".sqlite"}
_PASSES = 5  # over a folder in which something is erased under our eyes


class Part(msgspec.Struct, frozen=True):
    """One file of a snapshot."""

    path: str  # in the loop's folder
    digest: str  # SHA-256 of the object, hex
    size_bytes: int  # of the object
    packed: bool  # whether the object is the file in compressed form


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A loop's folder at a place in its stream."""

    rankward: str  # version that took it
    loop_id: str
    place: int  # sequence of the last message of the stream that is in it; 0: none is
    taken_us: TimeUs
    events_first: Offset
    events_end: Offset
    joined_end: Offset
    erasures: int  # how often something had been erased
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """Of all its files, as they are stored."""
        return sum(part.size_bytes for part in self.parts)


class _Known(msgspec.Struct, frozen=True):
    """What is known of a file that never changes, as long as it looks the same."""

    size_bytes: int
    modified_ns: int
    digest: str


class Snapshots:
    """Takes snapshots of loops, and makes loops' folders of them. Its methods wait, and so are not for event loops."""

    def __init__(self, folder: DataFolder, broker: Broker, *, clock: Callable[[], TimeUs]) -> None:
        self._folder = folder
        self._broker = broker
        self.lists = Objects(broker, "snapshots")
        self.parts = Objects(broker, "parts")  # by loop and digest
        self._clock = clock

    def of(self, loop_id: str) -> list[Snapshot]:
        """Return a loop's snapshots, oldest first."""
        found = []
        for name in sorted(stored.name for stored in self.lists.listed()):
            content = io.BytesIO()
            if name.startswith(f"{loop_id}/") and self.lists.get(name, content):
                found.append(msgspec.json.decode(content.getvalue(), type=Snapshot))
        return found

    # Taking one

    def is_due(self, newest: Snapshot | None, loop_id: str, *, every_us: int) -> bool:
        """Tell whether it is time for a loop's next snapshot.

        At once, if something was erased or the log was deleted: those before hold what shall be nowhere.

        Args:
            newest: the one before; None: there is none.
            loop_id: of the loop.
            every_us: how old that may become.
        """
        place = self.place(loop_id)
        if newest is None or place is None:
            return bool(place)
        if place == newest.place:
            return False
        folder = self._folder
        with as_ours(folder.loops / loop_id):
            first = int(segments_in(folder.events(loop_id))[0].stem)
            is_cleared = 0 < newest.events_end <= first
            is_old = abs(self._clock() - newest.taken_us) >= every_us  # the clock may have been set back meanwhile
            return is_old or is_cleared or erasures_in(folder.joined(loop_id)) != newest.erasures

    def place(self, loop_id: str) -> int | None:
        """Say how far in its stream the replica of a loop is; None: there is none here."""
        events = self._folder.events(loop_id)
        with as_ours(events):
            while not self._folder.restored(loop_id).exists() and events.exists():
                with contextlib.suppress(FileNotFoundError):  # sealed just now, or gone with its loop: look again
                    return _place_of(events) if segments_in(events) else None
        return None

    def take(self, loop_id: str) -> Snapshot:
        """Copy a loop's folder, as it is at one place in the stream, into the object store.

        Whoever feeds the loop goes on meanwhile; erasing waits while files are copied.

        Raises:
            NotFound: the loop has no folder here.
            StorageFull: there is no room, here or on the servers.
            StoreUnavailable: it cannot be read, or the servers do not answer.
        """
        source = self._folder.loops / loop_id
        if not (source / "events").is_dir():
            raise NotFound(f"there is no replica of loop {loop_id} here")
        self.announce(loop_id)
        aside = self._folder.run / f"snapshot-{loop_id}"
        with as_ours(aside):
            shutil.rmtree(aside, ignore_errors=True)
            try:
                aside.mkdir(parents=True)
                joined_end, erasures = _copy(source, aside)
                first, end = check_events(aside / "events", deep=False)
                snapshot = Snapshot(
                    rankward=__version__,
                    loop_id=loop_id,
                    place=_place_of(aside / "events"),
                    taken_us=self._clock(),
                    events_first=first,
                    events_end=end,
                    joined_end=joined_end,
                    erasures=erasures,
                    parts=self._store(loop_id, aside),
                )
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self.lists.put(_name_of(snapshot), io.BytesIO(msgspec.json.encode(snapshot)))
        self.arrived(loop_id)
        return snapshot

    def _store(self, loop_id: str, aside: Path) -> tuple[Part, ...]:
        notebook = self._folder.loops / loop_id / "parts.json"
        known = _read_notebook(notebook)
        there = {part.digest for snapshot in self.of(loop_id) for part in snapshot.parts}
        parts, noted = [], {}
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            name, packed = str(path.relative_to(aside)), path.suffix in _PACKED
            if packed:
                path = _packed(path)  # noqa: PLW2901
            state = path.stat()
            note = known.get(name)
            if note is None or (note.size_bytes, note.modified_ns) != (state.st_size, state.st_mtime_ns):
                note = _Known(state.st_size, state.st_mtime_ns, _digest_of(path))
            if not packed:
                noted[name] = note
            if note.digest not in there and self.parts.digest(_object(loop_id, note.digest)) is None:
                with path.open("rb") as file:
                    self.parts.put(_object(loop_id, note.digest), file)
            parts.append(Part(name, note.digest, state.st_size, packed))
        notebook.write_bytes(msgspec.json.encode(noted))
        return tuple(parts)

    def announce(self, loop_id: str) -> None:
        """Say that something of a loop is on its way that nothing lists yet: what is stored of it is not swept."""
        self.lists.put(f"{ARRIVING}{loop_id}", io.BytesIO())

    def arrived(self, loop_id: str) -> None:
        """Say that it is listed."""
        self.lists.forget(f"{ARRIVING}{loop_id}")

    # Beginning from one

    def prepare(self, loop_id: str) -> None:
        """Make sure that a loop has a folder here, from its newest snapshot if it has none. Nobody may have it open.

        Raises:
            StorageFull: there is no room.
            StoreUnavailable: the servers do not answer, or no snapshot is whole.
        """
        self.finish(loop_id)
        events = self._folder.events(loop_id)
        if self.place(loop_id) is None:
            self.restore(loop_id)
            with as_ours(events):
                events.mkdir(parents=True, exist_ok=True)

    def restore(self, loop_id: str) -> Snapshot | None:
        """Make a loop's folder of its newest snapshot, in place of what is there. Nobody may have it open.

        What was fetched before it was interrupted is not fetched again.

        Returns:
            What it was made of; None: there is no snapshot.

        Raises:
            StorageFull: there is no room.
            StoreUnavailable: no snapshot is whole, or the servers do not answer.
        """
        self.finish(loop_id)
        target = self._folder.loops / loop_id
        damaged: StoreUnavailable | None = None
        for snapshot in reversed(self.of(loop_id)):
            aside = target / "fetched"
            with as_ours(target):
                try:
                    self._fetch(snapshot, aside)
                except NotFound as error:
                    damaged = StoreUnavailable(str(error))
                    continue
                aside.rename(self._folder.restored(loop_id))
            self.finish(loop_id)
            return snapshot
        if damaged is not None:
            raise damaged
        return None

    def finish(self, loop_id: str) -> None:
        """Put in place what was restored and checked, if that was interrupted. Nobody may have the folder open."""
        target = self._folder.loops / loop_id
        restored = self._folder.restored(loop_id)
        with as_ours(target):
            for room in _ROOMS:
                if (restored / room).exists():
                    shutil.rmtree(target / room, ignore_errors=True)
                    (restored / room).rename(target / room)
            if restored.exists():
                sync_folder(target)
                restored.rmdir()

    def _fetch(self, snapshot: Snapshot, aside: Path) -> None:
        for room in _ROOMS:
            (aside / room).mkdir(parents=True, exist_ok=True)
        wanted = {part.path for part in snapshot.parts}
        for path in [path for path in aside.rglob("*") if path.is_file()]:
            if str(path.relative_to(aside)) not in wanted or path.suffix in _PACKED:
                path.unlink()
        for part in snapshot.parts:
            path = aside / part.path
            if path.exists() and _digest_of(path) == part.digest:
                continue
            stored = path.with_name(f"{path.name}.stored")
            with stored.open("wb") as file:
                if not self.parts.get(_object(snapshot.loop_id, part.digest), file):
                    raise NotFound(f"the snapshot of loop {snapshot.loop_id} lacks {part.path}")
            if part.packed:
                with stored.open("rb") as packed, path.open("wb") as file:
                    zstandard.ZstdDecompressor().copy_stream(packed, file)
                stored.unlink()
            else:
                stored.rename(path)
        for path in aside.glob("figures/*.sqlite"):
            check_database(path)
        check_joined(aside / "joined")
        first, end = check_events(aside / "events", deep=True)
        if (first, end, _place_of(aside / "events")) != (snapshot.events_first, snapshot.events_end, snapshot.place):
            raise NotFound(f"the snapshot of loop {snapshot.loop_id} is not what it says it is")
        sync_all(aside)

    def can_begin_again(self, loop_id: str) -> bool:
        """Tell whether a loop may begin again here: a snapshot has all that the replica has, and the stream goes on.

        It does not where the servers have lost what they acknowledged: then the replica may be all that is left of it.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        snapshots, stream = self.of(loop_id), self._broker.stream("events", loop_id)
        if not snapshots:
            return False
        state = self._broker.call(lambda: self._broker.js.stream_info(stream)).state
        newest = snapshots[-1].place
        return (self.place(loop_id) or 0) < newest <= state.last_seq and state.first_seq <= newest + 1

    def give_up(self, loop_id: str) -> None:
        """Remove a loop's replica, with which its stream cannot go on. Nobody may have it open."""
        for room in reversed(_ROOMS):  # the event log first: without it, none of it counts
            shutil.rmtree(self._folder.loops / loop_id / room, ignore_errors=True)

    # Keeping few

    def keep_few(self, loop_id: str) -> int:
        """Forget the snapshots that newer ones have made superfluous.

        What was taken before something was erased, or the log was deleted, goes at once, since it holds that.

        Returns:
            Up to which message the stream is superfluous, too; 0: none of it is. While there is one snapshot, the whole
            stream is what stands in for it, unless it holds something that was erased.
        """
        snapshots = self.of(loop_id)
        if not snapshots:
            return 0
        newest = snapshots[-1]
        kept = [each for each in snapshots[-KEPT:-1] if each.erasures == newest.erasures]
        kept = [each for each in kept if each.events_end > newest.events_first] + [newest]
        gone = [each for each in snapshots if each not in kept]
        needed = {part.digest for snapshot in kept for part in snapshot.parts}
        for snapshot in gone:
            self.lists.forget(_name_of(snapshot))
        for digest in {part.digest for snapshot in gone for part in snapshot.parts} - needed:
            self.parts.forget(_object(loop_id, digest))
        has_lost = newest.erasures > 0 or newest.events_first > 0
        return kept[0].place if has_lost or len(kept) == KEPT else 0

    def trim(self, loop_id: str, *, through: int) -> None:
        """Remove the beginning of a loop's stream, up to a message. Nodes that still lack it begin again."""
        stream = self._broker.stream("events", loop_id)
        self._broker.call(lambda: self._broker.js.purge_stream(stream, seq=through + 1))


def _copy(source: Path, aside: Path) -> tuple[Offset, int]:
    """Copy a loop's folder. Returns the end of the joined log, and how often something was erased from it."""
    for _ in range(_PASSES):
        for room in _ROOMS:
            shutil.rmtree(aside / room, ignore_errors=True)
        with undisturbed(source / "events"):
            (aside / "figures").mkdir()
            for path in (source / "figures").glob("*.sqlite"):
                copy_database(path, aside / "figures" / path.name)
            joined_end = copy_joined(source / "joined", aside / "joined", link=True)
            copy_events(source / "events", aside / "events", link=True)
            erasures = erasures_in(aside / "joined")
            if erasures == erasures_in(source / "joined"):
                return joined_end, erasures
    raise StoreUnavailable(f"{source} changes faster than it can be copied: try again")


def _place_of(events: Path) -> int:
    with closing(LiveSegment(segments_in(events)[-1])) as live:
        return live.place


def _read_notebook(path: Path) -> dict[str, _Known]:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):  # all it saves is time
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Known])
    return {}


def _packed(path: Path) -> Path:
    target = path.with_name(f"{path.name}.zst")
    with path.open("rb") as file, target.open("wb") as packed:
        zstandard.ZstdCompressor(write_checksum=True).copy_stream(file, packed)
    path.unlink()
    return target


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_of(snapshot: Snapshot) -> str:
    return f"{snapshot.loop_id}/{snapshot.place:020d}-{snapshot.taken_us:020d}"


def _object(loop_id: str, digest: str) -> str:
    return f"{loop_id}/{digest}"
