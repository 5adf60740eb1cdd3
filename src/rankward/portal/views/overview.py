"""A loop at a glance: what it earns over time, where its events are, and what was changed last."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse, Response

from rankward.portal.lines import calmer_step, event_chart, reward_chart
from rankward.portal.spans import choices, span_of
from rankward.portal.view import DOCTOR_AGE_US, View, Visit
from rankward.store.audit import AuditFilter

_CHANGES = 5  # of settings and models, that are listed
_RATE_US = 10 * 60_000_000  # over which the present rate is taken


async def _show(visit: Visit) -> Response:
    home, name = visit.doors.home, visit.loop_name
    span = span_of(visit.request.query_params.get("span"), home.clock())
    changes = home.audit.entries(AuditFilter(loops=[name]), limit=_CHANGES)
    return visit.page(
        "overview", loop=await visit.administration.loops.show(name), span=span, choices=choices(), changes=changes
    )


async def _live(visit: Visit) -> Response:
    """What changes while one looks: the figures of the span, and where the events are."""
    home, loop = visit.doors.home, visit.loop
    now_us = home.clock()
    span = span_of(visit.request.query_params.get("span"), now_us)
    figures = home.figures()
    total = await asyncio.to_thread(figures.total, loop, from_us=span.from_us, to_us=span.to_us)
    newest = await asyncio.to_thread(figures.total, loop, from_us=now_us - _RATE_US, to_us=now_us)
    report = await visit.administration.doctor(loop.name, age_us=DOCTOR_AGE_US)
    return visit.page(
        "overview_live",
        loop=await visit.administration.loops.show(loop.name),
        reward_wait=loop.settings.reward_wait,
        total=total,
        per_minute=newest.events * 60_000_000 / _RATE_US,
        report=report,
        figures=figures.status(loop),
    )


async def _rewards(visit: Visit) -> Response:
    home, loop, settings = visit.doors.home, visit.loop, visit.loop.settings
    span = span_of(visit.request.query_params.get("span"), home.clock())
    series = await asyncio.to_thread(home.figures().series, loop, from_us=span.from_us, to_us=span.to_us)
    if (step_us := calmer_step(series)) is not None:
        ends = {"from_us": series.from_us, "to_us": series.to_us}
        series = await asyncio.to_thread(home.figures().series, loop, **ends, step_us=step_us)
    versions = home.catalog.versions(loop.loop_id)
    return JSONResponse(reward_chart(series, versions, (settings.reward_min, settings.reward_max)))


async def _events(visit: Visit) -> Response:
    home = visit.doors.home
    span = span_of(visit.request.query_params.get("span"), home.clock())
    counts = await asyncio.to_thread(home.figures().counts, visit.loop, from_us=span.from_us, to_us=span.to_us)
    return JSONResponse(event_chart(counts))


VIEWS = (
    View(path="/loops/{loop}/overview", handle=_show),
    View(path="/loops/{loop}/overview/live", handle=_live),
    View(path="/loops/{loop}/overview/rewards", handle=_rewards),
    View(path="/loops/{loop}/overview/events", handle=_events),
)
