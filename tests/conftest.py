"""What tests of several rooms share: a service that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with one HTTP process, shared by all tests: whoever changes settings makes a loop of their own."""
    running = RunningService(tmp_path_factory.mktemp("service"))
    try:
        yield running.start()
    finally:
        running.close()
