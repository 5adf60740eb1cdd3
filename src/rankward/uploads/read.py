"""Reads uploads: bytes become the records that the log would have if the service had decided, checked as a Rank is.

A batch is taken as a whole or not at all. Each decision is read as the log line that it would have become, so both ways
in have the same checks. What a line has no room for (learning mode, deferral, pass probability) is the event's to say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import zstandard

from rankward.dsjson.read import LineReader, Skipped
from rankward.errors import InvalidRequest
from rankward.ranking.features import FeatureBounds
from rankward.records import (
    Activation,
    AnyInteraction,
    Interaction,
    LearningMode,
    MultiSlotInteraction,
    Observation,
    SlotChoice,
)
from rankward.settings import Limits
from rankward.uploads import fields
from rankward.uploads.fields import Encoding, Kind, Mode, PayloadType
from rankward.uploads.flat import BOOL, BYTE, FLOAT, INT, UINT, ULONG, Flat, FlatError

CODE = "InvalidRequest"

_MODES: Mapping[int, LearningMode] = {
    Mode.ONLINE: LearningMode.ONLINE,
    Mode.APPRENTICE: LearningMode.APPRENTICE,
    Mode.LOGGING_ONLY: LearningMode.LOGGING_ONLY,
}
_TEXT_BYTES = 256  # of a text that is no id
_UTF8_BYTES = 4  # of a character, at most
_TIME = "1970-01-01T00:00:00Z"  # a line has one; the log gives its own
_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode

Read = TypeVar("Read")


class _Reference(msgspec.Struct):
    """What stands for an action that the batch's dictionary holds."""

    value: int = msgspec.field(name="__aid")


_decode_reference = msgspec.json.Decoder(_Reference).decode


class _FlawError(Exception):
    """What is wrong with an event."""


class _Event(msgspec.Struct, frozen=True):
    """An event of a batch, unpacked."""

    event_id: str
    payload_type: PayloadType
    payload: bytes
    pass_probability: float
    name: str | None  # the same for the same event sent again; None: it cannot be told from others


def read_interactions(
    body: bytes, *, limits: Limits, bounds: FeatureBounds, reward_wait_us: int
) -> list[AnyInteraction]:
    """Read an upload of decisions.

    Args:
        body: of the request.
        limits: of a request.
        bounds: of features.
        reward_wait_us: of the loop.

    Raises:
        InvalidRequest: something in it cannot be used; it is named, and nothing of the upload must be.
    """
    lines = LineReader(bounds=bounds, limits=limits, reward_wait_us=reward_wait_us, mode=LearningMode.ONLINE)
    batch = _Batch(body, limits)
    readers: Mapping[PayloadType, Callable[[_Event, _Batch, LineReader, Limits], AnyInteraction]] = {
        PayloadType.CB: _single_slot,
        PayloadType.CCB: _multi_slot,
    }

    def read(event: _Event) -> AnyInteraction:
        if event.payload_type not in readers:
            raise _FlawError(f"it holds {event.payload_type.name}: decisions are CB or CCB")
        return readers[event.payload_type](event, batch, lines, limits)

    return batch.each(read)


def read_observations(body: bytes, *, limits: Limits) -> list[Observation | Activation]:
    """Read an upload of rewards and activations.

    Raises:
        InvalidRequest: something in it cannot be used; it is named, and nothing of the upload must be.
    """
    return _Batch(body, limits).each(lambda event: _outcome(event, limits))


