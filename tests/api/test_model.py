"""The model over HTTP: download, properties, reset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from rankward.settings import LoopSettings
from tests.service import eventually, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow

NEVER = "0001-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def untrained(service: RunningService) -> LoopClient:
    """A loop that never learned."""
    return service.new_loop()


@pytest.fixture(scope="module")
def trained(service: RunningService) -> Iterator[LoopClient]:
    """A loop with a model: it has learned that pasta is good and that ramen is not."""
    settings = LoopSettings(
        reward_wait=timedelta(milliseconds=100),
        model_export_frequency=timedelta(milliseconds=100),
        policy="--cb_explore_adf --epsilon 0.2 --cb_type mtr -l 0.5",
        preset=None,
    )
    with service.passing_loops():
        loop = service.new_loop(settings)
        _train(service, loop)
        yield loop


def _train(service: RunningService, loop: LoopClient) -> None:
    for n in range(60):
        shown = loop.rank(request("ramen", "pasta", eventId=f"e{n}")).json()["rewardActionId"]
        loop.reward(f"e{n}", 1.0 if shown == "pasta" else 0.0)
    loop_id = service.loop(loop.loop).loop_id

    def learned() -> bool:
        versions = service.home.catalog.versions(loop_id)
        return bool(versions) and versions[0].learned == 60

    eventually(learned, "everything is learned")
    eventually(lambda: "0.1}" in loop.rank(request("ramen", "pasta")).text, "the model serves")


def test_a_loop_without_a_model_answers_no_bytes(untrained: LoopClient) -> None:
    """200, not 404: the local-inference clients count on it."""
    answer = untrained.get("/model")

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-length"] == "0"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["last-modified"] == "Mon, 01 Jan 0001 00:00:00 GMT"


def test_a_loop_without_a_model_has_properties_of_the_year_1(untrained: LoopClient) -> None:
    """As the original answered."""
    assert untrained.get("/model/properties").json() == {"creationTime": NEVER, "lastModifiedTime": NEVER}


def test_the_model_is_the_learners_own_file(service: RunningService, trained: LoopClient) -> None:
    """A download can be opened with the learner itself; its digest is the one on record."""
    answer = trained.get("/model")

    version = service.home.catalog.versions(service.loop(trained.loop).loop_id)[0]
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == "attachment; filename=model.vw"
    assert answer.content == service.home.models.get(version.loop_id, version.model_id)
    assert b"--cb_explore_adf" in answer.content[:400]


def test_head_says_what_get_would(trained: LoopClient, untrained: LoopClient) -> None:
    """The local-inference client compares length and `Last-Modified` before it downloads."""
    for loop in (trained, untrained):
        head, get = loop.call("HEAD", "/model"), loop.get("/model")
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-length", "last-modified", "content-type", "content-disposition"):
            assert head.headers[name] == get.headers[name]


def test_properties_and_last_modified_tell_when_the_model_was_made(trained: LoopClient) -> None:
    """With an explicit offset, and never in the future."""
    properties = trained.get("/model/properties").json()
    created, modified = (datetime.fromisoformat(properties[name]) for name in ("creationTime", "lastModifiedTime"))

    assert properties["lastModifiedTime"].endswith("+00:00")
    assert datetime.now(UTC) - timedelta(minutes=5) < created <= modified <= datetime.now(UTC)
    assert parsedate_to_datetime(trained.get("/model").headers["last-modified"]) == modified.replace(microsecond=0)


@pytest.mark.parametrize(("query", "status"), [("?signed=false", 200), ("?signed=true", 400), ("?whatever=1", 200)])
def test_signed_models_are_refused_in_words(trained: LoopClient, query: str, status: int) -> None:
    """Better than to answer something that is not signed."""
    answer = trained.at("v1.1-preview.3").get(f"/model{query}")

    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "invalidRequest"


def test_the_model_answers_the_originals_distribution(trained: LoopClient) -> None:
    """Epsilon-greedy: 1 - e + e/K for the best, e/K for the other; which is drawn does not change it."""
    seen = set()
    for n in range(40):
        body = trained.rank(request("ramen", "pasta", eventId=f"asked-{n}")).json()
        assert {action["id"]: action["probability"] for action in body["ranking"]} == {"pasta": 0.9, "ramen": 0.1}
        assert body["ranking"][0]["id"] == body["rewardActionId"]
        seen.add(body["rewardActionId"])
    assert seen == {"pasta", "ramen"}


def test_another_exploration_holds_for_the_model_that_serves(trained: LoopClient) -> None:
    """It needs no training: the next Rank follows it."""
    trained.put("/configurations/service", {"explorationPercentage": 0.5})
    body = trained.rank(request("ramen", "pasta")).json()
    trained.put("/configurations/service", {"explorationPercentage": 0.2})

    assert {action["id"]: action["probability"] for action in body["ranking"]} == {"pasta": 0.75, "ramen": 0.25}


def test_a_deleted_model_is_forgotten(service: RunningService, trained: LoopClient) -> None:
    """Rank is uniform until the next one, which learns from later events only."""
    assert trained.delete("/model").status_code == 204

    assert trained.get("/model").content == b""
    assert trained.get("/model/properties").json()["lastModifiedTime"] == NEVER
    body = trained.rank(request("ramen", "pasta")).json()
    assert [action["probability"] for action in body["ranking"]] == [0.5, 0.5]
    assert len(service.records(trained.loop)) > 60, "the log stays"
