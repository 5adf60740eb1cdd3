"""Everything a caller can get wrong, as a table: for each case the status, the contract's code, and words that help."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from rankward.api.operation import ALL, P1, P2, P3, V1_0, V2022
from tests.models import learned
from tests.service import request
from tests.uploads.batches import batch, cb, outcome

GOOD = request("a", "b")
FEATURES = [{"x": 1}]
RANK = "invalidRankRequest"


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
    "null": (b"null", "badRequest"),
    "two documents": (b"{}{}", "badRequest"),
    "a wait beyond the bound": (b'{"rewardWaitTime":"P31D"}', "invalidRewardWaitTime"),
    "a wait as a flag": (b'{"rewardWaitTime":true}', "invalidRewardWaitTime"),
    "a wait in words": (b'{"rewardWaitTime":"ten minutes"}', "invalidRewardWaitTime"),
    "exploration below 0": (b'{"explorationPercentage":-0.1}', "invalidServiceConfiguration"),
    "exploration a list": (b'{"explorationPercentage":[0.2]}', "invalidServiceConfiguration"),
    "a default reward too small": (b'{"defaultReward":-1.5}', "invalidServiceConfiguration"),
    "an aggregation a number": (b'{"rewardAggregation":1}', "invalidServiceConfiguration"),
    "an aggregation too long": (b'{"rewardAggregation":"' + b"x" * 257 + b'"}', "invalidServiceConfiguration"),
    "a mode a number": (b'{"learningMode":1}', "invalidServiceConfiguration"),
    "a mode with a reward setting": (
        b'{"learningMode":"Apprentice","defaultReward":0.5}',
        "invalidLearningModeServiceConfiguration",
    ),
    "a mode with a wait": (
        b'{"learningMode":"LoggingOnly","rewardWaitTime":"PT1H"}',
        "invalidLearningModeServiceConfiguration",
    ),
    "a mode with an aggregation": (
        b'{"learningMode":"Apprentice","rewardAggregation":"sum"}',
        "invalidLearningModeServiceConfiguration",
    ),
    "an export of nothing": (b'{"modelExportFrequency":"PT0S"}', "invalidServiceConfiguration"),
    "an export once in a blue moon": (b'{"modelExportFrequency":"P8D"}', "invalidServiceConfiguration"),
    "retention below -1": (b'{"logRetentionDays":-2}', "invalidLogRetentionDays"),
    "retention beyond 32 bits": (b'{"logRetentionDays":2147483648}', "invalidLogRetentionDays"),
    "retention shorter than a long wait": (
        b'{"rewardWaitTime":"P2D","logRetentionDays":2}',
        "invalidLogRetentionDays",
    ),
    "retraining below 0": (b'{"modelRetrainDays":-1}', "invalidModelRetrainDays"),
    "retraining in words": (b'{"modelRetrainDays":"two"}', "invalidModelRetrainDays"),
    "a frequency of hours": (b'{"autoOptimizationFrequency":"PT1H"}', "invalidServiceConfiguration"),
    "a date a number": (b'{"autoOptimizationStartDate":20260101}', "invalidServiceConfiguration"),
    "optimization a number": (b'{"isAutoOptimizationEnabled":1}', "invalidServiceConfiguration"),
    "explanations a word": (b'{"isInferenceExplainabilityEnabled":"true"}', "invalidServiceConfiguration"),
    "one good member and a bad one": (
        b'{"explorationPercentage":0.5,"defaultReward":7}',
        "invalidServiceConfiguration",
    ),
}

MIRRORS = {
    "a number": b'{"logMirrorSasUri":7}',
    "none": b'{"logMirrorEnabled":true}',
    "no address": b'{"logMirrorEnabled":true,"logMirrorSasUri":"logs"}',
    "a folder": b'{"logMirrorEnabled":true,"logMirrorSasUri":"file:///tmp"}',
    "without a signature": b'{"logMirrorEnabled":true,"logMirrorSasUri":"https://store.invalid/logs"}',
    "no container": b'{"logMirrorEnabled":true,"logMirrorSasUri":"https://store.invalid/logs?sig=x"}',
}

POLICY = "invalidPolicyConfiguration"
POLICY_BODY = "invalidPolicyContract"


def policy(arguments: Any, **members: Any) -> bytes:
    """A body of a policy change."""
    return json.dumps({"name": "mine", "arguments": arguments, **members}).encode()


POLICIES: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "not JSON": (b"--cb_explore_adf", "badRequest", "JSON"),
    "null": (b"null", POLICY_BODY, "object"),
    "an array": (b"[]", POLICY_BODY, "object"),
    "nothing in it": (b"{}", POLICY_BODY, "name"),
    "no arguments": (b'{"name":"mine"}', POLICY_BODY, "arguments"),
    "no name": (b'{"arguments":"--cb_explore_adf"}', POLICY_BODY, "name"),
    "a name null": (policy("--cb_explore_adf", name=None), POLICY_BODY, "name"),
    "a name too long": (policy("--cb_explore_adf", name="n" * 257), POLICY_BODY, "256"),
    "arguments a list": (policy(["--cb_explore_adf"]), POLICY_BODY, "arguments"),
    "arguments too long": (policy("--cb_explore_adf" + " " * 1_024), POLICY_BODY, "1024"),
    "arguments empty": (policy(""), POLICY_BODY, "empty"),
    "an option without its value": (policy("--cb_explore_adf -q"), POLICY_BODY, "needs a value"),
    "a value without an option": (policy("--cb_explore_adf x"), POLICY_BODY, "no option"),
    "a quote": (policy("--cb_explore_adf -q '"), POLICY_BODY, "not allowed"),
    "a control character": (policy("--cb_explore_adf \0"), POLICY_BODY, "not allowed"),
    "no algorithm": (policy("--epsilon 0.2"), POLICY, "no supported algorithm"),
    "continuous actions": (policy("--cats 4 --min_value 1 --max_value 2"), POLICY, "not supported"),
    "slates": (policy("--slates"), POLICY, "not supported"),
    "an option unknown": (policy("--cb_explore_adf --nosuch"), POLICY, "--nosuch"),
    "an option that reads": (policy("--cb_explore_adf -i passwd"), POLICY, "-i"),
    "an option that writes": (policy("--cb_explore_adf -f model"), POLICY, "-f"),
    "an option that listens": (policy("--cb_explore_adf --daemon"), POLICY, "--daemon"),
    "exploration above 1": (policy("--cb_explore_adf --epsilon 2"), POLICY, "outside"),
    "exploration no number": (policy("--cb_explore_adf --epsilon x"), POLICY, "no"),
    "a rate that is none": (policy("--cb_explore_adf -l nan"), POLICY, "number"),
    "a table too large": (policy("--cb_explore_adf -b 60"), POLICY, "outside"),
    "the algorithm twice": (policy("--cb_explore_adf --cb_explore_adf"), POLICY, "more than once"),
    "two explorations": (policy("--cb_explore_adf --softmax --bag 3"), POLICY, "exclude each other"),
    "too many bags": (policy("--cb_explore_adf --bag 100000"), POLICY, "outside"),
}

SLOTS: list[dict[str, Any]] = [
    {"id": "hero", "features": [{"size": "large"}], "excludedActions": ["b"], "baselineAction": "a"},
    {"id": "side", "baselineAction": "b"},
]


def with_slots(slots: Any, **members: Any) -> bytes:
    """A good body of Rank for several slots, but for its slots and these members."""
    return json.dumps({**request("a", "b", "c"), "slots": slots, **members}).encode()


def with_slot(**members: Any) -> bytes:
    """The same, but for these members of its second slot."""
    return with_slots([SLOTS[0], {**SLOTS[1], **members}])


SLOT_RANKS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "an array": (b"[]", RANK, "object"),
    "no slots": (with_members(), RANK, "slots"),
    "slots null": (with_slots(None), RANK, "array"),
    "slots empty": (with_slots([]), RANK, "at least one slot"),
    "a slot null": (with_slots([SLOTS[0], None]), RANK, "null"),
    "more slots than actions": (
        with_slots([{"id": str(n), "baselineAction": "a"} for n in range(4)]),
        RANK,
        "not more slots",
    ),
    "the same slot twice": (with_slot(id="hero"), RANK, "another slot"),
    "a slot's id empty": (with_slot(id=""), RANK, "empty"),
    "a slot's id too long": (with_slot(id="s" * 257), RANK, "256"),
    "a slot's id a number": (with_slot(id=1), RANK, "str"),
    "no baseline": (with_slots([{"id": "hero"}]), RANK, "baselineAction"),
    "a baseline unknown": (with_slot(baselineAction="z"), RANK, "no action"),
    "a baseline that another has": (with_slot(baselineAction="a"), RANK, "baseline of another slot"),
    "a baseline excluded": (with_slot(excludedActions=["b"]), RANK, "excluded in the same slot"),
    "excluded unknown": (with_slot(excludedActions=["z"]), RANK, "no action"),
    "a slot's features an object": (with_slot(features={"x": 1}), RANK, "array"),
    "a slot's features strings": (with_slot(features=[{"x": ["y"]}]), RANK, "numbers only"),
    "no actions": (with_slots(SLOTS, actions=[]), RANK, "1 to 50"),
    "an event id empty": (with_slots(SLOTS, eventId=""), RANK, "empty"),
}

SLOT_REWARDS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "of one slot": (b'{"value":1}', "invalidRewardRequest", "reward"),
    "an object": (b'{"reward":{"slotId":"hero","value":1}}', "invalidRewardRequest", "array"),
    "no slot": (b'{"reward":[{"value":1}]}', "invalidRewardRequest", "slotId"),
    "a slot empty": (b'{"reward":[{"slotId":"","value":1}]}', "invalidRewardRequest", "empty"),
    "a slot too long": (
        b'{"reward":[{"slotId":"' + b"s" * 257 + b'","value":1}]}',
        "invalidRewardRequest",
        "256",
    ),
    "no value": (b'{"reward":[{"slotId":"hero"}]}', "invalidRewardRequest", "value"),
    "above 1": (b'{"reward":[{"slotId":"hero","value":1.5}]}', "invalidRewardRequest", "outside -1 to 1"),
    "a good one and a bad one": (
        b'{"reward":[{"slotId":"hero","value":1},{"slotId":"side","value":-2}]}',
        "invalidRewardRequest",
        "reward[1]",
    ),
}

INTERACTIONS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "invalidRequest", "preamble"),
    "JSON": (b'{"events":[]}', "invalidRequest", "preamble"),
    "cut short": (batch(cb())[:-5], "invalidRequest", "follow"),
    "too long": (batch(cb()) + b"x", "invalidRequest", "follow"),
    "another version": (b"\0\1" + batch(cb())[2:], "invalidRequest", "version 1"),
    "another type": (b"\0\0\0\7" + batch(cb())[4:], "invalidRequest", "type 7"),
    "noise": (batch(cb())[:8] + b"\xff" * (len(batch(cb())) - 8), "invalidRequest", ""),
    "a reward among decisions": (batch(cb(), outcome()), "invalidRequest", "events[1]"),
    "probabilities that are none": (batch(cb(pmf=(0.0, 0.5, 0.5))), "invalidRequest", "events[0]"),
    "a context that is none": (batch(cb(context=b"{")), "invalidRequest", "events[0]"),
}

OBSERVATIONS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "invalidRequest", "preamble"),
    "a decision among rewards": (batch(outcome(), cb()), "invalidRequest", "events[1]"),
    "a reward above 1": (batch(outcome("e1", 1.5)), "invalidRequest", "events[0]"),
}

MODELS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "invalidModelImportFormat", "zip"),
    "text": (b"a model", "invalidModelImportFormat", "zip"),
    "half an archive": (b"PK\3\4" + bytes(50), "invalidModelImportFormat", "zip"),
    "not signed": (learned(), "invalidModelImportSignature", "not signed"),
}

ASKED = {"name": "week 3", "startTime": "2026-01-05T00:00:00Z", "endTime": "2026-01-12T00:00:00Z", "policies": []}
EVALUATION = "invalidEvaluationContract"
GREEDY = {"name": "greedy", "arguments": "--cb_explore_adf --epsilon 0"}


def evaluation(**members: Any) -> bytes:
    """A body that asks for an evaluation, good but for these members."""
    return json.dumps({**ASKED, **members}).encode()


EVALUATIONS: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "an array": (b"[]", EVALUATION, "object"),
    "nothing in it": (b"{}", EVALUATION, "name"),
    "a name too long": (evaluation(name="n" * 257), EVALUATION, "256"),
    "a start that is none": (evaluation(startTime="soon"), EVALUATION, "startTime"),
    "policies null": (evaluation(policies=None), EVALUATION, "policies"),
    "a policy without arguments": (evaluation(policies=[{"name": "x"}]), EVALUATION, "arguments"),
    "an end before its start": (
        evaluation(endTime="2026-01-04T00:00:00Z"),
        "invalidDateTimesInEvaluationContract",
        "",
    ),
    "two policies of one name": (evaluation(policies=[GREEDY, GREEDY]), "duplicateCustomPolicyNames", "greedy"),
    "eleven policies": (
        evaluation(policies=[{**GREEDY, "name": str(n)} for n in range(11)]),
        "maximumEvaluationCustomPoliciesExceeded",
        "10",
    ),
    "a policy that reads": (
        evaluation(policies=[{"name": "x", "arguments": "--cb_explore_adf -i m"}]),
        POLICY,
        "-i",
    ),
    "a span without a log": (evaluation(), "noLogsExistInDateRange", ""),
}

IMPORTANCES: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "badRequest", "JSON"),
    "nothing in it": (b"{}", "invalidContract", "name"),
    "a start that is none": (evaluation(startTime="soon"), "invalidContract", "startTime"),
    "an end before its start": (
        evaluation(endTime="2026-01-04T00:00:00Z"),
        "invalidDateTimesInEvaluationContract",
        "",
    ),
    "a span without a log": (evaluation(), "noLogsExistInDateRange", ""),
}


class BadInput(msgspec.Struct, frozen=True, kw_only=True):
    """A request that must be refused."""

    method: str
    path: str
    status: int
    code: str
    body: bytes | None = None
    words: str = ""  # that the message must have
    versions: tuple[str, ...] = ALL
    slots: bool = False  # whether it is for a loop that decides for several slots


SINCE_P1, SINCE_P2, SINCE_P3 = (P1, P2, P3, V2022), (P2, P3, V2022), (P3, V2022)
_SPAN = "startTime=2026-01-05&endTime=2026-01-12"


def _path(call: str, status: int, code: str, versions: tuple[str, ...] = ALL, body: bytes | None = None) -> BadInput:
    method, path = call.split(" ", 1)
    return BadInput(method=method, path=path, status=status, code=code, body=body, versions=versions)


PATHS: dict[str, BadInput] = {
    "reward: an event id too long": _path(
        f"POST /events/{'e' * 257}/reward", 400, "invalidRewardRequest", body=b'{"value":1}'
    ),
    "reward: an event id not UTF-8": _path("POST /events/%FF/reward", 400, "400"),
    "reward: no event id": _path("POST /events//reward", 404, "404"),
    "reward: a slash that is not escaped": _path("POST /events/a/b/reward", 404, "404"),
    "activate: an event id too long": _path(f"POST /events/{'e' * 257}/activate", 400, "invalidEventIdToActivate"),
    "activate: an event id not UTF-8": _path("POST /events/%C3/activate", 400, "400"),
    "activate: no event id": _path("POST /events/activate", 404, "404"),
    "activate: another method": _path("GET /events/e1/activate", 405, "405"),
    "rank: another method": _path("GET /rank", 405, "405"),
    "rank: what browsers ask beforehand": _path("OPTIONS /rank", 405, "405"),
    "settings: another method": _path("POST /configurations/service", 405, "405", body=b"{}"),
    "policy: another method": _path("PATCH /configurations/policy", 405, "405", body=b"{}"),
    "policy: a path that goes on": _path("GET /configurations/policy/mine", 404, "404"),
    "log: another method": _path("GET /logs", 405, "405"),
    "log: read as lines": _path("GET /logs/interactions", 405, "405", SINCE_P2),
    "log properties: another method": _path("DELETE /logs/properties", 405, "405"),
    "model: another method": _path("POST /model", 405, "405"),
    "model: an import before there were any": _path("PUT /model", 405, "405", (V1_0, P1, P2)),
    "model: signed in a word unknown": _path("GET /model?signed=maybe", 400, "invalidRequest", SINCE_P3),
    "slots: in a version without them": _path("POST /multislot/rank", 404, "404", (V1_0,), with_slots(SLOTS)),
    "slots: a policy for one": _path(
        "POST /multislot/rank", 400, "invalidMultiSlotApiAccess", SINCE_P1, with_slots(SLOTS)
    ),
    "slots: a reward under a policy for one": _path(
        "POST /multislot/events/e1/reward",
        400,
        "invalidMultiSlotApiAccess",
        SINCE_P1,
        b'{"reward":[{"slotId":"hero","value":1}]}',
    ),
    "slots: an activation under a policy for one": _path(
        "POST /multislot/events/e1/activate", 400, "invalidMultiSlotApiAccess", SINCE_P1
    ),
    "slots: probabilities in a word unknown": BadInput(
        method="POST",
        path="/multislot/rank?probabilities=maybe",
        status=400,
        code="invalidRequest",
        body=with_slots(SLOTS),
        versions=SINCE_P1,
        slots=True,
    ),
    "evaluation: unknown": _path(f"GET /evaluations/none?{_SPAN}", 404, "evaluationNotFound"),
    "evaluation: without a span": _path("GET /evaluations/none", 400, "invalidRequest", (V2022,)),
    "evaluation: steps unknown": _path(
        f"GET /evaluations/none?{_SPAN}&intervalInMinutes=7", 400, "invalidRequest", (V2022,)
    ),
    "evaluation: a window that does not fit": _path(
        f"GET /evaluations/none?{_SPAN}&intervalInMinutes=60&window=Expanding", 400, "invalidRequest", (V2022,)
    ),
    "evaluations: top in words": _path("GET /evaluations?top=all", 400, "invalidRequest", (V2022,)),
    "evaluations: skip below 0": _path("GET /evaluations?skip=-1", 400, "invalidRequest", (V2022,)),
    "evaluations: a filter that is none": _path("GET /evaluations?filter=Manual", 400, "invalidRequest", (V2022,)),
    "importance: unknown": _path("GET /featureImportances/none", 404, "featureImportanceNotFound", (V2022,)),
    "importances: a page of nothing": _path("GET /featureImportances?maxpagesize=0", 400, "invalidRequest", (V2022,)),
    "apply: an evaluation unknown": _path(
        "POST /configurations/applyFromEvaluation",
        404,
        "evaluationNotFound",
        SINCE_P1,
        b'{"evaluationId":"none","policyName":"online"}',
    ),
    "apply: no body": _path("POST /configurations/applyFromEvaluation", 400, "badRequest", SINCE_P1, b""),
    "an operation unknown": _path("POST /ranks", 404, "404", body=b"{}"),
}


def _named(group: str, call: str, table: dict[str, tuple[bytes, str, str]], **members: Any) -> dict[str, BadInput]:
    method, path = call.split()
    return {
        f"{group}: {name}": BadInput(method=method, path=path, status=400, code=code, body=body, words=words, **members)
        for name, (body, code, words) in table.items()
    }


CASES: dict[str, BadInput] = {
    **_named("rank", "POST /rank", RANKS),
    **_named("reward", "POST /events/e1/reward", REWARDS),
    **_named(
        "settings",
        "PUT /configurations/service",
        {name: (body, code, "") for name, (body, code) in CONFIGURATIONS.items()},
    ),
    **_named(
        "mirror",
        "PUT /configurations/service",
        {name: (body, "invalidContainer", "logMirrorSasUri") for name, body in MIRRORS.items()},
        versions=(V1_0, P1, P2, P3),
    ),
    **_named(
        "mirror by its newer name",
        "PUT /configurations/service",
        {name: (body, "invalidSasUri", "logMirrorSasUri") for name, body in MIRRORS.items()},
        versions=(V2022,),
    ),
    **_named("policy", "PUT /configurations/policy", POLICIES),
    **_named("slots", "POST /multislot/rank", SLOT_RANKS, versions=SINCE_P1, slots=True),
    **_named("slot rewards", "POST /multislot/events/e1/reward", SLOT_REWARDS, versions=SINCE_P1, slots=True),
    **_named("interactions", "POST /logs/interactions", INTERACTIONS, versions=SINCE_P2),
    **_named("observations", "POST /logs/observations", OBSERVATIONS, versions=SINCE_P2),
    **_named("model", "PUT /model", MODELS, versions=SINCE_P3),
    **_named("evaluation", "POST /evaluations", EVALUATIONS, versions=(V1_0, P1, P2, P3)),
    **_named("evaluation by id", "PUT /evaluations/mine", EVALUATIONS, versions=(V2022,)),
    **_named("importance", "PUT /featureImportances/mine", IMPORTANCES, versions=(V2022,)),
    **PATHS,
}
"""Every case by its name."""
