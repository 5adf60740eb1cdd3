"""Changes of settings and policy, with what each does to what was learned.

reward wait, mode, export, retention      it goes on
exploration                               it goes on; every model serves with the new `--epsilon`
default reward, aggregation, policy       a new epoch learns the newest part of the log beside the old one,
                                          which serves until the new one has caught up
one slot to several, or back              the same, but the old model cannot serve: decisions are uniform
                                          until the new one has caught up

What changes the model itself is in `registry.service`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import msgspec

from rankward.auditing import Trail
from rankward.errors import InvalidPolicy, InvalidSettings, StoreUnavailable
from rankward.mirroring.target import Target, is_signed_address
from rankward.records import Offset, SettingsChange, TimeUs
from rankward.settings import SETTINGS, LoopSettings, as_datetime, change
from rankward.store.audit import Actor
from rankward.store.changes import change_loop
from rankward.store.ports import Catalog, EventLog, Loop
from rankward.training.service import next_epoch
from rankward.vw.arguments import PolicyArguments, ProblemType, parse_policy, problem_type_of
from rankward.vw.presets import PERSONALIZER, PRESETS, preset_of
from rankward.vw.trial import try_policy


class Configuration:
    """Changes loops. Any process may have one: the catalog keeps two changes from crossing."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        log: Callable[[str], EventLog],
        clock: Callable[[], TimeUs],
        trail: Trail,
        cleared: Callable[[str, Offset], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            catalog: of loops.
            log: gives a loop's event log, by loop id.
            clock: the time.
            trail: where changes are noted.
            cleared: told the id of a loop whose log was cleared, and the offset that its next entry will have. None:
                what was joined is kept nowhere else.
        """
        self._cleared = cleared
        self._catalog = catalog
        self._log = log
        self._clock = clock
        self._trail = trail

    def by(self, actor: Actor) -> Configuration:
        """Return the same, for changes that somebody else makes."""
        theirs = copy.copy(self)
        theirs._trail = self._trail.by(actor)
        return theirs

    async def change(self, name: str, changes: Mapping[str, object], *, by_operator: bool = False) -> Loop:
        """Change settings by name.

        Args:
            name: of the loop.
            changes: new values, by setting.
            by_operator: whether whoever asks runs the service, and not just an application: the log may then be
                mirrored to places that the service itself has the right to write to.

        Raises:
            InvalidSettings: one is out of bounds, two may not change together, or the log cannot be mirrored to where
                it shall be. Nothing is changed then.
        """
        await self._check_mirror(name, changes, by_operator=by_operator)

        return await self._edit(name, lambda loop: with_changes(loop.settings, changes, now=as_datetime(self._clock())))

    async def _check_mirror(self, name: str, changes: Mapping[str, object], *, by_operator: bool) -> None:
        """Write to where the log shall be mirrored to, if that is new."""
        settings = self._catalog.loop(name).settings
        uri = changes.get("log_mirror_sas_uri", settings.log_mirror_sas_uri)
        enabled = changes.get("log_mirror_enabled", settings.log_mirror_enabled)
        if not enabled or not isinstance(uri, str):
            return
        if (uri, enabled) == (settings.log_mirror_sas_uri, settings.log_mirror_enabled):
            return
        if not by_operator and not is_signed_address(uri):
            raise InvalidSettings(
                "logMirrorSasUri has no signature: give the https:// address of a container with one that may write; "
                "other places are set with `rankward settings set`, or with the admin key",
                code="InvalidContainer",
                target="logMirrorSasUri",
            )
        try:
            await Target(uri).probe()
        except StoreUnavailable as error:
            raise InvalidSettings(
                f"logMirrorSasUri cannot be written to: {error}", code="InvalidContainer", target="logMirrorSasUri"
            ) from error

    async def set_policy(self, name: str, text: str) -> Loop:
        """Give a loop another policy. One that is a preset's, whatever its `--epsilon`, is that preset.

        Raises:
            InvalidPolicy: it is malformed, or has an option that is not allowed.
        """
        policy = parse_policy(text)
        await asyncio.to_thread(try_policy, policy.learner_text)

        return await self._edit(name, lambda loop: with_policy(loop.settings, policy, now=as_datetime(self._clock())))

    async def set_preset(self, name: str, preset: str, problem_type: ProblemType | None = None) -> Loop:
        """Give a loop a preset's policy.

        Args:
            name: of the loop.
            preset: its name.
            problem_type: for a single slot or for several; None: as the loop's policy is now.

        Raises:
            InvalidPolicy: there is no such preset.
        """
        if preset not in PRESETS:
            raise InvalidPolicy(f"there is no preset {preset!r}: one of {', '.join(PRESETS)}")
        wanted = problem_type or problem_type_of(self._catalog.loop(name).settings.policy)
        return await self.set_policy(name, PRESETS[preset].policy(wanted).text)

    async def reset_policy(self, name: str) -> Loop:
        """Restore the policy that the contract's reset restores: one slot stays one, several stay several."""
        return await self.set_preset(name, PERSONALIZER.name)

    async def retrain(self, name: str, *, since_us: TimeUs, reason: str) -> Loop:
        """Start a new epoch that reaches back to a moment, imported events included.

        Args:
            name: of the loop.
            since_us: decisions before this time are not learned.
            reason: what for, for people.
        """

        async def once(loop: Loop) -> Loop:
            epoch = next_epoch(loop, now_us=self._clock(), reason=reason, since_us=since_us)
            return self._catalog.update_loop(loop, epoch=epoch)

        changed = await change_loop(self._catalog, name, once)
        self._trail.note("retraining started", loop=name, detail=reason)
        return changed

    async def _edit(self, name: str, edit: Callable[[Loop], LoopSettings]) -> Loop:
        async def once(loop: Loop) -> Loop:
            settings = edit(loop)
            if settings == loop.settings:
                return loop
            edited = msgspec.structs.replace(loop, settings=settings)
            reasons = retraining(loop.settings, settings)
            epoch = None
            if reasons:
                reason = f"changed: {', '.join(reasons)}"
                epoch = next_epoch(edited, now_us=self._clock(), reason=reason)
            written = self._catalog.update_loop(edited, epoch=epoch)
            record = SettingsChange(settings=msgspec.Raw(msgspec.json.encode(settings)), cause="changed by hand")
            self._trail.note_settings("settings changed", name, loop.settings, settings)
            await self._log(loop.loop_id).append([record])
            return written

        return await change_loop(self._catalog, name, once)

    async def clear_log(self, name: str) -> None:
        """Remove all interactions and rewards. The model stays."""
        loop_id = self._catalog.loop(name).loop_id
        end = await self._log(loop_id).clear()
        if self._cleared is not None:
            await self._cleared(loop_id, end)
        self._trail.note("log cleared", loop=name)


def with_changes(settings: LoopSettings, changes: Mapping[str, object], *, now: datetime) -> LoopSettings:
    """Return settings with changes; a new `exploration` is the policy's `--epsilon`, too.

    Raises:
        InvalidSettings: one is out of bounds, or two may not change together.
    """
    outcome = change(settings, changes, now=now)
    _check_auto_optimization(outcome)
    if outcome.exploration != settings.exploration:
        policy = parse_policy(outcome.policy)
        if policy.epsilon is not None:
            outcome = msgspec.structs.replace(outcome, policy=policy.with_epsilon(outcome.exploration).text)
    return outcome


def with_policy(settings: LoopSettings, policy: PolicyArguments, *, now: datetime) -> LoopSettings:
    """Return settings with another policy, whose `--epsilon` is the new `exploration`.

    Raises:
        InvalidSettings: it does not go with the others.
    """
    exploration = settings.exploration if policy.epsilon is None else policy.epsilon
    changes = {"policy": policy.text, "preset": preset_of(policy), "exploration": exploration}
    outcome = change(settings, changes, now=now)
    _check_auto_optimization(outcome)
    return outcome


def _check_auto_optimization(settings: LoopSettings) -> None:
    if settings.is_auto_optimization_enabled and problem_type_of(settings.policy) is ProblemType.MULTI_SLOT:
        raise InvalidSettings(
            "auto-optimization does not go with a policy for several slots (--ccb_explore_adf): "
            "switch isAutoOptimizationEnabled off, or use a policy with --cb_explore_adf",
            code="ProblemTypeIncompatibleWithAutoOptimization",
            target="isAutoOptimizationEnabled",
        )


def retraining(before: LoopSettings, after: LoopSettings) -> list[str]:
    """Name the changed settings that need a new epoch. A new `--epsilon` alone does not change the policy."""
    changed = [
        name
        for name, setting in SETTINGS.items()
        if setting.retrains and name != "policy" and getattr(before, name) != getattr(after, name)
    ]
    if parse_policy(before.policy).with_epsilon(0.0).text != parse_policy(after.policy).with_epsilon(0.0).text:
        changed.append("policy")
    return changed
