"""Imports of logs into loops: run by a command, listed, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec

from rankward.auditing import Trail
from rankward.doctor.facts import ALIVE_US
from rankward.errors import CallerError, StoreUnavailable
from rankward.history.importing import Imported, Importer
from rankward.import_run import Bulletin, ImportStatus, read_status
from rankward.ranking.features import FeatureBounds
from rankward.records import TimeUs
from rankward.settings import Limits
from rankward.store.imports import ImportState, LogImport
from rankward.store.ports import Loop
from rankward.telemetry import read_statuses
from rankward.wiring import Home


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent in the portal to be imported, to whichever node, with what became of it."""

    key: str
    name: str  # of the file
    size_bytes: int
    created_us: TimeUs
    who: str  # sent it
    node: str  # the name of the one that has the file; empty: the installation is embedded
    state: ImportState
    is_away: bool  # whether the worker that has the file is not running: it goes on when that is
    cancelled: bool  # whether it was asked to let it be; what has not heard of it yet goes on
    lines: int | None  # read so far; None: nobody can tell, or it is over
    imported: int | None  # events of them; the same
    done: float | None  # within [0, 1]; the same
    remaining_s: float | None  # the same; and while its worker is away
    description: str  # what became of it, or why it waits; empty: there is nothing to say
    ended_us: TimeUs | None  # None: it goes on


class ImportAdministration:
    """Events from elsewhere, taken into loops as their history."""

    def __init__(self, home: Home, trail: Trail, *, limits: Limits, bounds: FeatureBounds) -> None:
        """Prepare.

        Args:
            home: the installation.
            trail: where changes are noted.
            limits: of one request; events that are imported are held to them, too.
            bounds: of features, likewise.
        """
        self._home = home
        self._trail = trail
        self._limits = limits
        self._bounds = bounds

    async def run(
        self,
        name: str,
        files: Sequence[Path],
        *,
        strict: bool = False,
        told: Callable[[Imported], None] = lambda _: None,
    ) -> Imported:
        """Import files of events into a loop, as history.

        Args:
            name: of the loop.
            files: in the order in which they are read.
            strict: whether to stop at the first broken line.
            told: hears how far it is.

        Raises:
            DataFolderHeld: another process is at it.
            InvalidRequest: a file is damaged, or with `strict`, has a broken line.
        """
        loop = self._home.catalog.loop(name)
        files_said = files[0].name if len(files) == 1 else f"{len(files)} files"
        bulletin = Bulletin(self._home, loop.loop_id, key=None, name=files_said)

        def note(state: Imported, holds: Callable[[], bool]) -> None:
            bulletin.tell(state)
            told(state)
            if not holds():
                raise StoreUnavailable("the servers have not heard of this import for a while: run it again to go on")

        with self._home.importing(loop.loop_id) as holds:
            await self._home.catch_up(loop.loop_id)
            log = self._home.event_log(loop.loop_id)  # of its own: see `forget`
            importer = Importer(
                log,
                bounds=self._bounds,
                limits=self._limits,
                reward_wait_us=loop.settings.reward_wait // timedelta(microseconds=1),
                strict=strict,
                told=lambda state: note(state, holds),
            )
            try:
                imported = await importer.run(files)
            except CallerError:
                bulletin.take_down()
                raise
            finally:
                await log.close()
        bulletin.take_down()
        self._trail.note("history imported", loop=name, detail=f"{len(files)} files")
        return imported

    async def listed(self, name: str) -> list[ImportView]:
        """List the files that were sent to be imported into a loop, newest first, with how far they are."""
        loop = self._home.catalog.loop(name)
        found = self._home.imports(loop.loop_id).listed()
        told = read_status(self._home.board.read(loop.loop_id))
        away = await self._away(loop, found)
        return [_import_view(each, told, is_away=each.node in away) for each in found]

    async def _away(self, loop: Loop, found: Sequence[LogImport]) -> Collection[str]:
        """Name the nodes that have files of imports and do not work just now, as far as can be seen."""
        nodes = {each.node for each in found if not each.is_over}
        joining, _ = read_statuses(self._home.board.read(loop.loop_id))
        works = joining is not None and self._home.clock() - joining.time_us < ALIVE_US
        away = nodes & (set() if works else {self._home.name})
        others = nodes - {self._home.name}
        if others:
            with suppress(StoreUnavailable):
                away |= others - {member.name for member in await asyncio.to_thread(self._home.members)}
        return away

    async def cancel(self, name: str, key: str) -> None:
        """Let an import be, on whichever node. What it has imported stays.

        One whose worker is not running is over at once.

        Raises:
            NotFound: there is none that is not over.
        """
        loop = self._home.catalog.loop(name)
        imports = self._home.imports(loop.loop_id)
        imports.cancel(key)
        found = [each for each in imports.listed() if each.key == key and not each.is_over]
        for each in found if await self._away(loop, found) else ():
            who = f"the node {each.node}, which has the file," if each.node else "the worker"
            said = f"Cancelled while {who} was away. What it had imported stays."
            imports.write(
                msgspec.structs.replace(
                    each, state=ImportState.CANCELLED, description=said, ended_us=self._home.clock()
                )
            )
        self._trail.note("import cancelled", loop=name, detail=key)


def _import_view(found: LogImport, told: ImportStatus | None, *, is_away: bool) -> ImportView:
    if is_away and not found.is_over:
        who = f"The node {found.node} has the file, and is away" if found.node else "The worker is not running"
        said = f"{who}: it goes on by itself when that is back."
        found = msgspec.structs.replace(found, state=ImportState.WAITING, description=said)
    now = told if told is not None and told.key == found.key and not found.is_over else None
    return ImportView(
        key=found.key,
        name=found.name,
        size_bytes=found.size_bytes,
        created_us=found.created_us,
        who=found.actor.who,
        node=found.node,
        state=found.state,
        is_away=is_away and not found.is_over,
        cancelled=found.cancelled,
        lines=None if now is None else now.lines,
        imported=None if now is None else now.imported,
        done=None if now is None else now.done,
        remaining_s=None if now is None or is_away else now.remaining_s,
        description=found.description,
        ended_us=found.ended_us,
    )
