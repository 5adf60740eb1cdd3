"""The ASGI application: finds the operation, answers it, and turns errors into the contract's words.

The contract's operations are served here as bare ASGI, since Rank must cost little more than its bytes;
pages, metrics and documentation are a Starlette application behind it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from rankward.api import errors
from rankward.api.contract import OPERATIONS, Answer, Call, Operation
from rankward.api.errors import ErrorAnswer
from rankward.api.service import Doors
from rankward.errors import InvalidRequest, RankwardError
from rankward.telemetry import RequestLog, errors_total, request_seconds, requests_total

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_NO_CACHE = (
    (b"cache-control", b"no-store, must-revalidate, no-cache"),
    (b"pragma", b"no-cache"),
    (b"expires", b"0"),
    (b"x-content-type-options", b"nosniff"),
)
_BY_PATH = {(op.method, op.path, version): op for op in OPERATIONS for version in op.versions}
_BY_PATH |= {("HEAD", op.path, version): op for op in OPERATIONS for version in op.versions if op.name == "getModel"}
_VERSIONS = frozenset(version for op in OPERATIONS for version in op.versions)


class Target:
    """Where a path of the contract leads."""

    __slots__ = ("event_id", "loop", "operation")

    def __init__(self, operation: Operation, loop: str | None, event_id: str) -> None:
        self.operation = operation
        self.loop = loop
        self.event_id = event_id


class RouteError(Exception):
    """A path of the contract that leads nowhere."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def route(method: str, raw_path: bytes) -> Target | None:
    """Find what a request asks for.

    The path is taken apart before it is decoded, so that an event id may hold a slash. Slashes are
    repeated by clients that join an endpoint that ends in one.

    Args:
        method: of the request.
        raw_path: percent-encoded.

    Returns:
        The target; None: the path is none of the contract's.

    Raises:
        RouteError: it begins as the contract's paths do, and leads nowhere.
    """
    segments = [segment for segment in raw_path.split(b"/") if segment]
    loop: str | None = None
    if len(segments) > 2 and segments[0] == b"loops" and segments[2] == b"personalizer":
        loop = _decoded(segments[1])
        segments = segments[2:]
    if not segments or segments[0] != b"personalizer":
        return None
    if len(segments) < 3:
        raise RouteError(404, "there is nothing here: the contract's paths are /personalizer/VERSION/OPERATION")
    version = _decoded(segments[1])
    names = segments[2:]
    event_id = ""
    if names[0] == b"events" and len(names) == 3:
        event_id = _decoded(names[1])
        path: tuple[str, ...] = ("events", "{eventId}", _decoded(names[2]))
    else:
        path = tuple([_decoded(name) for name in names])
    operation = _BY_PATH.get((method, path, version))
    if operation is not None:
        return Target(operation, loop, event_id)
    if version not in _VERSIONS:
        raise RouteError(404, f"API version {version[:40]!r} is not served: use one of {', '.join(sorted(_VERSIONS))}")
    allowed = sorted({m for m, p, v in _BY_PATH if p == path and v == version})
    if allowed:
        raise RouteError(405, f"use {' or '.join(allowed)} here", ((b"allow", ", ".join(allowed).encode()),))
    raise RouteError(404, f"API version {version} has no such operation: /docs lists those it has")


def _decoded(segment: bytes) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise RouteError(400, "the path is not UTF-8: percent-encode it as such") from error


class App:
    """The service's ASGI application."""

    def __init__(self, doors: Doors, pages: Asgi, request_log: RequestLog) -> None:
        """Put the doors together.

        Args:
            doors: loops and keys.
            pages: everything that is not the contract.
            request_log: told of every request.
        """
        self._doors = doors
        self._pages = pages
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            target = route(scope["method"], scope["raw_path"])
        except RouteError as error:
            refused = errors.gateway(error.status, error.message)
            await self._answer_error(scope, send, refused, started, "unknown", "", error.headers)
            return
        if target is None:
            await self._answer_page(scope, receive, send, started)
            return
        name = target.operation.name
        loop = ""
        try:
            self._doors.keep_up()
            loop = self._doors.keys.loop_for(scope["headers"], target.loop)
            service = self._doors.loop(loop)
            body = await read_body(scope["headers"], receive, self._doors.limits.body_bytes)
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if scope["query_string"] else {}
            answer = await target.operation.handle(Call(self._doors, service, body, target.event_id, query))
        except RankwardError as error:
            refused = errors.answer(error)
            if refused.status >= 500:
                logger.error("%s of loop %s: %s", name, loop, error)
            await self._answer_error(scope, send, refused, started, name, loop)
            return
        except Exception:
            logger.exception("%s of loop %s failed", name, loop)
            await self._answer_error(scope, send, errors.unexpected(), started, name, loop)
            return
        await self._answer(scope, send, answer, started, name, loop)

    async def _answer_page(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        request_id = str(self._doors.new_uuid())
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"apim-request-id", request_id.encode())]
            await send(message)

        try:
            await self._pages(scope, receive, send_noting)
        finally:
            self._note(started, "page", "", status, request_id)

    async def _answer_error(
        self,
        scope: Scope,
        send: Send,
        refused: ErrorAnswer,
        started: float,
        operation: str,
        loop: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        if refused.retry_after_s is not None:
            headers = (*headers, (b"retry-after", str(refused.retry_after_s).encode()))
        errors_total.labels(operation, refused.code).inc()
        answer = Answer(refused.status, refused.body, b"application/json; charset=utf-8", headers)
        await self._answer(scope, send, answer, started, operation, loop, refused.code)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        answer: Answer,
        started: float,
        operation: str,
        loop: str,
        code: str = "",
    ) -> None:
        request_id = str(self._doors.new_uuid())
        headers = [*_NO_CACHE, (b"apim-request-id", request_id.encode()), *answer.headers]
        if answer.content_type is not None:
            headers.append((b"content-type", answer.content_type))
        if answer.status != 204:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})
        self._note(started, operation, loop, answer.status, request_id, code)

    def _note(self, started: float, operation: str, loop: str, status: int, request_id: str, code: str = "") -> None:
        seconds = time.perf_counter() - started
        request_seconds.labels(operation).observe(seconds)
        requests_total.labels(loop, operation, status).inc()
        self._request_log.write(
            loop=loop,
            operation=operation,
            status=status,
            seconds=seconds,
            request_id=request_id,
            code=code,
        )


async def read_body(headers: Sequence[tuple[bytes, bytes]], receive: Receive, bound: int) -> bytes:
    """Read a request's body, but no more of it than allowed.

    Raises:
        InvalidRequest: it is longer than the bound, or the client went away.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > bound:
            raise _too_long(bound)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and message["type"] == "http.request":
        if len(body) > bound:
            raise _too_long(bound)
        return body
    parts = [body]
    length = len(body)
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > bound:
            raise _too_long(bound)
    if message["type"] == "http.disconnect":
        raise InvalidRequest("the connection was closed before the body was complete", code="BadRequest")
    return b"".join(parts)


def _too_long(bound: int) -> InvalidRequest:
    return InvalidRequest(
        f"the body is longer than {bound} bytes: send fewer or shorter features", code="PayloadSizeExceeded"
    )
