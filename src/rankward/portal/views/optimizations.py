"""Automatic optimization of a loop: when it is due, what each run found, and what came of it."""

from __future__ import annotations

from starlette.responses import Response

from rankward.errors import CallerError, Conflict
from rankward.optimization.view import NewOptimization
from rankward.portal.view import View, Visit
from rankward.store.sessions import Role


async def _show(visit: Visit) -> Response:
    history = await visit.administration.optimizations.history(visit.loop_name)
    return visit.page("optimizations", history=history)


async def _begin(visit: Visit) -> Response:
    path = f"/portal/loops/{visit.loop_name}/optimizations"
    try:
        await visit.administration.optimizations.begin(
            visit.loop_name, NewOptimization(dry_run="dry-run" in visit.form)
        )
    except (CallerError, Conflict) as error:
        return visit.redirect(path, notice=f"It was not begun: {error}.")
    return visit.redirect(path, notice="The search has begun.")


async def _switch(visit: Visit) -> Response:
    wanted = "true" if "on" in visit.form else "false"
    await visit.administration.tuning.change_settings(visit.loop_name, {"is_auto_optimization_enabled": wanted})
    await visit.doors.follow()
    said = "is switched on" if wanted == "true" else "is switched off"
    return visit.redirect(f"/portal/loops/{visit.loop_name}/optimizations", notice=f"Automatic optimization {said}.")


VIEWS = (
    View(path="/loops/{loop}/optimizations", handle=_show),
    View(path="/loops/{loop}/optimizations", handle=_begin, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/optimizations/switch", handle=_switch, method="POST", needs=Role.OPERATOR),
)
