"""What runs in each process of an installation: `python -m rankward.roles ROLE FOLDER …`.

Each ends when its standard input does: so none outlives the process that started it. Each imports what its role needs,
when it takes it: there are as many trainers as loops, and they start the sooner for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rankward.errors import NotFound, NotLeading, ServersAway, WorldError
from rankward.store.ports import Fence
from rankward.store.sqlite.folder import FolderLock
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_LOCK_AGAIN_S = 0.05
_UNDER = 3  # arguments that say under which term of which loop: "under", the loop's id, the term


def main(arguments: Sequence[str]) -> None:
    """Run a role: for a loop under a term, if the last arguments say so."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    fence = None
    if len(arguments) >= _UNDER and arguments[-_UNDER] == "under":
        *arguments, _, loop_id, term = arguments
        fence = Fence(loop_id, int(term))
    try:
        with Home.acting(fence):
            _act(arguments)
    except NotLeading as error:
        logger.info("%s ends: %s", " ".join(arguments[:1]), error)
    except WorldError as error:
        logger.error("%s ends, and is started again: %s", " ".join(arguments[:1]), error)
        # Who counts how often it died does not count that.
        sys.exit(os.EX_TEMPFAIL if isinstance(error, ServersAway) else 1)


class _Role(NamedTuple):
    """What one process does with the installation that it has opened."""

    run: Callable[..., Coroutine[Any, Any, None]]  # is given the installation, what is set to stop it, and arguments
    niceness: int


async def _run_worker(home: Home, stop: asyncio.Event, *, may_work: bool) -> None:
    """Work for a folder, once no other worker does.

    Args:
        home: the installation.
        stop: is set when it is to end.
        may_work: False: only keep a node's replica, and leave all else to workers on other nodes.
    """
    from rankward.worker import Leading, LeadsAll, Worker, spawner

    if not await _taken(home.folder.worker_lock, stop):
        return
    async with contextlib.AsyncExitStack() as entered:
        leading: Leading = LeadsAll()
        if home.broker is not None:
            from rankward.cluster.node import among_others

            leading = await entered.enter_async_context(among_others(home, may_work=may_work))
        await Worker(home, spawner(home), leading).run(stop)


async def _run_trainer(home: Home, stop: asyncio.Event, loop_name: str, epoch_id: str) -> None:
    """Train one epoch."""
    loop = home.catalog.loop(loop_name)
    if await _taken(home.folder.mark(loop.loop_id, int(epoch_id)).with_suffix(".lock"), stop):
        async with home.logs(loop.loop_id) as (log, joined):
            await home.training(loop_name, int(epoch_id), log, joined).run(stop)


async def _run_mirror(home: Home, stop: asyncio.Event, loop_name: str) -> None:
    """Mirror one loop's log."""
    async with home.logs(home.catalog.loop(loop_name).loop_id) as (log, joined):
        await home.mirroring(loop_name, log, joined).run(stop)


async def _run_watch(home: Home, stop: asyncio.Event) -> None:
    """Keep the figures of all loops."""
    from rankward.watching.rounds import watching_rounds

    await watching_rounds(home).run(stop)


async def _run_archive(home: Home, stop: asyncio.Event) -> None:
    """Archive the logs of all loops."""
    from rankward.archiving.rounds import archiving_rounds

    if await _taken(home.folder.run / "archive.lock", stop):
        place = home.archives.place()
        if place is not None:
            await archiving_rounds(home, place).run(stop)


async def _run_snapshots(home: Home, stop: asyncio.Event) -> None:
    """Take the snapshots of the loops that a node leads."""
    from rankward.cluster.rounds import SnapshotRounds

    await SnapshotRounds(home).run(stop)


async def _run_challengers(home: Home, stop: asyncio.Event, loop_name: str) -> None:
    """Run one loop's challengers."""
    from rankward.challengers import ChallengerService

    loop = home.catalog.loop(loop_name)
    if await _taken(home.folder.challenger_mark(loop.loop_id, "all").with_suffix(".lock"), stop):
        async with home.logs(loop.loop_id) as (log, joined):
            service = ChallengerService(home, home.trail)
            challenging = home.challenging(
                loop_name, log, joined, succeed=lambda younger: service.succeed(loop, younger, log=log)
            )
            await challenging.run(stop)


