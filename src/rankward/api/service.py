"""What the HTTP doors of one process share: loops with their services, keys, limits."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from pathlib import Path
from uuid import UUID

from rankward.administration.service import Administration
from rankward.api.auth import Headers, KeyRing, UnknownTokenError, not_admin
from rankward.api.identity import IdentityProvider
from rankward.configuration import Configuration
from rankward.errors import NotFound, RankwardError, StoreUnavailable
from rankward.ranking.features import FeatureBounds
from rankward.ranking.service import Published, RankingService
from rankward.registry.service import Registry
from rankward.settings import Limits
from rankward.store.ports import EventLog, JoinedLog, Loop
from rankward.store.sqlite.folder import FolderLock
from rankward.studies import StudyService
from rankward.telemetry import model_load_seconds
from rankward.wiring import Home

logger = logging.getLogger(__name__)

FOLLOW_S = 0.1
UPLOADS_AT_ONCE = 4
"""Bodies that go to files, in one process: each may take as much of the disk as the largest model does."""
_READ_AT_ONCE = 4  # models: one that comes slowly over the network holds up no other loop, and memory is bounded
_OPEN_AGAIN_S = 0.5  # before a loop that could not be opened is tried again: a node may be fetching it
_AGAIN_S = 10.0  # before what failed is tried again


class Doors:
    """Everything that answering a request needs."""

    def __init__(
        self, home: Home, *, limits: Limits, bounds: FeatureBounds, provider: IdentityProvider | None = None
    ) -> None:
        self.home = home
        self._provider = provider
        self.limits = limits
        self.bounds = bounds
        self.keys = KeyRing(())
        self.ranking: dict[str, RankingService] = {}
        self._joined: dict[str, JoinedLog] = {}
        self._logs: dict[str, EventLog] = {}
        self._broken: dict[str, float] = {}  # loops that could not be opened: when to try again
        self._failed: dict[str, tuple[object, float]] = {}  # what did not load, by loop: when to try again
        self._gone: list[RankingService] = []  # loops that were deleted, to be let go of
        self._change_mark = self._change_hint = -1
        self._load_lock = FolderLock(home.folder.run / "load.lock")
        self._loading = asyncio.Lock()  # among the loops of this process
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self.configuration = Configuration(
            home.catalog, log=self.log, clock=home.clock, trail=home.trail, cleared=home.archives.clear
        )
        self.registry = Registry(
            home.catalog,
            home.models,
            home.signing,
            log=self.log,
            joined=self.joined,
            clock=home.clock,
            trail=home.trail,
        )
        self.administration = Administration(
            home,
            self.configuration,
            self.registry,
            log=self.log,
            joined=self.joined,
            limits=limits,
            bounds=bounds,
        )
        self.uploading = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self.importing = asyncio.Lock()  # one model at a time: each may need gigabytes to be tried
        self.studies = StudyService(
            home.catalog,
            home.studies,
            models=home.models,
            study_models=home.study_models,
            log=self.log,
            joined=self.joined,
            clock=home.clock,
            limits=limits,
            trail=home.trail,
            archived=home.archives.archived,
        )
        self._followed = False
        self._random = random.Random(os.urandom(32))  # noqa: S311

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: it can rank, and a node of a cluster knows what the others knew.

        A node that does not reach the servers could only answer 503, unless a loop of it is to be answered then, too.
        One whose replica is not fed any more would give old models and settings.
        """
        if not self._followed or self.home.broker is None:
            return self._followed
        standing = self.home.standing()
        return (
            standing is not None
            and standing.caught_up
            and standing.is_current(self.home.clock())
            and (self.home.broker.client.is_connected or self._answers_without_quorum)
        )

    @property
    def _answers_without_quorum(self) -> bool:
        return any(service.loop.settings.answer_without_quorum for service in self.ranking.values())

    def new_uuid(self) -> UUID:
        """Make an id that no other process makes.

        Random, but not secret: the system's own generator gives up the interpreter at every call, and getting
        it back from the thread that commits costs more than all else that an id needs.
        """
        return UUID(int=self._random.getrandbits(128), version=4)

    async def loop_for(self, headers: Headers, named: str | None) -> tuple[str, bool]:
        """Find the loop that a request is about, by its key or its token.

        Args:
            headers: names in lower case.
            named: the loop in the path; None: the key or token selects it.

        Returns:
            The loop's name, and whether whoever sent this may administer.

        Raises:
            CallerError: neither opens it, or selects any.
        """
        try:
            return self.keys.loop_for(headers, named)
        except UnknownTokenError as error:
            if self._provider is None:
                raise
            grant = await self._provider.grant(error.token)
            return grant.loop_for(named), grant.admin

    async def check_admin(self, headers: Headers) -> None:
        """Let pass whoever may administer.

        Raises:
            CallerError: whoever sent this may not.
        """
        try:
            self.keys.check_admin(headers)
        except UnknownTokenError as error:
            if self._provider is None:
                raise
            if not (await self._provider.grant(error.token)).admin:
                raise not_admin() from None

    def log(self, loop_id: str) -> EventLog:
        """Return a loop's event log, opening it if need be."""
        if loop_id not in self._logs:
            self._logs[loop_id] = self.home.event_log(loop_id)
        return self._logs[loop_id]

    def joined(self, loop_id: str) -> JoinedLog:
        """Return a loop's joined log, opening it if need be."""
        if loop_id not in self._joined:
            self._joined[loop_id] = self.home.joined_log(loop_id)
        return self._joined[loop_id]

    def loop(self, name: str) -> RankingService:
        """Return what serves a loop.

        Raises:
            NotFound: there is no such loop.
        """
        service = self.ranking.get(name)
        if service is None and name in self._broken:
            raise StoreUnavailable(f"loop {name} cannot be opened: the service's log says why")
        if service is None:
            raise NotFound(f"there is no loop {name[:80]!r}", code="FrontEndNotFound")
        return service

    def keep_up(self) -> None:
        """Take over what has changed, if the catalog hints that anything has.

        Called for every request, so that what one process was told holds in all of them from its answer on.
        Models follow in the background.
        """
        if self.home.catalog.change_hint() != self._change_hint:
            self.take_over()

    def take_over(self) -> None:
        """Take over what has changed in the catalog: loops, keys and settings."""
        hint = self.home.catalog.change_hint()
        mark = self.home.catalog.change_mark()
        if mark == self._change_mark:
            self._change_hint = hint
            return
        self.keys = KeyRing(self.home.catalog.keys())
        loops = {loop.name: loop for loop in self.home.catalog.loops()}
        for name, service in list(self.ranking.items()):
            if name not in loops or loops[name].loop_id != service.loop.loop_id:
                self._gone.append(self.ranking.pop(name))
        for name, loop in loops.items():
            if name in self.ranking:
                self.ranking[name].loop = loop
            else:
                self._open(name, loop)
        for name in self._broken.keys() - loops.keys():
            del self._broken[name]
        self._change_mark, self._change_hint = mark, hint

    def _open(self, name: str, loop: Loop) -> None:
        """Begin to serve a loop. One that cannot be opened holds up no other, and is tried again later."""
        try:
            self.ranking[name] = self._serve(loop)
            self._broken.pop(name, None)
        except RankwardError as error:
            if name not in self._broken:
                logger.error("loop %s cannot be opened, and is tried again: %s", name, error)
            self._broken[name] = time.monotonic() + _OPEN_AGAIN_S

    def _serve(self, loop: Loop) -> RankingService:
        catalog, loop_id = self.home.catalog, loop.loop_id
        return RankingService(loop, self.log(loop_id), self.home.models, lambda: catalog.versions(loop_id))

    async def follow(self) -> None:
        """Take over what has changed, load the models that serve now, and let go of loops that are gone."""
        now = time.monotonic()
        if any(again <= now for again in self._broken.values()):
            self._change_mark = -1
        self.take_over()
        await asyncio.gather(*[self._renew(name, service, now) for name, service in self.ranking.items()])
        while self._gone:
            await self._drop(self._gone.pop())
        self._followed = True

    async def _renew(self, name: str, service: RankingService, now: float) -> None:
        """Give a loop the model that serves now, unless it has it, or has just failed to load it."""
        wanted = (service.loop.model_id, service.loop.settings.exploration)
        failed, again = self._failed.get(name, (None, 0.0))
        if not service.needs_load() or (failed == wanted and now < again):
            return
        try:
            async with self._reading:
                published = await service.read()
                await self._load(service, published)
            self._failed.pop(name, None)
        except RankwardError as error:  # the old model goes on serving
            logger.error("loop %s: model %s does not load, and is tried again: %s", name, wanted[0], error)
            self._failed[name] = (wanted, now + _AGAIN_S)

    async def _load(self, service: RankingService, published: Published | None) -> None:
        """Load a model while no other process does: loading holds the interpreter, and one must stay free."""
        async with self._loading:
            while not self._load_lock.take():
                await asyncio.sleep(0.002)
            try:
                started = time.perf_counter()
                await service.load(published)
                model_load_seconds.observe(time.perf_counter() - started)
            finally:
                self._load_lock.release()

    async def _drop(self, service: RankingService) -> None:
        loop_id = service.loop.loop_id
        service.close()
        if loop_id in self._logs:
            await self._logs.pop(loop_id).close()
        if loop_id in self._joined:
            await self._joined.pop(loop_id).close()

    async def close(self) -> None:
        """Finish what is under way and let go of all files."""
        for service in [*self.ranking.values(), *self._gone]:
            await self._drop(service)
        for log in self._logs.values():
            await log.close()
        self.home.close()


def metrics_folder(home: Home) -> Path:
    """Where the processes of an installation share their metrics."""
    return home.folder.run / "metrics"
