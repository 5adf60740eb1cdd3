"""The worker lets go of what is no more."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
import pytest

from rankward.doctor.facts import ALIVE_US
from rankward.loops import new_loop_settings
from rankward.wiring import Home
from rankward.worker import JoiningStatus, LeadsAll, Worker, spawner
from tests.loop.circle import Circle
from tests.service import PATIENCE_S, RunningService, eventually, request


@pytest.mark.slow
def test_a_deleted_loop_leaves_no_files_and_disturbs_nobody(tmp_path: Path) -> None:
    """Its trainer and its open files must go first, and its name may be used again at once."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client("playground")
        old = service.loop("playground").loop_id
        for number in range(10):
            assert client.rank(request("a", "b", eventId=f"e{number}")).status_code == 201
        eventually(lambda: service.loop("playground").model_id is not None, "it has learned")
        service.home.loops.delete("playground")
        assert client.rank(request("a", "b")).status_code == 401
        service.home.loops.create("playground", new_loop_settings())
        again = service.client("playground")
        eventually(lambda: again.rank(request("a", "b")).status_code == 201, "the new one ranks")
        eventually(lambda: not (service.root / "loops" / old).exists(), "the files are gone")
        assert service.stop() == 0
        assert "Traceback" not in service.output.read_text()
    finally:
        service.close()


def test_a_loop_deleted_while_nobody_works_leaves_no_files(tmp_path: Path) -> None:
    """Deleting is a promise to whoever the events are about."""
    home = Home(tmp_path)
    loop = home.loops.create("short", new_loop_settings())
    (home.folder.loops / loop.loop_id / "events").mkdir(parents=True)
    home.loops.delete("short")
    assert not (home.folder.loops / loop.loop_id).exists()
    assert "short" not in str(home.loops.keys())
    home.close()


@pytest.mark.slow
def test_a_loop_that_is_damaged_holds_up_no_other(tmp_path: Path) -> None:
    """One broken file must not stop what has nothing to do with it."""
    service = RunningService(tmp_path).start()
    broken = service.loop("default").loop_id
    service.stop()
    try:
        for path in (service.root / "loops" / broken).rglob("*.live*"):
            path.unlink()
        (service.root / "loops" / broken / "events" / f"{0:020d}.live").write_bytes(b"no database at all" * 300)
        (service.root / "loops" / broken / "joined" / "joined.sqlite").write_bytes(b"neither is this" * 300)
        service.start()
        client = service.client("playground")
        assert client.rank(request("a", "b", eventId="e")).status_code == 201
        refused = service.client("default").rank(request("a", "b"))
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        eventually(lambda: service.loop("playground").model_id is not None, "the other loop learns")
        assert service.output.read_text().count("cannot be opened") < 10
    finally:
        service.close()


@pytest.mark.parametrize("archived", [False, True])
def test_retention_takes_nothing_that_is_not_archived(tmp_path: Path, *, archived: bool) -> None:
    """However old it is: it would be lost for good."""

    async def run() -> None:
        circle = Circle(tmp_path / "data", msgspec.structs.replace(new_loop_settings(), log_retention_days=1))
        circle.home.archives.settle(f"file://{tmp_path}/archive")
        place = circle.home.archives.place()
        assert place is not None
        for hour in range(5):
            await circle.play(3, prefix=f"{hour}-")
            circle.pass_time(3_600)
            await circle.join()
            await circle.log.maintain(joined_before=0, keep_after_us=0)
        if archived:
            async with circle.home.logs(circle.loop.loop_id) as (log, joined):
                service = circle.home.archives.archiving(circle.loop, place, log, joined)
                while await service.step():
                    pass
        held = (await circle.log.extent()).first
        circle.pass_time(3 * 86_400)

        stop = asyncio.Event()
        worker = Worker(circle.home, lambda *_: subprocess.Popen(["cat"], stdin=subprocess.PIPE), LeadsAll())
        working = asyncio.create_task(worker.run(stop))

        def maintained() -> bool:
            note = circle.home.board.read(circle.loop.loop_id).get("joining")
            return note is not None and msgspec.json.decode(note, type=JoiningStatus).time_us == circle.now_us

        async with asyncio.timeout(PATIENCE_S):
            while not maintained():
                await asyncio.sleep(0.01)
        stop.set()
        await working
        extent = await circle.log.extent()
        assert (extent.first > held) is archived
        assert extent.first < extent.end, "the newest hour is not archived"
        await circle.close()

    asyncio.run(run())


