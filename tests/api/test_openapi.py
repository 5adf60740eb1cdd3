"""The OpenAPI document: well-formed, complete, and true of the service."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from rankward.api.openapi import contract_path, document
from rankward.api.operation import ALL, V2022
from rankward.api.operations import OPERATIONS
from rankward.settings import SETTINGS, LoopSettings, ModelImport
from tests.api.guests import SPAN, asked
from tests.models import learned
from tests.service import KEY_HEADER, quoted, request
from tests.uploads.batches import batch, cb, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import RunningService

DOCUMENT = document()
METHODS = {"get", "put", "post", "patch", "delete", "head"}
SLOTS_POLICY = "--ccb_explore_adf --epsilon 0.2"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of every operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in a part of the document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_document_has_what_openapi_asks_for() -> None:
    """So that any tool can read it."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for path, method, operation in operations():
        assert path.startswith("/"), path
        assert method in METHODS
        assert operation["responses"], path
        assert all(re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"])
        assert all(response["description"] for response in operation["responses"].values())


def test_operation_ids_are_unique() -> None:
    """Generators of clients name functions after them."""
    ids = [operation["operationId"] for _, _, operation in operations()]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in ids)


def test_every_reference_leads_somewhere() -> None:
    """Nothing is named that is not described."""
    found = set(references(DOCUMENT))

    assert found
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_place_in_a_path_is_a_parameter() -> None:
    """And no parameter has no place."""
    for path, _, operation in operations():
        names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert names == set(re.findall(r"\{(\w+)\}", path))


def test_every_operation_of_the_contract_is_described_in_every_version() -> None:
    """What is routed is documented: the same table makes both."""
    described = {(method.upper(), path) for path, method, _ in operations()}

    for operation in OPERATIONS:
        for version in operation.versions:
            assert (operation.method, contract_path(operation, version)) in described
    assert ("HEAD", "/personalizer/v1.0/model") in described


def test_every_setting_of_the_contract_is_described() -> None:
    """With the help that the command line shows."""
    properties = DOCUMENT["components"]["schemas"]["ServiceConfiguration"]["properties"]

    assert properties.keys() == {setting.wire for setting in SETTINGS.values() if setting.wire is not None}
    assert all(described["description"] for described in properties.values())
    assert properties["learningMode"]["enum"] == ["Apprentice", "LoggingOnly", "Online"]


@pytest.mark.slow
def test_the_service_serves_the_document(service: RunningService) -> None:
    """Without a key."""
    answer = service.send("GET", "/openapi.json")

    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == DOCUMENT


@pytest.mark.slow
def test_the_documentation_page_shows_every_operation(service: RunningService) -> None:
    """In the first version that has it."""
    text = service.send("GET", "/docs").text

    for operation in OPERATIONS:
        assert f"<code>{contract_path(operation, operation.versions[0])}</code>" in text


BODIES: dict[str, Any] = {
    "RankBody": request("a", "b"),
    "RewardBody": {"value": 0.5},
    "MultiSlotRankBody": request("a", "b") | {"slots": [{"id": "hero", "baselineAction": "b"}]},
    "MultiSlotRewardBody": {"reward": [{"slotId": "hero", "value": 0.5}]},
    "ServiceConfiguration": {"rewardWaitTime": "PT10M"},
    "PolicyContract": {"name": "x", "arguments": "--cb_explore_adf --epsilon 0.3"},
    "EvaluationContract": asked(),
    "FeatureImportanceContract": {"name": "which", **SPAN},
}
BINARY_BODIES = {
    "uploadInteractions": batch(cb()),
    "uploadObservations": batch(outcome()),
    "importModel": learned(),
}
"""By operation: bodies that are not JSON."""
AFTER = {"applyFromEvaluation", "getEvaluation", "getFeatureImportance", "deleteEvaluation", "deleteFeatureImportance"}
"""What is asked of something that must have been made before: their own tests ask."""


@pytest.mark.slow
@pytest.mark.parametrize("version", ALL)
def test_every_operation_answers_what_it_documents(service: RunningService, version: str) -> None:
    """Status, media type, and the members of the body: for a good call, and for one without a key."""
    single = service.new_loop(LoopSettings(model_import=ModelImport.ANY))
    slots = service.new_loop(LoopSettings(policy=SLOTS_POLICY, preset=None))
    for path, method, operation in operations():
        if operation["tags"] != [version] or operation["operationId"].partition("_")[0] in AFTER:
            continue
        target = re.sub(r"{\w+}", quoted("e/1"), path) + ("?api-version=" + version if version == V2022 else "")
        body = None
        binary = BINARY_BODIES.get(operation["operationId"].partition("_")[0])
        if "requestBody" in operation and binary is not None:
            body = binary
        elif "requestBody" in operation:
            [reference] = references(operation["requestBody"])
            body = json.dumps(BODIES[reference.rsplit("/", 1)[-1]]).encode()

        loop = slots if "/multislot/" in path else single
        answer = service.send(method.upper(), target, headers={KEY_HEADER: loop.key}, body=body)
        refused = service.send(method.upper(), target, body=body)

        place = f"{method} {path}"
        response = operation["responses"].get(str(answer.status_code))
        assert answer.is_success, f"{place}: {answer.text}"
        assert response is not None, place
        _check_body(answer, response, place)
        assert refused.status_code == 401, place
        assert "401" in operation["responses"], place


def _check_body(answer: Any, response: dict[str, Any], place: str) -> None:
    content = response.get("content", {})
    if not content:
        assert answer.content == b"", place
        return
    media = answer.headers["content-type"].split(";")[0]
    assert media in content, place
    if media != "application/json":
        return
    [reference] = references(content[media])
    schema = DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    for members in answer.json() if content[media]["schema"].get("type") == "array" else [answer.json()]:
        _check_members(members, schema, place)


def _check_members(members: Any, schema: dict[str, Any], place: str) -> None:
    assert members.keys() <= schema["properties"].keys(), place
    assert set(schema.get("required", ())) <= members.keys(), place


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_own_pages_answer_what_they_document(service: RunningService, path: str) -> None:
    """With the media type that is named."""
    [media] = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
    answer = service.send("GET", path)

    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == media
