"""Pictures of the portal, from a service with a day of simulated traffic: for the README, the docs, and to look at.

.venv/bin/python -m tests.portal.screenshots             writes those of the docs anew, into docs/images
.venv/bin/python -m tests.portal.screenshots FOLDER      every page, on a phone and on a desk, light and dark
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.portal.browser import Visitor, find_chromium
from tests.portal.day import Day
from tests.portal.test_pages import PAGES
from tests.service import ADMIN_KEY, RunningService, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
IN_DOCS = {
    "portal-overview": ("/portal/loops/shown/overview", False),
    "portal-comparison": ("/portal/loops/shown/comparison", True),
}
"""Pictures of the docs, by file name: a page's path, and whether it is dark."""
SHOWN_IN_DOCS = {"width": 1280, "height": 800}
LOOP = "shown"  # the name that the paths in `PAGES` have


def main(folder: Path | None) -> None:
    """Take the pictures."""
    path = find_chromium()
    assert path is not None, "no Chromium was found: apt-get install chromium"
    with tempfile.TemporaryDirectory(prefix="rankward-") as made:
        service = _service(Path(made))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                if folder is None:
                    _take_those_of_the_docs(browser, service)
                else:
                    folder.mkdir(parents=True, exist_ok=True)
                    _take_all(browser, service, folder)
                browser.close()
        finally:
            service.close()


def _service(folder: Path) -> RunningService:
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


def _take_those_of_the_docs(browser: Browser, service: RunningService) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, (path, dark) in IN_DOCS.items():
        visitor = Visitor(browser, service.url, width=SHOWN_IN_DOCS["width"], dark=dark)
        visitor.sign_in(ADMIN_KEY)
        visitor.open(path)
        visitor.page.set_viewport_size(SHOWN_IN_DOCS)  # type: ignore[arg-type]
        visitor.page.screenshot(path=IMAGES / f"{name}.png")
        visitor.close()


def _take_all(browser: Browser, service: RunningService, folder: Path) -> None:
    for width, dark in ((375, False), (375, True), (1440, False), (1440, True)):
        visitor = Visitor(browser, service.url, width=width, dark=dark)
        kind = f"{width}-{'dark' if dark else 'light'}"
        visitor.open("/portal/sign-in")
        visitor.page.screenshot(path=folder / f"sign-in-{kind}.png")
        visitor.sign_in(ADMIN_KEY)
        for name, path in PAGES.items():
            visitor.open(path)
            visitor.page.screenshot(
                path=folder / f"{name.replace(' ', '-').replace(',', '')}-{kind}.png", full_page=True
            )
        visitor.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
