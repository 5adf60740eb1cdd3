"""One HTTP process: uvicorn on a socket that the supervisor opened."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rankward.api.app import App
from rankward.api.identity import IdentityProvider
from rankward.api.options import ApiOptions
from rankward.api.pages import pages
from rankward.api.proxy import BehindProxy
from rankward.api.service import FOLLOW_S, Doors
from rankward.demo.newsroom import Newsroom
from rankward.demo.routes import demo_routes
from rankward.errors import WorldError
from rankward.portal.app import portal
from rankward.portal.gate import Entrance
from rankward.portal.oidc import SignInProvider
from rankward.telemetry import RequestLog
from rankward.wiring import Home

logger = logging.getLogger(__name__)


_FAREWELL_S = 0.5
_SWITCH_S = 0.0005
"""How long the thread that commits may have to wait for the interpreter, which it needs several times in each commit.

With Python's own 5 ms it got on only once all other work was done, and answers waited for it, at half the rate.
"""


class _Gathering(asyncio.Transport):
    """A transport that sends all that is written in one turn of the event loop at once.

    The server writes the head of an answer, then its body: as two packets, each would wake the client.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send with whatever else is written now."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def _flush(self) -> None:
        if self._held:
            self._transport.write(b"".join(self._held))
            self._held.clear()

    def close(self) -> None:
        """Send what was written, and close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._held.clear()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """How many bytes are still to be sent."""
        return sum(map(len, self._held)) + self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._transport.resume_reading()


_OFFER = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class _Protocol(HttpToolsProtocol):
    def data_received(self, data: bytes) -> None:
        """Take in what came, without a client's offer to go on in another protocol.

        The parser would stop at it, and the body would be lost. Java's own client offers HTTP/2 with every request.
        """
        in_body = self.cycle is not None and self.cycle.more_body
        if (b"pgrade:" in data or b"PGRADE:" in data) and not in_body:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _OFFER.sub(b"", head) + end + rest
        super().data_received(data)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Gathering(transport))


class _Server(uvicorn.Server):
    """A server that answers what it was asked before it stops, and then hangs up.

    Over TLS it would wait for every client to say goodbye, which few do.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        hanging_up = asyncio.create_task(self._hang_up())
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    async def _hang_up(self) -> None:
        while True:
            await asyncio.sleep(_FAREWELL_S)
            for connection in list(self.server_state.connections):
                assert isinstance(connection, HttpToolsProtocol), "no other is configured"
                answered = connection.cycle is None or connection.cycle.response_complete
                if answered and not connection.transport.get_write_buffer_size():
                    connection.transport.abort()


async def run_api(root: Path, descriptor: int, number: int, options: ApiOptions) -> None:
    """Serve until told to stop, or until the parent goes away."""
    home = Home(root, pending_appends=options.limits.pending_appends)
    provider = None
    if options.oidc_issuer is not None:
        provider = IdentityProvider(
            issuer=options.oidc_issuer, audience=options.oidc_audience, claim=options.oidc_claim
        )
    doors = Doors(home, limits=options.limits, bounds=options.bounds, provider=provider)
    listener = socket.socket(fileno=descriptor)
    newsroom = Newsroom(doors, _own_endpoint(listener)) if options.demo else None
    await doors.follow()
    sessions = home.sessions()
    entrance = Entrance(
        provider=None
        if provider is None or options.oidc_client_id is None
        else SignInProvider(
            provider,
            client_id=options.oidc_client_id,
            client_secret=os.environ.get("RANKWARD_OIDC_CLIENT_SECRET"),
            claim=options.oidc_claim,
        ),
        user_header=options.proxy_user_header,
        grants_header=options.proxy_grants_header,
    )
    request_log = RequestLog(_request_log_target(options, home, number))
    app: Any = App(
        doors,
        pages(doors, [portal(doors, sessions, entrance), *(demo_routes(newsroom) if newsroom else ())]),
        request_log,
    )
    config = uvicorn.Config(
        app if options.trusted_proxies is None else BehindProxy(app, options.trusted_proxies),
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    server = _Server(config)
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()  # what is here now stays: no need to look at it whenever memory is tidied up
    following = asyncio.create_task(_follow(doors, request_log))
    following.add_done_callback(lambda _: setattr(server, "should_exit", True))  # our own mistake: start afresh
    _watch_parent(server)
    try:
        await server.serve(sockets=[listener])
    finally:
        following.cancel()
        request_log.flush()
        if newsroom is not None:
            await newsroom.close()
        sessions.close()
        await doors.close()


def _own_endpoint(listener: socket.socket) -> str:
    """Say where this process reaches the service that it is part of."""
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _request_log_target(options: ApiOptions, home: Home, number: int) -> Path | TextIO | None:
    match options.request_log:
        case "stdout":
            return sys.stdout
        case "off":
            return None
    return home.folder.run / f"requests-{number}.jsonl"


async def _follow(doors: Doors, request_log: RequestLog) -> None:
    while True:
        await asyncio.sleep(FOLLOW_S)
        request_log.flush()
        try:
            await doors.follow()
        except WorldError as error:
            logger.error("the catalog cannot be read, and is tried again: %s", error)


def _watch_parent(server: uvicorn.Server) -> None:
    def watch() -> None:
        while os.read(0, 1):
            pass
        server.should_exit = True

    threading.Thread(target=watch, name="parent", daemon=True).start()