async def _run_optimization_watch(home: Home, stop: asyncio.Event, loop_name: str, optimization_id: str) -> None:
    """Keep the watch over what an optimization applied."""
    from rankward.optimization.service import OptimizationService
    from rankward.optimization.watcher import Watcher
    from rankward.settings import Limits

    loop = home.catalog.loop(loop_name)
    async with home.logs(loop.loop_id) as (log, joined):
        service = OptimizationService(home, log=lambda _: log, joined=lambda _: joined, limits=Limits())
        run = service.find(loop, optimization_id)
        await Watcher(home, loop, run, service, log=log, joined=joined).run(stop)


async def _run_import(home: Home, stop: asyncio.Event, loop_name: str, key: str) -> None:
    """Run an import of a file that was sent."""
    from rankward.import_run import ImportRun

    loop = home.catalog.loop(loop_name)
    imports = home.imports(loop.loop_id)
    wanted = next((each for each in imports.unfinished() if each.key == key), None)
    path = None if wanted is None else imports.file(wanted)
    if wanted is not None and path is not None:
        await ImportRun(home, loop, wanted, path, stopped=stop.is_set).run()


_ROLES = {
    "worker": _Role(functools.partial(_run_worker, may_work=True), niceness=0),
    "follower": _Role(functools.partial(_run_worker, may_work=False), niceness=0),
    "trainer": _Role(_run_trainer, niceness=5),
    "optimization-watch": _Role(_run_optimization_watch, niceness=5),
    "mirror": _Role(_run_mirror, niceness=10),
    "watch": _Role(_run_watch, niceness=10),
    "archive": _Role(_run_archive, niceness=10),
    "snapshots": _Role(_run_snapshots, niceness=10),
    "import": _Role(_run_import, niceness=10),
    "challenge": _Role(_run_challengers, niceness=15),
}
_STUDY_NICENESS = 10


async def _taken(path: Path, stop: asyncio.Event) -> bool:
    """Take a lock until this process ends. The one before may still be on its way out: it is waited for.

    Returns:
        Whether it is ours. It is not when we were told to stop before.
    """
    lock = FolderLock(path)
    while not lock.take():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOCK_AGAIN_S)
            return False
    return True


async def _run(role: _Role, root: Path, arguments: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    _follow_parent(lambda: loop.call_soon_threadsafe(stop.set))
    with contextlib.closing(Home(root)) as home:
        await role.run(home, stop, *arguments)


def _run_study(root: Path, key: str) -> None:
    """Run a study, or a share of one."""
    from rankward.sharing import ShareRun
    from rankward.store.studies import StudyKind
    from rankward.study_run import StudyRun

    stop = threading.Event()
    for number in _ENDING:
        signal.signal(number, lambda *_: stop.set())
    _follow_parent(stop.set)
    with contextlib.closing(Home(root)) as home:
        study = home.studies.by_key(key)
        if study is not None:  # it may have been deleted just now
            run = ShareRun if study.kind is StudyKind.SHARE else StudyRun
            run(home, study, stop.is_set).run()


def _follow_parent(ended: Callable[[], object]) -> None:
    """Tell when the process that started this one goes away."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        ended()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _act(arguments: Sequence[str]) -> None:
    match arguments:
        case ["study", root, key]:
            os.nice(_STUDY_NICENESS)
            _run_study(Path(root), key)
        case ["api", root, descriptor, number, options]:
            import uvloop

            from rankward.api.options import ApiOptions
            from rankward.api.process import run_api  # sets metrics up

            decoded = msgspec.json.decode(options, type=ApiOptions)
            uvloop.run(run_api(Path(root), int(descriptor), int(number), decoded))
        case [name, root, *rest] if name in _ROLES:
            role = _ROLES[name]
            os.nice(role.niceness)
            try:
                asyncio.run(_run(role, Path(root), rest))
            except NotFound as error:
                if not rest:
                    raise
                logger.info("%s ends: %s", name, error)  # what it was started for was removed
        case _:
            sys.exit(f"there is no role {' '.join(arguments)!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
