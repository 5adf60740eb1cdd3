"""The five published contracts as a table of our own: operations, and the members of what they take and answer.

A member is required if it has no default. `UNSET` says that it may be absent; null is nowhere in an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rankward.api.operation import ALL, P1, P2, P3, V1_0, V2022

Id = Annotated[str, Meta(max_length=256)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Reward = Annotated[float, Meta(ge=-1, le=1)]
Group = dict[str, Any]  # of features


class Shape(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """An object of the contract."""


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A finer code within an error. Its own name is spelled otherwise than its parent's."""

    code: str | UnsetType = UNSET
    innererror: Inner | UnsetType = UNSET


class Error(Shape):
    """What went wrong."""

    code: str
    message: str
    target: str | UnsetType = UNSET
    details: list[Error] | UnsetType = UNSET
    inner_error: Inner | UnsetType = UNSET


class ErrorResponse(Shape):
    """The body of every refusal."""

    error: Error


class RankableAction(Shape):
    """An option to choose from."""

    id: Id
    features: list[Group]


class RankRequest(Shape):
    """Body of Rank."""

    actions: list[RankableAction]
    context_features: list[Group] | UnsetType = UNSET
    excluded_actions: list[str] | UnsetType = UNSET
    event_id: Id | UnsetType = UNSET
    defer_activation: bool | UnsetType = UNSET


class RankedAction(Shape):
    """An action with its probability."""

    id: Id
    probability: Fraction


class FeatureContribution(Shape):
    """Part of an explanation."""

    name: str
    score: float


class InferenceExplanation(Shape):
    """What made the model choose: never published, and answered by the original all the same."""

    id: Id
    features: list[FeatureContribution]


class RankResponse(Shape):
    """Answer of Rank."""

    ranking: list[RankedAction]
    event_id: Id
    reward_action_id: Id
    inference_explanation: list[InferenceExplanation] | UnsetType = UNSET


class RewardRequest(Shape):
    """Body of Reward."""

    value: Reward


class SlotRequest(Shape):
    """A place to fill."""

    id: str
    baseline_action: str
    features: list[Group] | UnsetType = UNSET
    excluded_actions: list[str] | UnsetType = UNSET


class MultiSlotRankRequest(Shape):
    """Body of Rank for several slots."""

    actions: list[RankableAction]
    slots: list[SlotRequest]
    context_features: list[Group] | UnsetType = UNSET
    event_id: Id | UnsetType = UNSET
    defer_activation: bool | UnsetType = UNSET


class SlotResponse(Shape):
    """A place, filled."""

    id: Id
    reward_action_id: Id


class MultiSlotRankResponse(Shape):
    """Answer of Rank for several slots."""

    slots: list[SlotResponse]
    event_id: Id


class SlotReward(Shape):
    """What one slot was worth."""

    slot_id: Annotated[str, Meta(min_length=1, max_length=256)]
    value: Reward


class MultiSlotRewardRequest(Shape):
    """Body of Reward for several slots."""

    reward: list[SlotReward]


class ServiceConfiguration(Shape):
    """Settings of a loop, with the members of every version: one resource answers them all.

    `modelRetrainDays` is of the newest version and required there; the last member was never published.
    """

    reward_wait_time: timedelta
    default_reward: Reward
    reward_aggregation: Id
    exploration_percentage: Fraction
    model_export_frequency: timedelta
    log_retention_days: Annotated[int, Meta(ge=-1, le=2_147_483_647)]
    model_retrain_days: Annotated[int, Meta(ge=0, le=2_147_483_647)]
    log_mirror_enabled: bool | UnsetType = UNSET
    log_mirror_sas_uri: str | UnsetType = UNSET
    last_configuration_edit_date: datetime | UnsetType = UNSET
    learning_mode: Literal["Online", "Apprentice", "LoggingOnly"] | UnsetType = UNSET
    is_auto_optimization_enabled: bool | UnsetType = UNSET
    auto_optimization_frequency: timedelta | UnsetType = UNSET
    auto_optimization_start_date: datetime | UnsetType = UNSET
    is_inference_explainability_enabled: bool | UnsetType = UNSET


