"""Joined events as a table, and as Parquet files: everything that a loop knows of an event, in typed columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import msgspec

from rankward.dsjson.read import FlawError, Skip, Skipped, check_choice, check_reward
from rankward.errors import InvalidRequest, RankwardError
from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.ranking.features import FeatureBounds, check_logged
from rankward.records import (
    Action,
    AnyInteraction,
    Arm,
    History,
    Interaction,
    JoinedEvent,
    LearningMode,
    MultiSlotInteraction,
    PastObservation,
    Slot,
    SlotChoice,
    TimeUs,
)
from rankward.settings import Limits

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

_BATCH = 256  # rows that are read at once
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

COLUMNS = {
    "event_id": "the event's id",
    "time": "when it was decided, UTC",
    "reward": "what training is told, under the loop's definition; null: never activated, so not learned. "
    "Of several slots, their sum",
    "observed_reward": "what the application reported, under the same definition",
    "action_id": "the drawn action; null for several slots",
    "probability": "of the drawn action when it was drawn; null for several slots",
    "shown_id": "the action that the application was told to show; null for several slots",
    "baseline_id": "the action that it would show by itself; null for several slots",
    "context": "features of the situation, JSON",
    "actions": "every action of the request, in its order: `id`, and `features` as JSON",
    "pmf": "the probability of each of `actions`; null for several slots",
    "excluded": "indexes into `actions`, from 0, of those that must not be chosen",
    "slots": "for several slots, each with `id`, `features` (JSON), `baseline` and `excluded` (indexes into "
    "`actions`), the `ranked` actions (indexes, drawn one first) with their `pmf`, and its `reward`; else null",
    "observations": "what was reported within the wait: `time`, `value`, `slot`, `metrics`",
    "learning_mode": "Online, Apprentice or LoggingOnly",
    "model_id": "the model that scored; null: there was none",
    "deferred": "whether it counted only once activated",
    "activated": "whether it was",
    "pass_probability": "of a sampling client having kept the event: its weight is the inverse",
    "arm": "which part of the traffic it belongs to",
    "arm_probability": "of that arm having been the one to choose",
    "subject": "whose event it is, if somebody said",
    "imported": "whether it came from another log",
}
"""What a table has, by column: for the pages."""


def _arrow() -> Any:
    """Import pyarrow, with its `parquet`."""
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: F401, PLC0415
    except ImportError as error:
        raise RankwardError(
            'tables and Parquet need pyarrow, which is not installed: pip install "rankward[parquet]"'
        ) from error
    return pa


def schema() -> pa.Schema:
    """Return the types of the columns.

    Raises:
        RankwardError: pyarrow is not installed.
    """
    arrow = _arrow()
    text, number, flag, index = arrow.string(), arrow.float64(), arrow.bool_(), arrow.int32()
    moment = arrow.timestamp("us", tz="UTC")
    action = arrow.struct({"id": text, "features": text})
    slot = arrow.struct(
        {
            "id": text,
            "features": text,
            "baseline": index,
            "excluded": arrow.list_(index),
            "ranked": arrow.list_(index),
            "pmf": arrow.list_(number),
            "reward": number,
        }
    )
    observation = arrow.struct({"time": moment, "value": number, "slot": text, "metrics": arrow.map_(text, number)})
    types = {
        "time": moment,
        "actions": arrow.list_(action),
        "pmf": arrow.list_(number),
        "excluded": arrow.list_(index),
        "slots": arrow.list_(slot),
        "observations": arrow.list_(observation),
        **dict.fromkeys(("deferred", "activated", "imported"), flag),
        **dict.fromkeys(("reward", "observed_reward", "probability", "pass_probability", "arm_probability"), number),
    }
    return arrow.schema([(name, types.get(name, text)) for name in COLUMNS])


def to_batch(events: Sequence[JoinedEvent], definition: RewardDefinition) -> pa.RecordBatch:
    """Put events into a table's rows.

    Args:
        events: of any kind.
        definition: how their observations become rewards.
    """
    return _arrow().RecordBatch.from_pylist([_row(event, definition) for event in events], schema=schema())


def _row(event: JoinedEvent, definition: RewardDefinition) -> dict[str, Any]:
    interaction, entry = event.interaction, event.entry
    slots = range(len(interaction.choices))
    observed = [observed_reward(event, definition, slot) for slot in slots]
    trained = [training_reward(event, definition, slot) for slot in slots]
    row = {
        "event_id": interaction.event_id,
        "time": entry.time_us,
        "reward": None if event.skip_learn else sum(trained),
        "observed_reward": sum(observed),
        "context": interaction.context.decode(),
        "actions": [{"id": action.id, "features": action.features.decode()} for action in interaction.actions],
        "observations": [
            {"time": each.time_us, "value": each.value, "slot": each.slot, "metrics": list(each.metrics.items())}
            for each in entry.observations
        ],
        "learning_mode": interaction.learning_mode.value,
        "model_id": interaction.model_id,
        "deferred": interaction.deferred,
        "activated": entry.activated,
        "pass_probability": interaction.pass_probability,
        "arm": interaction.arm.value,
        "arm_probability": interaction.arm_probability,
        "subject": interaction.subject,
        "imported": entry.imported,
    }
    if isinstance(interaction, MultiSlotInteraction):
        asked = zip(interaction.slots, interaction.choices, trained, strict=True)
        row["slots"] = [
            {
                "id": slot.id,
                "features": slot.features.decode(),
                "baseline": slot.baseline,
                "excluded": slot.excluded,
                "ranked": choice.actions,
                "pmf": choice.pmf,
                "reward": None if event.skip_learn else reward,
            }
            for slot, choice, reward in asked
        ]
        return row
    ids = [action.id for action in interaction.actions]
    return row | {
        "action_id": ids[interaction.chosen],
        "probability": interaction.pmf[interaction.chosen],
        "shown_id": ids[interaction.shown],
        "baseline_id": ids[interaction.baseline],
        "pmf": interaction.pmf,
        "excluded": interaction.excluded,
    }


class ParquetSink:
    """Writes events as a Parquet file. Implements `history.export.Sink`."""

    def __init__(self, file: IO[bytes], definition: RewardDefinition) -> None:
        """Begin the file.

        Raises:
            RankwardError: pyarrow is not installed.
        """
        self._definition = definition
        self._writer = _arrow().parquet.ParquetWriter(file, schema(), compression="zstd")

    def write(self, events: Sequence[JoinedEvent]) -> None:
        """See `Sink`."""
        if events:
            self._writer.write_batch(to_batch(events, self._definition))

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()


class TableSink:
    """Gathers events in memory. Implements `history.export.Sink`."""

    def __init__(self, definition: RewardDefinition) -> None:
        """Begin.

        Raises:
            RankwardError: pyarrow is not installed.
        """
        self._definition = definition
        self._schema = schema()
        self._batches: list[pa.RecordBatch] = []

    def write(self, events: Sequence[JoinedEvent]) -> None:
        """See `Sink`."""
        if events:
            self._batches.append(to_batch(events, self._definition))

    def close(self) -> None:
        """See `Sink`."""

    def table(self) -> pa.Table:
        """Return what was written."""
        return _arrow().Table.from_batches(self._batches, schema=self._schema)


class _Row(msgspec.Struct, kw_only=True):
    """A row as it is read; columns that can be computed from others are not."""

    event_id: str
    time: datetime
    context: str
    actions: list[_ActionRow]
    pmf: list[float] | None = None
    action_id: str | None = None
    excluded: list[int] | None = None
    slots: list[_SlotRow] | None = None
    observations: list[_ObservationRow] | None = None
    learning_mode: LearningMode = LearningMode.ONLINE
    model_id: str | None = None
    deferred: bool = False
    activated: bool = False
    pass_probability: float = 1.0
    arm: Arm = Arm.POLICY
    arm_probability: float = 1.0
    subject: str | None = None


class _ActionRow(msgspec.Struct):
    id: str
    features: str


class _SlotRow(msgspec.Struct, kw_only=True):
    id: str
    features: str
    baseline: int
    ranked: list[int]
    pmf: list[float]
    excluded: list[int] | None = None


class _ObservationRow(msgspec.Struct, kw_only=True):
    time: datetime
    value: float
    slot: str | None = None
    metrics: list[tuple[str, float]] | None = None


def parquet_file(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        InvalidRequest: it is damaged.
        RankwardError: pyarrow is not installed.
    """
    arrow = _arrow()
    try:
        return arrow.parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"{path} cannot be read as Parquet: {error}") from error


