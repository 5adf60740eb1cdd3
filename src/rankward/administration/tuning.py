"""Settings and policies of loops: shown, changed, and foreseen."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import closing
from typing import Any

import msgspec

from rankward.administration.effects import effects
from rankward.auditing import differences
from rankward.configuration import Configuration, retraining, with_changes, with_policy
from rankward.errors import InvalidPolicy, InvalidSettings
from rankward.settings import READ_ONLY, SETTINGS, STAMPS, LoopSettings, as_datetime, parse, show
from rankward.store.ports import Epoch, Loop
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of
from rankward.vw.presets import PRESETS
from rankward.wiring import Home

OPERATORS_ONLY = frozenset({"model_import"})
"""Settings that a key of the loop does not change: they bound what it may do."""


class PolicyChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Another policy: the learner's arguments or the name of a preset, one of the two."""

    arguments: str | None = None
    preset: str | None = None
    slots: bool | None = None  # whether a preset is to decide for several slots; None: as the loop does now


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """A loop's policy, and what is trained under it."""

    policy: str
    preset: str | None  # None: a policy of its own
    exploration: float
    epochs: list[Epoch]  # building or serving, oldest first


class PresetView(msgspec.Struct, frozen=True, kw_only=True):
    """A named policy."""

    name: str
    arguments: str
    description: str  # what it costs and gains


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of settings or policy did."""

    before: dict[str, str]  # settings that changed, as they were
    after: dict[str, str]  # and as they are
    effects: list[str]  # what that does to what was learned, for people


class TuningAdministration:
    """What loops are set to."""

    def __init__(self, home: Home, configuration: Configuration) -> None:
        """Prepare.

        Args:
            home: the installation.
            configuration: changes settings and policies.
        """
        self._home = home
        self._configuration = configuration

    async def settings(self, name: str) -> dict[str, str]:
        """Show every setting of a loop, by name."""
        return _written(self._home.catalog.loop(name).settings)

    async def change_settings(self, name: str, changes: Mapping[str, str], *, by_operator: bool = True) -> Changed:
        """Change settings, all of them or none.

        Args:
            name: of the loop.
            changes: new values by setting, as `settings` shows them.
            by_operator: whether whoever asks runs the service; otherwise they hold a key of the loop, and may change
                neither what that lets in, nor to places that only the service itself may write to.

        Raises:
            InvalidSettings: one cannot be set, is out of bounds, or may not change together with another.
        """
        wanted = _parsed(changes, by_operator=by_operator)
        return await self._changing(name, self._configuration.change(name, wanted, by_operator=by_operator))

    async def foresee_settings(self, name: str, changes: Mapping[str, str], *, by_operator: bool = True) -> Changed:
        """Say what `change_settings` would do, and change nothing. Signatures of addresses are left out.

        Raises:
            InvalidSettings: it would be refused.
        """
        settings = self._home.catalog.loop(name).settings
        wanted = _parsed(changes, by_operator=by_operator)
        return _foreseen(settings, with_changes(settings, wanted, now=as_datetime(self._home.clock())))

    async def policy(self, name: str) -> PolicyView:
        """Show a loop's policy."""
        loop = self._home.catalog.loop(name)
        return PolicyView(
            policy=loop.settings.policy,
            preset=loop.settings.preset,
            exploration=loop.settings.exploration,
            epochs=list(self._home.catalog.epochs(loop.loop_id)),
        )

    async def set_policy(self, name: str, choice: PolicyChoice) -> Changed:
        """Give a loop another policy.

        Raises:
            InvalidPolicy: it is malformed or not allowed, or not one of the two was given.
        """
        if (choice.arguments is None) == (choice.preset is None):
            raise InvalidPolicy("give the learner's arguments or the name of a preset: one of the two")
        if choice.preset is not None:
            problem_type = None
            if choice.slots is not None:
                problem_type = ProblemType.MULTI_SLOT if choice.slots else ProblemType.SINGLE_SLOT
            return await self._changing(name, self._configuration.set_preset(name, choice.preset, problem_type))
        if choice.slots is not None:
            raise InvalidPolicy("slots go with a preset: arguments say it by --ccb_explore_adf")
        return await self._changing(name, self._configuration.set_policy(name, choice.arguments or ""))

    async def foresee_policy(self, name: str, choice: PolicyChoice) -> Changed:
        """Say what `set_policy` would do, and change nothing. That the learner takes the policy is not tried.

        Raises:
            InvalidPolicy: it would be refused.
        """
        settings = self._home.catalog.loop(name).settings
        text = choice.arguments
        if text is None:
            if choice.preset not in PRESETS:
                raise InvalidPolicy(f"there is no preset {choice.preset!r}: one of {', '.join(PRESETS)}")
            text = PRESETS[choice.preset].policy(problem_type_of(settings.policy)).text
        return _foreseen(settings, with_policy(settings, parse_policy(text), now=as_datetime(self._home.clock())))

    async def reset_policy(self, name: str) -> Changed:
        """Restore Personalizer's own policy."""
        return await self._changing(name, self._configuration.reset_policy(name))

    async def _changing(self, name: str, change: Coroutine[Any, Any, Loop]) -> Changed:
        """Make a change, and say what it was and what it does."""
        with closing(change):  # a coroutine that is not awaited would be complained about
            before = self._home.catalog.loop(name)
            known = {epoch.epoch_id for epoch in self._home.catalog.epochs(before.loop_id)}
            after = await change
        started = [epoch for epoch in self._home.catalog.epochs(after.loop_id) if epoch.epoch_id not in known]
        old, new = _written(before.settings), _written(after.settings)
        names = [each for each in SETTINGS if old[each] != new[each] and each not in STAMPS]
        return Changed(
            before={each: old[each] for each in names},
            after={each: new[each] for each in names},
            effects=effects(before.settings, after.settings, retrained=bool(started)),
        )

    async def presets(self) -> list[PresetView]:
        """List the named policies."""
        return [
            PresetView(name=preset.name, arguments=preset.policy().text, description=preset.description)
            for preset in PRESETS.values()
        ]


def _parsed(changes: Mapping[str, str], *, by_operator: bool) -> dict[str, object]:
    """Read settings as they are sent."""
    wanted: dict[str, object] = {}
    for setting, text in changes.items():
        if setting in READ_ONLY:
            what = "`policy set` changes it" if setting in {"policy", "preset"} else "it cannot be set"
            raise InvalidSettings(f"{setting} is no setting to change here: {what}", target=setting)
        if setting in OPERATORS_ONLY and not by_operator:
            raise InvalidSettings(
                f"{setting} bounds what a key of the loop may do: sign in with the admin key to change it",
                code="InvalidApiAccess",
                target=setting,
            )
        wanted[setting] = parse(setting, text)
    return wanted


def _foreseen(before: LoopSettings, after: LoopSettings) -> Changed:
    old, new = differences(before, after)
    return Changed(before=old, after=new, effects=effects(before, after, retrained=bool(retraining(before, after))))


def _written(settings: LoopSettings) -> dict[str, str]:
    return {name: show(getattr(settings, name)) for name in SETTINGS}
