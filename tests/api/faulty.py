"""A gateway that loses answers: what the service did the first time, the caller never hears of."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING, Any

from tests.service import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TOO_LATE = b"upstream request timeout"  # as the original's gateway said it: plain text


class FaultyGateway:
    """What came through a gateway: how often each call was made."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.calls: Counter[tuple[str, str, bytes]] = Counter()


@contextlib.contextmanager
def faulty_gateway(port: int, failures: Sequence[int | None]) -> Iterator[FaultyGateway]:
    """Hand every request on to a service, but lose the answer to the first of each kind.

    Args:
        port: of the service, on this machine.
        failures: what the caller gets instead, in turn: a status; None: the connection is closed.
    """
    lock = threading.Lock()
    turns = cycle(failures)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = (self.command, self.path, body)
            with lock:
                gateway.calls[call] += 1
                lost = gateway.calls[call] == 1
                failure = next(turns) if lost else None
            status, content, media = self._hand_on(body)
            if lost and failure is None:
                self.close_connection = True
            elif failure is not None:
                self._reply(failure, _TOO_LATE, "text/plain")
            else:
                self._reply(status, content, media)

        def _hand_on(self, body: bytes) -> tuple[int, bytes, str | None]:
            service = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                service.request(self.command, self.path, body=body, headers=headers)
                answer = service.getresponse()
                return answer.status, answer.read(), answer.headers.get("Content-Type")
            finally:
                service.close()

        def _reply(self, status: int, content: bytes, media: str | None) -> None:
            self.send_response(status)
            if media is not None:
                self.send_header("Content-Type", media)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway = FaultyGateway(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield gateway
        finally:
            server.shutdown()
            thread.join()
