"""Uploads of what was decided and reported elsewhere: the binary batches of clients that rank in process."""

from __future__ import annotations

import asyncio
import functools

from rankward.api.operation import P2, P3, V2022, Answer, Call, Operation
from rankward.errors import InvalidRequest
from rankward.records import MultiSlotInteraction
from rankward.uploads.read import read_interactions, read_observations
from rankward.vw.arguments import ProblemType, problem_type_of


async def _interactions(call: Call) -> Answer:
    doors, loop = call.doors, call.service.loop
    read = functools.partial(
        read_interactions,
        call.body,
        limits=doors.limits,
        bounds=doors.bounds,
        reward_wait_us=round(loop.settings.reward_wait.total_seconds() * 1_000_000),
    )
    decided = await asyncio.to_thread(read)  # thousands of events: nobody else should wait for them
    several = problem_type_of(loop.settings.policy) is ProblemType.MULTI_SLOT
    for interaction in decided:
        if isinstance(interaction, MultiSlotInteraction) != several:
            raise InvalidRequest(
                f"{interaction.event_id[:40]!r} was not decided for {'several slots' if several else 'a single slot'}, "
                "which is what the loop's policy is for: nothing of the batch was stored",
                code="InvalidRequest",
            )
    await call.service.take(decided)
    return Answer(204)


async def _observations(call: Call) -> Answer:
    read = functools.partial(read_observations, call.body, limits=call.doors.limits)
    await call.service.take(await asyncio.to_thread(read))
    return Answer(204)


_ERRORS = ("InvalidRequest", "OperationNotAllowed", "PayloadSizeExceeded")

OPERATIONS = (
    Operation(
        name="uploadInteractions",
        method="POST",
        path=("logs", "interactions"),
        handle=_interactions,
        summary="Upload decisions that a client made in process, as a binary batch.",
        success=204,
        request=bytes,
        body_limit="upload_bytes",
        errors=_ERRORS,
        versions=(P2, P3, V2022),
    ),
    Operation(
        name="uploadObservations",
        method="POST",
        path=("logs", "observations"),
        handle=_observations,
        summary="Upload rewards and activations of such decisions, as a binary batch.",
        success=204,
        request=bytes,
        body_limit="upload_bytes",
        errors=_ERRORS,
        versions=(P2, P3, V2022),
    ),
)
