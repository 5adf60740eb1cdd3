"""Processes die at any moment, under load: what was acknowledged stays, and what is learned is the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.audit import audit, is_learned
from tests.faults.traffic import Traffic
from tests.service import RunningService, eventually

SEED = random.SystemRandom().randrange(1_000_000)
LOOP = "playground"


@pytest.mark.slow
def test_whatever_is_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The promise that a 201 and a 204 make."""
    _kill_and_audit(tmp_path, kills=4, decisions=150)


@pytest.mark.fault
def test_whatever_is_killed_over_and_over_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The same over many random moments."""
    _kill_and_audit(tmp_path, kills=60, decisions=250)


def _kill_and_audit(tmp_path: Path, *, kills: int, decisions: int) -> None:
    """Kill a process whenever some decisions were acknowledged, and hold what is left to every promise.

    Args:
        tmp_path: for everything.
        kills: how often.
        decisions: that are acknowledged between two kills, at most.
    """
    print(f"seed {SEED}")  # noqa: T201  (shown when the test fails)
    rng = random.Random(SEED)
    service = RunningService(tmp_path, workers=2).start()
    try:
        traffic = Traffic([service.url], service.key(LOOP))
        try:
            for _ in range(kills):
                traffic.more(rng.randint(decisions // 4, decisions))
                _kill_one(service, rng)
        finally:
            traffic.end()
        service.kill()  # everything at once, at the end
        service.start()
        eventually(lambda: is_learned(service.home, LOOP), "what was logged before the restart is learned")
        service.stop()
    finally:
        service.close()
    audit(service.root, LOOP, traffic)


def _kill_one(service: RunningService, rng: random.Random) -> None:
    """Kill an HTTP process, the worker, a trainer, or all of them."""
    processes = psutil.Process(service.pid).children(recursive=True)
    if rng.random() < 0.15:
        service.kill()
        service.start()
    elif processes:
        with_trainers = rng.choice(processes)
        with contextlib.suppress(ProcessLookupError):
            os.kill(with_trainers.pid, signal.SIGKILL)
