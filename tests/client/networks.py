"""Services that are no help: silent, refusing, always answering the same, or losing an answer on the way."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

from tests.service import PATIENCE_S, hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_MUCH = 65_536


@contextlib.contextmanager
def refused_endpoint() -> Iterator[str]:
    """Let nobody listen at an endpoint, whoever else takes ports meanwhile. Gives it."""
    with hold_port() as holder:
        yield _endpoint(holder)


@contextlib.contextmanager
def silent_service() -> Iterator[str]:
    """Accept connections and never say anything. Gives the endpoint."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield _endpoint(server)


@contextlib.contextmanager
def canned_service(*answers: bytes) -> Iterator[str]:
    """Give these answers, one to a request and the last to all that follow, and close. Gives the endpoint."""
    following = iter(answers)

    class Canned(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(_MUCH)
            self.request.sendall(next(following, answers[-1]))
            self.request.shutdown(socket.SHUT_WR)
            _pump(self.request, None)

    with _serving(Canned) as endpoint:
        yield endpoint


@contextlib.contextmanager
def lossy_service(port: int) -> Iterator[str]:
    """Hand the first request on to a service, but not its answer, and break the connection; then hand on everything.

    Args:
        port: of the service, on this machine.

    Gives the endpoint.
    """
    lost = threading.Event()

    class Lossy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as service:
                there = threading.Thread(target=_pump, args=(self.request, service))
                there.start()
                if lost.is_set():
                    _pump(service, self.request)
                else:
                    service.recv(_MUCH)
                    lost.set()
                    self.request.shutdown(socket.SHUT_RDWR)
                there.join()

    with _serving(Lossy) as endpoint:
        yield endpoint


class Held:
    """What a held-up service has seen, and the word that lets its answers go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()
        self.endpoint = ""


@contextlib.contextmanager
def held_service(port: int) -> Iterator[Held]:
    """Hand every request on to a service, and hold its answers back until they are let go.

    Args:
        port: of the service, on this machine.
    """
    held = Held()

    class Holding(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as service:
                there = threading.Thread(target=_pump, args=(self.request, service))
                there.start()
                first = service.recv(_MUCH)
                if first:  # it has answered: whatever it decided, it has logged
                    held.asked.set()
                held.let_go.wait(PATIENCE_S)
                with contextlib.suppress(OSError):
                    self.request.sendall(first)
                _pump(service, self.request)
                there.join()

    with _serving(Holding) as endpoint:
        held.endpoint = endpoint
        try:
            yield held
        finally:
            held.let_go.set()


def _pump(source: socket.socket, target: socket.socket | None) -> None:
    """Hand on everything until the source ends. None: nobody wants it."""
    with contextlib.suppress(OSError):
        while data := source.recv(_MUCH):
            if target is not None:
                target.sendall(data)
        if target is not None:
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield _endpoint(server.socket)
        finally:
            server.shutdown()
            thread.join()


def _endpoint(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"
