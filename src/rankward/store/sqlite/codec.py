"""Records as rows: what the index needs in columns, the rest as MessagePack, recurring actions once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from rankward.records import Action, AnyInteraction, EventId, Header, History, Record, SettingsChange


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record on its way to or from a file."""

    body: bytes  # MessagePack of the record; of an interaction without its actions
    actions: tuple[Action, ...] | None  # None: neither an interaction nor history
    event_key: int | None  # of an interaction only: what `locate` searches by
    reward_wait_us: int | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_header_decoder = msgspec.msgpack.Decoder(Header)


def event_key(event_id: EventId) -> int:
    """Hash an event id to a signed 64-bit number, the width of an index column.

    Two ids of one loop share a key once in about 2**63 pairs.
    """
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "big", signed=True)


def to_row(record: Record) -> Row:
    """Take a record apart."""
    if isinstance(record, AnyInteraction):
        return Row(
            _encoder.encode(msgspec.structs.replace(record, actions=())),
            record.actions,
            event_key(record.event_id),
            record.reward_wait_us,
        )
    if isinstance(record, History):
        bare = msgspec.structs.replace(record.interaction, actions=())
        body = _encoder.encode(msgspec.structs.replace(record, interaction=bare))
        return Row(body, record.interaction.actions, None, None)
    if isinstance(record, SettingsChange):  # its JSON is put in as it is, which MessagePack cannot do by itself
        packed = msgspec.Raw(_encoder.encode(bytes(record.settings)))
        record = msgspec.structs.replace(record, settings=packed)
    return Row(_encoder.encode(record), None, None, None)


def to_record(body: bytes, actions: Sequence[Action] | None) -> Record:
    """Put a record together again."""
    record: Record = _decoder.decode(body)
    if actions is None:
        return _unpacked(record) if isinstance(record, SettingsChange) else record
    interaction = record.interaction if isinstance(record, History) else record
    assert isinstance(interaction, AnyInteraction), "only interactions and history have actions"
    # Nobody has seen the record yet, and to make another would cost as much as to decode it.
    msgspec.structs.force_setattr(interaction, "actions", tuple(actions))
    return record


def to_header(body: bytes) -> Header:
    """Read as much of a record as joining needs."""
    header: Header = _header_decoder.decode(body)
    return _unpacked(header) if isinstance(header, SettingsChange) else header


def _unpacked(record: SettingsChange) -> SettingsChange:
    packed = msgspec.msgpack.decode(record.settings, type=bytes)
    return msgspec.structs.replace(record, settings=msgspec.Raw(packed))
