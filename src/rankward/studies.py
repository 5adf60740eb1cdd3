"""Asks a loop's log, and makes use of the answers: studies are queued, listed, read, deleted and applied.

The worker runs them, in a process of its own (`study_run`).
"""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import msgspec

from rankward.adoption import Learned, adopt
from rankward.auditing import Trail
from rankward.errors import CallerError, Conflict, InvalidRequest, NotFound
from rankward.evaluation.asking import ONLINE, Question, changes, check_question
from rankward.evaluation.findings import Findings, KeptModel
from rankward.joining.reader import first_due
from rankward.records import AnyInteraction, ModelId, TimeUs
from rankward.settings import Limits, LoopSettings
from rankward.store.audit import Actor
from rankward.store.ports import Catalog, EventLog, JoinedLog, Loop, ModelStore
from rankward.store.studies import Studies, Study, StudyKind, StudyState
from rankward.vw.arguments import parse_policy
from rankward.vw.presets import preset_of
from rankward.vw.trial import try_policy

_LOOK = 20_000  # joined events that are looked through for one within the span, before an evaluation is begun
_READ = 2_000
_MICROSECOND = timedelta(microseconds=1)
_NOT_FOUND = {StudyKind.EVALUATION: "EvaluationNotFound", StudyKind.IMPORTANCE: "FeatureImportanceNotFound"}
_TAKEN = {StudyKind.EVALUATION: "EvaluationAlreadyExists", StudyKind.IMPORTANCE: "FeatureImportanceAlreadyExists"}
_SAID = {StudyKind.EVALUATION: "evaluation", StudyKind.IMPORTANCE: "feature importance"}

_findings = msgspec.msgpack.Decoder(Findings)


