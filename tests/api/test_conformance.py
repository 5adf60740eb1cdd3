"""Live answers beside the published contracts: every operation in every version, well and badly asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankward.api.operation import ALL, V2022
from rankward.settings import LoopSettings, ModelImport
from tests.api.conforming import check_refusal, check_success, filled
from tests.api.contract import PUBLISHED, Published
from tests.api.generated import as_body, bent, fitting
from tests.api.guests import POLICY, finished, guest_loop
from tests.models import learned
from tests.service import STUDY_S, LoopClient, eventually, quoted, request
from tests.uploads.batches import batch, cb, outcome

if TYPE_CHECKING:
    from tests.service import RunningService

pytestmark = pytest.mark.slow

MULTI_SLOT_POLICY = {"name": "slots", "arguments": "--ccb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 -q ::"}
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SPAN = {"startTime": TODAY.isoformat(), "endTime": (TODAY + timedelta(days=2)).isoformat()}  # if it ends meanwhile
ASKED = {"name": "week 3", **SPAN, "policies": [{"name": "greedy", "arguments": "--cb_explore_adf --epsilon 0"}]}
SETTINGS = {
    "rewardWaitTime": "PT10M",
    "defaultReward": 0.0,
    "rewardAggregation": "earliest",
    "explorationPercentage": 0.2,
    "modelExportFrequency": "PT5M",
    "logMirrorEnabled": False,
    "logRetentionDays": 90,
    "modelRetrainDays": 2,
    "learningMode": "Online",
    "isAutoOptimizationEnabled": False,
    "autoOptimizationFrequency": "P7D",
    "autoOptimizationStartDate": "2026-01-19T00:00:00Z",
}
ACTIONS = request("a", "b", "c")
SLOTS = [
    {"id": "hero", "features": [{"size": "large"}], "excludedActions": ["b"], "baselineAction": "c"},
    {"id": "side", "baselineAction": "a"},
]
BODIES: dict[str, Any] = {
    "POST /rank": {**ACTIONS, "eventId": "e1", "deferActivation": True, "excludedActions": ["b"]},
    "POST /events/{eventId}/reward": {"value": 0.75},
    "POST /multislot/rank": {**ACTIONS, "slots": SLOTS, "eventId": "e1"},
    "POST /multislot/events/{eventId}/reward": {"reward": [{"slotId": "hero", "value": 1.0}]},
    "PUT /configurations/service": SETTINGS,
    "PUT /configurations/policy": {"name": "mine", "arguments": "--cb_explore_adf --epsilon 0.3 -q ::"},
    "POST /evaluations": {**ASKED, "enableOfflineExperimentation": False},
    "PUT /evaluations/{evaluationId}": {**ASKED, "enablePolicyOptimization": False},
    "PUT /featureImportances/{featureImportanceId}": {"name": "week 3", **SPAN},
    "POST /logs/interactions": batch(cb()),
    "POST /logs/observations": batch(outcome("e1", 0.5)),
    "PUT /model": learned(),
}
QUERIES = {
    "GET /evaluations/{evaluationId}": "?" + "&".join(f"{name}={quoted(moment)}" for name, moment in SPAN.items()),
    "GET /model": "?signed=true",
}
FINDINGS = {
    "GET /evaluations",
    "GET /evaluations/{evaluationId}",
    "GET /featureImportances",
    "GET /featureImportances/{featureImportanceId}",
}
LATER = {"POST /configurations/applyFromEvaluation"}
"""What can be asked only of an evaluation that has completed."""


def new_loop(service: RunningService) -> LoopClient:
    """A loop that takes any model and any mode."""
    return service.new_loop(LoopSettings(model_import=ModelImport.ANY))


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop that decides for one slot."""
    return new_loop(service)


@pytest.fixture(scope="module")
def slots(service: RunningService) -> LoopClient:
    """A loop that decides for several slots."""
    made = new_loop(service)
    assert made.put("/configurations/policy", MULTI_SLOT_POLICY).status_code == 200
    return made


@pytest.mark.parametrize("version", ALL)
def test_what_is_asked_well_is_answered_as_published(loop: LoopClient, slots: LoopClient, version: str) -> None:
    """Status, members, their types, their bounds and their words: of every operation, one after the other."""
    ids = {"eventId": "e1", "evaluationId": f"of {version}", "featureImportanceId": "important"}
    assert loop.rank(request("a", "b")).status_code == 201  # so that the log has something to evaluate
    for operation in PUBLISHED:
        if version not in operation.versions or operation.id in LATER:
            continue
        body = BODIES.get(operation.id)
        asked = (slots if "multislot" in operation.path else loop).at(version)
        answer = asked.call(
            operation.method,
            filled(operation.path, ids) + QUERIES.get(operation.id, ""),
            body if body is None or isinstance(body, bytes) else msgspec.json.encode(body),
        )
        try:
            check_success(answer, operation)
        except (AssertionError, msgspec.MsgspecError) as error:
            raise AssertionError(f"{operation.id} of {version}: {answer.status_code} {answer.text}") from error
        if operation.id == "POST /evaluations":
            ids["evaluationId"] = answer.json()["id"]
            assert answer.json()["status"] == "pending"
            assert answer.headers["location"].endswith(f"/personalizer/{version}/evaluations/{ids['evaluationId']}")


