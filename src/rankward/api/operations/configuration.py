"""The service configuration and the learning policy of a loop."""

from __future__ import annotations

from typing import Any

import msgspec

from rankward.api.operation import JSON, Answer, Call, Operation
from rankward.api.schema import configuration as schema


async def _get_configuration(call: Call) -> Answer:
    loop = call.doors.home.catalog.loop(call.service.loop.name)
    return Answer(200, schema.write_settings(loop.settings), JSON)


async def _put_configuration(call: Call) -> Answer:
    loop = await call.configuration.change(call.service.loop.name, schema.read_settings(call.body))
    await call.doors.follow()
    return Answer(200, schema.write_settings(loop.settings), JSON)


async def _get_policy(call: Call) -> Answer:
    return _policy(call, call.doors.home.catalog.loop(call.service.loop.name).settings.policy)


async def _put_policy(call: Call) -> Answer:
    loop = await call.configuration.set_policy(call.service.loop.name, schema.read_policy(call.body))
    await call.doors.follow()
    return _policy(call, loop.settings.policy)


async def _delete_policy(call: Call) -> Answer:
    loop = await call.configuration.reset_policy(call.service.loop.name)
    await call.doors.follow()
    return _policy(call, loop.settings.policy)


def _policy(call: Call, arguments: str) -> Answer:
    """Answer a policy. Its name is the loop's id, whatever name was sent, as the original had it."""
    contract = schema.PolicyContract(name=call.service.loop.loop_id, arguments=arguments)
    return Answer(200, msgspec.json.encode(contract), JSON)


OPERATIONS = (
    Operation(
        name="getServiceConfiguration",
        method="GET",
        path=("configurations", "service"),
        handle=_get_configuration,
        summary="Read the loop's settings.",
        success=200,
        response=dict[str, Any],
    ),
    Operation(
        name="updateServiceConfiguration",
        method="PUT",
        path=("configurations", "service"),
        handle=_put_configuration,
        summary="Change the loop's settings. Members left out stay as they are.",
        success=200,
        request=dict[str, Any],
        response=dict[str, Any],
        errors=(
            "InvalidServiceConfiguration",
            "InvalidLearningModeServiceConfiguration",
            "InvalidRewardWaitTime",
            "InvalidLogRetentionDays",
            "InvalidModelRetrainDays",
            "ProblemTypeIncompatibleWithAutoOptimization",
        ),
    ),
    Operation(
        name="getPolicy",
        method="GET",
        path=("configurations", "policy"),
        handle=_get_policy,
        summary="Read the learning policy.",
        success=200,
        response=schema.PolicyContract,
    ),
    Operation(
        name="updatePolicy",
        method="PUT",
        path=("configurations", "policy"),
        handle=_put_policy,
        summary="Change the learning policy. The old model serves until a new one has caught up.",
        success=200,
        request=schema.PolicyContract,
        response=schema.PolicyContract,
        errors=(
            "InvalidPolicyConfiguration",
            "InvalidPolicyContract",
            "ProblemTypeIncompatibleWithAutoOptimization",
        ),
    ),
    Operation(
        name="resetPolicy",
        method="DELETE",
        path=("configurations", "policy"),
        handle=_delete_policy,
        summary="Restore the default policy.",
        success=200,
        response=schema.PolicyContract,
    ),
)
