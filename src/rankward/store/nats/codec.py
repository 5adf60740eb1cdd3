"""What a message of an event log's stream looks like: a group of appends, a command, or a patch.

The first byte of a body says how to read the rest; the subject says what it is. A group bears in a header the keys of
the event ids of its interactions, so that publishers can follow those without the bodies.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import zstandard

from rankward.errors import StoreUnavailable
from rankward.records import Erased, Offset, TimeUs
from rankward.store.sqlite.codec import Row
from rankward.store.sqlite.groups import Requested

T = TypeVar("T")

KEYS = "Rankward-Keys"
"""The header: 8 bytes for each interaction, big-endian and signed, in base64."""
KEYS_MAX = 4_096
"""The servers take no header of more than 64 KiB."""

_PLAIN, _COMPRESSED = 1, 2
_COMPRESS_BYTES = 1_024  # less than this is not worth the time
_LEVEL = 1
_encode = msgspec.msgpack.Encoder().encode
_requests = msgspec.msgpack.Decoder(list[Requested])


def encode_request(request: Requested) -> msgspec.Raw:
    """Encode what one call asks for: a part of a message."""
    return msgspec.Raw(_encode(request))


def encode_group(requests: Sequence[msgspec.Raw]) -> bytes:
    """Put encoded requests together to the body of a message."""
    return pack(_encode(requests))


def pack(encoded: bytes) -> bytes:
    """Make the body of a message of what is in MessagePack."""
    if len(encoded) < _COMPRESS_BYTES:
        return bytes((_PLAIN,)) + encoded
    return bytes((_COMPRESSED,)) + zstandard.ZstdCompressor(level=_LEVEL).compress(encoded)


def unpack(body: bytes) -> bytes:
    """Undo `pack`.

    Raises:
        StoreUnavailable: it was written by a newer version, or is damaged.
    """
    if body[:1] == bytes((_PLAIN,)):
        return body[1:]
    if body[:1] != bytes((_COMPRESSED,)):
        raise StoreUnavailable(f"a message of the stream has format {body[:1].hex()}: use the newer rankward")
    try:
        return zstandard.ZstdDecompressor().decompress(body[1:])
    except zstandard.ZstdError as error:
        raise StoreUnavailable(f"a message of the stream is damaged: {error}") from error


def decode_group(body: bytes) -> list[Requested]:
    """Read the body of a message.

    Raises:
        StoreUnavailable: it was written by a newer version, or is damaged.
    """
    return _decoded(_requests, body)


def encode_keys(keys: Sequence[int]) -> dict[str, str] | None:
    """Make the headers of a message; None: it needs none."""
    return {KEYS: base64.b64encode(struct.pack(f">{len(keys)}q", *keys)).decode()} if keys else None


def decode_keys(headers: Mapping[str, str] | None) -> tuple[int, ...]:
    """Read the keys of a message from its headers."""
    raw = base64.b64decode((headers or {}).get(KEYS, ""))
    return struct.unpack(f">{len(raw) // 8}q", raw)


class EraseEntries(msgspec.Struct, frozen=True, tag="erase"):
    """A command: put these records in the place of those that are there."""

    places: dict[Offset, Erased]
    keys: list[int]  # of the event ids of the interactions among what is erased


class ForgetObservations(msgspec.Struct, frozen=True, tag="forget"):
    """A command: forget what the joined log holds of interactions, and what waits for some."""

    interactions: list[Offset]
    keys: list[int]  # of the event ids of the interactions that may be waited for


class ClearLog(msgspec.Struct, frozen=True, tag="clear"):
    """A command: forget every entry."""


Command = EraseEntries | ForgetObservations | ClearLog


class Patch(msgspec.Struct, frozen=True):
    """What stands for a message that was removed from the stream: what is left of what it brought."""

    applied: int  # the place in the stream that is taken into account
    time_us: TimeUs  # of its entries
    rows: list[Row]  # to be stored as they are: whether they were known has been settled


_command: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_patch = msgspec.msgpack.Decoder(Patch)


def encode_command(command: Command) -> bytes:
    """Make the body of a message of a command."""
    return pack(_encode(command))


def decode_command(body: bytes) -> Command:
    """Read the body of a message of a command.

    Raises:
        StoreUnavailable: it was written by a newer version, or is damaged.
    """
    return _decoded(_command, body)


def encode_patch(patch: Patch) -> bytes:
    """Make the body of a message that stands for another."""
    return pack(_encode(patch))


def decode_patch(body: bytes) -> Patch:
    """Read the body of a message that stands for another.

    Raises:
        StoreUnavailable: it was written by a newer version, or is damaged.
    """
    return _decoded(_patch, body)


def _decoded(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(unpack(body))
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"a message of the stream is damaged: {error}") from error
