"""Clients that fill several slots: in time, or every slot with its baseline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import rankward
from rankward.records import Activation, MultiSlotInteraction, Observation
from rankward.settings import LoopSettings
from tests.client.networks import canned_service, refused_endpoint
from tests.client.test_clients import answer
from tests.service import PATIENCE_S

if TYPE_CHECKING:
    from tests.service import RunningService

ACTIONS = {name: {"news": {"kind": name}} for name in ("sport", "film", "politics")}
CONTEXT = {"visitor": {"device": "phone"}}
SLOTS = [
    rankward.SlotRequest(id="hero", baseline="film", features={"size": "large"}, excluded=["sport"]),
    rankward.SlotRequest(id="side", baseline="sport"),
]
LONG_S = PATIENCE_S


@pytest.mark.slow
def test_slots_are_filled_and_rewarded_one_by_one(service: RunningService) -> None:
    """The whole way, confirmed as it comes in time."""
    loop = service.new_loop(LoopSettings(policy="--ccb_explore_adf --epsilon 0.2 --cb_type mtr"))
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, confirm=True) as client:
        decision = client.rank_slots(CONTEXT, ACTIONS, SLOTS, event_id="front/1")
        client.reward(decision.event_id, 1.0, slot="hero")
        client.reward(decision.event_id, 0.5)
        assert client.flush(LONG_S)
        assert client.stats == rankward.ClientStats(decisions=1, sent=3)
    assert not decision.fallback
    assert list(decision.action_ids) == ["hero", "side"]
    assert sum(share for _, share in decision.slots[0].ranking) == pytest.approx(1.0, abs=1e-5)
    records = service.records(loop.loop)
    [logged] = [record for record in records if isinstance(record, MultiSlotInteraction)]
    assert [logged.actions[index].id for index in logged.shown] == list(decision.action_ids.values())
    rewards = [(record.event_id, record.slot, record.value) for record in records if isinstance(record, Observation)]
    assert rewards == [("front/1", "hero", 1.0), ("front/1", None, 0.5)]
    assert [record.event_id for record in records if isinstance(record, Activation)] == ["front/1"]


@pytest.mark.slow
def test_the_asynchronous_client_fills_slots_too(service: RunningService) -> None:
    """And falls back where the loop decides for single slots, which is the caller's mistake."""
    loop = service.new_loop()

    async def visit() -> None:
        async with rankward.AsyncClient(service.url, loop.key, timeout_s=LONG_S) as client:
            decision = await client.rank_slots(CONTEXT, ACTIONS, SLOTS)
            assert (decision.fallback, decision.action_ids) == (True, {"hero": "film", "side": "sport"})
            assert client.stats.fallbacks == {"refused": 1}

    asyncio.run(visit())


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"slots":[],"eventId":"e"}',
        b'{"slots":[{"id":"hero","rewardActionId":"film"},{"id":"side","rewardActionId":"war"}],"eventId":"e"}',
    ],
)
def test_an_answer_that_does_not_fit_is_a_fallback(body: bytes) -> None:
    """Every slot has its baseline, under an event id that the service never saw."""
    with (
        canned_service(answer(201, body)) as endpoint,
        rankward.Client(endpoint, "key", timeout_s=LONG_S) as client,
    ):
        decision = client.rank_slots(CONTEXT, ACTIONS, SLOTS)
        assert (decision.fallback, decision.action_ids) == (True, {"hero": "film", "side": "sport"})
        client.reward(decision.event_id, 1.0, slot="hero")
        assert client.stats.withheld == 1
        assert client.stats.fallbacks == {"failed": 1}


def test_there_must_be_slots_to_fill() -> None:
    """Without one nobody could say what to show; and a client that decides here does not fill slots."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key") as client:
        for slots in ([], 7, ["hero"]):
            with pytest.raises(rankward.CallerError, match="slots"):
                client.rank_slots(CONTEXT, ACTIONS, slots)  # type: ignore[arg-type]
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", local=True) as client:
        assert client.rank_slots(CONTEXT, ACTIONS, SLOTS).fallback
        assert client.stats.fallbacks == {"invalid": 1}
        client.close(0.1)
