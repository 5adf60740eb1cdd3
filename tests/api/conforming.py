"""What the contract asks of an answer, whatever the operation and the version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from rankward.api.operation import V2022
from tests.api.contract import STATUS_BY_CODE, ErrorResponse, Published, on_the_wire
from tests.service import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

JSON = "application/json; charset=utf-8"
GATEWAY_STATUSES = {400, 401, 404, 405}
"""What a request is refused with that never reaches an operation: in the short form of the original's gateway."""
_STATUS_ON_THE_WIRE = {on_the_wire(code): status for code, status in STATUS_BY_CODE.items()}


def filled(path: str, ids: Mapping[str, str]) -> str:
    """Write a path with ids in place of the names in braces."""
    return re.sub(r"{(\w+)}", lambda name: quoted(ids[name[1]]), path)


def check_success(answer: httpx.Response, operation: Published) -> None:
    """An answer has the published status, and a body of the published type; or no body, and no type either."""
    assert answer.status_code == operation.success, answer.text
    if operation.response is None:
        assert answer.content == b""
        assert "content-type" not in answer.headers
    elif operation.response is bytes:
        assert answer.headers["content-type"] == "application/octet-stream"
    else:
        assert answer.headers["content-type"] == JSON
        msgspec.json.decode(answer.content, type=operation.response)


def check_refusal(answer: httpx.Response, version: str) -> str:
    """A refusal blames the caller, in one of the contract's two shapes. Returns its code."""
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == JSON
    error = msgspec.json.decode(answer.content, type=ErrorResponse).error
    assert error.message.isprintable()
    if error.code.isdigit():
        assert int(error.code) == answer.status_code
        assert answer.status_code in GATEWAY_STATUSES
        return error.code
    assert _STATUS_ON_THE_WIRE[error.code] == answer.status_code
    if version == V2022:
        assert answer.headers["x-ms-error-code"] == error.code
    return error.code
