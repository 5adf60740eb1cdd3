"""Runs automatic optimizations: asks the log, applies what is better beyond doubt, and undoes what turns out worse.

A run is a record that goes from state to state; each step writes down what it is about to do before it does it, so
that whoever goes on after a kill neither does a thing twice nor takes its own change for somebody else's.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from rankward.errors import CallerError, InvalidRequest, NotFound, Overloaded
from rankward.evaluation.asking import Question, changes
from rankward.optimization.rules import goes_on_from, in_force, objection, obstacle, window, with_report
from rankward.optimization.watch import WATCH_US, Verdict, WatchState
from rankward.records import ModelId, SettingsChange, TimeUs
from rankward.settings import Limits, as_datetime, change
from rankward.store.audit import Actor
from rankward.store.changes import change_loop
from rankward.store.optimizations import (
    Optimization,
    OptimizationState,
    Replaced,
    Step,
    Watched,
)
from rankward.store.ports import Epoch, EventLog, JoinedLog, Loop, ModelVersion
from rankward.store.studies import Study, StudyKind, StudyState
from rankward.studies import StudyService
from rankward.training.fold import Checkpoint
from rankward.vw.arguments import parse_policy
from rankward.vw.trial import try_policy
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_MICROSECOND = timedelta(microseconds=1)


class WatchEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch has come to in the end."""

    verdict: Verdict
    watched: Watched | None


_watch = msgspec.msgpack.Decoder(WatchState)
_end = msgspec.msgpack.Decoder(WatchEnd)


def _end_of(run: Optimization) -> str:
    return f"{run.optimization_id}-end"


