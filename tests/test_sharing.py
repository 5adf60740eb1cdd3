"""Shares of a study: any worker judges some of its policies, and what one has found is never lost with another."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from rankward.evaluation.asking import candidates, setup_of
from rankward.evaluation.report import Report
from rankward.evaluation.service import CancelledError, EvaluationFailedError, Prefix, evaluate
from rankward.loops import playground_settings
from rankward.records import Observation
from rankward.sharing import ShareRun, forget_shares, offer
from rankward.store.studies import AskedPolicy, Study, StudyKind, StudyState
from rankward.study_log import LoopLog
from rankward.study_run import ATTEMPTS_MAX, StudyDesk
from rankward.wiring import Home
from tests.service import eventually
from tests.store.test_studies import a_study
from tests.test_backup import append, decision, join
from tests.test_study_run import DIES, Processes

pytestmark = pytest.mark.slow

POLICIES = tuple(AskedPolicy(f"p{number}", f"--cb_explore_adf --epsilon 0.{number}") for number in range(1, 5))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An installation without a worker."""
    made = Home(tmp_path)
    yield made
    made.close()


def asked(home: Home) -> Study:
    """A study of four policies that has just been begun, over a log of a few events."""
    loop = home.loops.create("playground", playground_settings())
    append(home, [decision(f"e{number}") for number in range(60)])
    append(home, [Observation(event_id=f"e{number}", value=number % 2) for number in range(60)])
    join(home, loop)
    study = a_study(
        loop_id=loop.loop_id,
        state=StudyState.RUNNING,
        attempts=1,
        start_us=0,
        end_us=1 << 60,
        joined_start=0,
        joined_end=60,
        policies=POLICIES,
    )
    home.studies.add(study, waiting_max=10)
    return study


def shares_of(home: Home, study: Study) -> list[Study]:
    """The shares of a study, as they are now."""
    return [each for each in home.studies.listed(study.loop_id, StudyKind.SHARE) if each.share_of == study.key]


class Judging:
    """A study that deals its policies out, in a thread of its own."""

    def __init__(self, home: Home, study: Study, *, until: int | None = None) -> None:
        self.report: Report | None = None
        self.failure: Exception | None = None
        self.cancelled = threading.Event()
        self.stopped = threading.Event()
        log = LoopLog.of(home, study)

        def play(*arguments: object, references: bool, checkpoints: object) -> object:
            return offer(home, study, *arguments, references=references, stopped=self.stopped.is_set)  # type: ignore[arg-type]

        def judge() -> None:
            try:
                self.report = evaluate(
                    log if until is None else Prefix(log, until, 1),
                    candidates(study.policies, study.settings),
                    setup_of(study.settings),
                    processes=2,
                    cancelled=lambda: self.cancelled.is_set() or self.stopped.is_set(),
                    play=play,  # type: ignore[arg-type]
                )
            except (CancelledError, EvaluationFailedError) as error:
                self.failure = error

        self._thread = threading.Thread(target=judge)
        self._thread.start()

    def ended(self) -> Judging:
        """Wait for its end."""
        self._thread.join()
        return self


def take(home: Home, share: Study) -> None:
    """Run a share, as the process of a worker does."""
    begun = msgspec.structs.replace(share, state=StudyState.RUNNING, attempts=share.attempts + 1)
    assert home.studies.begin(begun)
    ShareRun(home, begun, lambda: False).run()


def test_what_is_found_in_shares_is_what_is_found_at_once(home: Home) -> None:
    """And nothing of them is left when the study is over."""
    study = asked(home)
    own = candidates(study.policies, study.settings)
    expected = evaluate(LoopLog.of(home, study), own, setup_of(study.settings), processes=2)
    judging = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    for share in shares_of(home, study):
        take(home, share)

    assert judging.ended().report == expected
    kept = home.folder.loops / study.loop_id / "studies"
    assert len(list(kept.iterdir())) == len(POLICIES)
    forget_shares(home, study)
    assert (shares_of(home, study), list(kept.iterdir())) == ([], [])


def test_whoever_goes_on_with_a_study_finds_the_shares_that_are_done(home: Home) -> None:
    """A worker's death costs only what it was at."""
    study = asked(home)
    first = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    done, other = shares_of(home, study)
    take(home, done)
    first.stopped.set()
    first.ended()
    second = Judging(home, study)
    take(home, other)

    assert second.ended().report is not None
    assert [share.attempts for share in shares_of(home, study)] == [1, 1]


