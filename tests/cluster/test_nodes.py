"""What makes a folder a node's, and what every command then does with it."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.service import PATIENCE_S, eventually
from typer.testing import CliRunner

from rankward.cli import app
from rankward.cli.nodes import Servers, make_node
from rankward.cluster.servers import free_ports, make_servers
from rankward.settings import LoopSettings
from rankward.store.nats.broker import BrokerOptions, write_options
from rankward.wiring import Home

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from rankward.cluster.servers import Server


def run(*arguments: str | Path) -> Result:
    """Run a command of `rankward`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"RANKWARD_NATS": ""})


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_node_has_to_know_its_servers(command: str, tmp_path: Path) -> None:
    """Nobody guesses where events are to go."""
    refused = run(command, "--data", tmp_path / "data")
    assert refused.exit_code == 1
    assert "--nats nats://HOST:4222" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_an_embedded_installation_is_not_turned_into_a_node(tmp_path: Path) -> None:
    """Its loops would be hidden behind those of the cluster."""
    home = Home(tmp_path)
    home.loops.create("mine", LoopSettings())
    home.close()
    refused = run("worker", "--data", tmp_path, "--nats", "nats://127.0.0.1:1")
    assert refused.exit_code == 1
    assert "rankward copy" in refused.stderr
    assert not (tmp_path / "node.json").exists()


def test_a_server_that_does_not_answer_leaves_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped address is said before anything is written down."""
    monkeypatch.setattr("rankward.store.nats.broker._CONNECT_S", 0.2)
    [port] = free_ports(1)
    servers = f"nats://user:secret@127.0.0.1:{port}"
    refused = run("worker", "--data", tmp_path / "data", "--nats", servers, "--nats-wait", "0")
    assert refused.exit_code == 1
    assert f"127.0.0.1:{port}" in refused.stderr
    assert "secret" not in refused.stderr
    assert not (tmp_path / "data").exists()


def test_what_a_node_needs_may_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and the message names it."""
    for name in [name for name in sys.modules if name.startswith(("nats", "rankward.store.nats"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    refused = run("worker", "--data", tmp_path / "data", "--nats", "nats://127.0.0.1:1")
    assert "pip install 'rankward[nats]'" in refused.stderr


@pytest.mark.slow
def test_a_node_waits_for_servers_that_start_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a power failure all machines start at once; what is waited for stands in the log."""
    monkeypatch.setattr("rankward.store.nats.broker._CONNECT_S", 2.0)
    [server] = make_servers(tmp_path, 1)
    write_options(tmp_path / "node.json", BrokerOptions(servers=(server.url,), node="one"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(make_node, tmp_path, None, Servers(), patience_s=PATIENCE_S)
        try:
            eventually(lambda: "They are waited for" in caplog.text, "it is said")
            assert f"no server answers at 127.0.0.1:{server.port}" in caplog.text
            assert not waiting.done()
            server.start()
            waiting.result(PATIENCE_S)
        finally:
            server.kill()


@pytest.mark.slow
def test_a_folder_becomes_a_node_and_commands_work_on_it(tmp_path: Path, nats_server: Server) -> None:
    """What it was told is kept, for its owner only; other commands need --data and nothing else."""

    def make() -> BrokerOptions:
        make_node(tmp_path, f"{nats_server.url}, ", Servers(prefix="nodes-test"), patience_s=PATIENCE_S)
        return msgspec.json.decode((tmp_path / "node.json").read_bytes(), type=BrokerOptions)

    made = make()
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600
    assert (made.servers, made.prefix, made.replicas) == ((nats_server.url,), "nodes-test", 1)
    assert re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{8}", made.node), "hosts that share a name are many: their nodes must not"
    assert make() == made, "it keeps its name"

    Home(tmp_path).close()  # as whatever is started first does
    assert run("loop", "create", "news", "--data", tmp_path).exit_code == 0
    assert [loop["name"] for loop in json.loads(run("loop", "list", "--json", "--data", tmp_path).stdout)] == ["news"]
    assert "news" in run("doctor", "--data", tmp_path).stdout
