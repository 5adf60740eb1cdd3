"""Feature importances: which features carry a loop's policy."""

from __future__ import annotations

import asyncio

import msgspec

from rankward.api.operation import JSON, V2022, Answer, Call, Operation
from rankward.api.operations.evaluations import DETAILS, PAGING
from rankward.api.schema import importances as schema
from rankward.api.schema.body import check_id
from rankward.api.schema.paging import cut, link, read_page
from rankward.store.studies import StudyKind

_KIND = StudyKind.IMPORTANCE


async def _create(call: Call) -> Answer:
    study_id = check_id(call.path_id, "featureImportanceId", limits=call.doors.limits, code="InvalidContract")
    await call.studies.ask(call.service.loop, _KIND, schema.read_question(call.body), study_id=study_id)
    return Answer(200)


async def _list(call: Call) -> Answer:
    page = read_page(call.query)
    taken, following = cut(call.doors.studies.listed(call.service.loop, _KIND), page)
    written = schema.FeatureImportanceList([schema.write_entry(study) for study in taken])
    if following is not None:
        written.next_link = link(call.origin + call.path, call.query, following)
    return Answer(200, msgspec.json.encode(written), JSON)


async def _get(call: Call) -> Answer:
    study = call.doors.studies.find(call.service.loop, _KIND, call.path_id)
    findings = await asyncio.to_thread(call.doors.studies.findings, study)
    written = schema.write_importance(study, findings, with_details=call.flag("details"))
    return Answer(200, msgspec.json.encode(written), JSON)


async def _delete(call: Call) -> Answer:
    call.studies.delete(call.service.loop, _KIND, call.path_id)
    return Answer(204)


_PATH = ("featureImportances", "{featureImportanceId}")

OPERATIONS = (
    Operation(
        name="getFeatureImportances",
        method="GET",
        path=_PATH[:1],
        handle=_list,
        summary="List the feature importances, in pages.",
        success=200,
        query=PAGING,
        response=schema.FeatureImportanceList,
        errors=("InvalidRequest",),
        versions=(V2022,),
    ),
    Operation(
        name="createFeatureImportance",
        method="PUT",
        path=_PATH,
        handle=_create,
        summary="Find out which features carry the loop's policy, under an id of one's own.",
        success=200,
        request=schema.FeatureImportanceContract,
        errors=(
            "InvalidContract",
            "InvalidDateTimesInEvaluationContract",
            "NoLogsExistInDateRange",
            "LogsSizeExceedAllowedLimit",
            "FeatureImportanceAlreadyExists",
            "OperationNotAllowed",
        ),
        versions=(V2022,),
    ),
    Operation(
        name="getFeatureImportance",
        method="GET",
        path=_PATH,
        handle=_get,
        summary="Read which features carry the loop's policy.",
        success=200,
        query=(DETAILS,),
        response=schema.FeatureImportance,
        errors=("FeatureImportanceNotFound",),
        versions=(V2022,),
    ),
    Operation(
        name="deleteFeatureImportance",
        method="DELETE",
        path=_PATH,
        handle=_delete,
        summary="Delete a feature importance. One that runs is cancelled.",
        success=204,
        errors=("FeatureImportanceNotFound",),
        versions=(V2022,),
    ),
)
