"""The shape of refusals, with the contract's odd spellings."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette

from rankward.api.admin import AdminOperation, _route
from rankward.api.errors import answer, gateway, unexpected
from rankward.api.operation import V1_0, V2022
from rankward.api.options import ApiOptions
from rankward.api.service import Doors
from rankward.errors import (
    Conflict,
    DataFolderHeld,
    InvalidPolicy,
    InvalidRequest,
    InvalidSettings,
    NotFound,
    Overloaded,
    RankwardError,
    StorageFull,
    StoreUnavailable,
    Unauthorized,
)
from rankward.ranking.explore import InvalidPmfError
from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits
from rankward.vw.learner import LearnerRefusedError
from rankward.wiring import Home
from tests.service import ADMIN_KEY, KEY_HEADER, RunningService, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service import LoopClient


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after_s"),
    [
        (InvalidRequest("x"), 400, "badRequest", None),
        (InvalidRequest("x", code="InvalidRankRequest"), 400, "invalidRankRequest", None),
        (InvalidRequest("x", code="PayloadSizeExceeded"), 400, "payloadSizeExceeded", None),
        (InvalidRequest("x", code="InvalidApiAccess"), 403, "invalidApiAccess", None),
        (InvalidSettings("x"), 400, "invalidServiceConfiguration", None),
        (InvalidPolicy("x"), 400, "invalidPolicyConfiguration", None),
        (NotFound("x"), 404, "resourceNotFound", None),
        (NotFound("x", code="FrontEndNotFound"), 404, "frontEndNotFound", None),
        (Conflict("x"), 503, "operationNotAllowed", 1),
        (Unauthorized("x"), 401, "401", None),
        (InvalidPmfError("x"), 409, "modelRankingError", None),
        (LearnerRefusedError("x"), 409, "modelRankingError", None),
        (StorageFull("x"), 507, "insufficientStorage", None),
        (Overloaded("x", retry_after_s=7), 503, "operationNotAllowed", 7),
        (StoreUnavailable("x"), 503, "operationNotAllowed", 1),
        (DataFolderHeld("x"), 503, "operationNotAllowed", 1),
        (RankwardError("x"), 500, "internalServerError", None),
    ],
)
def test_every_error_has_its_status_and_code(
    error: RankwardError, status: int, code: str, retry_after_s: int | None
) -> None:
    """On the wire codes begin in lower case, though the published lists capitalise them."""
    refused = answer(error, V1_0)
    body = json.loads(refused.body)["error"]

    assert (refused.status, refused.code, refused.retry_after_s) == (status, code, retry_after_s)
    assert body["code"] == code
    assert body["message"]


def test_a_refusal_has_only_the_members_that_say_something() -> None:
    """`target`, `details` and `innerError` may be absent, and null is never sent."""
    assert json.loads(answer(InvalidRequest("what is wrong"), V1_0).body) == {
        "error": {"code": "badRequest", "message": "what is wrong"}
    }


def test_a_finer_reason_is_the_inner_error() -> None:
    """With a capital E inside the error itself; details are a list of the same shape."""
    error = InvalidRequest(
        "what is wrong", code="InvalidRankRequest", target="actions", reason="ActionCountOutOfBounds"
    )

    assert json.loads(answer(error, V1_0).body) == {
        "error": {
            "code": "invalidRankRequest",
            "message": "what is wrong",
            "target": "actions",
            "details": [{"code": "badRequest", "message": "what is wrong"}],
            "innerError": {"code": "ActionCountOutOfBounds"},
        }
    }


def test_a_mirror_that_cannot_be_written_to_is_called_otherwise_in_the_newest_version() -> None:
    """The one code that was ever renamed."""
    error = InvalidSettings("x", code="InvalidContainer", target="logMirrorSasUri")

    assert answer(error, V1_0).code == "invalidContainer"
    assert answer(error, V2022).code == "invalidSasUri"
    assert json.loads(answer(error, V2022).body)["error"]["code"] == "invalidSasUri"


def test_the_gateway_has_its_own_shape() -> None:
    """Its codes are the status as text, as the SDKs saw them."""
    assert json.loads(gateway(401, "no key").body) == {"error": {"code": "401", "message": "no key"}}


def test_a_mistake_of_our_own_says_nothing_of_itself() -> None:
    """What happened is for the log, not for the caller."""
    refused = unexpected()

    assert refused.status == 500
    assert json.loads(refused.body)["error"]["code"] == "internalServerError"


@pytest.mark.slow
def test_a_refusal_over_http_has_the_contracts_shape(service: RunningService) -> None:
    """What it says: which action count, against which bound, and what to do."""
    loop: LoopClient = service.client("default")

    refused = loop.rank(request(*map(str, range(51))))

    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/json; charset=utf-8"
    message = "there are 51 actions: send 1 to 50"
    assert refused.json() == {
        "error": {
            "code": "invalidRankRequest",
            "message": message,
            "target": "actions",
            "details": [{"code": "badRequest", "message": message}],
            "innerError": {"code": "ActionCountOutOfBounds"},
        }
    }


def test_a_mistake_of_ours_under_admin_is_answered_in_the_contracts_shape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever parses errors must not meet a page of the framework's; what happened stands in the log."""

    async def broken(_: object) -> None:
        raise RuntimeError("a secret")

    async def ask(home: Home) -> httpx.Response:
        doors = Doors(home, limits=Limits(), bounds=FeatureBounds())
        await doors.follow()
        operation = AdminOperation(name="break", method="GET", path="/admin/break", summary="", handle=broken)
        transport = httpx.ASGITransport(Starlette(routes=[_route(operation, doors)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.get("/admin/break", headers={KEY_HEADER: ADMIN_KEY})
        await doors.close()
        return answer

    home = Home(tmp_path)
    home.loops.furnish({"RANKWARD_ADMIN_KEY": ADMIN_KEY})
    answer = asyncio.run(ask(home))

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internalServerError"
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose bounds are so tight that every one of them can be met."""
    limits = Limits(body_bytes=2_000, actions=3, id_length=8, pending_appends=0)
    running = RunningService(tmp_path_factory.mktemp("narrow"), options=ApiOptions(limits=limits))
    try:
        yield running.start()
    finally:
        running.close()


@pytest.mark.slow
def test_overload_is_answered_with_when_to_try_again(narrow: RunningService) -> None:
    """Before memory grows; the clients that know the header wait by themselves."""
    loop = narrow.client("default")

    for refused in (loop.rank(request("a", "b")), loop.reward("e1", 1), loop.activate("e1")):
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "operationNotAllowed"
    assert narrow.records("default") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (request("a", "b", "c", "d"), "invalidRankRequest", "send 1 to 3"),
        (request("a", "b" * 9), "invalidRankRequest", "the bound is 8"),
        (request("a", eventId="e" * 9), "invalidRankRequest", "the bound is 8"),
        (request("a", note="x" * 2_000), "payloadSizeExceeded", "longer than 2000 bytes"),
    ],
)
def test_bounds_can_be_set(narrow: RunningService, body: dict[str, object], code: str, words: str) -> None:
    """And a refusal names the one in force."""
    refused = narrow.client("default").rank(body)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == code
    assert words in refused.json()["error"]["message"]
