"""Versions of loops' models: listed, read, served again, compared, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from rankward.administration.loops import LoopView, loop_view
from rankward.joining.reader import read_joined
from rankward.ranking.service import Scorer
from rankward.records import Interaction, ModelId
from rankward.registry.compare import Comparison, compare
from rankward.registry.service import Form, Registry
from rankward.store.ports import EventLog, JoinedLog, Loop, ModelVersion
from rankward.wiring import Home

COMPARED_MAX = 2_000  # decisions that two models are compared on


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a loop's model."""

    serving: bool
    version: ModelVersion


class ModelAdministration:
    """What loops have learned."""

    def __init__(
        self,
        home: Home,
        registry: Registry,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            registry: changes models.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
        """
        self._home = home
        self._registry = registry
        self._log = log
        self._joined = joined

    async def listed(self, name: str) -> list[ModelView]:
        """List the versions that are kept of a loop's model, newest first."""
        loop = self._home.catalog.loop(name)
        versions = self._home.catalog.versions(loop.loop_id)
        return [ModelView(serving=version.model_id == loop.model_id, version=version) for version in versions]

    async def read(self, name: str, model_id: ModelId, *, signed: bool = False) -> bytes:
        """Read a version's bytes.

        Args:
            name: of the loop.
            model_id: of the version.
            signed: in an archive that the installation's key has signed, as an import takes it.

        Raises:
            NotFound: it is not kept.
            InvalidRequest: it has bins, and is to go without them.
        """
        loop = self._home.catalog.loop(name)
        version = self._registry.version(loop, model_id)
        return await self._registry.exported(version, Form.SIGNED if signed else Form.BARE)

    async def keep_serving(self, name: str) -> LoopView:
        """Stop building a new model, and keep the one that serves: see `Registry.keep_serving`.

        Raises:
            CallerError: none is being built, or none serves yet.
        """
        return loop_view(self._home, await self._registry.keep_serving(name))

    async def roll_back(self, name: str, model_id: ModelId) -> LoopView:
        """Serve a version, and go on learning from it.

        Raises:
            NotFound: it is not kept.
        """
        return loop_view(self._home, await self._registry.roll_back(name, model_id))

    async def delete(self, name: str) -> LoopView:
        """Forget what a loop has learned. Its versions stay, and can be rolled back to."""
        return loop_view(self._home, await self._registry.delete(name))

    async def compare(self, name: str, first: ModelId, second: ModelId) -> Comparison:
        """Compare what two versions would do in the loop's newest decisions.

        Raises:
            NotFound: one of them is not kept.
        """
        loop = self._home.catalog.loop(name)
        versions = [self._registry.version(loop, model_id) for model_id in (first, second)]
        joined, log = self._joined(loop.loop_id), self._log(loop.loop_id)
        begin, end = await joined.extent()
        events, _ = await read_joined(log, joined, max(begin, end - COMPARED_MAX), limit=COMPARED_MAX)
        decisions = [event.interaction for event in events if isinstance(event.interaction, Interaction)]
        return await asyncio.to_thread(self._compare, loop, versions, decisions)

    def _compare(self, loop: Loop, versions: Sequence[ModelVersion], decisions: Sequence[Interaction]) -> Comparison:
        scorers = []
        try:
            for version in versions:
                model = self._home.models.get(loop.loop_id, version.model_id)
                scorers.append(Scorer(version, model, loop.settings.exploration))
            return compare(scorers[0], scorers[1], decisions)
        finally:
            for scorer in scorers:
                scorer.close()
