"""Changes of settings, policy and model, with what each does to what was learned.

reward wait, mode, export, retention      it goes on
exploration                               it goes on; every model serves with the new `--epsilon`
default reward, aggregation, policy       a new epoch learns the newest part of the log beside the old one,
                                          which serves until the new one has caught up
roll back, import                         learning goes on from that model
delete the model                          it starts afresh; earlier events are never learned again
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from rankward.errors import Conflict, InvalidPolicy, NotFound
from rankward.records import ModelId, SettingsChange, TimeUs
from rankward.settings import SETTINGS, LoopSettings, as_datetime, change
from rankward.store.ports import Catalog, Epoch, EventLog, JoinedLog, Loop, ModelStore, ModelVersion
from rankward.training.service import next_epoch
from rankward.vw.arguments import ProblemType, parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.presets import PERSONALIZER, PRESETS, learner_arguments

_ATTEMPTS = 5  # at writing over the same revision


class Configuration:
    """Changes loops. Any process may have one: the catalog keeps two changes from crossing."""

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
            catalog: of loops.
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

    async def change(self, name: str, changes: Mapping[str, object]) -> Loop:
        """Change settings by name.

        Raises:
            InvalidSettings: one is out of bounds, or two may not change together. Nothing is changed then.
        """

        def edit(loop: Loop) -> LoopSettings:
            settings = change(loop.settings, changes, now=as_datetime(self._clock()))
            if settings.exploration != loop.settings.exploration:
                policy = parse_policy(settings.policy)
                if policy.epsilon is not None:
                    settings = msgspec.structs.replace(settings, policy=policy.with_epsilon(settings.exploration).text)
            return settings

        return await self._edit(name, edit)

    async def set_policy(self, name: str, text: str) -> Loop:
        """Give a loop another policy. One that is a preset's, whatever its `--epsilon`, is that preset.

        Raises:
            InvalidPolicy: it is malformed, or has an option that is not allowed.
        """
        policy = parse_policy(text)
        if policy.problem_type is not ProblemType.SINGLE_SLOT:
            raise InvalidPolicy("multi-slot policies (--ccb_explore_adf) are not served yet: use --cb_explore_adf")
        try:
            Learner(policy.learner_text).close()
        except LearnerRefusedError as error:
            raise InvalidPolicy(f"the learner does not accept the policy: {error}") from error
        plain = policy.with_epsilon(0.0).text
        preset = next((p.name for p in PRESETS.values() if p.policy().with_epsilon(0.0).text == plain), None)

        def edit(loop: Loop) -> LoopSettings:
            exploration = loop.settings.exploration if policy.epsilon is None else policy.epsilon
            changes = {"policy": policy.text, "preset": preset, "exploration": exploration}
            return change(loop.settings, changes, now=as_datetime(self._clock()))

        return await self._edit(name, edit)

    async def set_preset(self, name: str, preset: str) -> Loop:
        """Give a loop a preset's policy.

        Raises:
            InvalidPolicy: there is no such preset.
        """
        if preset not in PRESETS:
            raise InvalidPolicy(f"there is no preset {preset!r}: one of {', '.join(PRESETS)}")
        return await self.set_policy(name, PRESETS[preset].policy().text)

    async def reset_policy(self, name: str) -> Loop:
        """Restore the policy that the contract's reset restores."""
        return await self.set_preset(name, PERSONALIZER.name)

    async def _edit(self, name: str, edit: Callable[[Loop], LoopSettings]) -> Loop:
        async def once(loop: Loop) -> Loop:
            settings = edit(loop)
            if settings == loop.settings:
                return loop
            changed = msgspec.structs.replace(loop, settings=settings)
            reasons = _retraining(loop.settings, settings)
            epoch = None
            if reasons:
                reason = f"changed: {', '.join(reasons)}"
                epoch = next_epoch(changed, now_us=self._clock(), reason=reason)
            written = self._catalog.update_loop(changed, epoch=epoch)
            record = SettingsChange(settings=msgspec.Raw(msgspec.json.encode(settings)))
            await self._log(loop.loop_id).append([record])
            return written

        return await self._retry(name, once)

    async def _retry(self, name: str, once: Callable[[Loop], Awaitable[Loop]]) -> Loop:
        for attempt in range(_ATTEMPTS):
            try:
                return await once(self._catalog.loop(name))
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def delete_model(self, name: str) -> Loop:
        """Forget what was learned. Decisions are uniform until there is a new model."""

        async def once(loop: Loop) -> Loop:
            end = (await self._log(loop.loop_id).extent()).end
            fresh = msgspec.structs.replace(loop, model_id=None, forgotten_before=end)
            now_us = self._clock()
            epoch = next_epoch(fresh, now_us=now_us, reason="the model was deleted", days=0)
            return self._catalog.update_loop(fresh, epoch=epoch, retire=True)

        return await self._retry(name, once)

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
            return self._catalog.update_loop(served, epoch=epoch, retire=True)

        return await self._retry(name, once)

    def version(self, loop: Loop, model_id: ModelId) -> ModelVersion:
        """Find a version.

        Raises:
            NotFound: it is not kept.
        """
        for version in self._catalog.versions(loop.loop_id):
            if version.model_id == model_id:
                return version
        raise NotFound(f"loop {loop.name} keeps no model {model_id}: `rankward model list` names those it does")

    async def clear_log(self, name: str) -> None:
        """Remove all interactions and rewards. The model stays."""
        await self._log(self._catalog.loop(name).loop_id).clear()


def _retraining(before: LoopSettings, after: LoopSettings) -> list[str]:
    """Name the changed settings that need a new epoch. A new `--epsilon` alone does not change the policy."""
    changed = [
        name
        for name, setting in SETTINGS.items()
        if setting.retrains and name != "policy" and getattr(before, name) != getattr(after, name)
    ]
    if parse_policy(before.policy).with_epsilon(0.0).text != parse_policy(after.policy).with_epsilon(0.0).text:
        changed.append("policy")
    return changed
