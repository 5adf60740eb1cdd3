"""What is measured: the real service with a loop that has learned, and the reference handler with the same model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
from tests.service import KEY_HEADER, RunningService, eventually

from benchmarks.load import Measured, Plan, measure
from rankward.loops import playground_settings
from rankward.store.ports import ModelVersion
from rankward.supervisor import default_workers
from rankward.vw.presets import learner_arguments

LOOP = "bench"
RANK = "/personalizer/v1.0/rank"


class Installation:
    """A running service with the loop `bench`."""

    def __init__(self, service: RunningService) -> None:
        self.service = service

    @property
    def headers(self) -> dict[str, str]:
        """What a client sends."""
        return {KEY_HEADER: self.service.key(LOOP)}

    def plan(self, *, actions: int, seconds: float, connections: int = 32, features: int = 5) -> Plan:
        """Plan Ranks for the loop."""
        return Plan(
            port=self.service.port,
            path=RANK,
            headers=self.headers,
            actions=actions,
            features=features,
            connections=connections,
            seconds=seconds,
        )

    def settle(self, **settings: timedelta) -> None:
        """Change settings of the loop, by their names on the wire."""
        body = {name: f"PT{value.total_seconds():g}S" for name, value in settings.items()}
        answer = self.service.client(LOOP).put("/configurations/service", body)
        assert answer.status_code == 200, f"the settings are refused: {answer.text}"

    def version(self) -> ModelVersion:
        """The version that serves."""
        loop = self.service.loop(LOOP)
        return next(v for v in self.service.home.catalog.versions(loop.loop_id) if v.model_id == loop.model_id)

    def learn(self, *, seconds: float) -> None:
        """Let the loop learn from some traffic, and then hold still: nothing more is due for ten minutes."""
        plan = self.plan(actions=10, seconds=seconds, connections=4)
        measure(msgspec.structs.replace(plan, reward_share=0.5, warmup_s=0.0))
        eventually(lambda: self.service.loop(LOOP).model_id is not None, "a model is published")
        self.settle(rewardWaitTime=timedelta(minutes=10))
        time.sleep(playground_settings().reward_wait.total_seconds() + 2)

    def processes(self, role: str) -> list[psutil.Process]:
        """Its processes of a role: `worker` or `api`."""
        return [psutil.Process(pid) for name, pid in self.service.children().items() if name.startswith(role)]

    def cpu_s(self) -> float:
        """How much CPU all of its processes have taken."""
        return _cpu_s(self.service.pid)


class Reference:
    """A running reference handler."""

    def __init__(self, number: int, pid: int) -> None:
        self.number = number  # of its port
        self.pid = pid

    def cpu_s(self) -> float:
        """How much CPU it has taken."""
        return _cpu_s(self.pid)


def _cpu_s(pid: int) -> float:
    first = psutil.Process(pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


@contextmanager
def installed(folder: Path, *, workers: int | None = None) -> Iterator[Installation]:
    """Start the service in a folder, with the loop `bench`.

    Args:
        folder: may hold an installation already.
        workers: HTTP processes; None: as many as it takes by itself.
    """
    service = RunningService(folder, workers=workers or default_workers())
    try:
        service.start()
        if LOOP not in {loop.name for loop in service.home.catalog.loops()}:
            service.home.loops.create(LOOP, playground_settings())
        client = service.client(LOOP)
        eventually(lambda: client.get("/configurations/service").status_code == 200, "the loop is served")
        yield Installation(service)
    finally:
        service.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for one measurement."""
    with tempfile.TemporaryDirectory(prefix="rankward-bench-") as folder:
        yield Path(folder)


@contextmanager
def reference(installation: Installation, folder: Path) -> Iterator[Reference]:
    """Start the reference handler with the model that the loop serves."""
    version = installation.version()
    model = folder / "reference.vw"
    model.write_bytes(installation.service.home.models.get(version.loop_id, version.model_id))
    arguments = learner_arguments(version.policy, version.interactions, 0.02, version.rate)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port: int = listener.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.reference", str(listener.fileno()), arguments, str(model)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),), start_new_session=True
        )
    try:
        measure(Plan(port=port, path="/rank", actions=10, connections=1, seconds=0.5))
        yield Reference(port, process.pid)
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None, "it has a pipe"
        process.stdin.close()


def against(plan: Plan, port: int) -> Plan:
    """The same plan for the reference handler."""
    return msgspec.structs.replace(plan, port=port, path="/rank", headers={})


def pin(process: psutil.Process, cpus: Collection[int]) -> None:
    """Keep a process, and whatever it starts from now on, on some cores."""
    for thread in process.threads():
        os.sched_setaffinity(thread.id, cpus)


def alternate(
    plans: Mapping[str, Plan], *, rounds: int, spent: Mapping[str, Callable[[], float]] | None = None
) -> dict[str, list[Measured]]:
    """Carry out plans in turn, so that whatever else goes on falls on all of them.

    Args:
        plans: by name.
        rounds: how often.
        spent: tells how much CPU the other side has taken so far, by name; None: nobody asks.
    """
    found: dict[str, list[Measured]] = {name: [] for name in plans}
    for _ in range(rounds):
        for name, plan in plans.items():
            before_s = spent[name]() if spent else 0.0
            measured = measure(plan)
            after_s = spent[name]() if spent else 0.0
            cpu_us = (after_s - before_s) / measured.total * 1e6
            found[name].append(msgspec.structs.replace(measured, served_cpu_us=cpu_us))
    return found
