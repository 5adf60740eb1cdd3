"""Signing in and out: by whom, for how long, and what keeps others out."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from rankward.invocation import command
from rankward.portal.gate import COOKIE, FAILURES_MAX
from tests.service import ADMIN_KEY, RunningService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def post(service: RunningService, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
    """Send a form."""
    return service.send("POST", path, headers={**FORM, **headers}, body=urlencode(fields).encode())


def signed_in(service: RunningService, key: str = ADMIN_KEY) -> dict[str, str]:
    """Sign in, and return the header that says so."""
    answer = post(service, "/portal/sign-in", {"key": key})
    assert answer.status_code == 303, answer.text
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def csrf(service: RunningService, cookie: dict[str, str]) -> str:
    """Read the token that a session's forms carry."""
    page = service.send("GET", "/portal/", headers=cookie).text
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


def test_without_a_session_every_page_leads_to_the_sign_in(visit: Callable[..., Visitor]) -> None:
    """And from there to where one wanted to go."""
    visitor = visit(key=None)
    page = visitor.open("/portal/loops/shown/keys")
    assert "/portal/sign-in?next=/portal/loops/shown/keys" in page.url
    visitor.check()

    page.get_by_label("Key", exact=True).fill(ADMIN_KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/portal/loops/shown/keys")
    visitor.check()


def test_the_sign_in_says_where_the_key_is_and_never_the_key(
    visit: Callable[..., Visitor], filled: RunningService
) -> None:
    """Whoever has just started the service must be in within a minute."""
    visitor = visit(375, key=None)
    page = visitor.open("/portal/sign-in")
    page.get_by_text("Where do I find it?").click()

    assert page.get_by_text(f"{command()} loop keys --admin --show --data DIR").is_visible()
    assert ADMIN_KEY not in page.content()
    assert str(filled.root) not in page.content(), "where it lies is nothing to a stranger"
    visitor.check()


def test_a_wrong_key_is_refused_in_words(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """A form that comes back empty and silent is sent again and again."""
    visitor = visit(key=None)
    page = visitor.open("/portal/sign-in")
    visitor.expected = {403}
    page.get_by_label("Key", exact=True).fill("no-key-at-all")
    page.get_by_role("button", name="Sign in").click()

    page.get_by_role("alert").filter(has_text="That is no key of this service").wait_for()
    visitor.check()


def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(filled: RunningService) -> None:
    """A session is as good as the key that it was begun with."""
    cookie = post(filled, "/portal/sign-in", {"key": ADMIN_KEY}).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/portal" in cookie
    assert "secure" not in cookie, "over HTTP a browser would not send it back"


def test_a_loops_key_opens_that_loop_alone(filled: RunningService) -> None:
    """One application's key must not show what another's users do."""
    other = filled.new_loop()
    cookie = signed_in(filled, other.key)

    page = filled.send("GET", "/portal/", headers=cookie)
    assert f"/portal/loops/{other.loop}" in page.text
    assert "/portal/loops/shown" not in page.text
    gone = filled.send("GET", "/portal/loops/shown/keys", headers=cookie)
    assert gone.status_code == 404
    assert "/portal/loops/shown" not in gone.text, "the menu of that page says no more of it"
    assert '"/portal/audit"' in gone.text, "but is one"
    assert filled.send("GET", "/portal/new-loop", headers=cookie).status_code == 403
    assert "shown" not in filled.send("GET", "/portal/audit?loop=shown", headers=cookie).text.partition("<ol")[2]


def test_an_admin_is_given_commands_that_work_as_they_are(filled: RunningService) -> None:
    """A command without the folder says that there is nothing; where it lies is for those who can go there."""
    other = filled.new_loop()
    cookie, theirs = signed_in(filled), signed_in(filled, other.key)

    for page in ("keys", "start"):
        path = f"/portal/loops/{other.loop}/{page}"
        assert f"--data {filled.root}" in filled.send("GET", path, headers=cookie).text
        seen = filled.send("GET", path, headers=theirs).text
        assert "--data DIR" in seen
        assert str(filled.root) not in seen


def test_who_is_signed_in_can_look_while_nothing_can_be_written(filled: RunningService) -> None:
    """With a full disk, or a cluster whose servers are away, the portal is where one sees it."""
    cookie = signed_in(filled)
    with contextlib.closing(sqlite3.connect(filled.home.folder.sessions, isolation_level=None)) as connection:
        connection.execute("UPDATE session SET seen_us = seen_us - 120000000")
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON session BEGIN SELECT RAISE(ABORT, 'full'); END")
        try:
            assert filled.send("GET", "/portal/", headers=cookie).status_code == 200
        finally:
            connection.execute("DROP TRIGGER full")


def test_signing_in_again_ends_the_session_before(filled: RunningService) -> None:
    """What is signed in anew on the same browser is one session: a copy of the old cookie must not outlive it."""
    before = signed_in(filled)
    answer = post(filled, "/portal/sign-in", {"key": ADMIN_KEY}, **before)
    after = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}

    assert filled.send("GET", "/portal/about", headers=before).status_code == 303
    assert filled.send("GET", "/portal/about", headers=after).status_code == 200


def test_a_session_ends_with_its_key(filled: RunningService) -> None:
    """A key is renewed because somebody has it who should not: they are out at once."""
    loop = filled.new_loop()
    cookie = signed_in(filled, loop.key)
    assert filled.send("GET", f"/portal/loops/{loop.loop}/keys", headers=cookie).status_code == 200

    filled.home.loops.set_key(loop.loop, 1)

    answer = filled.send("GET", f"/portal/loops/{loop.loop}/keys", headers=cookie)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/portal/sign-in")


def test_after_signing_out_the_cookie_opens_nothing(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """Also for whoever has kept a copy of it."""
    visitor = visit()
    [cookie] = [each for each in visitor.context.cookies() if each.get("name") == COOKIE]
    visitor.page.get_by_role("button", name="Sign out").click()
    visitor.page.wait_for_url("**/portal/sign-in**")  # a card that was under way may lead there first

    kept = {"Cookie": f"{COOKIE}={cookie.get('value')}"}
    assert filled.send("GET", "/portal/", headers=kept).status_code == 303
    visitor.check()


def test_a_change_needs_the_sessions_token_and_our_own_site(filled: RunningService) -> None:
    """Another site can make a browser send a form, with the cookie."""
    cookie = signed_in(filled)
    token = csrf(filled, cookie)
    fields = {"name": "forged"}

    assert post(filled, "/portal/new-loop", fields, **cookie).status_code == 403
    assert post(filled, "/portal/new-loop", {**fields, "csrf": "0" * 64}, **cookie).status_code == 403
    forged = {**fields, "csrf": token}
    assert post(filled, "/portal/new-loop", forged, Origin="https://evil.example", **cookie).status_code == 403
    assert post(filled, "/portal/new-loop", forged, Origin="null", **cookie).status_code == 403
    assert post(filled, "/portal/new-loop", forged, **{"Sec-Fetch-Site": "cross-site"}, **cookie).status_code == 403
    assert "forged" not in {loop.name for loop in filled.home.catalog.loops()}

    assert post(filled, "/portal/new-loop", forged, Origin=filled.url, **cookie).status_code == 200


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/portal/\\evil", "/docs", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(filled: RunningService, wanted: str) -> None:
    """A link to the sign-in could otherwise lead to a page that looks like ours."""
    answer = post(filled, "/portal/sign-in", {"key": ADMIN_KEY, "next": wanted})

    assert answer.headers["location"] == "/portal/"


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service of its own with two HTTP processes: who is locked out here signs in elsewhere."""
    running = RunningService(tmp_path_factory.mktemp("guarded"), workers=2)
    try:
        yield running.start()
    finally:
        running.close()


def test_whoever_guesses_is_locked_out_of_all_processes(guarded: RunningService) -> None:
    """With N processes, one could otherwise guess N times as often. Sessions are the same in all of them, too."""
    cookie = signed_in(guarded)
    for _ in range(6):  # each connection may be answered by another process
        assert guarded.send("GET", "/portal/", headers=cookie).status_code == 200

    for number in range(FAILURES_MAX):
        assert post(guarded, "/portal/sign-in", {"key": f"guess-{number}"}).status_code == 403
    for _ in range(4):
        refused = post(guarded, "/portal/sign-in", {"key": ADMIN_KEY})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
    assert guarded.send("GET", "/portal/", headers=cookie).status_code == 200, "who is in stays in"
