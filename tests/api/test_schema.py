"""The wire shapes, as read and written without any HTTP."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankward.api.schema import configuration, model, ranking
from rankward.errors import CallerError, InvalidRequest, InvalidSettings
from rankward.ranking.decide import RankRequest
from rankward.ranking.features import FeatureBounds
from rankward.records import Action, Features, Interaction, LearningMode
from rankward.settings import Aggregation, Limits, LoopSettings
from tests.service import request

BODY = request("pasta", "ramen", "salad")


def read(body: Any) -> tuple[RankRequest, bool]:
    """Read a body of Rank."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ranking.read_rank(raw, limits=Limits(), bounds=FeatureBounds())


def test_actions_are_read_in_request_order() -> None:
    """The first one not excluded is the baseline, so the order means something."""
    rank_request, _ = read(BODY)

    assert [action.id for action in rank_request.actions] == ["pasta", "ramen", "salad"]
    assert rank_request.context == b'[{"visitor":{"device":"phone"}}]'


@pytest.mark.parametrize("misfit", [{"id": 7, "features": [{"a": 1}]}, {"id": "x"}, 7])
def test_an_action_that_does_not_fit_is_found_in_the_body(misfit: object) -> None:
    """Actions are read one by one, but the caller knows only the body."""
    with pytest.raises(InvalidRequest, match=r"\$\.actions\[1\]"):
        read({"actions": [BODY["actions"][0], misfit]})


def test_features_of_a_known_action_are_read_anew_when_they_change() -> None:
    """Actions are remembered by what was sent of them, not by their id."""
    action = {"id": "pasta", "features": [{"dish": {"veg": True}}]}
    other = {"id": "pasta", "features": [{"dish": {"veg": False}}]}

    first, _ = read({"actions": [action]})
    second, _ = read({"actions": [other]})

    assert first.actions[0].features != second.actions[0].features


@pytest.mark.parametrize("member", ["contextFeatures", "excludedActions", "eventId", "deferActivation"])
def test_null_is_as_good_as_absent(member: str) -> None:
    """The generated clients send null for what was not given."""
    body = {name: value for name, value in BODY.items() if name != member}

    assert read({**body, member: None}) == read(body)


def test_unknown_members_are_ignored() -> None:
    """A client that is newer than the service must not be refused."""
    extended = {**BODY, "explain": True, "actions": [{**action, "price": 3} for action in BODY["actions"]]}

    assert read(extended) == read(BODY)


def test_an_event_without_a_name_is_told_apart() -> None:
    """Only an event that the caller named can have come before."""
    assert read(BODY)[1] is False
    assert read({**BODY, "eventId": "e1"})[1] is True


def test_excluded_actions_become_places() -> None:
    """Ids that no action has are ignored, as nothing else was ever published."""
    rank_request, _ = read({**BODY, "excludedActions": ["salad", "nobody", "pasta", None, "salad"]})

    assert rank_request.excluded == (0, 2)


@pytest.mark.parametrize(
    ("members", "target", "reason"),
    [
        ({"actions": []}, "actions", "ActionCountOutOfBounds"),
        ({"actions": request(*map(str, range(51)))["actions"]}, "actions", "ActionCountOutOfBounds"),
        ({"actions": request("a", "b", "a")["actions"]}, "actions", "DuplicateActionId"),
        ({"actions": [BODY["actions"][0], None]}, "actions[1]", None),
        ({"actions": [{"id": "a", "features": []}]}, "actions[0].features", None),
        ({"actions": [{"id": "a", "features": [{}, None]}]}, "actions[0].features", None),
        ({"actions": [{"id": "a", "features": [{"x": ["y"]}]}]}, "actions[0].features[0].x[0]", None),
        ({"contextFeatures": [{"": 1}]}, 'contextFeatures[0].""', None),
        ({"contextFeatures": {"a": 1}}, "contextFeatures", None),
        ({"eventId": ""}, "eventId", None),
        ({"eventId": "e" * 257}, "eventId", None),
        ({"excludedActions": ["pasta", "ramen", "salad"]}, "excludedActions", None),
    ],
)
def test_a_refusal_names_the_member_at_fault(members: dict[str, Any], target: str, reason: str | None) -> None:
    """A request of fifty actions is not to be searched by hand."""
    with pytest.raises(InvalidRequest) as refused:
        read({**BODY, **members})

    assert (refused.value.code, refused.value.target, refused.value.reason) == ("InvalidRankRequest", target, reason)


