"""Decisions out of somebody's table, CSV or Parquet, as a mapping reads it: row by row, whatever its length."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from rankward.dsjson.read import FlawError, Skip, Skipped, check_reward
from rankward.errors import InvalidRequest
from rankward.history.columns import ColumnMap, Layout, lay_out
from rankward.history.files import LogFile, is_parquet
from rankward.history.parquet import in_microseconds, parquet_file, read_batches
from rankward.ranking.features import FeatureBounds, check_logged
from rankward.records import Action, History, Interaction, LearningMode, PastObservation, TimeUs
from rankward.settings import Limits

_BATCH = 256  # rows that are read at once
_DELIMITERS = (",", ";", "\t", "|")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US = 1_000_000
_BEGIN_US: TimeUs = 946_684_800 * _SECOND_US  # 2000-01-01: of the first row of a table without times
_TIME_MAX_S = 32_503_680_000  # the year 3000
_SUM_SLACK = 0.01  # of probabilities: some tables round them to two digits

_FLAGS = {"true": 1.0, "false": 0.0}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
Row = Mapping[str, Any]


class _Rows(Protocol):
    """A table that is read from its beginning to its end."""

    def begin(self, mapping: ColumnMap) -> Layout:
        """Find the columns that are to be read.

        Raises:
            InvalidRequest: there are not all.
        """

    @property
    def position(self) -> int:
        """About how many of the file's bytes have been read."""

    def read(self, count: int) -> Sequence[Row | Skipped]:
        """Read the next rows, at most so many; none at the end."""

    def close(self) -> None:
        """Let go of the file."""


