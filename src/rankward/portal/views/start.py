"""Quick start: code with this loop's endpoint, and a form that sends a Rank and the reward of what it answers."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from rankward.api.schema import multislot, ranking
from rankward.errors import CallerError, InvalidRequest
from rankward.portal.snippets import example, snippets
from rankward.portal.view import View, Visit
from rankward.ranking.decide import new_event_id
from rankward.records import AnyInteraction
from rankward.store.sessions import Role
from rankward.vw.arguments import ProblemType


async def _show(visit: Visit) -> Response:
    slots = visit.doors.loop(visit.loop_name).problem_type is ProblemType.MULTI_SLOT
    endpoint = str(visit.request.base_url).removesuffix("/").removesuffix("/portal")
    return visit.page(
        "start",
        endpoint=endpoint,
        snippets=snippets(endpoint, slots=slots),
        slots=slots,
        example=example(slots=slots),
        reward_wait=visit.loop.settings.reward_wait,
    )


async def _rank(visit: Visit) -> Response:
    """Send a Rank, as an application would: it is logged and learned from as any other."""
    try:
        interaction = await _decided(visit, visit.form.get("body", "").encode())
    except CallerError as error:
        return visit.page("start_answer", error=error.message, decided=None)
    return visit.page("start_answer", error=None, decided=interaction)


async def _decided(visit: Visit, body: bytes) -> AnyInteraction:
    doors = visit.doors
    service = doors.loop(visit.loop_name)
    event_id = new_event_id(doors.new_uuid(), datetime.now(UTC))
    if service.problem_type is ProblemType.MULTI_SLOT:
        several, named = multislot.read_rank(body, limits=doors.limits, bounds=doors.bounds)
        if not named:
            several = msgspec.structs.replace(several, event_id=event_id)
        return (await service.rank_slots(several, named=named)).interaction
    request, named = ranking.read_rank(body, limits=doors.limits, bounds=doors.bounds)
    if not named:
        request = msgspec.structs.replace(request, event_id=event_id)
    return (await service.rank(request, named=named)).interaction


async def _reward(visit: Visit) -> Response:
    event_id, text, slot = (visit.form.get(each, "") for each in ("event", "value", "slot"))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1 or not 1 <= len(event_id) <= visit.doors.limits.id_length:
        raise InvalidRequest(f"{text[:40]!r} is no reward: send a number from -1 to 1, and best from 0 to 1")
    service = visit.doors.loop(visit.loop_name)
    if slot:
        await service.reward_slots(event_id, [(slot, value)])
    else:
        await service.reward(event_id, value)
    story = f"/portal/loops/{visit.loop_name}/events/{quote(event_id, safe='')}"
    return visit.page("start_rewarded", value=value, slot=slot, story=story)


async def _lead(visit: Visit) -> Response:
    """Lead to the quick start of a loop that they see: of the one made for trying, if it is there."""
    names = [loop.name for loop in visit.loops()]
    if not names:
        return visit.redirect("/portal/")
    return visit.redirect(f"/portal/loops/{'playground' if 'playground' in names else names[0]}/start")


VIEWS = (
    View(path="/start", handle=_lead),
    View(path="/loops/{loop}/start", handle=_show),
    View(path="/loops/{loop}/start/rank", handle=_rank, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/start/reward", handle=_reward, method="POST", needs=Role.OPERATOR),
)
