"""The portal's Logs page: lines out of one loop and into another, and what is taken out for good."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from rankward.import_run import NOTE, ImportStatus
from rankward.loops import new_loop_settings
from rankward.records import Erased, History, Interaction
from rankward.store.audit import AuditFilter, Door
from rankward.wiring import now_us
from tests.history.loops import lines_of, numbered
from tests.portal.test_policy import FRESH_US
from tests.service import RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow

T = TypeVar("T")

EVENTS = 5


def aside(call: Callable[[], T]) -> T:
    """Call what begins an event loop of its own in a thread that has none: this one has the browser's."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


def records(service: RunningService, loop: str) -> list[Any]:
    """What a loop's log holds."""
    return aside(lambda: service.records(loop))


def logged(service: RunningService) -> str:
    """Make a loop that has joined a few events. Returns its name."""
    second = timedelta(seconds=1)
    made = service.new_loop(msgspec.structs.replace(new_loop_settings(), reward_wait=second))
    client = service.client(made.loop)
    for number in range(EVENTS):
        assert client.rank(request("pasta", "ramen", eventId=f"e{number}")).status_code == 201
        assert client.reward(f"e{number}", 1.0).status_code == 204
    eventually(lambda: aside(lambda: len(service.joined(made.loop))) == EVENTS, "the events are joined")
    return made.loop


def noted(service: RunningService, loop: str) -> list[tuple[str, Door]]:
    """What the audit trail has of a loop, newest first."""
    return [(entry.what, entry.door) for entry in service.home.audit.entries(AuditFilter(loops=[loop]), limit=5)]


