"""Runs imports of files that were sent: of each loop one at a time, in a process of its own, at low priority."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from rankward.configuration import Configuration
from rankward.dsjson.read import Skip
from rankward.errors import CallerError, DataFolderHeld, RankwardError, ServersAway
from rankward.history.importing import DUPLICATE, IMPORTED, Imported, Importer
from rankward.records import TimeUs
from rankward.store.imports import ImportState, LogImport
from rankward.store.ports import Loop
from rankward.wiring import Home

logger = logging.getLogger(__name__)

NOTE = "import"
"""The name of a running import's note on the board."""
ATTEMPTS_MAX = 3
_TELL_US = 500_000
_LOOK_US = 500_000
_AGAIN_US = 10_000_000
_BROKEN_SHOWN = 3
_TIDY_US = 3_600_000_000  # between two looks for files that were left; none takes so long to come


class ImportStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import has come."""

    key: str | None  # of the file that was sent; None: a command imports
    name: str  # of the file, or of so many files
    lines: int  # read
    imported: int  # of them
    done: float  # within [0, 1]
    remaining_s: float | None  # None: nobody can tell yet
    time_us: TimeUs  # of this status


class Bulletin:
    """Posts how far an import has come, now and then. What was cut off leaves its last note."""

    def __init__(self, home: Home, loop_id: str, *, key: str | None, name: str) -> None:
        self._home = home
        self._loop_id = loop_id
        self._key = key
        self._name = name
        self._posted_us = 0  # by the timer
        self._begun: tuple[int, int] | None = None  # by the timer: when, and at which byte

    def tell(self, state: Imported) -> None:
        """Take note of how far it is."""
        passed_us = self._home.timer()
        if self._begun is None:
            self._begun = passed_us, state.bytes_read
        if passed_us - self._posted_us < _TELL_US:
            return
        self._posted_us = passed_us
        since_us, start = self._begun
        read = state.bytes_read - start
        status = ImportStatus(
            key=self._key,
            name=self._name,
            lines=state.lines,
            imported=state.counts[IMPORTED],
            done=min(1.0, state.bytes_read / state.bytes_total) if state.bytes_total else 1.0,
            remaining_s=(passed_us - since_us) / 1e6 * (state.bytes_total - state.bytes_read) / read if read else None,
            time_us=self._home.clock(),
        )
        self._home.board.post(self._loop_id, NOTE, msgspec.json.encode(status))

    def take_down(self) -> None:
        """It has come to its end. Another import may have begun to tell since."""
        told = read_status(self._home.board.read(self._loop_id))
        if told is not None and told.key == self._key:
            self._home.board.take_down(self._loop_id, NOTE)


def read_status(notes: Mapping[str, bytes]) -> ImportStatus | None:
    """Read, among a loop's notes, how far the import is that runs or was cut off. None: there is none."""
    return msgspec.json.decode(notes[NOTE], type=ImportStatus) if NOTE in notes else None


def describe(imported: Imported, *, is_first: bool = True) -> str:
    """Say what became of the lines of a file.

    Args:
        imported: what was done.
        is_first: whether this is the first attempt, so that what was known was imported some other time.
    """
    names: dict[str, str] = {DUPLICATE: "there already", **{kind: f"skipped: {kind}" for kind in Skip}}
    count = imported.counts[IMPORTED]
    counts = [f"{count:,} {'line' if count == 1 else 'lines'} imported"]
    counts += [f"{imported.counts[kind]:,} {what}" for kind, what in names.items() if imported.counts[kind]]
    known = " It was imported before: nothing was added." if imported.files_known and is_first else ""
    broken = "".join([f" Line {each.line}: {each.why}." for each in imported.broken[:_BROKEN_SHOWN]])
    return f"{', '.join(counts)}.{known}{broken}"


class _CutOffError(Exception):
    """It was cancelled, or told to stop, or another node may import by now."""


