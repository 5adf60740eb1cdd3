"""Writes uploads: what a client decided and was told, as batches that `read` reads."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from rankward.records import Activation, EventId, Interaction, LearningMode, Observation, TimeUs
from rankward.settings import as_datetime
from rankward.uploads import fields
from rankward.uploads.fields import Kind, Mode, PayloadType
from rankward.uploads.flat import BOOL, BYTE, FLOAT, ULONG, Builder, Flat
from rankward.vw.parser import context_text

_TIMESTAMP = struct.Struct("<HBBBBBxI")
_APP_ID = "rankward"
_MODES = {
    LearningMode.ONLINE: Mode.ONLINE,
    LearningMode.APPRENTICE: Mode.APPRENTICE,
    LearningMode.LOGGING_ONLY: Mode.LOGGING_ONLY,
}


def write_interaction(interaction: Interaction, *, time_us: TimeUs) -> bytes:
    """Write a decision as an event. Only actions that could have been chosen are in it, as in the learner's context."""
    rankable = interaction.rankable
    order = [interaction.chosen, *[index for index in rankable if index != interaction.chosen]]
    builder = Builder()
    context = context_text(interaction.context, [interaction.actions[index] for index in rankable])
    root = builder.table(
        len(fields.CbEvent),
        offsets=[
            (
                fields.CbEvent.ACTION_IDS,
                builder.numbers([rankable.index(index) + 1 for index in order], ULONG),
            ),
            (fields.CbEvent.CONTEXT, builder.data(context.encode())),
            (fields.CbEvent.PROBABILITIES, builder.numbers([interaction.pmf[index] for index in order], FLOAT)),
            (fields.CbEvent.MODEL_ID, builder.text(interaction.model_id or "")),
        ],
        scalars=[
            (fields.CbEvent.DEFERRED_ACTION, BOOL, interaction.deferred),
            (fields.CbEvent.LEARNING_MODE, BYTE, _MODES[interaction.learning_mode]),
        ],
    )
    return write_event(
        interaction.event_id,
        PayloadType.CB,
        builder.finish(root),
        time_us=time_us,
        pass_probability=interaction.pass_probability,
    )


def write_outcome(record: Observation | Activation, *, time_us: TimeUs) -> bytes:
    """Write a reward or an activation as an event.

    Args:
        record: what is reported.
        time_us: of the report. The event's bytes are its name: two reports of one event must differ in their times.
    """
    builder = Builder()
    offsets: list[tuple[int, int]] = []
    scalars: list[tuple[int, object, float]] = []
    if isinstance(record, Observation):
        number = builder.table(len(fields.NumericOutcome), scalars=[(fields.NumericOutcome.VALUE, FLOAT, record.value)])
        offsets.append((fields.OutcomeEvent.VALUE, number))
        scalars.append((fields.OutcomeEvent.VALUE_TYPE, BYTE, Kind.NUMBER))
        if record.slot is not None:
            offsets.append((fields.OutcomeEvent.INDEX, builder.text(record.slot)))
            scalars.append((fields.OutcomeEvent.INDEX_TYPE, BYTE, Kind.LITERAL))
    else:
        scalars.append((fields.OutcomeEvent.ACTION_TAKEN, BOOL, True))
    root = builder.table(len(fields.OutcomeEvent), offsets=offsets, scalars=scalars)
    return write_event(record.event_id, PayloadType.OUTCOME, builder.finish(root), time_us=time_us)


def write_event(
    event_id: EventId,
    payload_type: PayloadType,
    payload: bytes,
    *,
    time_us: TimeUs | None,
    pass_probability: float = 1.0,
    encoding: fields.Encoding = fields.Encoding.IDENTITY,
) -> bytes:
    """Write an event round its payload."""
    builder = Builder()
    body = builder.data(payload)
    names = [(fields.Metadata.ID, builder.text(event_id)), (fields.Metadata.APP_ID, builder.text(_APP_ID))]
    meta = builder.table(
        len(fields.Metadata),
        offsets=names,
        scalars=[
            (fields.Metadata.PAYLOAD_TYPE, BYTE, payload_type),
            (fields.Metadata.PASS_PROBABILITY, FLOAT, pass_probability),
            (fields.Metadata.ENCODING, BYTE, encoding),
        ],
        struct_field=None if time_us is None else (fields.Metadata.CLIENT_TIME_UTC, _timestamp(time_us), 4),
    )
    return builder.finish(
        builder.table(len(fields.Event), offsets=[(fields.Event.META, meta), (fields.Event.PAYLOAD, body)])
    )


def _timestamp(time_us: TimeUs) -> bytes:
    moment = as_datetime(time_us)
    return _TIMESTAMP.pack(
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond * 10
    )


def write_batch(events: Sequence[bytes], *, content_encoding: str = fields.IDENTITY) -> bytes:
    """Write events as the body of an upload."""
    builder = Builder()
    serialized = [
        builder.table(len(fields.SerializedEvent), offsets=[(fields.SerializedEvent.PAYLOAD, builder.data(event))])
        for event in events
    ]
    metadata = builder.table(
        len(fields.BatchMetadata),
        offsets=[(fields.BatchMetadata.CONTENT_ENCODING, builder.text(content_encoding))],
        scalars=[(fields.BatchMetadata.ORIGINAL_EVENT_COUNT, ULONG, len(events))],
    )
    batch = builder.finish(
        builder.table(
            len(fields.EventBatch),
            offsets=[
                (fields.EventBatch.EVENTS, builder.offsets(serialized)),
                (fields.EventBatch.METADATA, metadata),
            ],
        )
    )
    return fields.PREAMBLE.pack(0, fields.VERSION, fields.MESSAGE_TYPE, len(batch)) + batch


def split_batch(body: bytes) -> list[bytes]:
    """Take a batch of ours apart into its events, to send them in other batches."""
    batch = Flat(body[fields.PREAMBLE.size :])
    return [event.data(fields.SerializedEvent.PAYLOAD) for event in batch.tables(fields.EventBatch.EVENTS, len(body))]
