"""The catalog of a cluster whose servers die one after the other."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.cluster.servers import running_servers, wait_until_healthy
from rankward.errors import WorldError
from rankward.store.audit import AuditEntry, AuditFilter, Door
from rankward.store.nats.broker import BrokerOptions
from rankward.wiring import Home

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fault

NODES = 3
MORE = 20  # entries that each node writes before the next server dies


class Writer(threading.Thread):
    """Writes to the audit trail on one node, for as long as it is let."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self.kept: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Write what nobody else writes, and note what was said to be kept."""
        while not self.over.is_set():
            what = secrets.token_hex(8)
            with contextlib.suppress(WorldError):
                self.home.audit.append(AuditEntry(time_us=1, loop=None, what=what, who="test", door=Door.AUTOMATIC))
                self.kept.append(what)

    def wait_for_more(self) -> None:
        """Wait until some more was kept."""
        wanted = len(self.kept) + MORE
        while len(self.kept) < wanted:
            assert self.is_alive()
            self.over.wait(0.05)


def test_what_was_said_to_be_kept_is_on_every_node(tmp_path: Path) -> None:
    """Whichever server dies, a majority has it; and all nodes have it in one order, once."""
    (tmp_path / "servers").mkdir()
    with contextlib.ExitStack() as opened:
        servers = opened.enter_context(running_servers(tmp_path / "servers", NODES))
        options = BrokerOptions(servers=tuple(server.url for server in servers), replicas=NODES)
        homes = []
        for number in range(NODES):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "node.json").write_bytes(msgspec.json.encode(options))
            homes.append(opened.enter_context(contextlib.closing(Home(folder))))
        writers = [Writer(home) for home in homes]
        for writer in writers:
            writer.start()
        for server in itertools.chain(servers, servers[:1]):
            for writer in writers:
                writer.wait_for_more()
            server.kill()
            for writer in writers:
                writer.wait_for_more()  # the others go on without it
            server.start()
            wait_until_healthy(servers)
        for writer in writers:
            writer.over.set()
            writer.join()
        homes[0].loops.furnish({})  # so that the newest is known, and then everywhere
        [newest] = homes[0].audit.entries(AuditFilter(), limit=1)
        trails = []
        for home in homes:
            assert home.node is not None
            while home.audit.entries(AuditFilter(), limit=1) != [newest]:
                home.node.refresh()
            trails.append(home.audit.entries(AuditFilter(), limit=1_000_000))
    assert trails[0] == trails[1] == trails[2]
    written = [entry.what for entry in trails[0] if entry.who == "test"]
    assert len(written) == len(set(written))
    assert {what for writer in writers for what in writer.kept} <= set(written)