def read_batches(file: pq.ParquetFile, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of a file, some hundred rows at a time.

    Raises:
        InvalidRequest: it is damaged.
    """
    try:
        yield from file.iter_batches(_BATCH, columns=list(columns))
    except (_arrow().ArrowException, OSError) as error:
        raise InvalidRequest(f"{path} is damaged: {error}. What came before is read.") from error


def in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cut moments that are given in nanoseconds to microseconds: Python's have no more."""
    types = _arrow().types
    fields = [
        field.with_type(_arrow().timestamp("us", field.type.tz))
        if types.is_timestamp(field.type) and field.type.unit == "ns"
        else field
        for field in batch.schema
    ]
    return batch.cast(_arrow().schema(fields), safe=False)


class ParquetSource:
    """Reads a Parquet file that has such columns. Implements `history.sources.Source`."""

    unit: ClassVar[str] = "row"

    def __init__(self, path: Path, *, bounds: FeatureBounds, limits: Limits, reward_wait_us: int) -> None:
        """Open the file.

        Raises:
            InvalidRequest: it is damaged, or lacks a column.
            RankwardError: pyarrow is not installed.
        """
        self.path = path
        self.size = path.stat().st_size
        self.mode: LearningMode | None = None
        self._bounds = bounds
        self._limits = limits
        self._reward_wait_us = reward_wait_us
        self._rows_read = 0
        self._file = parquet_file(path)
        self._batches = read_batches(self._file, path, _Row.__struct_fields__)
        lacking = {"event_id", "time", "context", "actions"} - set(self._file.schema_arrow.names)
        if lacking:
            raise InvalidRequest(
                f"{path} lacks the columns {', '.join(sorted(lacking))}: import what `rankward logs export` wrote"
            )

    @property
    def position(self) -> int:
        """About how many of the file's bytes have been read."""
        return int(self.size * self._rows_read // max(1, self._file.metadata.num_rows))

    def read(self) -> list[History | Skipped]:
        """See `Source`."""
        batch = next(self._batches, None)
        if batch is None:
            return []
        self._rows_read += batch.num_rows
        return [self._event(row) for row in batch.to_pylist()]

    def skip(self, count: int) -> None:
        """See `Source`."""
        while self._rows_read < count and (batch := next(self._batches, None)) is not None:
            self._rows_read += batch.num_rows
        assert self._rows_read == count, "batches of a file are always the same"

    def _event(self, row: dict[str, Any]) -> History | Skipped:
        try:
            given = {name: value for name, value in row.items() if value is not None}
            return self._history(msgspec.convert(given, _Row))
        except (msgspec.ValidationError, InvalidRequest, FlawError) as error:
            return Skipped(Skip.BROKEN, str(error))

    def _history(self, row: _Row) -> History:
        actions = tuple(
            [
                Action(self._id(each.id), check_logged(each.features.encode(), self._bounds, "features", or_empty=True))
                for each in row.actions
            ]
        )
        shared: dict[str, Any] = {
            "event_id": self._id(row.event_id),
            "context": check_logged(row.context.encode(), self._bounds, "context"),
            "actions": actions,
            "learning_mode": row.learning_mode,
            "reward_wait_us": self._reward_wait_us,
            "deferred": row.deferred,
            "model_id": row.model_id,
            "pass_probability": row.pass_probability,
            "arm": row.arm,
            "arm_probability": row.arm_probability,
            "subject": row.subject,
        }
        if not 0.0 < row.pass_probability <= 1.0:
            raise FlawError(f"`pass_probability` {row.pass_probability} is outside (0, 1]")
        interaction: AnyInteraction
        if row.slots is None:
            interaction = Interaction(**shared, **_single_slot(row, actions))
        else:
            interaction = MultiSlotInteraction(**shared, **self._slots(row.slots, len(actions)))
        observations = [
            PastObservation(_time_us(each.time), check_reward(each.value), dict(each.metrics or ()), each.slot)
            for each in row.observations or ()
        ]
        return History(
            interaction=interaction,
            time_us=_time_us(row.time),
            observations=tuple(observations),
            activated=row.activated,
        )

    def _slots(self, rows: Sequence[_SlotRow], action_count: int) -> dict[str, Any]:
        known = range(action_count)
        for row in rows:
            check_choice(row.ranked, row.pmf, known)
            if row.baseline not in known or not set(row.excluded or ()).issubset(known):
                raise FlawError(f"slot {row.id!r} names an action that is not there")
        slots = [
            Slot(
                self._id(row.id),
                check_logged(row.features.encode(), self._bounds, "slots"),
                row.baseline,
                tuple(sorted(row.excluded or ())),
            )
            for row in rows
        ]
        if not slots or len({slot.id for slot in slots}) < len(slots):
            raise FlawError("it has no slots, or two with the same id")
        return {
            "slots": tuple(slots),
            "choices": tuple([SlotChoice(tuple(row.ranked), tuple(row.pmf)) for row in rows]),
        }

    def _id(self, text: str) -> str:
        if not 1 <= len(text) <= self._limits.id_length:
            raise FlawError(f"an id has {len(text)} characters: it must have 1 to {self._limits.id_length}")
        return text

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _single_slot(row: _Row, actions: Sequence[Action]) -> dict[str, Any]:
    chosen = next((index for index, action in enumerate(actions) if action.id == row.action_id), None)
    if chosen is None or row.pmf is None or len(row.pmf) != len(actions):
        raise FlawError("`action_id` is none of its actions, or `pmf` is not as long as they are")
    excluded = tuple(sorted(set(row.excluded or ())))
    order = [chosen, *(index for index in range(len(actions)) if index != chosen and index not in excluded)]
    check_choice(order, [row.pmf[index] for index in order], range(len(actions)))
    if not set(excluded).issubset(range(len(actions))) or any(row.pmf[index] for index in excluded):
        raise FlawError("`excluded` names an action that is not there, or that could have been drawn")
    return {"pmf": tuple(row.pmf), "chosen": chosen, "excluded": excluded}


def _time_us(moment: datetime) -> TimeUs:
    return (moment - _EPOCH) // timedelta(microseconds=1)
