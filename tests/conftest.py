"""What tests of several rooms share: a service that runs, and how Hypothesis tries."""

from __future__ import annotations

import functools
import gc
import os
import secrets
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from typer.main import get_command

from rankward.cluster.servers import running_servers
from rankward.store.nats.broker import BrokerOptions, write_options
from tests.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

# Whether a test passes must not depend on how fast the machine is, or how busy. Nor may the check of a commit fail on
# an example that has nothing to do with it: the CI tries the same ones every time. Whoever works on the code looks for
# new ones in each run, and the database keeps those that failed.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("CI", settings.get_profile("any machine"), derandomize=True, database=None)
settings.load_profile("CI" if "CI" in os.environ else "any machine")


# The files that take longest, in this order. Each runs in one process: one begun last would keep the others waiting.
FIRST = (
    "tests/loop/test_grocery.py",
    "tests/cluster/test_circle.py",
    "tests/loop/test_learning.py",
    "tests/evaluation/test_promotion.py",
    "tests/portal/test_pages.py",
    "tests/faults/test_cluster.py",
    "tests/portal/test_policy.py",
    "tests/portal/test_evaluations.py",
    "tests/evaluation/test_evaluate.py",
    "tests/migration/test_migrate.py",
    "tests/portal/test_loops.py",
    "tests/portal/test_logs.py",
    "tests/test_examples.py",
    "tests/cluster/test_trying.py",
    "tests/loop/test_numbers.py",
    "tests/vw/test_trial.py",
    "tests/watching/test_comparison.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the longest files be the first."""
    places = {config.rootpath / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


def pytest_collection_finish() -> None:
    """Leave what is there by now, for the whole run, out of every later search for garbage: that is a tenth of all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _commands_made_once() -> Iterator[None]:
    """Have Typer make the commands once, as a process does that runs one of them, and not for each that a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(get_command))
        yield


@pytest.fixture(scope="session")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with one HTTP process, for the files of tests one after the other: see `service`."""
    running = RunningService(tmp_path_factory.mktemp("service"))
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(scope="module")
def service(resident: RunningService) -> Iterator[RunningService]:
    """A service with one HTTP process, shared by all tests: whoever changes settings makes a loop of their own.

    They are deleted at the end of the file: each that has something to learn keeps a process.
    """
    with resident.passing_loops():
        yield resident


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One JetStream server, shared by all tests: each takes a prefix of its own."""
    with running_servers(tmp_path_factory.mktemp("nats"), 1) as [server]:
        yield server


@pytest.fixture(params=["embedded", pytest.param("cluster", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data folder of each kind: an embedded installation's, and that of the only node of a cluster."""
    folder = tmp_path / "data"
    if request.param == "cluster":
        folder.mkdir()
        server = request.getfixturevalue("nats_server")
        options = BrokerOptions(servers=(server.url,), prefix=f"loop-{secrets.token_hex(16)}", node="only")
        write_options(folder / "node.json", options)
    return folder
