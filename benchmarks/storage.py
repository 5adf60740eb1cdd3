"""Rows about what lies on disk: how much, and that its length matters to nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.bodies import bodies
from benchmarks.history import write_history
from benchmarks.installation import LOOP, Installation, installed, scratch
from benchmarks.load import Measured, measure
from benchmarks.ranking import LONG, eventually_caught_up
from benchmarks.report import Row, at_most, milliseconds
from rankward.joining.service import JoiningService
from rankward.store.sqlite.event_log import SealPolicy, SqliteEventLog
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.wiring import Home

SMALL, LARGE = 10_000, 1_000_000
_JOINED_FILE = 8_192


def size(quick: bool) -> Iterator[Row]:
    """Bytes of an event once its files are sealed."""
    events = 20_000 if quick else 50_000
    with scratch() as folder:
        write_history(folder / "data", events=events)
        log_bytes, joined_bytes = asyncio.run(_sealed_bytes(folder / "data", events))
    total = log_bytes + joined_bytes
    yield Row(
        "bytes on disk per event, 10 actions that recur, half rewarded, sealed",
        f"{total:.0f} (event log {log_bytes:.0f}, joined log {joined_bytes:.0f})",
        f"{events:,} events",
        "",
        "at most 300",
        total <= 300,
    )


async def _sealed_bytes(root: Path, events: int) -> tuple[float, float]:
    home = Home(root)
    folder = home.folder.events(home.catalog.loop(LOOP).loop_id)
    home.close()
    log = SqliteEventLog(folder, clock=lambda: time.time_ns() // 1000, seal=SealPolicy(entries=1, age_us=1))
    joined = SqliteJoinedLog(root / "joined", file_entries=_JOINED_FILE)
    joining = JoiningService(log, joined, clock=lambda: time.time_ns() // 1000)
    while await joining.step():
        pass
    await log.maintain(joined_before=0, keep_after_us=0)
    await log.close()
    await joined.close()
    files = sorted((root / "joined").glob("*.joined"))
    return (
        sum(path.stat().st_size for path in folder.glob("*.seg")) / events,
        sum(path.stat().st_size for path in files) / (len(files) * _JOINED_FILE),
    )


def restart(quick: bool) -> Iterator[Row]:
    """From kill -9 to ready, and to the first decision, with a short log."""
    yield from _restart(SMALL, rounds=2 if quick else 5)


def large(quick: bool) -> Iterator[Row]:
    """A log of a million events against a short one: latency, memory, restart."""
    rounds = 2 if quick else 4
    with scratch() as folder:
        found = {}
        for events in (SMALL, LARGE):
            write_history(folder / str(events) / "data", events=events)
            with installed(folder / str(events)) as installation:
                eventually_caught_up(installation, within_s=1800)
        with installed(folder / str(SMALL)) as small, installed(folder / str(LARGE)) as long:
            for one in (small, long):
                one.settle(rewardWaitTime=LONG)
            time.sleep(5)
            runs: dict[int, list[Measured]] = {SMALL: [], LARGE: []}
            for _ in range(rounds):
                for events, one in ((SMALL, small), (LARGE, long)):
                    plan = one.plan(actions=10, seconds=4, connections=64)
                    runs[events].append(measure(msgspec.structs.replace(plan, rate_per_s=300)))
            for events, one in ((SMALL, small), (LARGE, long)):
                found[events] = _memory_mib(one)
        small_ms, long_ms = ([run.p99_ms for run in runs[events]] for events in (SMALL, LARGE))
        yield Row(
            f"log of {LARGE:,} events: Rank p99 at 300/s",
            milliseconds(long_ms),
            f"{SMALL:,} events {milliseconds(small_ms)}",
            *at_most(median(long_ms), median(small_ms), 1.2),
        )
        for name, index in (("worker", 0), ("an HTTP process", 1)):
            mib, small_mib = found[LARGE][index], found[SMALL][index]
            what = f"log of {LARGE:,} events: memory of {name}"
            yield Row(what, f"{mib:.0f} MiB", f"{SMALL:,} events {small_mib:.0f} MiB", *at_most(mib, small_mib, 1.2))
        yield from _restarts(folder / str(LARGE), LARGE, rounds)


def _memory_mib(installation: Installation) -> tuple[float, float]:
    def largest(role: str) -> float:
        return max(process.memory_info().rss for process in installation.processes(role)) / 2**20

    return largest("worker"), largest("api")


def _restart(events: int, *, rounds: int) -> Iterator[Row]:
    with scratch() as folder:
        write_history(folder / "data", events=events)
        with installed(folder) as installation:
            eventually_caught_up(installation)
        yield from _restarts(folder, events, rounds)


def _restarts(folder: Path, events: int, rounds: int) -> Iterator[Row]:
    ready_s, ranked_s = [], []
    with installed(folder) as installation:
        service = installation.service
        body = next(bodies(10, 5, seed=3))
        for _ in range(rounds):
            plan = installation.plan(actions=10, seconds=1, connections=8)
            measure(plan)
            service.kill()
            started = time.monotonic()
            service.start()
            ready_s.append(time.monotonic() - started)
            answered = _until(lambda: service.client(LOOP).call("POST", "/rank", body).status_code == 201)
            assert answered, "the loop ranks again"
            ranked_s.append(time.monotonic() - started)
    yield Row(
        f"restart after kill -9 of all processes, {events:,} events",
        f"ready {median(ready_s):.2f} s, first decision {median(ranked_s):.2f} s",
        f"longest {max(ranked_s):.2f} s of {rounds}",
        "",
        "under 2 s",
        median(ranked_s) < 2,
    )


def _until(condition: Callable[[], bool], *, within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False
