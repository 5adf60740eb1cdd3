"""Rank, Reward and Activate for a single slot."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from rankward.api.operation import JSON, Answer, Call, Operation
from rankward.api.schema import ranking as schema
from rankward.api.schema.body import check_id
from rankward.ranking.decide import new_event_id


async def _rank(call: Call) -> Answer:
    doors = call.doors
    request, named = schema.read_rank(call.body, limits=doors.limits, bounds=doors.bounds)
    if not named:
        request = msgspec.structs.replace(request, event_id=new_event_id(doors.new_uuid(), datetime.now(UTC)))
    outcome = await call.service.rank(request, named=named)
    explained = call.service.loop.settings.is_inference_explainability_enabled
    contributions = call.service.explain(outcome.interaction) if explained else None
    return Answer(201, schema.write_rank(outcome.interaction, contributions), JSON)


async def _reward(call: Call) -> Answer:
    event_id = check_id(call.path_id, "eventId", limits=call.doors.limits, code="InvalidRewardRequest")
    value, report = schema.read_reward(call.body, limits=call.doors.limits)
    await call.service.reward(event_id, value, report=report or call.client_request_id)
    return Answer(204)


async def _activate(call: Call) -> Answer:
    event_id = check_id(call.path_id, "eventId", limits=call.doors.limits, code="InvalidEventIdToActivate")
    await call.service.activate(event_id)
    return Answer(204)


OPERATIONS = (
    Operation(
        name="rank",
        method="POST",
        path=("rank",),
        handle=_rank,
        summary="Ask which of the actions to show. The answer is durable when it arrives.",
        success=201,
        request=schema.RankBody,
        response=schema.RankAnswer,
        errors=("InvalidRankRequest", "ModelRankingError", "OperationNotAllowed", "PayloadSizeExceeded"),
    ),
    Operation(
        name="reward",
        method="POST",
        path=("events", "{eventId}", "reward"),
        handle=_reward,
        summary="Report how well the shown action did.",
        success=204,
        request=schema.RewardBody,
        errors=("InvalidRewardRequest", "OperationNotAllowed"),
    ),
    Operation(
        name="activate",
        method="POST",
        path=("events", "{eventId}", "activate"),
        handle=_activate,
        summary="Say that a deferred decision was really shown.",
        success=204,
        errors=("InvalidEventIdToActivate", "OperationNotAllowed"),
    ),
)
