"""Studies are run one at a time, and one whose process dies is run again, a few times."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.cluster.servers import running_servers
from rankward.errors import ServersAway
from rankward.evaluation.findings import Findings
from rankward.loops import playground_settings
from rankward.store.nats.broker import BrokerOptions, write_options
from rankward.store.studies import StudyState
from rankward.study_run import ATTEMPTS_MAX, StudyDesk, StudyRun
from rankward.wiring import Home
from rankward.worker import LeadsAll
from tests.service import eventually
from tests.store.test_studies import a_study
from tests.test_backup import append, decision, join

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An installation without a worker."""
    made = Home(tmp_path)
    yield made
    made.close()


def test_what_is_cancelled_leaves_nothing(home: Home) -> None:
    """Deleted in the middle, it must not leave models behind that nobody can find; stopped, it makes them again."""
    loop = home.loops.create("playground", playground_settings())
    append(home, [decision(f"e{number}") for number in range(30)])
    join(home, loop)
    study = a_study(loop_id=loop.loop_id, state=StudyState.RUNNING, attempts=1, start_us=0, end_us=1 << 60)
    home.studies.add(study, waiting_max=10)
    kept = home.folder.loops / loop.loop_id / "studies"

    StudyRun(home, study, lambda: any(kept.glob("*.vw"))).run()

    assert kept.exists(), "it was stopped when the first model was kept"
    assert list(kept.iterdir()) == []
    assert home.studies.by_key(study.key) == msgspec.structs.replace(study, joined_start=0, joined_end=30)


def test_a_study_runs_to_its_end(home: Home) -> None:
    """In whatever process it is: it writes its findings, and keeps what was learned."""
    loop = home.loops.create("playground", playground_settings())
    append(home, [decision(f"e{number}") for number in range(30)])
    join(home, loop)
    study = a_study(loop_id=loop.loop_id, state=StudyState.RUNNING, attempts=1, start_us=0, end_us=1 << 60)
    home.studies.add(study, waiting_max=10)

    StudyRun(home, study, lambda: False).run()

    done = home.studies.by_key(study.key)
    assert done is not None
    assert (done.state, done.description) == (StudyState.SUCCEEDED, "")
    findings = msgspec.msgpack.decode(home.studies.found(study.key) or b"", type=Findings)
    assert [kept.policy_name for kept in findings.models] == ["mine", "online"]
    assert all(home.study_models.get(loop.loop_id, kept.model_id) for kept in findings.models)


def test_a_study_of_nothing_fails_with_a_reason(home: Home) -> None:
    """Zeros would be taken for a finding."""
    loop = home.loops.create("playground", playground_settings())
    study = a_study(loop_id=loop.loop_id, state=StudyState.RUNNING, attempts=1)
    home.studies.add(study, waiting_max=10)

    StudyRun(home, study, lambda: False).run()

    failed = home.studies.by_key(study.key)
    assert failed is not None
    assert failed.state is StudyState.FAILED
    assert "no decision of the span" in failed.description


def test_a_study_that_takes_too_long_is_ended(home: Home) -> None:
    """So that the next one has its turn."""
    loop = home.loops.create("playground", playground_settings())
    study = a_study(loop_id=loop.loop_id, state=StudyState.RUNNING, attempts=1, time_limit_s=0.0)
    home.studies.add(study, waiting_max=10)

    StudyRun(home, study, lambda: False).run()

    ended = home.studies.by_key(study.key)
    assert ended is not None
    assert ended.state is StudyState.TIMED_OUT
    assert "more than 0 hours" in ended.description


WAITS, DIES, IS_LEFT_ALONE = (
    "import sys; sys.stdin.read()",
    "import os; os.abort()",
    "import os, sys; sys.exit(os.EX_TEMPFAIL)",
)


class Processes:
    """Real processes in place of those of studies: each waits until its standard input ends, or does as told."""

    def __init__(self, code: str = WAITS) -> None:
        self._code = code
        self.begun: list[str] = []
        self.all: list[subprocess.Popen[bytes]] = []

    def spawn(self, key: str) -> subprocess.Popen[bytes]:
        """Start one."""
        self.begun.append(key)
        self.all.append(subprocess.Popen([sys.executable, "-c", self._code], stdin=subprocess.PIPE))
        return self.all[-1]

    def end(self) -> None:
        """End all that are left."""
        for process in self.all:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def assert_ended(code: int) -> None:
    """Make sure that a process came to a good end."""
    assert code == 0


