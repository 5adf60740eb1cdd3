"""Evaluations of a loop's log: asked for, followed, read, deleted, applied."""

from __future__ import annotations

import asyncio

import msgspec

from rankward.api.operation import ALL, JSON, P1, P2, P3, V1_0, V2022, Answer, Call, Operation, Parameter
from rankward.api.schema import evaluations as schema
from rankward.api.schema.body import check_id
from rankward.api.schema.paging import cut, link, read_filter, read_page
from rankward.evaluation.findings import Findings
from rankward.store.studies import Study, StudyKind

_KIND = StudyKind.EVALUATION
_V1 = (V1_0, P1, P2, P3)
DETAILS = Parameter(
    name="details", kind="boolean", help="Whether to add our own estimates, under `rankward`. Beyond the contract."
)
_FILTERED = {
    "evaluationType": lambda entry: entry.evaluation_type,
    "status": lambda entry: entry.status,
    "name": lambda entry: entry.name,
}


async def _found(call: Call, study: Study) -> Findings | None:
    return await asyncio.to_thread(call.doors.studies.findings, study)


async def _create(call: Call) -> Answer:
    question = schema.read_question(call.body)
    study = await call.studies.ask(call.service.loop, _KIND, question, study_id=str(call.doors.new_uuid()))
    written = schema.write_evaluation(study, None, call.version, with_summaries=True, with_details=False)
    location = f"{call.path}/{study.study_id}"
    return Answer(201, msgspec.json.encode(written), JSON, ((b"location", location.encode()),))


async def _create_as(call: Call) -> Answer:
    """Create an evaluation under its caller's id. The original answers neither a body nor a content type."""
    study_id = check_id(call.path_id, "evaluationId", limits=call.doors.limits, code="InvalidEvaluationContract")
    await call.studies.ask(call.service.loop, _KIND, schema.read_question(call.body), study_id=study_id)
    return Answer(200)


async def _list(call: Call) -> Answer:
    written = []
    for study in call.doors.studies.listed(call.service.loop, _KIND):
        findings = await _found(call, study)
        written.append(schema.write_evaluation(study, findings, call.version, with_summaries=False, with_details=False))
    return Answer(200, msgspec.json.encode(written), JSON)


async def _list_pages(call: Call) -> Answer:
    page = read_page(call.query)
    passes = read_filter(call.query.get("filter"), _FILTERED)
    entries = [schema.write_entry(study) for study in call.doors.studies.listed(call.service.loop, _KIND)]
    taken, following = cut([entry for entry in entries if passes(entry)], page)
    written = schema.EvaluationList(list(taken))
    if following is not None:
        written.next_link = link(call.origin + call.path, call.query, following)
    return Answer(200, msgspec.json.encode(written), JSON)


async def _get(call: Call) -> Answer:
    study = call.doors.studies.find(call.service.loop, _KIND, call.path_id)
    findings = await _found(call, study)
    written = schema.write_evaluation(
        study, findings, call.version, with_summaries=True, with_details=call.flag("details")
    )
    return Answer(200, msgspec.json.encode(written), JSON)


async def _get_cut(call: Call) -> Answer:
    query = call.query
    wanted = schema.read_cut(
        query.get("startTime"), query.get("endTime"), query.get("intervalInMinutes"), query.get("window")
    )
    study = call.doors.studies.find(call.service.loop, _KIND, call.path_id)
    findings = await _found(call, study)
    written = schema.write_result(study, findings, wanted, with_details=call.flag("details"))
    return Answer(200, msgspec.json.encode(written), JSON)


async def _delete(call: Call) -> Answer:
    call.studies.delete(call.service.loop, _KIND, call.path_id)
    return Answer(204)


async def _apply(call: Call) -> Answer:
    code = "InvalidContract" if call.version == V2022 else "BadRequest"
    reference = schema.read_reference(call.body, code=code)
    await call.studies.apply(call.service.loop.name, reference.evaluation_id, reference.policy_name)
    await call.doors.follow()
    return Answer(204)


