"""Policy and models in the portal: changed, checked while typed, moved as files, rolled back to, cleared."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.loops import new_loop_settings
from rankward.store.audit import AuditFilter, Door
from rankward.training.service import TrainingStatus
from rankward.wiring import now_us
from tests.service import PATIENCE_S, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow

FRESH_US = 3_600_000_000
"""Word that was left so far in the future is fresh, however long a busy machine takes to show it."""


def learned(service: RunningService, events: int = 12) -> str:
    """Make a loop that has learned all of its events. Returns its name."""
    second = timedelta(seconds=1)
    made = service.new_loop(
        msgspec.structs.replace(new_loop_settings(), reward_wait=second, model_export_frequency=second)
    )
    client = service.client(made.loop)
    for number in range(events):
        assert client.rank(request("pasta", "ramen", eventId=f"e{number}")).status_code == 201
        assert client.reward(f"e{number}", number % 2).status_code == 204
    service.wait_until_learned(made.loop, events)
    return made.loop


def agreeing(visitor: Visitor, path: str) -> Page:
    """Open a page whose questions are all answered with yes."""
    page = visitor.open(path)
    page.on("dialog", lambda dialog: dialog.accept())
    return page


def test_a_policy_is_checked_while_it_is_typed_and_then_set(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """What cannot be used is said before anything is changed; what is set is set, and noted."""
    name = filled.new_loop().loop
    visitor = visit()
    page = agreeing(visitor, f"/portal/loops/{name}/policy")
    field = page.get_by_label("Or write the learner's arguments")
    field.press_sequentially(" --invert_hash secrets")
    page.locator("#checked .refused").wait_for()
    visitor.check()
    field.fill("--cb_explore_adf --epsilon 0.25 --cb_type mtr -q ::")
    page.get_by_text("It can be used.").wait_for()
    page.get_by_role("button", name="Change the policy").click()

    page.get_by_role("status").filter(has_text="a new one learns").wait_for()
    visitor.check()
    assert filled.loop(name).settings.policy == "--cb_explore_adf --epsilon 0.25 --cb_type mtr -q ::"
    noted = filled.home.audit.entries(AuditFilter(loops=[name]), limit=1)
    assert [entry.door for entry in noted] == [Door.PORTAL]


def test_a_preset_fills_the_field_and_reset_restores_the_original(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """Nobody has to write arguments."""
    name = filled.new_loop().loop
    page = agreeing(visit(), f"/portal/loops/{name}/policy")
    page.get_by_role("radio", name="plain").check()
    page.get_by_text("This is the preset plain.").wait_for()
    page.get_by_role("button", name="Change the policy").click()
    page.get_by_role("status").wait_for()
    assert filled.loop(name).settings.preset == "plain"

    page.get_by_role("button", name="Reset").click()
    eventually(lambda: filled.loop(name).settings.preset == "personalizer", "the original is restored")


def test_an_exported_policy_can_be_loaded_again(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """The file is the one that the original's portal wrote and read."""
    name = filled.new_loop().loop
    page = visit().open(f"/portal/loops/{name}/policy")
    with page.expect_download() as started:
        page.get_by_role("link", name="Export policy").click()
    file = tmp_path / "policy.json"
    started.value.save_as(file)
    assert json.loads(file.read_text())["arguments"] == filled.loop(name).settings.policy

    page.locator("[data-load]").set_input_files(file)
    page.get_by_text("It can be used.").wait_for()


