"""Imports of files that were sent: cut off, gone on with, cancelled and given up, with every event in once."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
from typer.testing import CliRunner

from rankward.administration.imports import ImportView
from rankward.cli import app
from rankward.cli.imports import follow
from rankward.cli.terminal import opened
from rankward.errors import NotFound, Overloaded
from rankward.import_run import ATTEMPTS_MAX, NOTE, ImportDesk, ImportRun, ImportStatus
from rankward.ranking.features import FeatureBounds
from rankward.records import History, TimeUs
from rankward.settings import Limits, LoopSettings
from rankward.store.audit import Actor, AuditFilter, Door
from rankward.store.imports import ImportState, LogImport
from rankward.store.sqlite.imports import UNFINISHED_MAX
from rankward.wiring import Home
from tests.history.loops import lines_of, numbered
from tests.service import RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

    from rankward.store.ports import Loop

NOW_US: TimeUs = 1_800_000_000_000_000
EVENTS = 3_000
ADA = Actor("ada", Door.PORTAL)


class Place:
    """An installation with a loop, into which files are sent."""

    def __init__(self, folder: Path) -> None:
        self.now_us = NOW_US
        self.folder = folder
        self.home = Home(folder / "data", clock=self._clock)
        self.home.loops.create("shop", LoopSettings())

    def _clock(self) -> TimeUs:
        self.now_us += 1_000_000
        return self.now_us

    @property
    def loop(self) -> Loop:
        """The loop, as it is set now."""
        return self.home.catalog.loop("shop")

    def send(self, content: bytes, *, key: str = "1", trains: bool = False) -> None:
        """Send a file."""
        send(self.home, self.loop, content, self.folder / "log.json", key=key, trains=trains)

    def found(self, key: str = "1") -> LogImport:
        """What there is of an import."""
        return next(each for each in self.home.imports(self.loop.loop_id).listed() if each.key == key)

    def run(self, stopped: Callable[[], bool] = lambda: False) -> LogImport:
        """Make an attempt, as the desk begins it. Returns what it left."""
        imports = self.home.imports(self.loop.loop_id)
        found = imports.unfinished()[0]
        begun = msgspec.structs.replace(found, state=ImportState.RUNNING, attempts=found.attempts + 1)
        imports.write(begun)
        path = imports.file(begun)
        assert path is not None, "it was sent here"
        asyncio.run(ImportRun(self.home, self.loop, begun, path, stopped=stopped).run())
        return self.found(begun.key)

    def imported(self) -> list[str]:
        """Read which events the log holds."""
        return events_of(self.home, self.loop)


def send(home: Home, loop: Loop, content: bytes, file: Path, *, key: str, trains: bool = False) -> None:
    """Put a file where the portal does."""
    file.write_bytes(content)
    home.imports(loop.loop_id).add(
        LogImport(
            key=key,
            name=file.name,
            size_bytes=len(content),
            created_us=home.clock(),
            actor=ADA,
            trains=trains,
            limits=Limits(),
            bounds=FeatureBounds(),
        ),
        file,
    )


def events_of(home: Home, loop: Loop) -> list[str]:
    """Read which events were imported, in log order."""

    async def read() -> list[str]:
        log = home.event_log(loop.loop_id)
        try:
            entries = await log.read(0, limit=1_000_000)
        finally:
            await log.close()
        return [entry.record.interaction.event_id for entry in entries if isinstance(entry.record, History)]

    return asyncio.run(read())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An installation of its own."""
    made = Place(tmp_path)
    with closing(made.home):
        yield made


def note(place: Place) -> ImportStatus | None:
    """What is said of the import that runs."""
    found = place.home.board.read(place.loop.loop_id).get(NOTE)
    return None if found is None else msgspec.json.decode(found, type=ImportStatus)


def test_what_was_cut_off_goes_on_and_no_event_is_in_twice(place: Place) -> None:
    """A restart must neither lose the rest of a file nor learn its beginning twice."""
    place.send(lines_of([numbered(number) for number in range(EVENTS)]))

    left = place.run(stopped=lambda: True)

    assert (left.state, left.attempts, left.is_over) == (ImportState.WAITING, 0, False)
    assert 0 < len(place.imported()) < EVENTS
    said = note(place)
    assert said is not None
    assert (said.key, said.name) == ("1", "log.json")
    assert 0 < said.lines < EVENTS, "it stays there: who looks meanwhile learns at which line it stands"
    done = place.run()
    assert (done.state, done.description) == (ImportState.DONE, f"{EVENTS:,} lines imported.")
    assert place.imported() == [f"e{number}" for number in range(EVENTS)]
    assert note(place) is None
    assert not place.home.imports(place.loop.loop_id).unfinished()
    [entry] = place.home.audit.entries(AuditFilter(loops=["shop"], what="history imported"), limit=9)
    assert (entry.who, entry.detail) == ("ada", "log.json")


