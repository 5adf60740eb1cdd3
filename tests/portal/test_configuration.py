"""Changing settings in the portal: seen before it is done, noted when it is, and undone again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rankward.settings import ModelImport

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.portal.browser import Visitor
    from tests.service import RunningService

pytestmark = pytest.mark.slow


def test_a_change_is_reviewed_made_and_undone(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """Nothing holds before what it does was seen; the way back is one click on what is on record."""
    loop = filled.new_loop().loop
    visitor = visit()
    page = visitor.open(f"/portal/loops/{loop}/configuration")
    page.get_by_label("Reward wait").fill("90s")
    page.get_by_label("Default reward").fill("0.25")
    page.get_by_role("button", name="Review the changes").click()

    page.get_by_role("heading", name="Change these settings?").wait_for()
    assert "a new one learns the last 2 days of the log" in page.locator("main").inner_text()
    assert filled.loop(loop).settings.default_reward == 0.0
    visitor.check()

    page.get_by_role("button", name="Yes, change").click()
    page.get_by_role("status").filter(has_text="2 settings are changed").wait_for()
    visitor.check()
    settings = filled.loop(loop).settings
    assert (settings.reward_wait, settings.default_reward) == (timedelta(seconds=90), 0.25)

    page.get_by_role("link", name="Undo the change of").first.click()
    page.get_by_role("heading", name="Undo this change?").wait_for()
    visitor.check()
    page.get_by_role("button", name="Yes, change").click()
    page.get_by_role("status").filter(has_text="2 settings are changed").wait_for()
    settings = filled.loop(loop).settings
    assert (settings.reward_wait, settings.default_reward) == (timedelta(minutes=10), 0.0)


def test_what_is_out_of_bounds_is_refused_beside_its_field(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """With all else that was typed still there."""
    loop = filled.new_loop().loop
    visitor = visit(375)
    page = visitor.open(f"/portal/loops/{loop}/configuration")
    visitor.expected = {400}
    page.get_by_label("Exploration").fill("7")
    page.get_by_label("Default reward").fill("0.5")
    page.get_by_role("button", name="Review the changes").click()

    page.get_by_role("alert").filter(has_text="explorationPercentage 7.0 is out of bounds").wait_for()
    assert page.get_by_label("Exploration").get_attribute("aria-invalid") == "true"
    assert page.get_by_label("Default reward").input_value() == "0.5"
    visitor.check()

    page.get_by_label("Exploration").fill("0.3")
    page.get_by_role("button", name="Review the changes").click()
    page.get_by_role("button", name="Back").click()
    assert page.get_by_label("Exploration").input_value() == "0.3", "going back keeps what was typed"


def test_a_change_upon_somebody_elses_is_not_made_unseen(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """What was reviewed is not what would happen any more."""
    client = filled.new_loop()
    visitor = visit()
    page = visitor.open(f"/portal/loops/{client.loop}/configuration")
    page.get_by_label("Exploration").fill("0.3")
    page.get_by_role("button", name="Review the changes").click()
    configuration = client.get("/configurations/service").json()
    assert client.put("/configurations/service", {**configuration, "defaultReward": 0.1}).status_code == 200
    visitor.expected = {503}
    page.get_by_role("button", name="Yes, change").click()

    page.get_by_text("Somebody changed this loop meanwhile").wait_for()
    assert filled.loop(client.loop).settings.exploration == 0.2


def test_reset_says_what_it_restores(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """The word alone could mean all of the settings, or the model."""
    loop = filled.new_loop().loop
    policy = {"name": "", "arguments": "--cb_explore_adf --epsilon 0.4"}
    assert filled.client(loop).put("/configurations/policy", policy).status_code == 200
    visitor = visit()
    page = visitor.open(f"/portal/loops/{loop}/configuration")
    page.get_by_role("link", name="Reset policy").click()
    page.get_by_text("restores the preset personalizer").first.wait_for()
    visitor.check()
    page.get_by_role("button", name="Yes, change").click()

    page.get_by_role("status").wait_for()
    assert filled.loop(loop).settings.preset == "personalizer"


def test_a_loops_key_does_not_widen_what_it_may_do(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """`model_import` says which models that very key may bring in: over HTTP it cannot change it either."""
    client = filled.new_loop()
    visitor = visit(key=client.key)
    page = visitor.open(f"/portal/loops/{client.loop}/configuration")
    assert page.get_by_label("Model import").is_disabled()
    visitor.check()

    page.get_by_label("Model import").evaluate("field => { field.disabled = false; field.value = 'any' }")
    visitor.expected = {400}
    page.get_by_role("button", name="Review the changes").click()
    page.get_by_role("alert").filter(has_text="bounds what a key of the loop may do").wait_for()
    assert filled.loop(client.loop).settings.model_import is ModelImport.TRUSTED