class PolicyContract(Shape):
    """A learning policy."""

    name: Id
    arguments: Annotated[str, Meta(max_length=1024)]


class PolicyReferenceContract(Shape):
    """Body of applyFromEvaluation."""

    evaluation_id: Id
    policy_name: Id


class DateRange(Shape):
    """What a log covers."""

    from_: datetime | UnsetType = msgspec.field(name="from", default=UNSET)
    to: datetime | UnsetType = UNSET


class LogsProperties(Shape):
    """Answer about the log."""

    date_range: DateRange | UnsetType = UNSET


class ModelProperties(Shape):
    """Answer about the model."""

    creation_time: datetime
    last_modified_time: datetime


class _EvaluationContract(Shape):
    name: Id
    start_time: datetime
    end_time: datetime
    policies: list[PolicyContract]


class EvaluationContract(_EvaluationContract):
    """Body that asks for an evaluation, until v1.1."""

    enable_offline_experimentation: bool | UnsetType = UNSET


class EvaluationContract2022(_EvaluationContract):
    """The same in the newest version."""

    enable_policy_optimization: bool | UnsetType = UNSET


class PolicyResultSummary(Shape):
    """Estimates of a policy's reward in a span of time, until v1.1."""

    time_stamp: datetime | UnsetType = UNSET
    ips_estimator_numerator: float | UnsetType = UNSET
    ips_estimator_denominator: float | UnsetType = UNSET
    snips_estimator_denominator: float | UnsetType = UNSET
    aggregate_time_window: timedelta | UnsetType = UNSET
    non_zero_probability: float | UnsetType = UNSET
    sum_of_squares: float | UnsetType = UNSET
    confidence_interval: float | UnsetType = UNSET
    average_reward: float | UnsetType = UNSET


PolicySource = Literal["Online", "Baseline", "Random", "Custom", "OfflineExperimentation"]


class PolicyResult(Shape):
    """What an evaluation found of a policy, until v1.1."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    policy_source: PolicySource | UnsetType = UNSET
    summary: list[PolicyResultSummary] | UnsetType = UNSET
    total_summary: PolicyResultSummary | UnsetType = UNSET


class Evaluation(Shape):
    """An evaluation, until v1.1."""

    id: Id
    name: Id
    start_time: datetime
    end_time: datetime
    status: Literal[
        "completed", "pending", "failed", "notSubmitted", "timeout", "optimalPolicyApplied", "onlinePolicyRetained"
    ]
    job_id: str | UnsetType = UNSET
    policy_results: list[PolicyResult] | UnsetType = UNSET
    feature_importance: list[list[str]] | UnsetType = UNSET
    evaluation_type: Literal["Manual", "Auto"] | UnsetType = UNSET
    optimal_policy: str | UnsetType = UNSET
    creation_time: datetime | UnsetType = UNSET


class Summary(Shape):
    """An estimate with its interval, in the newest version."""

    expected_reward: float | UnsetType = UNSET
    confidence_interval: list[float] | UnsetType = UNSET


class Data(Summary, kw_only=True):
    """The same at a moment."""

    time_stamp: datetime


class TimeSeries(Shape):
    """Estimates along time."""

    data: list[Data] | UnsetType = UNSET


class PolicyResult2022(Shape):
    """What an evaluation found of a policy, in the newest version."""

    name: str | UnsetType = UNSET
    slot_id: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    policy_source: PolicySource | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET
    timeseries: TimeSeries | UnsetType = UNSET


class EvaluationResult(Shape):
    """What an evaluation found, in the newest version."""

    start_time: datetime | UnsetType = UNSET
    end_time: datetime | UnsetType = UNSET
    interval_in_minutes: int | UnsetType = UNSET
    value: list[PolicyResult2022] | UnsetType = UNSET


class EvaluationDetails(Shape):
    """An evaluation in a list, in the newest version."""

    id: Id
    name: Id
    start_time: datetime
    end_time: datetime
    creation_time: datetime
    status: Literal[
        "Succeeded",
        "Running",
        "Failed",
        "NotSubmitted",
        "Timeout",
        "OptimalPolicyApplied",
        "OnlinePolicyRetained",
        "Canceled",
    ]
    evaluation_type: Literal["Manual", "Auto"]


class Evaluation2022(EvaluationDetails):
    """An evaluation by itself, in the newest version."""

    optimal_policy: str | UnsetType = UNSET
    content: EvaluationResult | UnsetType = UNSET
    description: str | UnsetType = UNSET


class Evaluations(Shape):
    """A page of evaluations."""

    value: list[EvaluationDetails]
    next_link: str | UnsetType = UNSET


class FeatureImportanceContract(Shape):
    """Body that asks for the importance of features."""

    name: Id
    start_time: datetime
    end_time: datetime


class FeatureImportanceDetails(Shape):
    """Importances in a list."""

    id: Id
    name: Id
    start_time: datetime
    end_time: datetime
    creation_time: datetime
    status: Literal["Succeeded", "Running", "Failed", "NotSubmitted", "Timeout", "Canceled"]


class FeatureScore(Shape):
    """How much a feature matters."""

    namespace: str
    feature_name: str
    score: float


class FeatureImportance(FeatureImportanceDetails):
    """Importances by themselves."""

    feature_scores: list[FeatureScore] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class FeatureImportances(Shape):
    """A page of importances."""

    value: list[FeatureImportanceDetails]
    next_link: str | UnsetType = UNSET


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as it was published."""

    method: str
    path: str  # below the version, ids in braces
    success: int
    request: Any = None  # type of the body; bytes: not JSON; None: it has none
    response: Any = None  # the same of the answer
    versions: tuple[str, ...] = ALL
    query: Mapping[str, str] = {}  # type by name, as JSON Schema has it, `api-version` left out

    @property
    def id(self) -> str:
        """Its name in this table."""
        return f"{self.method} {self.path}"


