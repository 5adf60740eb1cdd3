"""A real browser for tests of the portal: it reports whatever a page must not do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.service import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Frame, Page, Request, Response, Route

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"width": 375, "height": 812}
DESKTOP = {"width": 1440, "height": 900}

_WATCH_CSP = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} blocked ${event.blockedURI} ${event.sample}`));
"""
_OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
_RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "preload": {"assets": ["cssom", "media"], "timeout": 1_000 * PATIENCE_S},
}
# What the page begins in the same breath as it takes in an answer has been seen here when this is over.
_TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def find_chromium() -> str | None:
    """Find the system's Chromium, installing it where this can be done. None: there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *command], env=environment, check=False, capture_output=True)
    return shutil.which("chromium")


def running_chromium() -> Iterator[Browser]:
    """Run the system's Chromium, without a head, for a fixture to hand on.

    While it runs, this thread has an event loop that runs: it must end before other tests begin loops of their own.
    """
    path = find_chromium()
    if path is None:
        pytest.skip("PAGES ARE NOT TESTED: there is no Chromium. On Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=1_000 * PATIENCE_S)
        try:
            yield running
        finally:
            running.close()


class Visitor:
    """A browser window with cookies of its own, that remembers whatever a page does wrong."""

    def __init__(self, browser: Browser, url: str, *, width: int, dark: bool = False) -> None:
        """Open a window.

        Args:
            browser: the browser.
            url: of the service: a request to anywhere else is refused, and is trouble.
            width: of the window in pixels.
            dark: whether the visitor likes it dark.
        """
        size = PHONE if width == PHONE["width"] else {**DESKTOP, "width": width}
        self.url = url
        self.trouble: list[str] = []
        self.expected: set[int] = set()  # statuses of answers that the test asks for
        self._under_way: set[Request] = set()
        self._held: list[Route] = []  # of those under way
        self.context: BrowserContext = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            base_url=url,
            timezone_id="UTC",
            locale="en-GB",
            accept_downloads=True,
        )
        self.context.set_default_timeout(1_000 * PATIENCE_S)
        self.context.add_init_script(_WATCH_CSP)
        self.context.route(lambda address: not address.startswith(url), self._refuse)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"script: {error}"))
        self.page.on("response", self._note_response)
        self.page.on("request", self._begin)
        self.page.on("requestfinished", self._end)
        self.page.on("requestfailed", self._end)
        self.page.on("framenavigated", self._forget)

    def _begin(self, request: Request) -> None:
        self._under_way.add(request)

    def _end(self, request: Request) -> None:
        self._under_way.discard(request)

    def _hold(self, route: Route) -> None:
        self._held.append(route)

    def _forget(self, _: Frame) -> None:
        """Wait no more for what the page before had under way."""
        self._under_way -= {request for request in self._under_way if not request.is_navigation_request()}

    def _refuse(self, route: Any, request: Request) -> None:
        if request.url.startswith(("data:", "blob:")):
            route.fallback()
            return
        self.trouble.append(f"asks for {request.url}, which is elsewhere")
        route.abort()

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            text = message.text
            if any(f"status of {status}" in text or f"Error Code {status}" in text for status in self.expected):
                return
            self.trouble.append(f"console: {text}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.trouble.append(f"{response.status} for {response.url}")

    def sign_in(self, key: str) -> None:
        """Sign in, as a person does."""
        self.page.goto("/portal/sign-in")
        self.page.get_by_label("Key", exact=True).fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda address: "/sign-in" not in address)

    def open(self, path: str, *, status: int = 200) -> Page:
        """Open a page and wait until nothing is under way any more."""
        self.expected = {status} if status >= 400 else set()
        answer = self.page.goto(path)
        assert answer is not None, "a page answers"
        assert answer.status == status, f"{path}: {answer.status}"
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until what the page asked for has come: a moment at which nothing is under way.

        It need not last: many pages ask for something every few seconds, and on a busy machine nearly always do.
        """

        def came() -> bool:
            self.page.evaluate(_TWO_FRAMES)
            return self._under_way <= {route.request for route in self._held}

        self.page.wait_for_load_state()
        eventually(came, "all that the page asked for has come")

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Hold up what the page asks for once it is there: an answer would change it under the eyes of who looks."""
        self.page.wait_for_load_state()  # what is looked for is there before the style sheet is
        self.page.route("**/*", self._hold)
        try:
            self.settle()
            yield
        finally:
            self.page.unroute("**/*")
            while self._held:
                self._held.pop().fallback()

    def check(self) -> None:
        """Fail if the page did, or is, what no page may.

        Raises:
            AssertionError: a console error, a request to elsewhere, a breach of the content security policy, a page
                that is wider than its window, or what axe finds inaccessible.
        """
        with self._standing_still():
            assert not self.trouble, "\n".join(self.trouble)
            assert not self.page.evaluate(_OVERFLOWS), f"the page is wider than its window: {self._widest()}"
            found = Axe().run(self.page, options=_RULES)
            assert not found.response["violations"], found.generate_report()
            assert not self.trouble, "\n".join(self.trouble)

    def _widest(self) -> str:
        return str(
            self.page.evaluate(
                "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
                ".slice(0, 5).map((e) => e.outerHTML.slice(0, 120)).join('\\n')"
            )
        )

    def close(self) -> None:
        """Close the window."""
        self.context.close()


def windows(browser: Browser, url: str) -> Iterator[Visitor]:
    """Open every kind of window that pages are looked at in."""
    for width, dark in ((375, False), (375, True), (1440, False), (1440, True)):
        visitor = Visitor(browser, url, width=width, dark=dark)
        try:
            yield visitor
        finally:
            visitor.close()
