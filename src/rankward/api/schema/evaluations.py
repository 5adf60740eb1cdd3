"""The wire shapes of evaluations in every version, and how ours are put into them.

What is beyond the contract stands under `rankward`, and only where it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rankward.api.operation import V1_0
from rankward.api.schema.body import decode
from rankward.api.schema.configuration import PolicyContract
from rankward.api.schema.features import FeatureDetails, feature_details
from rankward.api.schema.moments import NEVER, read_moment, write_moment
from rankward.errors import InvalidRequest
from rankward.evaluation.asking import Question
from rankward.evaluation.findings import Findings
from rankward.evaluation.importance import groups
from rankward.evaluation.report import (
    MINUTE_US,
    WINDOW_US,
    ContractSummary,
    Estimate,
    PolicyResult,
    PolicySource,
    Report,
    overall_point,
    series,
    summaries,
    total_summary,
)
from rankward.records import TimeUs
from rankward.settings import LoopSettings
from rankward.store.studies import AskedPolicy, Study, StudyState

_INVALID = "InvalidEvaluationContract"
INTERVALS_MIN = (5, 60, 360, 720, 1440)
EXPANDING, ROLLING = "Expanding", "Rolling"


class EvaluationContract(msgspec.Struct, rename="camel"):
    """What an evaluation is to be. The two switches are one, under the names that versions give it."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    start_time: str
    end_time: str
    policies: list[PolicyContract]
    enable_offline_experimentation: bool | None = None
    enable_policy_optimization: bool | None = None


_contract = msgspec.json.Decoder(EvaluationContract)


def read_question(body: bytes) -> Question:
    """Read the body of a new evaluation.

    Raises:
        InvalidRequest: it cannot be used.
    """
    contract: EvaluationContract = decode(_contract, body, code=_INVALID)
    return Question(
        name=contract.name,
        start_us=read_moment(contract.start_time, target="startTime", code=_INVALID),
        end_us=read_moment(contract.end_time, target="endTime", code=_INVALID),
        policies=tuple([AskedPolicy(policy.name, policy.arguments) for policy in contract.policies]),
        searches=bool(contract.enable_offline_experimentation or contract.enable_policy_optimization),
    )


# Beyond the contract


class PolicyDetails(msgspec.Struct, rename="camel"):
    """What we know of a policy beside the contract's numbers."""

    verdict: str  # reference, better, worse, undecided or unknown
    value: float | None  # our estimate of its mean reward; None: no event judges it
    interval: list[float] | None  # 95 %, for a log of this length
    interval_always: list[float] | None  # 95 %, at every look at a growing log
    against_online: float | None  # by how much it is above the policy that acted
    against_online_always: list[float] | None
    snips: float | None
    effective_sample_size: float | None
    agreement: float | None  # share of events whose action was its first choice
    numbers: str  # what it saw of them: raw or bins
    notes: list[str]


class EvaluationDetails(msgspec.Struct, rename="camel"):
    """What we know of the log on the whole."""

    verdict: str
    trusted: bool  # False: the logged probabilities cannot be true
    judged: int  # events that judge every policy
    baseline_only: int
    never_activated: int
    clipped: int
    unusable: int
    reward_min: float
    reward_max: float
    features: list[FeatureDetails]
    search: str | None  # what a search for better policies came to; None: none was asked for


def _policy_details(result: PolicyResult) -> PolicyDetails:
    estimate, against, diagnostics = result.estimate, result.against_online, result.diagnostics
    return PolicyDetails(
        verdict=result.verdict.value,
        value=None if estimate is None else estimate.value,
        interval=None if estimate is None else [estimate.fixed.low, estimate.fixed.high],
        interval_always=_always(estimate),
        against_online=None if against is None else against.value,
        against_online_always=_always(against),
        snips=None if estimate is None else estimate.snips,
        effective_sample_size=None if diagnostics is None else diagnostics.effective_sample_size,
        agreement=None if diagnostics is None else diagnostics.agreement,
        numbers=result.numbers,
        notes=list(result.notes),
    )