def _operation(call: str, success: int, **rest: Any) -> Published:
    method, path = call.split()
    return Published(method=method, path=path, success=success, **rest)


_V1 = (V1_0, P1, P2, P3)
_SINCE_P1 = (P1, P2, P3, V2022)
_SINCE_P2 = (P2, P3, V2022)
_SINCE_P3 = (P3, V2022)
_PAGES = {"top": "integer", "skip": "integer", "maxpagesize": "integer"}

PUBLISHED = (
    _operation("POST /rank", 201, request=RankRequest, response=RankResponse),
    _operation("POST /events/{eventId}/reward", 204, request=RewardRequest),
    _operation("POST /events/{eventId}/activate", 204),
    _operation(
        "POST /multislot/rank",
        201,
        request=MultiSlotRankRequest,
        response=MultiSlotRankResponse,
        versions=_SINCE_P1,
    ),
    _operation("POST /multislot/events/{eventId}/reward", 204, request=MultiSlotRewardRequest, versions=_SINCE_P1),
    _operation("POST /multislot/events/{eventId}/activate", 204, versions=_SINCE_P1),
    _operation("GET /configurations/service", 200, response=ServiceConfiguration),
    _operation("PUT /configurations/service", 200, request=ServiceConfiguration, response=ServiceConfiguration),
    _operation("GET /configurations/policy", 200, response=PolicyContract),
    _operation("PUT /configurations/policy", 200, request=PolicyContract, response=PolicyContract),
    _operation("DELETE /configurations/policy", 200, response=PolicyContract),
    _operation("POST /configurations/applyFromEvaluation", 204, request=PolicyReferenceContract, versions=_SINCE_P1),
    _operation("GET /evaluations", 200, response=list[Evaluation], versions=_V1),
    _operation("POST /evaluations", 201, request=EvaluationContract, response=Evaluation, versions=_V1),
    _operation("GET /evaluations/{evaluationId}", 200, response=Evaluation, versions=_V1),
    _operation("GET /evaluations", 200, response=Evaluations, versions=(V2022,), query={"filter": "string", **_PAGES}),
    _operation("PUT /evaluations/{evaluationId}", 200, request=EvaluationContract2022, versions=(V2022,)),
    _operation(
        "GET /evaluations/{evaluationId}",
        200,
        response=Evaluation2022,
        versions=(V2022,),
        query={"startTime": "string", "endTime": "string", "intervalInMinutes": "integer", "window": "string"},
    ),
    _operation("DELETE /evaluations/{evaluationId}", 204),
    _operation("GET /featureImportances", 200, response=FeatureImportances, versions=(V2022,), query=_PAGES),
    _operation(
        "PUT /featureImportances/{featureImportanceId}", 200, request=FeatureImportanceContract, versions=(V2022,)
    ),
    _operation("GET /featureImportances/{featureImportanceId}", 200, response=FeatureImportance, versions=(V2022,)),
    _operation("DELETE /featureImportances/{featureImportanceId}", 204, versions=(V2022,)),
    _operation("GET /logs/properties", 200, response=LogsProperties),
    _operation("DELETE /logs", 204),
    _operation("POST /logs/interactions", 204, request=bytes, versions=_SINCE_P2),
    _operation("POST /logs/observations", 204, request=bytes, versions=_SINCE_P2),
    _operation("PUT /model", 204, request=bytes, versions=_SINCE_P3),
    _operation("GET /model", 200, response=bytes, versions=(V1_0, P1, P2)),
    _operation("GET /model", 200, response=bytes, versions=_SINCE_P3, query={"signed": "boolean"}),
    _operation("DELETE /model", 204),
    _operation("GET /model/properties", 200, response=ModelProperties),
)
"""Every operation that was ever published."""