class OptimizationService:
    """Optimizations of any loop. Any process may begin and read them; the worker alone makes them go on."""

    def __init__(
        self, home: Home, *, log: Callable[[str], EventLog], joined: Callable[[str], JoinedLog], limits: Limits
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            limits: of what may be asked of a log.
        """
        self._catalog = home.catalog
        self._optimizations = home.optimizations
        self._models = home.models
        self._watches = home.watches
        self._clock = home.clock
        self._log = log
        self._joined = joined
        self._limits = limits
        self._studies = StudyService(
            home.catalog,
            home.studies,
            models=home.models,
            study_models=home.study_models,
            log=log,
            joined=joined,
            clock=home.clock,
            limits=limits,
            trail=home.trail,
            archived=home.archives.archived,
        )
        self._trail = home.trail

    def by(self, actor: Actor) -> OptimizationService:
        """Return the same, for runs that somebody asks for."""
        theirs = copy.copy(self)
        theirs._studies = self._studies.by(actor)
        return theirs

    def listed(self, loop: Loop) -> Sequence[Optimization]:
        """List a loop's runs, newest first."""
        return self._optimizations.listed(loop.loop_id)

    def find(self, loop: Loop, optimization_id: str) -> Optimization:
        """Return a run.

        Raises:
            NotFound: there is none.
        """
        found = self._optimizations.find(loop.loop_id, optimization_id)
        if found is None:
            raise NotFound(f"there is no optimization {optimization_id[:80]!r}: the list names those there are")
        return found

    # Beginning

    async def begin(self, loop: Loop, *, due_us: TimeUs | None, dry_run: bool = False) -> Optimization:
        """Put a search of a loop's log into the queue, on record as a run.

        Args:
            loop: whose log is searched.
            due_us: for which time of the schedule; None: somebody asks for it.
            dry_run: whether to leave what is found where it is.

        Returns:
            The run. One of the schedule that cannot be begun is on record as skipped, with the reason.

        Raises:
            InvalidRequest: what somebody asks for cannot be begun.
            Conflict: another run of the loop has not finished.
        """
        why = obstacle(loop.settings, loop.model_id)
        if why is None and self.builds(loop):
            why = "a new model is being built: wait until it serves"
        start_us, end_us = window(loop.settings, self._clock())
        run = Optimization(
            optimization_id=secrets.token_hex(6),
            loop_id=loop.loop_id,
            created_us=self._clock(),
            due_us=due_us,
            dry_run=dry_run,
            start_us=max(start_us, await self._first_us(loop)),
            end_us=end_us,
        )
        if why is None:
            run = msgspec.structs.replace(run, study_id=f"auto-{run.optimization_id}")
            begun = self._stepped(run, "begun: " + ("by hand" if due_us is None else "by its schedule"))
            self._optimizations.add(begun)
            try:
                asked = await self._ask(loop, begun)
                # What somebody begins is in the worker's hands by now: only that writes over it.
                return begun if due_us is None or not asked else self._asked(begun)
            except InvalidRequest as error:
                skipped = self._go(begun, OptimizationState.SKIPPED, error.message)
                if due_us is None:
                    raise
                return skipped
        if due_us is None:
            raise InvalidRequest(f"loop {loop.name} cannot be optimized: {why}")
        skipped = self._stepped(run, f"skipped: {why}")
        skipped = msgspec.structs.replace(skipped, state=OptimizationState.SKIPPED, why=why, ended_us=self._clock())
        self._optimizations.add(skipped)
        return skipped

    def builds(self, loop: Loop) -> bool:
        """Whether a loop is on its way to another model: what serves it then is not what its settings say."""
        return any(epoch.state == "building" for epoch in self._catalog.epochs(loop.loop_id))

    async def _first_us(self, loop: Loop) -> TimeUs:
        """Tell from when on the log holds no more decisions than may be evaluated at once."""
        joined = self._joined(loop.loop_id)
        begin, end = await joined.extent()
        if end - begin <= self._limits.evaluation_events:
            return 0
        entries = await joined.read(end - self._limits.evaluation_events, limit=1)
        return entries[0][1].due_us - loop.settings.reward_wait // _MICROSECOND if entries else 0

    async def _ask(self, loop: Loop, run: Optimization) -> bool:
        """Ask for a run's evaluation. Returns whether it is in the queue; where there was no room, it is asked again.

        Whoever begins a run asks, and so does the worker if it sees the run before the evaluation: one of them finds
        that the other has asked.
        """
        question = Question(
            name=f"automatic optimization {run.optimization_id}",
            start_us=run.start_us,
            end_us=run.end_us,
            searches=True,
        )
        try:
            await self._studies.ask(loop, StudyKind.EVALUATION, question, study_id=run.study_id, automatic=True)
        except Overloaded:
            return False
        except InvalidRequest:
            if self._study_of(loop, run) is None:
                raise
        return True

    def _asked(self, run: Optimization) -> Optimization:
        """Note that a run's evaluation is in the queue."""
        asked = msgspec.structs.replace(run, asked=True)
        self._optimizations.write(asked)
        return asked

    def _study_of(self, loop: Loop, run: Optimization) -> Study | None:
        """Return a run's evaluation. None: there is none yet, or it was deleted."""
        try:
            return self._studies.find(loop, StudyKind.EVALUATION, run.study_id)
        except NotFound:
            return None

    # Going on

    async def go_on(self, loop: Loop, run: Optimization) -> Optimization:
        """Do the next step of a run, if it is time for it. The watch itself is kept by a process of its own.

        Args:
            loop: whose run it is.
            run: one that has not finished.

        Returns:
            The run as it is then.
        """
        match run.state:
            case OptimizationState.SEARCHING:
                return await self._searched(loop, run)
            case OptimizationState.APPLYING:
                return await self._apply(loop, run)
            case OptimizationState.WATCHING:
                return await self._watched(loop, run)
            case OptimizationState.RETURNING:
                return await self._return(loop, run)
        return run

    async def _searched(self, loop: Loop, run: Optimization) -> Optimization:
        """Decide on what was found, once it was."""
        study = self._study_of(loop, run)
        if study is None and run.asked:
            return self._go(run, OptimizationState.FAILED, "its evaluation was deleted")
        if study is None:
            try:
                return self._asked(run) if await self._ask(loop, run) else run
            except InvalidRequest as error:
                return self._go(run, OptimizationState.SKIPPED, error.message)
        if not run.asked:
            run = self._asked(run)
        if not study.state.finished or self.builds(loop):
            return run
        findings = await asyncio.to_thread(self._studies.findings, study)
        if study.state is not StudyState.SUCCEEDED or findings is None or findings.report is None:
            return self._go(run, OptimizationState.FAILED, study.description or "its evaluation found nothing")
        found = with_report(run, findings.report)
        if found.state is not OptimizationState.APPLYING:
            if not run.dry_run:
                self._studies.conclude(study.key)
            return self._go(found, found.state, found.why)
        why = objection(found, study.settings, loop)
        if why is None:
            why = await self._trial(found)
        if why is not None:
            self._studies.conclude(study.key)
            return self._go(found, OptimizationState.REFUSED, f"{found.why} It was not applied: {why}.")
        assert loop.model_id is not None, "without a model there would have been an objection"
        replaced = Replaced(
            settings=loop.settings,
            model_id=loop.model_id,
            epoch=next(epoch for epoch in self._catalog.epochs(loop.loop_id) if epoch.state == "serving"),
            forgotten_before=loop.forgotten_before,
        )
        found = msgspec.structs.replace(found, replaced=replaced, keeps_replaced=True)
        return await self._apply(loop, self._go(found, OptimizationState.APPLYING, found.why))

    async def _trial(self, run: Optimization) -> str | None:
        """Try a policy in a throw-away process. Returns what is wrong with it; None: nothing is."""
        try:
            await asyncio.to_thread(try_policy, parse_policy(run.policy).learner_text)
        except CallerError as error:
            return error.message
        return None

    async def _apply(self, loop: Loop, run: Optimization) -> Optimization:
        replaced = run.replaced
        assert replaced is not None, "it was written down before"
        written = loop
        if not goes_on_from(run.model_id, self._catalog.epochs(loop.loop_id)):
            if changed := changes(replaced.settings, loop.settings):
                why = f"the loop was changed meanwhile ({', '.join(changed)})"
                return self._not_applied(run, why)
            cause = f"automatic optimization {run.optimization_id} applied {run.promoted} of evaluation {run.study_id}"
            try:
                state = await self._watch_from(loop, replaced)
                await asyncio.to_thread(self._put, run, state)
                written = await self._studies.apply(
                    loop.name, run.study_id, run.promoted, model_id=run.model_id, cause=cause
                )
            except CallerError as error:
                return self._not_applied(run, error.message)
        study = self._studies.find(loop, StudyKind.EVALUATION, run.study_id)
        self._studies.conclude(study.key)
        for older in self._optimizations.listed(loop.loop_id):
            if older.keeps_replaced and older.optimization_id != run.optimization_id:
                self._optimizations.write(msgspec.structs.replace(older, keeps_replaced=False))
        applied = msgspec.structs.replace(run, applied=written.settings, applied_us=self._clock())
        return self._go(applied, OptimizationState.WATCHING, run.why)

    def _not_applied(self, run: Optimization, why: str) -> Optimization:
        refused = msgspec.structs.replace(run, keeps_replaced=False)
        return self._ended(refused, OptimizationState.REFUSED, f"{run.why} It was not applied: {why}.")

    async def _watch_from(self, loop: Loop, replaced: Replaced) -> WatchState:
        """Say where the watch over what replaces a policy begins."""
        epoch, now_us = replaced.epoch, self._clock()
        version = self._newest(epoch, replaced.model_id)
        if version is not None:
            model = await asyncio.to_thread(self._models.get, loop.loop_id, version.model_id)
            offset, learned, learned_to_us = version.joined_offset, version.learned, version.learned_to_us
        elif epoch.base is not None and epoch.start is not None:
            model = await asyncio.to_thread(self._models.get, loop.loop_id, epoch.base)
            offset, learned, learned_to_us = epoch.start, 0, 0
        else:
            raise InvalidRequest("the model that serves is of another epoch than the one that learns")
        checkpoint = Checkpoint(joined_offset=offset, learned=learned, learned_to_us=learned_to_us, model=model)
        return WatchState(
            epoch=epoch,
            exploration=replaced.settings.exploration,
            checkpoint=checkpoint,
            from_us=now_us,
            until_us=now_us + WATCH_US,
            cursor=checkpoint.joined_offset,
        )

    def _newest(self, epoch: Epoch, serving: ModelId) -> ModelVersion | None:
        """Find the version of an epoch to go on from: the newest that resumes exactly, or the one that serves."""
        of_epoch = [each for each in self._catalog.versions(epoch.loop_id) if each.epoch_id == epoch.epoch_id]
        resumable = [version for version in of_epoch if version.resumable]
        if resumable:
            return max(resumable, key=lambda version: version.joined_offset)
        return next((version for version in of_epoch if version.model_id == serving), None)

    def _put(self, run: Optimization, state: WatchState) -> None:
        self._watches.put(run.loop_id, run.optimization_id, msgspec.msgpack.encode(state))

    # Watching

    def watch(self, run: Optimization) -> WatchState:
        """Return how far a run's watch has come.

        Raises:
            NotFound: it is lost.
        """
        return _watch.decode(self._watches.get(run.loop_id, run.optimization_id))

    def keep_watch(self, run: Optimization, state: WatchState) -> None:
        """Write down how far a run's watch has come; its end in a place of its own, which is quick to look at."""
        self._put(run, state)
        if state.verdict is not Verdict.UNDECIDED:
            end = msgspec.msgpack.encode(WatchEnd(verdict=state.verdict, watched=state.watched))
            self._watches.put(run.loop_id, _end_of(run), end)

    def forget_watch(self, run: Optimization) -> None:
        """Remove what a watch has come to. It need not be there."""
        self._watches.forget(run.loop_id, run.optimization_id)
        self._watches.forget(run.loop_id, _end_of(run))

    def give_up_watch(self, run: Optimization, why: str) -> Optimization:
        """End a watch without a verdict. What was applied stays."""
        return self._ended(run, OptimizationState.KEPT, why)

    async def _watched(self, loop: Loop, run: Optimization) -> Optimization:
        """End a watch if it has come to something, or is over."""
        if not in_force(run, loop, self._catalog.epochs(loop.loop_id)):
            return self._ended(run, OptimizationState.SUPERSEDED, "the loop was changed by somebody else")
        try:
            end = _end.decode(self._watches.get(run.loop_id, _end_of(run)))
        except NotFound:
            return run  # it goes on
        run, shown = msgspec.structs.replace(run, watched=end.watched), _shown(end.watched)
        match end.verdict:
            case Verdict.BETTER:
                why = f"it is better than the policy that it replaced, beyond doubt{shown}"
                return self._ended(run, OptimizationState.CONFIRMED, why)
            case Verdict.WORSE:
                why = f"it is worse than the policy that it replaced, beyond doubt{shown}"
                return await self._return(loop, self._go(run, OptimizationState.RETURNING, why))
            case Verdict.OVER:
                why = f"the watch is over, and has not told it from the policy that it replaced{shown}"
                return self._ended(run, OptimizationState.KEPT, why)
        return run

    def _ended(self, run: Optimization, state: OptimizationState, why: str) -> Optimization:
        ended = self._go(run, state, why)
        self.forget_watch(run)
        return ended

    # Returning

    async def _return(self, loop: Loop, run: Optimization) -> Optimization:
        """Give a loop back what it had, and what that has learned since."""
        epochs = self._catalog.epochs(loop.loop_id)
        if not goes_on_from(run.restored_model_id, epochs):
            if not in_force(run, loop, epochs):
                why = f"{run.why}, but the loop was changed by somebody else, and is left as it is"
                return self._ended(run, OptimizationState.SUPERSEDED, why)
            try:
                state = self.watch(run)
            except NotFound:
                return self._ended(run, OptimizationState.KEPT, "what the replaced policy has learned is lost")
            version = _version(run, state, now_us=self._clock())
            assert state.checkpoint.model is not None, "what served had learned something"
            await asyncio.to_thread(self._models.put, loop.loop_id, version.model_id, state.checkpoint.model)
            self._catalog.add_version(version)
            try:
                written = await change_loop(self._catalog, loop.name, lambda now: self._returning(now, run, state))
            except InvalidRequest as error:
                return self._ended(run, OptimizationState.SUPERSEDED, f"{run.why}, but {error.message}")
            cause = f"automatic optimization {run.optimization_id} was rolled back: {run.why}"
            record = SettingsChange(settings=msgspec.Raw(msgspec.json.encode(written.settings)), cause=cause)
            self._trail.note_settings("settings changed", loop.name, loop.settings, written.settings)
            self._trail.note(
                "optimization rolled back",
                loop=loop.name,
                detail=run.why,
                before={"model": loop.model_id or ""},
                after={"model": version.model_id},
            )
            await self._log(loop.loop_id).append([record])
        return self._ended(msgspec.structs.replace(run, keeps_replaced=False), OptimizationState.ROLLED_BACK, run.why)

    async def _returning(self, loop: Loop, run: Optimization, state: WatchState) -> Loop:
        if not in_force(run, loop, self._catalog.epochs(loop.loop_id)):
            raise InvalidRequest("the loop was changed by somebody else, and is left as it is")
        assert run.replaced is not None, "it was applied"
        old, now_us = run.replaced.settings, self._clock()
        wanted = {
            "policy": old.policy,
            "preset": old.preset,
            "exploration": old.exploration,
            "numbers": old.numbers,
        }
        settings = change(loop.settings, wanted, now=as_datetime(now_us))
        served = msgspec.structs.replace(loop, settings=settings, model_id=run.restored_model_id)
        reason = f"automatic optimization {run.optimization_id} was rolled back"
        epoch = msgspec.structs.replace(
            state.epoch,  # it goes on as if it had never been retired
            epoch_id=0,
            state="building",
            reason=reason,
            created_us=now_us,
            base=run.restored_model_id,
            start=state.checkpoint.joined_offset,
        )
        return self._catalog.update_loop(served, epoch=epoch, retire=True)

    # The record

    def _stepped(self, run: Optimization, what: str) -> Optimization:
        return msgspec.structs.replace(run, steps=(*run.steps, Step(self._clock(), what)))

    def _go(self, run: Optimization, state: OptimizationState, why: str) -> Optimization:
        """Bring a run to a state, on record."""
        gone = msgspec.structs.replace(
            self._stepped(run, f"{state}: {why}"),
            state=state,
            why=why,
            ended_us=self._clock() if state.finished else 0,
        )
        self._optimizations.write(gone)
        logger.info("optimization %s of loop %s: %s: %s", run.optimization_id, run.loop_id, state, why)
        return gone


def _version(run: Optimization, state: WatchState, *, now_us: TimeUs) -> ModelVersion:
    """Describe the replaced policy's model as a version."""
    model = state.checkpoint.model or b""
    return ModelVersion(
        model_id=run.restored_model_id,
        loop_id=run.loop_id,
        epoch_id=0,
        created_us=now_us,
        joined_offset=state.checkpoint.joined_offset,
        learned=state.checkpoint.learned,
        learned_to_us=state.checkpoint.learned_to_us,
        policy=state.epoch.policy,
        interactions=state.epoch.interactions,
        rate=state.epoch.rate,
        bins=state.epoch.bins,
        resumable=parse_policy(state.epoch.policy).resumes_exactly,
        size_bytes=len(model),
        digest=hashlib.sha256(model).hexdigest(),
    )


def _shown(watched: Watched | None) -> str:
    if watched is None or watched.difference is None:
        return ""
    return (
        f" (by {watched.difference:.4g} a decision, {watched.low:.4g} to {watched.high:.4g}, "
        f"over {watched.events:,} decisions)"
    )
