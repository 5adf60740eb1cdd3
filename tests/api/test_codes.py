"""Every code that the original knew: which case raises it here, or why none can."""

from __future__ import annotations

import importlib

import pytest

from tests.api.bad_input import CASES
from tests.api.contract import STATUS_BY_CODE, on_the_wire

BY_CASE = {
    "BadRequest": "rank: no body",
    "InvalidServiceConfiguration": "settings: exploration above 1",
    "InvalidLearningModeServiceConfiguration": "settings: a mode with a wait",
    "InvalidPolicyConfiguration": "policy: an option that writes",
    "InvalidPolicyContract": "policy: no arguments",
    "InvalidEvaluationContract": "evaluation: nothing in it",
    "InvalidDateTimesInEvaluationContract": "evaluation: an end before its start",
    "InvalidContract": "importance: nothing in it",
    "DuplicateCustomPolicyNames": "evaluation: two policies of one name",
    "MaximumEvaluationCustomPoliciesExceeded": "evaluation: eleven policies",
    "NoLogsExistInDateRange": "evaluation: a span without a log",
    "InvalidRewardRequest": "reward: above 1",
    "InvalidEventIdToActivate": "activate: an event id too long",
    "InvalidRankRequest": "rank: 51 actions",
    "InvalidRequest": "interactions: cut short",
    "InvalidContainer": "mirror: without a signature",
    "InvalidSasUri": "mirror by its newer name: without a signature",
    "InvalidRewardWaitTime": "settings: a wait of nothing",
    "InvalidLogRetentionDays": "settings: retention too short",
    "InvalidModelRetrainDays": "settings: retraining beyond retention",
    "InvalidMultiSlotApiAccess": "slots: a policy for one",
    "InvalidModelImportSignature": "model: not signed",
    "InvalidModelImportFormat": "model: text",
    "EvaluationNotFound": "evaluation: unknown",
    "FeatureImportanceNotFound": "importance: unknown",
}
"""Case of bad input by code."""

BY_TEST = {
    "PayloadSizeExceeded": "test_transport.test_a_body_beyond_the_bound_is_refused",
    "InvalidApiAccess": "test_model.test_a_loop_can_be_closed_to_uploads",
    "ProblemTypeIncompatibleWithAutoOptimization": "test_multislot.test_slots_and_auto_optimization_exclude_each_other",
    "ResourceNotFound": "test_transport.test_the_admin_key_opens_every_loop_that_is_named",
    "FrontEndNotFound": "test_transport.test_the_admin_key_opens_every_loop_that_is_named",
    "ModelRankingError": "test_errors.test_every_error_has_its_status_and_code",
    "InternalServerError": "test_errors.test_a_mistake_of_our_own_says_nothing_of_itself",
    "LogsSizeExceedAllowedLimit": "test_bad_evaluations.test_too_much_of_a_log_is_refused",
    "EvaluationAlreadyExists": "test_evaluations.test_the_newest_version_creates_under_the_callers_id",
    "FeatureImportanceAlreadyExists": "test_importances.test_features_are_scored_from_the_best_down",
    "LearningSettingsNotFound": "test_evaluations.test_what_cannot_be_applied_is_refused_by_name",
    "EvaluationModelNotFound": "test_evaluations.test_what_cannot_be_applied_is_refused_by_name",
    "OperationNotAllowed": "test_errors.test_overload_is_answered_with_when_to_try_again",
}
"""Test by code, where it takes more than one bad request."""

NEVER = {
    "InvalidExportLogsRequest": "no operation exports logs: the original reserved the code for one",
    "InvalidModelMetadata": "models have no metadata to set: the contract that had them was withdrawn",
    "ModelPublishFailed": "the same contract's: models are published without being asked",
    "ModelMetadataUpdateFailed": "the same contract's",
    "ApprenticeModeNeverTurnedOn": "the metrics of apprentice mode were never a published operation",
    "MissingAppId": "there is no gateway that could leave the loop's id out: without a key the answer is 401",
    "InvalidSingleTenantEventHubRewardWaitTime": "no event hub bounds the wait",
    "InvalidMultiStepApiAccess": "multi-step decisions were never public",
    "InvalidEpisode": "multi-step decisions were never public",
    "InvalidEpisodeDepth": "multi-step decisions were never public",
    "ModelFileAccessDenied": "there is no key of a customer's own between the service and its models",
    "LogsPropertiesNotFound": "an empty log is answered with an empty object, as the original did in the end",
    "IncompatibleEvaluationVersion": "an evaluation is kept in one form, and is read through every version",
    "RequestTimeout": "no request is given up: what waits for the disk is bounded, and refused beforehand",
    "RankNullResponse": "a decision that cannot be made is a ModelRankingError",
    "UpdateConfigurationFailed": "a store that fails is answered with OperationNotAllowed, which clients try again",
    "ModelResetFailed": "the same",
    "ModelDownloadFailed": "the same",
    "InferenceModelUpdateFailed": "a model that does not load is tried again, and the old one serves meanwhile",
    "EvaluationsGetListFailed": "a store that fails is answered with OperationNotAllowed, which clients try again",
}
"""Why no request can raise a code."""


def test_every_code_of_the_catalogue_is_accounted_for() -> None:
    """Once each: nobody has to wonder whether one was forgotten."""
    groups = [set(BY_CASE), set(BY_TEST), set(NEVER)]

    assert set.union(*groups) == STATUS_BY_CODE.keys()
    assert sum(map(len, groups)) == len(STATUS_BY_CODE)


@pytest.mark.parametrize(("code", "name"), BY_CASE.items())
def test_a_code_is_raised_by_the_case_that_stands_for_it(code: str, name: str) -> None:
    """With the status that it always had."""
    assert CASES[name].code == on_the_wire(code)
    assert CASES[name].status == STATUS_BY_CODE[code]


@pytest.mark.parametrize(("code", "place"), BY_TEST.items())
def test_a_code_that_no_single_request_raises_has_a_test(code: str, place: str) -> None:
    """Where it is said to be."""
    module, name = place.split(".")

    assert hasattr(importlib.import_module(f"tests.api.{module}"), name), code


def test_no_case_has_a_code_that_is_said_never_to_occur() -> None:
    """Nor one that is not in the catalogue, the gateway's apart."""
    raised = {case.code for case in CASES.values() if not case.code.isdigit()}

    assert not raised & set(map(on_the_wire, NEVER))
    assert raised <= set(map(on_the_wire, STATUS_BY_CODE))
