"""A sealed segment: a stretch of the event log as one compressed, checksummed file that never changes.

Layout: magic, blocks, index, footer, length of the footer, magic. A block is a zstd frame (with the
frame's own checksum) of MessagePack; actions that recur within a block stand in it once. The index holds
the interactions' event keys in ascending order, then what `locate` answers for each, uncompressed, to be
mapped into memory. The footer says where everything is.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from rankward.errors import StoreUnavailable
from rankward.records import Action, AnyHeader, HeaderEntry, LogEntry, Offset, TimeUs
from rankward.store.ports import LOOKUP_NEWEST, Located
from rankward.store.sqlite.codec import Row, event_key, to_header, to_record
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.live import Search

MAGIC = b"rwseg\x00\x01\n"
_FORMAT = slice(5, 7)  # of the magic: big-endian
BLOCK_ENTRIES = 2_048
COMPRESSION_LEVEL = 7
_TAIL = struct.Struct("<II8s")  # length and CRC-32 of the footer, magic
_KEY = np.dtype("<i8")
_BLOCKS_HELD = 16
_INDEXES_HELD = 128
_PLACE = np.dtype([("offset", "<u4"), ("time_us", "<i8"), ("wait", "<u2")])


Index = tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]
"""Event keys, ascending, and the place of each."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of entries, as one compressed frame holds it."""

    actions: list[Action]
    times_us: list[TimeUs]
    bodies: list[bytes]
    offered: list[tuple[int, ...] | None]  # per entry: indexes into `actions`; None: not an interaction


class BlockPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a block stands in its file."""

    first: Offset
    position: int
    length: int


class Footer(msgspec.Struct, frozen=True):
    """What a sealed segment holds, and where."""

    first: Offset
    end: Offset
    first_time_us: TimeUs
    last_time_us: TimeUs
    blocks: list[BlockPlace]
    index_position: int
    index_length: int  # in entries
    index_crc: int
    waits_us: list[int]  # the reward waits that the index refers to
    messages_position: int = 0
    messages_length: int = 0  # in bytes; 0: the log came from no stream


Brought = tuple[int, Offset, int]
"""A message of the stream that a log comes from: its sequence, the offset of its first entry, how many there are."""


def write_sealed(
    path: Path, first: Offset, entries: Iterable[tuple[TimeUs, Row]], messages: Sequence[Brought] = ()
) -> Footer:
    """Write a sealed segment aside, flush it to the disk, and rename it into place.

    Args:
        path: of the file to make.
        first: offset of the first entry.
        entries: every entry of the stretch, in log order; at least one.
        messages: of the stream that they come from, if they do; in order.
    """
    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
    aside = path.with_suffix(".tmp")
    places: list[BlockPlace] = []
    located: list[tuple[int, int, TimeUs, int]] = []
    waits: dict[int, int] = {}
    offset = first
    first_time = last_time = -1
    with aside.open("wb") as file:
        file.write(MAGIC)
        for chunk in _chunks(entries, BLOCK_ENTRIES):
            for index, (time_us, row) in enumerate(chunk):
                first_time = time_us if first_time < 0 else first_time
                last_time = time_us
                if row.event_key is not None and row.reward_wait_us is not None:
                    wait = waits.setdefault(row.reward_wait_us, len(waits))
                    located.append((row.event_key, offset + index - first, time_us, wait))
            packed = compressor.compress(msgspec.msgpack.encode(_pack(chunk)))
            places.append(BlockPlace(offset, file.tell(), len(packed)))
            file.write(packed)
            offset += len(chunk)
        packed = compressor.compress(msgspec.msgpack.encode(messages)) if messages else b""
        messages_position = file.tell()
        file.write(packed)
        assert places, "a segment without entries is not worth a file"
        located.sort()
        raw = np.array([key for key, *_ in located], dtype=_KEY).tobytes()
        raw += np.array([(place, time_us, wait) for _, place, time_us, wait in located], dtype=_PLACE).tobytes()
        footer = Footer(
            first=first,
            end=offset,
            first_time_us=first_time,
            last_time_us=last_time,
            blocks=places,
            index_position=file.tell(),
            index_length=len(located),
            index_crc=zlib.crc32(raw),
            waits_us=list(waits),
            messages_position=messages_position,
            messages_length=len(packed),
        )
        file.write(raw)
        encoded = msgspec.msgpack.encode(footer)
        file.write(encoded)
        file.write(_TAIL.pack(len(encoded), zlib.crc32(encoded), MAGIC))
        file.flush()
        os.fsync(file.fileno())
    SealedSegment(aside, Held()).verify()
    aside.replace(path)
    sync_folder(path.parent)
    return footer


def _chunks(entries: Iterable[tuple[TimeUs, Row]], size: int) -> Iterator[list[tuple[TimeUs, Row]]]:
    chunk: list[tuple[TimeUs, Row]] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _pack(chunk: Sequence[tuple[TimeUs, Row]]) -> Block:
    indexes: dict[Action, int] = {}
    offered = [
        None if row.actions is None else tuple([indexes.setdefault(action, len(indexes)) for action in row.actions])
        for _, row in chunk
    ]
    return Block(list(indexes), [time_us for time_us, _ in chunk], [row.body for _, row in chunk], offered)


class _ReplacedError(Exception):
    """Another file has taken the name: something was erased from the segment."""


def load_block(path: Path, place: BlockPlace, inode: int) -> Block:
    """Read one block of a sealed file.

    Args:
        path: of the file.
        place: of the block.
        inode: of the file that has it there.

    Raises:
        StoreUnavailable: it is damaged.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_ino != inode:
            raise _ReplacedError
        packed = os.pread(file.fileno(), place.length, place.position)
    try:
        return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed), type=Block)
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise StoreUnavailable(
            f"{path} is damaged at byte {place.position}: {error}. Restore it from a backup."
        ) from error


