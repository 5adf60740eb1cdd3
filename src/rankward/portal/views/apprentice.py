"""How an apprentice does: its match with the baseline, the reward it achieves, and when to switch."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse, Response

from rankward.portal.lines import apprentice_chart
from rankward.portal.view import View, Visit
from rankward.records import LearningMode
from rankward.store.sessions import Role


async def _show(visit: Visit) -> Response:
    loop = visit.loop
    found = await asyncio.to_thread(visit.doors.home.figures().apprentice, loop)
    return visit.page("apprentice", mode=loop.settings.learning_mode, found=found)


async def _windows(visit: Visit) -> Response:
    found = await asyncio.to_thread(visit.doors.home.figures().apprentice, visit.loop)
    return JSONResponse(apprentice_chart(found))


async def _switch(visit: Visit) -> Response:
    """Let the model decide, or go back to learning from what the application does."""
    online = visit.loop.settings.learning_mode is not LearningMode.ONLINE
    wanted = LearningMode.ONLINE if online else LearningMode.APPRENTICE
    await visit.administration.tuning.change_settings(visit.loop_name, {"learning_mode": str(wanted)})
    await visit.doors.follow()
    said = "The model decides now." if online else "The baseline is shown now, and the model learns to match it."
    return visit.redirect(f"/portal/loops/{visit.loop_name}/apprentice", notice=said)


VIEWS = (
    View(path="/loops/{loop}/apprentice", handle=_show),
    View(path="/loops/{loop}/apprentice/windows", handle=_windows),
    View(path="/loops/{loop}/apprentice/switch", handle=_switch, method="POST", needs=Role.OPERATOR),
)
