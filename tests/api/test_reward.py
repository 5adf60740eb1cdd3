"""Reward and Activate over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.records import Activation, Interaction, Observation
from tests.service import request

if TYPE_CHECKING:
    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop whose settings nobody changes."""
    return service.new_loop()


@pytest.mark.parametrize("version", ["v1.0", "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3"])
def test_reward_and_activate_answer_204_with_nothing(loop: LoopClient, version: str) -> None:
    """The generated clients take anything else for an error."""
    client = loop.at(version)
    event_id = client.rank(request("a", "b")).json()["eventId"]

    for answer in (client.reward(event_id, 1), client.activate(event_id)):
        assert answer.status_code == 204
        assert answer.content == b""
        assert "content-length" not in answer.headers
        assert "content-type" not in answer.headers


def test_an_unknown_event_is_rewarded_and_activated_all_the_same(loop: LoopClient) -> None:
    """The reward may have overtaken its Rank; nothing is reported back about its use."""
    assert loop.reward("never-ranked", 0.5).status_code == 204
    assert loop.activate("never-ranked").status_code == 204


@pytest.mark.parametrize("body", [None, b"", b"{}", b"null", b"not JSON"])
def test_activate_takes_any_body_or_none(loop: LoopClient, body: bytes | None) -> None:
    """Some clients send none at all, some a length of 0, some an empty object."""
    assert loop.call("POST", "/events/e1/activate", body).status_code == 204


@pytest.mark.parametrize("event_id", ["a/b", "a//b", "grüße 🍜", "100%", "..", "a?b#c", "e" * 256, "nul\0", "reward"])
def test_an_event_id_reaches_the_log_as_it_was(service: RunningService, event_id: str) -> None:
    """Percent-encoded with nothing left unescaped, decoded after the path was taken apart."""
    loop = service.new_loop()
    loop.rank(request("a", "b", eventId=event_id))

    assert loop.reward(event_id, 0.25).status_code == 204
    assert loop.activate(event_id).status_code == 204

    kinds = [(type(record), record.event_id) for record in service.records(loop.loop)]
    assert kinds == [(Interaction, event_id), (Observation, event_id), (Activation, event_id)]


@pytest.mark.parametrize("value", [-1, -1.0, 0, 0.75, 1, 1.0])
def test_rewards_from_minus_one_to_one_are_logged(service: RunningService, loop: LoopClient, value: float) -> None:
    """Both bounds belong to the contract."""
    event_id = f"value-{value!r}"

    assert loop.reward(event_id, value).status_code == 204
    assert [record.value for record in service.records(loop.loop) if record.event_id == event_id] == [float(value)]


def test_every_reward_of_an_event_is_logged(service: RunningService) -> None:
    """Which of them count is for joining to say, under settings that may change."""
    loop = service.new_loop()
    for value in (0.5, 0.5, 1):
        loop.reward("e1", value)

    assert [record.value for record in service.records(loop.loop)] == [0.5, 0.5, 1.0]


def test_a_refused_reward_leaves_no_trace(service: RunningService) -> None:
    """It would be learned."""
    loop = service.new_loop()

    assert loop.reward("e1", 2).status_code == 400
    assert service.records(loop.loop) == []


def test_a_reward_that_is_sent_again_by_its_request_id_counts_once(service: RunningService, loop: LoopClient) -> None:
    """Newer SDKs send the header again when they try again: a sum must not grow by a lost answer."""
    path = "/events/again/reward"
    for name in ("r-1", "r-1", "r-2", "x" * 300):
        headers = {"x-ms-client-request-id": name}
        assert loop.call("POST", path, b'{"value":0.5}', **headers).status_code == 204
    own = loop.call("POST", path, b'{"value":0.5,"reportId":"mine"}', **{"x-ms-client-request-id": "r-3"})
    assert own.status_code == 204

    observed = [each for each in service.records(loop.loop) if isinstance(each, Observation)]
    assert [each.report for each in observed if each.event_id == "again"] == ["r-1", "r-1", "r-2", None, "mine"]
