"""Everything a caller can get wrong: each gets the right status, the contract's code, and words that help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.service import KEY_HEADER, LoopClient, request

if TYPE_CHECKING:
    import httpx

    from tests.service import RunningService

pytestmark = pytest.mark.slow

GOOD = request("a", "b")
FEATURES = [{"x": 1}]
RANK = "invalidRankRequest"


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop that must stay empty: nothing of what is refused here may reach its log."""
    return service.new_loop()


def with_members(**members: Any) -> bytes:
    """A good body of Rank, but for these members."""
    return json.dumps({**GOOD, **members}).encode()


def with_action(**members: Any) -> bytes:
    """A good body of Rank, but for these members of its second action."""
    actions = [GOOD["actions"][0], {**GOOD["actions"][1], **members}]
    return with_members(actions=actions)


def with_features(text: str) -> bytes:
    """A good body of Rank, but for its first action's features, which are this text."""
    return b'{"actions":[{"id":"a","features":' + text.encode() + b'},{"id":"b","features":[{"x":1}]}]}'


def with_context(text: str) -> bytes:
    """A good body of Rank, but for its context, which is this text."""
    return b'{"actions":[{"id":"a","features":[{"x":1}]}],"contextFeatures":' + text.encode() + b"}"


def nested(levels: int) -> str:
    """An array with an object that nests so deeply."""
    return "[" + '{"x":' * levels + "1" + "}" * levels + "]"


RANKS: dict[str, tuple[bytes, str, str]] = {
    # The body as a whole: what it is, the code, and a word that the message must have.
    "no body": (b"", "badRequest", "JSON"),
    "white space": (b" \n ", "badRequest", "JSON"),
    "cut short": (b'{"actions":[', "badRequest", "JSON"),
    "two documents": (json.dumps(GOOD).encode() * 2, "badRequest", "JSON"),
    "a comma too many": (b'{"actions":[],}', "badRequest", "JSON"),
    "single quotes": (b"{'actions':[]}", "badRequest", "JSON"),
    "not UTF-8": (b'{"actions":[{"id":"\xff\xfe","features":[{"x":1}]}]}', "badRequest", "JSON"),
    "UTF-16": ('{"actions":[]}'.encode("utf-16"), "badRequest", "JSON"),
    "a lone surrogate": (b'{"actions":[{"id":"\\ud800","features":[{"x":1}]}]}', "badRequest", "JSON"),
    "a form": (b"actions=a&actions=b", "badRequest", "JSON"),
    "XML": (b"<rank/>", "badRequest", "JSON"),
    "null": (b"null", RANK, "object"),
    "an array": (b"[]", RANK, "object"),
    "a string": (b'"rank"', RANK, "object"),
    "a number": (b"7", RANK, "object"),
    "nothing in it": (b"{}", RANK, "actions"),
    "a thousand levels": (b'{"actions":' + b"[" * 1_000 + b"]" * 1_000 + b"}", RANK, "nested too deeply"),
    "a hundred thousand levels": (b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}", RANK, ""),
    # Actions
    "no actions": (with_members(actions=[]), RANK, "1 to 50"),
    "51 actions": (with_members(actions=request(*map(str, range(51)))["actions"]), RANK, "1 to 50"),
    "9000 actions": (with_members(actions=[{"id": str(n), "features": FEATURES} for n in range(9_000)]), RANK, "9000"),
    "actions null": (with_members(actions=None), RANK, "array"),
    "actions an object": (with_members(actions={"a": 1}), RANK, "array"),
    "an action null": (with_members(actions=[GOOD["actions"][0], None]), RANK, "null"),
    "an action a string": (with_members(actions=["a", "b"]), RANK, "object"),
    "the same id twice": (with_members(actions=request("a", "b", "a")["actions"]), RANK, "same id"),
    "an id empty": (with_action(id=""), RANK, "id is empty"),
    "an id too long": (with_action(id="x" * 257), RANK, "256"),
    "an id null": (with_action(id=None), RANK, "str"),
    "an id a number": (with_action(id=7), RANK, "str"),
    "no id": (with_members(actions=[{"features": FEATURES}]), RANK, "id"),
    "no features": (with_members(actions=[{"id": "a"}]), RANK, "features"),
    "features null": (with_action(features=None), RANK, "no feature"),
    "features empty": (with_action(features=[]), RANK, "no feature"),
    "features empty objects": (with_action(features=[{}, None, {}]), RANK, "no feature"),
    "features an object": (with_action(features={"x": 1}), RANK, "array"),
    "features a string": (with_action(features="x"), RANK, "array"),
    "features strings": (with_action(features=["x", "y"]), RANK, "object"),
    # Features
    "a list of strings": (with_features('[{"tags":["spicy","new"]}]'), RANK, "numbers only"),
    "a list of booleans": (with_features('[{"tags":[true]}]'), RANK, "numbers only"),
    "a list of objects": (with_features('[{"tags":[{"x":1}]}]'), RANK, "numbers only"),
    "a list of lists": (with_features('[{"tags":[[1]]}]'), RANK, "numbers only"),
    "a list with null": (with_features('[{"tags":[1,null]}]'), RANK, "numbers only"),
    "NaN": (with_features('[{"x":NaN}]'), "badRequest", "JSON"),
    "Infinity": (with_features('[{"x":Infinity}]'), "badRequest", "JSON"),
    "minus infinity": (with_features('[{"x":-Infinity}]'), "badRequest", "JSON"),
    "a number beyond a double": (with_features('[{"x":1e999}]'), RANK, "outside"),
    "a number beyond single precision": (with_features('[{"x":1e39}]'), RANK, "outside"),
    "a whole number of 400 digits": (with_features('[{"x":1' + "0" * 400 + "}]"), RANK, "outside"),
    "a whole number of 9000 digits": (with_features('[{"x":1' + "0" * 9_000 + "}]"), RANK, "outside"),
    "a huge number in a list": (with_features('[{"x":[1,-1e39]}]'), RANK, "outside"),
    "an empty name": (with_features('[{"":1}]'), RANK, "empty name"),
    "an empty name inside": (with_features('[{"x":{"":1}}]'), RANK, "empty name"),
    "a name with a control character": (with_features('[{"a\\u0000b":1}]'), RANK, "control character"),
    "a name too long": (with_features('[{"' + "n" * 257 + '":1}]'), RANK, "256"),
    "a string too long": (with_features('[{"x":"' + "s" * 2_049 + '"}]'), RANK, "2048"),
    "too many features": (
        with_features("[{" + ",".join(f'"f{n}":1' for n in range(2_001)) + "}]"),
        RANK,
        "more than 2000",
    ),
    "too many numbers": (with_features('[{"x":[' + ",".join(["1"] * 2_001) + "]}]"), RANK, "more than 2000"),
    "seven levels": (with_features(nested(7)), RANK, "deeper than 6"),
    "a thousand levels of features": (with_features(nested(1_000)), RANK, ""),
    "ten thousand levels of features": (with_features(nested(10_000)), RANK, ""),
    "features not UTF-8": (b'{"actions":[{"id":"a","features":[{"x":"\xff"}]}]}', RANK, "UTF-8"),
    "a lone surrogate in a feature": (with_features('[{"x":"\\udc00"}]'), "badRequest", "JSON"),
    # Context
    "context an object": (with_context('{"x":1}'), RANK, "array"),
    "context a string": (with_context('"x"'), RANK, "array"),
    "context with null": (with_context("[null]"), RANK, "null"),
    "context with a string": (with_context('["x"]'), RANK, "object"),
    "context with a list of strings": (with_context('[{"x":["y"]}]'), RANK, "numbers only"),
    "context too deep": (with_context(nested(7)), RANK, "deeper than 6"),
    # The rest of the request
    "an event id empty": (with_members(eventId=""), RANK, "empty"),
    "an event id too long": (with_members(eventId="e" * 257), RANK, "256"),
    "an event id a number": (with_members(eventId=7), RANK, "eventId"),
    "an event id an object": (with_members(eventId={}), RANK, "eventId"),
    "everything excluded": (with_members(excludedActions=["a", "b"]), RANK, "all 2 actions"),
    "excluded a string": (with_members(excludedActions="a"), RANK, "array"),
    "excluded numbers": (with_members(excludedActions=[1]), RANK, "str"),
    "deferral a string": (with_members(deferActivation="true"), RANK, "bool"),
    "deferral a number": (with_members(deferActivation=1), RANK, "bool"),
}