def test_what_is_cancelled_says_at_which_line_and_how_to_go_on(place: Place) -> None:
    """What is in the log by then stays there, so it must not stay there without a word."""
    content = lines_of([numbered(number) for number in range(EVENTS)])
    place.send(content)
    place.home.imports(place.loop.loop_id).cancel("1")

    left = place.run()

    assert left.state is ImportState.CANCELLED
    kept = len(place.imported())
    assert 0 < kept < EVENTS
    assert f"{kept:,} events of them stay: import the same file again" in left.description
    place.send(content, key="2")
    assert place.run().state is ImportState.DONE
    assert place.imported() == [f"e{number}" for number in range(EVENTS)]


def test_a_new_epoch_learns_from_all_of_it_when_asked(place: Place) -> None:
    """Otherwise history older than the span that is retrained would be imported for evaluations alone."""
    place.send(lines_of([numbered(1)]), trains=True)

    assert place.run().description == "1 line imported. A new epoch learns from all of it."
    assert place.home.catalog.epochs(place.loop.loop_id)[-1].reason == "history was imported"


def test_a_file_that_breaks_off_has_failed_and_says_where_its_parts_are(place: Place) -> None:
    """Its sender knows it by its name, not by the folder that it was kept in."""
    place.send(gzip.compress(lines_of([numbered(number) for number in range(EVENTS)]))[:-40])

    left = place.run()

    assert left.state is ImportState.FAILED
    assert left.description.startswith("log.json is damaged")


def test_another_import_is_waited_for(place: Place) -> None:
    """Two at once would not see each other's events."""
    place.send(lines_of([numbered(1)]))
    with place.home.importing(place.loop.loop_id):
        left = place.run()

    assert (left.state, left.attempts) == (ImportState.WAITING, 0)
    assert "Another import" in left.description
    assert place.run().state is ImportState.DONE


def test_an_import_whose_worker_is_gone_says_so_and_is_over_once_it_is_cancelled(place: Place) -> None:
    """Nobody else would ever write down that it is over; and the worker, back again, must leave it alone."""
    place.send(lines_of([numbered(2)]), key="0")
    assert place.run().state is ImportState.DONE
    place.send(lines_of([numbered(1)]))

    async def listed() -> ImportView:
        async with opened(place.home) as found:
            view, before = await found.administration.imports.listed("shop")
            assert (before.state, before.is_away) == (ImportState.DONE, False)
            return view

    async def cancel() -> None:
        async with opened(place.home) as found:
            await found.administration.imports.cancel("shop", "1")

    view = asyncio.run(listed())
    assert (view.state, view.is_away) == (ImportState.WAITING, True)
    assert view.description == "The worker is not running: it goes on by itself when that is back."
    asyncio.run(cancel())
    view = asyncio.run(listed())
    assert view.state is ImportState.CANCELLED
    assert "while the worker was away" in view.description
    assert not list(place.home.folder.imports(place.loop.loop_id).glob("*/")), "the file is gone"
    begun = msgspec.structs.replace(place.found(), state=ImportState.RUNNING, ended_us=None)
    assert not place.home.imports(place.loop.loop_id).write(begun), "what is over stays so"


def test_imports_are_listed_watched_and_cancelled_by_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever works in a terminal need not open a browser to see what runs."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["logs", "imports", *words, "--data", str(place.folder / "data")])

    assert run("list", "shop").stdout == "No file was sent to be imported into the loop shop.\n"
    place.send(b"no log")
    place.send(lines_of([numbered(1)]), key="2")
    far = ImportStatus(key="1", name="log.json", lines=900, imported=800, done=0.4, remaining_s=90.0, time_us=1)
    place.home.board.post(place.loop.loop_id, NOTE, msgspec.json.encode(far))
    [second, first] = run("list", "shop").stdout.splitlines()[1:]
    assert "ada" in second
    assert "40%, 900 lines read, 800 events imported. The worker is not running" in first, "and no time is left"
    [_, view] = msgspec.json.decode(run("list", "shop", "--json").stdout, type=list[ImportView])
    assert (view.key, view.lines, view.who) == ("1", 900, "ada")

    assert run("cancel", "shop", "2").exit_code == 0
    assert "there is no import '2'" in run("cancel", "shop", "2").stderr

    async def fail() -> None:
        found = place.found("1")
        failed = msgspec.structs.replace(found, state=ImportState.FAILED, description="It is damaged.", ended_us=1)
        place.home.imports(place.loop.loop_id).write(failed)

    async def follow_it() -> bool:
        async with opened(place.home) as found:
            return await follow(found.administration, "shop", pause=fail)

    assert asyncio.run(follow_it()), "a script has to know"
    assert capsys.readouterr().out.strip() == "log.json: failed. It is damaged."
    watched = run("watch", "shop")
    assert (watched.exit_code, watched.stdout) == (0, "")


