"""The unmodified `azure-cognitiveservices-personalizer`: only endpoint and key are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rankward.records import Activation, Interaction, Observation
from tests.api import sdk
from tests.service import LoopClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import RunningService

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop whose settings nobody changes."""
    return service.new_loop()


@pytest.fixture(scope="module", params=["", "/", "/loops/{}", "/loops/{}/"])
def client(request: pytest.FixtureRequest, service: RunningService, loop: LoopClient) -> Iterator[Any]:
    """The SDK's client, with every form of endpoint."""
    with sdk.client(service.url + request.param.format(loop.loop), loop.key) as client:
        yield client


def test_the_sdk_ranks_and_rewards(client: Any, service: RunningService, loop: LoopClient) -> None:
    """The whole of what most applications did with it."""
    answer = client.rank(sdk.rank_request(None, "pasta", "ramen", "salad", excluded_actions=["ramen"]))
    client.events.reward(event_id=answer.event_id, value=0.75)

    assert answer.reward_action_id in {"pasta", "salad"}
    assert [action.id for action in answer.ranking][1] == "ramen"
    assert sum(action.probability for action in answer.ranking) == pytest.approx(1.0)
    kinds = [type(record) for record in service.records(loop.loop) if record.event_id == answer.event_id]
    assert kinds == [Interaction, Observation]


def test_the_sdk_activates(client: Any, service: RunningService, loop: LoopClient) -> None:
    """With no body at all."""
    answer = client.rank(sdk.rank_request(None, "pasta", "ramen", defer_activation=True))
    client.events.activate(answer.event_id)

    decided, activated = [record for record in service.records(loop.loop) if record.event_id == answer.event_id]
    assert isinstance(decided, Interaction)
    assert decided.deferred
    assert isinstance(activated, Activation)


def test_the_sdk_escapes_an_event_id_and_it_arrives(client: Any, service: RunningService, loop: LoopClient) -> None:
    """Slashes, spaces and letters of any script."""
    event_id = f"orders/2026 grüße 🍜 {client.config.endpoint}"
    client.rank(sdk.rank_request(event_id, "pasta", "ramen"))
    client.events.reward(event_id=event_id, value=1.0)

    kinds = [type(record) for record in service.records(loop.loop) if record.event_id == event_id]
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


def test_a_wrong_key_raises_the_sdks_own_error(service: RunningService) -> None:
    """401, at once: it is not tried again."""
    with sdk.client(service.url, "wrong") as client, pytest.raises(sdk.ErrorResponseException) as refused:
        client.rank(sdk.rank_request("e1", "a", "b"))

    assert refused.value.response.status_code == 401
