"""Evaluations and the importance of features, in the portal: asked, followed, read, applied, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.store.studies import StudyKind
from tests.portal.test_policy import learned
from tests.portal.test_signing_in import signed_in
from tests.service import STUDY_S, RunningService

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow

STUDY_MS = 1_000 * STUDY_S


def test_an_evaluation_is_asked_followed_read_and_applied(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """Its whole life, with a name that is markup."""
    name = learned(filled)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/evaluations")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("link", name="New evaluation").click()
    page.get_by_label("Name").fill("<i>first</i>")
    page.get_by_label("Policies to judge as well").fill("calm = --cb_explore_adf --epsilon 0.05 --cb_type mtr\nplain")
    page.get_by_role("button", name="Evaluate").click()
    page.get_by_role("heading", name="<i>first</i>").wait_for()
    page.get_by_role("region", name="Policies").wait_for(timeout=STUDY_MS)
    visitor.check()
    rows = page.get_by_role("region", name="Policies").get_by_role("row")
    assert rows.filter(has_text="calm").count() == 1

    page.get_by_role("button", name="Apply calm").click()
    page.get_by_role("status").filter(has_text="calm is the loop's policy now").wait_for()
    assert filled.loop(name).settings.policy == "--cb_explore_adf --epsilon 0.05 --cb_type mtr"
    page = visitor.open(f"/portal/loops/{name}/evaluations")
    page.get_by_role("link", name="<i>first</i>").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("status").filter(has_text="is deleted").wait_for()


def test_what_cannot_be_evaluated_is_said_beside_the_form(visit: Callable[..., Visitor]) -> None:
    """And what was typed stays."""
    visitor = visit(375)
    page = visitor.open("/portal/loops/shown/evaluations/new")
    visitor.expected = {400}
    page.get_by_label("Policies to judge as well").fill("neither this nor that")
    page.get_by_role("button", name="Evaluate").click()

    page.get_by_role("alert").filter(has_text="nor a preset").wait_for()
    assert page.get_by_label("Policies to judge as well").input_value() == "neither this nor that"
    visitor.check()


def test_optimization_is_switched_on_and_tried(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """A dry run is begun by a button, and its run stands on the page, whatever came of it."""
    name = learned(filled)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/optimizations")
    page.get_by_role("button", name="Switch on").click()
    page.get_by_role("status").filter(has_text="is switched on").wait_for()
    assert filled.loop(name).settings.is_auto_optimization_enabled
    page.get_by_role("button", name="Dry run").click()
    page.get_by_role("status").filter(has_text="The search has begun").wait_for()
    visitor.check()
    assert [run.dry_run for run in filled.home.optimizations.listed(filled.loop(name).loop_id)] == [True]


def test_importance_is_measured(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """The button leads to figures with intervals."""
    name = learned(filled, events=40)
    visitor = visit()
    page = visitor.open(f"/portal/loops/{name}/features")
    page.get_by_role("button", name="Measure importance").click()
    page.get_by_text("What each is worth was measured on").wait_for(timeout=STUDY_MS)
    visitor.check()
    loop_id = filled.loop(name).loop_id
    assert len(filled.home.studies.listed(loop_id, StudyKind.IMPORTANCE)) == 1


def test_a_kind_of_study_that_there_is_not_is_not_found(filled: RunningService) -> None:
    """An address that was mistyped is the visitor's mistake: it must not look like ours, nor fill the log."""
    answer = filled.send("GET", "/portal/loops/shown/studies/weather/x/progress", headers=signed_in(filled))

    assert answer.status_code == 404
