"""The operations of the contract: one handler each, and the table that routes and documents them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec

from rankward.api import schema
from rankward.api.service import Doors
from rankward.errors import InvalidRequest
from rankward.ranking.decide import new_event_id
from rankward.ranking.service import RankingService
from rankward.records import interactions
from rankward.settings import as_datetime
from rankward.store.ports import ModelVersion
from rankward.telemetry import find_version

V1_0 = "v1.0"
ALL = (V1_0, "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3")
JSON = b"application/json; charset=utf-8"


class Call(msgspec.Struct, frozen=True):
    """A request, once its loop is known."""

    doors: Doors
    service: RankingService
    body: bytes
    event_id: str  # from the path; empty: the operation has none
    query: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True):
    """What is sent back."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation of the contract."""

    name: str
    method: str
    path: tuple[str, ...]  # below the version; `{eventId}` stands for any segment
    handle: Callable[[Call], Awaitable[Answer]]
    summary: str
    success: int
    request: Any = None  # type of the body; None: it has none
    response: Any = None  # type of the answer's body; None: it has none; bytes: not JSON
    errors: tuple[str, ...] = ()
    versions: tuple[str, ...] = ALL


async def _rank(call: Call) -> Answer:
    doors = call.doors
    request, named = schema.read_rank(call.body, limits=doors.limits, bounds=doors.bounds)
    if not named:
        request = msgspec.structs.replace(request, event_id=new_event_id(doors.new_uuid(), datetime.now(UTC)))
    outcome = await call.service.rank(request, named=named)
    return Answer(201, schema.write_rank(outcome.interaction), JSON)


async def _reward(call: Call) -> Answer:
    event_id = schema.read_event_id(call.event_id, limits=call.doors.limits, code="InvalidRewardRequest")
    await call.service.reward(event_id, schema.read_reward(call.body))
    return Answer(204)


async def _activate(call: Call) -> Answer:
    event_id = schema.read_event_id(call.event_id, limits=call.doors.limits, code="InvalidEventIdToActivate")
    await call.service.activate(event_id)
    return Answer(204)


async def _get_configuration(call: Call) -> Answer:
    loop = call.doors.home.catalog.loop(call.service.loop.name)
    return Answer(200, schema.write_settings(loop.settings), JSON)


async def _put_configuration(call: Call) -> Answer:
    loop = await call.doors.configuration.change(call.service.loop.name, schema.read_settings(call.body))
    await call.doors.follow()
    return Answer(200, schema.write_settings(loop.settings), JSON)


async def _get_policy(call: Call) -> Answer:
    return _policy(call, call.doors.home.catalog.loop(call.service.loop.name).settings.policy)


async def _put_policy(call: Call) -> Answer:
    loop = await call.doors.configuration.set_policy(call.service.loop.name, schema.read_policy(call.body))
    await call.doors.follow()
    return _policy(call, loop.settings.policy)


async def _delete_policy(call: Call) -> Answer:
    loop = await call.doors.configuration.reset_policy(call.service.loop.name)
    await call.doors.follow()
    return _policy(call, loop.settings.policy)


def _policy(call: Call, arguments: str) -> Answer:
    """Answer a policy. Its name is the loop's id, whatever name was sent, as the original had it."""
    contract = schema.PolicyContract(name=call.service.loop.loop_id, arguments=arguments)
    return Answer(200, msgspec.json.encode(contract), JSON)


def _serving(call: Call) -> ModelVersion | None:
    catalog = call.doors.home.catalog
    loop = catalog.loop(call.service.loop.name)
    return find_version(catalog.versions(loop.loop_id), loop.model_id)


async def _get_model(call: Call) -> Answer:
    if call.query.get("signed", "false").lower() == "true":
        raise InvalidRequest(
            "signed models are not offered: leave out `signed`", code="InvalidRequest", target="signed"
        )
    version = _serving(call)
    model, made = b"", datetime(1, 1, 1, tzinfo=UTC)
    if version is not None:
        model, made = (
            call.doors.home.models.get(version.loop_id, version.model_id),
            as_datetime(version.created_us),
        )
    headers = (
        (b"content-disposition", b"attachment; filename=model.vw"),
        (b"last-modified", format_datetime(made, usegmt=True).encode()),
    )
    return Answer(200, model, b"application/octet-stream", headers)


async def _delete_model(call: Call) -> Answer:
    await call.doors.registry.delete(call.service.loop.name)
    await call.doors.follow()
    return Answer(204)


async def _model_properties(call: Call) -> Answer:
    version = _serving(call)
    first = None
    if version is not None:
        versions = call.doors.home.catalog.versions(version.loop_id)
        first = min(v.created_us for v in versions if v.epoch_id == version.epoch_id)
    properties = schema.ModelProperties(
        creation_time=schema.model_time(first),
        last_modified_time=schema.model_time(version.created_us if version else None),
    )
    return Answer(200, msgspec.json.encode(properties), JSON)


