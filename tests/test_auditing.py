"""The audit trail: every change is in it, whatever the door, and nothing is ever taken out."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.administration.tuning import PolicyChoice
from rankward.auditing import differences
from rankward.cli.terminal import administer
from rankward.configuration import Configuration
from rankward.settings import LoopSettings
from rankward.store.audit import Actor, AuditFilter, Door
from rankward.vw.presets import PRESETS
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cli.remote import Administrator

ADA = Actor("ada@example.org", Door.PORTAL)
EVERYTHING = AuditFilter()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An installation with one loop."""
    numbers = iter(range(1, 10_000))
    made = Home(tmp_path / "data", clock=lambda: next(numbers) * 1_000_000)
    made.loops.create("news", LoopSettings(), actor=ADA)
    yield made
    made.close()


def test_a_change_is_noted_with_who_when_and_what(home: Home) -> None:
    """Whoever looks for what broke a loop needs all four, and the value to go back to."""

    async def change() -> None:
        log = home.event_log(home.catalog.loop("news").loop_id)
        configuration = Configuration(home.catalog, log=lambda _: log, clock=home.clock, trail=home.trail)
        await configuration.by(ADA).change("news", {"default_reward": 0.5})
        await configuration.by(ADA).change("news", {"default_reward": 0.5})  # nothing changes, nothing is noted
        await log.close()

    asyncio.run(change())

    newest, created = home.audit.entries(EVERYTHING, limit=10)
    assert (newest.who, newest.door, newest.loop, newest.what) == (ADA.who, Door.PORTAL, "news", "settings changed")
    assert (newest.before, newest.after) == ({"default_reward": "0.0"}, {"default_reward": "0.5"})
    assert newest.time_us > created.time_us
    assert created.what == "loop created"


def test_the_trail_is_only_appended_to(home: Home) -> None:
    """Whoever can make a change could otherwise hide that they did."""
    with sqlite3.connect(home.folder.catalog) as connection:
        for statement in ("DELETE FROM audit", "UPDATE audit SET who = 'nobody'"):
            with pytest.raises(sqlite3.IntegrityError, match="only appended to"):
                connection.execute(statement)
    connection.close()
    assert len(home.audit.entries(EVERYTHING, limit=10)) == 1


def test_what_was_noted_of_a_deleted_loop_stays(home: Home) -> None:
    """Deleting a loop is the change that is asked about most."""
    home.loops.delete("news", actor=ADA)

    assert [entry.what for entry in home.audit.entries(EVERYTHING, limit=10)] == ["loop deleted", "loop created"]


def test_entries_are_found_by_loop_kind_person_and_page(home: Home) -> None:
    """A year of changes is read through a filter."""
    home.loops.create("shop", LoopSettings())
    home.loops.set_key("shop", 1, actor=Actor("Grace", Door.COMMAND_LINE))

    def found(**wanted: object) -> list[tuple[str | None, str]]:
        return [(entry.loop, entry.what) for entry in home.audit.entries(AuditFilter(**wanted), limit=10)]  # type: ignore[arg-type]

    assert found(loops=["news"]) == [("news", "loop created")]
    assert found(loops=[]) == []
    assert found(what="key renewed") == [("shop", "key renewed")]
    assert found(who="grace") == [("shop", "key renewed")]
    assert found(before=2) == [("news", "loop created")]
    assert home.audit.kinds() == ["key renewed", "loop created"]


def test_no_secret_is_noted(home: Home) -> None:
    """Everybody who may look at a loop sees its trail: neither a key nor a signature may be in it."""
    key = home.loops.set_key("news", 1, actor=ADA)
    old = LoopSettings()
    new = msgspec.structs.replace(old, log_mirror_sas_uri="https://store.example/logs?sv=1&sig=SECRET")

    assert differences(old, new)[1] == {"log_mirror_sas_uri": "https://store.example/logs?…"}
    assert key not in repr(home.audit.entries(EVERYTHING, limit=10))


def test_a_command_is_noted_under_its_user(home: Home) -> None:
    """What was typed on the machine itself is not the service's own doing."""
    administer(home.folder.root, None, None, lambda admin: admin.models.delete("news"))

    newest = home.audit.entries(EVERYTHING, limit=1)[0]
    assert (newest.what, newest.door) == ("model deleted", Door.COMMAND_LINE)
    assert newest.who.startswith("command line user ")


def test_what_is_done_to_a_challenger_is_noted_once(home: Home) -> None:
    """Who reads two entries of one change looks for the second change."""
    policy = PRESETS["personalizer"].policy().text

    async def change(admin: Administrator) -> None:
        await admin.challengers.add("news", "own", PolicyChoice(arguments=policy))
        await admin.challengers.remove("news", "own")

    administer(home.folder.root, None, None, change)

    removed, added, _ = home.audit.entries(EVERYTHING, limit=10)
    assert (removed.what, removed.detail) == ("challenger removed", "own")
    assert (added.what, added.detail, added.after) == ("challenger added", "own", {"policy": policy})