class StudyService:
    """Studies of any loop. Any process may have one: the store keeps two changes from crossing."""

    def __init__(
        self,
        catalog: Catalog,
        studies: Studies,
        *,
        models: ModelStore,
        study_models: ModelStore,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        clock: Callable[[], TimeUs],
        limits: Limits,
        trail: Trail,
        archived: Callable[[str, TimeUs, TimeUs], Awaitable[int]],
    ) -> None:
        """Prepare.

        Args:
            catalog: of loops and versions.
            studies: their records.
            models: bytes of versions.
            study_models: bytes of what policies have learned in studies.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            clock: the time.
            limits: of what may be asked.
            trail: where changes are noted.
            archived: counts the events that only a loop's archive has, by loop id, from a time of decisions to another.
        """
        self._archived = archived
        self._catalog = catalog
        self._studies = studies
        self._models = models
        self._study_models = study_models
        self._log = log
        self._joined = joined
        self._clock = clock
        self._limits = limits
        self._trail = trail

    def by(self, actor: Actor) -> StudyService:
        """Return the same, for changes that somebody else makes."""
        theirs = copy.copy(self)
        theirs._trail = self._trail.by(actor)
        return theirs

    async def ask(
        self, loop: Loop, kind: StudyKind, question: Question, *, study_id: str, automatic: bool = False
    ) -> Study:
        """Put a question at the end of the queue.

        Args:
            loop: whose log is asked.
            kind: what is asked.
            question: as its sender put it.
            study_id: by which it will be known: 1 to 256 characters.
            automatic: whether an automatic optimization asks.

        Raises:
            InvalidRequest: it cannot be asked so, the id is in use, or the log has nothing or too much in the span.
            InvalidPolicy: a policy is malformed, not allowed, or breaks the learner.
            Overloaded: too many questions wait.
            StoreUnavailable: the span begins before the log does, and the archive does not answer.
        """
        policies = check_question(question, loop.settings)
        if self._studies.find(loop.loop_id, kind, study_id) is not None:
            raise _taken(kind, study_id)
        await self._check_log(loop, question)
        for policy in policies:
            await asyncio.to_thread(try_policy, policy.learner_text)
        study = Study(
            key=secrets.token_hex(16),
            kind=kind,
            loop_id=loop.loop_id,
            study_id=study_id,
            name=question.name,
            created_us=self._clock(),
            start_us=question.start_us,
            end_us=question.end_us,
            settings=loop.settings,
            forgotten_before=loop.forgotten_before,
            time_limit_s=self._limits.evaluation_hours * 3_600.0,
            policies=question.policies,
            searches=question.searches,
            automatic=automatic,
        )
        try:
            self._studies.add(study, waiting_max=self._limits.evaluations_waiting)
        except Conflict:
            raise _taken(kind, study_id) from None
        self._trail.note(f"{_SAID[kind]} asked", loop=loop.name, detail=study.name or study_id)
        return study

    async def _check_log(self, loop: Loop, question: Question) -> None:
        """Refuse a span in which there is nothing to learn from, or more than may be asked of."""
        joined = self._joined(loop.loop_id)
        begin = await first_due(joined, question.start_us)
        _, end = await joined.extent()
        beyond = await first_due(joined, question.end_us + loop.settings.reward_wait // _MICROSECOND)
        archived = await self._archived(loop.loop_id, question.start_us, question.end_us)
        if (count := archived + beyond - begin) > self._limits.evaluation_events:
            raise InvalidRequest(
                f"there are about {count:,} events between startTime and endTime, the bound is "
                f"{self._limits.evaluation_events:,}: take a shorter span",
                code="LogsSizeExceedAllowedLimit",
                target="startTime",
            )
        if archived:
            return
        position = begin
        while position < min(end, begin + _LOOK):
            entries = await joined.read(position, limit=_READ)
            if not entries or any(question.start_us <= entry.time_us < question.end_us for _, entry in entries):
                break
            position = entries[-1][0] + 1
        if position >= end and not await self._waits(loop, question):
            raise InvalidRequest(
                "there is no decision between startTime and endTime: choose a span within the log, as GET "
                "logs/properties shows it",
                code="NoLogsExistInDateRange",
                target="startTime",
            )

    async def _waits(self, loop: Loop, question: Question) -> bool:
        """Tell whether a decision of the span is still waiting to be joined."""
        log, state = self._log(loop.loop_id), await self._joined(loop.loop_id).state()
        for start in {*state.lanes.values(), state.head}:
            for entry in await log.read(start, limit=_READ):
                if isinstance(entry.record, AnyInteraction) and question.start_us <= entry.time_us < question.end_us:
                    return True
        return False

    def conclude(self, key: str) -> None:
        """Write down that an automatic optimization has decided on what the study of a key found."""
        study = self._studies.by_key(key)
        if study is not None:  # it may have been deleted
            self._studies.write(msgspec.structs.replace(study, concluded=True))

    def listed(self, loop: Loop, kind: StudyKind) -> Sequence[Study]:
        """List the studies of one kind, oldest first."""
        return self._studies.listed(loop.loop_id, kind)

    def find(self, loop: Loop, kind: StudyKind, study_id: str) -> Study:
        """Return a study.

        Raises:
            NotFound: there is none.
        """
        found = self._studies.find(loop.loop_id, kind, study_id)
        if found is None:
            raise _not_found(kind, study_id)
        return found

    def findings(self, study: Study) -> Findings | None:
        """Return what was found. None: nothing, or nothing yet."""
        if study.state is not StudyState.SUCCEEDED:
            return None
        found = self._studies.found(study.key)
        return None if found is None else _findings.decode(found)

    def delete(self, loop: Loop, kind: StudyKind, study_id: str) -> None:
        """Remove a study with what was found. One that waits or runs is cancelled.

        Raises:
            NotFound: there is none.
        """
        study = self.find(loop, kind, study_id)
        findings = self.findings(study)
        if self._studies.delete(loop.loop_id, kind, study_id) is None:
            raise _not_found(kind, study_id)
        self._trail.note(f"{_SAID[kind]} deleted", loop=loop.name, detail=study.name or study_id)
        for kept in findings.models if findings is not None else ():
            self._study_models.forget(loop.loop_id, kept.model_id)

    async def apply(
        self,
        name: str,
        evaluation_id: str,
        policy_name: str,
        *,
        model_id: ModelId | None = None,
        cause: str | None = None,
    ) -> Loop:
        """Make a policy that was evaluated, and what it had learned, a loop's own. Learning goes on from there.

        Args:
            name: of the loop.
            evaluation_id: of an evaluation of its log.
            policy_name: of one of its policies that learn; `online` stands for the loop's own, learned anew.
            model_id: of the version that it will be; None: one is made up.
            cause: what the log says of the change; None: that the policy was applied.

        Raises:
            NotFound: there is no such evaluation or policy, or its model is gone.
            Conflict: the evaluation is not finished.
            CallerError: the loop was changed since the evaluation was asked for.
        """
        loop = self._catalog.loop(name)
        study = self.find(loop, StudyKind.EVALUATION, evaluation_id)
        if not study.state.finished:
            raise Conflict(f"evaluation {evaluation_id!r} is not finished: wait for it")
        findings = self.findings(study)
        kept = _kept(study, findings, policy_name)
        try:
            model = await asyncio.to_thread(self._study_models.get, loop.loop_id, kept.model_id)
        except NotFound:
            raise _model_not_found(study, policy_name) from None
        preset = study.settings.preset if kept.policy_name == ONLINE else preset_of(parse_policy(kept.policy))

        def note(settings: LoopSettings) -> None:
            # Without the word of it, a second try would take our own change for somebody else's.
            if settings not in study.applied:
                self._studies.write(msgspec.structs.replace(study, applied=(*study.applied, settings)))

        return await adopt(
            Learned(
                policy=kept.policy,
                preset=preset,
                exploration=kept.exploration,
                interactions=kept.interactions,
                rate=kept.rate,
                bins=kept.bins,
                learned=kept.learned,
                learned_to_us=kept.learned_to_us,
                joined_end=kept.joined_end,
                model=model,
            ),
            loop_name=name,
            model_id=model_id or f"evaluated-{secrets.token_hex(8)}",
            reason=f"applied {kept.policy_name} from an evaluation",
            cause=cause or f"applied {kept.policy_name} of evaluation {study.study_id}",
            check=lambda loop: _check_unchanged(study, loop),
            noted=note,
            trail=self._trail,
            detail=f"{policy_name}, of the evaluation {study.name or evaluation_id}",
            catalog=self._catalog,
            models=self._models,
            log=self._log,
            clock=self._clock,
        )


def _taken(kind: StudyKind, study_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"there is a {_SAID[kind]} {study_id[:80]!r} already: choose another id, or delete that one first",
        code=_TAKEN[kind],
    )


def _not_found(kind: StudyKind, study_id: str) -> NotFound:
    return NotFound(
        f"there is no {_SAID[kind]} {study_id[:80]!r}: the list names those there are", code=_NOT_FOUND[kind]
    )


def _model_not_found(study: Study, policy_name: str) -> NotFound:
    return NotFound(
        f"evaluation {study.study_id!r} keeps no model of {policy_name!r}: evaluate it again",
        code="EvaluationModelNotFound",
    )


def _kept(study: Study, findings: Findings | None, policy_name: str) -> KeptModel:
    """Find what a policy had learned."""
    if findings is not None:
        for kept in findings.models:
            if kept.policy_name.lower() == policy_name.lower():
                return kept
    asked = {ONLINE, *(policy.name.lower() for policy in study.policies)}
    if policy_name.lower() in asked:
        raise _model_not_found(study, policy_name)
    raise NotFound(
        f"evaluation {study.study_id!r} has no policy {policy_name[:80]!r} that learns: name {ONLINE!r}, one that was "
        "asked for, or one that was found",
        code="LearningSettingsNotFound",
    )


def _check_unchanged(study: Study, loop: Loop) -> None:
    """Refuse to apply to a loop that is not the one that was evaluated any more."""
    found = [changes(known, loop.settings) for known in (*study.applied, study.settings)]
    changed = [] if [] in found else found[-1]
    if loop.forgotten_before != study.forgotten_before:
        changed.append("model (it was deleted)")
    if changed:
        raise CallerError(
            f"the loop was changed since the evaluation was asked for ({', '.join(changed)}), so what it found does "
            "not hold for it: evaluate again",
            code="OperationNotAllowed",
        )
