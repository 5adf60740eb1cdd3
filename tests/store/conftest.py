"""Every backend in turn, on storage of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.store.homes import Home, Run, SqliteHome

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


@pytest.fixture
def sqlite_home(tmp_path: Path, run: Run) -> Iterator[SqliteHome]:
    """The embedded home, for what only files can suffer."""
    made = SqliteHome(tmp_path)
    yield made
    made.close(run)
