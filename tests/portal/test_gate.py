"""What keeps guesses out, asked of the gate itself: neither a browser nor a service is needed for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rankward.api.service import Doors
from rankward.errors import Overloaded, Unauthorized
from rankward.portal.gate import FAILURES_MAX, Entrance, Gate
from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits
from rankward.wiring import Home

if TYPE_CHECKING:
    from pathlib import Path


def test_guesses_that_come_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    """Whoever opens a hundred connections could otherwise try a hundred keys before the first one counts."""

    async def guess(home: Home) -> list[BaseException | None]:
        with closing(home.sessions()) as sessions:
            gate = Gate(Doors(home, limits=Limits(), bounds=FeatureBounds()), sessions, Entrance())
            request = Request({"type": "http", "client": ("192.0.2.7", 1), "headers": []})
            guesses = [gate.admit_with_key(f"guess-{each}", request, Response()) for each in range(4 * FAILURES_MAX)]
            return await asyncio.gather(*guesses, return_exceptions=True)

    with closing(Home(tmp_path)) as home, ThreadPoolExecutor(1) as thread:
        # In a thread of its own: this one may have an event loop that runs, the browser's.
        refused = thread.submit(asyncio.run, guess(home)).result()

    assert sum(isinstance(each, Unauthorized) for each in refused) == FAILURES_MAX
    assert sum(isinstance(each, Overloaded) for each in refused) == 3 * FAILURES_MAX
