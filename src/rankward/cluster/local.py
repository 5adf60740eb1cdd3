"""A cluster on this machine, to try or measure: servers and nodes as processes, started again when they die."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

from rankward.cluster.servers import free_ports, make_servers, wait_until_healthy
from rankward.errors import StoreUnavailable
from rankward.store.nats.broker import BrokerOptions, write_options

NODES = {"api-1": "api", "api-2": "api", "worker-1": "worker", "worker-2": "worker"}
"""What each node does, by its name: the command that runs it."""
PAUSE_S = 5.0
"""So long a part that has died is left dead, for its loss to be seen."""
_PATIENCE_S = 300.0


class Part:
    """One process of the cluster: a server, or a node's first one."""

    def __init__(self, name: str, log: Path, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """Prepare it: nothing runs yet.

        Args:
            name: that people are told.
            log: where it writes what it has to say.
            start: starts it.
        """
        self.name = name
        self.log = log
        self.starts = 0
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._again_s: float | None = None  # when it is started again; None: it is not known to have died

    @property
    def pid(self) -> int | None:
        """Of its process. None: it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start it, on what it has kept."""
        self._process = self._start()
        self._again_s = None
        self.starts += 1

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.pid is not None:
            return "runs"
        return "does not run" if self._again_s is None else "died, and starts again"

    def tend(self, now_s: float) -> None:
        """Start it again, some time after it has died."""
        if self.pid is not None or not self.starts:
            return
        if self._again_s is None:
            self._again_s = now_s + PAUSE_S
        elif now_s >= self._again_s:
            self.start()

    def end(self) -> None:
        """Ask it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def reap(self) -> None:
        """Wait until it has ended, and see to it that it does."""
        if self._process is None:
            return
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LocalCluster:
    """Servers and nodes, each with a folder of its own."""

    def __init__(
        self, folder: Path, *, servers: int = 3, nodes: Mapping[str, str] = NODES, http_processes: int = 1
    ) -> None:
        """Prepare it: nothing runs yet.

        Args:
            folder: for all files; it may hold those of an earlier time, which then go on.
            servers: how many, each with a copy of everything: 1, 3 or 5.
            nodes: the command that runs each node, by its name: `api`, `worker`, or `serve` for both.
            http_processes: of each node that answers HTTP.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.absolute()
        self._replicas = servers
        self._servers = make_servers(self._folder, servers)
        self.admin_key = secrets.token_hex(16)
        self.urls = tuple(server.url for server in self._servers)
        answering = [name for name, command in nodes.items() if command != "worker"]
        ports = dict(zip(answering, free_ports(len(answering)), strict=True))
        self.endpoints = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.servers = [Part(server.name, self._log(server.name), server.start) for server in self._servers]
        self.nodes = []
        for name, command in nodes.items():
            more = ["--port", str(ports[name]), "--workers", str(http_processes)] if name in ports else []
            self.nodes.append(self._node(name, command, more))

    @property
    def parts(self) -> list[Part]:
        """All processes."""
        return [*self.servers, *self.nodes]

    def start(self) -> None:
        """Start everything, and wait until it can rank.

        Raises:
            StoreUnavailable: it takes too long.
        """
        for server in self.servers:
            server.start()
        wait_until_healthy(self._servers)
        first, *others = self.nodes  # the first one makes what all need
        for group in ([first], others):
            for node in group:
                node.start()
            self._wait([node for node in group if node.name in self.endpoints])

    def _wait(self, nodes: Sequence[Part]) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        for node in nodes:
            while not self.ready(node.name):
                if time.monotonic() > deadline_s:
                    raise StoreUnavailable(f"{node.name} does not become ready: see {node.log}")
                self.tend()
                time.sleep(0.1)

    def __enter__(self) -> LocalCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ready(self, name: str) -> bool:
        """Whether a node that answers HTTP can rank now."""
        with contextlib.suppress(OSError), urlopen(f"{self.endpoints[name]}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    def tend(self) -> None:
        """Start again what has died."""
        now_s = time.monotonic()
        for part in self.parts:
            part.tend(now_s)

    def stop(self) -> None:
        """Stop the nodes, then the servers, in order."""
        for group in (self.nodes, self.servers):
            for part in group:
                part.end()
            for part in group:
                part.reap()

    def folder(self, name: str) -> Path:
        """Return the folder of a node."""
        return self._folder / name

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _node(self, name: str, role: str, arguments: Sequence[str]) -> Part:
        options = BrokerOptions(servers=self.urls, replicas=self._replicas, node=name)
        self.folder(name).mkdir(mode=0o700, exist_ok=True)
        write_options(self.folder(name) / "node.json", options)
        # Whoever tries a cluster may have variables of another installation about.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RANKWARD_")}
        environment: Mapping[str, str] = {**kept, "RANKWARD_ADMIN_KEY": self.admin_key}
        command = [sys.executable, "-m", "rankward", role, "--data", str(self.folder(name)), *arguments]

        def start() -> subprocess.Popen[bytes]:
            with self._log(name).open("ab") as log:
                return subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    process_group=0,  # Ctrl-C in a terminal is for the command, which stops everything in order
                )

        return Part(name, self._log(name), start)