class MappedSource:
    """A table whose columns have roles. Implements `history.sources.Source`."""

    unit: ClassVar[str] = "row"

    def __init__(
        self, path: Path, mapping: ColumnMap, *, bounds: FeatureBounds, limits: Limits, reward_wait_us: int
    ) -> None:
        """Open the table.

        Raises:
            InvalidRequest: it lacks a column, or is damaged.
            OSError: it cannot be read.
            RankwardError: it is Parquet, and pyarrow is not installed.
        """
        self.mode: LearningMode | None = None
        self._name = path.name
        self._bounds = bounds
        self._limits = limits
        self._reward_wait_us = reward_wait_us
        self._number = 0  # of the row that was read last, from 1
        self._time_us = _BEGIN_US - _SECOND_US
        self._rows: _Rows = _ParquetRows(path) if is_parquet(path) else _CsvRows(path)
        try:
            self._layout = self._rows.begin(mapping)
        except InvalidRequest:
            self._rows.close()
            raise

    @property
    def position(self) -> int:
        """See `Source`."""
        return self._rows.position

    def read(self) -> list[History | Skipped]:
        """See `Source`."""
        return [self._event(row) for row in self._rows.read(_BATCH)]

    def skip(self, count: int) -> None:
        """See `Source`."""
        while self._number < count and (rows := self._rows.read(min(_BATCH, count - self._number))):
            self._number += len(rows)

    def close(self) -> None:
        """See `Source`."""
        self._rows.close()

    def _event(self, row: Row | Skipped) -> History | Skipped:
        self._number += 1
        self._time_us += _SECOND_US
        if isinstance(row, Skipped):
            return row
        try:
            return self._history(row)
        except (FlawError, InvalidRequest, UnicodeEncodeError) as error:
            return Skipped(Skip.BROKEN, str(error))

    def _history(self, row: Row) -> History:
        layout = self._layout
        if layout.time is not None:
            self._time_us = _moment(row[layout.time], layout.time)
        actions, pmf = self._offered(row)
        chosen = self._text(row[layout.chosen], layout.chosen)
        if chosen not in actions:
            raise FlawError(f"its chosen action {chosen[:40]!r} is none of those on offer: {', '.join(actions)[:200]}")
        index = list(actions).index(chosen)
        if layout.probability is not None:
            probability = _number(row[layout.probability], layout.probability)
            pmf = spread(index, probability, len(actions)) if 0 < probability <= 1 else [probability]
        _check_pmf(pmf, index if len(pmf) > 1 else 0)
        reward = _value(row[layout.reward])
        observations = () if reward is None else (PastObservation(self._time_us, _reward(reward), {}, None),)
        interaction = Interaction(
            event_id=f"{self._name}:{self._number}" if layout.event_id is None else self._id(row[layout.event_id]),
            context=check_logged(_encode([self._context(row)]), self._bounds, "context"),
            actions=tuple(
                [
                    Action(name, check_logged(_encode([features]), self._bounds, "action", or_empty=True))
                    for name, features in actions.items()
                ]
            ),
            pmf=tuple(pmf),
            chosen=index,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=self._reward_wait_us,
        )
        return History(interaction=interaction, time_us=self._time_us, observations=observations)

    def _offered(self, row: Row) -> tuple[dict[str, dict[str, Any]], list[float]]:
        """Return the actions on offer with their features, and their probabilities if there is a column for each."""
        layout, pmf = self._layout, []
        found: dict[str, dict[str, Any]] = {}
        if layout.actions_json is not None:
            found = self._listed(row[layout.actions_json], layout.actions_json)
        elif layout.probabilities:
            for action, column in layout.probabilities.items():
                if (probability := _value(row[column])) is not None:
                    found[action] = {}
                    pmf.append(_number(probability, column))
        else:
            found = {action: {} for action in layout.actions}
        if not found:
            raise FlawError("it has no action on offer")
        for action, features in found.items():
            for name, column in layout.action_features.get(action, ()):
                if (value := self._feature(row, column)) is not None:
                    features[name] = value
        return found, pmf

    def _listed(self, value: object, column: str) -> dict[str, dict[str, Any]]:
        if isinstance(value, str):
            try:
                value = _decode(value)
            except msgspec.DecodeError as error:
                raise FlawError(f"its {column!r} is no JSON: {error}") from None
        if not isinstance(value, list):
            raise FlawError(f"its {column!r} is no array of actions")
        found: dict[str, dict[str, Any]] = {}
        for each in value:
            features = {name: member for name, member in each.items() if name != "id"} if isinstance(each, dict) else {}
            action = self._text(each.get("id") if isinstance(each, dict) else each, column)
            if action in found:
                raise FlawError(f"its {column!r} names {action[:40]!r} twice")
            found[action] = features
        return found

    def _context(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for namespace, column in self._layout.context:
            if (value := self._feature(row, column)) is not None:
                (found.setdefault(namespace, {}) if namespace else found)[column] = value
        return found

    def _feature(self, row: Row, column: str) -> object:
        value = _value(row[column])
        if value is None:
            return None
        if column in self._layout.text:
            return str(value)
        return _typed(value)

    def _text(self, value: object, column: str) -> str:
        found = _value(value)
        if found is None:
            raise FlawError(f"its {column!r} is empty")
        text = str(int(found)) if isinstance(found, float) and found.is_integer() else str(found)
        return self._id(text)

    def _id(self, value: object) -> str:
        text = "" if value is None else str(value)
        if not 1 <= len(text) <= self._limits.id_length:
            raise FlawError(f"an id has {len(text)} characters: it must have 1 to {self._limits.id_length}")
        return text


def spread(chosen: int, probability: float, count: int) -> list[float]:
    """Give what the chosen action left to the others, in equal parts.

    >>> spread(1, 0.5, 3)
    [0.25, 0.5, 0.25]
    """
    others = (1 - probability) / (count - 1) if count > 1 else 0.0
    return [probability if index == chosen else others for index in range(count)]


def _check_pmf(pmf: Sequence[float], chosen: int) -> None:
    if not 0 < pmf[chosen] <= 1:
        raise FlawError(f"the probability {pmf[chosen]:g} of its chosen action is outside (0, 1]")
    if min(pmf) < 0 or not abs(sum(pmf) - 1) <= _SUM_SLACK:
        raise FlawError(f"its probabilities {[round(each, 4) for each in pmf[:10]]} do not add up to 1")


def _value(value: object) -> object:
    """Return what is in a cell. None: nothing is."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _typed(value: object) -> object:
    """Read a feature: text that is a number is one."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, bool | int | float | list | dict) else str(value)


def _number(value: object, column: str) -> float:
    found = _value(value)
    try:
        return float(found)  # type: ignore[arg-type]  # whatever it is, it is one or not
    except (TypeError, ValueError):
        said = "is empty" if found is None else f"{str(found)[:40]!r} is no number"
        raise FlawError(f"its {column!r} {said}") from None


def _reward(value: object) -> float:
    text = str(value)
    return _FLAGS[text.lower()] if text.lower() in _FLAGS else check_reward(text)


def _moment(value: object, column: str) -> TimeUs:
    found = _value(value)
    if isinstance(found, datetime):
        moment = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    try:
        seconds = float(found)  # type: ignore[arg-type]  # as above
    except (TypeError, ValueError):
        try:
            moment = datetime.fromisoformat(str(found))
        except ValueError:
            raise FlawError(f"its {column!r} {str(found)[:40]!r} is no moment") from None
        return _moment(moment, column)
    if not 0 <= seconds <= _TIME_MAX_S:
        raise FlawError(f"its {column!r} {seconds:.0f} is no moment in seconds since 1970")
    return round(seconds * _SECOND_US)


class _CsvRows:
    """Rows of a CSV file, whose first one names the columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = LogFile(path)
        self._columns: Sequence[str] = ()
        self._reader: Iterator[list[str]] = iter(())

    def begin(self, mapping: ColumnMap) -> Layout:
        """Read the header, with the delimiter that makes sense of it: the comma, or another if it does not."""
        lines = self._file.texts()
        header = next(lines, "")
        failure: InvalidRequest | None = None
        for delimiter in _DELIMITERS:
            self._columns = next(csv.reader([header], delimiter=delimiter), [])
            try:
                layout = lay_out(mapping, self._columns, self._path.name)
            except InvalidRequest as error:
                failure = failure or error
                continue
            if len(set(self._columns)) < len(self._columns):
                raise InvalidRequest(f"{self._path.name} has two columns of one name: rename one")
            self._reader = csv.reader(lines, delimiter=delimiter)
            return layout
        assert failure is not None, "there are delimiters"
        raise failure

    @property
    def position(self) -> int:
        return self._file.position

    def read(self, count: int) -> Sequence[Row | Skipped]:
        return list(islice(self._following(), count))

    def _following(self) -> Iterator[Row | Skipped]:
        while True:
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                yield Skipped(Skip.BROKEN, f"it is no row of CSV: {error}")
                continue
            if cells is None:
                return
            if not cells:
                continue  # an empty line
            if len(cells) != len(self._columns):
                yield Skipped(Skip.BROKEN, f"it has {len(cells)} cells, and the header {len(self._columns)}")
                continue
            yield dict(zip(self._columns, cells, strict=True))

    def close(self) -> None:
        self._file.close()


class _ParquetRows:
    """Rows of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._file = parquet_file(path)
        self._read = 0
        self._following: Iterator[Row] = iter(())

    def begin(self, mapping: ColumnMap) -> Layout:
        layout = lay_out(mapping, self._file.schema_arrow.names, self._path.name)
        batches = read_batches(self._file, self._path, layout.columns)
        self._following = (row for batch in batches for row in in_microseconds(batch).to_pylist())
        return layout

    @property
    def position(self) -> int:
        return int(self._size * self._read // max(1, self._file.metadata.num_rows))

    def read(self, count: int) -> Sequence[Row | Skipped]:
        rows = list(islice(self._following, count))
        self._read += len(rows)
        return rows

    def close(self) -> None:
        self._file.close()
