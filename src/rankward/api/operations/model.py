"""The model of a loop, as a file and by its dates."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from rankward.api.operation import JSON, P3, V2022, Answer, Call, Operation, Parameter
from rankward.api.schema import model as schema
from rankward.errors import InvalidRequest
from rankward.settings import as_datetime
from rankward.store.ports import ModelVersion
from rankward.telemetry import find_version


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


OPERATIONS = (
    Operation(
        name="getModel",
        method="GET",
        path=("model",),
        handle=_get_model,
        summary="Download the serving model. No bytes: there is none yet.",
        success=200,
        query=(Parameter(name="signed", kind="boolean", help="Whether to sign the model.", versions=(P3, V2022)),),
        response=bytes,
        also_head=True,
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
)
