"""A loop's two keys: their first characters, and renewing one, which is then shown once."""

from __future__ import annotations

from starlette.responses import Response

from rankward.errors import NotFound
from rankward.portal.view import View, Visit
from rankward.store.sessions import Role


async def _show(visit: Visit) -> Response:
    return visit.page("keys", keys=await visit.administration.loops.keys(visit.loop_name), renewed=None)


async def _renew(visit: Visit) -> Response:
    slot = visit.request.path_params["slot"]
    if slot not in {"1", "2"}:
        raise NotFound(f"a loop has the keys 1 and 2, not {slot[:20]!r}")
    renewed = await visit.administration.loops.regenerate_key(visit.loop_name, int(slot))
    await visit.doors.follow()
    return visit.page("keys", keys=await visit.administration.loops.keys(visit.loop_name), renewed=renewed)


VIEWS = (
    View(path="/loops/{loop}/keys", handle=_show),
    View(path="/loops/{loop}/keys/{slot}/renew", handle=_renew, method="POST", needs=Role.ADMIN),
)