def test_one_runs_at_a_time_and_is_put_back_when_the_worker_stops(home: Home) -> None:
    """Being stopped on purpose is no failed attempt."""
    processes = Processes()
    desk = StudyDesk(home, processes.spawn, LeadsAll())
    first, second = a_study(1), a_study(2)
    for study in (first, second):
        home.studies.add(study, waiting_max=10)

    desk.turn(busy=True)
    assert processes.begun == [], "joining comes first"
    desk.turn(busy=False)
    desk.turn(busy=False)
    assert processes.begun == [first.key]
    running = home.studies.by_key(first.key)
    assert running is not None
    assert (running.state, running.attempts) == (StudyState.RUNNING, 1)
    desk.stop()
    desk.close(lambda process: assert_ended(process.wait()))

    waiting = home.studies.by_key(first.key)
    assert waiting is not None
    assert (waiting.state, waiting.attempts - waiting.interrupted) == (StudyState.WAITING, 0)


class Colleagues:
    """Another worker, who lives or not."""

    name = "me"

    def __init__(self) -> None:
        self.living = {"other"}

    def is_elsewhere(self, holder: str) -> bool:
        """See `study_run.Colleagues`."""
        return holder in self.living


def test_what_another_worker_runs_is_begun_again_when_that_worker_is_dead(home: Home) -> None:
    """And not before: two would run it, and one of them for nothing."""
    processes, colleagues = Processes(), Colleagues()
    now_us = 1
    home.timer = lambda: now_us
    desk = StudyDesk(home, processes.spawn, colleagues)
    home.studies.add(a_study(1, state=StudyState.RUNNING, attempts=1, holder="other"), waiting_max=10)
    desk.turn(busy=False)
    assert processes.begun == []

    colleagues.living.clear()
    now_us += 2_000_000
    desk.turn(busy=False)
    [begun] = home.studies.unfinished()
    assert processes.begun == [begun.key]
    assert (begun.holder, begun.attempts) == ("me", 2)
    desk.stop()
    desk.close(lambda process: assert_ended(process.wait()))


def test_one_that_kills_its_process_is_given_up(home: Home) -> None:
    """After a few attempts, with a reason; the next one has its turn."""
    processes = Processes(DIES)
    desk = StudyDesk(home, processes.spawn, LeadsAll())
    deadly = a_study(1)
    home.studies.add(deadly, waiting_max=10)
    for _ in range(ATTEMPTS_MAX):
        desk.turn(busy=False)
        processes.all[-1].wait()
    desk.turn(busy=False)

    given_up = home.studies.by_key(deadly.key)
    assert given_up is not None
    assert given_up.state is StudyState.FAILED
    assert f"died {ATTEMPTS_MAX} times" in given_up.description
    assert processes.begun == [deadly.key] * ATTEMPTS_MAX


def test_an_attempt_that_the_servers_left_alone_does_not_count(home: Home) -> None:
    """They may be away for hours, in which a process that needs them ends again and again."""
    processes = Processes(IS_LEFT_ALONE)
    desk = StudyDesk(home, processes.spawn, LeadsAll())
    home.studies.add(a_study(1), waiting_max=10)
    for _ in range(ATTEMPTS_MAX + 1):
        desk.turn(busy=False)
        processes.all[-1].wait()

    assert len(processes.begun) == ATTEMPTS_MAX + 1
    processes.end()


def test_a_study_that_the_servers_leave_alone_has_not_failed(tmp_path: Path) -> None:
    """What took hours is not given up because nobody answered for some seconds."""
    with running_servers(tmp_path, 1) as [server]:
        root = tmp_path / "node"
        root.mkdir()
        write_options(root / "node.json", BrokerOptions(servers=(server.url,), node="only"))
        with closing(Home(root)) as home:
            assert home.broker is not None
            connection = home.broker.client
            loop = home.loops.create("playground", playground_settings())
            study = a_study(loop_id=loop.loop_id, state=StudyState.RUNNING, attempts=1)
            home.studies.add(study, waiting_max=10)

            def back() -> bool:
                server.start()
                eventually(lambda: connection.is_connected, "there is a connection again")
                return False

            server.kill()
            eventually(lambda: not connection.is_connected, "the connection is lost")
            with pytest.raises(ServersAway):
                StudyRun(home, study, stopped=back).run()

            left = home.studies.by_key(study.key)
            assert left is not None
            assert left.state is StudyState.RUNNING
