"""The policy that acts beside others, at all times: baseline, chance, challengers, and what exploring costs."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from rankward.administration.tuning import PolicyChoice
from rankward.errors import CallerError
from rankward.portal.view import View, Visit
from rankward.store.challengers import CHALLENGERS_MAX
from rankward.store.sessions import Role
from rankward.vw.presets import PRESETS


async def _show(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, *, refused: CallerError | None = None) -> Response:
    loop, figures = visit.loop, visit.doors.home.figures()
    return visit.page(
        "comparison",
        status=200 if refused is None else 400,
        compared=await asyncio.to_thread(figures.comparison, loop),
        exploration=await asyncio.to_thread(figures.exploration, loop),
        explores=loop.settings.exploration,
        challengers=await visit.administration.challengers.listed(loop.name),
        challengers_max=CHALLENGERS_MAX,
        presets=PRESETS.values(),
        given={each: visit.form.get(each, "") for each in ("name", "arguments")},
        settings=loop.settings,
        error=None if refused is None else refused.message,
    )


async def _add(visit: Visit) -> Response:
    text = visit.form.get("arguments", "").strip()
    choice = PolicyChoice(preset=text) if text in PRESETS else PolicyChoice(arguments=text)
    name = visit.form.get("name", "").strip()
    try:
        await visit.administration.challengers.add(visit.loop_name, name, choice)
    except CallerError as error:
        return await _page(visit, refused=error)
    return visit.redirect(_path(visit), notice=f"{name} learns beside the policy that acts, and serves nobody.")


async def _remove(visit: Visit) -> Response:
    name = str(visit.request.path_params["challenger"])
    await visit.administration.challengers.remove(visit.loop_name, name)
    return visit.redirect(_path(visit), notice=f"The challenger {name} is removed.")


async def _promote(visit: Visit) -> Response:
    name = str(visit.request.path_params["challenger"])
    await visit.administration.challengers.promote(visit.loop_name, name)
    await visit.doors.follow()
    notice = f"{name} is the loop's policy now, with what it had learned. The model before is kept, to roll back to."
    return visit.redirect(f"/portal/loops/{visit.loop_name}/policy", notice=notice)


def _path(visit: Visit) -> str:
    return f"/portal/loops/{visit.loop_name}/comparison"


VIEWS = (
    View(path="/loops/{loop}/comparison", handle=_show),
    View(path="/loops/{loop}/comparison", handle=_add, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/challengers/{challenger}/remove", handle=_remove, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/challengers/{challenger}/promote", handle=_promote, method="POST", needs=Role.OPERATOR),
)
