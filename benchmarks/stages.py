"""Joining, training, importing, and `vw` by itself, each in its own process: prints the seconds of CPU, then the rate.

Run as a program: `join ROOT EVENTS`, `train ROOT EVENTS`, `import FILE FOLDER`, or `vw FILE EVENTS ARGUMENTS`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vowpalwabbit import Workspace

from benchmarks.installation import LOOP
from rankward.history.importing import IMPORTED, Importer
from rankward.joining.service import JoiningService
from rankward.ranking.features import FeatureBounds
from rankward.records import EventId, JoinedEntry, Offset
from rankward.settings import Limits
from rankward.store.ports import JoinedLog, JoinState, JoinStep, Match, Unmatched
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.folder import FileMark
from rankward.training.service import TrainingService
from rankward.wiring import Home


class Pace:
    """The steady rate of a stage, in events a second: from the first fifth on, when everything is loaded."""

    def __init__(self, events: int) -> None:
        self._warm = events // 5
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)

    def reached(self, count: int) -> None:
        """So many events are done now."""
        self._last = (time.perf_counter(), count)
        if self._first is None and count >= self._warm:
            self._first = self._last

    @property
    def per_s(self) -> float:
        """The rate from the first fifth to what was reached last."""
        assert self._first is not None, "the stage has not come to its first fifth"
        (began, first), (ended, last) = self._first, self._last
        return (last - first) / (ended - began)


async def join(root: Path, events: int) -> float:
    """Join as the worker does, until so many events are joined. Returns the steady rate."""
    home = Home(root)
    loop_id = home.catalog.loop(LOOP).loop_id
    log, joined = home.event_log(loop_id), home.joined_log(loop_id)
    service = JoiningService(log, joined, clock=home.clock)
    pace = Pace(events)
    done = 0
    while done < events:
        await service.step()
        done = (await joined.extent())[1]
        pace.reached(done)
    await log.close()
    await joined.close()
    home.close()
    return pace.per_s


class _Watched(JoinedLog):
    """A joined log that tells how far its reader has come, and when it is at the end."""

    def __init__(self, joined: JoinedLog, end: Offset, pace: Pace, stop: asyncio.Event) -> None:
        self._joined = joined
        self._end = end
        self._pace = pace
        self._stop = stop

    async def read(self, start: Offset, *, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        if not self._stop.is_set():
            self._pace.reached(start)  # what stands before has been learned
        if start >= self._end:
            self._stop.set()
        return await self._joined.read(start, limit=limit)

    def change_mark(self) -> int:
        return self._joined.change_mark()

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

    async def erase(self, interactions: Collection[Offset], event_ids: Collection[EventId]) -> None:
        await self._joined.erase(interactions, event_ids)

    async def close(self) -> None:
        await self._joined.close()


async def train(root: Path, events: int) -> float:
    """Train as the trainer process does, until so many joined events are learned. Returns the steady rate."""
    home = Home(root)
    loop = home.catalog.loop(LOOP)
    [epoch] = home.catalog.epochs(loop.loop_id)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    pace, stop = Pace(events), asyncio.Event()
    service = TrainingService(
        LOOP,
        epoch.epoch_id,
        log=log,
        joined=_Watched(joined, events, pace, stop),
        catalog=home.catalog,
        models=home.models,
        board=home.board,
        mark=FileMark(home.folder.mark(loop.loop_id, epoch.epoch_id)),
        clock=home.clock,
        timer=home.timer,
    )
    await service.run(stop)
    await log.close()
    await joined.close()
    home.close()
    return pace.per_s


async def take_in(file: Path, folder: Path) -> float:
    """Import a file into an empty log. Returns the rate."""
    log = SqliteEventLog(folder, clock=lambda: time.time_ns() // 1000)
    importer = Importer(log, bounds=FeatureBounds(), limits=Limits(), reward_wait_us=2_000_000)
    started = time.perf_counter()
    state = await importer.run([file])
    seconds = time.perf_counter() - started
    await log.close()
    return state.counts[IMPORTED] / seconds


def read_alone(file: str, events: int, arguments: str) -> float:
    """Let `vw` read a file by itself: it does so when it is made. Making it without a file is taken off."""
    started = time.perf_counter()
    Workspace(f"--quiet {arguments}").finish()
    made = time.perf_counter()
    workspace = Workspace(f"--dsjson -d {file} --quiet {arguments}")
    workspace.finish()
    return events / ((time.perf_counter() - made) - (made - started))


def main(arguments: Sequence[str]) -> None:
    """Run one of them."""
    cpu_s = time.process_time()
    match arguments:
        case ["join", root, events]:
            per_s = asyncio.run(join(Path(root), int(events)))
        case ["train", root, events]:
            per_s = asyncio.run(train(Path(root), int(events)))
        case ["import", file, folder]:
            per_s = asyncio.run(take_in(Path(file), Path(folder)))
        case ["vw", file, events, options]:
            per_s = read_alone(file, int(events), options)
        case _:
            sys.exit(f"there is no stage {arguments!r}")
    print(time.process_time() - cpu_s)
    print(per_s)


if __name__ == "__main__":
    main(sys.argv[1:])
