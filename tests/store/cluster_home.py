"""A cluster's home for the logs of one loop, for the suite that all homes keep."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from tests.store.homes import SqliteHome

from rankward.errors import ServersAway
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.feed import Feed
from rankward.store.nats.joined_log import ReplicatedJoinedLog
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nats.aio.msg import Msg
    from tests.store.homes import Run

    from rankward.records import AppendResult, Record, TimeUs
    from rankward.store.nats.broker import Broker

_LOOP = "loop"


class _TimedFeed(Feed):
    """Takes the time from the test's clock, as embedded logs do."""

    clock: Callable[[], TimeUs]

    def time_of(self, message: Msg) -> TimeUs:
        """Say when a message came: it is read as soon as it is there."""
        del message
        return self.clock()


class _PromptEventLog(ReplicatedEventLog):
    """Waits until what was appended can be read, which takes a node a moment more."""

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """Append, and wait."""
        results = await super().append(records, once=once)
        name = self._broker.stream("events", _LOOP)
        info = await self._broker.ask(lambda: self._broker.js.stream_info(name))
        while await self.replica.place() < info.state.last_seq:
            await asyncio.sleep(0.001)
        return results


class ClusterHome(SqliteHome):
    """One node's: its replica is fed while the home is open."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        super().__init__(folder)
        self._broker = broker
        self._stopping = threading.Event()
        self._feeding: threading.Thread | None = None

    def _feed(self, file_entries: int) -> None:
        if self._feeding is None:
            self._feeding = threading.Thread(target=lambda: asyncio.run(self._run(file_entries)), name="feed")
            self._feeding.start()

    async def _run(self, file_entries: int) -> None:
        replica = SqliteEventLog(self.log_folder, clock=self.clock)
        joined = SqliteJoinedLog(self.folder / "joined", file_entries=file_entries)
        feed = _TimedFeed(self._broker, _LOOP, replica, joined)
        feed.clock = self.clock
        while not self._stopping.is_set():
            busy = False
            with contextlib.suppress(ServersAway):  # they were slow to answer: a worker tries again, too
                busy = await feed.step()
            if not busy:
                await asyncio.sleep(0.001)
        await feed.close()
        await replica.close()
        await joined.close()

    def event_log(  # type: ignore[override]
        self, *, pending_appends: int = 4_096, seal_entries: int = 250_000, seal_age_us: int = 1 << 60
    ) -> ReplicatedEventLog:
        """Open the event log."""
        seal = SealPolicy(entries=seal_entries, age_us=seal_age_us)
        replica = SqliteEventLog(self.log_folder, clock=self.clock, seal=seal)
        log = _PromptEventLog(self._broker, _LOOP, replica, clock=self.clock, pending_appends=pending_appends)
        self._closers.append(lambda run: run(log.close()))
        self._feed(65_536)
        return log

    def joined_log(self, *, file_entries: int = 65_536) -> ReplicatedJoinedLog:  # type: ignore[override]
        """Open the joined log."""
        own = SqliteJoinedLog(self.folder / "joined", file_entries=file_entries)
        joined = ReplicatedJoinedLog(self._broker, _LOOP, own, SqliteEventLog(self.log_folder, clock=self.clock))
        self._closers.append(lambda run: run(joined.close()))
        self._feed(file_entries)
        return joined

    def close(self, run: Run) -> None:
        """Close whatever was opened."""
        super().close(run)
        self._stopping.set()
        if self._feeding is not None:
            self._feeding.join()