def test_models_are_downloaded_imported_and_rolled_back_to(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """What one loop has learned can be carried to another, and taken back."""
    name = learned(filled)
    visitor = visit()
    page = agreeing(visitor, f"/portal/loops/{name}/policy")
    with page.expect_download() as started:
        page.get_by_role("link", name="signed").first.click()
    file = tmp_path / "model.vw.zip"
    started.value.save_as(file)
    before = filled.loop(name).model_id

    page.get_by_label("Model file").set_input_files(file)
    page.get_by_role("button", name="Import", exact=True).click()
    page.get_by_role("status").filter(has_text="was imported, and serves").wait_for()
    visitor.check()
    assert (filled.loop(name).model_id or "").startswith("import-")

    page.get_by_role("button", name=f"Roll back to {before}", exact=True).click()
    page.get_by_role("status").filter(has_text="learning goes on from it").wait_for()
    assert filled.loop(name).model_id == before


@pytest.mark.parametrize("page_of", ["policy", "overview"])
def test_a_model_that_is_built_shows_how_far_it_is_and_is_stopped(
    visit: Callable[..., Visitor], filled: RunningService, page_of: str
) -> None:
    """A large log takes hours to learn anew: one must see it move, and be able to go back to what serves."""
    name = learned(filled)
    serving = filled.loop(name).model_id
    visitor = visit(375)
    page = agreeing(visitor, f"/portal/loops/{name}/policy")
    worker = filled.children()["worker"]
    with closing(sqlite3.connect(filled.home.folder.catalog, PATIENCE_S, isolation_level=None)) as catalog:
        catalog.execute("BEGIN IMMEDIATE")  # it must not be stopped while it holds up all others
        os.kill(worker, signal.SIGSTOP)  # so that nothing is built behind the test's back
    try:
        page.get_by_role("radio", name="plain").check()
        page.get_by_text("This is the preset plain.").wait_for()
        page.get_by_role("button", name="Change the policy").click()
        page.get_by_role("status").wait_for()
        loop = filled.loop(name)
        [building] = [each for each in filled.home.catalog.epochs(loop.loop_id) if each.state == "building"]
        visitor.open(f"/portal/loops/{name}/{page_of}")
        page.get_by_text("A new model is being built:").wait_for()
        far = TrainingStatus(
            epoch_id=building.epoch_id,
            joined_offset=6,
            joined_end=12,
            learned=6,
            rate_per_s=0.1,
            time_us=now_us() + FRESH_US,
        )
        filled.home.board.post(loop.loop_id, f"training-{building.epoch_id}", msgspec.json.encode(far))
        page.get_by_text("50 % of the log · 6 events learned · about 1 min left").wait_for()
        page.reload()
        page.get_by_role("progressbar", name="Progress of the new model").wait_for()
        visitor.check()
        page.get_by_role("button", name=f"Stop, and keep {serving}").click()
        page.get_by_role("status").filter(has_text=f"Model {serving} stays").wait_for()
        assert page.get_by_text("A new model is being built:").count() == 0
    finally:
        os.kill(worker, signal.SIGCONT)
    kept = filled.loop(name)
    assert (kept.model_id, kept.settings.preset) == (serving, "balanced")
    client = filled.client(name)
    assert client.rank(request("pasta", "ramen", eventId="later")).status_code == 201
    eventually(lambda: filled.loop(name).model_id != serving, "it goes on learning")


def test_what_is_no_model_is_refused_and_changes_nothing(
    visit: Callable[..., Visitor], filled: RunningService, tmp_path: Path
) -> None:
    """Whoever takes the wrong file must hear so."""
    name = filled.new_loop().loop
    file = tmp_path / "holiday.jpg"
    file.write_bytes(b"\xff\xd8 no model")
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/policy")
    visitor.expected = {400}
    page.get_by_label("Model file").set_input_files(file)
    page.get_by_role("button", name="Import", exact=True).click()

    page.locator("#trouble").filter(has_text="not a valid zip file").wait_for()
    assert filled.loop(name).model_id is None


def test_clearing_takes_what_was_ticked_once_the_name_is_typed(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """The original's three boxes, and no accident."""
    name = learned(filled)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/policy")
    page.get_by_label("What was learned").check()
    page.get_by_label("The policy", exact=False).last.check()
    page.get_by_label("to say so").fill(name)
    page.get_by_role("button", name="Clear").click()

    page.get_by_role("status").filter(has_text="Cleared: model, policy.").wait_for()
    visitor.check()
    cleared = filled.loop(name)
    assert (cleared.model_id, cleared.settings.preset) == (None, "personalizer")
