"""The model of a loop, as a file and by its dates."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec

from rankward.api.operation import JSON, P3, V2022, Answer, Call, Operation, Parameter
from rankward.api.schema import model as schema
from rankward.errors import Overloaded
from rankward.registry.service import Form
from rankward.settings import as_datetime
from rankward.store.ports import ModelVersion
from rankward.telemetry import find_version
from rankward.vw.trial import try_out

_SIGNED = (P3, V2022)
"""The versions that know of signatures."""


def _serving(call: Call) -> ModelVersion | None:
    catalog = call.doors.home.catalog
    loop = catalog.loop(call.service.loop.name)
    return find_version(catalog.versions(loop.loop_id), loop.model_id)


async def _get_model(call: Call) -> Answer:
    signed = call.version in _SIGNED and call.flag("signed")
    version = _serving(call)
    content, made = b"", datetime(1, 1, 1, tzinfo=UTC)
    if version is not None:
        whole = Form.WITH_BINS if call.version in _SIGNED and call.flag("withBins") else Form.BARE
        content = await call.doors.registry.exported(version, Form.SIGNED if signed else whole)
        made = as_datetime(version.created_us)
    filename = b"model.vw.zip" if signed else b"model.vw"
    headers: tuple[tuple[bytes, bytes], ...] = (
        (b"content-disposition", b"attachment; filename=" + filename),
        (b"last-modified", format_datetime(made, usegmt=True).encode()),
    )
    if version is not None and not signed:
        headers = (*headers, (b"etag", f'"{version.model_id}"'.encode()))  # two models may be of one second
    return Answer(200, content, b"application/octet-stream", headers)


async def _put_model(call: Call) -> Answer:
    assert call.upload is not None, "the operation takes its body as a file"
    if call.doors.importing.locked():
        raise Overloaded("another model is being imported: try again when it is done", retry_after_s=5)
    async with call.doors.importing:
        await call.registry.import_model(
            call.service.loop.name,
            call.upload,
            bound=call.doors.limits.model_bytes,
            by_admin=call.by_admin,
            try_out=try_out,
        )
    await call.doors.follow()
    return Answer(204)


async def _delete_model(call: Call) -> Answer:
    await call.registry.delete(call.service.loop.name)
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
        query=(
            Parameter(name="signed", kind="boolean", help="Whether to sign the model.", versions=_SIGNED),
            Parameter(
                name="withBins",
                kind="boolean",
                help="Whether to send a model that has bins (`numbers=bins`) in a zip file with them; without, it is "
                "refused.",
                versions=_SIGNED,
            ),
        ),
        response=bytes,
        errors=("InvalidRequest",),
        also_head=True,
    ),
    Operation(
        name="importModel",
        method="PUT",
        path=("model",),
        handle=_put_model,
        summary="Serve a model from elsewhere, and go on learning from it. It is tried first.",
        success=204,
        request=bytes,
        body_limit="model_bytes",
        uploads=True,
        errors=(
            "InvalidModelImportFormat",
            "InvalidModelImportSignature",
            "InvalidApiAccess",
            "OperationNotAllowed",
            "PayloadSizeExceeded",
        ),
        versions=_SIGNED,
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
