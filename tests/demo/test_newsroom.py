"""The demo goes through the service itself: pages are ranked, clicks are learned, modes are switched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rankward.demo.newsroom import LOOP
from rankward.demo.stories import STORIES
from rankward.demo.world import EDITOR, Time
from rankward.records import Activation, LearningMode, MultiSlotInteraction, Observation
from tests.service import eventually

if TYPE_CHECKING:
    import httpx

    from tests.service import RunningService

pytestmark = pytest.mark.slow

ME = {"device": "phone", "time": "noon", "follows": ["food"], "name": "you-1"}


def ask(demo: RunningService, path: str, body: Any, kind: str = "application/json") -> httpx.Response:
    """Ask as the page does."""
    return demo.send("POST", f"/demo/{path}", headers={"Content-Type": kind}, body=msgspec.json.encode(body))


def view(demo: RunningService) -> Any:
    """Look how everything stands."""
    answer = ask(demo, "view", ME)
    assert answer.status_code == 200, answer.text
    return answer.json()


def scene(demo: RunningService, **change: Any) -> None:
    """Change what goes on."""
    assert ask(demo, "scene", change).status_code == 204


def test_an_apprentices_page_is_the_editors(demo: RunningService) -> None:
    """The first act: nobody sees anything but what the editor printed."""
    assert ask(demo, "start-over", {}).status_code == 204
    page = ask(demo, "page", ME).json()
    assert tuple(each["story"] for each in page["stories"]) == EDITOR[Time.NOON]
    assert page["learningMode"] == "Apprentice"


def test_a_click_is_logged_as_a_reward_of_its_place(demo: RunningService) -> None:
    """What is said of the click beside the story has to be what the service got."""
    page = ask(demo, "page", ME).json()
    assert ask(demo, "opinion", {"eventId": page["eventId"], "clicked": "third"}).status_code == 204
    eventually(lambda: any(isinstance(each, Activation) for each in about(demo, page["eventId"])), "it counts")
    decided, *rest = sorted(about(demo, page["eventId"]), key=lambda record: isinstance(record, Activation))
    assert isinstance(decided, MultiSlotInteraction)
    assert decided.deferred
    [observed, activated] = rest
    assert isinstance(observed, Observation)
    assert (observed.slot, observed.value) == ("third", 1.0)
    assert isinstance(activated, Activation)


def about(demo: RunningService, event_id: str) -> list[Any]:
    """Find all that was logged of an event."""
    return [record for record in demo.records(LOOP) if getattr(record, "event_id", None) == event_id]


def test_the_whole_play(demo: RunningService) -> None:
    """Apprentice, online, another taste, and from the start again: as a visitor goes through it."""
    scene(demo, rate=50)

    def seen() -> bool:
        looked = view(demo)
        return all(looked[told] for told in ("pages", "lines", "visits", "learned"))

    eventually(seen, "the crowd is seen, and learned from")
    scene(demo, learningMode="Online")
    assert demo.loop(LOOP).settings.learning_mode is LearningMode.ONLINE
    page = ask(demo, "page", ME).json()
    assert page["learningMode"] == "Online"
    assert all(0 < each["probability"] <= 1 for each in page["stories"])
    scene(demo, season="festival")
    assert [mark["what"] for mark in view(demo)["marks"]][-2:] == ["the loop decides", "festival week"]
    assert ask(demo, "start-over", {}).status_code == 204
    fresh = view(demo)
    assert (fresh["rate"], fresh["season"], fresh["learningMode"]) == (0, "ordinary", "Apprentice")
    assert (fresh["pages"], fresh["modelId"], fresh["lines"]) == (0, None, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("page", {**ME, "device": "fridge"}),
        ("page", {**ME, "name": "<b>"}),
        ("page", {**ME, "more": 1}),
        ("view", []),
        ("opinion", {"eventId": "e", "clicked": "attic"}),
        ("opinion", {"eventId": ""}),
        ("scene", {"rate": 1e9}),
        ("scene", {"season": "winter"}),
    ],
)
def test_what_does_not_fit_is_refused(demo: RunningService, path: str, body: Any) -> None:
    """The page sends nothing else; whoever does is told so, and nothing happens."""
    answer = ask(demo, path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_other_sites_cannot_play(demo: RunningService) -> None:
    """A form of another site can post to this machine, but not with this type."""
    assert ask(demo, "scene", {"rate": 50}, kind="text/plain").status_code == 400
    assert view(demo)["rate"] == 0


def test_everything_of_the_page_comes_from_here(demo: RunningService) -> None:
    """It works without a network, and a browser is told to load nothing from elsewhere."""
    page = demo.send("GET", "/demo")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "https://" not in page.text.replace("http://www.w3.org", "")
    for path in ("demo.css", "demo.js", "chart.js", "paper.js", "icon.svg", f"pictures/{STORIES[0].id}.svg"):
        assert demo.send("GET", f"/demo/static/{path}").status_code == 200


def test_a_service_has_no_newspaper(service: RunningService) -> None:
    """It is served by `rankward demo` alone: nobody's production answers strangers under /demo."""
    for path in ("/demo", "/demo/stories", "/demo/static/demo.js"):
        assert service.send("GET", path).status_code == 404
    assert all(loop.name != LOOP for loop in service.home.catalog.loops())
