"""What this installation is: version, licence, processes and room."""

from __future__ import annotations

import asyncio
import platform
import shutil
from importlib import metadata

from starlette.responses import Response

from rankward.doctor.facts import ALIVE_US
from rankward.errors import StoreUnavailable
from rankward.portal.view import View, Visit
from rankward.telemetry import read_statuses

_PARTS = ("vowpalwabbit", "numpy", "starlette", "uvicorn", "msgspec")


async def _show(visit: Visit) -> Response:
    home = visit.doors.home
    seen = [
        status.time_us
        for loop in home.catalog.loops()
        if (status := read_statuses(home.board.read(loop.loop_id))[0]) is not None
    ]
    try:
        members = await asyncio.to_thread(home.members)
    except StoreUnavailable:
        members = None
    usage = shutil.disk_usage(home.folder.root)
    return visit.page(
        "about",
        python=platform.python_version(),
        parts=[(name, metadata.version(name)) for name in _PARTS],
        worker_seen_us=max(seen, default=None),
        worker_lives=bool(seen) and home.clock() - max(seen) < ALIVE_US,
        ready=visit.doors.ready,
        standing=home.standing(),
        members=members,
        loops=len(home.catalog.loops()),
        disk_free_bytes=usage.free,
        disk_total_bytes=usage.total,
        data=str(home.folder.root) if visit.session.admin else None,
    )


VIEWS = (View(path="/about", handle=_show),)
