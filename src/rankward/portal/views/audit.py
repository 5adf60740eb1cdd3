"""The audit trail: who changed what, when and by which door, with a filter."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from rankward.portal.view import View, Visit
from rankward.store.audit import AuditFilter

_PER_PAGE = 50


async def _show(visit: Visit) -> Response:
    query = visit.request.query_params
    seen = [loop.name for loop in visit.loops()]
    loop, what, who = query.get("loop", ""), query.get("what", ""), query.get("who", "")
    before = query.get("before", "")
    wanted = AuditFilter(
        loops=_loops(visit, loop, seen),
        what=what or None,
        who=who or None,
        before=int(before) if before.isdecimal() and len(before) < 16 else None,
    )
    audit = visit.doors.home.audit
    entries = audit.entries(wanted, limit=_PER_PAGE + 1)
    more = len(entries) > _PER_PAGE
    entries = entries[:_PER_PAGE]
    older = urlencode({"loop": loop, "what": what, "who": who, "before": entries[-1].number}) if more else None
    return visit.page(
        "audit",
        entries=entries,
        loops=seen,
        kinds=audit.kinds(),
        chosen={"loop": loop, "what": what, "who": who},
        older=older,
        first=before == "",
    )


def _loops(visit: Visit, asked: str, seen: list[str]) -> list[str] | None:
    """Name the loops whose entries are shown. None: all, of which an admin sees those that are gone, too."""
    if asked:
        return [asked] if visit.session.admin or asked in seen else []
    return None if visit.session.admin else seen


VIEWS = (View(path="/audit", handle=_show),)
