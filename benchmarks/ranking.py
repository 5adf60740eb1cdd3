"""Rows about Rank over HTTP: how many, how fast, and undisturbed by what goes on behind."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.history import write_history
from benchmarks.installation import LOOP, Installation, against, alternate, installed, pin, reference, scratch
from benchmarks.load import Measured, Plan, measure
from benchmarks.report import Row, at_least, at_most, milliseconds
from rankward.store.ports import ModelVersion
from rankward.store.sqlite.live import connect
from rankward.vw.presets import learner_arguments

SHORT = timedelta(seconds=1)
LONG = timedelta(minutes=10)


def _rate(runs: list[Measured]) -> float:
    return median(run.rate_per_s for run in runs)


def _p99(runs: list[Measured]) -> float:
    return median(run.p99_ms for run in runs)


def _cpu_us(runs: list[Measured]) -> str:
    return f"{median(run.served_cpu_us for run in runs):.0f}"


def _cores_apart() -> bool:
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1


def generator(quick: bool) -> Iterator[Row]:
    """What the load generator itself can do: it must be far from being what is measured."""
    cpus = sorted(os.sched_getaffinity(0))[:2] if _cores_apart() else []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.void", *map(str, cpus[1:])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None, "it has a pipe"
        port = int(process.stdout.readline())
        seconds = 1 if quick else 2
        plan = Plan(port=port, path="/rank", actions=10, connections=32, seconds=seconds, cpus=tuple(cpus[:1]))
        runs = [measure(plan) for _ in range(1 if quick else 3)]
    finally:
        process.kill()
        process.communicate()
    yield Row(
        "load generator on one core, against a socket that answers at once",
        f"{_rate(runs):,.0f}/s",
        f"{median(run.cpu_share for run in runs):.0%} of a core",
        f"{median(run.cpu_share / run.rate_per_s for run in runs) * 1e6:.0f} µs each",
        "over 10,000/s",
        _rate(runs) > 10_000,
    )


def throughput(quick: bool) -> Iterator[Row]:
    """Rank at full speed, and with nothing else to do, against the reference handler."""
    with scratch() as folder, installed(folder) as installation:
        installation.learn(seconds=2 if quick else 4)
        with reference(installation, folder) as port:
            for actions in (10, 50):
                plan = installation.plan(actions=actions, seconds=1 if quick else 3)
                plans = {"ours": plan, "reference": against(plan, port.number)}
                spent = {"ours": installation.cpu_s, "reference": port.cpu_s}
                found = alternate(plans, rounds=2 if quick else 5, spent=spent)
                ours, theirs = found["ours"], found["reference"]
                workers = len(installation.processes("api"))
                what = f"Rank, {actions} actions, 32 connections, {workers} HTTP processes"
                yield Row(
                    f"{what}: throughput",
                    f"{_rate(ours):,.0f}/s, {_cpu_us(ours)} µs of CPU each",
                    f"reference {_rate(theirs):,.0f}/s, {_cpu_us(theirs)} µs of CPU each",
                    *at_least(_rate(ours), _rate(theirs), 2),
                )
                yield Row(
                    f"{what}: p99",
                    milliseconds([run.p99_ms for run in ours]),
                    f"reference {milliseconds([run.p99_ms for run in theirs])}",
                    *at_most(_p99(ours), _p99(theirs), 1),
                )
            yield from _unloaded(installation, port.number, folder, quick)


def _unloaded(installation: Installation, port: int, folder: Path, quick: bool) -> Iterator[Row]:
    plan = installation.plan(actions=10, seconds=1 if quick else 2, connections=1)
    plans = {"ours": plan, "reference": against(plan, port)}
    found: dict[str, list[Measured]] = {name: [] for name in plans}
    commits_ms = []
    for _ in range(2 if quick else 5):
        for name, runs in alternate(plans, rounds=1).items():
            found[name] += runs
        commits_ms.append(commit_ms(folder))
    figures: dict[str, Callable[[Measured], float]] = {"median": lambda run: run.p50_ms, "p99": lambda run: run.p99_ms}
    for name, figure in figures.items():
        ours, theirs = ([figure(run) for run in found[side]] for side in ("ours", "reference"))
        bound = median(theirs) + 2 * median(commits_ms)
        ratio, budget, met = at_most(median(ours), bound, 1)
        yield Row(
            f"Rank unloaded, 10 actions, 1 connection: {name}",
            milliseconds(ours),
            f"reference {median(theirs):.2f} ms + 2 commits of {median(commits_ms):.2f} ms = {bound:.2f} ms",
            ratio,
            budget if name == "median" else "",
            met if name == "median" else None,
        )


def commit_ms(folder: Path) -> float:
    """Measure a commit of one row as the event log makes it, in milliseconds (median)."""
    path = folder / "commit.sqlite"
    connection = connect(path, must_exist=False)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS entry (offset INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        taken = []
        for _ in range(200):
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO entry (body) VALUES (?)", (b"x" * 500,))
            connection.execute("COMMIT")
            taken.append(time.perf_counter() - started)
        return median(taken) * 1000
    except sqlite3.Error as error:
        raise SystemExit(f"{path} cannot be measured: {error}") from error
    finally:
        connection.close()


def one_core(quick: bool) -> Iterator[Row]:
    """What a call costs above the learner: one HTTP process on a core of its own."""
    if not _cores_apart():
        yield Row("Rank on one core", "needs two cores", "", "", "", None)
        return
    first, second = sorted(os.sched_getaffinity(0))[:2]
    with scratch() as folder, installed(folder, workers=1) as installation:
        installation.learn(seconds=2 if quick else 4)
        [api] = installation.processes("api")
        pin(api, [first])
        for other in installation.processes("worker"):
            pin(other, [second])
            for trainer in other.children():
                pin(trainer, [second])
        version = installation.version()
        arguments = learner_arguments(version.policy, version.interactions, 0.02, version.rate)
        model = folder / "model.vw"
        model.write_bytes(installation.service.home.models.get(version.loop_id, version.model_id))
        for actions in (10, 50):
            plan = installation.plan(actions=actions, seconds=1 if quick else 3)
            plan = msgspec.structs.replace(plan, cpus=(second,))
            calls_us, cpu_us, learner_us = [], [], []
            for _ in range(2 if quick else 5):
                before = api.cpu_times()
                measured = measure(plan)
                after = api.cpu_times()
                calls_us.append(1e6 / measured.rate_per_s)
                spent_s = after.user - before.user + after.system - before.system
                cpu_us.append(1e6 * spent_s / (measured.rate_per_s * (plan.seconds + plan.warmup_s)))
                command = [sys.executable, "-m", "benchmarks.scoring", str(actions), str(first), arguments, str(model)]
                learner_us.append(float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout))
            call, learner = median(calls_us), median(learner_us)
            measured_text = f"{call:.0f} µs a call ({median(cpu_us):.0f} µs of its CPU)"
            if actions == 50:
                judged = at_most(call, learner, 3)
            else:
                judged = (f"{call - learner:.0f} µs above", "at most 250 µs above", call - learner <= 250)
            yield Row(f"Rank on one core, {actions} actions", measured_text, f"learner {learner:.0f} µs", *judged)


def swaps(quick: bool) -> Iterator[Row]:
    """Tail latency while models are swapped, against the same without."""
    with scratch() as folder, installed(folder) as installation:
        installation.learn(seconds=2 if quick else 4)
        plan = installation.plan(actions=10, seconds=3 if quick else 6, connections=64)
        plan = msgspec.structs.replace(plan, rate_per_s=300, warmup_s=1)
        found: dict[str, list[Measured]] = {"quiet": [], "swapped": [], "trained": []}
        swap_counts = []
        for _ in range(1 if quick else 3):
            installation.settle(rewardWaitTime=LONG)
            time.sleep(2.5)  # what was waiting is joined, learned and published
            found["quiet"].append(measure(plan))
            with _publishing(installation):
                found["swapped"].append(measure(plan))
            installation.settle(rewardWaitTime=SHORT)
            before = {version.model_id for version in _versions(installation)}
            found["trained"].append(measure(msgspec.structs.replace(plan, warmup_s=2.5)))
            swap_counts.append(sum(version.model_id not in before for version in _versions(installation)))
        quiet = [run.p99_ms for run in found["quiet"]]
        for name, what in (
            ("trained", f"joining, training, {median(swap_counts):.0f} new models in {plan.seconds + 2.5:g} s"),
            ("swapped", "a new model every second, nothing learned"),
        ):
            runs = [run.p99_ms for run in found[name]]
            yield Row(
                f"Rank p99 at 300/s, 10 actions, open loop: {what}",
                milliseconds(runs),
                f"nothing swapped {milliseconds(quiet)}",
                *at_most(median(runs), median(quiet), 2),
            )


def _versions(installation: Installation) -> list[ModelVersion]:
    return list(installation.service.home.catalog.versions(installation.service.loop(LOOP).loop_id))


@contextmanager
def _publishing(installation: Installation) -> Iterator[None]:
    """Publish the same model under another name every second."""
    home, version = installation.service.home, installation.version()
    model = home.models.get(version.loop_id, version.model_id)
    stop = threading.Event()

    def publish() -> None:
        for number in itertools.count():
            if stop.wait(1.0):
                return
            copied = msgspec.structs.replace(version, model_id=f"swap-{time.time_ns()}-{number}", resumable=False)
            home.models.put(version.loop_id, copied.model_id, model)
            home.catalog.publish(copied, serve=True)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def open_loop(quick: bool) -> Iterator[Row]:
    """Latency at a fixed rate, from the moment each request was due; and again while a rebuild runs."""
    with scratch() as folder:
        write_history(folder / "data", events=10_000 if quick else 50_000, actions=20, features=20)
        with installed(folder) as installation:
            eventually_caught_up(installation)
            installation.settle(rewardWaitTime=LONG)
            plan = installation.plan(actions=20, features=20, seconds=5 if quick else 20, connections=128)
            plan = msgspec.structs.replace(plan, rate_per_s=500, warmup_s=1)
            yield _tail("Rank at 500/s, 20 actions of 20 features, open loop", measure(plan))
            with _rebuilding(installation) as rebuilt:
                run = measure(plan)
            yield _tail(f"the same while rebuilding ({rebuilt[0]} begun)", run)


def _tail(what: str, run: Measured) -> Row:
    return Row(
        what,
        f"p50 {run.p50_ms:.2f}, p99 {run.p99_ms:.2f}, p99.9 {run.p999_ms:.2f} ms",
        f"generator {run.cpu_share:.0%} of a core, late p99 {run.late_ms_p99:.2f} ms",
        "",
        "p99 at most 10, p99.9 at most 50 ms",
        run.p99_ms <= 10 and run.p999_ms <= 50,
    )


def eventually_caught_up(installation: Installation, *, within_s: float = 600) -> None:
    """Wait until everything is joined and learned."""
    home, loop_id = installation.service.home, installation.service.loop(LOOP).loop_id
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        notes = {name: json.loads(note) for name, note in home.board.read(loop_id).items()}
        training = [note for name, note in notes.items() if name.startswith("training-")]
        joining = notes.get("joining", {"head": 0, "end": 1})
        joined = joining["head"] >= joining["end"] and joining["next_due_us"] is None
        if joined and training and all(note["joined_offset"] >= joining["joined_end"] for note in training):
            return
        time.sleep(0.2)
    raise SystemExit(f"the loop has not caught up within {within_s:g} s")


@contextmanager
def _rebuilding(installation: Installation) -> Iterator[list[int]]:
    """Keep an epoch building all the time. Gives how many were begun."""
    home, loop_id = installation.service.home, installation.service.loop(LOOP).loop_id
    client = installation.service.client(LOOP)
    stop = threading.Event()
    begun = [0]

    def rebuild() -> None:
        while not stop.wait(0.1):
            if any(epoch.state == "building" for epoch in home.catalog.epochs(loop_id)):
                continue
            begun[0] += 1
            policy = f"--cb_explore_adf --squarecb --gamma_scale {10 + begun[0]} --epsilon 0.02 --cb_type mtr -q :: "
            answer = client.put("/configurations/policy", {"name": "bench", "arguments": policy.strip()})
            assert answer.status_code == 200, f"the policy is refused: {answer.text}"

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        yield begun
    finally:
        stop.set()
        thread.join()
