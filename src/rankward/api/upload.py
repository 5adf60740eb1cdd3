"""A body that may be large: it goes to a file as it comes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, BinaryIO

from rankward.errors import InvalidRequest, StorageFull, StoreUnavailable


async def receive_upload(
    headers: Sequence[tuple[bytes, bytes]],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    file: BinaryIO,
    bound: int,
) -> None:
    """Write a request's body to a file, which is then at its beginning.

    Args:
        headers: of the request, names in lower case.
        receive: as ASGI has it.
        file: empty. One that is buffered may fail again when it is closed.
        bound: bytes of the body.

    Raises:
        InvalidRequest: it is longer than the bound, or the client went away.
        StorageFull: there is no room for it.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > bound:
            raise _too_long(bound)
    length = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the connection was closed before the body was complete", code="BadRequest")
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        length += len(part)
        if length > bound:
            raise _too_long(bound)
        with _keeping():
            rest = memoryview(part)
            while rest:
                rest = rest[file.write(rest) :]
    with _keeping():
        file.seek(0, os.SEEK_SET)  # which writes what is buffered


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("there is no room on the disk for what is sent: free some") from error
        raise StoreUnavailable(f"what is sent cannot be kept: {error}") from error


def _too_long(bound: int) -> InvalidRequest:
    return InvalidRequest(
        f"the body is longer than {bound} bytes: the service's limits, such as RANKWARD_LIMIT_MODEL_BYTES, say how "
        "much it takes",
        code="PayloadSizeExceeded",
    )