class _Batch:
    """The events of an upload, within bounds."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._limits = limits
        self._room = limits.upload_unpacked_bytes
        self._values: Mapping[int, bytes] | None = None  # what contexts refer to; None: they do not
        if len(body) < fields.PREAMBLE.size:
            raise InvalidRequest(f"the body has {len(body)} bytes, and its preamble alone takes 8", code=CODE)
        _, version, message, size = fields.PREAMBLE.unpack_from(body)
        if (version, message) != (fields.VERSION, fields.MESSAGE_TYPE):
            raise InvalidRequest(
                f"the preamble says version {version}, message type {message}: send version 0, type 13 (protocol 2)",
                code=CODE,
            )
        if size != len(body) - fields.PREAMBLE.size:
            raise InvalidRequest(
                f"the preamble says that {size} bytes follow, but {len(body) - fields.PREAMBLE.size} do", code=CODE
            )
        try:
            batch = Flat(body[fields.PREAMBLE.size :])
            metadata = batch.table(fields.EventBatch.METADATA)
            said = metadata.text(fields.BatchMetadata.CONTENT_ENCODING, _TEXT_BYTES) if metadata is not None else None
            self._events = batch.tables(fields.EventBatch.EVENTS, limits.upload_events)
        except FlatError as error:
            raise InvalidRequest(f"the batch cannot be read: {error}", code=CODE) from error
        if said not in (None, "", fields.IDENTITY, fields.DEDUP):
            raise InvalidRequest(f"the batch is encoded as {said[:40]!r}: send IDENTITY or DEDUP", code=CODE)
        self._refers = said == fields.DEDUP

    def each(self, read: Callable[[_Event], Read]) -> list[Read]:
        """Read every event but the dictionary."""
        found = []
        for index, event in enumerate(self._events):
            event_id = ""
            try:
                unpacked = self._unpack(event)
                event_id = unpacked.event_id
                if unpacked.payload_type is PayloadType.DEDUP_INFO:
                    self._take_dictionary(unpacked, index)
                else:
                    found.append(read(unpacked))
            except (_FlawError, FlatError, InvalidRequest) as error:
                named = f" ({event_id[:40]!r})" if event_id else ""
                raise InvalidRequest(
                    f"events[{index}]{named}: {error}. Nothing of the batch was stored",
                    code=CODE,
                    target=f"events[{index}]",
                ) from error
        return found

    def _unpack(self, event: Flat) -> _Event:
        serialized = event.data(fields.SerializedEvent.PAYLOAD)
        self._spend(len(serialized))
        flat = Flat(serialized)
        meta = flat.table(fields.Event.META)
        if meta is None:
            raise _FlawError("it has no metadata")
        event_id = meta.text(fields.Metadata.ID, _id_bytes(self._limits)) or ""
        payload_type = meta.scalar(fields.Metadata.PAYLOAD_TYPE, BYTE)
        encoding = meta.scalar(fields.Metadata.ENCODING, BYTE)
        if payload_type not in iter(PayloadType):
            raise _FlawError(f"its payload type {payload_type} is unknown")
        if payload_type != PayloadType.DEDUP_INFO and not 1 <= len(event_id) <= self._limits.id_length:
            raise _FlawError(f"its id has {len(event_id)} characters: give it 1 to {self._limits.id_length}")
        payload = flat.data(fields.Event.PAYLOAD)
        if encoding == Encoding.ZSTD:
            payload = self._decompress(payload)
        elif encoding != Encoding.IDENTITY:
            raise _FlawError(f"its encoding {encoding} is unknown: send it as it is (0), or as zstd (1)")
        timed = any(meta.inline(fields.Metadata.CLIENT_TIME_UTC, fields.TIMESTAMP_BYTES))
        return _Event(
            event_id=event_id,
            payload_type=PayloadType(payload_type),
            payload=payload,
            pass_probability=meta.scalar(fields.Metadata.PASS_PROBABILITY, FLOAT, 0.0),
            name=hashlib.blake2b(serialized, digest_size=16).hexdigest() if timed else None,
        )

    def _decompress(self, payload: bytes) -> bytes:
        try:
            size = zstandard.get_frame_parameters(payload).content_size
            if size == zstandard.CONTENTSIZE_UNKNOWN:
                raise _FlawError("its zstd frame does not say how much it holds")
            self._spend(size)
            return zstandard.ZstdDecompressor().decompress(payload)
        except zstandard.ZstdError as error:
            raise _FlawError(f"it cannot be decompressed: {error}") from error

    def _spend(self, size: int) -> None:
        """Take from what all events may hold together, before it is unpacked."""
        self._room -= size
        if self._room < 0:
            raise _FlawError(
                f"the events unpack to more than {self._limits.upload_unpacked_bytes} bytes: send smaller batches"
            )

    def _take_dictionary(self, event: _Event, index: int) -> None:
        if not self._refers or index > 0:
            raise _FlawError("a dictionary stands first in a batch that is encoded as DEDUP, and nowhere else")
        flat = Flat(event.payload)
        ids = flat.numbers(fields.DedupInfo.IDS, ULONG, self._limits.upload_events * self._limits.actions)
        values = flat.texts(fields.DedupInfo.VALUES, len(ids))
        if len(values) < len(ids):
            raise _FlawError(f"it has {len(ids)} ids and {len(values)} values")
        self._values = {number: value.encode() for number, value in zip(ids, values, strict=True)}

    def context(self, text: bytes) -> msgspec.Raw:
        """Return a context with what it refers to put in its place."""
        if not self._refers:
            return msgspec.Raw(text)
        members = _decode_members(text)
        if "_multi" in members:
            actions = [self._resolved(action) for action in _decode_list(members["_multi"])]
            members["_multi"] = msgspec.Raw(_encode(actions))
        return msgspec.Raw(_encode(members))

    def _resolved(self, action: msgspec.Raw) -> msgspec.Raw:
        try:
            reference = _decode_reference(action).value
        except msgspec.ValidationError:
            return action
        found = (self._values or {}).get(reference)
        if found is None:
            raise _FlawError(f"its context refers to {reference}, which the batch's dictionary does not have")
        self._spend(len(found))
        return msgspec.Raw(found)


def _single_slot(event: _Event, batch: _Batch, lines: LineReader, limits: Limits) -> Interaction:
    flat = Flat(event.payload)
    line = {
        "a": flat.numbers(fields.CbEvent.ACTION_IDS, ULONG, limits.actions),
        "p": flat.numbers(fields.CbEvent.PROBABILITIES, FLOAT, limits.actions),
    }
    model_id = flat.text(fields.CbEvent.MODEL_ID, _id_bytes(limits))
    interaction = _read_line(event, batch, lines, line, flat.data(fields.CbEvent.CONTEXT), model_id)
    assert isinstance(interaction, Interaction), "it has no outcomes"
    _check_count(interaction, limits)
    return msgspec.structs.replace(
        interaction,
        pmf=_normalized(interaction.pmf),
        learning_mode=_mode(flat.scalar(fields.CbEvent.LEARNING_MODE, BYTE)),
        deferred=flat.scalar(fields.CbEvent.DEFERRED_ACTION, BOOL, default=False),
        pass_probability=_pass_probability(event),
    )


def _multi_slot(event: _Event, batch: _Batch, lines: LineReader, limits: Limits) -> MultiSlotInteraction:
    flat = Flat(event.payload)
    slots = flat.tables(fields.MultiSlotEvent.SLOTS, limits.actions)
    outcomes = [
        {
            "_id": slot.text(fields.SlotEvent.ID, _id_bytes(limits)),
            "_a": slot.numbers(fields.SlotEvent.ACTION_IDS, UINT, limits.actions),
            "_p": slot.numbers(fields.SlotEvent.PROBABILITIES, FLOAT, limits.actions),
        }
        for slot in slots
    ]
    baselines = flat.numbers(fields.MultiSlotEvent.BASELINE_ACTIONS, INT, limits.actions)
    line = {"_outcomes": outcomes, "_ba": baselines or None}
    model_id = flat.text(fields.MultiSlotEvent.MODEL_ID, _id_bytes(limits))
    interaction = _read_line(event, batch, lines, line, flat.data(fields.MultiSlotEvent.CONTEXT), model_id)
    assert isinstance(interaction, MultiSlotInteraction), "it has outcomes"
    _check_count(interaction, limits)
    return msgspec.structs.replace(
        interaction,
        choices=tuple([SlotChoice(choice.actions, _normalized(choice.pmf)) for choice in interaction.choices]),
        learning_mode=_mode(flat.scalar(fields.MultiSlotEvent.LEARNING_MODE, BYTE)),
        deferred=flat.scalar(fields.MultiSlotEvent.DEFERRED_ACTION, BOOL, default=False),
        pass_probability=_pass_probability(event),
    )


def _read_line(
    event: _Event,
    batch: _Batch,
    lines: LineReader,
    members: Mapping[str, object],
    context: bytes,
    model_id: str | None,
) -> AnyInteraction:
    try:
        line = _encode(
            {
                "Timestamp": _TIME,
                "EventId": event.event_id,
                "c": batch.context(context),
                "VWState": {"m": model_id},
                **members,
            }
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _FlawError(f"its context cannot be read: {error}") from error
    [read] = lines.read([line])
    if isinstance(read, Skipped):
        raise _FlawError(read.why)
    return read.interaction


def _id_bytes(limits: Limits) -> int:
    """How long an id may be as UTF-8. Its characters are counted once it is read."""
    return _UTF8_BYTES * limits.id_length


def _check_count(interaction: AnyInteraction, limits: Limits) -> None:
    if len(interaction.actions) > limits.actions:
        raise _FlawError(f"it has {len(interaction.actions)} actions: send 1 to {limits.actions}")
    if len({action.id for action in interaction.actions}) < len(interaction.actions):
        raise _FlawError("two of its actions have the same id: an id must name one action")


def _normalized(pmf: Sequence[float]) -> tuple[float, ...]:
    """Bring a distribution in single precision to a sum of 1."""
    total = math.fsum(pmf)
    return tuple([probability / total for probability in pmf])


def _mode(number: int) -> LearningMode:
    mode = _MODES.get(number)
    if mode is None:
        raise _FlawError(f"its learning mode {number} is unknown")
    return mode


def _pass_probability(event: _Event) -> float:
    if not 0.0 < event.pass_probability <= 1.0:
        raise _FlawError(f"its pass probability {event.pass_probability} is outside (0, 1]")
    return event.pass_probability


def _outcome(event: _Event, limits: Limits) -> Observation | Activation:
    if event.payload_type is not PayloadType.OUTCOME:
        raise _FlawError(f"it holds {event.payload_type.name}: rewards and activations are OUTCOME")
    flat = Flat(event.payload)
    kind = flat.scalar(fields.OutcomeEvent.VALUE_TYPE, BYTE)
    if kind == Kind.NONE:
        if not flat.scalar(fields.OutcomeEvent.ACTION_TAKEN, BOOL, default=False):
            raise _FlawError("it holds neither a value nor an activation")
        return Activation(event_id=event.event_id)
    value = _reward(flat, kind)
    if not -1.0 <= value <= 1.0:
        raise _FlawError(f"its value {value} is outside -1 to 1: scale it")
    return Observation(event_id=event.event_id, value=value, slot=_slot(flat, limits), report=event.name)


def _reward(flat: Flat, kind: int) -> float:
    if kind == Kind.NUMBER:
        outcome = flat.table(fields.OutcomeEvent.VALUE)
        number: float = outcome.scalar(fields.NumericOutcome.VALUE, FLOAT, 0.0) if outcome is not None else math.nan
        return number
    if kind != Kind.LITERAL:
        raise _FlawError(f"its value is of an unknown kind {kind}")
    text = flat.text(fields.OutcomeEvent.VALUE, _TEXT_BYTES) or ""
    try:
        return float(text)
    except ValueError:
        raise _FlawError(f"its value {text[:40]!r} is no number") from None


def _slot(flat: Flat, limits: Limits) -> str | None:
    """Which slot it is about: by its id, or by its number if it has none."""
    kind = flat.scalar(fields.OutcomeEvent.INDEX_TYPE, BYTE)
    if kind == Kind.NUMBER:
        index = flat.table(fields.OutcomeEvent.INDEX)
        return str(index.scalar(fields.NumericIndex.INDEX, INT) if index is not None else 0)
    return flat.text(fields.OutcomeEvent.INDEX, _id_bytes(limits)) if kind == Kind.LITERAL else None
