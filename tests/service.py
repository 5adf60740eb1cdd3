"""A real service for tests: `rankward serve` on a free port and a folder of its own, in processes of its own.

Run as a program, this file is that service's first process.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import psutil

from rankward.api.operation import V2022
from rankward.api.options import ApiOptions
from rankward.joining.reader import read_joined
from rankward.records import Tick
from rankward.settings import LoopSettings
from rankward.store.nats.broker import write_options
from rankward.supervisor import serve, work
from rankward.telemetry import find_version
from rankward.wiring import Home, now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rankward.records import JoinedEvent, LogEntry
    from rankward.store.nats.broker import BrokerOptions
    from rankward.store.ports import Loop

PATIENCE_S = 300.0
"""How long anything may take on a busy machine before a test gives up. A test that passes is none the slower for it."""
STUDY_S = 5 * PATIENCE_S
"""How long an evaluation may take: it starts process after process, and judges dozens of policies in a search."""
KEY_HEADER = "Ocp-Apim-Subscription-Key"
ADMIN_KEY = "the-admin-key-of-these-tests"

Json = Any


def eventually(condition: Callable[[], bool], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not within the time.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.01)


def hold_port() -> socket.socket:
    """Take a port of this machine that nobody else gets, though nobody listens there until the holder lets somebody."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


