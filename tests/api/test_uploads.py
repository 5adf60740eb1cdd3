"""Uploads over HTTP: a client that decides in process has its events logged, joined and learned like any other."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rankward.records import Activation, Interaction, MultiSlotInteraction, Observation
from rankward.settings import Aggregation, LoopSettings
from tests.service import eventually
from tests.uploads.batches import batch, cb, ccb, outcome

if TYPE_CHECKING:
    import httpx

    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow


def upload(loop: LoopClient, kind: str, body: bytes) -> httpx.Response:
    """Upload a batch."""
    return loop.at("v1.1-preview.3").call("POST", f"/logs/{kind}", body)


def test_what_was_decided_elsewhere_is_logged_joined_and_learned(service: RunningService) -> None:
    """The whole way of a client with local inference."""
    settings = LoopSettings(reward_aggregation=Aggregation.SUM, model_export_frequency=timedelta(milliseconds=100))
    loop = service.new_loop(settings)
    decisions = batch(*[cb(f"e{n}", pass_probability=0.5) for n in range(5)], cb("later", deferred=True))
    assert upload(loop, "interactions", decisions).status_code == 204
    reports = batch(outcome("e0", 0.25), outcome("e0", 0.5), outcome("later", None, activates=True))
    for _ in range(2):  # as a client does that got no answer
        assert upload(loop, "interactions", decisions).status_code == 204
        assert upload(loop, "observations", reports).status_code == 204
    records = service.records(loop.loop)
    assert [type(record) for record in records] == [Interaction] * 6 + [Observation, Observation, Activation] * 2
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) == 6, "the events are joined")
    joined = {event.interaction.event_id: event.entry for event in service.joined(loop.loop)}
    assert [observation.value for observation in joined["e0"].observations] == [0.25, 0.5]
    assert joined["later"].activated
    eventually(lambda: loop.get("/model").content != b"", "a model is published")


def test_a_batch_with_one_bad_event_leaves_nothing_behind(service: RunningService) -> None:
    """Its sender mends it and sends it again: what was stored of it would be there twice."""
    loop = service.new_loop()
    refused = upload(loop, "interactions", batch(cb("good"), cb("bad", pmf=(0.0, 0.5, 0.5))))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalidRequest"
    assert refused.json()["error"]["target"] == "events[1]"
    assert "'bad'" in refused.json()["error"]["message"]
    assert upload(loop, "observations", batch(outcome(), cb())).status_code == 400
    assert service.records(loop.loop) == []


def test_versions_before_local_inference_have_no_uploads(service: RunningService) -> None:
    """As the contract has it."""
    loop = service.client("default")
    for version, status in (("v1.0", 404), ("v1.1-preview.1", 404), ("v1.1-preview.2", 400), ("v1.1-preview.3", 400)):
        assert loop.at(version).call("POST", "/logs/interactions", b"").status_code == status


def test_an_upload_may_be_larger_than_a_rank_but_not_endless(service: RunningService) -> None:
    """A batch holds many decisions."""
    loop = service.client("default")
    assert upload(loop, "interactions", bytes(2_000_000)).json()["error"]["code"] == "invalidRequest"
    assert upload(loop, "interactions", bytes(4_194_305)).json()["error"]["code"] == "payloadSizeExceeded"


def test_decisions_must_be_of_the_kind_that_the_loop_makes(service: RunningService) -> None:
    """Its learner could not use the others, and nobody would know."""
    single = service.new_loop()
    several = service.new_loop(LoopSettings(policy="--ccb_explore_adf --epsilon 0.2 --cb_type mtr"))
    assert upload(single, "interactions", batch(cb(), ccb())).status_code == 400
    assert upload(several, "interactions", batch(cb())).status_code == 400
    assert upload(several, "interactions", batch(ccb())).status_code == 204
    assert service.records(single.loop) == []
    assert [type(record) for record in service.records(several.loop)] == [MultiSlotInteraction]