def interaction(**changes: Any) -> Interaction:
    """A decision among three actions, of which the second is excluded."""
    actions = tuple(Action(name, Features(b'[{"x":1}]')) for name in ("pasta", "ramen", "salad"))
    return msgspec.structs.replace(
        Interaction(
            event_id="e1",
            context=Features(b"[]"),
            actions=actions,
            excluded=(1,),
            pmf=(0.1, 0.0, 0.9),
            chosen=2,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=1,
        ),
        **changes,
    )


def test_the_answer_of_rank_has_the_contracts_shape() -> None:
    """The example of the contract: an excluded action keeps its index with probability 0."""
    assert json.loads(ranking.write_rank(interaction())) == {
        "ranking": [
            {"id": "salad", "probability": 0.9},
            {"id": "ramen", "probability": 0.0},
            {"id": "pasta", "probability": 0.1},
        ],
        "eventId": "e1",
        "rewardActionId": "salad",
    }


def test_probabilities_have_single_precision() -> None:
    """As the original's had: 0.8666667, not 0.8666666666666667."""
    answer = ranking.write_rank(interaction(excluded=(), pmf=(13 / 15, 1 / 15, 1 / 15), chosen=0))

    assert b'"probability":0.8666667}' in answer


@given(st.floats(0, 1))
def test_probabilities_are_rounded_to_the_nearest_of_seven_places(probability: float) -> None:
    """As `round` does, but for what lies just between two."""
    answer = ranking.write_rank(interaction(excluded=(), pmf=(probability, 1 - probability, 0.0), chosen=0))
    written = json.loads(answer)["ranking"][0]["probability"]

    assert written == round(written, 7)
    assert abs(written - probability) <= 0.5000001e-7


@pytest.mark.parametrize(("body", "value"), [(b'{"value": 1}', 1.0), (b'{"value":-0.5,"note":"x"}', -0.5)])
def test_a_reward_is_a_number(body: bytes, value: float) -> None:
    """Whole numbers too, and with whatever else a client sends."""
    assert ranking.read_reward(body, limits=Limits()) == (value, None)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"value":null}', b'{"value":"1"}', b'{"value":true}', b'{"value":1.01}', b'{"value":1e999}', b"[1]"],
)
def test_a_reward_that_is_none_is_refused(body: bytes) -> None:
    """It must never become 0 or 1 by accident: it would be learned."""
    with pytest.raises(InvalidRequest) as refused:
        ranking.read_reward(body, limits=Limits())

    assert refused.value.code == "InvalidRewardRequest"


