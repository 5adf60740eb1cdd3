"""A socket that answers every request at once: what the load generator is measured against."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"


class _Void(asyncio.Protocol):
    def __init__(self) -> None:
        self._missing = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is not derived from it

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            at = data.index(b"content-length: ") + 16
            self._missing = data.index(b"\r\n\r\n") + 4 + int(data[at : data.index(b"\r", at)])
        self._missing -= len(data)
        if not self._missing and self._transport is not None:
            self._transport.write(_ANSWER)


async def main() -> None:
    """Answer until killed."""
    server = await asyncio.get_running_loop().create_server(_Void, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:]:
        os.sched_setaffinity(0, [int(cpu) for cpu in sys.argv[1:]])
    uvloop.run(main())