def test_a_share_that_nobody_waits_for_any_more_is_withdrawn(home: Home) -> None:
    """A search that is out of time goes on without the rung that it was at."""
    study = asked(home)
    judging = Judging(home, study, until=1 << 60)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    judging.cancelled.set()

    assert isinstance(judging.ended().failure, CancelledError)
    assert shares_of(home, study) == []


def test_a_share_of_a_study_that_is_gone_removes_itself(home: Home) -> None:
    """Nobody else may be there to do it."""
    study = asked(home)
    judging = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    judging.stopped.set()
    judging.ended()
    home.studies.delete(study.loop_id, study.kind, study.study_id)
    share, other = shares_of(home, study)
    begun = msgspec.structs.replace(share, state=StudyState.RUNNING, attempts=1, joined_end=61)  # it has to wait
    assert home.studies.begin(begun)
    ShareRun(home, begun, lambda: False).run()

    assert shares_of(home, study) == [other]


def test_a_share_of_what_is_archived_is_not_judged_without_the_archive(home: Home, tmp_path: Path) -> None:
    """A node that was given none would judge by less than the others do, and nobody could tell."""
    home.archives.settle(f"file://{tmp_path}/elsewhere")
    study = asked(home)
    judging = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    judging.stopped.set()
    judging.ended()
    home.archives.settle(None)
    share, _ = shares_of(home, study)
    take(home, share)

    ended = home.studies.by_key(share.key)
    assert ended is not None
    assert ended.state is StudyState.FAILED
    assert "was given none" in ended.description


def test_a_share_that_is_given_up_fails_its_study(home: Home) -> None:
    """With the reason, rather than letting it wait for ever."""
    study = asked(home)
    judging = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    processes = Processes(DIES)
    desk = StudyDesk(home, processes.spawn, Colleagues("b", living={"a"}))
    home.studies.write(msgspec.structs.replace(study, holder="a"))

    def given_up() -> bool:
        desk.turn(busy=False)
        for process in processes.all:
            process.wait()
        desk.look()
        return judging.failure is not None

    eventually(given_up, "it is given up")
    processes.end()
    assert f"died {ATTEMPTS_MAX} times" in str(judging.ended().failure)


class Colleagues:
    """Workers by name, of whom some live."""

    def __init__(self, name: str, *, living: set[str]) -> None:
        self.name = name
        self.living = living

    def is_elsewhere(self, holder: str) -> bool:
        """See `study_run.Colleagues`."""
        return holder != self.name and holder in self.living


def test_workers_share_a_study_and_take_over_what_a_dead_one_had(home: Home) -> None:
    """Each runs some at a time, beside the one that deals out."""
    study = asked(home)
    judging = Judging(home, study)
    eventually(lambda: len(shares_of(home, study)) == 2, "both are offered")
    dead = Processes()
    StudyDesk(home, dead.spawn, Colleagues("a", living={"b"})).turn(busy=False)
    assert dead.begun == [study.key, *(share.key for share in shares_of(home, study))]
    dead.end()

    colleagues = Colleagues("b", living={"a"})
    spawn = partial(spawned, home)
    desk = StudyDesk(home, spawn, colleagues)
    desk.turn(busy=False)
    assert {share.holder for share in shares_of(home, study)} == {"a"}, "it is thought to live"
    colleagues.living.clear()
    home.studies.write(msgspec.structs.replace(study, state=StudyState.RUNNING, attempts=2, holder="c"))
    colleagues.living.add("c")

    def is_done() -> bool:
        desk.look()
        desk.turn(busy=False)
        return judging.report is not None

    eventually(is_done, "the other has judged them")
    assert judging.ended().report is not None
    assert {share.holder for share in shares_of(home, study)} == {"b"}
    desk.stop()
    desk.close(assert_ended)


def spawned(home: Home, key: str) -> subprocess.Popen[bytes]:
    """Start the process of a share, as the worker does."""
    command = [sys.executable, "-m", "rankward.roles", "study", str(home.folder.root), key]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def assert_ended(process: subprocess.Popen[bytes]) -> None:
    """Make sure that a process came to a good end."""
    assert process.wait() == 0