def _always(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else [estimate.always.low, estimate.always.high]


def _details(findings: Findings, report: Report) -> EvaluationDetails:
    counts = report.counts
    return EvaluationDetails(
        verdict=report.verdict,
        trusted=report.trusted,
        judged=counts.judged,
        baseline_only=counts.baseline_only,
        never_activated=counts.never_activated,
        clipped=counts.clipped,
        unusable=counts.unusable,
        reward_min=report.reward_min,
        reward_max=report.reward_max,
        features=feature_details(findings),
        search=None if report.search is None else report.search.decision,
    )


def arguments_of(result: PolicyResult, settings: LoopSettings) -> str | UnsetType:
    """Name a policy's arguments: those of `online` are the loop's, the baselines have none."""
    if result.source is PolicySource.ONLINE:
        return settings.policy
    return UNSET if result.arguments is None else result.arguments


# v1.0 to v1.1-preview.3


class PolicyResultSummary(msgspec.Struct, rename="camel"):
    """What the contract shows of a policy in a stretch of time."""

    time_stamp: str
    ips_estimator_numerator: float
    ips_estimator_denominator: float
    snips_estimator_denominator: float
    aggregate_time_window: str
    confidence_interval: float
    non_zero_probability: float | UnsetType = UNSET
    sum_of_squares: float | UnsetType = UNSET
    average_reward: float | UnsetType = UNSET


class EvaluatedPolicy(msgspec.Struct, rename="camel"):
    """A policy with what it would have earned."""

    name: str
    arguments: str | UnsetType = UNSET
    policy_source: str | UnsetType = UNSET
    summary: list[PolicyResultSummary] | UnsetType = UNSET
    total_summary: PolicyResultSummary | UnsetType = UNSET
    rankward: PolicyDetails | UnsetType = UNSET


class Evaluation(msgspec.Struct, rename="camel"):
    """An evaluation, as v1.0 to v1.1-preview.3 have it."""

    id: str
    name: str
    start_time: str
    end_time: str
    job_id: str
    status: str
    policy_results: list[EvaluatedPolicy]
    feature_importance: list[list[str]]
    evaluation_type: str | UnsetType = UNSET
    optimal_policy: str | UnsetType = UNSET
    creation_time: str | UnsetType = UNSET
    description: str | UnsetType = UNSET  # why it failed, or what was not done
    rankward: EvaluationDetails | UnsetType = UNSET


_STATUS = {
    StudyState.WAITING: "pending",
    StudyState.RUNNING: "pending",
    StudyState.SUCCEEDED: "completed",
    StudyState.FAILED: "failed",
    StudyState.TIMED_OUT: "timeout",
}
_WINDOWS = {0: "PT0S", WINDOW_US: "PT5M", 60 * MINUTE_US: "PT1H", 360 * MINUTE_US: "PT6H", 1440 * MINUTE_US: "P1D"}


def write_evaluation(
    study: Study, findings: Findings | None, version: str, *, with_summaries: bool, with_details: bool
) -> Evaluation:
    """Write an evaluation as v1.x has it.

    Args:
        study: its record.
        findings: what was found; None: nothing, or nothing yet.
        version: of the contract.
        with_summaries: whether each policy shows its windows; a list leaves them out.
        with_details: whether to say more than the contract does.
    """
    report = None if findings is None else findings.report
    first = version == V1_0
    status = "failed" if first and study.state is StudyState.TIMED_OUT else _STATUS[study.state]
    if not first and (concluded := _concluded(study)) is not None:
        status = concluded[0].lower() + concluded[1:]
    if report is None:
        results = [
            EvaluatedPolicy(
                name=policy.name,
                arguments=policy.arguments,
                policy_source=UNSET if first else PolicySource.CUSTOM.value,
            )
            for policy in study.policies
        ]
    else:
        results = [
            _evaluated(result, study, version, with_summaries=with_summaries, with_details=with_details)
            for result in report.overall()
        ]
    return Evaluation(
        id=study.study_id,
        name=study.name,
        start_time=write_moment(study.start_us),
        end_time=write_moment(study.end_us),
        job_id=study.key,
        status=status,
        policy_results=results,
        feature_importance=[] if findings is None else groups(findings.features),
        evaluation_type=UNSET if first else _type_of(study),
        optimal_policy=UNSET if first else study.optimal,
        creation_time=UNSET if first else write_moment(study.created_us),
        description=study.description or UNSET,
        rankward=UNSET if findings is None or report is None or not with_details else _details(findings, report),
    )


def _evaluated(
    result: PolicyResult, study: Study, version: str, *, with_summaries: bool, with_details: bool
) -> EvaluatedPolicy:
    first = version == V1_0
    return EvaluatedPolicy(
        name=result.name,
        arguments=arguments_of(result, study.settings),
        policy_source=UNSET if first else result.source.value,
        summary=[_summary(each, first=first) for each in summaries(result)] if with_summaries else UNSET,
        total_summary=_summary(total_summary(result, end_us=study.end_us), first=first),
        rankward=_policy_details(result) if with_details else UNSET,
    )


def _summary(summary: ContractSummary, *, first: bool) -> PolicyResultSummary:
    return PolicyResultSummary(
        time_stamp=write_moment(summary.time_us),
        ips_estimator_numerator=summary.ips_numerator,
        ips_estimator_denominator=summary.ips_denominator,
        snips_estimator_denominator=summary.snips_denominator,
        aggregate_time_window=_WINDOWS[summary.window_us],
        confidence_interval=summary.confidence_interval,
        non_zero_probability=UNSET if summary.non_zero_probability is None else summary.non_zero_probability,
        sum_of_squares=UNSET if summary.sum_of_squares is None else summary.sum_of_squares,
        average_reward=UNSET if first else summary.average_reward,
    )


# 2022-09-01-preview


class EvaluationEntry(msgspec.Struct, rename="camel"):
    """An evaluation in a list, as 2022-09-01-preview has it."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str
    evaluation_type: str


class EvaluationList(msgspec.Struct, rename="camel"):
    """A page of evaluations."""

    value: list[EvaluationEntry]
    next_link: str | UnsetType = UNSET


class Moment(msgspec.Struct, rename="camel"):
    """An estimate at a moment."""

    time_stamp: str
    expected_reward: float
    confidence_interval: list[float]


class Overall(msgspec.Struct, rename="camel"):
    """An estimate over a span."""

    expected_reward: float
    confidence_interval: list[float]


class TimeSeries(msgspec.Struct, rename="camel"):
    """Estimates over time."""

    data: list[Moment]


class PolicySeries(msgspec.Struct, rename="camel"):
    """A policy with what it would have earned, in one slot or overall."""

    name: str
    slot_id: str  # empty: overall
    policy_source: str
    summary: Overall
    timeseries: TimeSeries
    arguments: str | UnsetType = UNSET
    rankward: PolicyDetails | UnsetType = UNSET


class EvaluationContent(msgspec.Struct, rename="camel"):
    """What policies would have earned, over time."""

    start_time: str
    end_time: str
    interval_in_minutes: int
    value: list[PolicySeries]


class EvaluationResult(msgspec.Struct, rename="camel"):
    """An evaluation, as 2022-09-01-preview has it."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str
    evaluation_type: str
    optimal_policy: str
    content: EvaluationContent
    description: str | UnsetType = UNSET  # why it failed, or what was not done
    rankward: EvaluationDetails | UnsetType = UNSET


STATUS_2022 = {
    StudyState.WAITING: "Running",
    StudyState.RUNNING: "Running",
    StudyState.SUCCEEDED: "Succeeded",
    StudyState.FAILED: "Failed",
    StudyState.TIMED_OUT: "Timeout",
}


class Cut(msgspec.Struct, frozen=True):
    """Which part of an evaluation is asked for, and how fine."""

    start_us: TimeUs
    end_us: TimeUs
    interval_min: int
    expanding: bool


def read_cut(start: str | None, end: str | None, interval: str | None, window: str | None) -> Cut:
    """Read the query of an evaluation.

    Raises:
        InvalidRequest: a part is missing, is none that there is, or does not go with another.
    """
    code = "InvalidRequest"
    if start is None or end is None:
        missing = "startTime" if start is None else "endTime"
        raise InvalidRequest(f"{missing} is missing: name the span to show in the query", code=code, target=missing)
    start_us = read_moment(start, target="startTime", code=code)
    end_us = read_moment(end, target="endTime", code=code)
    if start_us >= end_us:
        raise InvalidRequest(
            "startTime is not before endTime: swap them, or leave a span between them",
            code="InvalidDateTimesInEvaluationContract",
            target="startTime",
        )
    text = str(INTERVALS_MIN[0]) if interval is None else interval
    if text not in {str(each) for each in INTERVALS_MIN}:
        raise InvalidRequest(
            f"intervalInMinutes {text[:20]!r} is none of {', '.join(map(str, INTERVALS_MIN))}",
            code=code,
            target="intervalInMinutes",
        )
    kind = EXPANDING if window is None else window
    if kind not in {EXPANDING, ROLLING}:
        raise InvalidRequest(f"window {kind[:20]!r} is neither {EXPANDING} nor {ROLLING}", code=code, target="window")
    if (kind == EXPANDING) != (int(text) == INTERVALS_MIN[0]):
        raise InvalidRequest(
            f"window {kind} does not go with intervalInMinutes {text}: {EXPANDING} goes with 5, {ROLLING} with more",
            code=code,
            target="window",
        )
    return Cut(start_us, end_us, int(text), kind == EXPANDING)


def write_entry(study: Study) -> EvaluationEntry:
    """Write an evaluation as it stands in a list."""
    return EvaluationEntry(
        id=study.study_id,
        name=study.name,
        start_time=write_moment(study.start_us),
        end_time=write_moment(study.end_us),
        creation_time=write_moment(study.created_us),
        status=_concluded(study) or STATUS_2022[study.state],
        evaluation_type=_type_of(study),
    )


def _type_of(study: Study) -> str:
    return "Auto" if study.automatic else "Manual"


def _concluded(study: Study) -> str | None:
    """Say what an automatic optimization has made of an evaluation. None: nothing, or not yet."""
    if not study.concluded:
        return None
    return "OptimalPolicyApplied" if study.applied else "OnlinePolicyRetained"


def write_result(study: Study, findings: Findings | None, cut: Cut, *, with_details: bool) -> EvaluationResult:
    """Write an evaluation. Before it has succeeded, its content is there and holds nothing."""
    entry = write_entry(study)
    report = None if findings is None else findings.report
    content = EvaluationContent(NEVER, NEVER, 0, [])
    if report is not None:
        content = EvaluationContent(
            write_moment(cut.start_us),
            write_moment(cut.end_us),
            cut.interval_min,
            [_series(result, study, cut, with_details=with_details) for result in _by_slot(report.policies)],
        )
    return EvaluationResult(
        id=entry.id,
        name=entry.name,
        start_time=entry.start_time,
        end_time=entry.end_time,
        creation_time=entry.creation_time,
        status=entry.status,
        evaluation_type=entry.evaluation_type,
        optimal_policy=study.optimal,
        content=content,
        description=study.description or UNSET,
        rankward=UNSET if findings is None or report is None or not with_details else _details(findings, report),
    )


def _by_slot(results: Sequence[PolicyResult]) -> list[PolicyResult]:
    """Put the overall results first, then those of each slot."""
    return sorted(results, key=lambda result: result.slot_id)


def _series(result: PolicyResult, study: Study, cut: Cut, *, with_details: bool) -> PolicySeries:
    overall = overall_point(result, start_us=cut.start_us, end_us=cut.end_us)
    points = series(
        result,
        start_us=cut.start_us,
        end_us=cut.end_us,
        width_us=cut.interval_min * MINUTE_US,
        expanding=cut.expanding,
    )
    return PolicySeries(
        name=result.name,
        slot_id=result.slot_id,
        policy_source=result.source.value,
        summary=Overall(overall.expected_reward, [overall.interval.low, overall.interval.high]),
        timeseries=TimeSeries(
            [
                Moment(write_moment(each.time_us), each.expected_reward, [each.interval.low, each.interval.high])
                for each in points
            ]
        ),
        arguments=arguments_of(result, study.settings),
        rankward=_policy_details(result) if with_details else UNSET,
    )


# Applying


class PolicyReferenceContract(msgspec.Struct, rename="camel"):
    """A policy of an evaluation."""

    evaluation_id: Annotated[str, Meta(min_length=1, max_length=256)]
    policy_name: Annotated[str, Meta(min_length=1, max_length=256)]


_reference = msgspec.json.Decoder(PolicyReferenceContract)


def read_reference(body: bytes, *, code: str) -> PolicyReferenceContract:
    """Read which policy is to be applied.

    Raises:
        InvalidRequest: it cannot be used.
    """
    reference: PolicyReferenceContract = decode(_reference, body, code=code)
    return reference
