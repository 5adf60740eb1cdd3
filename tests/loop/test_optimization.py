"""A better policy is found in the log, applied, watched over and undone, by itself and in virtual time."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from rankward.errors import Conflict, InvalidRequest
from rankward.joining.reader import read_joined
from rankward.loops import new_loop_settings
from rankward.optimization.desk import DEATHS_MAX, OptimizationDesk
from rankward.optimization.service import OptimizationService
from rankward.optimization.watch import Verdict
from rankward.optimization.watcher import Watcher
from rankward.ranking.decide import RankRequest, decide
from rankward.records import Action, Features, LearningMode, Observation, SettingsChange
from rankward.settings import Limits, LoopSettings
from rankward.store.optimizations import Optimization, OptimizationState, Replaced
from rankward.store.ports import Epoch, Fence
from rankward.store.studies import AskedPolicy, Study, StudyKind, StudyState
from rankward.study_run import StudyRun
from rankward.training.fold import Checkpoint, Fold
from tests.loop.circle import START_US, Circle, newest_version, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankward.optimization.watch import WatchState

pytestmark = pytest.mark.slow

ACTIONS = tuple([Action(f"a{k}", Features(b'[{"dish":{"kind":"k%d"}}]' % k)) for k in range(3)])
HOUR_US = 3_600_000_000
DUE = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(hours=5)
VISITORS = [Features(b'[{"visitor":{"who":"v%d"}}]' % k) for k in range(3)]


async def play(circle: Circle, count: int, likes: Callable[[int], int]) -> float:
    """Let visitors come, some at a time, and learn from them. Returns their average reward."""
    before = (await circle.joined.extent())[1]  # not the time: how far it moves while others work is left to chance
    rng = np.random.default_rng([0, before])
    settings = circle.loop.settings
    total = 0.0
    for start in range(0, count, 50):
        records: list[object] = []
        for number in range(start, min(count, start + 50)):
            who = int(rng.integers(3))
            event_id = f"e{before + number}"
            decided = decide(
                RankRequest(event_id=event_id, context=VISITORS[who], actions=ACTIONS),
                circle.ranking.scorer,
                loop_id=circle.loop.loop_id,
                mode=LearningMode.ONLINE,
                exploration=settings.exploration,
                reward_wait_us=round(settings.reward_wait.total_seconds() * 1e6),
            )
            reward = float(decided.chosen == likes(who))
            total += reward
            records += [decided, Observation(event_id=event_id, value=reward)]
        await circle.log.append(records)  # type: ignore[arg-type]
        circle.pass_time(60)
        if start % 250 == 200:
            await circle.circle()
    await circle.circle()
    return total / count


def settings(**changes: object) -> LoopSettings:
    """Personalizer's own, with automatic optimization on schedule from a few hours after the start."""
    return msgspec.structs.replace(
        LoopSettings(),
        is_auto_optimization_enabled=True,
        auto_optimization_frequency=timedelta(days=7),
        auto_optimization_start_date=DUE.isoformat(),
        **changes,
    )