class RunningService:
    """One installation: `start`, `stop`, `kill`, and `start` again on the same folder and port."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        options: ApiOptions | None = None,
        environment: Mapping[str, str] | None = None,
        node: BrokerOptions | None = None,
        part: str = "serve",
        data: Path | None = None,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        """Prepare a service; nothing runs yet.

        Args:
            folder: of this service alone. Its name is the service's.
            workers: HTTP processes. With one, what one call changed holds for the next at once.
            options: of HTTP.
            environment: variables beside the test's own.
            node: where the servers are of the cluster that it is a node of. None: it is embedded.
            part: the command that runs it: `serve`; of a cluster's node also `api` or `worker`.
            data: the data folder. None: it lies inside.
            host: the address of the machine that it is on.
            within: the command that starts processes on that machine. Empty: it is this one.
        """
        self.name = folder.name
        self.root = data or folder / "data"
        self.workers = workers
        self.options = options or ApiOptions()
        self.output = folder / "output.txt"
        self.part = part
        self._node = node
        self._host = host
        self._within = within
        self._guard = threading.RLock()  # whoever tends it does so in another thread
        self._wanted = False  # whether it is to run
        self._port_file = folder / "port"
        self._environment = {"RANKWARD_ADMIN_KEY": ADMIN_KEY, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: tuple[int, int] | None = None  # a pipe: its end tells the service that nobody tests it any more
        self._home: Home | None = None
        self._numbers = count()
        self._port_holder: socket.socket | None = None
        self.port = 0

    def start(self) -> RunningService:
        """Start it, and wait until it can rank."""
        self.launch()
        try:
            eventually(self._announced, "the service says its port")
            eventually(self.ready, "the service is ready")
        except BaseException:
            self.close()
            raise
        return self

    def launch(self) -> None:
        """Start it, on what it has kept, and do not wait for it."""
        with self._guard:
            self._wanted = True
            if self._process is not None:
                self._process.wait(PATIENCE_S)
            if self._port_holder is None:
                self._port_holder = hold_port()
                self.port = self._port_holder.getsockname()[1]
                if sys.platform != "linux":  # only there may it be held while the service listens
                    self._port_holder.close()
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._port_file.unlink(missing_ok=True)
            if self._node is not None and not (self.root / "node.json").exists():
                self.root.mkdir(parents=True, exist_ok=True)
                write_options(self.root / "node.json", self._node)
            if self._leash is None:
                self._leash = os.pipe()
            options = msgspec.json.encode(self.options).decode()
            arguments = [str(self.root), self.part, str(self.workers), options]
            arguments += [self._host, str(self.port), str(self._port_file)]
            with self.output.open("ab") as output:
                self._process = subprocess.Popen(
                    [*self._within, sys.executable, __file__, *arguments],
                    stdin=self._leash[0],
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **self._environment},
                    start_new_session=True,
                )

    def tend(self) -> None:
        """Start it again if it has ended by itself, as a service manager does."""
        with self._guard:
            if self._wanted and self._process is not None and self._process.poll() is not None:
                self.launch()

    def _announced(self) -> bool:
        assert self._process is not None, "it has been started"
        assert self._process.poll() is None, f"the service ended:\n{self.output.read_text()}"
        return self._port_file.exists()

    def ready(self) -> bool:
        """Whether it can rank."""
        if self.part == "worker":
            return True  # it has no door to knock at
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.send("GET", "/readyz").status_code == 200
        return False

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.options.tls_cert is not None

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"{'https' if self.tls else 'http'}://{self._host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process that keeps the others running."""
        assert self._process is not None, "it has been started"
        return self._process.pid

    def children(self) -> dict[str, int]:
        """Its processes: the worker and each HTTP process, with their ids."""
        found = {}
        for process in psutil.Process(self.pid).children():
            role, number = _role(process)
            if role:
                found[f"{role}{number}"] = process.pid
        return found

    @property
    def home(self) -> Home:
        """The same installation, as another process sees it."""
        if self._home is None:
            self._home = Home(self.root)
        return self._home

    def stop(self) -> int:
        """Stop it as Ctrl-C or a service manager would. Returns how its first process ended."""
        with self._guard:
            assert self._process is not None, "it has been started"
            self._wanted = False
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill all of its processes at once, as a power failure would."""
        with self._guard:
            self._wanted = False
            if self._process is None:
                return
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
            eventually(lambda: not self.processes(), "all of them end")

    def pause(self) -> None:
        """Let all of its processes stand still, without telling anybody."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """Let them go on."""
        for process in self.processes():
            process.resume()

    def processes(self) -> list[psutil.Process]:
        """Every process of the session that this service was started in, the first one first."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != self.pid)

    def let_go(self) -> None:
        """Close what this process has open of the data folder."""
        if self._home is not None:
            self._home.close()
            self._home = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.let_go()
        if self._process is not None:
            try:
                if self._process.poll() is None:
                    self.stop()
            finally:
                self.kill()
                self._process = None
        if self._leash is not None:
            for descriptor in self._leash:
                os.close(descriptor)
            self._leash = None
        if self._port_holder is not None:
            self._port_holder.close()
            self._port_holder = None

    # Loops and keys

    def key(self, loop: str, slot: int = 1) -> str:
        """One of the keys that the service made for a loop."""
        loops: Json = self.home.loops.keys()["loops"]
        found: str = loops[loop][f"key{slot}"]
        return found

    def client(self, loop: str, *, version: str = "v1.0") -> LoopClient:
        """Talk to a loop."""
        return LoopClient(self, loop, self.key(loop), version)

    def new_loop(self, settings: LoopSettings | None = None) -> LoopClient:
        """Make a loop that no other test uses, and wait until it is served."""
        name = f"test-{next(self._numbers)}"
        self.home.loops.create(name, settings or LoopSettings())
        client = self.client(name)
        eventually(lambda: client.get("/configurations/service").status_code == 200, f"{name} is served")
        return client

    @contextlib.contextmanager
    def passing_loops(self) -> Iterator[None]:
        """Delete the loops that are made inside: each that has something to learn keeps a process busy."""
        before = {loop.name for loop in self.home.catalog.loops()}
        try:
            yield
        finally:
            for loop in self.home.catalog.loops():
                if loop.name not in before:
                    self.home.loops.delete(loop.name)

    # What it has on disk

    def loop(self, name: str) -> Loop:
        """A loop as the catalog has it now."""
        return self.home.catalog.loop(name)

    def wait_until_learned(self, name: str, events: int) -> None:
        """Wait until the model that serves has learned so many events: if those are all, it goes on serving."""

        def is_learned() -> bool:
            loop = self.loop(name)
            version = find_version(self.home.catalog.versions(loop.loop_id), loop.model_id)
            return version is not None and version.learned == events

        eventually(is_learned, f"a model of {name} serves that has learned {events} events")

    def entries(self, name: str) -> list[LogEntry]:
        """Read a loop's event log, ticks left out."""

        async def read() -> Sequence[LogEntry]:
            log = self.home.event_log(self.loop(name).loop_id)
            try:
                return await log.read(0, limit=100_000)
            finally:
                await log.close()

        return [entry for entry in asyncio.run(read()) if type(entry.record).__name__ != "Tick"]

    def records(self, name: str) -> list[Any]:
        """Read a loop's event log: the records alone."""
        return [entry.record for entry in self.entries(name)]

    def joined(self, name: str) -> list[JoinedEvent]:
        """Read a loop's joined log."""

        async def read() -> list[JoinedEvent]:
            loop_id = self.loop(name).loop_id
            log, joined = self.home.event_log(loop_id), self.home.joined_log(loop_id)
            try:
                return (await read_joined(log, joined, 0, limit=100_000))[0]
            finally:
                await log.close()
                await joined.close()

        return asyncio.run(read())

    def pass_time(self, name: str, by: timedelta = timedelta(hours=1)) -> None:
        """Let time pass in a loop's log, so that the reward wait of all that it has is over.

        However busy the machine is, a reward that was sent before is in time then, if the wait was long enough. The log
        stays ahead of the clock: what comes later waits until this is called again.
        """
        last_us = max((entry.time_us for entry in self.entries(name)), default=0)
        ahead_us = max(last_us, now_us()) + by // timedelta(microseconds=1)

        async def append() -> None:
            log = home.event_log(self.loop(name).loop_id)
            try:
                await log.append([Tick()])
            finally:
                await log.close()

        with contextlib.closing(Home(self.root, clock=lambda: ahead_us)) as home:
            asyncio.run(append())

    # Requests

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> httpx.Response:
        """Send a request exactly as it is given: nothing is encoded, joined or followed.

        Args:
            method: of the request.
            target: path and query, percent-encoded.
            headers: beside those that HTTP asks for.
            body: bytes, or pieces that are sent as chunks.
        """
        connection = self.connect()
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, target, body=body, headers=dict(headers or {}), encode_chunked=chunked)
            answer = connection.getresponse()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection; the caller closes it."""
        if not self.tls:
            return http.client.HTTPConnection(self._host, self.port, timeout=PATIENCE_S)
        context = ssl.create_default_context(cafile=self.options.tls_cert)
        return http.client.HTTPSConnection(self._host, self.port, timeout=PATIENCE_S, context=context)


class LoopClient:
    """Calls of the contract for one loop, by key."""

    def __init__(self, service: RunningService, loop: str, key: str, version: str) -> None:
        self.service = service
        self.loop = loop
        self.key = key
        self.version = version

    def at(self, version: str) -> LoopClient:
        """The same loop through another version of the API."""
        return LoopClient(self.service, self.loop, self.key, version)

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> httpx.Response:
        """Call an operation with a body as it is."""
        sent = {KEY_HEADER: self.key, "Content-Type": "application/json; charset=UTF-8", **headers}
        return self.service.send(method, self._target(path), headers=sent, body=body)

    def _target(self, path: str) -> str:
        if self.version == V2022:
            return f"/personalizer{path}{'&' if '?' in path else '?'}api-version={V2022}"
        return f"/personalizer/{self.version}{path}"

    def get(self, path: str) -> httpx.Response:
        """GET."""
        return self.call("GET", path)

    def put(self, path: str, body: Json) -> httpx.Response:
        """PUT a JSON body."""
        return self.call("PUT", path, msgspec.json.encode(body))

    def delete(self, path: str) -> httpx.Response:
        """DELETE."""
        return self.call("DELETE", path)

    def upload(self, body: bytes | Iterable[bytes]) -> httpx.Response:
        """PUT a model: bytes, or pieces that are sent as chunks."""
        target = self._target("/model")
        headers = {KEY_HEADER: self.key, "Content-Type": "application/octet-stream"}
        return self.service.send("PUT", target, headers=headers, body=body)

    def rank(self, body: Json) -> httpx.Response:
        """Rank."""
        return self.call("POST", "/rank", msgspec.json.encode(body))

    def reward(self, event_id: str, value: float) -> httpx.Response:
        """Reward."""
        return self.call("POST", f"/events/{quoted(event_id)}/reward", msgspec.json.encode({"value": value}))

    def activate(self, event_id: str) -> httpx.Response:
        """Activate."""
        return self.call("POST", f"/events/{quoted(event_id)}/activate")


def quoted(event_id: str) -> str:
    """Write an event id as the SDKs put it into a path: with nothing left unescaped."""
    return urllib.parse.quote(event_id, safe="")


def request(*action_ids: str, **members: Json) -> dict[str, Json]:
    """Make the body of Rank: these actions, and these members as they are."""
    actions = [{"id": action_id, "features": [{"dish": {"name": action_id}}]} for action_id in action_ids]
    return {"contextFeatures": [{"visitor": {"device": "phone"}}], "actions": actions, **members}


def _role(process: psutil.Process) -> tuple[str, str]:
    try:
        command = process.cmdline()
    except psutil.Error:
        return "", ""
    if "rankward.roles" not in command:
        return "", ""
    role = command[command.index("rankward.roles") + 1]
    return role, command[-2] if role == "api" else ""


def _main(root: str, part: str, workers: str, options: str, host: str, port: str, port_file: str) -> None:
    def announce(_: Home, found: int = 0) -> None:
        aside = Path(port_file).with_suffix(".tmp")
        aside.write_text(str(found))
        aside.replace(port_file)

    def follow() -> None:
        """End when the tests do, however they ended."""
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    decoded = msgspec.json.decode(options, type=ApiOptions)
    if part == "worker":
        work(Path(root), announce=announce)
        return
    serve(
        Path(root),
        host=host,
        port=int(port),
        workers=int(workers),
        options=decoded,
        announce=announce,
        works=part == "serve",
    )


if __name__ == "__main__":
    _main(*sys.argv[1:])
