"""Takes an old resource over: everything is recognised and checked first, and only then is anything changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from rankward.administration.loops import NewLoop
from rankward.administration.service import Administration
from rankward.api.schema.configuration import read_policy, read_settings
from rankward.configuration import Configuration, with_changes, with_policy
from rankward.errors import CallerError, Conflict, InvalidRequest, RankwardError
from rankward.evaluation.files import LogFiles
from rankward.history.importing import DUPLICATE, IMPORTED, Imported
from rankward.migration.inventory import Inventory, document
from rankward.migration.parity import TOLERANCE
from rankward.migration.replay import OldModel, Replayed
from rankward.migration.report import Report, TakenModel, counted, verdict
from rankward.records import TimeUs
from rankward.registry.service import Examined, Registry
from rankward.settings import SETTINGS, Limits, LoopSettings, as_datetime, show
from rankward.store.ports import Loop
from rankward.vw.arguments import PolicyArguments, parse_policy, problem_type_of
from rankward.vw.presets import PERSONALIZER, learner_arguments
from rankward.vw.trial import try_out, try_policy
from rankward.wiring import Home

_MIRROR = ("log_mirror_enabled", "log_mirror_sas_uri")
_LEFT_OUT = {
    **dict.fromkeys(_MIRROR, "this log is not the old resource's: say where to mirror it with `rankward settings set`"),
    "last_configuration_edit": "it is the loop's own",
}
_UNKNOWN = "there is no such setting"
_MICROSECOND = timedelta(microseconds=1)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. All of it has been checked."""

    loop: str
    inventory: Inventory
    changes: dict[str, object]  # of settings, by name
    left_out: dict[str, str]  # members of the configuration that are not taken, by why
    policy: PolicyArguments | None  # to give the loop; None: it keeps its own, or has the model's
    model: Examined | None
    takes_policy: bool  # whether the loop gets the model's policy
    settings: LoopSettings  # what the loop will have before the model comes
    notes: list[str]

    @property
    def log(self) -> LogFiles:
        """The logs, to replay."""
        return LogFiles(paths=self.inventory.logs, reward_wait_us=self.settings.reward_wait // _MICROSECOND)

    @property
    def old(self) -> OldModel | None:
        """The model, to replay decisions on: with the exploration that it was saved with."""
        if self.model is None:
            return None
        settings = self.model.settings
        own = self.model.head.values("epsilon")
        epsilon = float(own[0]) if own else settings.exploration
        return OldModel(
            model=self.model.model,
            arguments=learner_arguments(settings.policy, self.model.interactions, epsilon),
            epsilon=epsilon,
            problem_type=problem_type_of(settings.policy),
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    loop: Loop  # as it is now
    model_id: str | None  # name of the model here; None: there was none
    imported: Imported | None  # None: there were no logs


class StoppedError(RankwardError):
    """A migration stopped half-way. The message says what was done."""


class Migration:
    """Takes old resources over into one installation."""

    def __init__(
        self, home: Home, configuration: Configuration, registry: Registry, administration: Administration
    ) -> None:
        self._home = home
        self._configuration = configuration
        self._registry = registry
        self._administration = administration

    async def prepare(self, loop: str, inventory: Inventory, *, into: bool) -> Plan:
        """Check everything, and change nothing.

        Args:
            loop: name of the loop to make.
            inventory: what to take over.
            into: whether the loop may be there already.

        Raises:
            Conflict: it is there already, and may not be.
            CallerError: a file cannot be used. The message names it.
        """
        there = next((each for each in self._home.catalog.loops() if each.name == loop), None)
        if there is not None and not into:
            raise Conflict(f"there is a loop {loop!r} already: name another with --loop, or add to it with --into")
        before = LoopSettings() if there is None else there.settings
        changes, left_out = await asyncio.to_thread(_read_settings, inventory.settings)
        policy = await asyncio.to_thread(_read_policy, inventory.policy)
        settings = self._planned(before, changes, policy, inventory)
        model, takes_policy, notes = None, False, []
        if inventory.model is not None:
            model, takes_policy = await self._examined(settings, inventory.model)
        if model is not None and takes_policy:
            policy = None
            notes.append(
                f"The model was trained under other arguments than {_whose(inventory, there)}, so the loop has the "
                f"model's policy: `{model.settings.policy}`. To learn under another, `rankward policy set {loop}`."
            )
        return Plan(
            loop=loop,
            inventory=inventory,
            changes=changes,
            left_out=left_out,
            policy=policy,
            model=model,
            takes_policy=takes_policy,
            settings=settings,
            notes=notes,
        )

    def _planned(
        self,
        settings: LoopSettings,
        changes: dict[str, object],
        policy: PolicyArguments | None,
        inventory: Inventory,
    ) -> LoopSettings:
        now = as_datetime(self._home.clock())
        if policy is not None:
            with _named(inventory.policy):
                settings = with_policy(settings, policy, now=now)
        with _named(inventory.settings):
            for step in _steps(changes):
                settings = with_changes(settings, step, now=now)
        return settings

    async def _examined(self, settings: LoopSettings, path: Path) -> tuple[Examined, bool]:
        """Try the model under the loop's own policy, then under the model's."""
        bound = Limits().model_bytes

        async def once(*, take_policy: bool) -> Examined:
            with path.open("rb") as file:
                return await self._registry.examine(
                    settings, file, bound=bound, by_admin=True, try_out=try_out, take_policy=take_policy
                )

        try:
            return await once(take_policy=False), False
        except InvalidRequest:
            with _named(path):
                return await once(take_policy=True), True

    async def carry_out(self, plan: Plan, told: Callable[[Imported], None] = lambda _: None) -> Outcome:
        """Do what was planned.

        Args:
            plan: what to do.
            told: hears how far the import of the logs is.

        Raises:
            StoppedError: something failed on the way; run again with `into`, it goes on from there.
        """
        done: list[str] = []
        try:
            return await self._carry_out(plan, told, done)
        except (RankwardError, OSError) as error:
            if not done:
                raise
            raise StoppedError(
                f"{error}. Done before that: {', '.join(done)}. Run it again with --into, and it goes on"
            ) from error

    async def _carry_out(self, plan: Plan, told: Callable[[Imported], None], done: list[str]) -> Outcome:
        name, inventory = plan.loop, plan.inventory
        if all(each.name != name for each in self._home.catalog.loops()):
            await self._administration.loops.create(NewLoop(name=name, preset=PERSONALIZER.name))
            done.append(f"the loop {name} is there")
        if plan.policy is not None:
            await self._configuration.set_policy(name, plan.policy.text)
            done.append("it has the policy")
        await self._change(plan)
        if plan.changes:
            done.append("it has the settings")
        model_id = None
        if plan.model is not None and inventory.model is not None:
            model_id = await self._take_model(plan, plan.model, inventory.model)
            done.append(f"it serves the model {model_id}")
            await self._change(plan)  # a policy that came with the model has an exploration of its own
        imported = None
        if inventory.logs:
            imported = await self._administration.imports.run(name, inventory.logs, told=told)
            if plan.model is None and imported.oldest_us is not None:
                reason = "a log was taken over"
                await self._configuration.retrain(name, since_us=imported.oldest_us, reason=reason)
        return Outcome(loop=self._home.catalog.loop(name), model_id=model_id, imported=imported)

    async def _change(self, plan: Plan) -> None:
        for step in _steps(plan.changes):
            await self._configuration.change(plan.loop, step, by_operator=True)

    async def _take_model(self, plan: Plan, model: Examined, path: Path) -> str:
        """Import the model, unless an earlier run did. Returns its name here."""
        loop = self._home.catalog.loop(plan.loop)
        for version in self._home.catalog.versions(loop.loop_id):
            if version.digest == model.digest:
                return version.model_id
        with path.open("rb") as file:
            taken = await self._registry.import_model(
                plan.loop,
                file,
                bound=Limits().model_bytes,
                by_admin=True,
                try_out=try_out,
                take_policy=plan.takes_policy,
            )
        return taken.model_id


def reported(plan: Plan, outcome: Outcome, replayed: Replayed | None, *, made_us: TimeUs) -> Report:
    """Put the report together.

    Args:
        plan: what was to be done.
        outcome: what was done.
        replayed: what came of replaying the logs; None: there were none.
        made_us: when.
    """
    settings, imported, inventory = outcome.loop.settings, outcome.imported, plan.inventory
    counts = imported.counts if imported is not None else Counter[str]()
    weights = replayed.weights if replayed is not None else None
    probabilities = replayed.probabilities if replayed is not None else None
    events = counts[IMPORTED] + counts[DUPLICATE]
    notes = [*plan.notes]
    if plan.old is not None and probabilities is not None and abs(plan.old.epsilon - settings.exploration) > TOLERANCE:
        notes.append(
            f"The loop explores {settings.exploration:g} of its decisions, and the model was saved with "
            f"{plan.old.epsilon:g}: decisions were replayed with the latter."
        )
    if events:
        notes.append(_LEARNED if plan.model is None else _NOT_LEARNED)
    return Report(
        loop=plan.loop,
        made_us=made_us,
        verdict=verdict(weights, probabilities, has_model=plan.model is not None, imported=events),
        files={str(path): kind for kind, paths in inventory.kinds.items() for path in paths},
        passed_over=list(inventory.passed_over),
        settings={name: show(getattr(settings, name)) for name in plan.changes},
        settings_left_out=plan.left_out,
        policy=settings.policy,
        model=_taken(plan, plan.model, outcome.model_id),
        lines=counted({_LINE_NAMES.get(kind, f"skipped, {kind}"): count for kind, count in counts.items()}),
        flaws=replayed.flaws if replayed is not None else [],
        first_us=replayed.first_us if replayed is not None else None,
        last_us=replayed.last_us if replayed is not None else None,
        weights=weights,
        probabilities=probabilities,
        notes=notes,
    )


_LINE_NAMES = {IMPORTED: "imported", DUPLICATE: "there already"}
_LEARNED = "A new epoch learns from all of the log: `rankward doctor` shows how far it is."
_NOT_LEARNED = (
    "The log is there to evaluate policies by. It is not learned again, as the model may have learned it; it goes on "
    "learning from what is decided here."
)


def _taken(plan: Plan, model: Examined | None, model_id: str | None) -> TakenModel | None:
    if model is None or model_id is None:
        return None
    return TakenModel(
        file=str(plan.inventory.model),
        model_id=model_id,
        origin=model.origin,
        signer=model.signer,
        learner=".".join(map(str, model.head.version)),
        size_bytes=len(model.model),
        policy_taken=plan.takes_policy,
    )


def _read_settings(path: Path | None) -> tuple[dict[str, object], dict[str, str]]:
    """Read a configuration. Returns new values by setting, and the members that are left out, by why."""
    if path is None:
        return {}, {}
    with _named(path):
        body = document(path)
        changes = read_settings(body)
    names = {setting.wire: name for name, setting in SETTINGS.items()}
    left_out = {}
    for member, value in msgspec.json.decode(body, type=dict[str, object]).items():
        name = names.get(member)
        if name is None:
            left_out[member] = _UNKNOWN
        elif name in _LEFT_OUT and value:
            left_out[member] = _LEFT_OUT[name]
    return {name: value for name, value in changes.items() if name not in _LEFT_OUT}, left_out


def _read_policy(path: Path | None) -> PolicyArguments | None:
    if path is None:
        return None
    with _named(path):
        policy = parse_policy(read_policy(document(path)))
        try_policy(policy.learner_text)
        return policy


def _steps(changes: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Part the changes into those that may be made together: the mode goes by itself."""
    mode = {name: value for name, value in changes.items() if name == "learning_mode"}
    others = {name: value for name, value in changes.items() if name not in mode}
    yield from (step for step in (others, mode) if step)


def _whose(inventory: Inventory, there: Loop | None) -> str:
    """Name the policy that the loop would have had."""
    if inventory.policy is not None:
        return f"{inventory.policy.name} has"
    return "the original's default policy" if there is None else "the loop's policy"


@contextlib.contextmanager
def _named(path: Path | None) -> Iterator[None]:
    """Name the file that a refusal is about."""
    try:
        yield
    except CallerError as error:
        raise type(error)(f"{path}: {error.message}", code=error.code, target=error.target) from error
