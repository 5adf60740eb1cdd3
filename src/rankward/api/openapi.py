"""The OpenAPI description, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from rankward import __version__
from rankward.api.admin import ADMIN_OPERATIONS
from rankward.api.operation import V2022, Operation
from rankward.api.operations import OPERATIONS
from rankward.settings import SETTINGS, LoopSettings

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "target": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
                "innerError": {"type": "object"},
            },
        }
    },
}


def document() -> dict[str, Any]:
    """Describe every operation in every version, and the service's own pages."""
    types = [kind for op in OPERATIONS for kind in (op.request, op.response) if _is_struct(kind) or _is_list(kind)]
    types += [kind for each in ADMIN_OPERATIONS for kind in (each.request, each.response) if kind not in {None, bytes}]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {
        **components,
        "ServiceConfiguration": _configuration(),
        "ErrorResponse": _ERROR,
    }
    paths: dict[str, dict[str, Any]] = {}
    for op in OPERATIONS:
        for version in op.versions:
            path = contract_path(op, version)
            paths.setdefault(path, {})[op.method.lower()] = _operation(op, version)
            if op.also_head:
                paths[path]["head"] = _operation(op, version, head=True)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rankward",
            "version": __version__,
            "description": "The contract of Azure AI Personalizer. The key selects the loop; under /loops/NAME the "
            "same operations are there with the loop in the path.",
        },
        "paths": paths | _administration() | _own_pages(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "Ocp-Apim-Subscription-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def contract_path(op: Operation, version: str) -> str:
    """Write the path of an operation in a version, ids in braces."""
    return "/".join(["/personalizer", *([] if version == V2022 else [version]), *op.path])


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _schema(kind: Any) -> Mapping[str, Any]:
    if _is_list(kind):
        return _reference(kind)
    if _is_struct(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"$ref": "#/components/schemas/ServiceConfiguration"}


def _operation(op: Operation, version: str, *, head: bool = False) -> dict[str, Any]:
    name = f"{op.name}{'Head' if head else ''}_{version.replace('.', '_').replace('-', '_')}"
    described: dict[str, Any] = {
        "operationId": name,
        "summary": op.summary,
        "tags": [version],
        "security": [{"key": []}, {"bearer": []}],
        "responses": {
            str(op.success): {"description": "Done."},
            "401": _refusal("The key is missing or wrong."),
        },
    }
    if op.response is bytes and not head:
        described["responses"]["200"]["content"] = {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
        }
    elif op.response is not None and not head:
        described["responses"][str(op.success)]["content"] = {"application/json": {"schema": _schema(op.response)}}
    if op.request is bytes:
        described["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    elif op.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(op.request)}},
        }
    if op.errors:
        codes = ", ".join(code[:1].lower() + code[1:] for code in op.errors)
        described["responses"]["default"] = _refusal(f"Refused: {codes}.")
    if parameters := _parameters(op, version):
        described["parameters"] = parameters
    return described


def _parameters(op: Operation, version: str) -> list[dict[str, Any]]:
    in_path: list[dict[str, Any]] = [
        {
            "name": part.strip("{}"),
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 256},
        }
        for part in op.path
        if part.startswith("{")
    ]
    in_query: list[dict[str, Any]] = [
        {
            "name": parameter.name,
            "in": "query",
            "required": parameter.required,
            "description": parameter.help,
            "schema": {"type": parameter.kind},
        }
        for parameter in op.query
        if version in parameter.versions
    ]
    if version == V2022:
        in_query.append(
            {"name": "api-version", "in": "query", "required": True, "schema": {"type": "string", "enum": [V2022]}}
        )
    return in_path + in_query


def _administration() -> dict[str, Any]:
    """Describe what is under `/admin`."""
    paths: dict[str, dict[str, Any]] = {}
    for each in ADMIN_OPERATIONS:
        success: dict[str, Any] = {"description": "Done."}
        if each.response is bytes:
            success["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        elif each.response is not None:
            success["content"] = {"application/json": {"schema": _reference(each.response)}}
        in_path = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in re.findall(r"{(\w+)}", each.path)
        ]
        in_query = [
            {"name": name, "in": "query", "required": required, "description": what, "schema": {"type": "string"}}
            for required, parameters in ((True, each.query), (False, each.options))
            for name, what in parameters
        ]
        described: dict[str, Any] = {
            "operationId": each.name,
            "summary": each.summary,
            "tags": ["administration"],
            "security": [{"key": []}, {"bearer": []}],
            "parameters": in_path + in_query,
            "responses": {
                str(each.success): success,
                "401": _refusal("The admin key is missing or wrong."),
                "403": _refusal("A loop's key was sent: it takes the admin key."),
                "default": _refusal("Refused."),
            },
        }
        if each.request is not None:
            described["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": _reference(each.request)}},
            }
        paths.setdefault(each.path, {})[each.method.lower()] = described
    return paths


def _reference(kind: Any) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return schema


def _refusal(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }


def _configuration() -> dict[str, Any]:
    definitions = msgspec.json.schema(LoopSettings)["$defs"]
    properties = definitions["LoopSettings"]["properties"]
    described: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if setting.wire is None:
            continue
        kind = {key: value for key, value in properties[name].items() if key not in {"$ref", "default"}}
        if "$ref" in properties[name]:  # an enumeration, which is written out
            kind |= {"type": "string", "enum": definitions[properties[name]["$ref"].rsplit("/", 1)[-1]]["enum"]}
        described[setting.wire] = {**kind, "description": setting.help}
    return {"type": "object", "properties": described}


def _own_pages() -> dict[str, Any]:
    own = {
        "/healthz": ("The process is alive.", "text/plain"),
        "/readyz": ("The service can rank; 503 while it starts.", "text/plain"),
        "/metrics": ("Metrics in Prometheus' text format.", "text/plain"),
        "/openapi.json": ("This description.", "application/json"),
    }
    return {
        path: {
            "get": {
                "operationId": path.strip("/").replace(".", "_"),
                "summary": summary,
                "tags": ["service"],
                "responses": {"200": {"description": "Done.", "content": {media: {}}}},
            }
        }
        for path, (summary, media) in own.items()
    }