_REFUSED = (
    "InvalidEvaluationContract",
    "InvalidDateTimesInEvaluationContract",
    "InvalidPolicyConfiguration",
    "InvalidPolicyContract",
    "DuplicateCustomPolicyNames",
    "MaximumEvaluationCustomPoliciesExceeded",
    "NoLogsExistInDateRange",
    "LogsSizeExceedAllowedLimit",
    "OperationNotAllowed",
)
_TOP = Parameter(name="top", kind="integer", help="How many to list, in all pages together.", versions=(V2022,))
_SKIP = Parameter(name="skip", kind="integer", help="How many to leave out before.", versions=(V2022,))
_SIZE = Parameter(name="maxpagesize", kind="integer", help="How many on a page, 100 unless said.", versions=(V2022,))
PAGING = (_TOP, _SKIP, _SIZE)

OPERATIONS = (
    Operation(
        name="getEvaluations",
        method="GET",
        path=("evaluations",),
        handle=_list,
        summary="List the evaluations, without their windows.",
        success=200,
        response=list[schema.Evaluation],
        versions=_V1,
    ),
    Operation(
        name="getEvaluations",
        method="GET",
        path=("evaluations",),
        handle=_list_pages,
        summary="List the evaluations, in pages.",
        success=200,
        query=(
            Parameter(name="filter", help="Such as metadata=evaluationType eq 'Manual'.", versions=(V2022,)),
            *PAGING,
        ),
        response=schema.EvaluationList,
        errors=("InvalidRequest",),
        versions=(V2022,),
    ),
    Operation(
        name="createEvaluation",
        method="POST",
        path=("evaluations",),
        handle=_create,
        summary="Judge policies by the log. The answer says where to follow it.",
        success=201,
        request=schema.EvaluationContract,
        response=schema.Evaluation,
        errors=_REFUSED,
        versions=_V1,
    ),
    Operation(
        name="createEvaluation",
        method="PUT",
        path=("evaluations", "{evaluationId}"),
        handle=_create_as,
        summary="Judge policies by the log, under an id of one's own.",
        success=200,
        request=schema.EvaluationContract,
        errors=(*_REFUSED, "EvaluationAlreadyExists"),
        versions=(V2022,),
    ),
    Operation(
        name="getEvaluation",
        method="GET",
        path=("evaluations", "{evaluationId}"),
        handle=_get,
        summary="Read what an evaluation found.",
        success=200,
        query=(DETAILS,),
        response=schema.Evaluation,
        errors=("EvaluationNotFound",),
        versions=_V1,
    ),
    Operation(
        name="getEvaluation",
        method="GET",
        path=("evaluations", "{evaluationId}"),
        handle=_get_cut,
        summary="Read what an evaluation found, over a span and in steps.",
        success=200,
        query=(
            Parameter(name="startTime", help="Where the span begins.", required=True),
            Parameter(name="endTime", help="Where the span ends.", required=True),
            Parameter(name="intervalInMinutes", kind="integer", help="5, 60, 360, 720 or 1440; 5 unless said."),
            Parameter(name="window", help="Expanding, which goes with 5, or Rolling, which goes with 60 and up."),
            DETAILS,
        ),
        response=schema.EvaluationResult,
        errors=("InvalidRequest", "InvalidDateTimesInEvaluationContract", "EvaluationNotFound"),
        versions=(V2022,),
    ),
    Operation(
        name="deleteEvaluation",
        method="DELETE",
        path=("evaluations", "{evaluationId}"),
        handle=_delete,
        summary="Delete an evaluation. One that runs is cancelled.",
        success=204,
        errors=("EvaluationNotFound",),
    ),
    Operation(
        name="applyFromEvaluation",
        method="POST",
        path=("configurations", "applyFromEvaluation"),
        handle=_apply,
        summary="Make a policy that was evaluated the loop's own, with what it had learned.",
        success=204,
        request=schema.PolicyReferenceContract,
        errors=(
            "BadRequest",
            "EvaluationNotFound",
            "LearningSettingsNotFound",
            "EvaluationModelNotFound",
            "OperationNotAllowed",
        ),
        versions=ALL[1:],
    ),
)
