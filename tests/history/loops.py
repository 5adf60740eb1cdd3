"""A loop's two logs in a folder, with files to import and what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rankward.dsjson.write import write_line
from rankward.history.importing import Imported, Importer
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.ranking.features import FeatureBounds
from rankward.records import JoinedEvent, LogEntry, Record
from rankward.settings import Limits
from rankward.store.ports import EventLog
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from tests.dsjson.events import EARLIEST, WAIT_US, order

NOW_US = 1_800_000_000_000_000


class Logs:
    """An event log and a joined log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_us = NOW_US

    def run(self, work: Callable[[SqliteEventLog], Any]) -> Any:
        """Do something with the event log, opened anew."""

        async def run() -> Any:
            log = SqliteEventLog(self.folder / "events", clock=lambda: self.now_us)
            try:
                return await work(log)
            finally:
                await log.close()

        return asyncio.run(run())

    def take_in(
        self, *files: Path, strict: bool = False, through: Callable[[EventLog], EventLog] = lambda log: log
    ) -> Imported:
        """Import files, perhaps through a log that fails."""

        async def work(log: SqliteEventLog) -> Imported:
            importer = Importer(
                through(log), bounds=FeatureBounds(), limits=Limits(), reward_wait_us=WAIT_US, strict=strict
            )
            return await importer.run(files)

        found: Imported = self.run(work)
        return found

    def append(self, *records: Record) -> None:
        """Append to the event log."""
        self.run(lambda log: log.append(records))

    def entries(self) -> list[LogEntry]:
        """Read the event log."""
        found: list[LogEntry] = self.run(lambda log: log.read(0, limit=1_000_000))
        return list(found)

    def joined(self) -> list[JoinedEvent]:
        """Join, and read what was joined."""

        async def work(log: SqliteEventLog) -> list[JoinedEvent]:
            joined = SqliteJoinedLog(self.folder / "joined")
            try:
                service = JoiningService(log, joined, clock=lambda: self.now_us)
                while await service.step():
                    pass
                return (await read_joined(log, joined, 0, limit=1_000_000))[0]
            finally:
                await joined.close()

        found: list[JoinedEvent] = self.run(work)
        return found


def numbered(number: int) -> JoinedEvent:
    """An event of its own."""
    event = order(float(number % 2), event_id=f"e{number}")
    return msgspec.structs.replace(
        event, entry=msgspec.structs.replace(event.entry, time_us=event.entry.time_us + number)
    )


def lines_of(events: Sequence[JoinedEvent]) -> bytes:
    """Write events as log lines."""
    return "".join(f"{write_line(event, EARLIEST)}\n" for event in events).encode()
