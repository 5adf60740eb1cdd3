"""The homes that a store can have, as the suite opens them: one class for each backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rankward.store.sqlite.catalog import SqliteCatalog
from rankward.store.sqlite.challengers import SqliteChallengers
from rankward.store.sqlite.database import FileDatabase
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.imports import SqliteImports
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.store.sqlite.optimizations import SqliteOptimizations
from rankward.store.sqlite.rollups import SqliteRollups
from rankward.store.sqlite.studies import SqliteStudies

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from rankward.records import TimeUs
    from rankward.store.challengers import Challengers
    from rankward.store.imports import Imports
    from rankward.store.optimizations import Optimizations
    from rankward.store.ports import Catalog, EventLog, JoinedLog
    from rankward.store.rollups import Rollups
    from rankward.store.sqlite.database import OpenDatabase
    from rankward.store.studies import Studies

T = TypeVar("T")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_us: TimeUs = 1_000_000_000_000

    def __call__(self) -> TimeUs:
        """Say what time it is."""
        return self.now_us


class Run(Protocol):
    """Runs a coroutine to its end, always on the same event loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Return what the coroutine returns."""


class Home(Protocol):
    """One backend on storage of its own. What is opened twice is the same store, seen by two processes."""

    clock: Clock

    def event_log(
        self, *, pending_appends: int = 4_096, seal_entries: int = 250_000, seal_age_us: int = 1 << 60
    ) -> EventLog:
        """Open the event log."""

    def joined_log(self, *, file_entries: int = 65_536) -> JoinedLog:
        """Open the joined log."""

    def catalog(self) -> Catalog:
        """Open the catalog."""

    def studies(self) -> Studies:
        """Open the studies."""

    def rollups(self) -> Rollups:
        """Open a loop's figures."""

    def challengers(self) -> Challengers:
        """Open the challengers."""

    def optimizations(self) -> Optimizations:
        """Open the optimizations."""

    def imports(self, loop_id: str, *, node: str = "") -> Imports:
        """Open the imports of a loop, as the machine of a name sees them. Each has a disk of its own."""

    def close(self, run: Run) -> None:
        """Close whatever was opened."""


class SqliteHome:
    """The embedded home: files in a folder."""

    def __init__(self, folder: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        self.folder = folder
        self.open_database = open_database
        self.clock = Clock()
        self._closers: list[Callable[[Run], None]] = []

    @property
    def log_folder(self) -> Path:
        """Where the event log's files are."""
        return self.folder / "log"

    def event_log(
        self, *, pending_appends: int = 4_096, seal_entries: int = 250_000, seal_age_us: int = 1 << 60
    ) -> SqliteEventLog:
        """Open the event log."""
        log = SqliteEventLog(
            self.log_folder,
            clock=self.clock,
            pending_appends=pending_appends,
            seal=SealPolicy(entries=seal_entries, age_us=seal_age_us),
        )
        self._closers.append(lambda run: run(log.close()))
        return log

    def joined_log(self, *, file_entries: int = 65_536) -> SqliteJoinedLog:
        """Open the joined log."""
        joined = SqliteJoinedLog(self.folder / "joined", file_entries=file_entries)
        self._closers.append(lambda run: run(joined.close()))
        return joined

    def catalog(self) -> SqliteCatalog:
        """Open the catalog."""
        catalog = SqliteCatalog(self.folder / "catalog.sqlite", open_database=self.open_database)
        self._closers.append(lambda _: catalog.close())
        return catalog

    def studies(self) -> SqliteStudies:
        """Open the studies."""
        self.catalog()  # which makes their tables
        studies = SqliteStudies(self.folder / "catalog.sqlite", open_database=self.open_database)
        self._closers.append(lambda _: studies.close())
        return studies

    def rollups(self) -> SqliteRollups:
        """Open a loop's figures."""
        rollups = SqliteRollups(self.folder / "figures")
        self._closers.append(lambda _: rollups.close())
        return rollups

    def challengers(self) -> SqliteChallengers:
        """Open the challengers."""
        self.catalog()  # which makes their tables
        challengers = SqliteChallengers(self.folder / "catalog.sqlite", open_database=self.open_database)
        self._closers.append(lambda _: challengers.close())
        return challengers

    def optimizations(self) -> SqliteOptimizations:
        """Open the optimizations."""
        self.catalog()  # which makes their table
        optimizations = SqliteOptimizations(self.folder / "catalog.sqlite", open_database=self.open_database)
        self._closers.append(lambda _: optimizations.close())
        return optimizations

    def imports(self, loop_id: str, *, node: str = "") -> SqliteImports:
        """Open the imports of a loop."""
        self.catalog()  # which makes their table
        database = self.open_database(self.folder / "catalog.sqlite")
        self._closers.append(lambda _: database.close())
        return SqliteImports(database, self.folder / f"imports-{node}", loop_id=loop_id, node=node)

    def close(self, run: Run) -> None:
        """Close whatever was opened."""
        for close in self._closers:
            close(run)