@pytest.fixture(scope="module")
def evaluated(service: RunningService) -> LoopClient:
    """A loop whose log was evaluated, as `done`, and asked for the importance of its features, as `important`."""
    made = guest_loop(service, 40)
    newest = made.at(V2022)
    question = {**SPAN, "policies": [{"name": "mine", "arguments": POLICY}]}
    assert newest.put("/evaluations/done", {"name": "week 3", **question}).status_code == 200
    assert newest.put("/featureImportances/important", {"name": "which", **SPAN}).status_code == 200
    assert finished(made, "done")["status"] == "completed"
    eventually(
        lambda: newest.get("/featureImportances/important").json()["status"] == "Succeeded",
        "the importances are found",
        within_s=STUDY_S,
    )
    return made


@pytest.mark.parametrize("version", ALL)
def test_what_was_found_is_answered_as_published(evaluated: LoopClient, version: str) -> None:
    """Evaluations and importances that have ended: by themselves and in lists, with all that they found."""
    ids = {"evaluationId": "done", "featureImportanceId": "important"}
    for operation in PUBLISHED:
        if operation.id in FINDINGS and version in operation.versions:
            answer = evaluated.at(version).get(filled(operation.path, ids) + QUERIES.get(operation.id, ""))
            check_success(answer, operation)
            assert "week 3" in answer.text or "which" in answer.text


def test_what_was_evaluated_is_applied(evaluated: LoopClient) -> None:
    """In every version that can: the second time it is in force already."""
    [operation] = [operation for operation in PUBLISHED if operation.id in LATER]
    body = msgspec.json.encode({"evaluationId": "done", "policyName": "mine"})
    for version in operation.versions:
        check_success(evaluated.at(version).call(operation.method, operation.path, body), operation)
    assert evaluated.get("/configurations/policy").json()["arguments"] == POLICY


def asked(operation: Published) -> st.SearchStrategy[tuple[str, bytes | None]]:
    """Requests for an operation: target and body, each as published or not."""
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
    names |= st.sampled_from(["e1", "e" * 257, "a/b", "..", "?", "\0"])
    ids = st.fixed_dictionaries(dict.fromkeys(("eventId", "evaluationId", "featureImportanceId"), names))
    words = st.sampled_from(["", "-1", "0", "1", "5", "60", "true", "Expanding", "2026-01-05", "NaN", "x" * 300])
    queries = st.fixed_dictionaries({}, optional=dict.fromkeys((*operation.query, "other"), words))
    targets = st.tuples(ids, queries).map(
        lambda drawn: (
            filled(operation.path, drawn[0])
            + ("?" if drawn[1] else "")
            + "&".join(f"{name}={quoted(value)}" for name, value in drawn[1].items())
        )
    )
    return st.tuples(targets, _bodies(operation))


def _bodies(operation: Published) -> st.SearchStrategy[bytes | None]:
    raw = st.binary(max_size=60)
    if operation.request is None:
        return st.none() | raw
    if operation.request is bytes:
        whole = BODIES[operation.id]
        cut = st.integers(0, len(whole)).map(lambda length: whole[:length])
        return raw | cut
    return as_body(fitting(operation.request)) | as_body(bent(operation.request)) | raw


@pytest.mark.parametrize("operation", PUBLISHED, ids=lambda operation: f"{operation.id} of {operation.versions[0]}")
def test_whatever_is_asked_is_answered_as_published(loop: LoopClient, slots: LoopClient, operation: Published) -> None:
    """Done or refused, in the contract's shapes: never a mistake of our own, and never a code that it does not know."""
    asking = slots if "multislot" in operation.path else loop

    examples = 40 if operation.request is not bytes else 15  # bytes that look well are tried, which takes long
    if operation.request is None and "{" not in operation.path:
        examples = 5

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(version=st.sampled_from(operation.versions), request=asked(operation))
    def ask(version: str, request: tuple[str, bytes | None]) -> None:
        target, body = request
        answer = asking.at(version).call(operation.method, target, body)
        if 200 <= answer.status_code < 300:
            check_success(answer, operation)
        else:
            check_refusal(answer, version)

    ask()


def test_the_newest_version_says_the_code_in_a_header_too(loop: LoopClient) -> None:
    """And it alone: the others never had the header."""
    for version in ALL:
        answer = loop.at(version).call("POST", "/rank", b"{}")
        assert answer.json()["error"]["code"] == "invalidRankRequest"
        assert answer.headers.get("x-ms-error-code") == ("invalidRankRequest" if version == V2022 else None)
