"""Rank, Reward and Activate for several slots at once."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from rankward.api.operation import ALL, JSON, V1_0, Answer, Call, Operation, Parameter
from rankward.api.schema import multislot as schema
from rankward.api.schema.body import check_id
from rankward.ranking.decide import new_event_id

_VERSIONS = tuple(version for version in ALL if version != V1_0)


async def _rank(call: Call) -> Answer:
    doors = call.doors
    call.service.check_multi_slot()
    probabilities = call.flag("probabilities")
    request, named = schema.read_rank(call.body, limits=doors.limits, bounds=doors.bounds)
    if not named:
        request = msgspec.structs.replace(request, event_id=new_event_id(doors.new_uuid(), datetime.now(UTC)))
    outcome = await call.service.rank_slots(request, named=named)
    return Answer(201, schema.write_rank(outcome.interaction, probabilities=probabilities), JSON)


async def _reward(call: Call) -> Answer:
    call.service.check_multi_slot()
    event_id = check_id(call.path_id, "eventId", limits=call.doors.limits, code="InvalidRewardRequest")
    rewards, report = schema.read_reward(call.body, limits=call.doors.limits)
    await call.service.reward_slots(event_id, rewards, report=report or call.client_request_id)
    return Answer(204)


async def _activate(call: Call) -> Answer:
    call.service.check_multi_slot()
    event_id = check_id(call.path_id, "eventId", limits=call.doors.limits, code="InvalidEventIdToActivate")
    await call.service.activate(event_id)
    return Answer(204)


OPERATIONS = (
    Operation(
        name="multiSlotRank",
        method="POST",
        path=("multislot", "rank"),
        handle=_rank,
        summary="Ask which of the actions to show in each of several slots.",
        success=201,
        query=(
            Parameter(
                name="probabilities",
                kind="boolean",
                help="Whether each slot comes with the actions that were left for it and their probabilities.",
            ),
        ),
        request=schema.MultiSlotRankBody,
        response=schema.MultiSlotRankAnswer,
        errors=(
            "InvalidMultiSlotApiAccess",
            "InvalidRankRequest",
            "InvalidRequest",
            "ModelRankingError",
            "OperationNotAllowed",
            "PayloadSizeExceeded",
        ),
        versions=_VERSIONS,
    ),
    Operation(
        name="multiSlotReward",
        method="POST",
        path=("multislot", "events", "{eventId}", "reward"),
        handle=_reward,
        summary="Report how well the actions in some or all slots of an event did.",
        success=204,
        request=schema.MultiSlotRewardBody,
        errors=("InvalidMultiSlotApiAccess", "InvalidRewardRequest", "OperationNotAllowed"),
        versions=_VERSIONS,
    ),
    Operation(
        name="multiSlotActivate",
        method="POST",
        path=("multislot", "events", "{eventId}", "activate"),
        handle=_activate,
        summary="Say that a deferred decision for several slots was really shown, as a whole.",
        success=204,
        errors=("InvalidMultiSlotApiAccess", "InvalidEventIdToActivate", "OperationNotAllowed"),
        versions=_VERSIONS,
    ),
)
