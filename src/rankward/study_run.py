"""Runs studies: one at a time for each worker, each in a process of its own, at low priority."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import msgspec

from rankward.errors import RankwardError, ServersAway
from rankward.evaluation.asking import ONLINE, candidates, own_candidate, setup_of
from rankward.evaluation.contender import Candidate, Trained
from rankward.evaluation.findings import Findings, KeptModel
from rankward.evaluation.measure import measure_features
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import Report
from rankward.evaluation.service import (
    PROCESSES,
    CancelledError,
    EvaluationFailedError,
    Play,
    Player,
    Progress,
    Source,
    evaluate,
    search,
)
from rankward.records import Offset, TimeUs
from rankward.sharing import SHARES, forget_shares, note_of, offer
from rankward.store.studies import Study, StudyKind, StudyState
from rankward.study_log import LoopLog
from rankward.wiring import Home

logger = logging.getLogger(__name__)

NOTE = "study"
"""The name of a running study's note on the board."""
ATTEMPTS_MAX = 3
_EVALUATED_FEATURES = 10  # left out, and permuted, to group those of an evaluation of v1
_SCORED_FEATURES = 20  # the same to score them
_SEARCH_RUNS = 16  # about as many policies along the whole log does a search cost
_SEARCH_SHARE = 0.5  # of the time limit that a search may take
_FEATURE_SHARES = 4  # each learns the whole policy beside its features: more would not be worth it
_SHARES_AT_ONCE = 2  # that a worker plays
_AGAIN_US = 10_000_000
_LOOK_US = 1_000_000
_ASK_S = 0.5  # between two looks whether it was deleted

Spawn = Callable[[str], subprocess.Popen[bytes]]


class StudyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a study has come."""

    kind: StudyKind
    study_id: str
    done: float  # within [0, 1]
    rate_per_s: float  # events read
    remaining_s: float | None  # None: nobody can tell yet
    time_us: TimeUs  # of this status


class _Crew(TypedDict):
    """Arguments of what judges policies: how many shares they are dealt out in, and who plays them."""

    processes: int
    play: Play | None


class StudyRun:
    """One attempt at one study."""

    def __init__(self, home: Home, study: Study, stopped: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            home: the installation.
            study: one whose record says that it runs.
            stopped: asked now and then whether to let it be.
        """
        self._home = home
        self._study = study
        self._stopped = stopped
        self._begun_s = self._asked_s = time.monotonic()
        self._is_gone = False
        self._models: list[KeptModel] = []

    def run(self) -> None:
        """Run it to its end, and write down what was found or why nothing was."""
        study = self._study
        try:
            findings = self._found()
        except CancelledError:
            self._forget_models()
            if self._timed_out:
                self._finish(StudyState.TIMED_OUT, f"it took more than {study.time_limit_s / 3_600:.3g} hours")
        except ServersAway:
            raise  # it goes on from its checkpoint when they are back
        except (RankwardError, OSError) as error:
            self._forget_models()
            if not self._cancelled():  # its processes may have been stopped before it was
                logger.error("%s %s failed: %s", study.kind, study.study_id, error)
                self._finish(StudyState.FAILED, str(error))
        else:
            if not self._finish(StudyState.SUCCEEDED, _not_done(findings), findings):
                self._forget_models()
        left = self._home.studies.by_key(study.key)
        if left is None or left.state.finished:
            forget_shares(self._home, study)

    def _finish(self, state: StudyState, description: str, findings: Findings | None = None) -> bool:
        optimal = "" if findings is None or findings.report is None else findings.report.optimal
        done = msgspec.structs.replace(self._study, state=state, description=description, optimal=optimal)
        return self._home.studies.write(done, found=None if findings is None else msgspec.msgpack.encode(findings))

    def _forget_models(self) -> None:
        for kept in self._models:
            self._home.study_models.forget(self._study.loop_id, kept.model_id)

    @property
    def _timed_out(self) -> bool:
        return time.monotonic() - self._begun_s > self._study.time_limit_s

    def _cancelled(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._asked_s >= _ASK_S:
            self._asked_s = now_s
            self._is_gone = self._home.studies.by_key(self._study.key) is None
        return self._is_gone or self._stopped() or self._timed_out

    def _found(self) -> Findings:
        study = self._study
        source = self._source()
        is_evaluation = study.kind is StudyKind.EVALUATION
        setup = setup_of(study.settings)
        report: Report | None = None
        share = 0.0  # of all the work that judging the policies is
        if is_evaluation:
            runs = max(1, len(study.policies)) + study.searches * _SEARCH_RUNS
            share = 1.0 if study.automatic else runs / (runs + 1 + _EVALUATED_FEATURES)
            report = self._judged(source, setup, share)
        if study.automatic:  # nobody asked what its features are worth
            return Findings(report=report, models=tuple(self._models))
        found = measure_features(
            source,
            own_candidate(study.settings, keeps_model=is_evaluation),
            setup,
            features_max=_EVALUATED_FEATURES if is_evaluation else _SCORED_FEATURES,
            seed=int(study.key[:8], 16),
            progress=lambda state: self._tell(share + (1 - share) * state.read, state),
            cancelled=self._cancelled,
            keep=lambda trained: self._keep(msgspec.structs.replace(trained, name=ONLINE)),
            checkpoints=self._checkpoints,
            **self._crew(_FEATURE_SHARES),
        )
        return Findings(report=report, models=tuple(self._models), features=found.scores, facts=found.facts)

    def _judged(self, source: LoopLog, setup: Setup, share: float) -> Report:
        study = self._study
        asked = candidates(study.policies, study.settings)

        def progress(state: Progress) -> None:
            self._tell(share * state.read, state)

        if study.searches:
            report = search(
                source,
                asked,
                setup,
                own=own_candidate(study.settings, keeps_model=False),
                seed=int(study.key[:8], 16),
                budget_s=_SEARCH_SHARE * study.time_limit_s,
                progress=progress,
                cancelled=self._cancelled,
                keep=self._keep,
                checkpoints=self._checkpoints,
                **self._crew(SHARES),
            )
        else:
            report = evaluate(
                source,
                asked,
                setup,
                progress=progress,
                cancelled=self._cancelled,
                keep=self._keep,
                checkpoints=self._checkpoints,
                **self._crew(SHARES),
            )
        if not report.counts.judged and not report.counts.baseline_only:
            raise EvaluationFailedError(
                "no decision of the span can be judged yet: one counts when its reward wait is over, and if it was "
                "deferred, when it was activated"
            )
        return report

    def _crew(self, shares: int) -> _Crew:
        """Say who judges the policies: processes here, or, in a cluster, the workers that take their shares."""
        if self._home.broker is None:
            return {"processes": PROCESSES, "play": None}
        return {"processes": shares, "play": self._offered}

    def _offered(
        self,
        source: Source,
        share: Sequence[Candidate],
        setup: Setup,
        *,
        references: bool,
        checkpoints: Path | None,  # noqa: ARG002  # each worker has its own
    ) -> Player:
        return offer(self._home, self._study, source, share, setup, references=references, stopped=self._stopped)

    @property
    def _checkpoints(self) -> Path:
        """Where its processes keep how far they have come, so that the next attempt goes on from there."""
        return self._home.checkpoints(self._study.loop_id, self._study.key)

    def _source(self) -> LoopLog:
        """Take the log as it was at the first attempt: what was kept then is about that."""
        study = self._study

        async def span() -> tuple[Offset, Offset]:
            async with self._home.logs(study.loop_id) as (log, joined):
                whole = self._home.archives.whole_log(
                    study.loop_id, log, joined, since_us=study.start_us, until_us=study.end_us
                )
                return await whole.begin(), (await joined.extent())[1]

        if study.joined_end is None or study.joined_start is None:
            start, end = asyncio.run(span())
            settled = end if study.joined_end is None else study.joined_end
            study = self._study = msgspec.structs.replace(study, joined_start=start, joined_end=settled)
            self._home.studies.write(study)
        return LoopLog.of(self._home, study)

    def _keep(self, trained: Trained) -> None:
        model_id = f"{self._study.key}-{len(self._models)}"
        self._home.study_models.put(self._study.loop_id, model_id, trained.model)
        self._models.append(
            KeptModel(
                policy_name=trained.name,
                model_id=model_id,
                policy=trained.policy,
                exploration=trained.exploration,
                interactions=trained.interactions,
                rate=trained.rate,
                bins=trained.bins,
                learned=trained.learned,
                learned_to_us=trained.learned_to_us,
                joined_end=trained.joined_end,
                size_bytes=len(trained.model),
                digest=hashlib.sha256(trained.model).hexdigest(),
            )
        )

    def _tell(self, done: float, state: Progress) -> None:
        elapsed_s = time.monotonic() - self._begun_s
        status = StudyStatus(
            kind=self._study.kind,
            study_id=self._study.study_id,
            done=done,
            rate_per_s=state.rate_per_s,
            remaining_s=elapsed_s * (1 - done) / done if done > 0 else None,
            time_us=self._home.clock(),
        )
        self._home.board.post(self._study.loop_id, NOTE, msgspec.json.encode(status))


def _not_done(findings: Findings) -> str:
    """Say what was asked and not done. Empty: all was."""
    run = None if findings.report is None else findings.report.search
    return f"the search ended early: {run.stopped}" if run is not None and run.stopped else ""


class Colleagues(Protocol):
    """The other workers, who run studies, too."""

    @property
    def name(self) -> str:
        """Of the worker itself among them; empty: there are no others."""

    def is_elsewhere(self, holder: str) -> bool:
        """Whether another worker of this name lives."""


class StudyDesk:
    """The worker's part: begins the next study when the one before has ended, and sees to those whose process died."""

    def __init__(self, home: Home, spawn: Spawn, colleagues: Colleagues) -> None:
        """Prepare.

        Args:
            home: the installation.
            spawn: starts the process of a study, by key. Its standard input is a pipe whose end tells it to stop.
            colleagues: those who live are left what they run.
        """
        self._home = home
        self._spawn = spawn
        self._colleagues = colleagues
        self._running: dict[str, tuple[Study, subprocess.Popen[bytes]]] = {}  # by key
        self._looks = True  # whether there may be something new
        self._again_us = 0  # by the timer: when to try again what failed
        self._elsewhere = False  # whether another worker runs one
        self._look_again_us = 0  # then, by the timer: when to look again

    def look(self) -> None:
        """Something was changed: look for studies at the next turn."""
        self._looks = True

    def turn(self, *, busy: bool) -> None:
        """Do what there is to do.

        Args:
            busy: whether joining is behind: then no study is begun.
        """
        if self._home.timer() < self._again_us:
            return
        try:
            self._take_turn(busy=busy)
        except RankwardError as error:
            logger.error("studies: %s. They are tried again.", error)
            self._again_us, self._looks = self._home.timer() + _AGAIN_US, True

    def _take_turn(self, *, busy: bool) -> None:
        for study, process in list(self._running.values()):
            code = process.poll()
            if code is None:
                continue
            if process.stdin is not None:
                process.stdin.close()
            if code == os.EX_TEMPFAIL:
                self._put_back(study)
            del self._running[study.key]
            self._home.board.take_down(study.loop_id, _note_of(study))
            self._looks = True
        if self._elsewhere and self._home.timer() >= self._look_again_us:  # its worker may have died meanwhile
            self._looks = True
        if not self._looks or busy or not any(map(self._has_room, StudyKind)):
            return
        self._looks = self._elsewhere = False
        self._look_again_us = self._home.timer() + _LOOK_US
        unfinished = self._home.studies.unfinished()
        self._home.forget_checkpoints(but=[study.key for study in unfinished])
        for study in unfinished:
            if study.key in self._running or not self._has_room(study.kind):
                continue
            if study.state is StudyState.RUNNING and self._colleagues.is_elsewhere(study.holder):
                self._elsewhere = True
                continue
            if study.attempts - study.interrupted >= ATTEMPTS_MAX:
                self._give_up(study)
                continue
            begun = msgspec.structs.replace(
                study, state=StudyState.RUNNING, attempts=study.attempts + 1, holder=self._colleagues.name
            )
            if self._home.studies.begin(begun):
                self._running[begun.key] = (begun, self._spawn(begun.key))

    def _has_room(self, kind: StudyKind) -> bool:
        """Whether another of its kind may run here: one study, which in a cluster only deals out; and some shares."""
        shares = sum(study.kind is StudyKind.SHARE for study, _ in self._running.values())
        if kind is StudyKind.SHARE:
            return shares < _SHARES_AT_ONCE
        return len(self._running) == shares

    def _give_up(self, study: Study) -> None:
        why = f"its process died {ATTEMPTS_MAX} times: the service's log may say of what"
        logger.error("%s %s is given up: %s", study.kind, study.study_id, why)
        self._home.studies.write(msgspec.structs.replace(study, state=StudyState.FAILED, description=why))

    def stop(self) -> None:
        """Tell the running study to stop. It will be run again."""
        for _, process in self._running.values():
            if process.stdin is not None:
                process.stdin.close()

    def close(self, wait: Callable[[subprocess.Popen[bytes]], None]) -> None:
        """Wait for the running study to stop.

        Args:
            wait: for a process, as long as is to be waited.
        """
        for study, process in self._running.values():
            wait(process)
            self._put_back(study)
            self._home.board.take_down(study.loop_id, _note_of(study))
        self._running.clear()

    def _put_back(self, study: Study) -> None:
        """Let a study wait again that was stopped on purpose, or left alone by the servers: no attempt of its own."""
        left = self._home.studies.by_key(study.key)
        if left is not None and not left.state.finished:
            waits = msgspec.structs.replace(left, state=StudyState.WAITING, interrupted=left.interrupted + 1)
            self._home.studies.write(waits)


def _note_of(study: Study) -> str:
    return note_of(study) if study.kind is StudyKind.SHARE else NOTE
