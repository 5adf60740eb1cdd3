"""The newspaper in a real browser: it is fit to be seen by everybody, and the play can be lived through."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.portal.browser import Visitor, running_chromium, windows
from tests.service import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.service import RunningService

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all of these tests."""
    expect.set_options(timeout=1_000 * PATIENCE_S)
    yield from running_chromium()
    expect.set_options(timeout=5_000)


@pytest.fixture
def visitor(browser: Browser, demo: RunningService) -> Iterator[Visitor]:
    """Somebody at a desk, before a demo that has just begun."""
    opened = Visitor(browser, demo.url, width=1440)
    try:
        answer = opened.page.request.post("/demo/start-over", data={})
        assert answer.status == 204
        page = opened.open("/demo")
        expect(page.locator(".story")).to_have_count(5)
        yield opened
    finally:
        opened.close()


def stories(page: Page) -> list[str]:
    """The stories on the front page, the lead first."""
    return page.locator(".story h3").all_inner_texts()


def test_everybody_can_look_at_it(browser: Browser, demo: RunningService) -> None:
    """On a phone and on a desk, light and dark, with a story open and without."""
    for visitor in windows(browser, demo.url):
        page = visitor.open("/demo")
        expect(page.locator(".story")).to_have_count(5)
        visitor.check()
        page.locator(".story h3 button").first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        visitor.check()


def test_the_play_can_be_lived_through(visitor: Visitor) -> None:
    """From the editor's page to a loop that decides, another taste, and what a visitor takes home."""
    page = visitor.page
    page.get_by_role("button", name="Let the readers in").click()
    decide = page.get_by_role("button", name=re.compile("Let it decide"))
    expect(page.locator("#learned")).not_to_have_text("0")
    expect(page.get_by_role("img", name=re.compile("the loop"))).to_be_visible()
    expect(page.locator("#arranged")).to_have_text("arranged by the editor")
    decide.click()
    expect(page.get_by_role("heading", name="Now the loop decides")).to_be_visible()
    expect(page.locator("#arranged")).to_have_text("arranged for you by the loop")
    expect(page.locator(".story .chance")).to_have_count(5)
    page.get_by_role("button", name=re.compile("Change everybody")).click()
    expect(page.locator("#flash")).to_contain_text("Festival week")
    page.get_by_role("button", name="What about my app?").click()
    expect(page.get_by_role("heading", name="Now yours")).to_be_in_viewport()
    page.locator("label", has=page.locator("input[value=curl]")).click()
    expect(page.locator("pre[data-language=curl]")).to_be_visible()
    visitor.check()
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_role("button", name="Let the readers in")).to_be_visible()


def test_it_can_be_played_by_keyboard(visitor: Visitor) -> None:
    """Choosing who one is, opening a story, and coming back to where one was."""
    page = visitor.page
    page.get_by_role("radio", name="morning").focus()
    before = stories(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#edition")).to_have_text("noon edition")
    assert stories(page) != before
    page.locator(".story h3 button").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("reward")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(page.locator("#paper")).to_be_focused()
    page.get_by_role("button", name="None of these").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".story")).to_have_count(5)
    visitor.check()
