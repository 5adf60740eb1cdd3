"""What tests of the portal share: one browser, one service with loops in it, and a visitor for each kind of window."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.loops import new_loop_settings
from tests.portal.browser import Visitor, running_chromium
from tests.service import ADMIN_KEY, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

WINDOWS = {"phone": (375, False), "phone, dark": (375, True), "desktop": (1440, False), "desktop, dark": (1440, True)}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all pages."""
    yield from running_chromium()


@pytest.fixture(scope="package")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service of the portal's tests alone, whose loop `shown` has decided, been rewarded and learned.

    Tests that change something make a loop of their own.
    """
    running = RunningService(tmp_path_factory.mktemp("portal"))
    try:
        running.start()
        second = timedelta(seconds=1)
        settings = msgspec.structs.replace(new_loop_settings(), reward_wait=second, model_export_frequency=second)
        running.home.loops.create("shown", settings)
        loop = running.client("shown")
        eventually(lambda: loop.get("/configurations/service").status_code == 200, "the loop is served")
        for number in range(40):
            event_id = f"shown-{number}"
            ranked = loop.rank(request("pasta", "<b>ramen</b>", '"><script>alert(1)</script>', eventId=event_id))
            assert ranked.status_code == 201
            assert loop.reward(event_id, number % 3 / 2).status_code == 204
        running.wait_until_learned("shown", 40)
        yield running
    finally:
        running.close()


@pytest.fixture
def visit(browser: Browser, filled: RunningService) -> Iterator[Callable[..., Visitor]]:
    """Open windows, signed in with a key unless told otherwise, and close them at the end."""
    opened: list[Visitor] = []

    def open_window(width: int = 1440, *, dark: bool = False, key: str | None = ADMIN_KEY) -> Visitor:
        visitor = Visitor(browser, filled.url, width=width, dark=dark)
        opened.append(visitor)
        if key is not None:
            visitor.sign_in(key)
        return visitor

    yield open_window
    for visitor in opened:
        visitor.close()


@pytest.fixture(scope="package", params=list(WINDOWS.values()), ids=list(WINDOWS))
def window(request: pytest.FixtureRequest, browser: Browser, filled: RunningService) -> Iterator[Visitor]:
    """A window of each kind, signed in once, for the tests that only look."""
    width, dark = request.param
    visitor = Visitor(browser, filled.url, width=width, dark=dark)
    visitor.sign_in(ADMIN_KEY)
    yield visitor
    visitor.close()
