"""What events are read from: a file of log lines, of Parquet, or a table whose columns have roles."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from rankward.dsjson.read import LineReader, Skip, Skipped
from rankward.errors import InvalidRequest
from rankward.history.columns import ColumnMap
from rankward.history.files import LogFile, is_parquet
from rankward.history.mapped import MappedSource
from rankward.history.parquet import ParquetSource
from rankward.ranking.features import FeatureBounds
from rankward.records import History, LearningMode
from rankward.settings import Limits

_BATCH = 256  # lines that are read at once
_SKIP = 4_096


class Source(Protocol):
    """A file of events, read from its beginning to its end."""

    unit: ClassVar[str]  # what it is made of: lines, or rows that follow a header

    @property
    def mode(self) -> LearningMode | None:
        """The learning mode of the newest line that showed it. None: none has, or each row says it."""

    @property
    def position(self) -> int:
        """How many bytes of the file have been read."""

    def read(self) -> list[History | Skipped]:
        """Read the next few hundred lines or rows, one result for each; nothing at the end.

        Raises:
            InvalidRequest: the file is damaged.
        """

    def skip(self, count: int) -> None:
        """Pass over what an earlier reading has given, so many lines or rows, before the first reading."""

    def close(self) -> None:
        """Let go of the file."""


class LineSource:
    """A file of log lines. Implements `Source`."""

    unit: ClassVar[str] = "line"

    def __init__(self, path: Path, reader: LineReader) -> None:
        self._file = LogFile(path)
        self._reader = reader

    @property
    def mode(self) -> LearningMode | None:
        """See `Source`."""
        return self._reader.mode

    @property
    def position(self) -> int:
        """See `Source`."""
        return self._file.position

    def read(self) -> list[History | Skipped]:
        """See `Source`."""
        return self._reader.read(self._file.lines(_BATCH))

    def skip(self, count: int) -> None:
        """See `Source`."""
        while count > 0 and (lines := self._file.lines(min(count, _SKIP))):
            count -= len(lines)

    def close(self) -> None:
        """See `Source`."""
        self._file.close()


def open_source(
    path: Path,
    *,
    bounds: FeatureBounds,
    limits: Limits,
    reward_wait_us: int,
    mode: LearningMode | None = None,
    mapping: ColumnMap | None = None,
) -> Source:
    """Open a file of events, of whichever kind it is.

    Args:
        path: of the file.
        bounds: how much features may hold.
        limits: how long ids may be.
        reward_wait_us: written into the interactions.
        mode: what lines are taken for that do not show theirs; None: nobody knows.
        mapping: what the columns of a table mean; None: it is a log.

    Raises:
        OSError: it cannot be opened.
        InvalidRequest: it is damaged, or lacks a column.
        RankwardError: it is Parquet, and pyarrow is not installed.
    """
    if mapping is not None:
        return MappedSource(path, mapping, bounds=bounds, limits=limits, reward_wait_us=reward_wait_us)
    if is_parquet(path):
        return ParquetSource(path, bounds=bounds, limits=limits, reward_wait_us=reward_wait_us)
    return LineSource(path, LineReader(bounds=bounds, limits=limits, reward_wait_us=reward_wait_us, mode=mode))


def check_log(path: Path, *, bounds: FeatureBounds, limits: Limits) -> None:
    """Look whether a file is a log, by its first lines.

    Args:
        path: of the file.
        bounds: how much features may hold.
        limits: how long ids may be.

    Raises:
        InvalidRequest: none of them can be used.
    """
    source = open_source(path, bounds=bounds, limits=limits, reward_wait_us=0)
    try:
        results = source.read()
    finally:
        source.close()
    if not results:
        raise InvalidRequest(f"{path.name} is empty: nothing was imported")
    first = results[0]
    if isinstance(first, Skipped) and all(isinstance(each, Skipped) and each.kind is Skip.BROKEN for each in results):
        raise InvalidRequest(f"{path.name} is no log: its first {source.unit} {first.why}. Nothing was imported.")
