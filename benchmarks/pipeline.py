"""Rows about the way from an event to a model that has learned it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks.history import write_history
from benchmarks.installation import LOOP, installed, scratch
from benchmarks.load import measure
from benchmarks.report import Row, at_least
from rankward.history.export import LineSink, export
from rankward.joining.reward import RewardDefinition
from rankward.records import interactions
from rankward.settings import Aggregation
from rankward.vw.presets import learner_arguments
from rankward.wiring import Home

EVENTS = 100_000


class _Run(NamedTuple):
    """How a stage did."""

    per_s: float
    cpu_s: float


def stages(quick: bool) -> Iterator[Row]:
    """Joining and training, against `vw` reading the same events by itself, parsing in a thread of its own.

    All rates are steady ones: without the start of a process, and without the first fifth of the events.
    """
    events = EVENTS // 4 if quick else EVENTS
    with scratch() as folder:
        master, dsjson = folder / "master", folder / "events.json"
        write_history(master, events=events)
        runs: dict[str, list[_Run]] = {"join": [], "train": [], "vw": []}
        at_once = []
        arguments = ""
        for _ in range(1 if quick else 3):
            root = folder / "run"
            shutil.copytree(master, root)
            runs["join"].append(finish(start("join", str(root), str(events))))
            runs["train"].append(finish(start("train", str(root), str(events))))
            if not arguments:
                arguments = asyncio.run(write_dsjson(root, dsjson))
            shutil.rmtree(root)
            runs["vw"].append(finish(start("vw", str(dsjson), str(events), arguments)))
            shutil.copytree(master, root)
            both = [start("join", str(root), str(events)), start("train", str(root), str(events))]
            at_once.append(min(finish(stage).per_s for stage in both))
            shutil.rmtree(root)
            runs["vw"].append(finish(start("vw", str(dsjson), str(events), arguments)))
    rate = {name: median(run.per_s for run in found) for name, found in runs.items()}
    cpu_us = {name: median(run.cpu_s for run in found) / events * 1e6 for name, found in runs.items()}
    alone = rate["vw"]
    told = f"vw by itself {alone:,.0f}/s, {cpu_us['vw']:.0f} µs of CPU each"
    for name, what in (("join", f"joining, {events:,} events of 10 actions"), ("train", "training on them")):
        measured = f"{rate[name]:,.0f}/s, {cpu_us[name]:.0f} µs of CPU each"
        yield Row(what, measured, told, f"{rate[name] / alone:.2f}", "", None)
    in_turn = 1 / (1 / rate["join"] + 1 / rate["train"])
    yield Row(
        "joining, then training: one after the other", f"{in_turn:,.0f}/s", told, f"{in_turn / alone:.2f}", "", None
    )
    both_per_s = median(at_once)
    what = "joining and training at once, in two processes as in service: the slower of the two"
    yield Row(what, f"{both_per_s:,.0f}/s", told, *at_least(both_per_s, alone, 0.8))


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stages", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> _Run:
    """Wait for a stage, and hear how it went."""
    try:
        output, _ = process.communicate(timeout=1200)
    finally:
        process.kill()
    assert process.returncode == 0, f"a stage ended with {process.returncode}"
    cpu_s, per_s = map(float, output.splitlines())
    return _Run(per_s, cpu_s)


async def write_dsjson(root: Path, file: Path) -> str:
    """Write all that is joined as `vw` reads it. Returns the arguments that the epoch trains with."""
    home = Home(root)
    loop = home.catalog.loop(LOOP)
    [epoch] = home.catalog.epochs(loop.loop_id)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    reward = RewardDefinition(epoch.default_reward, Aggregation(epoch.reward_aggregation))
    with file.open("wb") as lines:
        await export(log, joined, LineSink(lines, reward))
    await log.close()
    await joined.close()
    home.close()
    return learner_arguments(epoch.policy, epoch.interactions, loop.settings.exploration, epoch.rate)


def imports(quick: bool) -> Iterator[Row]:
    """Importing log lines into an empty loop, against `vw` reading and learning the same file."""
    events = EVENTS // 5 if quick else EVENTS // 2
    with scratch() as folder:
        root, dsjson = folder / "data", folder / "events.json"
        write_history(root, events=events)
        finish(start("join", str(root), str(events)))
        finish(start("train", str(root), str(events)))  # which settles the epoch's arguments
        arguments = asyncio.run(write_dsjson(root, dsjson))
        imported, alone = [], []
        for number in range(1 if quick else 3):
            alone.append(finish(start("vw", str(dsjson), str(events), arguments)))
            imported.append(finish(start("import", str(dsjson), str(folder / f"log-{number}"))))
    ours, its = median(run.per_s for run in imported), median(run.per_s for run in alone)
    our_cpu_us, its_cpu_us = (median(run.cpu_s for run in runs) / events * 1e6 for runs in (imported, alone))
    yield Row(
        f"importing {events:,} log lines of 10 actions",
        f"{ours:,.0f}/s, {our_cpu_us:.0f} µs of CPU each",
        f"vw by itself {its:,.0f}/s, {its_cpu_us:.0f} µs of CPU each",
        *at_least(ours, its, 0.5),
    )


def freshness(quick: bool) -> Iterator[Row]:
    """From the end of a reward wait to the first decision by a model that has learned the event."""
    with scratch() as folder, installed(folder) as installation:
        plan = installation.plan(actions=10, seconds=10 if quick else 20, connections=4)
        started_us = time.time_ns() // 1000
        measure(msgspec.structs.replace(plan, rate_per_s=50, reward_share=0.5, warmup_s=0))
        entries = installation.service.entries(LOOP)
        loop_id = installation.service.loop(LOOP).loop_id
        learned_to_us = {v.model_id: v.learned_to_us for v in installation.service.home.catalog.versions(loop_id)}
        decided = [
            (entry.time_us, interaction.reward_wait_us, learned_to_us.get(interaction.model_id or "", 0))
            for entry, interaction in interactions(entries)
        ]
    waits_s = []
    index = 0
    for time_us, wait_us, _ in decided:
        while index < len(decided) and decided[index][2] < time_us:
            index += 1
        if index == len(decided):
            break
        if time_us > started_us + 2_000_000:  # the first model has nothing to be published after
            waits_s.append((decided[index][0] - time_us - wait_us) / 1e6)
    typical = median(waits_s)
    yield Row(
        "reward wait over to new model serving, export frequency 1 s",
        f"median {typical:.2f} s, longest {max(waits_s):.2f} s",
        f"{len(waits_s)} events at 50/s",
        "",
        "median under 2 s",
        typical < 2,
    )
