"""Rank over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.service import LoopClient, request

if TYPE_CHECKING:
    from tests.service import RunningService

pytestmark = pytest.mark.slow

VERSIONS = ["v1.0", "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3"]


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop whose settings nobody changes."""
    return service.new_loop()


@pytest.mark.parametrize("version", VERSIONS)
def test_rank_answers_every_action_with_its_probability(loop: LoopClient, version: str) -> None:
    """201 and nothing else: the generated clients take anything but that for an error."""
    answer = loop.at(version).rank(request("pasta", "ramen", "salad", "soup", eventId=f"shape-{version}"))

    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert set(body) == {"ranking", "eventId", "rewardActionId"}
    assert {action["id"] for action in body["ranking"]} == {"pasta", "ramen", "salad", "soup"}
    assert [action["probability"] for action in body["ranking"]] == [0.25] * 4
    assert body["eventId"] == f"shape-{version}"
    assert body["rewardActionId"] == body["ranking"][0]["id"]


def test_an_event_without_an_id_is_given_one(loop: LoopClient) -> None:
    """32 hex digits, a dash, and the time in base 62; never the same twice."""
    made = [loop.rank(request("a", "b")).json()["eventId"] for _ in range(20)]

    assert len(set(made)) == 20
    assert all(re.fullmatch(r"[0-9a-f]{32}-[0-9A-Za-z]{5}", event_id) for event_id in made)


@pytest.mark.parametrize("event_id", ["a/b", "grüße 🍜", "100%", "..", "e" * 256, "with\nlines", "nul\0"])
def test_an_event_id_may_be_any_text(loop: LoopClient, event_id: str) -> None:
    """It is the caller's: an order number, a path, a sentence."""
    assert loop.rank(request("a", "b", eventId=event_id)).json()["eventId"] == event_id


def test_excluded_actions_keep_their_place(loop: LoopClient) -> None:
    """With probability 0, and never to be shown, even first in the request."""
    for n in range(20):
        body = loop.rank(request("a", "b", "c", excludedActions=["a"], eventId=f"excluded-{n}")).json()
        assert body["ranking"][0] == {"id": "a", "probability": 0.0}
        assert [action["probability"] for action in body["ranking"][1:]] == [0.5, 0.5]
        assert body["rewardActionId"] == body["ranking"][1]["id"]


def test_a_single_rankable_action_is_certain(loop: LoopClient) -> None:
    """Nothing is left to chance."""
    body = loop.rank(request("a", "b", excludedActions=["a", "unknown"])).json()

    assert body["ranking"] == [{"id": "a", "probability": 0.0}, {"id": "b", "probability": 1.0}]
    assert body["rewardActionId"] == "b"


def test_a_repeated_rank_answers_the_same_and_is_logged_once(service: RunningService) -> None:
    """A client that retries must neither see another decision nor count twice."""
    loop = service.new_loop()
    body = request(*"abcdefgh", eventId="again")

    answers = [loop.rank(body).json() for _ in range(5)]

    assert all(answer == answers[0] for answer in answers)
    assert [record.event_id for record in service.records(loop.loop)] == ["again"]


def test_another_request_under_a_known_id_is_a_new_interaction(service: RunningService) -> None:
    """As the contract has it: each Rank that asks something else is its own interaction."""
    loop = service.new_loop()
    loop.rank(request("a", "b", eventId="again"))
    loop.rank(request("a", "c", eventId="again"))

    assert [record.repeats for record in service.records(loop.loop)] == [False, True]


def test_what_is_logged_is_what_was_answered(service: RunningService) -> None:
    """Context, actions as offered, exclusions, and the probabilities that were drawn from."""
    loop = service.new_loop()
    body = loop.rank(request("a", "b", "c", excludedActions=["b"], eventId="e1", deferActivation=True)).json()

    [record] = service.records(loop.loop)
    assert [action.id for action in record.actions] == ["a", "b", "c"]
    assert record.context == b'[{"visitor":{"device":"phone"}}]'
    assert record.actions[0].features == b'[{"dish":{"name":"a"}}]'
    assert (record.excluded, record.pmf, record.deferred, record.model_id) == ((1,), (0.5, 0.0, 0.5), True, None)
    assert record.actions[record.chosen].id == body["rewardActionId"]


def test_loops_draw_for_themselves(service: RunningService) -> None:
    """The loop is part of the draw's seed: two loops that share event ids do not explore in step."""
    events = [request(*"abcdefgh", eventId=f"draw-{n}") for n in range(12)]
    loops = [service.new_loop(), service.new_loop()]

    first, second = [[loop.rank(event).json()["rewardActionId"] for event in events] for loop in loops]

    assert first != second


@pytest.mark.parametrize(
    "members",
    [
        {"contextFeatures": None},
        {"contextFeatures": []},
        {"contextFeatures": [{}]},
        {"excludedActions": None, "eventId": None, "deferActivation": None},
        {"excludedActions": []},
        {"excludedActions": ["nobody"]},
        {"explain": True, "requestId": {"deep": [1, None]}},
    ],
)
def test_optional_members_may_be_null_absent_or_unknown(loop: LoopClient, members: dict[str, Any]) -> None:
    """The generated clients send nulls, and newer ones send more than we know."""
    assert loop.rank({**request("a", "b"), **members}).status_code == 201


def test_fifty_actions_are_not_too_many(loop: LoopClient) -> None:
    """The contract's bound is inclusive."""
    answer = loop.rank(request(*(f"action-{n}" for n in range(50))))

    assert answer.status_code == 201
    assert sum(action["probability"] for action in answer.json()["ranking"]) == pytest.approx(1.0, abs=1e-5)
