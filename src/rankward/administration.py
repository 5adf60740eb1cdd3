"""Loops, keys, settings, policies and models, as somebody who runs an installation sees and changes them.

The HTTP API under `/admin` and the command line both stand on this, so that either does what the other does.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from rankward.archiving.layout import Erasure
from rankward.auditing import Trail, differences
from rankward.challengers import ChallengerService, Position
from rankward.configuration import Configuration, retraining, with_changes, with_policy
from rankward.doctor.report import Report
from rankward.doctor.rounds import Rounds
from rankward.erasure import Forgotten, forget
from rankward.errors import CallerError, InvalidPolicy, InvalidRequest, InvalidSettings, NotFound
from rankward.history.importing import Imported, Importer
from rankward.import_run import NOTE as IMPORT_NOTE
from rankward.import_run import Bulletin, ImportStatus
from rankward.joining.reader import read_joined
from rankward.optimization.rules import obstacle
from rankward.optimization.schedule import following
from rankward.optimization.service import OptimizationService
from rankward.optimization.view import NewOptimization, OptimizationHistory, OptimizationView, view
from rankward.optimization.watcher import read_watched
from rankward.ranking.features import FeatureBounds
from rankward.ranking.service import Scorer
from rankward.records import AnyInteraction, EventId, Interaction, LearningMode, LogEntry, ModelId, Offset, TimeUs
from rankward.registry.compare import Comparison, compare
from rankward.registry.service import Form, Registry
from rankward.settings import (
    READ_ONLY,
    SETTINGS,
    STAMPS,
    Limits,
    LoopSettings,
    as_datetime,
    parse,
    parse_duration,
    show,
)
from rankward.store.audit import SERVICE, Actor
from rankward.store.imports import ImportState, LogImport
from rankward.store.optimizations import Optimization, OptimizationState
from rankward.store.ports import Epoch, EventLog, JoinedLog, Loop, ModelVersion
from rankward.story import Story, newest, stories
from rankward.telemetry import find_version
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of
from rankward.vw.explain import Contribution
from rankward.vw.presets import BALANCED, PRESETS
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison
from rankward.watching.exploration import Exploration
from rankward.watching.figures import ActionBoard, Series
from rankward.watching.fold import DAY_US
from rankward.wiring import Home, new_loop_settings

COMPARED_MAX = 2_000  # decisions that two models are compared on
OPERATORS_ONLY = frozenset({"model_import"})
"""Settings that a key of the loop does not change: they bound what it may do."""
_KEY_SHOWN = 4  # characters of a key that are shown
_EFFECTS = {
    "reward_wait": "It holds for decisions from now on; each keeps the wait it was decided with.",
    "exploration": "Every model serves with it at once; what was learned stays.",
    "model_export_frequency": "It holds from the next model on.",
    "learning_mode": "It holds for decisions from now on; earlier events are learned as they were logged.",
    "younger_models": "They are begun or let go of within a second, and begin with what is joined from now on.",
    "answer_without_quorum": "It holds for calls from now on. What waits on a node is sent in any case.",
    "numbers": "A new epoch sees them so; the model that serves keeps what it was learned with. With bins, only "
    "rankward's own client can decide with a downloaded model.",
    "log_retention_days": "Older events are removed within a second, once they are joined.",
}


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


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent in the portal to be imported, with what became of it."""

    key: str
    name: str  # of the file
    size_bytes: int
    created_us: TimeUs
    who: str  # sent it
    state: ImportState
    lines: int | None  # read so far; None: nobody can tell, or it is over
    imported: int | None  # events of them; the same
    done: float | None  # within [0, 1]; the same
    remaining_s: float | None  # the same
    description: str  # what became of it, or why it waits; empty: there is nothing to say
    ended_us: TimeUs | None  # None: it goes on


class NewLoop(msgspec.Struct, frozen=True, kw_only=True):
    """What a new loop is to be."""

    name: str  # 1 to 64 of a-z, 0-9, - and _
    preset: str = BALANCED.name


