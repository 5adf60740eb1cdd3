"""The ASGI application: finds the operation, answers it, and turns errors into the contract's words.

The contract's operations are served here as bare ASGI, since Rank must cost little more than its bytes;
pages, metrics and documentation are a Starlette application behind it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from rankward.api import errors
from rankward.api.errors import ErrorAnswer
from rankward.api.operation import V2022, Answer, Call
from rankward.api.route import RouteError, Target, route
from rankward.api.service import UPLOADS_AT_ONCE, Doors
from rankward.api.upload import receive_upload
from rankward.errors import InvalidRequest, Overloaded, RankwardError
from rankward.ranking.service import RankingService
from rankward.telemetry import RequestLog, count_of, errors_total, seconds_of

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
            target = route(scope["method"], scope["raw_path"], scope["query_string"])
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
            loop, by_admin = await self._doors.loop_for(scope["headers"], target.loop)
            answer = await self._handle(scope, receive, target, self._doors.loop(loop), by_admin=by_admin)
        except RankwardError as error:
            refused = errors.answer(error, target.version)
            if refused.status >= 500:
                logger.error("%s of loop %s: %s", name, loop, error)
            await self._answer_error(scope, send, refused, started, name, loop, _code_header(target, refused))
            return
        except Exception:
            logger.exception("%s of loop %s failed", name, loop)
            refused = errors.unexpected()
            await self._answer_error(scope, send, refused, started, name, loop, _code_header(target, refused))
            return
        await self._answer(scope, send, answer, started, name, loop)

    async def _handle(
        self, scope: Scope, receive: Receive, target: Target, service: RankingService, *, by_admin: bool
    ) -> Answer:
        bound: int = getattr(self._doors.limits, target.operation.body_limit)
        version, path_id, query = target.version, target.path_id, target.query
        if not target.operation.uploads:
            body = await read_body(scope["headers"], receive, bound)
            return await target.operation.handle(
                Call(self._doors, service, version, body, path_id, query, by_admin, scope)
            )
        if self._doors.uploading.locked():
            raise Overloaded(
                f"{UPLOADS_AT_ONCE} uploads are under way: try again when one of them is done", retry_after_s=5
            )
        folder = self._doors.home.folder.run
        async with self._doors.uploading:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                await receive_upload(scope["headers"], receive, file, bound)
                return await target.operation.handle(
                    Call(self._doors, service, version, b"", path_id, query, by_admin, scope, upload=file)
                )

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
        seconds_of(operation).observe(seconds)
        count_of(loop, operation, status).inc()
        self._request_log.write(
            loop=loop,
            operation=operation,
            status=status,
            seconds=seconds,
            request_id=request_id,
            code=code,
        )


def _code_header(target: Target, refused: ErrorAnswer) -> tuple[tuple[bytes, bytes], ...]:
    """The newest contract has the code in a header, too."""
    return ((b"x-ms-error-code", refused.code.encode()),) if target.version == V2022 else ()


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
