"""Batches as clients of every kind would write them, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import zstandard

from rankward.uploads import fields
from rankward.uploads.fields import Encoding, Kind, PayloadType
from rankward.uploads.flat import BOOL, BYTE, FLOAT, INT, UINT, ULONG, Builder
from rankward.uploads.write import write_batch, write_event

Json = Any
NOON_US = 1_768_478_400_000_000

CONTEXT: dict[str, Json] = {
    "FromUrl": [{"visitor": {"device": "phone"}}],
    "_multi": [
        {"_tag": name, "i": {"constant": 1, "id": name}, "j": [{"dish": {"name": name}}]} for name in ("a", "b", "c")
    ],
}
SLOTS = [{"_id": "hero", "sj": [{"size": "large"}, {"_inc": [0, 2]}]}, {"_id": "side"}]


def cb(
    event_id: str = "e1",
    *,
    actions: Sequence[int] = (2, 1, 3),
    pmf: Sequence[float] = (0.8, 0.1, 0.1),
    context: Json = CONTEXT,
    mode: int = 0,
    deferred: bool = False,
    model_id: str | None = "m1",
    pass_probability: float = 1.0,
    encoding: int = Encoding.IDENTITY,
    time_us: int | None = NOON_US,
) -> bytes:
    """Write a decision for one slot."""
    builder = Builder()
    text = context if isinstance(context, bytes) else json.dumps(context).encode()
    offsets = [
        (fields.CbEvent.ACTION_IDS, builder.numbers(actions, ULONG)),
        (fields.CbEvent.CONTEXT, builder.data(text)),
        (fields.CbEvent.PROBABILITIES, builder.numbers(pmf, FLOAT)),
    ]
    if model_id is not None:
        offsets.append((fields.CbEvent.MODEL_ID, builder.text(model_id)))
    scalars = [(fields.CbEvent.DEFERRED_ACTION, BOOL, deferred), (fields.CbEvent.LEARNING_MODE, BYTE, mode)]
    root = builder.table(len(fields.CbEvent), offsets=offsets, scalars=scalars)
    return event(
        event_id,
        PayloadType.CB,
        builder.finish(root),
        pass_probability=pass_probability,
        encoding=encoding,
        time_us=time_us,
    )


def event(
    event_id: str,
    payload_type: int,
    payload: bytes,
    *,
    pass_probability: float = 1.0,
    encoding: int = Encoding.IDENTITY,
    time_us: int | None = NOON_US,
) -> bytes:
    """Write an event round a payload; one encoded as zstd is compressed."""
    if encoding == Encoding.ZSTD:
        payload = zstandard.compress(payload)
    return write_event(
        event_id,
        payload_type,  # type: ignore[arg-type]
        payload,
        time_us=time_us,
        pass_probability=pass_probability,
        encoding=encoding,  # type: ignore[arg-type]
    )


def ccb(
    event_id: str = "p1", *, baselines: Sequence[int] = (2, 0), ids: Sequence[str | None] = ("hero", "side")
) -> bytes:
    """Write a decision for two slots."""
    builder = Builder()
    slots = []
    for slot_id, actions, pmf in zip(ids, ((0, 2), (1, 2)), ((0.9, 0.1), (0.75, 0.25)), strict=True):
        offsets = [
            (fields.SlotEvent.ACTION_IDS, builder.numbers(actions, UINT)),
            (fields.SlotEvent.PROBABILITIES, builder.numbers(pmf, FLOAT)),
        ]
        if slot_id is not None:
            offsets.append((fields.SlotEvent.ID, builder.text(slot_id)))
        slots.append(builder.table(len(fields.SlotEvent), offsets=offsets))
    text = json.dumps({**CONTEXT, "_slots": SLOTS}).encode()
    root = builder.table(
        len(fields.MultiSlotEvent),
        offsets=[
            (fields.MultiSlotEvent.CONTEXT, builder.data(text)),
            (fields.MultiSlotEvent.SLOTS, builder.offsets(slots)),
            (fields.MultiSlotEvent.MODEL_ID, builder.text("m1")),
            (fields.MultiSlotEvent.BASELINE_ACTIONS, builder.numbers(baselines, INT)),
        ],
        scalars=[(fields.MultiSlotEvent.LEARNING_MODE, BYTE, 1)],
    )
    return event(event_id, PayloadType.CCB, builder.finish(root))


def outcome(
    event_id: str = "e1",
    value: float | str | None = 1.0,
    *,
    index: int | str | None = None,
    activates: bool = False,
    time_us: int | None = NOON_US,
) -> bytes:
    """Write a reward, or an activation."""
    builder = Builder()
    offsets: list[tuple[int, int]] = []
    scalars: list[tuple[int, Any, float]] = [(fields.OutcomeEvent.ACTION_TAKEN, BOOL, activates)]
    for place, told, number_table in (
        (fields.OutcomeEvent.VALUE, value, (fields.NumericOutcome.VALUE, FLOAT)),
        (fields.OutcomeEvent.INDEX, index, (fields.NumericIndex.INDEX, INT)),
    ):
        if told is None:
            continue
        if isinstance(told, str):
            offsets.append((place, builder.text(told)))
        else:
            offsets.append((place, builder.table(1, scalars=[(*number_table, told)])))
        scalars.append((place - 1, BYTE, Kind.LITERAL if isinstance(told, str) else Kind.NUMBER))
    root = builder.table(len(fields.OutcomeEvent), offsets=offsets, scalars=scalars)
    return event(event_id, PayloadType.OUTCOME, builder.finish(root), time_us=time_us)


def dictionary(values: dict[int, Json], *, encoding: int = Encoding.IDENTITY) -> bytes:
    """Write what contexts of a batch have in common."""
    builder = Builder()
    texts = [builder.text(json.dumps(value)) for value in values.values()]
    root = builder.table(
        len(fields.DedupInfo),
        offsets=[
            (fields.DedupInfo.IDS, builder.numbers(list(values), ULONG)),
            (fields.DedupInfo.VALUES, builder.offsets(texts)),
        ],
    )
    return event("", PayloadType.DEDUP_INFO, builder.finish(root), encoding=encoding)


def batch(*events: bytes, content_encoding: str = fields.IDENTITY) -> bytes:
    """Write the body of an upload."""
    return write_batch(events, content_encoding=content_encoding)