class CreatedLoop(msgspec.Struct, frozen=True, kw_only=True):
    """A loop that was just made, with its keys."""

    loop: LoopView
    keys: list[NewKey]


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


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span of time that is asked for, as text."""

    start: str | None = None  # ISO 8601; None: a day before the end
    end: str | None = None  # ISO 8601, exclusive; None: now
    step: str | None = None  # length of a stretch, such as 1h or PT1H; None: what makes a chart


class ChallengerView(msgspec.Struct, frozen=True, kw_only=True):
    """A challenger: a policy that learns beside the one that serves, and how it stands against it.

    Rewards are in the loop's units. Of each interval, both ends together hold at every look, 95 times out of 100.
    """

    name: str
    policy: str
    preset: str | None  # None: a policy of its own
    exploration: float
    created_us: TimeUs
    judged_from_us: TimeUs  # by decisions from then on
    state: str  # running, or failed
    description: str  # why it failed, or was begun anew; empty: neither
    learned: int  # events
    behind: int  # joined events that it has not been judged by yet
    waits: bool  # whether it waits until the loop's own training has caught up
    decisions: int  # that it was judged by
    reward: float | None  # mean that it would have earned; None: nothing is known yet
    reward_low: float | None
    reward_high: float | None
    reward_served: float | None  # mean of what was served meanwhile
    ahead: float | None  # by how much it would have earned more
    ahead_low: float | None  # above 0: it is better beyond doubt
    ahead_high: float | None
    verdict: str  # better, worse, undecided or unknown


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of settings or policy did."""

    before: dict[str, str]  # settings that changed, as they were
    after: dict[str, str]  # and as they are
    effects: list[str]  # what that does to what was learned, for people


class ToForget(msgspec.Struct, frozen=True, kw_only=True):
    """Events to erase: by their ids, or all of a subject."""

    event_ids: list[str] = []
    subject: str | None = None


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a loop's model."""

    serving: bool
    version: ModelVersion


