"""Errors on the wire: which status each has, and the shape that the contract gives it."""

from __future__ import annotations

import msgspec

from rankward.api.operation import V2022
from rankward.errors import (
    CallerError,
    Conflict,
    NotFound,
    Overloaded,
    RankwardError,
    StorageFull,
    Unauthorized,
    WorldError,
)
from rankward.ranking.explore import InvalidPmfError
from rankward.vw.learner import LearnerRefusedError

_STATUS_BY_CODE = {
    "InvalidApiAccess": 403,
    "ModelRankingError": 409,
    "ProblemTypeIncompatibleWithAutoOptimization": 403,
    "OperationNotAllowed": 503,
}

_SINCE_2022 = {"InvalidContainer": "InvalidSasUri"}
"""What the newest version calls otherwise."""


class ErrorAnswer(msgspec.Struct, frozen=True):
    """A refusal, ready to be sent."""

    status: int
    code: str  # as on the wire; for the metrics too
    body: bytes
    retry_after_s: int | None = None


def answer(error: RankwardError, version: str) -> ErrorAnswer:
    """Put an error into the words of a version of the contract; the administration's are those of the newest."""
    match error:
        case Unauthorized():
            return gateway(401, error.message)
        case Conflict():
            refused = _contract(503, "OperationNotAllowed", error.message, None, None)
            return msgspec.structs.replace(refused, retry_after_s=1)
        case CallerError():
            code = _SINCE_2022.get(error.code, error.code) if version == V2022 else error.code
            return _contract(_status(error), code, error.message, error.target, error.reason)
        case InvalidPmfError() | LearnerRefusedError():
            return _contract(409, "ModelRankingError", f"the model cannot rank the request: {error}", None, None)
        case StorageFull():
            return _contract(507, "InsufficientStorage", str(error), None, None)
        case Overloaded():
            refused = _contract(503, "OperationNotAllowed", str(error), None, None)
            return msgspec.structs.replace(refused, retry_after_s=error.retry_after_s)
        case WorldError():
            refused = _contract(503, "OperationNotAllowed", str(error), None, None)
            return msgspec.structs.replace(refused, retry_after_s=1)
    return _contract(500, "InternalServerError", str(error), None, None)


def _status(error: CallerError) -> int:
    if isinstance(error, NotFound):
        return 404
    return _STATUS_BY_CODE.get(error.code, 400)


def _contract(status: int, code: str, message: str, target: str | None, reason: str | None) -> ErrorAnswer:
    """Write the contract's shape. Codes begin in lower case on the wire, though the lists capitalise them."""
    code = code[:1].lower() + code[1:]
    error: dict[str, object] = {"code": code, "message": message}
    if target is not None:
        error["target"] = target
    if reason is not None:
        error["details"] = [{"code": "badRequest", "message": message}]
        error["innerError"] = {"code": reason}
    return ErrorAnswer(status, code, msgspec.json.encode({"error": error}))


def gateway(status: int, message: str) -> ErrorAnswer:
    """Write the other shape, in which the original's gateway refused what never reached the service."""
    return ErrorAnswer(status, str(status), msgspec.json.encode({"error": {"code": str(status), "message": message}}))


def unexpected() -> ErrorAnswer:
    """Answer a mistake of our own: what happened stands in the service's log."""
    return _contract(500, "InternalServerError", "the service made a mistake: its log has the details", None, None)
