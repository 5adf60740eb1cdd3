"""Loops in the portal: making and removing one, and renewing keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.store.audit import AuditFilter, Door
from tests.portal.browser import Visitor
from tests.service import ADMIN_KEY, KEY_HEADER, RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


def test_a_loop_is_made_used_and_removed(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """The whole life of a loop, by mouse."""
    visitor = visit()
    page = visitor.open("/portal/")
    page.get_by_role("link", name="New loop").click()
    page.get_by_label("Name").fill("made-by-hand")
    page.get_by_role("button", name="Create").click()
    key = page.locator(".secrets code").first.inner_text()
    visitor.check()
    path = "/personalizer/v1.0/configurations/service"
    assert filled.send("GET", path, headers={KEY_HEADER: key}).status_code == 200

    page.get_by_role("link", name="Open the loop").click()
    page.get_by_role("link", name="Delete loop").click()
    visitor.expected = {400}
    page.get_by_label("to say so").fill("another-name")
    page.get_by_role("button", name="Delete the loop").click()
    page.get_by_role("alert").filter(has_text="That is not its name").wait_for()
    page.get_by_label("to say so").fill("made-by-hand")
    page.get_by_role("button", name="Delete the loop").click()

    page.get_by_role("status").filter(has_text="The loop made-by-hand is deleted.").wait_for()
    visitor.check()
    assert filled.send("GET", path, headers={KEY_HEADER: key}).status_code == 401
    noted = filled.home.audit.entries(AuditFilter(loops=["made-by-hand"]), limit=10)
    assert [(entry.what, entry.door) for entry in noted] == [
        ("loop deleted", Door.PORTAL),
        ("loop created", Door.PORTAL),
    ]
    assert noted[0].who.startswith("admin key ")


def test_a_loop_of_few_minutes_is_not_said_to_have_no_rewards(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """The first thing that somebody sees after the first rewards must not deny them."""
    figures, loop = filled.home.figures(), filled.home.catalog.loop("shown")

    def counted() -> bool:
        status = figures.status(loop)
        return status is not None and status.behind == 0 and status.offset > 0

    eventually(counted, "the figures are made")
    visitor = visit()
    card = visitor.open("/portal/loops/shown/card").locator("body")

    assert "Average reward" in card.inner_text()
    assert "No reward in the last 24 hours." not in card.inner_text()


def test_a_name_that_cannot_be_used_is_refused_beside_the_field(visit: Callable[..., Visitor]) -> None:
    """What was typed stays, and markup in it is only text."""
    visitor = visit()
    page = visitor.open("/portal/new-loop")
    page.locator("form[method=post].card").evaluate("form => { form.noValidate = true }")
    visitor.expected = {400}
    page.get_by_label("Name").fill("<b>loud</b>")
    page.get_by_role("button", name="Create").click()

    page.get_by_role("alert").filter(has_text="cannot name a loop").wait_for()
    assert page.get_by_label("Name").input_value() == "<b>loud</b>"
    visitor.check()


def test_a_renewed_key_is_shown_once_and_works(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """The one before must be refused from then on."""
    loop = filled.new_loop()
    visitor = visit(375)
    page = visitor.open(f"/portal/loops/{loop.loop}/keys")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Renew").first.click()
    key = page.locator(".secrets code").inner_text()
    visitor.check()

    path = "/personalizer/v1.0/configurations/service"
    assert filled.send("GET", path, headers={KEY_HEADER: key}).status_code == 200
    assert filled.send("GET", path, headers={KEY_HEADER: loop.key}).status_code == 401
    assert key not in visitor.open(f"/portal/loops/{loop.loop}/keys").content()


def test_a_log_that_cannot_be_read_is_said_where_its_part_would_stand(browser: Browser, tmp_path: Path) -> None:
    """`Looking …` for ever is no answer; and where the files lie is for those who have to mend them."""
    service = RunningService(tmp_path).start()
    try:
        loop = service.loop(service.new_loop().loop)
        service.stop()
        for path in service.home.folder.events(loop.loop_id).iterdir():
            path.write_bytes(b"no log " * 1_000)
        service.start()
        for key, said in ((service.key(loop.name), "cannot be used just now"), (ADMIN_KEY, "is not a database")):
            visitor = Visitor(browser, service.url, width=375)
            visitor.expected = {503}
            visitor.sign_in(key)
            for address in ("/portal/", f"/portal/loops/{loop.name}/overview"):
                visitor.page.goto(address)
                visitor.page.locator(".missed").filter(has_text=said).first.wait_for()
                assert (str(tmp_path) in visitor.page.content()) is (key == ADMIN_KEY)
            visitor.check()
            visitor.close()
    finally:
        service.close()
