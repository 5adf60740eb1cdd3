"""Versions of models: served, deleted, rolled back to, taken in from elsewhere.

roll back, import      learning goes on from that model
delete                 it starts afresh; earlier events are never learned again
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from rankward.errors import NotFound
from rankward.records import ModelId, TimeUs
from rankward.store.changes import change_loop
from rankward.store.ports import Catalog, Epoch, EventLog, JoinedLog, Loop, ModelStore, ModelVersion
from rankward.training.service import next_epoch
from rankward.vw.presets import learner_arguments


class Registry:
    """Changes which model serves. Any process may have one: the catalog keeps two changes from crossing."""

    def __init__(
        self,
        catalog: Catalog,
        models: ModelStore,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        clock: Callable[[], TimeUs],
    ) -> None:
        """Prepare.

        Args:
            catalog: of loops and versions.
            models: bytes of versions.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            clock: the time.
        """
        self._catalog = catalog
        self._models = models
        self._log = log
        self._joined = joined
        self._clock = clock

    async def delete(self, name: str) -> Loop:
        """Forget what was learned. Decisions are uniform until there is a new model."""

        async def once(loop: Loop) -> Loop:
            end = (await self._log(loop.loop_id).extent()).end
            fresh = msgspec.structs.replace(loop, model_id=None, forgotten_before=end)
            now_us = self._clock()
            epoch = next_epoch(fresh, now_us=now_us, reason="the model was deleted", days=0)
            return self._catalog.update_loop(fresh, epoch=epoch, retire=True)

        return await change_loop(self._catalog, name, once)

    async def roll_back(self, name: str, model_id: ModelId) -> Loop:
        """Serve an earlier version, and go on learning from it.

        Raises:
            NotFound: the version is not kept.
        """
        loop = self._catalog.loop(name)
        version = self.version(loop, model_id)
        self._models.get(loop.loop_id, model_id)
        return await self._go_on_from(name, version, f"rolled back to {model_id}")

    async def import_model(self, name: str, model: bytes, *, try_out: Callable[[str, bytes], None]) -> Loop:
        """Serve a model from elsewhere, and go on learning from it with the loop's policy.

        Args:
            name: of the loop.
            model: its bytes.
            try_out: loads it with the given arguments where it can do no harm; raises InvalidRequest if it cannot.

        Raises:
            InvalidRequest: it is no model that the loop's policy can go on from. Nothing is changed then.
        """
        loop = self._catalog.loop(name)
        settings = loop.settings
        try_out(learner_arguments(settings.policy, None, settings.exploration), model)
        digest = hashlib.sha256(model).hexdigest()
        version = ModelVersion(
            model_id=f"import-{digest[:16]}",
            loop_id=loop.loop_id,
            epoch_id=0,
            created_us=self._clock(),
            joined_offset=0,
            learned=0,
            learned_to_us=0,
            policy=settings.policy,
            interactions=None,
            resumable=False,
            size_bytes=len(model),
            digest=digest,
        )
        self._models.put(loop.loop_id, version.model_id, model)
        self._catalog.add_version(version)
        return await self._go_on_from(name, version, f"imported {version.model_id}")

    async def _go_on_from(self, name: str, version: ModelVersion, reason: str) -> Loop:
        async def once(loop: Loop) -> Loop:
            _, joined_end = await self._joined(loop.loop_id).extent()
            served = msgspec.structs.replace(loop, model_id=version.model_id)
            epoch: Epoch = msgspec.structs.replace(
                next_epoch(served, now_us=self._clock(), reason=reason),
                policy=version.policy,
                derives_interactions=version.interactions is not None,
                interactions=version.interactions,
                base=version.model_id,
                start=joined_end,
                since_us=0,
            )
            written = self._catalog.update_loop(served, epoch=epoch, retire=True)
            self.version(loop, version.model_id)  # from here on it is kept; it must not have gone just before
            return written

        return await change_loop(self._catalog, name, once)

    def version(self, loop: Loop, model_id: ModelId) -> ModelVersion:
        """Find a version.

        Raises:
            NotFound: it is not kept.
        """
        for version in self._catalog.versions(loop.loop_id):
            if version.model_id == model_id:
                return version
        raise NotFound(f"loop {loop.name} keeps no model {model_id}: `rankward model list` names those it does")
