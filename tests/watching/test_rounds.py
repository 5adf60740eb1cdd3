"""One process keeps the figures of all loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
import pytest

from rankward.loops import new_loop_settings
from rankward.watching.rounds import watching_rounds
from rankward.wiring import Home
from tests.loop.circle import Circle
from tests.service import RunningService, eventually, request


def test_a_loop_whose_log_is_damaged_holds_up_no_other(tmp_path: Path) -> None:
    """One broken file must not leave every chart empty."""

    async def story() -> None:
        quick = msgspec.structs.replace(new_loop_settings(), reward_wait=timedelta(seconds=30))
        circle = Circle(tmp_path, quick)
        broken = circle.home.loops.create("broken", quick)
        circle.home.folder.joined(broken.loop_id).mkdir(parents=True)
        (circle.home.folder.joined(broken.loop_id) / "joined.sqlite").write_bytes(b"no database at all" * 300)
        await circle.play(20)
        circle.pass_time(31)
        await circle.join()
        rounds = watching_rounds(circle.home)
        while await rounds.round():
            pass
        figures = circle.home.figures()
        series = figures.series(circle.loop, from_us=circle.now_us - 3_600_000_000, to_us=circle.now_us + 1)
        assert series.total.events == 20
        status = figures.status(circle.loop)
        assert status is not None
        assert status.failure is None
        await rounds.close()
        await circle.close()

    asyncio.run(story())


@pytest.mark.slow
def test_figures_follow_the_traffic_and_survive_a_kill(tmp_path: Path) -> None:
    """Whoever opens the portal sees what happened seconds ago, whatever happened to the process that counts."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client("playground")

        def play(prefix: str) -> None:
            for number in range(10):
                assert client.rank(request("a", "b", eventId=f"{prefix}{number}")).status_code == 201
                assert client.reward(f"{prefix}{number}", 1.0).status_code == 204

        def counted() -> int:
            home = Home(service.root)
            now_us = home.clock()
            loop = service.loop("playground")
            total = home.figures().series(loop, from_us=now_us - 3_600_000_000, to_us=now_us + 1).total
            home.close()
            return total.events

        play("a")
        eventually(lambda: counted() == 10, "the first ten are counted")
        for process in psutil.Process(service.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # others may come and go meanwhile
                if "watch" in process.cmdline():
                    os.kill(process.pid, signal.SIGKILL)
        play("b")
        eventually(lambda: counted() == 20, "the others are counted by another process")
        assert service.stop() == 0
        assert "Traceback" not in service.output.read_text()
    finally:
        service.close()
