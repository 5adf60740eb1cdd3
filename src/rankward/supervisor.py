"""`rankward serve`, `api` and `worker`: opens the socket, starts the processes, and starts again whichever dies."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from rankward.api.options import ApiOptions
from rankward.errors import Conflict, StoreUnavailable
from rankward.store.sqlite.folder import FolderLock
from rankward.wiring import Home

logger = logging.getLogger(__name__)

_BACKLOG = 2_048
_LONGEST_PAUSE_S = 10.0
_PATIENCE_S = 30.0  # for a process that was asked to stop


class _Child:
    """A process that shall always run."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._start = start
        self.process = start()
        self._started = time.monotonic()
        self._pause_s = 0.0
        self._again_at = 0.0

    def tend(self) -> None:
        """Start it again if it has died, at once at first, then more and more slowly."""
        code = self.process.poll()
        if code is None:
            return
        now = time.monotonic()
        if self._again_at == 0.0:
            lived_s = now - self._started
            self._pause_s = 0.0 if lived_s > 5 else min(_LONGEST_PAUSE_S, max(0.2, self._pause_s * 2))
            self._again_at = now + self._pause_s
            logger.error("%s ended with %d: it starts again in %.1f s", self.name, code, self._pause_s)
        if now >= self._again_at:
            _close_stdin(self.process)
            self.process = self._start()
            self._started, self._again_at = now, 0.0


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that all HTTP processes share.

    Raises:
        Conflict: the port is in use, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(f"cannot listen on {host}:{port}: {error.strerror}. Choose another with --port.") from error
    listener.set_inheritable(True)
    return listener


def default_workers() -> int:
    """How many HTTP processes to run: one for each core, up to 4."""
    return max(1, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def serve(
    root: Path,
    *,
    host: str,
    port: int,
    workers: int,
    options: ApiOptions,
    announce: Callable[[Home, int], None],
    works: bool = True,
) -> None:
    """Run everything on one machine until SIGTERM or SIGINT.

    Args:
        root: the data folder.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        workers: how many HTTP processes to run.
        options: for each of them.
        announce: told the installation and the port when everything has been started.
        works: False: learning is left to the workers of other nodes.

    Raises:
        Conflict: the port is in use.
        DataFolderHeld: another `serve` holds the folder.
        StoreUnavailable: the folder cannot be used.
    """
    _check_tls(options)
    encoded = msgspec.json.encode(options).decode()
    with listen(host, port) as listener, _holding(root) as home:
        home.loops.furnish(os.environ)

        def http(number: int) -> subprocess.Popen[bytes]:
            arguments = ["api", str(root), str(listener.fileno()), str(number), encoded]
            return _spawn(arguments, listener.fileno())

        role = "worker" if works else "follower"
        starts = {f"HTTP process {number}": functools.partial(http, number) for number in range(workers)}
        _supervise(home, role, starts, lambda: announce(home, listener.getsockname()[1]))


def work(root: Path, *, announce: Callable[[Home], None]) -> None:
    """Run a worker, and nothing that answers HTTP, until SIGTERM or SIGINT.

    Args:
        root: the folder of a node.
        announce: told the installation when it has been started.

    Raises:
        DataFolderHeld: another process of this kind holds the folder.
        StoreUnavailable: the folder or the servers cannot be used.
    """
    with _holding(root) as home:
        _supervise(home, "worker", {}, lambda: announce(home))


@contextlib.contextmanager
def _holding(root: Path) -> Iterator[Home]:
    """Hold the folder, ready for processes to start."""
    home = Home(root)
    lock = FolderLock(home.folder.root / "serve.lock")
    try:
        lock.take_or_refuse("`rankward serve`")
        home.give_up_outdated()
        home.folder.keep_reserve()
        home.folder.standing.unlink(missing_ok=True)
        metrics = home.folder.run / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        yield home
    finally:
        home.close()
        lock.close()


def _supervise(
    home: Home, role: str, starts: Mapping[str, Callable[[], subprocess.Popen[bytes]]], announce: Callable[[], None]
) -> None:
    """Keep processes running.

    Args:
        home: the installation.
        role: of the one in the background: `worker` or `follower`.
        starts: what starts each of the others, by name.
        announce: told when everything has been started.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = _Child(f"the {role}", lambda: _spawn([role, str(home.folder.root)], None))
    others = [_Child(name, start) for name, start in starts.items()]
    announce()
    try:
        while not stopping:
            if home.is_outdated:
                logger.error("the node fell too far behind: its processes start again, and fetch what they lack")
                _stop(worker.process, [child.process for child in others])
                home.give_up_outdated()
            for child in (worker, *others):
                child.tend()
            time.sleep(0.1)
    finally:
        _stop(worker.process, [child.process for child in others])


def _spawn(arguments: list[str], descriptor: int | None) -> subprocess.Popen[bytes]:
    """Start a role. It has a pipe for standard input, whose end tells it that we are gone."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(Path(arguments[1]) / "run" / "metrics")}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "rankward.roles", *arguments],
        stdin=subprocess.PIPE,
        pass_fds=() if descriptor is None else (descriptor,),
        env=environment,
        process_group=0,  # Ctrl-C in a terminal is for the supervisor, which stops the others in order
    )


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _stop(worker: subprocess.Popen[bytes], http: list[subprocess.Popen[bytes]]) -> None:
    """Stop the HTTP processes first, then the worker, which publishes what is learned by then."""
    for group in (http, [worker]):
        for process in group:
            _close_stdin(process)
        deadline = time.monotonic() + _PATIENCE_S
        for process in group:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.error("process %d does not stop and is killed", process.pid)
                process.kill()
                process.wait()


def _check_tls(options: ApiOptions) -> None:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise Conflict("--tls-cert and --tls-key go together: give both, or neither")
    for path in (options.tls_cert, options.tls_key):
        if path is not None and not os.access(path, os.R_OK):
            raise StoreUnavailable(f"{path} cannot be read: check its name and owner")
    if options.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
        except (ssl.SSLError, OSError) as error:
            raise Conflict(
                f"{options.tls_cert} and {options.tls_key} are no certificate with its key, in PEM ({error}): check "
                "that they belong together and are not swapped"
            ) from error
