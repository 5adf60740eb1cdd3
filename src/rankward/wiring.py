"""Puts the house together: the one place that names a backend."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankward.archiving.archives import Archives
from rankward.auditing import Trail
from rankward.challenge.service import ChallengingService, model_ids
from rankward.cluster.standing import Member, Standing, read_standing
from rankward.errors import DataFolderHeld, StoreUnavailable
from rankward.loops import Loops
from rankward.mirroring.service import MirroringService
from rankward.mirroring.target import Target
from rankward.records import ModelId, TimeUs
from rankward.store.audit import Audit
from rankward.store.challengers import Challenger, Challengers
from rankward.store.imports import Imports
from rankward.store.optimizations import Optimizations
from rankward.store.ports import Board, Catalog, EventLog, Feed, Fence, JoinedLog, Loop, ModelStore, Vault
from rankward.store.rollups import Rollups
from rankward.store.sessions import Sessions
from rankward.store.sqlite.audit import SqliteAudit
from rankward.store.sqlite.catalog import SqliteCatalog
from rankward.store.sqlite.challengers import SqliteChallengers
from rankward.store.sqlite.database import FileDatabase
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.folder import DataFolder, FileBoard, FileMark, FileNotebook, FolderLock, opening
from rankward.store.sqlite.imports import SqliteImports
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.store.sqlite.leads import acting, current_fence
from rankward.store.sqlite.models import FileModelStore
from rankward.store.sqlite.optimizations import SqliteOptimizations
from rankward.store.sqlite.rollups import SqliteRollups
from rankward.store.sqlite.sessions import SqliteSessions
from rankward.store.sqlite.studies import SqliteStudies
from rankward.store.sqlite.vault import FileVault
from rankward.store.studies import Studies
from rankward.training.service import TrainingService
from rankward.watching.figures import Figures
from rankward.watching.service import NOTE as WATCHING

if TYPE_CHECKING:
    from rankward.registry.signing import Signing
    from rankward.store.nats.broker import Broker
    from rankward.store.nats.node import Node

_OWN_NOTES = ("joining", WATCHING)  # of what every node does for itself


def now_us() -> TimeUs:
    """The time, in microseconds since 1970."""
    return time.time_ns() // 1000


def elapsed_us() -> int:
    """Microseconds since some moment. They go on evenly, whatever the clock of the machine is set to."""
    return time.monotonic_ns() // 1000


class Home:
    """An installation, as one of its machines sees it: a data folder, embedded or a node's of a cluster."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], TimeUs] = now_us,
        timer: Callable[[], int] = elapsed_us,
        pending_appends: int = 4_096,
    ) -> None:
        """Open the folder, making it if there is none.

        Args:
            root: the folder.
            clock: the time, for what is written down.
            timer: microseconds since some moment, on which no setting of the clock tells, for pauses.
            pending_appends: how many records may wait in this process to be stored.

        Raises:
            StoreUnavailable: it cannot be used; or it is a node's, and the servers do not answer.
        """
        self.clock = clock
        self.timer = timer
        self._pending_appends = pending_appends
        with contextlib.ExitStack() as opened, opening(root):  # others may open the same new folder at this moment
            self.folder = DataFolder(root)
            self.node = _open_node(self.folder, clock=clock, pending_appends=pending_appends)  # None: it is embedded
            if self.node is not None:
                opened.callback(self.node.close)
            how = self.node.catalog if self.node is not None else FileDatabase
            self.catalog: Catalog = SqliteCatalog(self.folder.catalog, open_database=how)
            self.studies: Studies = SqliteStudies(self.folder.catalog, open_database=how)
            self.audit: Audit = SqliteAudit(self.folder.catalog, open_database=how)
            self.challengers: Challengers = SqliteChallengers(self.folder.catalog, open_database=how)
            self.optimizations: Optimizations = SqliteOptimizations(self.folder.catalog, open_database=how)
            self._imports = how(self.folder.catalog)
            opened.pop_all()
        self.trail = Trail(self.audit, clock)
        self.loops = Loops(self.folder, self.catalog, shared=self.node is not None, trail=self.trail, clock=clock)
        self.models = self._model_store("models", recorded=self._recorded_digest)
        self.study_models = self._model_store("studies")
        self.challenger_models = self._model_store("challengers")
        self.watches = self._model_store("watches")
        self.board: Board = FileBoard(self.folder.loops) if self.node is None else self.node.board
        self.archives = Archives(
            FileNotebook(self.folder.archive),
            self.catalog,
            log=self.event_log,
            joined=self.joined_log,
            board=self.board,
            clock=clock,
            timer=timer,
        )

    @functools.cached_property
    def signing(self) -> Signing:
        """The key that models are signed with, and whom the installation trusts."""
        from rankward.registry.signing import Signing  # noqa: PLC0415  # trainers do without cryptography

        vault: Vault = FileVault(self.folder.signing) if self.node is None else self.node.vault
        return Signing(vault, clock=self.clock)

    @property
    def broker(self) -> Broker | None:
        """The connection to the servers of the cluster; None: the installation is embedded."""
        return None if self.node is None else self.node.broker

    @property
    def name(self) -> str:
        """The name of this node; empty: the installation is embedded."""
        return "" if self.node is None else self.node.broker.options.node

    async def follow(self) -> None:
        """Apply what other nodes change, as soon as they do, until cancelled. Embedded, there are no others."""
        if self.node is not None:
            await self.node.follow()

    def _model_store(self, folder: str, *, recorded: Callable[[str, ModelId], str | None] | None = None) -> ModelStore:
        if self.node is None:
            return FileModelStore(self.folder.loops, folder)
        return self.node.model_store(folder, recorded=recorded)

    def _recorded_digest(self, loop_id: str, model_id: ModelId) -> str | None:
        return next((each.digest for each in self.catalog.versions(loop_id) if each.model_id == model_id), None)

    @staticmethod
    def acting(fence: Fence | None) -> contextlib.AbstractContextManager[None]:
        """Let the changes of what runs inside be made only for as long as the loop is led under this term.

        In an embedded installation nothing is checked: there is one worker.
        """
        return acting(fence)

    @staticmethod
    def fence() -> Fence | None:
        """Return the term under which the caller acts; None: it acts for no loop."""
        return current_fence()

    def standing(self) -> Standing | None:
        """Say how this node stands. None: it is none, or has only just been started."""
        return None if self.node is None else read_standing(self.folder.standing)

    def members(self) -> Sequence[Member]:
        """Return what the living nodes say of themselves, by name: none, where the installation is embedded.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        if self.broker is None:
            return ()
        from rankward.cluster.membership import read_members  # noqa: PLC0415  # an embedded installation does without

        return read_members(self.broker)

    def led(self, loops: Iterable[Loop]) -> list[Loop]:
        """Return those of some loops that this node leads; embedded, all of them."""
        if self.broker is None:
            return list(loops)
        leads, node = self.catalog.leads(), self.broker.options.node
        return [loop for loop in loops if loop.loop_id in leads and leads[loop.loop_id].holder == node]

    def sessions(self) -> Sessions:
        """Open the sessions of the portal."""
        how = self.node.sessions if self.node is not None else FileDatabase
        return SqliteSessions(self.folder.sessions, open_database=how)

    def event_log(self, loop_id: str) -> EventLog:
        """Open a loop's event log."""
        log = self._file_log(loop_id)
        return log if self.node is None else self.node.event_log(loop_id, log, may_wait=self._may_wait(loop_id))

    def _may_wait(self, loop_id: str) -> Callable[[], bool]:
        """Make what tells whether a loop's events may wait on this node: cheap enough to ask for at every call."""
        seen = [-1, False]

        def may_wait() -> bool:
            hint = self.catalog.change_hint()
            if hint != seen[0]:
                loops = self.catalog.loops()
                seen[:] = hint, any(each.settings.answer_without_quorum for each in loops if each.loop_id == loop_id)
            return bool(seen[1])

        return may_wait

    def waiting(self, loop_id: str) -> bool:
        """Whether events of a loop wait on this node for the servers of its cluster."""
        return self.node is not None and self.node.spool(loop_id).waits

    async def recover_what_waits(self) -> None:
        """Look for events that wait on this node since before a power failure."""
        for loop in self.catalog.loops():
            if self.node is not None:
                spool = self.node.spool(loop.loop_id)
                try:
                    await spool.recover()
                finally:
                    await spool.close()

    async def send_what_waits(self) -> None:
        """Send what waits on this node to the servers. One process of a node at a time.

        Raises:
            StoreUnavailable: they are still away.
        """
        for loop in self.catalog.loops():
            if self.node is not None and self.waiting(loop.loop_id):
                log = self.node.event_log(loop.loop_id, self._file_log(loop.loop_id), may_wait=lambda: False)
                try:
                    await log.send()
                finally:
                    await log.close()

    def joined_log(self, loop_id: str) -> JoinedLog:
        """Open a loop's joined log."""
        self._require_replica(loop_id)
        joined = SqliteJoinedLog(self.folder.joined(loop_id))
        return joined if self.node is None else self.node.joined_log(loop_id, joined, self._file_log(loop_id))

    @contextlib.asynccontextmanager
    async def logs(self, loop_id: str) -> AsyncIterator[tuple[EventLog, JoinedLog]]:
        """Have a loop's event log and joined log open for a while."""
        async with contextlib.AsyncExitStack() as opened:
            log = self.event_log(loop_id)
            opened.push_async_callback(log.close)
            joined = self.joined_log(loop_id)
            opened.push_async_callback(joined.close)
            yield log, joined

    def _file_log(self, loop_id: str) -> SqliteEventLog:
        self._require_replica(loop_id)
        return SqliteEventLog(self.folder.events(loop_id), clock=self.clock, pending_appends=self._pending_appends)

    def _require_replica(self, loop_id: str) -> None:
        """Refuse to open what is not there yet: an empty log in its place would be taken for the whole of it."""
        if self.lacks_replica(loop_id):
            raise StoreUnavailable("this node is fetching the loop from the others: try again in a moment")

    def lacks_replica(self, loop_id: str) -> bool:
        """Whether a node has not fetched a loop yet. An embedded installation has all that there is."""
        return self.node is not None and (
            not self.folder.events(loop_id).exists() or self.folder.restored(loop_id).exists()
        )

    def fetch_replica(self, loop_id: str) -> None:
        """Make a loop's folder on this node of the newest snapshot. Its stream brings what has come since.

        Raises:
            StorageFull: there is no room.
            StoreUnavailable: the servers do not answer, or no snapshot is whole.
        """
        if self.node is not None:
            self.node.snapshots.prepare(loop_id)

    def outdate(self, loop_id: str) -> None:
        """Say that a loop has to be fetched anew, if that loses nothing: see `give_up_outdated`.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        if self.node is not None and self.node.snapshots.can_begin_again(loop_id):
            self.folder.outdated.mkdir(exist_ok=True)
            (self.folder.outdated / loop_id).touch()

    @property
    def is_outdated(self) -> bool:
        """Whether a loop has to be fetched anew."""
        return self.folder.outdated.exists()

    def give_up_outdated(self) -> None:
        """Remove the replicas that are outdated. For whoever has seen to it that no process has them open."""
        if self.node is not None and self.is_outdated:
            for mark in self.folder.outdated.iterdir():
                self.node.snapshots.give_up(mark.name)
            shutil.rmtree(self.folder.outdated)

    def feed(self, loop_id: str, log: EventLog, joined: JoinedLog) -> Feed | None:
        """Make what brings a node's replica of a loop up to the stream; None: there is none, it is embedded.

        Args:
            loop_id: of the loop.
            log: its event log, as opened here. One process of a node may feed one.
            joined: its joined log, the same.
        """
        return None if self.node is None else self.node.feed(loop_id, log, joined)

    def rollups(self, loop_id: str) -> Rollups:
        """Open a loop's figures."""
        self._require_replica(loop_id)
        return SqliteRollups(self.folder.figures(loop_id))

    def imports(self, loop_id: str) -> Imports:
        """Open the files that were sent to be imported into a loop."""
        return SqliteImports(self._imports, self.folder.imports(loop_id), loop_id=loop_id, node=self.name)

    def figures(self) -> Figures:
        """Make what reads the figures of loops."""
        return Figures(self.rollups, self.board, self.clock)

    def training(self, loop_name: str, epoch_id: int, log: EventLog, joined: JoinedLog) -> TrainingService:
        """Make the trainer of an epoch."""
        loop = self.catalog.loop(loop_name)
        return TrainingService(
            loop_name,
            epoch_id,
            log=log,
            joined=joined,
            catalog=self.catalog,
            models=self.models,
            board=self.board,
            mark=FileMark(self.folder.mark(loop.loop_id, epoch_id)),
            clock=self.clock,
            timer=self.timer,
        )

    def challenging(
        self,
        loop_name: str,
        log: EventLog,
        joined: JoinedLog,
        *,
        succeed: Callable[[Challenger], Awaitable[object]],
    ) -> ChallengingService:
        """Make what runs a loop's challengers; `succeed` lets a younger model serve."""
        loop_id = self.catalog.loop(loop_name).loop_id
        return ChallengingService(
            loop_name,
            log=log,
            joined=joined,
            catalog=self.catalog,
            challengers=self.challengers,
            models=self.challenger_models,
            board=self.board,
            mark=lambda key: self.challenger_mark(loop_id, key),
            forget=lambda key: self.forget_challenger(loop_id, key),
            succeed=succeed,
            make_key=lambda: secrets.token_hex(16),
            clock=self.clock,
            timer=self.timer,
        )

    def challenger_mark(self, loop_id: str, key: str) -> FileMark:
        """Open a challenger's mark, to set it or to read it from outside its process."""
        return FileMark(self.folder.challenger_mark(loop_id, key))

    def forget_challenger(self, loop_id: str, key: str) -> None:
        """Remove the files of a challenger that is no more."""
        for model_id in model_ids(key):
            self.challenger_models.forget(loop_id, model_id)
        self.folder.challenger_mark(loop_id, key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def importing(self, loop_id: str) -> Iterator[Callable[[], bool]]:
        """Keep other processes, also those of other nodes, from importing into a loop.

        Yields:
            What tells whether that still holds: a node that the servers have not heard of for a while is let go ahead
            of, and has to end.

        Raises:
            DataFolderHeld: another one does.
            StoreUnavailable: it is a node's, and the servers do not answer.
        """
        folder = self.folder.events(loop_id).parent
        folder.mkdir(exist_ok=True)
        lock = FolderLock(folder / "import.lock")
        try:
            if not lock.take():
                raise DataFolderHeld("another import into this loop is under way: wait until it is over")
            if self.node is None:
                yield lambda: True
                return
            lease = self.node.importing(loop_id)
            with lease.held():
                yield lambda: lease.holds
        finally:
            lock.close()

    async def catch_up(self, loop_id: str) -> None:
        """Wait until a node's replica has all that a loop's stream holds now. Embedded, there is nothing else.

        Raises:
            StoreUnavailable: it does not come there, or the servers do not answer.
        """
        if self.node is not None:
            replica = self._file_log(loop_id)
            try:
                await self.node.catch_up(loop_id, replica)
            finally:
                await replica.close()

    def mirroring(self, loop_name: str, log: EventLog, joined: JoinedLog) -> MirroringService:
        """Make what mirrors a loop."""
        loop_id = self.catalog.loop(loop_name).loop_id
        return MirroringService(
            loop_name,
            catalog=self.catalog,
            log=log,
            joined=joined,
            notebook=FileNotebook(self.folder.loops / loop_id / "mirroring.json"),
            board=self.board,
            clock=self.clock,
            timer=self.timer,
            open_target=Target,
        )

    def mark(self, loop_id: str, epoch_id: int) -> FileMark:
        """Read an epoch's mark from outside its process."""
        return FileMark(self.folder.mark(loop_id, epoch_id))

    def checkpoints(self, loop_id: str, key: str) -> Path:
        """Say where a study keeps how far it has come."""
        return self.folder.loops / loop_id / "checkpoints" / key

    def forget_checkpoints(self, *, but: Collection[str]) -> None:
        """Remove what studies that are over have kept.

        Args:
            but: keys of studies that are to go on.
        """
        for path in self.folder.loops.glob("*/checkpoints/*"):
            if path.name not in but:
                shutil.rmtree(path, ignore_errors=True)

    def forget_marks(self, loop_id: str, *, but: Collection[int]) -> None:
        """Remove what the trainers of retired epochs left behind.

        Args:
            loop_id: of the loop.
            but: epochs that are trained now.
        """
        kept = {self.folder.mark(loop_id, epoch_id).stem for epoch_id in but}
        for path in self.folder.mark(loop_id, 0).parent.glob("learning-*"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the catalog, and hang up."""
        self.challengers.close()
        self.optimizations.close()
        self._imports.close()
        self.studies.close()
        self.audit.close()
        self.catalog.close()
        if self.node is not None:
            self.node.close()


def _open_node(folder: DataFolder, *, clock: Callable[[], TimeUs], pending_appends: int) -> Node | None:
    if not folder.node.exists():
        return None
    try:
        from rankward.store.nats.node import Node  # noqa: PLC0415  # an embedded installation does without
    except ModuleNotFoundError as error:
        raise StoreUnavailable(
            f"{folder.root} is a node's of a cluster, and a package for that is missing: pip install 'rankward[nats]'"
        ) from error
    return Node(folder, own_notes=_OWN_NOTES, clock=clock, pending_appends=pending_appends)