STATUS_BY_CODE = {
    "BadRequest": 400,
    "InvalidServiceConfiguration": 400,
    "InvalidLearningModeServiceConfiguration": 400,
    "InvalidPolicyConfiguration": 400,
    "InvalidPolicyContract": 400,
    "InvalidEvaluationContract": 400,
    "InvalidDateTimesInEvaluationContract": 400,
    "InvalidContract": 400,
    "DuplicateCustomPolicyNames": 400,
    "MaximumEvaluationCustomPoliciesExceeded": 400,
    "NoLogsExistInDateRange": 400,
    "LogsSizeExceedAllowedLimit": 400,
    "InvalidRewardRequest": 400,
    "InvalidEventIdToActivate": 400,
    "InvalidRankRequest": 400,
    "InvalidExportLogsRequest": 400,
    "InvalidRequest": 400,
    "InvalidContainer": 400,
    "InvalidSasUri": 400,
    "InvalidModelMetadata": 400,
    "ApprenticeModeNeverTurnedOn": 400,
    "MissingAppId": 400,
    "InvalidRewardWaitTime": 400,
    "InvalidSingleTenantEventHubRewardWaitTime": 400,
    "InvalidLogRetentionDays": 400,
    "InvalidModelRetrainDays": 400,
    "InvalidMultiSlotApiAccess": 400,
    "InvalidMultiStepApiAccess": 400,
    "InvalidEpisode": 400,
    "InvalidEpisodeDepth": 400,
    "PayloadSizeExceeded": 400,
    "InvalidModelImportSignature": 400,
    "InvalidModelImportFormat": 400,
    "EvaluationAlreadyExists": 400,
    "FeatureImportanceAlreadyExists": 400,
    "InvalidApiAccess": 403,
    "ModelFileAccessDenied": 403,
    "ProblemTypeIncompatibleWithAutoOptimization": 403,
    "ResourceNotFound": 404,
    "FrontEndNotFound": 404,
    "EvaluationNotFound": 404,
    "FeatureImportanceNotFound": 404,
    "LearningSettingsNotFound": 404,
    "EvaluationModelNotFound": 404,
    "LogsPropertiesNotFound": 404,
    "IncompatibleEvaluationVersion": 405,
    "RequestTimeout": 408,
    "ModelRankingError": 409,
    "InternalServerError": 500,
    "RankNullResponse": 500,
    "UpdateConfigurationFailed": 500,
    "ModelResetFailed": 500,
    "ModelPublishFailed": 500,
    "ModelMetadataUpdateFailed": 500,
    "ModelDownloadFailed": 500,
    "InferenceModelUpdateFailed": 500,
    "EvaluationsGetListFailed": 500,
    "OperationNotAllowed": 503,
}
"""Every code of an error that the original knew, with its status."""


def on_the_wire(code: str) -> str:
    """Write a code as answers have it, though the published lists capitalise it."""
    return code[:1].lower() + code[1:]
