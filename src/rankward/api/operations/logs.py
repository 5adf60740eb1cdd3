"""The log of a loop: what it covers, and clearing it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from rankward.api.operation import JSON, Answer, Call, Operation
from rankward.api.schema import logs as schema
from rankward.records import interactions
from rankward.settings import as_datetime

_LOOK = 2_000


async def _log_properties(call: Call) -> Answer:
    """Answer the span of the log in whole days: from the first day's start to the last day's end."""
    log = call.doors.log(call.service.loop.loop_id)
    extent = await log.extent()
    start = extent.first
    properties = schema.LogsProperties()
    while start < extent.end:  # settings and ticks may stand before the first interaction
        entries = await log.read(start, limit=_LOOK)
        if not entries:
            break
        if found := interactions(entries):
            first, last = as_datetime(found[0][0].time_us), as_datetime(extent.last_time_us)
            properties = schema.LogsProperties(
                date_range=schema.DateRange(from_=_day(first), to=_day(last + timedelta(days=1)))
            )
            break
        start = entries[-1].offset + 1
    return Answer(200, msgspec.json.encode(properties), JSON)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT00:00:00Z")


async def _delete_logs(call: Call) -> Answer:
    await call.configuration.clear_log(call.service.loop.name)
    return Answer(204)


OPERATIONS = (
    Operation(
        name="getLogsProperties",
        method="GET",
        path=("logs", "properties"),
        handle=_log_properties,
        summary="Read which days the log covers.",
        success=200,
        response=schema.LogsProperties,
    ),
    Operation(
        name="deleteLogs",
        method="DELETE",
        path=("logs",),
        handle=_delete_logs,
        summary="Remove all interactions and rewards. The model stays.",
        success=204,
    ),
)