class House:
    """A circle with what optimizes it, and idle processes in place of those that watch."""

    def __init__(self, folder: Path, now_us: int = START_US, wanted: LoopSettings | None = None) -> None:
        self.circle = Circle(folder, wanted or settings())
        self.circle.now_us = now_us
        self.home = self.circle.home
        self.service = OptimizationService(
            self.home, log=lambda _: self.circle.log, joined=lambda _: self.circle.joined, limits=Limits()
        )
        self.watching: list[tuple[str, str]] = []
        self.code = "import sys; sys.stdin.read()"
        self.desk = OptimizationDesk(self.home, self.service, self.spawn)

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process that waits until its standard input ends."""
        self.watching.append(arguments)  # type: ignore[arg-type]
        return subprocess.Popen([sys.executable, "-c", self.code], stdin=subprocess.PIPE)

    async def turn(self) -> Optimization | None:
        """Let the desk do its next step. Returns the newest run."""
        self.circle.pass_time(30)
        await self.desk.turn({Fence(self.circle.loop.loop_id, 1): self.circle.loop})
        runs = self.service.listed(self.circle.loop)
        return runs[0] if runs else None

    async def search(self, run: Optimization) -> None:
        """Run the evaluation that a run asked for."""
        asked = self.home.studies.find(run.loop_id, StudyKind.EVALUATION, run.study_id)
        assert asked is not None
        # Under a key of ours: the policies that it tries are drawn by it.
        study = msgspec.structs.replace(asked, key="5" * 32)
        self.home.studies.delete(run.loop_id, StudyKind.EVALUATION, run.study_id)
        self.home.studies.add(study, waiting_max=1)
        await self.evaluate(study)

    async def evaluate(self, study: Study) -> None:
        """Run a study to its end."""
        begun = msgspec.structs.replace(study, state=StudyState.RUNNING, attempts=1)
        self.home.studies.write(begun)
        await asyncio.to_thread(StudyRun(self.home, begun, lambda: False).run)

    async def watch(self, run: Optimization) -> WatchState:
        """Keep a run's watch for as long as there is something to see. Returns what it has come to."""
        circle, stop = self.circle, asyncio.Event()
        watcher = Watcher(self.home, circle.loop, run, self.service, log=circle.log, joined=circle.joined)
        running = asyncio.create_task(watcher.run(stop))
        end = (await circle.joined.extent())[1]
        while not running.done() and self.service.watch(run).cursor < end:
            circle.timer.move(31_000_000)  # so that it writes down how far it is
            await asyncio.sleep(0.005)
        stop.set()
        await running
        return self.service.watch(run)

    async def causes(self) -> list[str | None]:
        """What the log says of each change of settings."""
        extent = await self.circle.log.extent()
        entries = await self.circle.log.read(extent.first, limit=extent.end)
        return [entry.record.cause for entry in entries if isinstance(entry.record, SettingsChange)]

    async def close(self) -> None:
        """Let go of everything."""
        self.desk.stop()
        self.desk.close(lambda process: assert_ended(process.wait()))
        await self.circle.close()


