"""FlatBuffers, read and written field by field: the library's own layer, with what it does not check."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

BOOL, BYTE, INT, UINT, ULONG, FLOAT = (
    number_types.BoolFlags,
    number_types.Uint8Flags,
    number_types.Int32Flags,
    number_types.Uint32Flags,
    number_types.Uint64Flags,
    number_types.Float32Flags,
)
_OFFSET_BYTES = 4

Item = TypeVar("Item")


class FlatError(ValueError):
    """The bytes are no such table."""


@contextmanager
def _checked() -> Iterator[None]:
    """The library follows any offset; one that leads out of the buffer fails in one of these ways."""
    try:
        yield
    except (struct.error, IndexError, TypeError, ValueError, OverflowError) as error:
        raise FlatError(f"it is no table of the schema ({error})") from error


class Flat:
    """A table in a buffer. Fields are named by their numbers; one that is not there has its default."""

    def __init__(self, buffer: bytes, at: int | None = None) -> None:
        """Find a table.

        Args:
            buffer: that it lies in.
            at: where; None: it is the buffer's root.

        Raises:
            FlatError: there is none. So does every reading of a field that leads out of the buffer.
        """
        with _checked():
            self._table = Table(buffer, int.from_bytes(buffer[:_OFFSET_BYTES], "little") if at is None else at)
            self._table.Offset(_OFFSET_BYTES)
        self._buffer = buffer

    def _place(self, field: int) -> int:
        """Where a field lies, from the table on; 0: it is not there."""
        place: int = self._table.Offset(_OFFSET_BYTES + 2 * field)
        return place

    def scalar(self, field: int, flags: Any, default: Any = 0) -> Any:
        """Read a number or boolean."""
        with _checked():
            place = self._place(field)
            return self._table.Get(flags, self._table.Pos + place) if place else default

    def has(self, field: int) -> bool:
        """Whether a field is there."""
        with _checked():
            return bool(self._place(field))

    def inline(self, field: int, length: int) -> bytes:
        """Read a struct as it lies; empty: it is not there."""
        with _checked():
            place = self._place(field)
            start = self._table.Pos + place
            return self._buffer[start : start + length] if place else b""

    def text(self, field: int, most: int) -> str | None:
        """Read a string.

        Raises:
            FlatError: it has more than `most` bytes.
        """
        with _checked():
            place = self._place(field)
            return self._text_at(self._table.Pos + place, most) if place else None

    def _text_at(self, at: int, most: int) -> str:
        start = self._table.Indirect(at)
        length: int = self._table.Get(UINT, start)
        if length > most:
            raise FlatError(f"it has a text of {length} bytes, where {most} may be")
        start += _OFFSET_BYTES
        return self._buffer[start : start + length].decode()

    def table(self, field: int) -> Flat | None:
        """Find a table within."""
        with _checked():
            place = self._place(field)
            return Flat(self._buffer, self._table.Indirect(self._table.Pos + place)) if place else None

    def data(self, field: int) -> bytes:
        """Read a vector of bytes."""
        start, count = self._vector(field, 1, len(self._buffer))
        return self._buffer[start : start + count]

    def numbers(self, field: int, flags: Any, most: int) -> list[Any]:
        """Read a vector of numbers.

        Raises:
            FlatError: there are more than `most`.
        """
        start, count = self._vector(field, flags.bytewidth, most)
        with _checked():
            return [self._table.Get(flags, start + index * flags.bytewidth) for index in range(count)]

    def tables(self, field: int, most: int) -> list[Flat]:
        """Find the tables of a vector.

        Raises:
            FlatError: there are more than `most`.
        """
        return self._each(field, most, lambda at: Flat(self._buffer, self._table.Indirect(at)))

    def texts(self, field: int, most: int) -> list[str]:
        """Read a vector of strings.

        Raises:
            FlatError: there are more than `most`, or they lie one upon the other: a few bytes would become gigabytes.
        """
        room = len(self._buffer)

        def read(at: int) -> str:
            nonlocal room
            text = self._text_at(at, room)
            room -= len(text)
            return text

        return self._each(field, most, read)

    def _each(self, field: int, most: int, read: Callable[[int], Item]) -> list[Item]:
        start, count = self._vector(field, _OFFSET_BYTES, most)
        with _checked():
            return [read(start + index * _OFFSET_BYTES) for index in range(count)]

    def _vector(self, field: int, width: int, most: int) -> tuple[int, int]:
        """Find a vector: where it starts, and its length, which fits into the buffer."""
        with _checked():
            place = self._place(field)
            if not place:
                return 0, 0
            start, count = self._table.Vector(place), self._table.VectorLen(place)
        if start + count * width > len(self._buffer):
            raise FlatError(f"it has a vector of {count} that ends beyond the buffer")
        if count > most:
            raise FlatError(f"it holds {count} of what may be {most} at most")
        return start, count


class Builder:
    """Writes one buffer. What a table holds is written before it, and handed on by its offset."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(256)

    def text(self, text: str) -> int:
        """Write a string."""
        offset: int = self._builder.CreateString(text)
        return offset

    def data(self, data: bytes) -> int:
        """Write a vector of bytes."""
        offset: int = self._builder.CreateByteVector(data)
        return offset

    def numbers(self, numbers: Sequence[float], flags: Any) -> int:
        """Write a vector of numbers."""
        builder = self._builder
        builder.StartVector(flags.bytewidth, len(numbers), flags.bytewidth)
        for number in reversed(numbers):
            builder.Prepend(flags, number)
        offset: int = builder.EndVector()
        return offset

    def offsets(self, offsets: Sequence[int]) -> int:
        """Write a vector of tables or strings."""
        builder = self._builder
        builder.StartVector(_OFFSET_BYTES, len(offsets), _OFFSET_BYTES)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        vector: int = builder.EndVector()
        return vector

    def table(
        self,
        count: int,
        *,
        scalars: Sequence[tuple[int, Any, float]] = (),
        offsets: Sequence[tuple[int, int]] = (),
        struct_field: tuple[int, bytes, int] | None = None,
    ) -> int:
        """Write a table.

        Args:
            count: of the fields that its schema has.
            scalars: (field, type, value); a 0 is left out, being the default.
            offsets: (field, offset) of what was written before.
            struct_field: (field, bytes as they lie, alignment).
        """
        builder = self._builder
        builder.StartObject(count)
        for field, flags, value in scalars:
            builder.PrependSlot(flags, field, value, 0)
        for field, offset in offsets:
            builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        if struct_field is not None:
            field, data, alignment = struct_field
            builder.Prep(alignment, len(data))
            for byte in reversed(data):
                builder.PrependByte(byte)
            builder.PrependStructSlot(field, builder.Offset(), 0)
        table: int = builder.EndObject()
        return table

    def finish(self, root: int) -> bytes:
        """Return the buffer."""
        self._builder.Finish(root)
        return bytes(self._builder.Output())
