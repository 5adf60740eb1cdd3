"""Every backend in turn, on storage of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.store.cluster_home import ClusterHome
from tests.store.homes import Home, Run, SqliteHome

from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.replica import Replica
from rankward.store.nats.transactions import Transactions
from rankward.store.sqlite.catalog import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOMES = {"sqlite": SqliteHome}


@pytest.fixture
def run() -> Iterator[Run]:
    """An event loop to run coroutines on."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path: Path, run: Run) -> Iterator[Home]:
    """A home of each kind, for the promises that all of them make."""
    made: Home = HOMES[request.param](tmp_path)
    yield made
    made.close(run)


@pytest.fixture(params=["sqlite", pytest.param("nats", marks=pytest.mark.slow)])
def replicated_home(request: pytest.FixtureRequest, tmp_path: Path, run: Run) -> Iterator[Home]:
    """A home of each kind, for what is kept in the catalog's database, which a node has a replica of."""
    with contextlib.ExitStack() as opened:
        if request.param == "nats":
            servers = (request.getfixturevalue("nats_server").url,)
            broker = Broker(BrokerOptions(servers=servers, prefix=f"test-{secrets.token_hex(16)}"))
            opened.callback(broker.close)
            made = SqliteHome(
                tmp_path,
                open_database=partial(Replica, transactions=Transactions(broker, "catalog"), newest_format=FORMAT),
            )
        else:
            made = SqliteHome(tmp_path)
        opened.callback(made.close, run)
        yield made


@pytest.fixture(params=["sqlite", pytest.param("cluster", marks=pytest.mark.slow)])
def log_home(request: pytest.FixtureRequest, tmp_path: Path, run: Run) -> Iterator[Home]:
    """A home of each kind, for the logs of a loop, which a node has replicas of."""
    with contextlib.ExitStack() as opened:
        made: SqliteHome
        if request.param == "cluster":
            servers = (request.getfixturevalue("nats_server").url,)
            broker = Broker(BrokerOptions(servers=servers, prefix=f"test-{secrets.token_hex(16)}"))
            opened.callback(broker.close)
            made = ClusterHome(tmp_path, broker)
        else:
            made = SqliteHome(tmp_path)
        opened.callback(made.close, run)
        yield made


@pytest.fixture
def sqlite_home(tmp_path: Path, run: Run) -> Iterator[SqliteHome]:
    """The embedded home, for what only files can suffer."""
    made = SqliteHome(tmp_path)
    yield made
    made.close(run)
