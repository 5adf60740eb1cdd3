"""Every page of the portal, on a phone and on a desk, light and dark: nothing that no page may do.

A new page has its line in `PAGES`, and the changes that it makes have tests of their own beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.portal.browser import PHONE

if TYPE_CHECKING:
    from tests.portal.browser import Visitor

PAGES = {
    "loops": "/portal/",
    "new loop": "/portal/new-loop",
    "delete loop": "/portal/loops/shown/delete",
    "overview": "/portal/loops/shown/overview",
    "overview of an hour": "/portal/loops/shown/overview?span=1h",
    "decisions": "/portal/loops/shown/decisions",
    "an event": "/portal/loops/shown/events/shown-39",
    "comparison": "/portal/loops/shown/comparison",
    "apprentice": "/portal/loops/shown/apprentice",
    "policy and models": "/portal/loops/shown/policy",
    "evaluations": "/portal/loops/shown/evaluations",
    "new evaluation": "/portal/loops/shown/evaluations/new",
    "optimization": "/portal/loops/shown/optimizations",
    "features": "/portal/loops/shown/features",
    "quick start": "/portal/loops/shown/start",
    "configuration": "/portal/loops/shown/configuration",
    "configuration, reset": "/portal/loops/shown/configuration/reset",
    "logs": "/portal/loops/shown/logs",
    "keys": "/portal/loops/shown/keys",
    "audit": "/portal/audit",
    "audit, nothing found": "/portal/audit?who=nobody-of-this-name",
    "about": "/portal/about",
    "the API": "/docs",
}
"""Pages that an admin sees of a loop `shown` in which something has happened, by what they are called here."""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES.keys())
def test_a_page_is_fit_to_be_seen(window: Visitor, path: str) -> None:
    """No error, nothing from elsewhere, nothing forbidden, nothing inaccessible, nothing wider than the window."""
    page = window.open(path)

    window.check()
    if page.viewport_size == PHONE:
        cut = "[...document.querySelectorAll('.scroller')].filter((e) => e.scrollWidth > e.clientWidth)"
        assert page.evaluate(f"{cut}.map((e) => e.ariaLabel)") == [], "what is cut off is not found"


@pytest.mark.parametrize(
    ("path", "status", "entry"),
    [
        ("/portal/nothing-here", 404, "Audit"),
        ("/portal/loops/none/keys", 404, "Audit"),
        ("/portal/loops/shown/events/none", 404, "Decisions"),
        ("/portal/loops/shown/keys/3/renew", 405, "Keys"),
    ],
)
def test_an_error_is_a_page_like_others(window: Visitor, path: str, status: int, entry: str) -> None:
    """Whoever takes a wrong turn must find back, by the menu that they know."""
    page = window.open(path, status=status)

    assert page.get_by_role("link", name="To the loops").is_visible()
    if not page.get_by_role("navigation", name="Portal").is_visible():
        page.get_by_role("button", name="Menu").click()
    menu = page.get_by_role("navigation", name="Portal")
    assert menu.get_by_role("link", name=entry, exact=True).is_visible()
    assert menu.get_by_role("link", name="none").count() == 0
    window.check()
