"""Pictures of the portal, from a service with a day of simulated traffic: for the README, the docs, and to look at.

.venv/bin/python -m tests.portal.screenshots             writes those of the docs anew, into docs/images
.venv/bin/python -m tests.portal.screenshots FOLDER      every page, on a phone and on a desk, light and dark: after a
                                                         day of traffic, before any, and when something is wrong
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from playwright.sync_api import sync_playwright

from rankward.api.options import ApiOptions
from rankward.loops import new_loop_settings
from rankward.worker import JoiningStatus
from tests.portal.browser import Visitor, find_chromium
from tests.portal.conftest import WINDOWS
from tests.portal.day import Day
from tests.portal.test_pages import PAGES
from tests.service import ADMIN_KEY, RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
IN_DOCS = {
    "portal-overview": ("/portal/loops/shown/overview", False),
    "portal-comparison": ("/portal/loops/shown/comparison", True),
}
"""Pictures of the docs, by file name: a page's path, and whether it is dark."""
SHOWN_IN_DOCS = {"width": 1280, "height": 800}
_LEARNED = "(least) => Number(document.querySelector('#learned').textContent.replace(/[^0-9]/g, '')) >= least"
_WATCHED, _DECIDED = 400, 2_500  # pages that the loop has learned, before it decides and before the picture is taken
LOOP = "shown"  # the name that the paths in `PAGES` have


def main(folder: Path | None) -> None:
    """Take the pictures."""
    path = find_chromium()
    assert path is not None, "no Chromium was found: apt-get install chromium"
    with tempfile.TemporaryDirectory(prefix="rankward-") as made, ExitStack() as stack:
        service = stack.enter_context(_serving(_filled(Path(made) / "filled")))  # first: the browser has an event loop
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        if folder is None:
            _take_those_of_the_docs(browser, service)
            (Path(made) / "demo").mkdir()
            with _serving(RunningService(Path(made) / "demo", options=ApiOptions(demo=True)).start()) as demo:
                _take_that_of_the_demo(browser, demo)
        else:
            _take_all(browser, service, folder / "filled")
            with _serving(_empty(Path(made) / "empty")) as quiet:
                _take_all(browser, quiet, folder / "empty")
                _take_trouble(browser, quiet, folder / "trouble")
        browser.close()


@contextmanager
def _serving(service: RunningService) -> Iterator[RunningService]:
    try:
        yield service
    finally:
        service.close()


def _filled(folder: Path) -> RunningService:
    """A service with a day behind it."""
    day = Day(folder / "data")
    day.live(LOOP, world="grocery", events=4_000)
    day.live("headlines", world="clicks", events=2_000, models=8)
    day.close()
    service = RunningService(folder).start()
    figures = service.home.figures()

    def caught_up() -> bool:
        found = [figures.status(service.home.catalog.loop(name)) for name in (LOOP, "headlines")]
        return all(status is not None and status.behind == 0 and status.offset for status in found)

    eventually(caught_up, "the figures are made")
    return service


def _empty(folder: Path) -> RunningService:
    """A service of which nobody has asked anything yet."""
    folder.mkdir()
    service = RunningService(folder).start()
    service.home.loops.create(LOOP, new_loop_settings())
    eventually(lambda: service.client(LOOP).get("/configurations/service").status_code == 200, "the loop is served")
    return service


def _take_those_of_the_docs(browser: Browser, service: RunningService) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, (path, dark) in IN_DOCS.items():
        visitor = Visitor(browser, service.url, width=SHOWN_IN_DOCS["width"], dark=dark)
        visitor.sign_in(ADMIN_KEY)
        visitor.open(path)
        visitor.page.set_viewport_size(SHOWN_IN_DOCS)  # type: ignore[arg-type]
        visitor.page.screenshot(path=IMAGES / f"{name}.png")
        visitor.close()


def _take_that_of_the_demo(browser: Browser, service: RunningService) -> None:
    """The newspaper, once the loop arranges it and its line has risen for a while."""
    visitor = Visitor(browser, service.url, width=SHOWN_IN_DOCS["width"])
    page = visitor.page
    page.goto("/demo")
    page.get_by_role("button", name="Let the readers in").click()
    page.wait_for_function(_LEARNED, arg=_WATCHED)
    page.get_by_role("button", name=re.compile("Let it decide")).click()
    page.wait_for_function(_LEARNED, arg=_DECIDED)
    page.screenshot(path=IMAGES / "demo.png")
    visitor.close()


