"""What tests of several rooms share: a service that runs, and how Hypothesis tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from rankward.cluster.servers import running_servers
from tests.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankward.cluster.servers import Server

# Whether a test passes must not depend on how fast the machine is, or how busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with one HTTP process, shared by all tests: whoever changes settings makes a loop of their own."""
    running = RunningService(tmp_path_factory.mktemp("service"))
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One JetStream server, shared by all tests: each takes a prefix of its own."""
    with running_servers(tmp_path_factory.mktemp("nats"), 1) as [server]:
        yield server
