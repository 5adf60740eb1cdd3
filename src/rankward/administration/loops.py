"""Loops and their keys: listed, made, removed, renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from rankward.errors import InvalidRequest, NotFound
from rankward.loops import new_loop_settings
from rankward.records import LearningMode, ModelId, TimeUs
from rankward.settings import show
from rankward.store.audit import Actor
from rankward.store.ports import Loop
from rankward.telemetry import find_version
from rankward.vw.presets import BALANCED, PRESETS
from rankward.wiring import Home

_KEY_SHOWN = 4  # characters of a key that are shown


class LoopView(msgspec.Struct, frozen=True, kw_only=True):
    """A loop."""

    name: str
    loop_id: str
    created_us: TimeUs
    endpoint_path: str  # below the service's address: an endpoint for clients, with the loop in it
    learning_mode: LearningMode
    preset: str | None  # None: a policy of its own
    policy: str
    exploration: float
    reward_wait: str
    model_export_frequency: str
    model_id: ModelId | None  # None: decisions are uniform
    model_created_us: TimeUs | None
    model_learned: int | None
    building: str | None  # what the epoch that is being built was started for; None: none is


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key, as far as it is shown."""

    slot: int  # 1 or 2
    shown: str | None  # its first characters; None: it was set by the operator, and is not written down


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made. It is shown this once."""

    slot: int  # 1 or 2
    key: str


class NewLoop(msgspec.Struct, frozen=True, kw_only=True):
    """What a new loop is to be."""

    name: str  # 1 to 64 of a-z, 0-9, - and _
    preset: str = BALANCED.name


class CreatedLoop(msgspec.Struct, frozen=True, kw_only=True):
    """A loop that was just made, with its keys."""

    loop: LoopView
    keys: list[NewKey]


class LoopAdministration:
    """Loops, and the keys that open them."""

    def __init__(self, home: Home, actor: Actor) -> None:
        """Prepare.

        Args:
            home: the installation.
            actor: who makes the changes.
        """
        self._home = home
        self._actor = actor

    async def listed(self) -> list[LoopView]:
        """List the loops, by name."""
        return [loop_view(self._home, loop) for loop in self._home.catalog.loops()]

    async def show(self, name: str) -> LoopView:
        """Show one loop.

        Raises:
            NotFound: there is none of the name.
        """
        return loop_view(self._home, self._home.catalog.loop(name))

    async def create(self, wanted: NewLoop) -> CreatedLoop:
        """Add a loop. A running service has it at once.

        Raises:
            InvalidRequest: the name cannot be used, or there is no such preset.
            Conflict: the name is taken.
        """
        if wanted.preset not in PRESETS:
            raise InvalidRequest(f"there is no preset {wanted.preset!r}: one of {', '.join(PRESETS)}", target="preset")
        settings = new_loop_settings(PRESETS[wanted.preset])
        loop = await asyncio.to_thread(self._home.loops.create, wanted.name, settings, actor=self._actor)
        kept = self._kept_keys(wanted.name)
        keys = [NewKey(slot=slot, key=kept[f"key{slot}"]) for slot in (1, 2)]
        return CreatedLoop(loop=loop_view(self._home, loop), keys=keys)

    async def delete(self, name: str) -> None:
        """Remove a loop with its log, its models and its keys.

        Raises:
            NotFound: there is none of the name.
        """
        self._home.catalog.loop(name)
        await asyncio.to_thread(self._home.loops.delete, name, actor=self._actor)

    async def keys(self, name: str) -> list[KeyView]:
        """Show the beginnings of a loop's keys."""
        self._home.catalog.loop(name)
        kept = self._kept_keys(name)
        return [KeyView(slot=slot, shown=_shown(kept.get(f"key{slot}"))) for slot in (1, 2)]

    async def regenerate_key(self, name: str, slot: int) -> NewKey:
        """Make a new key; the old one of the slot opens nothing then.

        Raises:
            NotFound: there is no such loop, or no such slot.
        """
        self._home.catalog.loop(name)
        if slot not in {1, 2}:
            raise NotFound(f"a loop has the keys 1 and 2, not {slot}")
        return NewKey(slot=slot, key=await asyncio.to_thread(self._home.loops.set_key, name, slot, actor=self._actor))

    def _kept_keys(self, name: str) -> Mapping[str, str]:
        loops = self._home.loops.keys().get("loops", {})
        kept: Mapping[str, str] = loops.get(name, {}) if isinstance(loops, dict) else {}
        return kept


def loop_view(home: Home, loop: Loop) -> LoopView:
    """Put together what is shown of a loop."""
    version = find_version(home.catalog.versions(loop.loop_id), loop.model_id)
    epochs = home.catalog.epochs(loop.loop_id)
    settings = loop.settings
    return LoopView(
        name=loop.name,
        loop_id=loop.loop_id,
        created_us=loop.created_us,
        endpoint_path=f"/loops/{loop.name}",
        learning_mode=settings.learning_mode,
        preset=settings.preset,
        policy=settings.policy,
        exploration=settings.exploration,
        reward_wait=show(settings.reward_wait),
        model_export_frequency=show(settings.model_export_frequency),
        model_id=loop.model_id,
        model_created_us=version.created_us if version else None,
        model_learned=version.learned if version else None,
        building=next((epoch.reason for epoch in epochs if epoch.state == "building"), None),
    )


def _shown(key: str | None) -> str | None:
    return None if key is None else key[:_KEY_SHOWN] + "•" * 12