REWARDS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "not JSON": (b"value=1", "badRequest", "JSON"),
    "NaN": (b'{"value":NaN}', "badRequest", "JSON"),
    "nothing in it": (b"{}", "invalidRewardRequest", "value"),
    "null": (b'{"value":null}', "invalidRewardRequest", "value"),
    "a string": (b'{"value":"1"}', "invalidRewardRequest", "value"),
    "a boolean": (b'{"value":true}', "invalidRewardRequest", "value"),
    "a list": (b'{"value":[1]}', "invalidRewardRequest", "value"),
    "a bare number": (b"1", "invalidRewardRequest", "object"),
    "above 1": (b'{"value":1.0000001}', "invalidRewardRequest", "outside -1 to 1"),
    "below -1": (b'{"value":-1.5}', "invalidRewardRequest", "outside -1 to 1"),
    "beyond a double": (b'{"value":1e999}', "invalidRewardRequest", "value"),
    "of 400 digits": (b'{"value":1' + b"0" * 400 + b"}", "invalidRewardRequest", "value"),
    "of several slots": (b'{"reward":[{"slotId":"hero","value":1}]}', "invalidRewardRequest", "value"),
}

PATHS: dict[str, tuple[str, str, int, str]] = {
    "an event id too long to reward": ("POST", f"/events/{'e' * 257}/reward", 400, "invalidRewardRequest"),
    "an event id too long to activate": ("POST", f"/events/{'e' * 257}/activate", 400, "invalidEventIdToActivate"),
    "an event id not UTF-8": ("POST", "/events/%FF/reward", 400, "400"),
    "no event id": ("POST", "/events//reward", 404, "404"),
    "a slash that is not escaped": ("POST", "/events/a/b/reward", 404, "404"),
    "what is not served": ("GET", "/evaluations", 404, "404"),
    "slots": ("POST", "/multislot/rank", 404, "404"),
    "a model to import": ("PUT", "/model", 405, "405"),
    "another method": ("GET", "/rank", 405, "405"),
}

CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "badRequest"),
    "an array": (b"[]", "badRequest"),
    "not JSON": (b"{rewardWaitTime:1}", "badRequest"),
    "a wait of nothing": (b'{"rewardWaitTime":"PT0S"}', "invalidRewardWaitTime"),
    "a wait that runs backwards": (b'{"rewardWaitTime":"-PT5S"}', "invalidRewardWaitTime"),
    "a wait in months": (b'{"rewardWaitTime":"P1M"}', "invalidRewardWaitTime"),
    "a wait beyond counting": (b'{"rewardWaitTime":"999999999999:00:00"}', "invalidRewardWaitTime"),
    "a wait as a number": (b'{"rewardWaitTime":600}', "invalidRewardWaitTime"),
    "exploration above 1": (b'{"explorationPercentage":20}', "invalidServiceConfiguration"),
    "exploration no number": (b'{"explorationPercentage":"NaN"}', "invalidServiceConfiguration"),
    "a default reward too large": (b'{"defaultReward":1.5}', "invalidServiceConfiguration"),
    "a default reward of 400 digits": (b'{"defaultReward":1' + b"0" * 400 + b"}", "invalidServiceConfiguration"),
    "an aggregation unknown": (b'{"rewardAggregation":"mode"}', "invalidServiceConfiguration"),
    "a mode unknown": (b'{"learningMode":"Offline"}', "invalidServiceConfiguration"),
    "retention too short": (b'{"logRetentionDays":1}', "invalidLogRetentionDays"),
    "retention of half a day": (b'{"logRetentionDays":1.5}', "invalidLogRetentionDays"),
    "retraining beyond retention": (b'{"modelRetrainDays":91}', "invalidModelRetrainDays"),
    "a date that is none": (b'{"autoOptimizationStartDate":"soon"}', "invalidServiceConfiguration"),
    "a flag that is none": (b'{"logMirrorEnabled":"yes"}', "invalidServiceConfiguration"),
}


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    """Check that an answer is a refusal of this kind, and return its message."""
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert body.keys() == {"error"}
    assert body["error"].keys() <= {"code", "message", "target", "details", "innerError"}
    assert body["error"]["code"] == code, body
    message: str = body["error"]["message"]
    assert 10 < len(message) < 500
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", RANKS)
def test_a_bad_rank_is_refused_in_words(loop: LoopClient, name: str) -> None:
    """Nothing of it reaches the learner's parser."""
    body, code, words = RANKS[name]

    assert words in refusal(loop.call("POST", "/rank", body), 400, code)


@pytest.mark.parametrize("name", REWARDS)
def test_a_bad_reward_is_refused_in_words(loop: LoopClient, name: str) -> None:
    """It would be learned."""
    body, code, words = REWARDS[name]

    assert words in refusal(loop.call("POST", "/events/e1/reward", body), 400, code)


@pytest.mark.parametrize("name", PATHS)
def test_a_bad_path_is_refused_in_words(loop: LoopClient, name: str) -> None:
    """What is not there, and what is not there yet."""
    method, path, status, code = PATHS[name]

    refusal(loop.call(method, path, b'{"value":1}'), status, code)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_bad_configuration_is_refused_in_words(loop: LoopClient, name: str) -> None:
    """And nothing is changed."""
    body, code = CONFIGURATIONS[name]

    refusal(loop.call("PUT", "/configurations/service", body), 400, code)


@pytest.mark.parametrize(
    ("headers", "target", "status", "code"),
    [
        ({}, "/personalizer/v1.0/rank", 401, "401"),
        ({KEY_HEADER: "wrong"}, "/personalizer/v1.0/rank", 401, "401"),
        ({KEY_HEADER: "wrong"}, "/loops/default/personalizer/v1.0/rank", 401, "401"),
        ({KEY_HEADER: "wrong"}, "/loops/nobody/personalizer/v1.0/rank", 401, "401"),
        ({KEY_HEADER: "\u00e9"}, "/personalizer/v1.0/rank", 401, "401"),
        ({"Authorization": "Bearer "}, "/personalizer/v1.0/rank", 401, "401"),
    ],
)
def test_a_wrong_key_is_refused_before_the_body_is_looked_at(
    service: RunningService, headers: dict[str, str], target: str, status: int, code: str
) -> None:
    """Whoever has no key learns nothing of what would be wrong with the request."""
    refusal(service.send("POST", target, headers=headers, body=b"{"), status, code)


def test_what_was_refused_left_no_trace(service: RunningService, loop: LoopClient) -> None:
    """Nothing is half-written: the loop of all these tests is as it was made, and ranks."""
    assert service.records(loop.loop) == []
    assert service.loop(loop.loop).revision == 0
    assert loop.call("POST", "/rank", msgspec.json.encode(GOOD)).status_code == 201
    assert len(RANKS) + len(REWARDS) + len(PATHS) + len(CONFIGURATIONS) >= 60
