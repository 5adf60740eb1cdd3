"""The service configuration over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rankward.records import SettingsChange
from tests.service import request

if TYPE_CHECKING:
    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow

PATH = "/configurations/service"
UNTOUCHED = {
    "rewardWaitTime": "PT10M",
    "defaultReward": 0.0,
    "rewardAggregation": "earliest",
    "explorationPercentage": 0.2,
    "modelExportFrequency": "PT5M",
    "logRetentionDays": 90,
    "lastConfigurationEditDate": "0001-01-01T00:00:00",
    "learningMode": "Online",
    "autoOptimizationFrequency": "P28D",
}


@pytest.fixture
def loop(service: RunningService) -> LoopClient:
    """A loop of one's own."""
    return service.new_loop()


def test_an_untouched_loop_answers_the_originals_settings(loop: LoopClient) -> None:
    """As recorded of the live service; members that are unset are left out."""
    answer = loop.get(PATH)

    assert answer.status_code == 200
    assert UNTOUCHED.items() <= answer.json().items()
    assert None not in answer.json().values()
    assert not {"logMirrorSasUri", "autoOptimizationStartDate"} & answer.json().keys()


def test_members_left_out_stay_as_they_are(loop: LoopClient) -> None:
    """As recorded: mode, optimization and its frequency survive the PUT of a client that does not know them."""
    loop.put(PATH, {"learningMode": "Apprentice", "autoOptimizationFrequency": "P7D"})

    answer = loop.put(PATH, {"rewardWaitTime": "PT4H", "defaultReward": 0.25})

    assert answer.status_code == 200
    expected = {"learningMode": "Apprentice", "autoOptimizationFrequency": "P7D", "rewardWaitTime": "PT4H"}
    assert expected.items() <= answer.json().items()
    assert answer.json() == loop.get(PATH).json()


def test_an_empty_object_changes_nothing(service: RunningService, loop: LoopClient) -> None:
    """And is not worth a line in the log."""
    before = loop.get(PATH).json()

    assert loop.put(PATH, {}).json() == before
    assert service.records(loop.loop) == []


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("PT5S", "PT5S"),
        ("PT1M", "PT1M"),
        ("PT4H", "PT4H"),
        ("PT240M", "PT4H"),
        ("00:10:00", "PT10M"),
        ("04:00:00", "PT4H"),
        ("1.00:00:00", "P1D"),
        ("P2D", "P2D"),
    ],
)
def test_durations_come_in_either_notation_and_go_out_in_iso(loop: LoopClient, sent: str, answered: str) -> None:
    """The Python client cannot parse anything else."""
    assert loop.put(PATH, {"rewardWaitTime": sent}).json()["rewardWaitTime"] == answered


@pytest.mark.parametrize(
    "members",
    [
        {"modelExportFrequency": "PT3M"},
        {"modelExportFrequency": "PT3H"},
        {"logRetentionDays": -1},
        {"logRetentionDays": 100},
        {"logRetentionDays": 2147483647},
        {"rewardAggregation": "average"},
        {"rewardAggregation": "median"},
        {"rewardAggregation": "max"},
        {"defaultReward": -1.0},
        {"explorationPercentage": 0.0},
        {"explorationPercentage": 1.0},
        {"isAutoOptimizationEnabled": True},
        {"autoOptimizationStartDate": "2019-01-19T00:00:00Z"},
        {"autoOptimizationStartDate": "2021-06-30T00:00:00"},
        {"logMirrorSasUri": "https://store.invalid/logs?sig=x"},
        {"isInferenceExplainabilityEnabled": True},
        {"modelRetrainDays": 30},
    ],
)
def test_values_on_record_are_taken_and_echoed(loop: LoopClient, members: dict[str, Any]) -> None:
    """All of them were accepted by the live service; the start date comes back as it was sent."""
    answer = loop.put(PATH, members)

    assert answer.status_code == 200
    assert members.items() <= answer.json().items()


def test_a_bare_date_is_answered_as_a_moment(loop: LoopClient) -> None:
    """Clients may send one, and the typed ones read moments only."""
    answer = loop.put(PATH, {"autoOptimizationStartDate": "2022-09-20"})

    assert answer.json()["autoOptimizationStartDate"] == "2022-09-20T00:00:00Z"