class Watched(LeadsAll):
    """Remembers what it was asked about."""

    def __init__(self) -> None:
        self.loops: set[str] = set()

    def turn(self, behind: Mapping[str, int], *, caught_up: bool, at_work: Collection[str]) -> None:
        """See `worker.Leading`."""
        super().turn(behind, caught_up=caught_up, at_work=at_work)
        self.loops = set(behind)


class Counting(LeadsAll):
    """Counts how often it was asked: once in a quarter of a second, by the worker's clock."""

    def __init__(self) -> None:
        self.turns = 0

    def turn(self, behind: Mapping[str, int], *, caught_up: bool, at_work: Collection[str]) -> None:
        """See `worker.Leading`."""
        super().turn(behind, caught_up=caught_up, at_work=at_work)
        self.turns += 1


def test_word_of_a_loop_where_nothing_happens_is_left_less_often(tmp_path: Path) -> None:
    """Each is a file that is written: an installation of many loops that rest would keep its disk at work."""

    async def run() -> None:
        circle = Circle(tmp_path / "data", new_loop_settings())
        leading, stop = Counting(), asyncio.Event()
        working = asyncio.create_task(Worker(circle.home, spawner(circle.home), leading).run(stop))

        def told_us() -> int | None:
            note = circle.home.board.read(circle.loop.loop_id).get("joining")
            return None if note is None else msgspec.json.decode(note, type=JoiningStatus).time_us

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.01)

        async def look_after(seconds: float) -> None:
            circle.pass_time(seconds)
            turns = leading.turns
            await until(lambda: leading.turns > turns)  # a round has begun
            circle.pass_time(0.5)
            await until(lambda: leading.turns > turns + 1)  # and ended, since the next one has begun

        await until(lambda: told_us() is not None)
        first_us = told_us()
        await look_after(2)
        assert told_us() == first_us, "nothing has happened"
        await circle.rank("e", "v0")
        circle.pass_time(1)
        await until(lambda: told_us() != first_us)
        circle.pass_time(ALIVE_US / 2 / 1_000_000)
        await until(lambda: told_us() == circle.now_us)
        stop.set()
        await working
        await circle.close()

    asyncio.run(run())


def test_a_clock_that_is_set_back_holds_nothing_up(tmp_path: Path) -> None:
    """What has to wait some seconds before it is tried again would wait for as long as the clock was set back."""

    async def run() -> None:
        circle = Circle(tmp_path / "data", new_loop_settings())
        await circle.play(20)
        await circle.circle()
        circle.home.timer = itertools.count(step=50_000).__next__  # each look at it takes some time
        started: Counter[str] = Counter()

        def spawn(role: str, *arguments: str) -> subprocess.Popen[bytes]:
            started[role] += 1
            return subprocess.Popen(["false"], stdin=subprocess.PIPE)

        def told_us() -> int | None:
            note = circle.home.board.read(circle.loop.loop_id).get("joining")
            return None if note is None else msgspec.json.decode(note, type=JoiningStatus).time_us

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.01)

        stop = asyncio.Event()
        working = asyncio.create_task(Worker(circle.home, spawn, LeadsAll()).run(stop))
        await until(lambda: started["trainer"] > 0 and started["watch"] > 0)
        circle.pass_time(-3_600)
        before = started.copy()
        await until(lambda: all(started[role] > before[role] for role in ("trainer", "watch")))
        await until(lambda: told_us() == circle.now_us)
        stop.set()
        await working
        await circle.close()

    asyncio.run(run())


def test_a_loop_that_cannot_be_opened_here_is_spread_with_the_others(tmp_path: Path) -> None:
    """Workers that did not see the same loops would each take some for another's, and nobody would lead those."""
    home = Home(tmp_path)
    sound, broken = (home.loops.create(name, new_loop_settings()) for name in ("sound", "broken"))
    joined = home.folder.joined(broken.loop_id)
    joined.mkdir(parents=True)
    (joined / "joined.sqlite").write_bytes(b"no database at all" * 300)
    leading = Watched()

    async def work() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(home, spawner(home), leading).run(stop))
        async with asyncio.timeout(PATIENCE_S):
            while not leading.loops:
                await asyncio.sleep(0.01)
        stop.set()
        await working

    asyncio.run(work())
    assert leading.loops == {sound.loop_id, broken.loop_id}
    home.close()
