"""What runs in each process of an installation: `python -m rankward.roles ROLE FOLDER …`.

Every role but the supervisor ends when its standard input does: so none outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from rankward.api.options import ApiOptions
from rankward.archiving.rounds import ArchivingRounds
from rankward.challengers import ChallengerService
from rankward.errors import NotFound, NotLeading, WorldError
from rankward.import_run import ImportRun
from rankward.optimization.service import OptimizationService
from rankward.optimization.watcher import Watcher
from rankward.settings import Limits
from rankward.sharing import ShareRun
from rankward.store.ports import Fence
from rankward.store.sqlite.folder import FolderLock
from rankward.store.studies import StudyKind
from rankward.study_run import StudyRun
from rankward.watching.rounds import Rounds
from rankward.wiring import Home
from rankward.worker import Leading, LeadsAll, Worker, spawner

logger = logging.getLogger(__name__)

_UNDER = 3  # arguments that say under which term of which loop: "under", the loop's id, the term


def stop_event(*, follow_stdin: bool) -> asyncio.Event:
    """Make an event that is set by SIGTERM or SIGINT, and when the parent goes away."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def watch() -> None:
        while os.read(0, 1):
            pass
        loop.call_soon_threadsafe(stop.set)

    if follow_stdin:
        threading.Thread(target=watch, name="parent", daemon=True).start()
    return stop


async def run_worker(root: Path, *, may_work: bool) -> None:
    """Work for a folder, once no other worker does.

    Args:
        root: the folder.
        may_work: False: only keep a node's replica, and leave all else to workers on other nodes.
    """
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    lock = FolderLock(home.folder.worker_lock)
    while not lock.take():
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
            return
        except TimeoutError:
            continue
    async with contextlib.AsyncExitStack() as entered:
        leading: Leading = LeadsAll()
        if home.broker is not None:
            from rankward.cluster.node import among_others  # noqa: PLC0415  # an embedded installation does without

            leading = await entered.enter_async_context(among_others(home, may_work=may_work))
        await Worker(home, spawner(home), leading).run(stop)
    home.close()


async def run_trainer(root: Path, loop_name: str, epoch_id: int) -> None:
    """Train one epoch."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    loop = home.catalog.loop(loop_name)
    lock = FolderLock(home.folder.mark(loop.loop_id, epoch_id).with_suffix(".lock"))
    while not lock.take():  # the one before may still be on its way out
        if stop.is_set():
            return
        await asyncio.sleep(0.05)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    try:
        await home.training(loop_name, epoch_id, log, joined).run(stop)
    finally:
        await log.close()
        await joined.close()
        home.close()


async def run_mirror(root: Path, loop_name: str) -> None:
    """Mirror one loop's log."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    loop = home.catalog.loop(loop_name)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    try:
        await home.mirroring(loop_name, log, joined).run(stop)
    finally:
        await log.close()
        await joined.close()
        home.close()


async def run_watch(root: Path) -> None:
    """Keep the figures of all loops."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    try:
        await Rounds(home).run(stop)
    finally:
        home.close()


async def run_archive(root: Path) -> None:
    """Archive the logs of all loops."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    lock = FolderLock(home.folder.run / "archive.lock")
    while not lock.take():  # the one before may still be on its way out
        if stop.is_set():
            return
        await asyncio.sleep(0.05)
    try:
        place = home.archives.place()
        if place is not None:
            await ArchivingRounds(home, place).run(stop)
    finally:
        home.close()


async def run_snapshots(root: Path) -> None:
    """Take the snapshots of the loops that a node leads."""
    from rankward.cluster.rounds import SnapshotRounds  # noqa: PLC0415  # an embedded installation does without

    stop = stop_event(follow_stdin=True)
    home = Home(root)
    try:
        await SnapshotRounds(home).run(stop)
    finally:
        home.close()