class Administration:
    """Everything that can be done to the loops of an installation."""

    def __init__(
        self,
        home: Home,
        configuration: Configuration,
        registry: Registry,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        limits: Limits,
        bounds: FeatureBounds,
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            configuration: changes settings and policies.
            registry: changes models.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            limits: of one request; events that are imported are held to them, too.
            bounds: of features, likewise.
        """
        self._limits = limits
        self._bounds = bounds
        self._home = home
        self._configuration = configuration
        self._registry = registry
        self._log = log
        self._joined = joined
        self._optimizing = OptimizationService(home, log=log, joined=joined, limits=Limits())
        self._rounds = Rounds(home)
        self._actor = SERVICE

    def by(self, actor: Actor) -> Administration:
        """Return the same, for changes that somebody makes."""
        theirs = copy.copy(self)
        theirs._actor = actor
        theirs._configuration = self._configuration.by(actor)
        theirs._registry = self._registry.by(actor)
        theirs._optimizing = self._optimizing.by(actor)
        return theirs

    @property
    def _trail(self) -> Trail:
        return self._home.trail.by(self._actor)

    @property
    def _challengers(self) -> ChallengerService:
        return ChallengerService(self._home, self._trail)

    async def loops(self) -> list[LoopView]:
        """List the loops, by name."""
        return [self._view(loop) for loop in self._home.catalog.loops()]

    async def loop(self, name: str) -> LoopView:
        """Show one loop.

        Raises:
            NotFound: there is none of the name.
        """
        return self._view(self._home.catalog.loop(name))

    def _view(self, loop: Loop) -> LoopView:
        version = find_version(self._home.catalog.versions(loop.loop_id), loop.model_id)
        epochs = self._home.catalog.epochs(loop.loop_id)
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

    async def create_loop(self, wanted: NewLoop) -> CreatedLoop:
        """Add a loop. A running service has it at once.

        Raises:
            InvalidRequest: the name cannot be used, or there is no such preset.
            Conflict: the name is taken.
        """
        if wanted.preset not in PRESETS:
            raise InvalidRequest(f"there is no preset {wanted.preset!r}: one of {', '.join(PRESETS)}", target="preset")
        settings = new_loop_settings(PRESETS[wanted.preset])
        loop = await asyncio.to_thread(self._home.create_loop, wanted.name, settings, actor=self._actor)
        kept = self._kept_keys(wanted.name)
        keys = [NewKey(slot=slot, key=kept[f"key{slot}"]) for slot in (1, 2)]
        return CreatedLoop(loop=self._view(loop), keys=keys)

    async def delete_loop(self, name: str) -> None:
        """Remove a loop with its log, its models and its keys.

        Raises:
            NotFound: there is none of the name.
        """
        self._home.catalog.loop(name)
        await asyncio.to_thread(self._home.delete_loop, name, actor=self._actor)

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
        return NewKey(slot=slot, key=await asyncio.to_thread(self._home.set_key, name, slot, actor=self._actor))

    def _kept_keys(self, name: str) -> Mapping[str, str]:
        loops = self._home.keys().get("loops", {})
        kept: Mapping[str, str] = loops.get(name, {}) if isinstance(loops, dict) else {}
        return kept

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

    async def earnings(self, name: str, span: Span) -> Series:
        """Tell what a loop earned over time."""
        loop = self._home.catalog.loop(name)
        from_us, to_us, step_us = self._read_span(span)
        return await asyncio.to_thread(self._home.figures().series, loop, from_us=from_us, to_us=to_us, step_us=step_us)

    async def actions(self, name: str, span: Span) -> ActionBoard:
        """Tell what became of a loop's actions in a span of time."""
        loop = self._home.catalog.loop(name)
        from_us, to_us, _ = self._read_span(span)
        return await asyncio.to_thread(self._home.figures().actions, loop, from_us=from_us, to_us=to_us)

    async def comparison(self, name: str) -> LiveComparison:
        """Tell whether a loop is better than its baseline and than chance."""
        return await asyncio.to_thread(self._home.figures().comparison, self._home.catalog.loop(name))

    async def apprentice(self, name: str) -> Apprenticeship:
        """Tell how an apprentice does, and what to do."""
        return await asyncio.to_thread(self._home.figures().apprentice, self._home.catalog.loop(name))

    async def exploration(self, name: str) -> Exploration:
        """Tell what a loop pays for exploring."""
        return await asyncio.to_thread(self._home.figures().exploration, self._home.catalog.loop(name))

    def _read_span(self, span: Span) -> tuple[TimeUs, TimeUs, int | None]:
        """Read a span: beginning, end, step. Of what is not said, the end is now, and the beginning a day before."""
        to_us = self._home.clock() + 1 if span.end is None else _moment("to", span.end)
        from_us = to_us - DAY_US if span.start is None else _moment("from", span.start)
        return from_us, to_us, None if span.step is None else _length("step", span.step)

    async def challengers(self, name: str) -> list[ChallengerView]:
        """List a loop's challengers with how they stand, oldest first."""
        return [_challenger_view(each) for each in await self._challengers.listed(self._home.catalog.loop(name))]

    async def add_challenger(self, name: str, challenger: str, choice: PolicyChoice) -> ChallengerView:
        """Let a policy learn beside the one that serves.

        Args:
            name: of the loop.
            challenger: its name: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
            choice: the policy.

        Raises:
            InvalidPolicy: it is malformed or not allowed, or not one of the two was given.
            Conflict: the loop has one of that name, or as many as it may have.
        """
        loop = self._home.catalog.loop(name)
        if (choice.arguments is None) == (choice.preset is None):
            raise InvalidPolicy("give the learner's arguments or the name of a preset: one of the two")
        if choice.slots is not None:
            raise InvalidPolicy("a challenger decides for what the loop decides for: leave slots out", target="slots")
        policy = choice.arguments
        if policy is None:
            if choice.preset not in PRESETS:
                raise InvalidPolicy(f"there is no preset {choice.preset!r}: one of {', '.join(PRESETS)}")
            policy = PRESETS[choice.preset].policy(problem_type_of(loop.settings.policy)).text
        added = await self._challengers.add(loop, challenger, policy)
        self._trail.note("challenger added", loop=name, detail=challenger, after={"policy": policy})
        return next(view for view in await self.challengers(name) if view.name == added.name)

    async def remove_challenger(self, name: str, challenger: str) -> None:
        """Remove a challenger with what it has learned.

        Raises:
            NotFound: there is none of the name.
        """
        self._challengers.remove(self._home.catalog.loop(name), challenger)
        self._trail.note("challenger removed", loop=name, detail=challenger)

    async def promote_challenger(self, name: str, challenger: str) -> LoopView:
        """Make a challenger's policy, and what it has learned, a loop's own: see `ChallengerService.promote`."""
        loop = self._home.catalog.loop(name)
        promoted = await self._challengers.promote(loop, challenger, log=self._log(loop.loop_id))
        self._trail.note_settings("settings changed", name, loop.settings, promoted.settings)
        self._trail.note(
            "challenger promoted",
            loop=name,
            detail=challenger,
            before={"model": loop.model_id or ""},
            after={"model": promoted.model_id or ""},
        )
        return self._view(promoted)

    async def presets(self) -> list[PresetView]:
        """List the named policies."""
        return [
            PresetView(name=preset.name, arguments=preset.policy().text, description=preset.description)
            for preset in PRESETS.values()
        ]

    async def models(self, name: str) -> list[ModelView]:
        """List the versions that are kept of a loop's model, newest first."""
        loop = self._home.catalog.loop(name)
        versions = self._home.catalog.versions(loop.loop_id)
        return [ModelView(serving=version.model_id == loop.model_id, version=version) for version in versions]

    async def model(self, name: str, model_id: ModelId, *, signed: bool = False) -> bytes:
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
        return self._view(await self._registry.keep_serving(name))

    async def roll_back(self, name: str, model_id: ModelId) -> LoopView:
        """Serve a version, and go on learning from it.

        Raises:
            NotFound: it is not kept.
        """
        return self._view(await self._registry.roll_back(name, model_id))

    async def delete_model(self, name: str) -> LoopView:
        """Forget what a loop has learned. Its versions stay, and can be rolled back to."""
        return self._view(await self._registry.delete(name))

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

    async def newest(
        self, name: str, *, limit: int, before: Offset | None = None
    ) -> list[tuple[LogEntry, AnyInteraction]]:
        """List a loop's decisions, newest first: see `story.newest`."""
        return await newest(self._log(self._home.catalog.loop(name).loop_id), limit=limit, before=before)

    async def stories(self, name: str, event_id: EventId) -> list[Story]:
        """Tell what is on record of an event id: see `story.stories`."""
        loop = self._home.catalog.loop(name)
        log, joined = self._log(loop.loop_id), self._joined(loop.loop_id)
        return await stories(self._home.catalog, log, joined, loop, event_id)

    async def explain(self, name: str, interaction: AnyInteraction) -> list[Contribution] | None:
        """Take apart the score that the chosen action had with the model that decided.

        Returns:
            See `vw.explain`. None: no model decided it, it is not kept any more, or its scores are no sums.
        """
        loop = self._home.catalog.loop(name)
        versions = {version.model_id: version for version in self._home.catalog.versions(loop.loop_id)}
        version = versions.get(interaction.model_id or "")
        if version is None or not isinstance(interaction, Interaction) or len(interaction.rankable) < 2:
            return None
        if problem_type_of(version.policy) is not ProblemType.SINGLE_SLOT:
            return None
        return await asyncio.to_thread(self._explain, loop, version, interaction)

    def _explain(self, loop: Loop, version: ModelVersion, interaction: Interaction) -> list[Contribution] | None:
        scorer = Scorer(version, self._home.models.get(loop.loop_id, version.model_id), loop.settings.exploration)
        try:
            return scorer.explain(interaction)
        finally:
            scorer.close()

    async def forget(self, name: str, wanted: ToForget) -> Forgotten:
        """Erase events from a loop's logs: see `erasure.forget`."""
        loop_id = self._home.catalog.loop(name).loop_id
        request = secrets.token_hex(8)

        async def tell(event_ids: Collection[EventId], subject: str | None) -> None:
            erasure = Erasure(event_ids=tuple(event_ids), subject=subject)
            await asyncio.to_thread(self._home.erase_archived, loop_id, request, erasure)

        # Opened for this alone: a log lets in one reader at a time, and the whole of it is read. Decisions under ids
        # of the caller's own would have to wait for each stretch.
        log, joined = self._home.event_log(loop_id), self._home.joined_log(loop_id)
        try:
            forgotten = await forget(
                self._home.catalog,
                log,
                joined,
                loop_id=loop_id,
                event_ids=wanted.event_ids,
                subject=wanted.subject,
                tell=tell,
            )
        finally:
            await log.close()
            await joined.close()
        await asyncio.to_thread(self._home.forget_checkpoints, but=())  # events that wait to be learned are in them
        # Neither ids nor the subject are noted: they are to be forgotten.
        asked = "of a subject" if wanted.subject is not None else f"by {len(wanted.event_ids)} ids"
        self._trail.note("events erased", loop=name, detail=asked)
        return forgotten

    async def optimizations(self, name: str) -> OptimizationHistory:
        """Show a loop's optimizations, newest first, and when the next one is due."""
        loop = self._home.catalog.loop(name)
        return OptimizationHistory(
            next_us=following(loop.settings, created_us=loop.created_us, now_us=self._home.clock()),
            obstacle=obstacle(loop.settings, loop.model_id),
            runs=tuple([self._shown_run(run) for run in self._optimizing.listed(loop)]),
        )

    async def optimization(self, name: str, optimization_id: str) -> OptimizationView:
        """Show one of a loop's optimizations.

        Raises:
            NotFound: there is none of the id.
        """
        return self._shown_run(self._optimizing.find(self._home.catalog.loop(name), optimization_id))

    def _shown_run(self, run: Optimization) -> OptimizationView:
        watches = run.state is OptimizationState.WATCHING
        return view(run, read_watched(self._home.board.read(run.loop_id)) if watches else None)

    async def optimize(self, name: str, wanted: NewOptimization) -> OptimizationView:
        """Search a loop's log for a better policy, in the background: see `optimization.service`.

        Raises:
            InvalidRequest: its log cannot tell a better policy, or there is nothing in it.
            Conflict: another run goes on.
        """
        loop = self._home.catalog.loop(name)
        return view(await self._optimizing.begin(loop, due_us=None, dry_run=wanted.dry_run))

    async def import_logs(
        self,
        name: str,
        files: Sequence[Path],
        *,
        strict: bool = False,
        told: Callable[[Imported], None] = lambda _: None,
    ) -> Imported:
        """Import files of events into a loop, as history.

        Args:
            name: of the loop.
            files: in the order in which they are read.
            strict: whether to stop at the first broken line.
            told: hears how far it is.

        Raises:
            DataFolderHeld: another process is at it.
            InvalidRequest: a file is damaged, or with `strict`, has a broken line.
        """
        loop = self._home.catalog.loop(name)
        files_said = files[0].name if len(files) == 1 else f"{len(files)} files"
        bulletin = Bulletin(self._home, loop.loop_id, key=None, name=files_said)

        def note(state: Imported) -> None:
            bulletin.tell(state)
            told(state)

        with self._home.importing(loop.loop_id):
            log = self._home.event_log(loop.loop_id)  # of its own: see `forget`
            importer = Importer(
                log,
                bounds=self._bounds,
                limits=self._limits,
                reward_wait_us=loop.settings.reward_wait // timedelta(microseconds=1),
                strict=strict,
                told=note,
            )
            try:
                imported = await importer.run(files)
            except CallerError:
                bulletin.take_down()
                raise
            finally:
                await log.close()
        bulletin.take_down()
        self._trail.note("history imported", loop=name, detail=f"{len(files)} files")
        return imported

    async def imports(self, name: str) -> list[ImportView]:
        """List the files that were sent to be imported into a loop, newest first, with how far they are."""
        loop = self._home.catalog.loop(name)
        note = self._home.board.read(loop.loop_id).get(IMPORT_NOTE)
        told = None if note is None else msgspec.json.decode(note, type=ImportStatus)
        return [_import_view(each, told) for each in self._home.imports(loop.loop_id).listed()]

    async def cancel_import(self, name: str, key: str) -> None:
        """Let an import be. What it has imported stays.

        Raises:
            NotFound: there is none that is not over.
        """
        loop = self._home.catalog.loop(name)
        self._home.imports(loop.loop_id).cancel(key)
        self._trail.note("import cancelled", loop=name, detail=key)

    async def doctor(self, name: str, *, age_us: int = 0) -> Report:
        """Say what a loop waits for, and why it is not learning.

        Args:
            name: of the loop.
            age_us: how old the answer may be, in microseconds.
        """
        return await self._rounds.report(self._home.catalog.loop(name), age_us=age_us)


def _import_view(found: LogImport, told: ImportStatus | None) -> ImportView:
    now = told if told is not None and told.key == found.key and not found.is_over else None
    return ImportView(
        key=found.key,
        name=found.name,
        size_bytes=found.size_bytes,
        created_us=found.created_us,
        who=found.actor.who,
        state=found.state,
        lines=None if now is None else now.lines,
        imported=None if now is None else now.imported,
        done=None if now is None else now.done,
        remaining_s=None if now is None else now.remaining_s,
        description=found.description,
        ended_us=found.ended_us,
    )


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


def effect_of(setting: str) -> str:
    """Say what a change of one setting does to what was learned, for people. Empty: nothing."""
    if SETTINGS[setting].retrains:
        return "A new model learns the newest part of the log in the background; the old one serves until then."
    return _EFFECTS.get(setting, "")


def effects(before: LoopSettings, after: LoopSettings, *, retrained: bool) -> list[str]:
    """Say what a change does to what was learned.

    Args:
        before: the settings before it.
        after: the settings after it.
        retrained: whether it starts an epoch.
    """
    changed = [name for name in SETTINGS if getattr(before, name) != getattr(after, name)]
    if not changed:
        return ["Nothing changed: it was set so already."]
    said = [f"{name}: {_EFFECTS[name]}" for name in changed if name in _EFFECTS]
    if retrained:
        until = "the old one serves until it has caught up"
        if problem_type_of(before.policy) is not problem_type_of(after.policy):
            until = "until it has caught up, decisions are uniform, as the old one decides something else"
        said.append(
            f"Model: a new one learns the last {after.model_retrain_days} days of the log in the background; {until}. "
            "`rankward doctor` shows how far it is."
        )
    else:
        said.append("Model: it goes on learning.")
    return said


def _moment(name: str, text: str) -> TimeUs:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{name}={text[:40]!r} is no moment: write it as 2026-01-31T12:00:00Z", code="InvalidRequest", target=name
        ) from error
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (zoned - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _length(name: str, text: str) -> int:
    try:
        return parse_duration(text) // timedelta(microseconds=1)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}", code="InvalidRequest", target=name) from error


def _challenger_view(position: Position) -> ChallengerView:
    challenger, standing = position.challenger, position.standing
    mean, ahead = standing.mean, standing.ahead
    return ChallengerView(
        name=challenger.name,
        policy=challenger.epoch.policy,
        preset=challenger.preset,
        exploration=challenger.floor,
        created_us=challenger.created_us,
        judged_from_us=challenger.judged_from_us,
        state=challenger.state,
        description=challenger.description,
        learned=position.learned,
        behind=position.behind,
        waits=position.waits,
        decisions=standing.decisions,
        reward=None if mean is None else mean.value,
        reward_low=None if mean is None else mean.always.low,
        reward_high=None if mean is None else mean.always.high,
        reward_served=standing.served,
        ahead=None if ahead is None else ahead.value,
        ahead_low=None if ahead is None else ahead.always.low,
        ahead_high=None if ahead is None else ahead.always.high,
        verdict=standing.verdict,
    )


def _written(settings: LoopSettings) -> dict[str, str]:
    return {name: show(getattr(settings, name)) for name in SETTINGS}


def _shown(key: str | None) -> str | None:
    return None if key is None else key[:_KEY_SHOWN] + "•" * 12