def test_what_is_exported_can_be_imported_into_another_loop(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """A loop's history is moved by two clicks, once, and whoever moves it hears what became of it."""
    source, target = logged(filled), filled.new_loop().loop
    visitor = visit()
    page = visitor.open(f"/portal/loops/{source}/logs")
    with page.expect_download() as started:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / started.value.suggested_filename
    started.value.save_as(file)
    assert file.name.startswith(f"{source}-")
    assert file.name.endswith(".dsjson.gz")
    lines = gzip.decompress(file.read_bytes()).splitlines()
    assert [msgspec.json.decode(line)["EventId"] for line in lines] == [f"e{number}" for number in range(EVENTS)]

    visitor.open(f"/portal/loops/{target}/logs")
    page.get_by_label("Learn from all of it").check()
    for said in (f"{EVENTS} lines imported", "It was imported before"):
        page.get_by_label("Log file").set_input_files(file)
        page.get_by_role("button", name="Import").click()
        page.get_by_role("status").filter(has_text=f"{file.name} is here").wait_for()
        page.locator(".imports li").first.filter(has_text=said).wait_for()
        visitor.check()
        assert file.name in page.locator(".imports li").first.inner_text()
    assert sum(isinstance(record, History) for record in records(filled, target)) == EVENTS
    assert ("history imported", Door.PORTAL) in noted(filled, target)
    epochs = filled.home.catalog.epochs(filled.loop(target).loop_id)
    assert [epoch.reason for epoch in epochs].count("history was imported") == 1


def test_an_import_that_runs_shows_how_far_it_is_and_is_cancelled(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """A large file takes minutes: its sender wants to see it move, after a reload too, and to call it off."""
    loop = filled.loop(filled.new_loop().loop)
    file = tmp_path / "history.json"
    file.write_bytes(lines_of([numbered(number) for number in range(EVENTS)]))
    visitor = visit(375)
    page = visitor.open(f"/portal/loops/{loop.name}/logs")
    with filled.home.importing(loop.loop_id):  # as another import would, this holds it up
        page.get_by_label("Log file").set_input_files(file)
        page.get_by_role("button", name="Import").click()
        row = page.locator(".imports li")
        row.filter(has_text="Another import into this loop is under way. It goes on by itself.").wait_for()
        [waiting] = filled.home.imports(loop.loop_id).listed()
        far = ImportStatus(
            key=waiting.key,
            name=file.name,
            lines=900,
            imported=800,
            done=0.4,
            remaining_s=90.0,
            time_us=now_us() + FRESH_US,
        )
        filled.home.board.post(loop.loop_id, NOTE, msgspec.json.encode(far))
        row.filter(has_text="40 % · 900 lines read, 800 events imported · about 1 min 30 s left").wait_for()
        page.reload()
        row.get_by_role("progressbar", name="Progress of history.json").wait_for()
        visitor.check()

        page.on("dialog", lambda dialog: dialog.accept())
        row.get_by_role("button", name="Cancel the import of history.json").click()
        page.get_by_role("status").filter(has_text="What is imported already stays.").wait_for()
    row.filter(has_text="cancelled").filter(has_text="Cancelled.").wait_for()
    visitor.check()
    assert ("import cancelled", Door.PORTAL) in noted(filled, loop.name)


def test_a_command_that_imports_is_seen_and_when_it_was_cut_off_said_where(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """A log that is half imported must not look whole: nobody would send the rest."""
    loop = filled.loop(filled.new_loop().loop)
    visitor = visit()
    for since_us, said in ((FRESH_US, "which Ctrl-C stops"), (-60_000_000, "cut off after line 900")):
        far = ImportStatus(
            key=None,
            name="old.json",
            lines=900,
            imported=900,
            done=0.4,
            remaining_s=None,
            time_us=now_us() + since_us,
        )
        filled.home.board.post(loop.loop_id, NOTE, msgspec.json.encode(far))
        page = visitor.open(f"/portal/loops/{loop.name}/logs")
        page.locator(".imports li").filter(has_text="old.json").filter(has_text=said).wait_for()
        visitor.check()


def test_a_span_without_decisions_is_an_empty_file_and_one_that_ends_first_is_refused(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """The span bounds what is exported."""
    context = visit().context
    path = "/portal/loops/shown/logs/export"
    empty = context.request.get(f"{path}?from=2020-01-01T00:00&to=2020-01-02T00:00")
    assert (empty.status, gzip.decompress(empty.body())) == (200, b"")

    for span in ("from=2020-01-02T00:00&to=2020-01-01T00:00", "from=yesterday&to=2020-01-01T00:00", ""):
        assert context.request.get(f"{path}?{span}").status == 400


def test_what_is_no_log_is_refused_and_changes_nothing(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """Whoever takes the wrong file must hear so."""
    name = filled.new_loop().loop
    before = records(filled, name)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/logs")
    visitor.expected = {400}
    for file_name, content, said in (
        ("holiday.jpg", b"\xff\xd8 no log", "Holiday.jpg is no log"),
        ("cut.gz", gzip.compress(b"{}\n" * 100)[:-12], "cut.gz is damaged"),
        ("empty.json", b"", "empty.json is empty"),
    ):
        file = tmp_path / file_name
        file.write_bytes(content)
        page.get_by_label("Log file").set_input_files(file)
        page.get_by_role("button", name="Import").click()
        page.locator("#trouble").filter(has_text=said).wait_for()
    assert str(tmp_path.parent) not in page.locator("#trouble").inner_text()
    assert records(filled, name) == before


def test_the_log_is_deleted_once_the_name_is_typed(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """What cannot be undone does not happen by accident."""
    name = logged(filled)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/logs")
    visitor.expected = {400}
    page.get_by_label("to say so").fill("another")
    page.get_by_role("button", name="Delete the log").click()
    page.get_by_role("alert").filter(has_text="nothing was deleted").wait_for()
    assert sum(isinstance(record, Interaction) for record in records(filled, name)) == EVENTS

    page.get_by_label("to say so").fill(name)
    page.get_by_role("button", name="Delete the log").click()
    page.get_by_role("status").filter(has_text="The log is deleted.").wait_for()
    visitor.check()
    assert not any(isinstance(record, Interaction) for record in records(filled, name))
    assert ("log cleared", Door.PORTAL) in noted(filled, name)


def test_events_are_erased_by_an_admin_and_by_nobody_else(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """As over HTTP: a key of the loop does not open it."""
    name = logged(filled)
    operator = visit(key=filled.key(name)).open(f"/portal/loops/{name}/logs")
    operator.get_by_role("button", name="Import").wait_for()
    assert operator.get_by_role("button", name="Erase").count() == 0
    page = visit().open(f"/portal/loops/{name}/logs")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Event ids").fill("e1\n\n  e3  \nnever-seen")
    page.get_by_role("button", name="Erase").click()

    page.get_by_role("status").filter(has_text="Erased: 2 events, 4 records").wait_for()
    assert sum(isinstance(record, Erased) for record in records(filled, name)) == 4
    kept = [record.event_id for record in records(filled, name) if isinstance(record, Interaction)]
    assert kept == ["e0", "e2", "e4"]