def test_what_is_not_here_any_more_is_over_and_what_was_left_goes(place: Place) -> None:
    """A restored backup has the record alone; a power failure may leave the file alone."""
    place.send(lines_of([numbered(1)]))
    folder = place.home.folder.imports(place.loop.loop_id)
    shutil.rmtree(folder / "1")
    (folder / f"{NOW_US - 7_200_000_000:016x}-left").mkdir()
    fresh = folder / f"{NOW_US:016x}-being-sent"
    fresh.mkdir()

    ImportDesk(place.home, place.loop.loop_id, lambda key: pytest.fail(f"{key} is begun")).tend()

    assert place.found().state is ImportState.FAILED
    assert "not here any more" in place.found().description
    assert list(folder.glob("*/")) == [fresh]


def test_the_desk_runs_one_after_the_other_and_gives_up_what_dies(place: Place) -> None:
    """A file on which the process dies must not hold up those after it for ever."""
    for key in ("1", "2", "3"):
        place.send(lines_of([numbered(1)]), key=key)
    place.home.imports(place.loop.loop_id).cancel("3")
    begun: list[str] = []

    def spawn(key: str) -> subprocess.Popen[bytes]:
        begun.append(key)
        command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    desk = ImportDesk(place.home, place.loop.loop_id, spawn)
    while place.home.imports(place.loop.loop_id).unfinished():
        desk.tend()
        if desk.process is not None:
            assert desk.process.wait() == -signal.SIGKILL
    assert begun == ["1"] * ATTEMPTS_MAX + ["2"] * ATTEMPTS_MAX
    assert place.found("1").state is ImportState.FAILED
    assert "Import the same file again to go on" in place.found("1").description
    assert place.found("3").state is ImportState.CANCELLED


def test_an_import_that_the_servers_left_alone_is_not_given_up(place: Place) -> None:
    """They may be away for hours, in which its process ends again and again."""
    place.send(lines_of([numbered(1)]))
    begun: list[str] = []

    def spawn(key: str) -> subprocess.Popen[bytes]:
        begun.append(key)
        command = [sys.executable, "-c", "import os, sys; sys.exit(os.EX_TEMPFAIL)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    desk = ImportDesk(place.home, place.loop.loop_id, spawn)
    while len(begun) <= ATTEMPTS_MAX:
        assert place.home.imports(place.loop.loop_id).unfinished(), "it is given up"
        desk.tend()
        if desk.process is not None:
            desk.process.wait()
    desk.end()


def test_so_many_may_wait_and_only_what_waits_can_be_cancelled(place: Place) -> None:
    """Files wait on the service's own disk."""
    imports = place.home.imports(place.loop.loop_id)
    for key in range(UNFINISHED_MAX):
        place.send(b"x", key=str(key))
    with pytest.raises(Overloaded, match="are not over yet"):
        place.send(b"x", key="9")
    with pytest.raises(NotFound):
        imports.cancel("9")
    over = msgspec.structs.replace(place.found("0"), state=ImportState.DONE, ended_us=NOW_US)
    imports.write(over)
    with pytest.raises(NotFound):
        imports.cancel("0")


@pytest.mark.slow
def test_an_import_goes_on_after_the_service_was_killed(tmp_path: Path) -> None:
    """Whoever sent a file went home long ago."""
    service = RunningService(tmp_path)
    try:
        service.start()
        loop = service.loop(service.new_loop().loop)
        imports = service.home.imports(loop.loop_id)
        content = lines_of([numbered(number) for number in range(8 * EVENTS)])
        send(service.home, loop, content, tmp_path / "log.json", key="1")
        eventually(lambda: imports.listed()[0].state is not ImportState.WAITING, "it is begun")
        eventually(lambda: imports.listed()[0].is_over or len(events_of(service.home, loop)) > 0, "some are in")
        service.kill()
        service.start()
        eventually(lambda: imports.listed()[0].is_over, "it is over")
        assert imports.listed()[0].state is ImportState.DONE
        assert events_of(service.home, loop) == [f"e{number}" for number in range(8 * EVENTS)]
    finally:
        service.close()
