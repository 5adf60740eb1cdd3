"""What a message of an event log's stream looks like: a group of appends, or a command.

The first byte of a body says how to read the rest. Groups and commands go to subjects of their own. A group bears in
a header the keys of the event ids of its interactions, so that publishers can follow those without the bodies.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence

import msgspec
import zstandard

from rankward.errors import StoreUnavailable
from rankward.store.sqlite.groups import Requested

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
    try:
        return _requests.decode(unpack(body))
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"a message of the stream is damaged: {error}") from error


def encode_keys(keys: Sequence[int]) -> dict[str, str] | None:
    """Make the headers of a message; None: it needs none."""
    return {KEYS: base64.b64encode(struct.pack(f">{len(keys)}q", *keys)).decode()} if keys else None


def decode_keys(headers: Mapping[str, str] | None) -> tuple[int, ...]:
    """Read the keys of a message from its headers."""
    raw = base64.b64decode((headers or {}).get(KEYS, ""))
    return struct.unpack(f">{len(raw) // 8}q", raw)
