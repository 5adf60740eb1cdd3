"""Imports of logs into loops: run by a command, listed, cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from rankward.auditing import Trail
from rankward.errors import CallerError
from rankward.history.importing import Imported, Importer
from rankward.import_run import NOTE as IMPORT_NOTE
from rankward.import_run import Bulletin, ImportStatus
from rankward.ranking.features import FeatureBounds
from rankward.records import TimeUs
from rankward.settings import Limits
from rankward.store.imports import ImportState, LogImport
from rankward.wiring import Home


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent in the portal to be imported, with what became of it."""

    key: str
    name: str  # of the file
    size_bytes: int
    created_us: TimeUs
    who: str  # sent it
    state: ImportState
    lines: int | None  # read so far; None: nobody can tell, or it is over
    imported: int | None  # events of them; the same
    done: float | None  # within [0, 1]; the same
    remaining_s: float | None  # the same
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

        def note(state: Imported) -> None:
            bulletin.tell(state)
            told(state)

        with self._home.importing(loop.loop_id):
            log = self._home.event_log(loop.loop_id)  # of its own: see `forget`
            importer = Importer(
                log,
                bounds=self._bounds,
                limits=self._limits,
                reward_wait_us=loop.settings.reward_wait // timedelta(microseconds=1),
                strict=strict,
                told=note,
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
        note = self._home.board.read(loop.loop_id).get(IMPORT_NOTE)
        told = None if note is None else msgspec.json.decode(note, type=ImportStatus)
        return [_import_view(each, told) for each in self._home.imports(loop.loop_id).listed()]

    async def cancel(self, name: str, key: str) -> None:
        """Let an import be. What it has imported stays.

        Raises:
            NotFound: there is none that is not over.
        """
        loop = self._home.catalog.loop(name)
        self._home.imports(loop.loop_id).cancel(key)
        self._trail.note("import cancelled", loop=name, detail=key)


def _import_view(found: LogImport, told: ImportStatus | None) -> ImportView:
    now = told if told is not None and told.key == found.key and not found.is_over else None
    return ImportView(
        key=found.key,
        name=found.name,
        size_bytes=found.size_bytes,
        created_us=found.created_us,
        who=found.actor.who,
        state=found.state,
        lines=None if now is None else now.lines,
        imported=None if now is None else now.imported,
        done=None if now is None else now.done,
        remaining_s=None if now is None else now.remaining_s,
        description=found.description,
        ended_us=found.ended_us,
    )
