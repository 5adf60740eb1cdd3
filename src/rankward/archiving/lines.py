"""Joined events as the lines of an archive: log lines that hold what such lines leave out in a member of their own.

So whatever reads log lines reads an archive, `vw --dsjson` for one, and we read every event exactly as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import zstandard

from rankward.dsjson.write import write_line
from rankward.errors import StoreUnavailable
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
    AnyInteraction,
    EventId,
    Features,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    MultiSlotInteraction,
    Offset,
    Slot,
)

LEVEL = 6
_READ_BYTES = 1 << 14  # that are decompressed at once
_NOTHING = Features(b"")


class _Beyond(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a log line leaves out of an event."""

    offset: Offset  # in the joined log
    entry: JoinedEntry
    interaction: AnyInteraction  # without features and actions
    excluded: list[tuple[str, msgspec.Raw]] = []  # id and features of the excluded actions of a single slot
    slots: list[msgspec.Raw] = []  # features of each slot


class _Offered(msgspec.Struct):
    id: str = msgspec.field(name="_tag")
    features: msgspec.Raw = msgspec.field(name="j")


class _Context(msgspec.Struct):
    features: msgspec.Raw = msgspec.field(name="FromUrl")
    actions: list[_Offered] = msgspec.field(name="_multi")


class _Line(msgspec.Struct):
    context: _Context = msgspec.field(name="c")
    beyond: _Beyond = msgspec.field(name="_rankward")


class _Subject(msgspec.Struct):
    subject: str | None = None


class _Whose(msgspec.Struct):
    entry: JoinedEntry
    interaction: _Subject


class _Named(msgspec.Struct):
    event_id: EventId = msgspec.field(name="EventId")
    beyond: _Whose = msgspec.field(name="_rankward")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def to_line(event: JoinedEvent, definition: RewardDefinition) -> bytes:
    """Write an event as a line, with its end.

    Args:
        event: of any kind.
        definition: of the reward that the line states. What was observed is in it, too.
    """
    interaction = event.interaction
    excluded: list[tuple[str, msgspec.Raw]] = []
    slots: list[msgspec.Raw] = []
    bare: AnyInteraction
    match interaction:
        case Interaction():
            hidden = [interaction.actions[index] for index in interaction.excluded]
            excluded = [(action.id, msgspec.Raw(action.features)) for action in hidden]
            bare = msgspec.structs.replace(interaction, context=_NOTHING, actions=())
        case MultiSlotInteraction():
            slots = [msgspec.Raw(slot.features) for slot in interaction.slots]
            named = [Slot(slot.id, _NOTHING, slot.baseline, slot.excluded) for slot in interaction.slots]
            bare = msgspec.structs.replace(interaction, context=_NOTHING, actions=(), slots=tuple(named))
    beyond = _Beyond(offset=event.offset, entry=event.entry, interaction=bare, excluded=excluded, slots=slots)
    return b"".join((write_line(event, definition)[:-1].encode(), b',"_rankward":', _encode(beyond), b"}\n"))


def from_line(line: bytes) -> JoinedEvent:
    """Read an event: the very one that `to_line` wrote.

    Raises:
        msgspec.DecodeError: it is no such line.
    """
    found = _decode(line)
    beyond, offered = found.beyond, found.context.actions
    actions = [Action(each.id, _features(each.features)) for each in offered]
    context = _features(found.context.features)
    interaction: AnyInteraction
    match beyond.interaction:
        case Interaction() as bare:
            for index, (name, features) in zip(bare.excluded, beyond.excluded, strict=True):
                actions.insert(index, Action(name, _features(features)))
            interaction = msgspec.structs.replace(bare, context=context, actions=tuple(actions))
        case MultiSlotInteraction() as bare:
            slots = [
                Slot(slot.id, _features(features), slot.baseline, slot.excluded)
                for slot, features in zip(bare.slots, beyond.slots, strict=True)
            ]
            interaction = msgspec.structs.replace(bare, context=context, actions=tuple(actions), slots=tuple(slots))
    return JoinedEvent(beyond.offset, beyond.entry, interaction)


def whose(line: bytes) -> tuple[EventId, str | None, Offset]:
    """Read the id of a line's event, its subject, and where its interaction stands in the event log: in little time.

    Raises:
        msgspec.DecodeError: it is no such line.
    """
    found = _decode_named(line)
    return found.event_id, found.beyond.interaction.subject, found.beyond.entry.interaction


def _features(text: msgspec.Raw) -> Features:
    return Features(bytes(text))


def packer() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """Make what compresses an object: the one takes lines, the other ends it. Each returns what there is by then."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    return compressor.compress, compressor.flush


def pack(lines: Iterable[bytes]) -> bytes:
    """Compress lines as an object."""
    take, end = packer()
    return b"".join([*map(take, lines), end()])


def unpack(content: bytes, name: str) -> Iterator[bytes]:
    """Read the lines of an object.

    Args:
        content: of the object.
        name: to say what is damaged.

    Raises:
        StoreUnavailable: it is damaged.
    """
    frame = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    for start in range(0, len(content), _READ_BYTES):
        try:
            found = frame.decompress(content[start : start + _READ_BYTES])
        except zstandard.ZstdError as error:
            raise StoreUnavailable(f"{name} of the archive is damaged: {error}") from error
        *lines, rest = (rest + found).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest or not frame.eof:
        raise StoreUnavailable(f"{name} of the archive is damaged: it was cut off")


def events_in(content: bytes, name: str) -> Iterator[JoinedEvent]:
    """Read the events of an object: see `unpack`."""
    for line in unpack(content, name):
        try:
            yield from_line(line)
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(f"{name} of the archive is damaged: {error}") from error