def assert_ended(code: int) -> None:
    """Make sure that a process came to a good end."""
    assert code == 0


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A loop whose optimization came due and has searched the log. Returns its folder and its time."""
    folder = tmp_path_factory.mktemp("searched")

    async def make() -> int:
        house = House(folder)
        await play(house.circle, 1_200, lambda who: who)
        assert await house.turn() is None, "it is not due"
        house.circle.now_us = START_US + 6 * HOUR_US
        run = await house.turn()
        assert run is not None
        assert (run.state, run.due_us) == (OptimizationState.SEARCHING, round(DUE.timestamp() * 1e6))
        await house.search(run)
        await house.close()
        return house.circle.now_us

    return folder, asyncio.run(make())


def copied(searched: tuple[Path, int], tmp_path: Path) -> House:
    """Open a copy of the loop that has searched."""
    folder, now_us = searched
    shutil.copytree(folder, tmp_path / "data")
    return House(tmp_path / "data", now_us)


def test_personalizers_default_is_replaced_by_what_is_better(searched: tuple[Path, int], tmp_path: Path) -> None:
    """By itself, on schedule: found, applied, watched over and confirmed, and its history says all of it."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        circle, old = house.circle, house.circle.loop
        run = await house.turn()
        assert run is not None
        assert run.state is OptimizationState.WATCHING, run.why
        assert circle.loop.settings.policy == run.policy != old.settings.policy
        assert (circle.loop.model_id, circle.loop.settings) == (run.model_id, run.applied)
        best = next(each for each in run.finalists if each.name == run.promoted)
        assert best.low is not None
        assert best.low > 0, "better beyond doubt"
        assert (run.tried, run.seed is not None, run.judged) == (32, True, 1_200)
        assert await house.causes() == [
            f"automatic optimization {run.optimization_id} applied {run.promoted} of evaluation {run.study_id}"
        ]
        assert run.replaced is not None
        assert run.replaced.model_id == old.model_id
        assert not circle.home.catalog.forget_version(run.replaced.model_id, run.loop_id), "it is kept"
        study = house.home.studies.find(run.loop_id, StudyKind.EVALUATION, run.study_id)
        assert study is not None
        assert (study.automatic, study.concluded, study.applied) == (True, True, (run.applied,))

        await circle.follow()
        for _ in range(6):
            await play(circle, 250, lambda who: who)
            watched = await house.watch(run)
            if watched.verdict is not Verdict.UNDECIDED:
                break
        assert watched.verdict is Verdict.BETTER
        assert house.watching == [("circle", run.optimization_id)]
        run = await house.turn()
        assert run is not None
        assert run.state is OptimizationState.CONFIRMED
        assert run.watched is not None
        assert run.watched.low > 0
        assert [step.what.split(":")[0] for step in run.steps] == ["begun", "applying", "watching", "confirmed"]
        assert circle.loop.settings.policy == run.policy
        assert list((house.home.folder.loops / run.loop_id / "watches").iterdir()) == []
        assert await house.turn() == run, "the time of the schedule was made use of"
        await house.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"default_reward": 0.5}, "default_reward"),
        ({"exploration": 0.1}, "exploration"),
        ({"is_auto_optimization_enabled": False}, "switched off"),
        ({"learning_mode": LearningMode.APPRENTICE}, "Apprentice"),
    ],
)
def test_a_loop_that_changed_meanwhile_is_left_alone(
    searched: tuple[Path, int], tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    """What was found of another policy, or another reward, does not hold any more."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        await house.circle.configuration.change("circle", changes)
        while house.service.builds(house.circle.loop):
            assert (await house.turn()).state is OptimizationState.SEARCHING  # type: ignore[union-attr]
            await house.circle.train()
        before = house.circle.loop
        run = await house.turn()
        assert run is not None
        assert run.state is OptimizationState.REFUSED
        assert why in run.why
        assert run.promoted, "what was found stays on record"
        assert house.circle.loop == before
        await house.close()

    asyncio.run(scenario())


def test_a_deleted_model_stays_deleted(searched: tuple[Path, int], tmp_path: Path) -> None:
    """Whoever deleted it does not want what was learned before."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        await house.circle.registry.delete("circle")
        run = await house.turn()
        assert run is not None
        assert (run.state, house.circle.loop.model_id) == (OptimizationState.REFUSED, None)
        await house.close()

    asyncio.run(scenario())


def test_a_dry_run_changes_nothing(searched: tuple[Path, int], tmp_path: Path) -> None:
    """It says what would be applied."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        [run] = house.home.optimizations.unfinished()
        house.home.optimizations.write(msgspec.structs.replace(run, dry_run=True))
        before = house.circle.loop
        run = await house.turn()  # type: ignore[assignment]
        assert (run.state, house.circle.loop) == (OptimizationState.TRIED, before)
        assert run.promoted
        assert run.policy
        assert await house.causes() == []
        await house.close()

    asyncio.run(scenario())


def test_a_deleted_evaluation_ends_its_run(searched: tuple[Path, int], tmp_path: Path) -> None:
    """Otherwise it would wait for ever, and no other could begin."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        [run] = house.home.optimizations.unfinished()
        house.home.studies.delete(run.loop_id, StudyKind.EVALUATION, run.study_id)
        run = await house.turn()  # type: ignore[assignment]
        assert (run.state, run.why) == (OptimizationState.FAILED, "its evaluation was deleted")
        await house.close()

    asyncio.run(scenario())


def test_what_is_killed_while_it_applies_applies_once(searched: tuple[Path, int], tmp_path: Path) -> None:
    """Before the application and after it: whoever goes on must know which."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        run = await house.turn()
        assert run is not None
        applied, known = house.circle.loop, await house.causes()
        # As it was written down before the loop was changed.
        before = msgspec.structs.replace(
            run, state=OptimizationState.APPLYING, applied=None, applied_us=0, steps=run.steps[:-1]
        )
        house.home.optimizations.write(before)
        await house.close()

        again = House(tmp_path / "data", house.circle.now_us)
        resumed = await again.turn()
        assert resumed is not None
        assert (resumed.state, resumed.applied) == (OptimizationState.WATCHING, applied.settings)
        assert (again.circle.loop, await again.causes()) == (applied, known)
        await again.close()

    asyncio.run(scenario())


def test_a_watch_ends_when_somebody_else_changes_the_loop(searched: tuple[Path, int], tmp_path: Path) -> None:
    """It must never undo what a person did."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        run = await house.turn()
        assert run is not None
        assert run.replaced is not None
        await house.circle.registry.roll_back("circle", run.replaced.model_id)
        before = house.circle.loop
        run = await house.turn()
        assert run is not None
        assert (run.state, house.circle.loop) == (OptimizationState.SUPERSEDED, before)
        await house.close()

    asyncio.run(scenario())


def test_a_watch_whose_process_dies_is_given_up(searched: tuple[Path, int], tmp_path: Path) -> None:
    """After a few times; what was applied stays, and the reason is on record."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        house.code = "import os; os.abort()"
        run = await house.turn()
        while run is not None and not run.state.finished:
            run = await house.turn()
            await asyncio.sleep(0.01)
        assert run is not None
        assert (run.state, len(house.watching)) == (OptimizationState.KEPT, DEATHS_MAX)
        assert "died" in run.why
        assert house.circle.loop.settings == run.applied
        await house.close()

    asyncio.run(scenario())


def test_a_watch_that_is_lost_is_ended(searched: tuple[Path, int], tmp_path: Path) -> None:
    """After a restore from an older backup, say. No other run could begin, otherwise."""

    async def scenario() -> None:
        house = copied(searched, tmp_path)
        house.code = ""
        run = await house.turn()
        assert run is not None
        house.service.forget_watch(run)
        while run is not None and not run.state.finished:
            run = await house.turn()
            await asyncio.sleep(0.01)
        assert run is not None
        assert (run.state, run.why) == (OptimizationState.KEPT, "what its watch had come to is lost")
        await house.close()

    asyncio.run(scenario())


def test_a_watch_that_is_killed_counts_no_decision_twice(searched: tuple[Path, int], tmp_path: Path) -> None:
    """Its process is killed wherever it stands; the next one ends the watch, as its time has passed long ago."""

    async def begin() -> tuple[Optimization, int]:
        house = copied(searched, tmp_path)
        run = await house.turn()
        assert run is not None
        await house.circle.follow()
        await play(house.circle, 100, lambda who: who)
        await house.close()
        return run, house.circle.now_us

    async def end(now_us: int) -> Optimization | None:
        house = House(tmp_path / "data", now_us)
        ended = await house.turn()
        assert ended is not None
        assert house.circle.loop.settings == ended.applied
        await house.close()
        return ended

    run, now_us = asyncio.run(begin())
    role = ["optimization-watch", str(tmp_path / "data"), "circle", run.optimization_id]
    for kills in (True, False):
        with subprocess.Popen([sys.executable, "-m", "rankward.roles", *role], stdin=subprocess.PIPE) as process:
            if kills:
                process.kill()
            assert (process.wait() == 0) is not kills
    ended = asyncio.run(end(now_us))
    assert ended is not None
    assert ended.state in {OptimizationState.KEPT, OptimizationState.CONFIRMED}, ended.why
    assert ended.watched is not None
    assert ended.watched.events == 100


BLIND = "--cb_explore_adf --epsilon 0.1 --cb_type mtr"


async def applied_by_hand(house: House) -> Optimization:
    """Apply a policy that pairs nothing, so that all visitors are the same to it, as if a search had found it."""
    circle, now_us = house.circle, house.circle.now_us
    study = Study(
        key="5" * 32,
        kind=StudyKind.EVALUATION,
        loop_id=circle.loop.loop_id,
        study_id="auto-worse",
        name="worse",
        created_us=now_us,
        start_us=0,
        end_us=now_us,
        settings=circle.loop.settings,
        forgotten_before=0,
        time_limit_s=600.0,
        policies=(AskedPolicy("blind", BLIND),),
        automatic=True,
    )
    house.home.studies.add(study, waiting_max=1)
    await house.evaluate(study)
    assert circle.loop.model_id is not None
    [epoch] = house.home.catalog.epochs(circle.loop.loop_id)
    run = Optimization(
        optimization_id="abcdef012345",
        loop_id=circle.loop.loop_id,
        created_us=now_us,
        due_us=None,
        dry_run=False,
        start_us=0,
        end_us=now_us,
        state=OptimizationState.APPLYING,
        study_id=study.study_id,
        asked=True,
        promoted="blind",
        policy=BLIND,
        replaced=Replaced(
            settings=circle.loop.settings, model_id=circle.loop.model_id, epoch=epoch, forgotten_before=0
        ),
        keeps_replaced=True,
    )
    house.home.optimizations.add(run)
    applied = await house.turn()
    assert applied is not None
    assert applied.state is OptimizationState.WATCHING, applied.why
    return applied


def test_what_turns_out_worse_is_rolled_back(tmp_path: Path) -> None:
    """The world changes after the application, and the new policy cannot follow: what it replaced comes back, and has.

    With the very weights of a learner that was never replaced: nothing is learned twice, and nothing is left out.
    """

    async def scenario() -> None:
        house = House(tmp_path, wanted=new_loop_settings())
        circle = house.circle
        await play(circle, 600, lambda _: 0)
        run = await applied_by_hand(house)
        assert run.replaced is not None
        old = run.replaced.settings
        await circle.follow()
        for _ in range(8):
            await play(circle, 250, lambda who: who)
            watched = await house.watch(run)
            if watched.verdict is not Verdict.UNDECIDED:
                break
        assert watched.verdict is Verdict.WORSE
        rolled = await house.turn()
        assert rolled is not None
        assert rolled.state is OptimizationState.ROLLED_BACK, rolled.why
        assert "worse than the policy that it replaced" in rolled.why
        assert rolled.watched is not None
        assert rolled.watched.high < 0
        now = circle.loop
        assert (now.settings.policy, now.settings.preset, now.settings.exploration) == (
            old.policy,
            old.preset,
            old.exploration,
        )
        assert now.model_id == rolled.restored_model_id
        assert (await house.causes())[-1] == f"automatic optimization abcdef012345 was rolled back: {rolled.why}"

        await circle.follow()
        reward = await play(circle, 500, lambda who: who)
        assert reward > 0.5, "it knows the new world, of which chance reaches a third"
        assert await weights_of_newest(circle) == await never_replaced(circle, run.replaced.epoch)
        await house.close()

    asyncio.run(scenario())


async def weights_of_newest(circle: Circle) -> dict[int, float]:
    """The weights of the newest version, which has learned everything."""
    version = newest_version(circle)
    assert version.joined_offset == (await circle.joined.extent())[1]
    return weights_of(circle, version)


async def never_replaced(circle: Circle, epoch: Epoch) -> dict[int, float]:
    """The weights that an epoch would have, had it gone on along the whole log."""
    start = Checkpoint(joined_offset=epoch.start or 0, learned=0, learned_to_us=0, model=None)
    fold = Fold(epoch, start, exploration=0.0, set_aside=())
    events, _ = await read_joined(circle.log, circle.joined, start.joined_offset, limit=1 << 30)
    for event in events:
        fold.take(event, before=lambda _: None)
    weights = fold.weights()
    fold.close()
    return weights


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (settings(exploration=0.0), "exploration is 0"),
        (settings(learning_mode=LearningMode.APPRENTICE), "Apprentice"),
        (settings(learning_mode=LearningMode.LOGGING_ONLY), "LoggingOnly"),
        (settings(), "no model serves"),
    ],
)
def test_a_log_that_can_tell_nothing_is_not_searched(tmp_path: Path, wanted: LoopSettings, why: str) -> None:
    """Its time of the schedule is on record as skipped, once; whoever asks for a run is refused."""

    async def scenario() -> None:
        house = House(tmp_path, wanted=wanted)
        if "no model" not in why:
            await play(house.circle, 50, lambda who: who)
        house.circle.now_us = START_US + 6 * HOUR_US
        run = await house.turn()
        assert run is not None
        assert run.state is OptimizationState.SKIPPED
        assert why in run.why
        assert await house.turn() == run
        assert house.home.studies.unfinished() == []
        with pytest.raises(InvalidRequest, match=why):
            await house.service.begin(house.circle.loop, due_us=None)
        house.circle.pass_time(15 * 86_400)
        assert len(house.service.listed(house.circle.loop)) == 1
        assert await house.turn() != run, "the next time is another"
        await house.close()

    asyncio.run(scenario())


def test_a_run_that_is_begun_by_hand_is_asked_once_though_the_worker_sees_it_at_once(tmp_path: Path) -> None:
    """Both ask for its evaluation then: it was given up as one that cannot be asked, with its evaluation under way."""

    async def go_on_at_once(house: House) -> Optimization:
        while not (unfinished := house.home.optimizations.unfinished()):
            await asyncio.sleep(0)
        [seen] = unfinished
        assert not seen.asked
        return await house.service.go_on(house.circle.loop, seen)

    async def scenario() -> None:
        house = House(tmp_path, wanted=LoopSettings())
        await play(house.circle, 50, lambda who: who)
        begun, gone_on = await asyncio.gather(
            house.service.begin(house.circle.loop, due_us=None, dry_run=True), go_on_at_once(house)
        )
        assert begun.optimization_id == gone_on.optimization_id
        assert (begun.state, gone_on.state) == (OptimizationState.SEARCHING, OptimizationState.SEARCHING)
        found = house.service.find(house.circle.loop, begun.optimization_id)
        assert (found.state, found.asked, len(found.steps)) == (OptimizationState.SEARCHING, True, 1)
        assert [study.study_id for study in house.home.studies.unfinished()] == [begun.study_id]
        await house.close()

    asyncio.run(scenario())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """Two at once would each take the other's change for a person's."""

    async def scenario() -> None:
        house = House(tmp_path, wanted=LoopSettings())
        await play(house.circle, 50, lambda who: who)
        run = await house.service.begin(house.circle.loop, due_us=None, dry_run=True)
        assert run.state is OptimizationState.SEARCHING
        with pytest.raises(Conflict, match="goes on already"):
            await house.service.begin(house.circle.loop, due_us=None)
        assert house.service.find(house.circle.loop, run.optimization_id) == run
        await house.close()

    asyncio.run(scenario())