_LOOK = 2_000


async def _log_properties(call: Call) -> Answer:
    """Answer the span of the log in whole days: from the first day's start to the last day's end."""
    log = call.doors.log(call.service.loop.loop_id)
    extent = await log.extent()
    start = extent.first
    properties = schema.LogsProperties()
    while start < extent.end:  # settings and ticks may stand before the first interaction
        entries = await log.read(start, limit=_LOOK)
        if not entries:
            break
        if found := interactions(entries):
            first, last = as_datetime(found[0][0].time_us), as_datetime(extent.last_time_us)
            properties = schema.LogsProperties(
                date_range=schema.DateRange(from_=_day(first), to=_day(last + timedelta(days=1)))
            )
            break
        start = entries[-1].offset + 1
    return Answer(200, msgspec.json.encode(properties), JSON)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT00:00:00Z")


async def _delete_logs(call: Call) -> Answer:
    await call.doors.configuration.clear_log(call.service.loop.name)
    return Answer(204)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="rank",
        method="POST",
        path=("rank",),
        handle=_rank,
        summary="Ask which of the actions to show. The answer is durable when it arrives.",
        success=201,
        request=schema.RankBody,
        response=schema.RankAnswer,
        errors=("InvalidRankRequest", "ModelRankingError", "OperationNotAllowed", "PayloadSizeExceeded"),
    ),
    Operation(
        name="reward",
        method="POST",
        path=("events", "{eventId}", "reward"),
        handle=_reward,
        summary="Report how well the shown action did.",
        success=204,
        request=schema.RewardBody,
        errors=("InvalidRewardRequest", "OperationNotAllowed"),
    ),
    Operation(
        name="activate",
        method="POST",
        path=("events", "{eventId}", "activate"),
        handle=_activate,
        summary="Say that a deferred decision was really shown.",
        success=204,
        errors=("InvalidEventIdToActivate", "OperationNotAllowed"),
    ),
    Operation(
        name="getServiceConfiguration",
        method="GET",
        path=("configurations", "service"),
        handle=_get_configuration,
        summary="Read the loop's settings.",
        success=200,
        response=dict[str, Any],
    ),
    Operation(
        name="updateServiceConfiguration",
        method="PUT",
        path=("configurations", "service"),
        handle=_put_configuration,
        summary="Change the loop's settings. Members left out stay as they are.",
        success=200,
        request=dict[str, Any],
        response=dict[str, Any],
        errors=(
            "InvalidServiceConfiguration",
            "InvalidLearningModeServiceConfiguration",
            "InvalidRewardWaitTime",
            "InvalidLogRetentionDays",
            "InvalidModelRetrainDays",
        ),
    ),
    Operation(
        name="getPolicy",
        method="GET",
        path=("configurations", "policy"),
        handle=_get_policy,
        summary="Read the learning policy.",
        success=200,
        response=schema.PolicyContract,
    ),
    Operation(
        name="updatePolicy",
        method="PUT",
        path=("configurations", "policy"),
        handle=_put_policy,
        summary="Change the learning policy. The old model serves until a new one has caught up.",
        success=200,
        request=schema.PolicyContract,
        response=schema.PolicyContract,
        errors=("InvalidPolicyConfiguration", "InvalidPolicyContract"),
    ),
    Operation(
        name="resetPolicy",
        method="DELETE",
        path=("configurations", "policy"),
        handle=_delete_policy,
        summary="Restore the default policy.",
        success=200,
        response=schema.PolicyContract,
    ),
    Operation(
        name="getModel",
        method="GET",
        path=("model",),
        handle=_get_model,
        summary="Download the serving model. No bytes: there is none yet.",
        success=200,
        response=bytes,
    ),
    Operation(
        name="resetModel",
        method="DELETE",
        path=("model",),
        handle=_delete_model,
        summary="Forget what was learned.",
        success=204,
    ),
    Operation(
        name="getModelProperties",
        method="GET",
        path=("model", "properties"),
        handle=_model_properties,
        summary="Read when the model was made.",
        success=200,
        response=schema.ModelProperties,
    ),
    Operation(
        name="getLogsProperties",
        method="GET",
        path=("logs", "properties"),
        handle=_log_properties,
        summary="Read which days the log covers.",
        success=200,
        response=schema.LogsProperties,
    ),
    Operation(
        name="deleteLogs",
        method="DELETE",
        path=("logs",),
        handle=_delete_logs,
        summary="Remove all interactions and rewards. The model stays.",
        success=204,
    ),
)
