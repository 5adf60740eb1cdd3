"""The segments of an event log as one process sees them: read, located in, counted, dropped."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from rankward.errors import StoreUnavailable
from rankward.records import (
    HeaderEntry,
    LogEntry,
    Offset,
    TimeUs,
)
from rankward.store.ports import LOOKUP_BACK_US, LOOKUP_NEWEST, Located, LogExtent, Lookup
from rankward.store.sqlite.codec import event_key
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.live import LiveSegment, Search, live_files
from rankward.store.sqlite.sealed import Held, SealedSegment

REPEAT_GRACE_US = 3_600_000_000  # a Rank may be repeated for its reward wait and this long
ANY_OFFSET = 1 << 62  # every offset is less
_LOOKS = 8  # how often files may vanish under one reading before that is an error

T = TypeVar("T")
Entry = TypeVar("Entry", LogEntry, HeaderEntry)


def unlink_live(path: Path) -> None:
    """Remove the files of a live segment. They need not be there."""
    for file in live_files(path):
        file.unlink(missing_ok=True)


class _Gap(Exception):
    """Entries are missing between two segments: one was sealed while the folder was listed, or is lost."""


class LiveView(LiveSegment):
    """A live segment as readers see it: its end moves."""

    longest_wait_us = 1 << 62  # not known while it is written: always worth a look

    @property
    def end(self) -> Offset:
        """The offset that the next entry will have."""
        return self.tail()[0]

    @property
    def last_time_us(self) -> TimeUs:
        """The time of the last entry."""
        return self.tail()[1]


Segment = SealedSegment | LiveView
ReadPart = Callable[[Offset, int], list[Entry]]  # from an offset on, at most so many


class Segments:
    """This process's view of the folder, for reading. Guarded by the log's reading lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths: list[Path] = []
        self._open: dict[Path, Segment] = {}
        self._reaches: list[TimeUs] | None = None  # None: not known for these paths
        self._held = Held()

    def refresh(self) -> None:
        """Look at the folder again."""
        self.paths = self._again_when_moved(self._listed, refresh=False)
        self._reaches = None
        for gone in self._open.keys() - set(self.paths):
            self._open.pop(gone).close()

    def _again_when_moved(self, look: Callable[[], T], *, refresh: bool = True) -> T:
        """Look once more when segments were sealed or dropped under our eyes, by whichever process."""
        for _ in range(_LOOKS):
            try:
                return look()
            except (FileNotFoundError, _Gap):
                if refresh:
                    self.refresh()
        try:
            return look()
        except _Gap as gap:
            raise StoreUnavailable(f"{self._folder} lacks {gap}: restore it from a backup") from gap

    def _listed(self) -> list[Path]:
        by_first: dict[str, Path] = {}
        for path in sorted(self._folder.iterdir()):
            if path.suffix in {".live", ".seg"}:
                # Of one stretch, the sealed file comes later in the order, and counts.
                by_first[path.stem] = path
        paths = [by_first[stem] for stem in sorted(by_first)]
        # A segment made by a rotation that did not finish does not count yet.
        while len(paths) > 1 and paths[-1].suffix == paths[-2].suffix == ".live" and not self._is_closed(paths[-2]):
            paths.pop()
        return paths

    def _is_closed(self, path: Path) -> bool:
        segment = LiveView(path)
        try:
            return segment.is_closed()
        finally:
            segment.close()

    def _at(self, index: int) -> Segment:
        path = self.paths[index]
        segment = self._open.get(path)
        if segment is None:
            segment = LiveView(path) if path.suffix == ".live" else SealedSegment(path, self._held)
            self._open[path] = segment
        return segment

    def _firsts(self) -> list[Offset]:
        return [int(path.stem) for path in self.paths]

    def read(self, start: Offset, limit: int) -> list[LogEntry]:
        """See `ports.EventLog.read`."""
        return self._read(start, limit, lambda segment: segment.read)

    def read_headers(self, start: Offset, limit: int) -> list[HeaderEntry]:
        """See `ports.EventLog.read_headers`."""
        return self._read(start, limit, lambda segment: segment.read_headers)

    def _read(self, start: Offset, limit: int, how: Callable[[Segment], ReadPart[Entry]]) -> list[Entry]:
        def look() -> list[Entry]:
            entries = self._read_parts(start, limit, how)
            if len(entries) < limit and self._has_moved_on():
                self.refresh()
                entries = self._read_parts(start, limit, how)
            return entries

        return self._again_when_moved(look)

    def _has_moved_on(self) -> bool:
        """Whether what we hold for the last segment has been closed, so that there is a newer one."""
        last = self._at(len(self.paths) - 1)
        return not isinstance(last, LiveView) or last.is_closed()

    def _read_parts(self, start: Offset, limit: int, how: Callable[[Segment], ReadPart[Entry]]) -> list[Entry]:
        entries: list[Entry] = []
        firsts = self._firsts()
        following = max(start, firsts[0])
        for index in range(bisect_right(firsts, following) - 1, len(firsts)):
            part = how(self._at(index))(following, limit - len(entries))
            if part and part[0].offset != following:
                raise _Gap(f"the entries {following} to {part[0].offset - 1}")
            entries += part
            following += len(part)
            if len(entries) >= limit:
                break
        return entries

    def _waiting(self, ended_us: TimeUs) -> Iterator[int]:
        """Return the indexes, newest first, of segments that may hold waits which end at a time or later."""
        if self._reaches is None:
            segments = map(self._at, range(len(self.paths)))
            self._reaches = list(accumulate((each.last_time_us + each.longest_wait_us for each in segments), max))
        return reversed(range(bisect_left(self._reaches, ended_us), len(self.paths)))

    def locate(self, lookups: Sequence[Lookup]) -> list[list[Located]]:
        """See `ports.EventLog.locate`."""
        return self._again_when_moved(lambda: self._locate(lookups))

    def _locate(self, lookups: Sequence[Lookup]) -> list[list[Located]]:
        searches = [Search(event_key(each.event_id), each.before, each.time_us - LOOKUP_BACK_US) for each in lookups]
        found: list[list[Located]] = [[] for _ in searches]  # newest first
        for index in self._waiting(min((search.ended_us for search in searches), default=0)):
            first = int(self.paths[index].stem)
            asked = [
                number
                for number, search in enumerate(searches)
                if first < search.before and len(found[number]) < LOOKUP_NEWEST
            ]
            answers = self._at(index).locate_each([searches[number] for number in asked])
            for number, places in zip(asked, answers, strict=True):
                found[number] = (found[number] + places)[:LOOKUP_NEWEST]
        return [places[::-1] for places in found]

    def locate_before_live(self, keys: Sequence[int], now_us: TimeUs) -> tuple[dict[int, Sequence[Located]], Offset]:
        """Look for event keys, newest first, in the segments before the last whose events may come again."""
        return self._again_when_moved(lambda: self._locate_before_live(keys, now_us))

    def _locate_before_live(self, keys: Sequence[int], now_us: TimeUs) -> tuple[dict[int, Sequence[Located]], Offset]:
        found: dict[int, Sequence[Located]] = {}
        live_first = int(self.paths[-1].stem)
        for index in self._waiting(now_us - REPEAT_GRACE_US):
            if index == len(self.paths) - 1:
                continue
            for key in keys:
                places = self._at(index).locate(key, before=live_first, ended_us=0, limit=LOOKUP_NEWEST)
                if places:
                    found[key] = [*found.get(key, ()), *places]
        return found, live_first

    def locate_all(self, keys: Collection[int], *, before: Offset, ended_us: TimeUs) -> dict[int, list[Located]]:
        """Look for event keys, newest first, whose waits end at a time or later, in all that the folder shows now."""

        def look() -> dict[int, list[Located]]:
            if self._has_moved_on():
                self.refresh()
            return self._locate_all(keys, before, ended_us)

        return self._again_when_moved(look)

    def _locate_all(self, keys: Collection[int], before: Offset, ended_us: TimeUs) -> dict[int, list[Located]]:
        found: dict[int, list[Located]] = {}
        for index in self._waiting(ended_us):
            segment = self._at(index)
            for key in segment.known_keys(keys):
                places = segment.locate(key, before=before, ended_us=ended_us, limit=LOOKUP_NEWEST)
                found[key] = (found.get(key, []) + places)[:LOOKUP_NEWEST]
        return found

    def place(self) -> int:
        """How far the stream that the log comes from has been applied; 0: not at all."""

        def look() -> int:
            if self._has_moved_on():
                self.refresh()
            last = self._at(len(self.paths) - 1)
            return last.place if isinstance(last, LiveView) else 0

        return self._again_when_moved(look)

    def arrived(self, sequence: int) -> range | None:
        """Tell the offsets of the entries that a message of the stream brought; None: the folder does not say."""

        def look() -> range | None:
            if self._has_moved_on():
                self.refresh()
            found = (self._at(index).arrived(sequence) for index in reversed(range(len(self.paths))))
            return next((offsets for offsets in found if offsets is not None), None)

        return self._again_when_moved(look)

    def messages(self, offsets: Collection[Offset]) -> set[int]:
        """Find the messages of the stream that brought the entries at these offsets."""

        def look() -> set[int]:
            found: set[int] = set()
            firsts = self._firsts()
            by_index: defaultdict[int, list[Offset]] = defaultdict(list)
            for offset in offsets:
                if offset >= firsts[0]:
                    by_index[bisect_right(firsts, offset) - 1].append(offset)
            for index, here in by_index.items():
                messages = self._at(index).messages()
                begins = [first for _, first, count in messages if count]
                sequences = [sequence for sequence, _, count in messages if count]
                places = (bisect_right(begins, offset) - 1 for offset in here)
                found.update(sequences[place] for place in places if place >= 0)
            return found

        self.refresh()
        return self._again_when_moved(look)

    def live_fill(self) -> tuple[Offset, Offset, TimeUs]:
        """Return the last segment's first offset, end, and the time of its first entry."""
        segment = self._at(len(self.paths) - 1)
        entries = segment.read(segment.first, 1)
        return segment.first, segment.end, entries[0].time_us if entries else 0

    def change_mark(self) -> int:
        """See `ports.EventLog.change_mark`."""

        def look() -> int:
            if self._has_moved_on():
                self.refresh()
            last = self._at(len(self.paths) - 1)
            first: Offset = last.first
            # Without a live segment, of which the folder has been robbed, nothing can be appended.
            return first << 80 | (last.change_mark() if isinstance(last, LiveView) else 0)

        return self._again_when_moved(look)

    def extent(self) -> LogExtent:
        """See `ports.EventLog.extent`."""
        last = self._at(len(self.paths) - 1)
        end = last.end
        first = int(self.paths[0].stem)
        return LogExtent(first=min(first, end), end=end, last_time_us=last.last_time_us)

    def checkpoint(self) -> None:
        """Move what is in the live segment's write-ahead log to its place."""
        last = self._at(len(self.paths) - 1)
        if isinstance(last, LiveView):
            last.checkpoint()

    def drop(self, condition: Callable[[Segment], bool]) -> None:
        """Unlink the oldest segments for as long as the condition holds; never the last."""
        dropped = False
        while len(self.paths) > 1 and condition(self._at(0)):
            path = self.paths.pop(0)
            self._open.pop(path).close()
            self._reaches = None
            path.with_suffix(".seg").unlink(missing_ok=True)
            unlink_live(path.with_suffix(".live"))
            dropped = True
        if dropped:
            sync_folder(self._folder)

    def close(self) -> None:
        """Let go of all files."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()