async def run_challengers(root: Path, loop_name: str) -> None:
    """Run one loop's challengers."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    loop = home.catalog.loop(loop_name)
    lock = FolderLock(home.folder.challenger_mark(loop.loop_id, "all").with_suffix(".lock"))
    while not lock.take():  # the one before may still be on its way out
        if stop.is_set():
            return
        await asyncio.sleep(0.05)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    try:
        service = ChallengerService(home, home.trail)
        challenging = home.challenging(
            loop_name, log, joined, succeed=lambda younger: service.succeed(loop, younger, log=log)
        )
        await challenging.run(stop)
    finally:
        await log.close()
        await joined.close()
        home.close()


async def run_optimization_watch(root: Path, loop_name: str, optimization_id: str) -> None:
    """Keep the watch over what an optimization applied."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    loop = home.catalog.loop(loop_name)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    try:
        service = OptimizationService(home, log=lambda _: log, joined=lambda _: joined, limits=Limits())
        run = service.find(loop, optimization_id)
        await Watcher(home, loop, run, service, log=log, joined=joined).run(stop)
    finally:
        await log.close()
        await joined.close()
        home.close()


async def run_import(root: Path, loop_name: str, key: str) -> None:
    """Run an import of a file that was sent."""
    stop = stop_event(follow_stdin=True)
    home = Home(root)
    try:
        loop = home.catalog.loop(loop_name)
        wanted = next((each for each in home.imports(loop.loop_id).unfinished() if each.key == key), None)
        if wanted is not None:
            await ImportRun(home, loop, wanted, stop.is_set).run()
    finally:
        home.close()


def run_study(root: Path, key: str) -> None:
    """Run a study, or a share of one."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
    home = Home(root)
    try:
        study = home.studies.by_key(key)
        if study is not None:  # it may have been deleted just now
            run = ShareRun if study.kind is StudyKind.SHARE else StudyRun
            run(home, study, stop.is_set).run()
    finally:
        home.close()


def main(arguments: Sequence[str]) -> None:
    """Run a role: for a loop under a term, if the last arguments say so."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    fence = None
    if len(arguments) >= _UNDER and arguments[-_UNDER] == "under":
        *arguments, _, loop_id, term = arguments
        fence = Fence(loop_id, int(term))
    try:
        with Home.acting(fence):
            _run(arguments)
    except NotLeading as error:
        logger.info("%s ends: %s", " ".join(arguments[:1]), error)
    except WorldError as error:
        logger.error("%s ends, and is started again: %s", " ".join(arguments[:1]), error)
        sys.exit(1)


def _run(arguments: Sequence[str]) -> None:
    match arguments:
        case ["worker", root]:
            asyncio.run(run_worker(Path(root), may_work=True))
        case ["follower", root]:
            asyncio.run(run_worker(Path(root), may_work=False))
        case ["trainer", root, loop_name, epoch_id]:
            os.nice(5)
            try:
                asyncio.run(run_trainer(Path(root), loop_name, int(epoch_id)))
            except NotFound:
                logger.info("loop %s is gone", loop_name)
        case ["mirror", root, loop_name]:
            os.nice(10)
            try:
                asyncio.run(run_mirror(Path(root), loop_name))
            except NotFound:
                logger.info("loop %s is gone", loop_name)
        case ["watch", root]:
            os.nice(10)
            asyncio.run(run_watch(Path(root)))
        case ["snapshots", root]:
            os.nice(10)
            asyncio.run(run_snapshots(Path(root)))
        case ["archive", root]:
            os.nice(10)
            asyncio.run(run_archive(Path(root)))
        case ["challenge", root, loop_name]:
            os.nice(15)
            try:
                asyncio.run(run_challengers(Path(root), loop_name))
            except NotFound:
                logger.info("loop %s is gone", loop_name)
        case ["optimization-watch", root, loop_name, optimization_id]:
            os.nice(5)
            try:
                asyncio.run(run_optimization_watch(Path(root), loop_name, optimization_id))
            except NotFound:
                logger.info("the watch %s of loop %s is gone", optimization_id, loop_name)
        case ["import", root, loop_name, key]:
            os.nice(10)
            try:
                asyncio.run(run_import(Path(root), loop_name, key))
            except NotFound:
                logger.info("loop %s is gone", loop_name)
        case ["study", root, key]:
            os.nice(10)
            run_study(Path(root), key)
        case ["api", root, descriptor, number, options]:
            # Imported here because the other roles need no HTTP, and because metrics are set up on import.
            from rankward.api.process import run_api  # noqa: PLC0415

            decoded = msgspec.json.decode(options, type=ApiOptions)
            uvloop.run(run_api(Path(root), int(descriptor), int(number), decoded))
        case _:
            sys.exit(f"there is no role {' '.join(arguments)!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
