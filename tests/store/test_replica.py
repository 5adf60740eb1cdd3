"""Databases of which every machine has a replica: none loses a change, and all end the same."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.service import PATIENCE_S
from tests.store.test_catalog import a_loop, an_epoch

from rankward.backup import back_up, restore
from rankward.cluster.servers import running_servers
from rankward.errors import Conflict, StoreUnavailable
from rankward.loops import digest
from rankward.store.audit import AuditEntry, AuditFilter, Door
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.replica import Replica
from rankward.store.nats.transactions import START, Place, Statement, Transactions
from rankward.store.sessions import Session
from rankward.store.sqlite.audit import SqliteAudit
from rankward.store.sqlite.catalog import FORMAT, SqliteCatalog
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow

EVERYTHING = AuditFilter()


def make_node(folder: Path, options: BrokerOptions) -> Path:
    """Make a folder that is a node's."""
    folder.mkdir()
    (folder / "node.json").write_bytes(msgspec.json.encode(options))
    return folder


@pytest.fixture
def options(nats_server: Server) -> BrokerOptions:
    """An installation of its own on the servers."""
    return BrokerOptions(servers=(nats_server.url,), prefix=f"test-{secrets.token_hex(16)}")


@pytest.fixture
def nodes(options: BrokerOptions, tmp_path: Path) -> Iterator[list[Home]]:
    """Two nodes of a cluster."""
    with contextlib.ExitStack() as opened:
        yield [
            opened.enter_context(contextlib.closing(Home(make_node(tmp_path / name, options)))) for name in ("a", "b")
        ]


def refresh(home: Home) -> None:
    """Let a node catch up."""
    assert home.node is not None
    home.node.refresh()


def stop(server: Server, home: Home) -> None:
    """Kill a server, and wait until a node has noticed."""
    assert home.broker is not None
    server.kill()
    while home.broker.client.is_connected:
        time.sleep(0.01)


def an_entry(what: str) -> AuditEntry:
    """Make an entry of the audit trail."""
    return AuditEntry(time_us=1, loop=None, what=what, who="test", door=Door.AUTOMATIC)


def test_what_one_node_changes_the_others_have(nodes: list[Home]) -> None:
    """The catalog is one, wherever it is asked."""
    one, other = nodes
    one.loops.furnish({})
    refresh(other)
    assert other.catalog.loops() == one.catalog.loops()
    assert other.catalog.keys() == one.catalog.keys()
    assert other.audit.entries(EVERYTHING, limit=100) == one.audit.entries(EVERYTHING, limit=100)
    other.catalog.delete_loop("playground")
    refresh(one)
    assert [loop.name for loop in one.catalog.loops()] == ["default"]


