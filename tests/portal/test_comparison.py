"""Challengers and the learning mode, in the portal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.records import LearningMode
from tests.service import RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow


def test_a_challenger_is_added_shown_and_removed(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """A policy that cannot be used is refused beside the field, and what was typed stays."""
    name = filled.new_loop().loop
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/comparison")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Name").fill("calm")
    page.get_by_label("Policy").fill("--cb_explore_adf --invert_hash secrets")
    visitor.expected = {400}
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("alert").filter(has_text="invert_hash").wait_for()
    assert page.get_by_label("Name").input_value() == "calm"
    visitor.check()
    page.get_by_label("Policy").fill("personalizer")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("row").filter(has_text="calm").wait_for()
    visitor.check()

    page.get_by_role("button", name="Remove calm").click()
    page.get_by_role("status").filter(has_text="calm is removed").wait_for()
    assert page.get_by_role("row").filter(has_text="calm").count() == 0


def test_the_learning_mode_is_switched_and_back(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """The one button that an apprentice's months lead to."""
    name = filled.new_loop().loop
    visitor = visit(375)
    page = visitor.open(f"/portal/loops/{name}/apprentice")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Back to apprentice mode").click()
    page.get_by_role("status").filter(has_text="learns to match it").wait_for()
    assert filled.loop(name).settings.learning_mode is LearningMode.APPRENTICE

    page.get_by_role("button", name="Switch to online mode").click()
    eventually(lambda: filled.loop(name).settings.learning_mode is LearningMode.ONLINE, "the model decides")
    visitor.check()
