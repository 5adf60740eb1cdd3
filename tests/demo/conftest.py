"""What tests of the demo share: a service with the newspaper in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.api.options import ApiOptions
from tests.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with the demo in it. Whoever needs it untouched starts over first."""
    running = RunningService(tmp_path_factory.mktemp("demo"), options=ApiOptions(demo=True))
    try:
        yield running.start()
    finally:
        running.close()