@pytest.mark.parametrize(
    ("members", "code", "target"),
    [
        ({"rewardWaitTime": "PT0S"}, "invalidRewardWaitTime", "rewardWaitTime"),
        ({"rewardWaitTime": "P1M"}, "invalidRewardWaitTime", "rewardWaitTime"),
        ({"rewardWaitTime": "99999999999d"}, "invalidRewardWaitTime", "rewardWaitTime"),
        ({"logRetentionDays": 1}, "invalidLogRetentionDays", "logRetentionDays"),
        ({"rewardWaitTime": "P2D", "logRetentionDays": 2}, "invalidLogRetentionDays", "logRetentionDays"),
        ({"modelRetrainDays": 91}, "invalidModelRetrainDays", "modelRetrainDays"),
        ({"explorationPercentage": 1.5}, "invalidServiceConfiguration", "explorationPercentage"),
        ({"explorationPercentage": "NaN"}, "invalidServiceConfiguration", "explorationPercentage"),
        ({"defaultReward": 2}, "invalidServiceConfiguration", "defaultReward"),
        ({"rewardAggregation": "mode"}, "invalidServiceConfiguration", "rewardAggregation"),
        ({"modelExportFrequency": "PT0S"}, "invalidServiceConfiguration", "modelExportFrequency"),
        ({"learningMode": "Apprentice", "defaultReward": 1}, "invalidLearningModeServiceConfiguration", "learningMode"),
        (
            {"learningMode": "LoggingOnly", "rewardWaitTime": "PT1H"},
            "invalidLearningModeServiceConfiguration",
            "learningMode",
        ),
    ],
)
def test_a_refused_change_changes_nothing(loop: LoopClient, members: dict[str, Any], code: str, target: str) -> None:
    """Not even the members that were in order."""
    before = loop.get(PATH).json()

    answer = loop.put(PATH, {"logMirrorEnabled": True, **members})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["target"] == target
    assert loop.get(PATH).json() == before


def test_what_was_read_can_be_written_back(loop: LoopClient) -> None:
    """Clients read, modify and write the whole object, mode included."""
    body = loop.get(PATH).json()

    answer = loop.put(PATH, {**body, "learningMode": "Apprentice"})

    assert answer.status_code == 200
    assert answer.json() == {**body, "learningMode": "Apprentice"}


def test_the_last_edit_is_the_services_to_say(loop: LoopClient) -> None:
    """What a client sends for it is ignored; it moves with a change that matters to training, and shows no zone."""
    kept = loop.put(PATH, {"lastConfigurationEditDate": "2020-01-01T00:00:00", "logRetentionDays": 30}).json()
    edited = loop.put(PATH, {"defaultReward": 0.5}).json()

    assert kept["lastConfigurationEditDate"] == "0001-01-01T00:00:00"
    assert edited["lastConfigurationEditDate"] > "2026"
    assert len(edited["lastConfigurationEditDate"]) == len("2026-01-15T12:00:00")


def test_all_versions_show_the_same_loop(loop: LoopClient) -> None:
    """A loop configured through one version is visible through the others."""
    loop.at("v1.1-preview.3").put(PATH, {"rewardAggregation": "sum"})

    assert loop.at("v1.0").get(PATH).json() == loop.at("v1.1-preview.1").get(PATH).json()
    assert loop.get(PATH).json()["rewardAggregation"] == "sum"


def test_a_change_is_a_line_of_the_log(service: RunningService, loop: LoopClient) -> None:
    """The log is the truth: what an event was decided under can be read from it."""
    loop.rank(request("a", "b", eventId="before"))
    loop.put(PATH, {"rewardWaitTime": "PT1H"})
    loop.rank(request("a", "b", eventId="after"))

    before, change, after = service.records(loop.loop)
    assert isinstance(change, SettingsChange)
    assert (before.reward_wait_us, after.reward_wait_us) == (600_000_000, 3_600_000_000)
    assert change.cause == "changed by hand"