def _take_all(browser: Browser, service: RunningService, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for width, dark in WINDOWS.values():
        visitor = Visitor(browser, service.url, width=width, dark=dark)
        kind = f"{width}-{'dark' if dark else 'light'}"
        visitor.open("/portal/sign-in")
        visitor.page.screenshot(path=folder / f"sign-in-{kind}.png")
        visitor.sign_in(ADMIN_KEY)
        for name, path in PAGES.items():
            visitor.expected = {404}  # of an event that there is not
            visitor.page.goto(path)
            visitor.settle()
            _take(visitor, folder, name, kind)
        visitor.close()


def _take(visitor: Visitor, folder: Path, name: str, kind: str) -> None:
    visitor.page.screenshot(path=folder / f"{name.replace(' ', '-').replace(',', '')}-{kind}.png", full_page=True)


def _take_trouble(browser: Browser, service: RunningService, folder: Path) -> None:
    """What visitors see when something is wrong: with them, or with the service. It does not recover from the last."""
    folder.mkdir(parents=True, exist_ok=True)
    loop = service.loop(LOOP)
    windows = {}
    for width, dark in ((375, False), (1440, False), (1440, True)):
        visitor = Visitor(browser, service.url, width=width, dark=dark)
        windows[f"{width}-{'dark' if dark else 'light'}"] = visitor
        visitor.sign_in(service.key(LOOP))
    overview = f"/portal/loops/{LOOP}/overview"

    def take(name: str, path: str) -> None:
        for kind, visitor in windows.items():
            visitor.page.goto(path)
            visitor.settle()
            _take(visitor, folder, name, kind)

    take("a loop that there is not", "/portal/loops/none/overview")
    take("what only an admin may", "/portal/new-loop")
    take("no such page", "/portal/nothing")
    for kind, visitor in windows.items():
        visitor.page.goto(f"/portal/loops/{LOOP}/configuration")
        visitor.page.evaluate("document.querySelectorAll('[name=csrf]').forEach((field) => (field.value = '0'))")
        visitor.page.get_by_role("button", name="Review").click()
        visitor.settle()
        _take(visitor, folder, "a form of another session", kind)
    # The worker has not been seen for a minute, and the disk is full.
    worker = service.children()["worker"]
    os.kill(worker, signal.SIGSTOP)
    service.home.folder.give_reserve()
    note = msgspec.json.decode(service.home.board.read(loop.loop_id)["joining"], type=JoiningStatus)
    old = msgspec.structs.replace(note, time_us=note.time_us - 60_000_000)
    service.home.board.post(loop.loop_id, "joining", msgspec.json.encode(old))
    take("no worker", overview)
    take("no worker, loops", "/portal/")
    take("no worker, about", "/portal/about")
    take("no worker, logs", f"/portal/loops/{LOOP}/logs")
    os.kill(worker, signal.SIGCONT)
    for kind, visitor in windows.items():
        visitor.page.goto("/portal/sign-in")
        visitor.context.clear_cookies()
        visitor.page.goto("/portal/sign-in")
        visitor.page.get_by_label("Key", exact=True).fill("wrong")
        visitor.page.get_by_role("button", name="Sign in").click()
        visitor.settle()
        _take(visitor, folder, "a wrong key", kind)
        visitor.sign_in(ADMIN_KEY)
    (service.home.folder.run / "portal.sqlite").unlink()
    service.stop()
    for path in service.home.folder.events(loop.loop_id).iterdir():
        path.write_bytes(b"not a log " * 1_000)
    service.start()
    take("a session that has ended", overview)
    for visitor in windows.values():
        visitor.sign_in(ADMIN_KEY)
    for name in ("overview", "loops", "decisions", "logs", "features", "apprentice", "policy and models"):
        take(f"a log that cannot be read, {name}", PAGES[name])
    for visitor in windows.values():
        visitor.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
