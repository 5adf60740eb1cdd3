"""The load generator: a process of its own that sends prepared requests and keeps the time of each.

It speaks just as much HTTP/1.1 as it takes to be far cheaper than what it measures. Run as a program, it reads a
`Plan` from standard input and writes what it `Measured` to standard output.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import cast

import msgspec
import numpy as np
import uvloop

from benchmarks.bodies import bodies

_PREPARED = 512  # different bodies
_JOIN_S = 5.0  # how long answers may take after the last request


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send."""

    port: int
    path: str
    headers: dict[str, str] = {}
    actions: int
    features: int = 5
    connections: int
    seconds: float
    warmup_s: float = 0.5  # sent before, and not counted
    rate_per_s: float | None = None  # None: each connection sends as soon as it has its answer
    reward_share: float = 0.0  # of the decisions that a Reward is sent for; its path is made from `path`
    seed: int = 1
    cpus: tuple[int, ...] = ()  # to run on; empty: any


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Latencies count from the moment a request was due."""

    count: int
    seconds: float
    failed: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_ms_p99: float  # how late the generator itself was in sending; 0 where no rate was asked for
    cpu_share: float  # of one core, taken by the generator
    total: int  # decisions from first to last, those that are not counted among them
    complaint: str  # the last answer that was no decision
    served_cpu_us: float = 0.0  # of CPU that a decision took the other side; filled in by whoever can tell

    @property
    def rate_per_s(self) -> float:
        """Decisions a second."""
        return self.count / self.seconds


def measure(plan: Plan) -> Measured:
    """Run a plan in a process of its own.

    Raises:
        AssertionError: more than a few requests failed, so that the figures say nothing.
    """
    command = [sys.executable, "-m", "benchmarks.load"]
    limit_s = plan.seconds + plan.warmup_s + 60
    process = subprocess.run(
        command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True, timeout=limit_s
    )
    measured = msgspec.json.decode(process.stdout, type=Measured)
    assert measured.failed <= measured.count // 1000, f"{measured.failed} requests failed {measured.complaint}"
    return measured


class _Connection(asyncio.Protocol):
    """One connection: at most one request is under way."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._rewarding = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is not derived from it

    def connection_lost(self, _: Exception | None) -> None:
        self._run.lost += 1

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None, "it is connected"
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._received = data
            return
        at = data.find(b"content-length: ", 0, head)
        length = 0 if at < 0 else int(data[at + 16 : data.find(b"\r", at)])
        if len(data) < head + 4 + length:
            self._received = data
            return
        self._received = b""
        if self._rewarding:
            self._rewarding = False
            self._run.free(self)
            return
        self._run.answered(self._due, data)
        reward = self._run.reward(data[head + 4 :]) if self._run.plan.reward_share else None
        if reward is None:
            self._run.free(self)
        else:
            self._rewarding = True
            self.send(reward, 0.0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Answer(msgspec.Struct, rename="camel"):
    event_id: str
    reward_action_id: str


class _Run:
    """A plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lost = 0
        self._failed = 0
        self._complaint = ""
        self._total = 0
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in plan.headers.items())
        prepared = itertools.islice(bodies(plan.actions, plan.features, seed=plan.seed), _PREPARED)
        self._requests: Iterator[bytes] = itertools.cycle([self._post(plan.path, body) for body in prepared])
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._waiting: deque[float] = deque()  # when each was due
        self._idle: deque[_Connection] = deque()  # in turn, so that none is idle for so long that it is closed
        self._rng = random.Random(plan.seed)
        self._counting = False
        self._over = False
        self._answer = msgspec.json.Decoder(_Answer).decode

    def _post(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{self._headers}content-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def answered(self, due: float, answer: bytes) -> None:
        self._total += 1
        if self._counting:
            self._latencies.append(time.perf_counter() - due)
            if answer[9:12] != b"201":
                self._failed += 1
                self._complaint = answer.decode(errors="replace")

    def reward(self, answer: bytes) -> bytes | None:
        """Make a Reward for a share of the answers: actions with low numbers are worth more."""
        if self._rng.random() >= self.plan.reward_share:
            return None
        decision = self._answer(answer)
        value = 1 if self._rng.random() * 100 > int(decision.reward_action_id.rpartition("-")[2]) else 0
        version = self.plan.path.rpartition("/")[0]
        return self._post(f"{version}/events/{decision.event_id}/reward", b'{"value":%d}' % value)

    def free(self, connection: _Connection) -> None:
        """Give a connection its next request, if there is one."""
        if self._over:
            return
        if self.plan.rate_per_s is None:
            connection.send(next(self._requests), time.perf_counter())
        elif self._waiting:
            connection.send(next(self._requests), self._waiting.popleft())
        else:
            self._idle.append(connection)

    async def run(self) -> Measured:
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(self.plan.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.plan.port)
            connections.append(connection)
        for connection in connections:
            self.free(connection)
        pacing = loop.create_task(self._pace()) if self.plan.rate_per_s is not None else None
        await asyncio.sleep(self.plan.warmup_s)
        self._counting = True
        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.sleep(self.plan.seconds)
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        if pacing is None:
            self._counting = False
        else:  # what was due must be answered, however late
            pacing.cancel()
            deadline = start + seconds + _JOIN_S
            while (self._waiting or len(self._idle) < len(connections)) and time.perf_counter() < deadline:
                await asyncio.sleep(0.01)
        self._over = True
        unanswered = len(self._waiting) if pacing is not None else 0
        latencies_ms = np.array(self._latencies) * 1000
        p50, p99, p999 = np.percentile(latencies_ms, [50, 99, 99.9])
        measured = Measured(
            count=len(self._latencies),
            seconds=seconds,
            failed=self._failed + self.lost + unanswered,
            mean_ms=float(latencies_ms.mean()),
            p50_ms=float(p50),
            p99_ms=float(p99),
            p999_ms=float(p999),
            late_ms_p99=float(np.percentile(self._late, 99) * 1000) if self._late else 0.0,
            cpu_share=cpu_s / seconds,
            total=self._total,
            complaint=self._complaint,
        )
        for connection in connections:
            connection.close()
        return measured

    async def _pace(self) -> None:
        """Send at random moments, whole milliseconds apart, whether earlier requests were answered or not."""
        assert self.plan.rate_per_s is not None, "a pace needs a rate"
        due = start = time.perf_counter()
        due_s = 0.0
        while True:
            due_s += self._rng.expovariate(self.plan.rate_per_s)
            due = start + int(due_s * 1000) / 1000
            wait_s = due - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if self._counting:
                self._late.append(max(0.0, time.perf_counter() - due))
            if self._idle:
                self._idle.popleft().send(next(self._requests), due)
            else:
                self._waiting.append(due)


def main() -> None:
    """Carry out the plan on standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if plan.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, plan.cpus)
    measured = uvloop.run(_Run(plan).run())
    sys.stdout.buffer.write(msgspec.json.encode(measured))


if __name__ == "__main__":
    main()