def test_changes_that_are_made_at_once_are_all_kept_and_in_one_order(nodes: list[Home]) -> None:
    """Whoever is overtaken makes its change anew."""

    def append(home: Home, name: str) -> None:
        for number in range(30):
            home.audit.append(an_entry(f"{name} {number}"))

    with contextlib.closing(Home(nodes[0].folder.root)) as another_process:
        homes = [*nodes, another_process, nodes[1]]
        threads = [threading.Thread(target=append, args=(home, str(number))) for number, home in enumerate(homes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for home in nodes:
        refresh(home)
    one, other = (home.audit.entries(EVERYTHING, limit=1_000) for home in nodes)
    assert one == other
    assert {entry.what for entry in one} == {f"{name} {number}" for name in range(4) for number in range(30)}
    assert sorted(entry.number for entry in one) == list(range(1, 121)), "numbers are the same everywhere"


def test_a_change_is_refused_on_what_is_true_now(nodes: list[Home]) -> None:
    """A node that is a moment behind takes no name twice, and refuses none that is free by now."""
    one, other = nodes
    loop = a_loop()
    one.catalog.create_loop(loop, [], an_epoch(loop))
    with pytest.raises(Conflict, match="already"):
        other.catalog.create_loop(a_loop(loop_id="2" * 32), [], an_epoch(loop))
    other.catalog.delete_loop(loop.name)
    again = a_loop(loop_id="3" * 32)
    one.catalog.create_loop(again, [], an_epoch(again))  # which it still had
    refresh(other)
    assert [loop.loop_id for loop in other.catalog.loops()] == ["3" * 32]


def test_a_node_follows_and_gives_the_hint(nodes: list[Home]) -> None:
    """The other processes of a machine look again when one of them has applied something."""
    one, other = nodes

    async def see() -> None:
        one.signing.keyring()
        hint = other.catalog.change_hint()
        following = asyncio.create_task(other.follow())
        await asyncio.to_thread(one.loops.furnish, {})
        while not other.catalog.loops() or other.catalog.change_hint() == hint:  # as others do
            await asyncio.sleep(0.01)
        while not other.folder.signing.exists():  # for whoever makes a backup of this node
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(see(), PATIENCE_S))


def test_two_first_starts_at_once_make_one_installation(options: BrokerOptions, tmp_path: Path) -> None:
    """All machines of a new cluster are started together. What the key file of one says is true."""
    homes: list[Home] = []

    def start(name: str) -> None:
        home = Home(make_node(tmp_path / name, options))
        homes.append(home)
        home.loops.furnish({})

    threads = [threading.Thread(target=start, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(homes) == 3
    told = []
    refresh(homes[0])
    keys = homes[0].catalog.keys()
    assert len(keys) == 5
    for home in homes:
        refresh(home)
        assert [loop.name for loop in home.catalog.loops()] == ["default", "playground"]
        assert home.catalog.keys() == keys
        told += re.findall(
            r'^key\d? = "(.*)"', (home.folder.root / "keys.toml").read_text() if home.loops.keys() else "", re.MULTILINE
        )
        home.close()
    assert sorted(digest(key) for key in told) == sorted(key.digest for key in keys), "each is told once, and opens"


_DIES = """
import os, sys
from pathlib import Path
from rankward.store.nats.broker import Broker, read_options
from rankward.store.nats.replica import Replica
from rankward.store.nats.transactions import Transactions
from rankward.store.sqlite.audit import SqliteAudit
from rankward.store.sqlite.catalog import FORMAT
from rankward.store.audit import AuditEntry, Door

class Deadly(Transactions):
    def append(self, *args, **more):
        super().append(*args, **more)
        os._exit(9)

folder = Path(sys.argv[1])
stream = Deadly(Broker(read_options(folder / "node.json")), "catalog")
audit = SqliteAudit(folder / "catalog.sqlite", open_database=lambda path: Replica(path, stream, newest_format=FORMAT))
audit.append(AuditEntry(time_us=1, loop=None, what="last words", who="test", door=Door.AUTOMATIC))
"""


def test_what_was_published_before_a_process_died_is_kept(nodes: list[Home]) -> None:
    """It may have been told to others already."""
    one, other = nodes
    command = [sys.executable, "-c", textwrap.dedent(_DIES), str(one.folder.root)]
    assert subprocess.run(command, check=False).returncode == 9
    for home in nodes:
        home.audit.append(an_entry("life goes on"))
        refresh(home)
    refresh(one)
    assert one.audit.entries(EVERYTHING, limit=9) == other.audit.entries(EVERYTHING, limit=9)
    assert [entry.what for entry in one.audit.entries(EVERYTHING, limit=9)][-1] == "last words"


def test_without_servers_nothing_is_changed_and_reading_goes_on(tmp_path: Path) -> None:
    """A cluster whose servers are away still ranks."""
    (tmp_path / "servers").mkdir()
    with running_servers(tmp_path / "servers", 1) as [server]:
        options = BrokerOptions(servers=(server.url,))
        with contextlib.closing(Home(make_node(tmp_path / "a", options))) as home:
            home.loops.furnish({})
            stop(server, home)
            with pytest.raises(StoreUnavailable):
                home.audit.append(an_entry("lost"))
            assert [loop.name for loop in home.catalog.loops()] == ["default", "playground"]
            server.start()
            while True:
                with contextlib.suppress(StoreUnavailable):
                    home.audit.append(an_entry("found"))
                    break
            assert [entry.what for entry in home.audit.entries(EVERYTHING, limit=1)] == ["found"]
            assert "lost" not in {entry.what for entry in home.audit.entries(EVERYTHING, limit=99)}


def test_a_folder_is_of_one_installation(options: BrokerOptions, tmp_path: Path) -> None:
    """A replica that went on with another stream would be of neither."""
    node = make_node(tmp_path / "a", options)
    Home(node).close()
    (node / "node.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(options, prefix=options.prefix + "x")))
    with pytest.raises(StoreUnavailable, match="replica of something else"):
        Home(node)
    embedded = tmp_path / "embedded"
    Home(embedded).close()
    (embedded / "node.json").write_bytes(msgspec.json.encode(options))
    with pytest.raises(StoreUnavailable, match="embedded installation"):
        Home(embedded)


def test_a_node_tells_no_key_that_another_has_replaced(nodes: list[Home]) -> None:
    """Whoever reads it in a file wants to be let in with it."""
    one, other = nodes
    one.loops.furnish({})
    kept = one.loops.keys()["loops"]["default"]
    other.loops.set_key("default", 1)
    refresh(one)
    assert one.loops.keys()["loops"]["default"] == {"key2": kept["key2"]}
    assert one.loops.keys()["admin"], "which was not replaced"


def test_a_replica_refuses_to_go_on_with_another_history(options: BrokerOptions, tmp_path: Path) -> None:
    """Servers that have lost the newest of what they acknowledged go on without it: no replica may mix the two."""
    with contextlib.closing(Broker(options)) as broker:
        stream = Transactions(broker, "catalog")
        first = stream.append([Statement("CREATE TABLE t (x)", [[]])], after=START)
        lost = Place(first.sequence + 1, b"lost")
        stream.append([Statement("INSERT INTO t VALUES (1)", [[]])], after=first)
        stream.append([Statement("INSERT INTO t VALUES (2)", [[]])], after=lost)
        replica = Replica(tmp_path / "t.sqlite", stream, must_exist=False)
        with contextlib.closing(replica), pytest.raises(StoreUnavailable, match="something else"):
            replica.refresh()


def test_a_node_of_an_older_version_reads_what_a_newer_one_has_extended(nodes: list[Home]) -> None:
    """Nodes are replaced one by one: until its turn comes, each ranks, and writes nothing that it half knows."""
    old, new = nodes
    old.loops.furnish({})
    assert new.node is not None
    with contextlib.closing(new.node.catalog(new.folder.catalog)) as catalog:
        catalog.change(lambda connection: connection.execute(f"PRAGMA user_version = {FORMAT + 1}"))
    refresh(old)
    with pytest.raises(StoreUnavailable, match="until this node is of the newer version"):
        old.catalog.delete_loop("playground")
    assert len(old.catalog.loops()) == 2


def test_a_backup_of_a_node_is_an_embedded_installation(
    nodes: list[Home], options: BrokerOptions, tmp_path: Path
) -> None:
    """It would go its own way, and must not be taken for a replica that is only behind."""
    one, _ = nodes
    one.loops.furnish({})
    back_up(one.folder.root, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    with contextlib.closing(Home(tmp_path / "restored")) as restored:
        assert restored.catalog.loops() == one.catalog.loops()
        restored.catalog.delete_loop("playground")
    (tmp_path / "restored" / "node.json").write_bytes(msgspec.json.encode(options))
    with pytest.raises(StoreUnavailable, match="embedded installation"):
        Home(tmp_path / "restored")


def test_whoever_signs_in_on_one_node_is_known_on_all(nodes: list[Home]) -> None:
    """A load balancer sends the next request elsewhere."""
    one, other = (home.sessions() for home in nodes)
    session = Session(digest=b"1" * 32, who="somebody", loops={}, created_us=1, seen_us=1)
    one.begin(session)
    assert other.find(session.digest) == session
    other.end(session.digest)
    one.close()
    other.close()


def test_a_stream_is_shortened_and_every_node_goes_on(
    nodes: list[Home], options: BrokerOptions, tmp_path: Path
) -> None:
    """A new machine, and one that was away for long, start from a copy; one that is a little behind does without."""
    one, other = nodes
    assert one.node is not None
    with contextlib.closing(one.node.catalog(one.folder.catalog)) as replica:
        for number in range(45):
            one.audit.append(an_entry(str(number)))
            replica.compact(every=10)
    with contextlib.closing(Broker(options)) as broker:
        state = broker.call(lambda: broker.js.stream_info(broker.stream("catalog"))).state
        assert state.last_seq == 46
        assert 10 <= state.messages < 20
        assert len(Transactions(broker, "catalog").copies.places()) == 2
    with contextlib.closing(Home(make_node(tmp_path / "new", options))) as new:
        everything = one.audit.entries(EVERYTHING, limit=99)
        assert new.audit.entries(EVERYTHING, limit=99) == everything
        hint = other.catalog.change_hint()
        assert other.audit.entries(EVERYTHING, limit=99) == [], "it has been away"
        other.audit.append(an_entry("back"))
        assert other.catalog.change_hint() != hint
        refresh(new)
        assert other.audit.entries(EVERYTHING, limit=99) == new.audit.entries(EVERYTHING, limit=99)
        assert [entry.number for entry in new.audit.entries(EVERYTHING, limit=2)] == [46, 45]


def test_all_nodes_sign_with_one_key(nodes: list[Home]) -> None:
    """A model that one node gives out is admitted by the others, and the key is there without the servers, too."""
    one, other = nodes
    first = one.signing.keyring().certificate
    assert other.signing.keyring().certificate == first
    second = other.signing.replace().certificate
    assert one.signing.keyring().certificate == second != first
    assert one.folder.signing.read_bytes() == other.folder.signing.read_bytes()
    assert one.folder.signing.stat().st_mode & 0o777 == 0o600
    assert one.node is not None
    assert not one.node.vault.write(b"mine", over=b"what was never there")


def test_a_node_that_has_the_key_signs_without_servers(tmp_path: Path) -> None:
    """Models are given out while the servers are away."""
    (tmp_path / "servers").mkdir()
    with running_servers(tmp_path / "servers", 1) as [server]:
        options = BrokerOptions(servers=(server.url,))
        with contextlib.closing(Home(make_node(tmp_path / "a", options))) as home:
            certificate = home.signing.keyring().certificate
            stop(server, home)
            assert home.signing.keyring().certificate == certificate
            with pytest.raises(StoreUnavailable):
                home.signing.replace()


def test_only_what_changed_something_travels(options: BrokerOptions, tmp_path: Path) -> None:
    """A transaction that wrote nothing costs nobody anything."""
    broker = Broker(options)
    stream = Transactions(broker, "catalog")
    catalog = SqliteCatalog(
        tmp_path / "catalog.sqlite", open_database=partial(Replica, transactions=stream, newest_format=FORMAT)
    )
    before = stream.last()
    catalog.forget_set_asides("1" * 32, [1, 2])
    catalog.lose_version("1" * 32, "2" * 32)
    assert stream.last() == before == 1, "which made the tables"
    SqliteAudit(
        tmp_path / "catalog.sqlite", open_database=partial(Replica, transactions=stream, newest_format=FORMAT)
    ).append(an_entry("x"))
    assert stream.last() == 2
    catalog.close()
    broker.close()


def test_an_embedded_installation_needs_none_of_it(tmp_path: Path) -> None:
    """The client of the servers is an extra that it does without."""
    program = "import sys; from pathlib import Path; from rankward.wiring import Home; Home(Path(sys.argv[1])).close()"
    program += "; assert not {'nats', 'rankward.store.nats'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], check=True)