class Held:
    """What is held of sealed segments: some blocks, decompressed, and some indexes, mapped.

    There may be thousands of segments, and neither memory nor open files for all of them.
    """

    def __init__(self) -> None:
        self.block = lru_cache(maxsize=_BLOCKS_HELD)(load_block)
        self.indexes: OrderedDict[Path, Index] = OrderedDict()


class SealedSegment:
    """Reads one sealed file. Not to be shared between threads without a lock."""

    def __init__(self, path: Path, held: Held) -> None:
        """Read the footer.

        Args:
            path: of the file.
            held: what is held of this and other segments.

        Raises:
            StoreUnavailable: it is damaged, or of a version that this code does not know.
            FileNotFoundError: it has been dropped.
        """
        self.path = path
        self._held = held
        self._open()

    def _open(self) -> None:
        try:
            self.footer = self._read_footer()
        except (ValueError, struct.error, msgspec.MsgspecError) as error:
            raise StoreUnavailable(f"{self.path} is damaged: {error}. Restore it from a backup.") from error
        self.first, self.end = self.footer.first, self.footer.end
        self.last_time_us = self.footer.last_time_us
        self.longest_wait_us = max(self.footer.waits_us, default=0)
        self._index_checked = False

    def _read_footer(self) -> Footer:
        with self.path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            size = file.seek(0, os.SEEK_END)
            if size < len(MAGIC) + _TAIL.size:
                raise ValueError("it is too short")
            head = os.pread(file.fileno(), len(MAGIC), 0)
            length, crc, magic = _TAIL.unpack(os.pread(file.fileno(), _TAIL.size, size - _TAIL.size))
            encoded = os.pread(file.fileno(), length, max(0, size - _TAIL.size - length))
        if head == magic != MAGIC and _without_format(head) == _without_format(MAGIC):
            has, knows = (int.from_bytes(of[_FORMAT], "big") for of in (head, MAGIC))
            raise StoreUnavailable(f"{self.path} has format {has}, this rankward knows {knows}: use the newer one")
        if not head == magic == MAGIC:
            raise ValueError("it does not begin and end as a sealed segment does")
        if zlib.crc32(encoded) != crc:
            raise ValueError("the checksum of its footer does not hold")
        return msgspec.msgpack.decode(encoded, type=Footer)

    def read(self, start: Offset, limit: int) -> list[LogEntry]:
        """Return at most `limit` entries from `start` on."""
        entries: list[LogEntry] = []
        for first, block, indexes in self._blocks(start, limit):
            offers: dict[tuple[int, ...], tuple[Action, ...]] = {}  # most are made again and again
            for index in indexes:
                offered = block.offered[index]
                actions = None
                if offered is not None and (actions := offers.get(offered)) is None:
                    actions = offers[offered] = tuple([block.actions[part] for part in offered])
                entries.append(LogEntry(first + index, block.times_us[index], to_record(block.bodies[index], actions)))
        return entries

    def read_headers(self, start: Offset, limit: int) -> list[HeaderEntry]:
        """Return what joining needs of at most `limit` entries from `start` on."""
        return [
            HeaderEntry(first + index, block.times_us[index], to_header(block.bodies[index]))
            for first, block, indexes in self._blocks(start, limit)
            for index in indexes
        ]

    def _blocks(self, start: Offset, limit: int) -> Iterator[tuple[Offset, Block, range]]:
        """Load the blocks that hold a stretch: offset of the first entry, block, indexes that are wanted."""
        self._renew()
        number = max(0, int(np.searchsorted([place.first for place in self.footer.blocks], start, side="right")) - 1)
        for index in range(number, len(self.footer.blocks)):
            if limit <= 0:
                return
            block = self._block(index)
            place = self.footer.blocks[index]
            begin = max(0, start - place.first)
            wanted = range(begin, min(len(block.bodies), begin + limit))
            yield place.first, block, wanted
            limit -= len(wanted)

    def _renew(self) -> None:
        """Look whether another file has taken the name, and if so, see what is where in that."""
        if self.path.stat().st_ino != self._inode:
            self._held.indexes.pop(self.path, None)
            self._open()

    def _block(self, index: int) -> Block:
        try:
            return self._held.block(self.path, self.footer.blocks[index], self._inode)
        except _ReplacedError:  # the same entries stand in blocks of the same number, each elsewhere in the file
            self._renew()
            return self._held.block(self.path, self.footer.blocks[index], self._inode)

    def rows(self) -> Iterator[tuple[TimeUs, Row]]:
        """Return every entry for writing it anew, in log order."""
        for _, block, indexes in self._blocks(self.first, self.end - self.first):
            for index in indexes:
                header, offered = to_header(block.bodies[index]), block.offered[index]
                actions = None if offered is None else tuple([block.actions[part] for part in offered])
                key = wait_us = None
                if isinstance(header, AnyHeader):
                    key, wait_us = event_key(header.event_id), header.reward_wait_us
                yield block.times_us[index], Row(block.bodies[index], actions, key, wait_us)

    def messages(self) -> Sequence[Brought]:
        """Return the messages of the stream that the entries come from, in order; empty: they come from none.

        Raises:
            StoreUnavailable: they are damaged.
        """
        self._renew()
        if not self.footer.messages_length:
            return []
        with self.path.open("rb") as file:
            packed = os.pread(file.fileno(), self.footer.messages_length, self.footer.messages_position)
        try:
            return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed), type=list[Brought])
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise StoreUnavailable(
                f"{self.path} is damaged in its messages: {error}. Restore it from a backup."
            ) from error

    def arrived(self, sequence: int) -> range | None:
        """Tell the offsets of the entries that a message brought: see `LiveSegment.arrived`."""
        messages = self.messages()
        index = bisect_left(messages, (sequence,))
        if index == len(messages) or messages[index][0] != sequence:
            return None
        _, offset, count = messages[index]
        return range(offset, offset + count)

    def locate(self, key: int, *, before: Offset, ended_us: TimeUs, limit: int) -> list[Located]:
        """Find interactions by the key of their event id: see `LiveSegment.locate`.

        Raises:
            StoreUnavailable: the index is damaged.
        """
        keys, places = self._mapped()
        index = int(np.searchsorted(keys, key, side="right")) - 1
        found: list[Located] = []
        while index >= 0 and keys[index] == key and len(found) < limit:
            place = places[index]
            located = Located(
                self.first + int(place["offset"]),
                int(place["time_us"]),
                self.footer.waits_us[int(place["wait"])],
            )
            if located.offset < before and located.time_us + located.reward_wait_us >= ended_us:
                found.append(located)
            index -= 1
        return found

    def locate_each(self, searches: Sequence[Search]) -> list[list[Located]]:
        """Find for each search the newest interactions: see `LiveSegment.locate_each`.

        Raises:
            StoreUnavailable: the index is damaged.
        """
        keys, _ = self._mapped()
        wanted = np.array([search.key for search in searches], dtype=_KEY)
        held = np.searchsorted(keys, wanted, side="left") < np.searchsorted(keys, wanted, side="right")
        return [
            self.locate(search.key, before=search.before, ended_us=search.ended_us, limit=LOOKUP_NEWEST) if here else []
            for search, here in zip(searches, held.tolist(), strict=True)
        ]

    def known_keys(self, keys: Collection[int]) -> set[int]:
        """Tell which of these keys of event ids some interaction here has: see `LiveSegment.known_keys`."""
        mapped, _ = self._mapped()
        wanted = np.array([*keys], dtype=_KEY)
        held = np.searchsorted(mapped, wanted, side="left") < np.searchsorted(mapped, wanted, side="right")
        return set(wanted[held].tolist())

    def _mapped(self) -> Index:
        self._renew()
        index = self._held.indexes.get(self.path)
        if index is None:
            index = self._held.indexes[self.path] = self._map()
            if len(self._held.indexes) > _INDEXES_HELD:
                self._held.indexes.popitem(last=False)
        self._held.indexes.move_to_end(self.path)
        return index

    def _map(self) -> Index:
        count = self.footer.index_length
        if not count:  # an empty stretch cannot be mapped
            return np.empty(0, _KEY), np.empty(0, _PLACE)
        size = count * (_KEY.itemsize + _PLACE.itemsize)
        raw = np.memmap(self.path, np.uint8, "r", self.footer.index_position, size)
        if not self._index_checked and zlib.crc32(raw.data) != self.footer.index_crc:
            raise StoreUnavailable(f"{self.path} is damaged in its index: restore it from a backup")
        self._index_checked = True
        keys = count * _KEY.itemsize
        return raw[:keys].view(_KEY), raw[keys:].view(_PLACE)

    def verify(self) -> None:
        """Read everything once.

        Raises:
            StoreUnavailable: a checksum does not hold.
        """
        for place in self.footer.blocks:
            load_block(self.path, place, self._inode)
        self._mapped()

    def close(self) -> None:
        """Let go of the file."""
        self._held.indexes.pop(self.path, None)


def _without_format(magic: bytes) -> bytes:
    return magic[: _FORMAT.start] + magic[_FORMAT.stop :]