@pytest.mark.parametrize(
    ("wire", "changes"),
    [
        ({"rewardWaitTime": "PT5S"}, {"reward_wait": timedelta(seconds=5)}),
        ({"rewardWaitTime": "00:10:00"}, {"reward_wait": timedelta(minutes=10)}),
        ({"rewardWaitTime": "1.02:00:00"}, {"reward_wait": timedelta(days=1, hours=2)}),
        ({"autoOptimizationFrequency": "P28D"}, {"auto_optimization_frequency": timedelta(days=28)}),
        ({"rewardAggregation": "SUM"}, {"reward_aggregation": Aggregation.SUM}),
        ({"learningMode": "apprentice"}, {"learning_mode": LearningMode.APPRENTICE}),
        ({"defaultReward": 1}, {"default_reward": 1.0}),
        ({"explorationPercentage": 0.20000000298023224}, {"exploration": 0.20000000298023224}),
        ({"logRetentionDays": 2147483647}, {"log_retention_days": 2147483647}),
        (
            {"autoOptimizationStartDate": "2019-01-19T00:00:00+02:00"},
            {"auto_optimization_start_date": "2019-01-19T00:00:00+02:00"},
        ),
        ({"autoOptimizationStartDate": "2022-09-20"}, {"auto_optimization_start_date": "2022-09-20T00:00:00Z"}),
        ({"autoOptimizationStartDate": "20220920T10"}, {"auto_optimization_start_date": "2022-09-20T10:00:00Z"}),
        ({"lastConfigurationEditDate": "2020-01-01T00:00:00", "whatever": [1]}, {}),
        ({"learningMode": None, "logMirrorSasUri": None}, {}),
    ],
)
def test_a_configuration_is_read_as_clients_write_it(wire: dict[str, Any], changes: dict[str, Any]) -> None:
    """Old traffic has other durations, new traffic has members that we do not know."""
    assert configuration.read_settings(json.dumps(wire).encode()) == changes


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ({"rewardWaitTime": 600}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "ten minutes"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "P1M"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "99999999999d"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "999999999999:00:00"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": True}, "InvalidRewardWaitTime"),
        ({"explorationPercentage": "a lot"}, "InvalidServiceConfiguration"),
        ({"explorationPercentage": "NaN"}, "InvalidServiceConfiguration"),
        ({"explorationPercentage": True}, "InvalidServiceConfiguration"),
        ({"defaultReward": "-inf"}, "InvalidServiceConfiguration"),
        ({"defaultReward": 10**400}, "InvalidServiceConfiguration"),
        ({"rewardAggregation": "mean"}, "InvalidServiceConfiguration"),
        ({"rewardAggregation": 1}, "InvalidServiceConfiguration"),
        ({"learningMode": "Offline"}, "InvalidServiceConfiguration"),
        ({"logRetentionDays": 1.5}, "InvalidLogRetentionDays"),
        ({"logMirrorEnabled": "true"}, "InvalidServiceConfiguration"),
        ({"autoOptimizationStartDate": "soon"}, "InvalidServiceConfiguration"),
        ({"autoOptimizationStartDate": "0001-01-01T00+05:00"}, "InvalidServiceConfiguration"),
    ],
)
def test_a_member_of_the_wrong_type_is_refused_by_name(wire: dict[str, Any], code: str) -> None:
    """A number that is none would be stored, and break every decision after it."""
    with pytest.raises(InvalidSettings) as refused:
        configuration.read_settings(json.dumps(wire).encode())

    assert (refused.value.code, refused.value.target) == (code, next(iter(wire)))


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes long on a machine that is busy
@given(
    st.dictionaries(
        st.sampled_from(sorted(configuration._WIRE_NAMES)), st.none() | st.booleans() | st.text() | st.integers()
    )
)
def test_whatever_a_configuration_holds_it_is_read_or_refused(wire: dict[str, Any]) -> None:
    """Anything else would be answered as a mistake of our own."""
    try:
        changes = configuration.read_settings(msgspec.json.encode(wire))
    except CallerError:
        return
    assert all(not isinstance(value, float) or math.isfinite(value) for value in changes.values())


def test_an_untouched_loop_shows_the_originals_settings() -> None:
    """As recorded of the live service: durations in ISO, no zone on dates, nothing that is unset."""
    assert json.loads(configuration.write_settings(LoopSettings())) == {
        "rewardWaitTime": "PT10M",
        "defaultReward": 0.0,
        "rewardAggregation": "earliest",
        "explorationPercentage": 0.2,
        "modelExportFrequency": "PT5M",
        "logRetentionDays": 90,
        "modelRetrainDays": 2,
        "learningMode": "Online",
        "logMirrorEnabled": False,
        "isAutoOptimizationEnabled": False,
        "autoOptimizationFrequency": "P28D",
        "isInferenceExplainabilityEnabled": False,
        "lastConfigurationEditDate": "0001-01-01T00:00:00",
    }


def test_moments_are_written_as_the_clients_read_them() -> None:
    """Configurations without a zone, model properties with one."""
    moment = datetime(2026, 1, 15, 12, tzinfo=UTC)

    assert configuration.wire_time(moment) == "2026-01-15T12:00:00"
    assert model.model_time(round(moment.timestamp() * 1e6)) == "2026-01-15T12:00:00+00:00"
    assert model.model_time(None) == "0001-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "wire", [b"", b"[]", b'{"name": "x"}', b'{"name": null, "arguments": ""}', b'{"name": "x", "arguments": 1}']
)
def test_a_policy_that_is_malformed_is_refused(wire: bytes) -> None:
    """Both members are required."""
    with pytest.raises(InvalidRequest) as refused:
        configuration.read_policy(wire)

    assert refused.value.code in {"BadRequest", "InvalidPolicyContract"}