class ImportRun:
    """One attempt at one import."""

    def __init__(self, home: Home, loop: Loop, wanted: LogImport, path: Path, *, stopped: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            home: the installation.
            loop: that it goes into.
            wanted: an import whose record says that it runs.
            path: of its file.
            stopped: asked now and then whether to let it be for now.
        """
        self._home = home
        self._loop = loop
        self._wanted = wanted
        self._path = path
        self._imports = home.imports(loop.loop_id)
        self._stopped = stopped
        self._bulletin = Bulletin(home, loop.loop_id, key=wanted.key, name=wanted.name)
        self._state = Imported(files=1)

    async def run(self) -> None:
        """Go on to the end of the file, and write down what became of it."""
        try:
            imported = await self._import()
            said = describe(imported, is_first=self._wanted.attempts <= 1)
            if self._wanted.trains and imported.oldest_us is not None:
                await self._retrain(imported.oldest_us)
                said += " A new epoch learns from all of it."
            self._end(ImportState.DONE, said)
        except _CutOffError:
            if self._imports.is_wanted(self._wanted.key):
                self._wait(attempts=self._wanted.attempts - 1, said="")
            else:
                self._end(ImportState.CANCELLED, f"Cancelled. {self._kept()}")
        except DataFolderHeld:
            self._wait(attempts=self._wanted.attempts - 1, said="Another import into this loop is under way.")
        except CallerError as error:
            where = f"{self._path.parent}/"  # nothing to those who sent it
            self._end(ImportState.FAILED, error.message.replace(where, ""))
        except RankwardError as error:
            logger.error("loop %s: the import of %s: %s", self._loop.name, self._wanted.name, error)
            counts = not isinstance(error, ServersAway)  # which may last for hours
            self._wait(attempts=self._wanted.attempts - (not counts), said=str(error))

    async def _import(self) -> Imported:
        loop, wanted = self._loop, self._wanted
        with self._home.importing(loop.loop_id) as holds:
            await self._home.catch_up(loop.loop_id)
            log = self._home.event_log(loop.loop_id)
            importer = Importer(
                log,
                bounds=wanted.bounds,
                limits=wanted.limits,
                reward_wait_us=loop.settings.reward_wait // timedelta(microseconds=1),
                told=lambda state: self._told(state, holds),
            )
            try:
                imported = await importer.run([self._path])
            finally:
                await log.close()
        self._home.trail.by(wanted.actor).note("history imported", loop=loop.name, detail=wanted.name)
        return imported

    def _told(self, state: Imported, holds: Callable[[], bool]) -> None:
        self._state = state
        self._bulletin.tell(state)
        if self._stopped() or not holds() or not self._imports.is_wanted(self._wanted.key):
            raise _CutOffError

    async def _retrain(self, since_us: TimeUs) -> None:
        home = self._home
        log = home.event_log(self._loop.loop_id)
        configuration = Configuration(
            home.catalog, log=lambda _: log, clock=home.clock, trail=home.trail.by(self._wanted.actor)
        )
        try:
            await configuration.retrain(self._loop.name, since_us=since_us, reason="history was imported")
        finally:
            await log.close()

    def _kept(self) -> str:
        return (
            f"{self._state.lines:,} lines were read, and {self._state.counts[IMPORTED]:,} events of them stay: import "
            "the same file again to go on there."
        )

    def _wait(self, *, attempts: int, said: str) -> None:
        self._imports.write(
            msgspec.structs.replace(self._wanted, state=ImportState.WAITING, attempts=attempts, description=said)
        )

    def _end(self, state: ImportState, said: str) -> None:
        self._imports.write(
            msgspec.structs.replace(self._wanted, state=state, description=said, ended_us=self._home.clock())
        )
        self._bulletin.take_down()


class ImportDesk:
    """The worker's part for one loop: begins the next import when the one before has ended."""

    def __init__(self, home: Home, loop_id: str, spawn: Callable[[str], subprocess.Popen[bytes]]) -> None:
        """Prepare.

        Args:
            home: the installation.
            loop_id: of the loop.
            spawn: starts the process of an import, by key. Its standard input is a pipe whose end tells it to stop.
        """
        self._home = home
        self._loop_id = loop_id
        self._imports = home.imports(loop_id)
        self._spawn = spawn
        self._look_us = 0  # by the timer: when to look again
        self._tidy_us = 0  # by the timer: when to look again for files that were left
        self.process: subprocess.Popen[bytes] | None = None
        self._was_left_alone = False  # whether the last one ended because the servers were away

    def tend(self) -> None:
        """Do what there is to do."""
        passed_us = self._home.timer()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.end()
            self._was_left_alone |= code == os.EX_TEMPFAIL
            # What failed is tried again after a while, what was cut off at once.
            self._look_us = passed_us + _AGAIN_US * any(each.description for each in self._imports.unfinished())
        if self.process is not None or passed_us < self._look_us:
            return
        self._look_us = passed_us + _LOOK_US
        try:
            if self._was_left_alone:
                self._put_back()
            if passed_us >= self._tidy_us:  # another node may have ended what this one had, while it was away
                self._imports.tidy(before_us=self._home.clock() - _TIDY_US)
                self._tidy_us = passed_us + _TIDY_US
            self._begin()
        except RankwardError as error:
            logger.error("imports: %s. They are tried again.", error)
            self._look_us = passed_us + _AGAIN_US

    def _put_back(self) -> None:
        """Let the import wait again whose process the servers left alone: no attempt of its own."""
        for each in self._imports.unfinished():
            if each.state is ImportState.RUNNING:
                waits = msgspec.structs.replace(each, state=ImportState.WAITING, attempts=each.attempts - 1)
                self._imports.write(waits)
        self._was_left_alone = False

    def _begin(self) -> None:
        for each in self._imports.unfinished():
            if each.cancelled:
                self._end(each, ImportState.CANCELLED, "Cancelled. What it had imported stays.")
            elif self._imports.file(each) is None:  # as after a restore: backups have no such files
                self._end(each, ImportState.FAILED, "The file is not here any more: import it again to go on.")
            elif each.attempts >= ATTEMPTS_MAX:
                why = each.description or "The service's log may say of what."
                said = f"It was cut off {ATTEMPTS_MAX} times. {why} Import the same file again to go on."
                self._end(each, ImportState.FAILED, said)
            else:
                self._start(each)
                return

    def _start(self, each: LogImport) -> None:
        self._imports.write(msgspec.structs.replace(each, state=ImportState.RUNNING, attempts=each.attempts + 1))
        self.process = self._spawn(each.key)

    def _end(self, each: LogImport, state: ImportState, said: str) -> None:
        ended = msgspec.structs.replace(each, state=state, description=said, ended_us=self._home.clock())
        self._imports.write(ended)
        Bulletin(self._home, self._loop_id, key=each.key, name=each.name).take_down()

    def end(self) -> None:
        """Tell the process to stop. It will go on another time."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
