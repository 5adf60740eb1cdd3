"""The loops, as cards; making one, and removing one."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from rankward.administration.loops import NewLoop
from rankward.errors import CallerError
from rankward.portal.navigation import OF_A_LOOP
from rankward.portal.view import DOCTOR_AGE_US, View, Visit
from rankward.store.sessions import Role
from rankward.vw.presets import BALANCED, PRESETS
from rankward.watching.figures import Point, Series
from rankward.watching.fold import DAY_US, HOUR_US, MINUTE_US

_RECENT_US = 10 * MINUTE_US


async def _show(visit: Visit) -> Response:
    names = {loop.name for loop in visit.loops()}
    loops = [loop for loop in await visit.administration.loops.listed() if loop.name in names]
    return visit.page("loops", loops=loops)


async def _open(visit: Visit) -> Response:
    return visit.redirect(OF_A_LOOP[0].href(visit.loop_name))


async def _card(visit: Visit) -> Response:
    loop, now_us = visit.loop, visit.doors.home.clock()
    figures = visit.doors.home.figures()

    def read() -> tuple[Series, Point]:
        return (
            figures.series(loop, from_us=now_us - DAY_US, to_us=now_us, step_us=HOUR_US // 2),
            figures.total(loop, from_us=now_us - _RECENT_US, to_us=now_us),
        )

    day, recent = await asyncio.to_thread(read)
    earned = {point.at_us: point.earned for point in day.points}
    rewards = [known.value if (known := earned.get(at)) else None for at in range(day.from_us, day.to_us, day.step_us)]
    per_minute = recent.events / (_RECENT_US / MINUTE_US)
    return visit.page(
        "loop_card",
        report=await visit.administration.doctor(loop.name, age_us=DOCTOR_AGE_US),
        series=day,
        rewards=rewards,
        per_minute=f"{per_minute:.1f}" if 0 < per_minute < 10 else f"{per_minute:,.0f}",
    )


async def _show_new(visit: Visit) -> Response:
    return _new(visit)


def _new(visit: Visit, *, refused: CallerError | None = None) -> Response:
    return visit.page(
        "loop_new",
        status=200 if refused is None else 400,
        presets=PRESETS.values(),
        name=visit.form.get("name", ""),
        preset=visit.form.get("preset", BALANCED.name),
        error=None if refused is None else refused.message,
    )


async def _create(visit: Visit) -> Response:
    wanted = NewLoop(name=visit.form.get("name", ""), preset=visit.form.get("preset", BALANCED.name))
    try:
        created = await visit.administration.loops.create(wanted)
    except CallerError as error:
        return _new(visit, refused=error)
    await visit.doors.follow()
    return visit.page("loop_created", created=created)


async def _show_delete(visit: Visit) -> Response:
    return visit.page("loop_delete", loop=await visit.administration.loops.show(visit.loop_name), error=None)


async def _delete(visit: Visit) -> Response:
    if visit.form.get("confirm") != visit.loop_name:
        error = f"That is not its name: type {visit.loop_name} to delete it, with all that it logged and learned."
        loop = await visit.administration.loops.show(visit.loop_name)
        return visit.page("loop_delete", status=400, loop=loop, error=error)
    await visit.administration.loops.delete(visit.loop_name)
    await visit.doors.follow()
    return visit.redirect("/portal/", notice=f"The loop {visit.loop_name} is deleted.")


VIEWS = (
    View(path="/", handle=_show),
    View(path="/new-loop", handle=_show_new, needs=Role.ADMIN),
    View(path="/new-loop", handle=_create, method="POST", needs=Role.ADMIN),
    View(path="/loops/{loop}", handle=_open),
    View(path="/loops/{loop}/card", handle=_card),
    View(path="/loops/{loop}/delete", handle=_show_delete, needs=Role.ADMIN),
    View(path="/loops/{loop}/delete", handle=_delete, method="POST", needs=Role.ADMIN),
)
