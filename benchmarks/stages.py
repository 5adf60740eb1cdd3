"""Joining, training, and `vw` by itself, each in its own process: prints the CPU it took, then the time, in seconds.

Run as a program: `join ROOT`, `train ROOT EVENTS`, or `vw FILE ARGUMENTS`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vowpalwabbit import Workspace

from benchmarks.installation import LOOP
from rankward.joining.service import JoiningService
from rankward.records import JoinedEntry, Offset
from rankward.store.ports import JoinedLog, JoinState, JoinStep, Match, Unmatched
from rankward.store.sqlite.folder import FileMark
from rankward.training.service import TrainingService
from rankward.wiring import Home


async def join(root: Path, events: int) -> float:
    """Join as the worker does, until so many events are joined."""
    home = Home(root)
    loop_id = home.catalog.loop(LOOP).loop_id
    log, joined = home.event_log(loop_id), home.joined_log(loop_id)
    service = JoiningService(log, joined, clock=home.clock)
    started = time.perf_counter()
    while (await joined.extent())[1] < events:
        await service.step()
    seconds = time.perf_counter() - started
    await log.close()
    await joined.close()
    home.close()
    return seconds


class _Ending(JoinedLog):
    """A joined log that tells when its reader has come to the end."""

    def __init__(self, joined: JoinedLog, end: Offset, stop: asyncio.Event) -> None:
        self._joined = joined
        self._end = end
        self._stop = stop

    async def read(self, start: Offset, *, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        if start >= self._end:
            self._stop.set()
        return await self._joined.read(start, limit=limit)

    async def extent(self) -> tuple[Offset, Offset]:
        return await self._joined.extent()

    async def state(self) -> JoinState:
        return await self._joined.state()

    async def early(self) -> Sequence[Unmatched]:
        return await self._joined.early()

    async def matches(self, interactions: Sequence[Offset]) -> Mapping[Offset, Sequence[Match]]:
        return await self._joined.matches(interactions)

    async def commit(self, step: JoinStep) -> None:
        await self._joined.commit(step)

    async def drop(self, *, before: Offset) -> None:
        await self._joined.drop(before=before)

    async def close(self) -> None:
        await self._joined.close()


async def train(root: Path, events: int) -> float:
    """Train as the trainer process does, until so many joined events are learned; the last model is published."""
    home = Home(root)
    loop = home.catalog.loop(LOOP)
    [epoch] = home.catalog.epochs(loop.loop_id)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    stop = asyncio.Event()
    service = TrainingService(
        LOOP,
        epoch.epoch_id,
        log=log,
        joined=_Ending(joined, events, stop),
        catalog=home.catalog,
        models=home.models,
        board=home.board,
        mark=FileMark(home.folder.mark(loop.loop_id, epoch.epoch_id)),
        clock=home.clock,
    )
    started = time.perf_counter()
    await service.run(stop)
    seconds = time.perf_counter() - started
    await log.close()
    await joined.close()
    home.close()
    return seconds


def read_alone(file: str, arguments: str) -> float:
    """Let `vw` read a file by itself: it does so when it is made. Making it without a file is taken off."""
    started = time.perf_counter()
    Workspace(f"--quiet {arguments}").finish()
    made = time.perf_counter()
    workspace = Workspace(f"--dsjson -d {file} --quiet {arguments}")
    workspace.finish()
    return (time.perf_counter() - made) - (made - started)


def main(arguments: Sequence[str]) -> None:
    """Run one of them."""
    cpu_s = time.process_time()
    match arguments:
        case ["join", root, events]:
            seconds = asyncio.run(join(Path(root), int(events)))
        case ["train", root, events]:
            seconds = asyncio.run(train(Path(root), int(events)))
        case ["vw", file, options]:
            seconds = read_alone(file, options)
        case _:
            sys.exit(f"there is no stage {arguments!r}")
    print(time.process_time() - cpu_s)
    print(seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
