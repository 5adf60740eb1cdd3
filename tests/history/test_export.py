"""Exporting: the joined log of a span of time, as lines and as a table."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from rankward.dsjson.read import LineReader
from rankward.errors import InvalidRequest
from rankward.history.export import Exported, LineSink, export
from rankward.history.parquet import COLUMNS, ParquetSink, ParquetSource, schema, to_batch
from rankward.history.sources import open_source
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
    Arm,
    History,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation, Limits
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from tests.dsjson.events import BOUNDS, EARLIEST, TIME_US, WAIT_US, event, features, order, single_slot_events
from tests.history.loops import Logs, lines_of, numbered


def exported(logs: Logs, *, since_us: int | None = None, until_us: int | None = None) -> list[str]:
    """Export as lines. Returns the event ids."""

    async def work(log: SqliteEventLog) -> tuple[bytes, Exported]:
        joined = SqliteJoinedLog(logs.folder / "joined")
        file = io.BytesIO()
        try:
            done = await export(log, joined, LineSink(file, EARLIEST), since_us=since_us, until_us=until_us)
        finally:
            await joined.close()
        return file.getvalue(), done

    raw, done = logs.run(work)
    found = LineReader(bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US).read(raw.splitlines())
    assert done.written == len(found)
    return [each.interaction.event_id for each in found if isinstance(each, History)]


def test_a_span_of_time_is_exported(tmp_path: Path) -> None:
    """From its first moment on, up to its last and without it, by the time of decision."""
    logs = Logs(tmp_path / "loop")
    decided = [numbered(0).interaction, numbered(1).interaction, numbered(2).interaction]
    for number, interaction in enumerate(decided):
        logs.now_us = TIME_US + number * WAIT_US
        logs.append(interaction)
    logs.now_us += WAIT_US
    file = tmp_path / "old.json"
    file.write_bytes(lines_of([order(event_id="old")]))
    logs.take_in(file)
    logs.joined()
    assert exported(logs) == ["e0", "e1", "e2", "old"]
    assert exported(logs, since_us=TIME_US + 1) == ["e1", "e2"]
    assert exported(logs, since_us=TIME_US, until_us=TIME_US + WAIT_US) == ["e0", "old"]
    assert exported(logs, since_us=TIME_US + 5 * WAIT_US) == []


def several() -> JoinedEvent:
    """An event of two slots."""
    interaction = MultiSlotInteraction(
        event_id="front-0007",
        context=features([{"visitor": {"device": "phone"}}]),
        actions=tuple([Action(name, features([{"kind": name}])) for name in "abc"]),
        slots=(
            Slot("hero", features([{"size": "large"}]), baseline=2, excluded=(1,)),
            Slot("side", features([]), baseline=0),
        ),
        choices=(SlotChoice((0, 2), (0.9, 0.1)), SlotChoice((1, 2), (0.25, 0.75))),
        learning_mode=LearningMode.APPRENTICE,
        reward_wait_us=WAIT_US,
        subject="s-17",
    )
    joined = event(interaction)
    observations = (JoinedObservation(0, TIME_US, 0.5, {"seconds": 2.0}, "hero"), JoinedObservation(0, TIME_US, 0.25))
    return msgspec.structs.replace(joined, entry=msgspec.structs.replace(joined.entry, observations=observations))


def through_parquet(path: Path, *events: JoinedEvent) -> list[History]:
    """Write events to a file, and read them back."""
    with path.open("wb") as file:
        sink = ParquetSink(file, EARLIEST)
        sink.write(events)
        sink.close()
    source = open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    assert isinstance(source, ParquetSource)
    found = source.read()
    assert source.read() == []
    source.close()
    assert all(isinstance(each, History) for each in found), found
    return [each for each in found if isinstance(each, History)]


@given(single_slot_events())
def test_a_table_holds_all_of_an_event(tmp_path_factory: pytest.TempPathFactory, event: JoinedEvent) -> None:
    """What left as Parquet comes back as it was."""
    [history] = through_parquet(tmp_path_factory.mktemp("parquet") / "log.parquet", event)
    assert history.interaction == event.interaction
    assert history.joined(0, event.entry.due_us) == msgspec.structs.replace(event.entry, imported=True)


@pytest.mark.parametrize(
    "event",
    [
        several(),
        order(0.5, arm=Arm.CONTROL, arm_probability=0.25, pass_probability=0.5, subject="s-17"),
        order(0.5, learning_mode=LearningMode.APPRENTICE),
    ],
)
def test_a_table_holds_what_a_line_does_not(event: JoinedEvent, tmp_path: Path) -> None:
    """Excluded actions, slots, arms, modes and metrics."""
    [history] = through_parquet(tmp_path / "log.parquet", event)
    assert history.interaction == event.interaction
    assert history.joined(0, event.entry.due_us) == msgspec.structs.replace(event.entry, imported=True)


def test_the_columns_say_what_a_data_scientist_asks() -> None:
    """The action, its probability and its reward, without any arithmetic."""
    [row] = to_batch([order(0.25, 0.5)], RewardDefinition(0.0, Aggregation.SUM)).to_pylist()
    assert list(row) == list(COLUMNS)
    assert (row["action_id"], row["probability"], row["baseline_id"], row["shown_id"]) == (
        "salad",
        0.9,
        "pasta",
        "salad",
    )
    assert (row["reward"], row["observed_reward"]) == (0.75, 0.75)
    assert row["time"] == datetime(2026, 1, 15, 12, tzinfo=UTC)
    [row] = to_batch([order(0.5, learning_mode=LearningMode.APPRENTICE)], EARLIEST).to_pylist()
    assert (row["reward"], row["observed_reward"], row["shown_id"]) == (0.0, 0.5, "pasta")
    [row] = to_batch([order(0.5, deferred=True)], EARLIEST).to_pylist()
    assert (row["reward"], row["observed_reward"]) == (None, 0.5)
    [row] = to_batch([several()], EARLIEST).to_pylist()
    assert [slot["reward"] for slot in row["slots"]] == [0.0, 0.0]
    assert (row["observed_reward"], row["action_id"]) == (0.75, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pmf": [0.5]}, "as long"),
        ({"action_id": "soup"}, "none of its actions"),
        ({"pmf": [0.5, 0.0, 0.2]}, "add up"),
        ({"pmf": [0.5, 0.5, 0.5]}, "could have been drawn"),
        ({"excluded": [7]}, "not there"),
        ({"event_id": ""}, "0 characters"),
        ({"context": "{"}, "context"),
        ({"context": '[{"likes":["a"]}]'}, "numbers only"),
        ({"learning_mode": "Dreaming"}, "Dreaming"),
        ({"pass_probability": 0.0}, "pass_probability"),
        ({"observations": [{"time": 0, "value": 1e9}]}, "outside"),
    ],
)
def test_a_broken_row_is_named(changes: dict[str, object], why: str, tmp_path: Path) -> None:
    """A table may have been changed by other software since."""
    [row] = to_batch([order(0.5)], EARLIEST).to_pylist()
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, **changes}], schema=schema()), path)
    source = open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    [found] = source.read()
    source.close()
    assert not isinstance(found, History)
    assert why in found.why, found


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    """And so is a damaged one: with a message, and nothing imported."""
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"event_id": ["e"]}), path)
    with pytest.raises(InvalidRequest, match="lacks the columns actions, context, time"):
        open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)


def test_an_import_of_a_table_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Rows are counted as lines are."""
    path = tmp_path / "log.parquet"
    with path.open("wb") as file:
        sink = ParquetSink(file, EARLIEST)
        sink.write([numbered(number) for number in range(700)])
        sink.close()
    source = open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    first = source.read()
    source.close()
    source = open_source(path, bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    source.skip(len(first))
    rest: list[object] = []
    while more := source.read():
        rest += more
    source.close()
    assert len(first) + len(rest) == 700
    logs = Logs(tmp_path / "loop")
    assert logs.take_in(path).counts == {"imported": 700}
    assert logs.take_in(path).files_known == 1
