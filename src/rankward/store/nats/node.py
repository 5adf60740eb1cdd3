"""A machine of a cluster: its connection, and the databases in its folder that are replicas."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from rankward.errors import WorldError
from rankward.records import ModelId, TimeUs
from rankward.store.nats.board import SharedBoard
from rankward.store.nats.broker import Broker, read_options
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.events import Commands, EventStream
from rankward.store.nats.feed import Feed
from rankward.store.nats.joined_log import ReplicatedJoinedLog
from rankward.store.nats.lease import Lease
from rankward.store.nats.models import ReplicatedModelStore
from rankward.store.nats.objects import Objects
from rankward.store.nats.replica import Replica
from rankward.store.nats.snapshots import Snapshots
from rankward.store.nats.spool import Spool, SpoolingEventLog
from rankward.store.nats.sweep import Sweep
from rankward.store.nats.transactions import Transactions
from rankward.store.nats.vault import SharedVault
from rankward.store.ports import Catalog, EventLog, JoinedLog
from rankward.store.sqlite.catalog import FORMAT
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.folder import DataFolder
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.store.sqlite.vault import FileVault

_COPIED_S = 60.0
_AGAIN_S = 1.0

logger = logging.getLogger(__name__)


class Node:
    """What one process of a node holds. Safe to share between threads."""

    def __init__(
        self, folder: DataFolder, *, own_notes: Collection[str], clock: Callable[[], TimeUs], pending_appends: int
    ) -> None:
        """Connect, and let the catalog catch up with what the cluster has.

        Args:
            folder: the node's, in which `node.json` lies.
            own_notes: names of notes that are not for other nodes.
            clock: the time, in microseconds since 1970.
            pending_appends: how many records may wait in this process to be stored.

        Raises:
            StoreUnavailable: the servers do not answer, or the folder is not of their cluster.
        """
        options = read_options(folder.node)
        assert options is not None, "the folder is a node's"
        self._folder = folder
        self._clock = clock
        self._pending_appends = pending_appends
        self.broker = Broker(options)
        try:
            self._catalog = Transactions(self.broker, "catalog")
            self.vault = SharedVault(self.broker, "signing", FileVault(folder.signing))
            self._models = Objects(self.broker, "models")
            self.snapshots = Snapshots(folder, self.broker, clock=clock)
            name = f"{socket.gethostname()}:{folder.root.resolve()}"
            self.board = SharedBoard(folder.loops, self.broker, node=name, own=own_notes)
            self.refresh()
        except BaseException:
            self.broker.close()
            raise

    def refresh(self) -> None:
        """Let the catalog catch up with what the cluster has."""
        with contextlib.closing(self.catalog(self._folder.catalog, must_exist=False)) as catalog:
            catalog.refresh()

    def catalog(self, path: Path, *, must_exist: bool = True) -> Replica:
        """Open the catalog's database. Implements `OpenDatabase`."""
        return Replica(path, self._catalog, must_exist=must_exist, newest_format=FORMAT)

    def sessions(self, path: Path, *, must_exist: bool = True) -> Replica:
        """Open the portal's sessions. Implements `OpenDatabase`."""
        return Replica(path, self._sessions, must_exist=must_exist)

    def event_log(self, loop_id: str, replica: SqliteEventLog, *, may_wait: Callable[[], bool]) -> SpoolingEventLog:
        """Open a loop's event log: see `SpoolingEventLog`.

        Args:
            loop_id: of the loop.
            replica: of its event log, in this node's folder.
            may_wait: whether events may wait on this node while the servers are away.
        """
        return SpoolingEventLog(
            self.broker,
            loop_id,
            replica,
            spool=self.spool(loop_id),
            wanted=may_wait,
            clock=self._clock,
            pending_appends=self._pending_appends,
        )

    def spool(self, loop_id: str) -> Spool:
        """Open what waits of a loop on this node for the servers."""
        return Spool(self._folder.spool(loop_id), clock=self._clock, pending_appends=self._pending_appends)

    def joined_log(self, loop_id: str, own: SqliteJoinedLog, replica: SqliteEventLog) -> ReplicatedJoinedLog:
        """Open a loop's joined log: see `ReplicatedJoinedLog`."""
        return ReplicatedJoinedLog(self.broker, loop_id, own, replica)

    def importing(self, loop_id: str) -> Lease:
        """Make what one node at a time holds, to import into a loop."""
        node = self.broker.options.node
        return Lease(self.broker, f"import.{loop_id}", holder=node, what="another import into this loop")

    async def catch_up(self, loop_id: str, replica: SqliteEventLog) -> None:
        """Wait until the replica of a loop's event log has all that its stream holds now."""
        await Commands(EventStream(self.broker, loop_id), replica).catch_up()

    def feed(self, loop_id: str, log: EventLog, joined: JoinedLog) -> Feed:
        """Make what feeds the replica of an event log: see `Feed`."""
        assert isinstance(log, ReplicatedEventLog), "it was opened here"
        assert isinstance(joined, ReplicatedJoinedLog), "it was opened here"
        return Feed(self.broker, loop_id, log.replica, joined.own)

    def sweep(self, catalog: Catalog) -> Sweep:
        """Make what removes leftovers: see `Sweep`."""
        return Sweep(self._folder, self.broker, catalog, self._models, self.snapshots, refresh=self.refresh)

    def model_store(
        self, folder: str, *, recorded: Callable[[str, ModelId], str | None] | None
    ) -> ReplicatedModelStore:
        """Open models, with the folder of that name in each loop's before them: see `ReplicatedModelStore`."""
        return ReplicatedModelStore(self._folder.loops, self._models, folder, recorded=recorded)

    @functools.cached_property
    def _sessions(self) -> Transactions:  # most processes have nothing to do with them
        return Transactions(self.broker, "sessions")

    @contextlib.contextmanager
    def _replicas(self) -> Iterator[list[Replica]]:
        with contextlib.ExitStack() as opened:
            yield [
                opened.enter_context(contextlib.closing(self.catalog(self._folder.catalog))),
                opened.enter_context(contextlib.closing(self.sessions(self._folder.sessions, must_exist=False))),
            ]

    async def follow(self) -> None:
        """Apply what other nodes change, as soon as they do, and write down their notes and the key, until cancelled.

        What has grown long is shortened by whichever node finds it so first.
        """
        with self._replicas() as replicas:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._copy_secret())
                for replica in replicas:
                    group.create_task(replica.follow())
                    group.create_task(replica.shorten())

    async def _listen(self) -> None:
        """Begin to write down the notes of other nodes, as soon as the servers answer."""
        while True:
            try:
                await asyncio.to_thread(self.board.listen)
            except WorldError as error:
                logger.warning("what other nodes note is not seen yet, and that is tried again: %s", error)
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    async def _copy_secret(self) -> None:
        """Keep the signing key's copy in the folder, where backups look for it, the newest."""
        while True:
            with contextlib.suppress(WorldError):  # the copy there is does until the next time
                await asyncio.to_thread(self.vault.read)
            await asyncio.sleep(_COPIED_S)

    def close(self) -> None:
        """Hang up."""
        self.broker.close()
