"""The unmodified `azure-cognitiveservices-personalizer`: only endpoint and key are ours."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.records import Activation, Interaction, Observation
from rankward.settings import Aggregation
from tests.api import sdk
from tests.api.faulty import faulty_gateway
from tests.service import LoopClient, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.faulty import FaultyGateway
    from tests.service import RunningService

pytestmark = pytest.mark.slow


FAILURES = (503, 408, None, 500, 502, 504)


@pytest.fixture(scope="module", params=["http", "https"])
def running(request: pytest.FixtureRequest, service: RunningService, tls_service: RunningService) -> RunningService:
    """A service in the clear, and one behind a certificate."""
    return tls_service if request.param == "https" else service


@pytest.fixture(scope="module")
def loop(running: RunningService) -> LoopClient:
    """A loop whose settings nobody changes."""
    return running.new_loop()


@pytest.fixture(scope="module", params=["", "/", "/loops/{}", "/loops/{}/"])
def client(request: pytest.FixtureRequest, running: RunningService, loop: LoopClient) -> Iterator[Any]:
    """The SDK's client, with every form of endpoint."""
    endpoint = running.url + request.param.format(loop.loop)
    with sdk.client(endpoint, loop.key, certificate=running.options.tls_cert) as client:
        yield client


def test_the_sdk_ranks_and_rewards(client: Any, running: RunningService, loop: LoopClient) -> None:
    """The whole of what most applications did with it."""
    answer = client.rank(sdk.rank_request(None, "pasta", "ramen", "salad", excluded_actions=["ramen"]))
    client.events.reward(event_id=answer.event_id, value=0.75)

    assert answer.reward_action_id in {"pasta", "salad"}
    assert [action.id for action in answer.ranking][1] == "ramen"
    assert sum(action.probability for action in answer.ranking) == pytest.approx(1.0)
    kinds = [type(record) for record in running.records(loop.loop) if record.event_id == answer.event_id]
    assert kinds == [Interaction, Observation]


def test_the_sdk_activates(client: Any, running: RunningService, loop: LoopClient) -> None:
    """With no body at all."""
    answer = client.rank(sdk.rank_request(None, "pasta", "ramen", defer_activation=True))
    client.events.activate(answer.event_id)

    decided, activated = [record for record in running.records(loop.loop) if record.event_id == answer.event_id]
    assert isinstance(decided, Interaction)
    assert decided.deferred
    assert isinstance(activated, Activation)


def test_the_sdk_escapes_an_event_id_and_it_arrives(client: Any, running: RunningService, loop: LoopClient) -> None:
    """Slashes, spaces and letters of any script."""
    event_id = f"orders/2026 grüße 🍜 {client.config.endpoint}"
    client.rank(sdk.rank_request(event_id, "pasta", "ramen"))
    client.events.reward(event_id=event_id, value=1.0)

    kinds = [type(record) for record in running.records(loop.loop) if record.event_id == event_id]
    assert kinds == [Interaction, Observation]


def test_a_refused_rank_raises_the_sdks_own_error(client: Any) -> None:
    """With the body parsed: code, message and target."""
    with pytest.raises(sdk.ErrorResponseException) as refused:
        client.rank(sdk.rank_request("e1", "same", "same"))

    assert refused.value.error is not None
    error = refused.value.error.error
    assert refused.value.response.status_code == 400
    assert str(error.code) in {"invalidRankRequest", "InvalidRankRequest"}
    assert "same id" in error.message
    assert error.target == "actions"


def test_a_refused_reward_raises_the_sdks_other_error(client: Any) -> None:
    """It knows no body for those."""
    with pytest.raises(sdk.HttpOperationError) as refused:
        client.events.reward(event_id="e1", value=7.0)

    assert refused.value.response.status_code == 400


def test_the_sdk_keeps_an_event_id_that_is_too_long_to_itself(client: Any) -> None:
    """It knows the contract's bound, so nothing is sent."""
    with pytest.raises(sdk.ValidationError):
        client.events.activate("e" * 257)


@contextlib.contextmanager
def losing(service: RunningService, loop: LoopClient, failure: int | None) -> Iterator[tuple[Any, FaultyGateway]]:
    """A client behind a gateway that loses the first answer to every call, and the gateway."""
    with faulty_gateway(service.port, [failure]) as gateway, sdk.client(gateway.endpoint, loop.key) as client:
        sdk.let_it_try_again(client)
        yield client, gateway


@pytest.mark.parametrize("failure", FAILURES)
def test_what_got_no_answer_is_tried_again_and_does_no_harm(service: RunningService, failure: int | None) -> None:
    """The SDK repeats any POST: the decision stays the one that was made, and is there once."""
    loop = service.new_loop()
    with losing(service, loop, failure) as (client, gateway):
        answer = client.rank(sdk.rank_request("again", "pasta", "ramen", defer_activation=True))
        client.events.activate("again")
        client.events.reward("again", value=0.5)

    assert set(gateway.calls.values()) == {2}
    decided, *reports = service.records(loop.loop)
    assert decided.actions[decided.chosen].id == answer.reward_action_id
    assert [type(report) for report in reports] == [Activation, Activation, Observation, Observation]


def test_a_reward_that_was_tried_again_counts_once_unless_rewards_are_added_up(service: RunningService) -> None:
    """The SDK gives it no name that it could be known by: `sum` is the one aggregation that notices."""
    with service.passing_loops():
        loop = service.new_loop()
        with losing(service, loop, 503) as (client, _):
            client.rank(sdk.rank_request("again", "pasta", "ramen"))
            client.events.reward("again", value=0.5)
        service.pass_time(loop.loop)
        eventually(lambda: len(service.joined(loop.loop)) == 1, "the event is joined")
        [joined] = service.joined(loop.loop)

    learned = {kind: observed_reward(joined, RewardDefinition(0.0, kind)) for kind in Aggregation}
    assert learned == {kind: 1.0 if kind is Aggregation.SUM else 0.5 for kind in Aggregation}


def test_a_wrong_key_raises_the_sdks_own_error(service: RunningService) -> None:
    """401, at once: it is not tried again."""
    with sdk.client(service.url, "wrong") as client, pytest.raises(sdk.ErrorResponseException) as refused:
        client.rank(sdk.rank_request("e1", "a", "b"))

    assert refused.value.response.status_code == 401
