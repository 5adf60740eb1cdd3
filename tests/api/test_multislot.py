"""Rank, Reward and Activate for several slots, over HTTP: shapes, versions, and everything a caller can get wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankward.records import Activation, MultiSlotInteraction, Observation
from rankward.settings import LoopSettings
from tests.api.test_arbitrary_input import ALLOWED, ANYTHING, NAME
from tests.service import KEY_HEADER, LoopClient, RunningService, eventually, quoted, request

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

pytestmark = pytest.mark.slow

POLICY = "--ccb_explore_adf --epsilon 0.2 --cb_type mtr -q ::"
SETTINGS = LoopSettings(policy=POLICY, preset=None)
PREVIEW = "v1.1-preview.1"
RANK, REWARD = "invalidRankRequest", "invalidRewardRequest"
FEATURES = [{"kind": "news"}]
HERO = {"id": "hero", "features": [{"size": "large"}], "excludedActions": ["b"], "baselineAction": "c"}
SIDE = {"id": "side", "features": [{"size": "small"}], "baselineAction": "a"}


def page(*slots: Any, **members: Any) -> dict[str, Any]:
    """Make a body for two slots, or for these."""
    return {**request("a", "b", "c"), "slots": list(slots or (HERO, SIDE)), **members}


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop that decides for slots."""
    return service.new_loop(SETTINGS).at(PREVIEW)


def post(loop: LoopClient, path: str, body: Any = None) -> httpx.Response:
    """POST JSON, or bytes as they are."""
    return loop.call("POST", path, body if isinstance(body, bytes | None) else msgspec.json.encode(body))


def rank(loop: LoopClient, body: Any, query: str = "") -> httpx.Response:
    """Rank for several slots."""
    return post(loop, f"/multislot/rank{query}", body)


def reward(loop: LoopClient, event_id: str, *rewards: Any) -> httpx.Response:
    """Reward slots: ids and values in turn, or one body as it is."""
    return post(loop, f"/multislot/events/{quoted(event_id)}/reward", {"reward": list(rewards)})


def test_the_contracts_example_is_answered(service: RunningService, loop: LoopClient) -> None:
    """Each slot has an action of its own, none that it excludes; nothing more is said unless it is asked for."""
    answer = rank(loop, page(eventId="front-0007"))

    assert answer.status_code == 201
    body = answer.json()
    assert body.keys() == {"slots", "eventId"}
    assert body["eventId"] == "front-0007"
    assert [slot["id"] for slot in body["slots"]] == ["hero", "side"]
    assert all(slot.keys() == {"id", "rewardActionId"} for slot in body["slots"])
    hero, side = (slot["rewardActionId"] for slot in body["slots"])
    assert hero in {"a", "c"}
    assert side in {"a", "b", "c"} - {hero}
    assert rank(loop, page(eventId="front-0007")).json() == body
    [*_, logged] = service.records(loop.loop)
    assert isinstance(logged, MultiSlotInteraction)
    assert [logged.actions[choice.chosen].id for choice in logged.choices] == [hero, side]


def test_probabilities_are_answered_when_asked_for(loop: LoopClient) -> None:
    """Of the actions that were left for the slot, the drawn one first."""
    hero, side = rank(loop, page(eventId="p"), "?probabilities=true").json()["slots"]

    assert {action["id"] for action in hero["ranking"]} == {"a", "c"}
    assert [action["probability"] for action in hero["ranking"]] == [0.5, 0.5]
    assert {action["id"] for action in side["ranking"]} == {"a", "b", "c"} - {hero["rewardActionId"]}
    assert all(slot["ranking"][0]["id"] == slot["rewardActionId"] for slot in (hero, side))
    assert "ranking" not in rank(loop, page(eventId="p"), "?probabilities=false").json()["slots"][0]


@pytest.mark.parametrize("version", ["v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3"])
def test_every_version_with_slots_has_the_three_operations(loop: LoopClient, version: str) -> None:
    """With the statuses that generated clients insist on, and empty bodies."""
    at = loop.at(version)
    event_id = rank(at, page(deferActivation=True, eventId=None)).json()["eventId"]

    for answer in (
        reward(at, event_id, {"slotId": "hero", "value": 1.0}),
        post(at, f"/multislot/events/{event_id}/activate"),
        reward(at, "never-ranked", {"slotId": "nowhere", "value": -1}),
    ):
        assert (answer.status_code, answer.content) == (204, b"")


def test_the_version_in_the_query_has_them_too(service: RunningService, loop: LoopClient) -> None:
    """2022-09-01-preview."""
    answer = service.send(
        "POST",
        "/personalizer/multislot/rank?api-version=2022-09-01-preview&probabilities=True",
        headers={KEY_HEADER: loop.key},
        body=msgspec.json.encode(page()),
    )

    assert answer.status_code == 201
    assert "ranking" in answer.json()["slots"][0]


def test_the_first_version_has_no_slots(loop: LoopClient) -> None:
    """v1.0 was published without them."""
    assert rank(loop.at("v1.0"), page()).status_code == 404


def test_rewards_of_slots_are_kept_as_they_come(service: RunningService) -> None:
    """Separately, repeatedly, for any subset; activation is of the whole event."""
    loop = service.new_loop(SETTINGS).at(PREVIEW)
    reward(loop, "e/1", {"slotId": "hero", "value": 0.5}, {"slotId": "side", "value": -1})
    reward(loop, "e/1", {"slotId": "hero", "value": 1})
    reward(loop, "e/1")
    loop.reward("e/1", 0.25)
    named = {"reward": [{"slotId": "side", "value": 0}], "reportId": "r1"}
    assert post(loop, f"/multislot/events/{quoted('e/1')}/reward", named).status_code == 204
    post(loop, f"/multislot/events/{quoted('e/1')}/activate")

    assert service.records(loop.loop) == [
        Observation(event_id="e/1", value=0.5, slot="hero"),
        Observation(event_id="e/1", value=-1.0, slot="side"),
        Observation(event_id="e/1", value=1.0, slot="hero"),
        Observation(event_id="e/1", value=0.25),
        Observation(event_id="e/1", value=0.0, slot="side", report="r1"),
        Activation(event_id="e/1"),
    ]


def test_a_rank_without_slots_is_answered_as_it_was_asked(service: RunningService) -> None:
    """An application moves its pages over one by one."""
    loop = service.new_loop(SETTINGS)

    body = loop.rank(request("a", "b", "c", excludedActions=["b"])).json()

    assert body.keys() == {"ranking", "eventId", "rewardActionId"}
    assert body["ranking"][1] == {"id": "b", "probability": 0.0}
    assert {action["probability"] for action in body["ranking"]} == {0.0, 0.5}
    assert body["rewardActionId"] == body["ranking"][0]["id"]


def test_other_modes_answer_the_baselines(service: RunningService) -> None:
    """What a model would do is logged, with its probabilities in request order."""
    loop = service.new_loop(SETTINGS).at(PREVIEW)
    loop.put("/configurations/service", {"learningMode": "Apprentice"})

    slots = rank(loop, page(), "?probabilities=true").json()["slots"]

    assert [slot["rewardActionId"] for slot in slots] == ["c", "a"]
    assert [action["id"] for action in slots[0]["ranking"]] == ["a", "c"]
    loop.put("/configurations/service", {"learningMode": "LoggingOnly"})
    slots = rank(loop, page(), "?probabilities=true").json()["slots"]
    assert [{a["id"]: a["probability"] for a in slot["ranking"]} for slot in slots] == [
        {"c": 1.0, "a": 0.0},
        {"a": 1.0, "b": 0.0},
    ]


def test_a_loop_for_single_slots_refuses_every_call(service: RunningService) -> None:
    """Until it gets a policy for several; and again when it goes back."""
    loop = service.new_loop().at(PREVIEW)
    calls: list[Callable[[], httpx.Response]] = [
        lambda: rank(loop, page()),
        lambda: reward(loop, "e", {"slotId": "hero", "value": 1}),
        lambda: post(loop, "/multislot/events/e/activate"),
    ]
    before = loop.get("/configurations/policy").json()["arguments"]
    for answer in [call() for call in calls]:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalidMultiSlotApiAccess"
    assert service.records(loop.loop) == []

    assert loop.put("/configurations/policy", {"name": "x", "arguments": POLICY}).status_code == 200
    assert [call().status_code for call in calls] == [201, 204, 204]
    assert loop.delete("/configurations/policy").json()["arguments"].startswith("--ccb_explore_adf --epsilon 0.2")
    assert rank(loop, page()).status_code == 201

    assert loop.put("/configurations/policy", {"name": "x", "arguments": before}).status_code == 200
    assert [call().status_code for call in calls] == [400] * 3


def test_slots_and_auto_optimization_exclude_each_other(service: RunningService) -> None:
    """403, whichever comes second, and nothing is changed."""
    loop = service.new_loop(SETTINGS).at(PREVIEW)
    answer = loop.put("/configurations/service", {"isAutoOptimizationEnabled": True})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "problemTypeIncompatibleWithAutoOptimization"
    assert not loop.get("/configurations/service").json()["isAutoOptimizationEnabled"]

    single = service.new_loop().at(PREVIEW)
    single.put("/configurations/service", {"isAutoOptimizationEnabled": True})
    answer = single.put("/configurations/policy", {"name": "x", "arguments": POLICY})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "problemTypeIncompatibleWithAutoOptimization")
    assert "--cb_explore_adf" in single.get("/configurations/policy").json()["arguments"]


def slot(**members: Any) -> dict[str, Any]:
    """The side slot with other members; None leaves one out."""
    return {name: value for name, value in {**SIDE, **members}.items() if value is not ...}


SLOTS: dict[str, tuple[Any, str, str]] = {
    # What it is: the body, the code, and a word that the message must have.
    "no body": (b"", "badRequest", "JSON"),
    "an array": (b"[]", RANK, "object"),
    "no slots member": (request("a", "b"), RANK, "slots"),
    "slots null": (page() | {"slots": None}, RANK, "array"),
    "no slot": (page() | {"slots": []}, RANK, "at least one slot"),
    "more slots than actions": (
        page(*({"id": f"s{n}", "baselineAction": "a"} for n in range(4))),
        RANK,
        "not more slots than actions",
    ),
    "a slot null": (page(HERO, None), RANK, "slots[1]: it is null"),
    "a slot a string": (page(HERO, "side"), RANK, "object"),
    "no actions": (page() | {"actions": []}, RANK, "1 to 50"),
    "the same action twice": (page() | {"actions": request("a", "b", "a")["actions"]}, RANK, "same id"),
    "an action null": (page() | {"actions": [None]}, RANK, "null"),
    "no id": (page(slot(id=...)), RANK, "id"),
    "an id null": (page(slot(id=None)), RANK, "str"),
    "an id a number": (page(slot(id=1)), RANK, "str"),
    "an id empty": (page(slot(id="")), RANK, "slots[0].id is empty"),
    "an id too long": (page(slot(id="x" * 257)), RANK, "256"),
    "the same id twice": (page(HERO, slot(id="hero")), RANK, "slots[1].id: another slot"),
    "no baseline": (page(slot(baselineAction=...)), RANK, "baselineAction"),
    "a baseline null": (page(slot(baselineAction=None)), RANK, "str"),
    "a baseline unknown": (page(slot(baselineAction="z")), RANK, "no action has the id 'z'"),
    "a baseline empty": (page(slot(baselineAction="")), RANK, "no action has the id ''"),
    "a baseline excluded": (page(slot(excludedActions=["a"])), RANK, "excluded in the same slot"),
    "the same baseline twice": (page(HERO, slot(baselineAction="c")), RANK, "baseline of another slot"),
    "an excluded id unknown": (page(slot(excludedActions=["b", "z"])), RANK, "no action has the id 'z'"),
    "excluded ids no array": (page(slot(excludedActions="b")), RANK, "array"),
    "excluded ids numbers": (page(slot(excludedActions=[1])), RANK, "str"),
    "features an object": (page(slot(features={"x": 1})), RANK, "slots[0]: features is an object"),
    "features strings": (page(slot(features=["x"])), RANK, "object"),
    "features with a list of strings": (page(slot(features=[{"x": ["y"]}])), RANK, "numbers only"),
    "features with an empty name": (page(slot(features=[{"": 1}])), RANK, "empty name"),
    "a context with null": (page(contextFeatures=[None]), RANK, "contextFeatures[0] is null"),
    "an event id empty": (page(eventId=""), RANK, "eventId is empty"),
    "an event id too long": (page(eventId="x" * 257), RANK, "256"),
    "a slot that may come out empty": (
        page({"id": "first", "baselineAction": "a"}, slot(baselineAction="b", excludedActions=["a", "c"])),
        RANK,
        "may be left without an action",
    ),
}


@pytest.mark.parametrize("name", SLOTS)
def test_bad_slots_are_refused(loop: LoopClient, name: str) -> None:
    """With the contract's code, and words that say which slot and what to do."""
    body, code, word = SLOTS[name]

    answer = rank(loop, body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert word in error["message"]


REWARDS: dict[str, tuple[Any, str]] = {
    "an empty object": ({}, REWARD),
    "a value alone": ({"value": 1.0}, REWARD),
    "rewards null": ({"reward": None}, REWARD),
    "a reward null": ({"reward": [None]}, REWARD),
    "no slot": ({"reward": [{"value": 1.0}]}, REWARD),
    "a slot empty": ({"reward": [{"slotId": "", "value": 1.0}]}, REWARD),
    "a slot too long": ({"reward": [{"slotId": "x" * 257, "value": 1.0}]}, REWARD),
    "no value": ({"reward": [{"slotId": "hero"}]}, REWARD),
    "a value null": ({"reward": [{"slotId": "hero", "value": None}]}, REWARD),
    "a value a string": ({"reward": [{"slotId": "hero", "value": "1"}]}, REWARD),
    "a value above": ({"reward": [{"slotId": "hero", "value": 0.5}, {"slotId": "side", "value": 1.01}]}, REWARD),
    "a value below": ({"reward": [{"slotId": "hero", "value": -2}]}, REWARD),
    "too many": ({"reward": [{"slotId": "hero", "value": 0.0}] * 51}, REWARD),
    "a report without a name": ({"reward": [], "reportId": ""}, REWARD),
    "NaN": (b'{"reward":[{"slotId":"hero","value":NaN}]}', "badRequest"),
}


@pytest.mark.parametrize("name", REWARDS)
def test_bad_rewards_are_refused_as_a_whole(service: RunningService, loop: LoopClient, name: str) -> None:
    """Nothing of such a call is kept, good values beside a bad one included."""
    body, code = REWARDS[name]
    before = len(service.records(loop.loop))

    answer = post(loop, "/multislot/events/e/reward", body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert len(service.records(loop.loop)) == before


def test_event_ids_in_the_path_are_checked(loop: LoopClient) -> None:
    """As for single slots, each under its own code."""
    long = "x" * 257
    assert reward(loop, long).json()["error"]["code"] == REWARD
    assert post(loop, f"/multislot/events/{long}/activate").json()["error"]["code"] == "invalidEventIdToActivate"


# Arbitrary bodies

NUMBERS = count()
OFFER = st.lists(
    st.fixed_dictionaries({"id": NAME, "features": ALLOWED}),
    min_size=1,
    max_size=5,
    unique_by=lambda action: str(action["id"]),
)


@st.composite
def _allowed(draw: st.DrawFn) -> Any:
    """Draw what the contract allows, but for slots that may come out empty."""
    actions = draw(OFFER)
    ids = [action["id"] for action in actions]
    baselines = draw(st.permutations(ids))[: draw(st.integers(1, len(ids)))]
    slots = [
        {
            "id": f"{index}{draw(NAME)}",
            "baselineAction": baseline,
            "excludedActions": [each for each in draw(st.lists(st.sampled_from(ids), max_size=2)) if each != baseline],
            "features": draw(st.none() | st.just([]) | ALLOWED),
        }
        for index, baseline in enumerate(baselines)
    ]
    return {"actions": actions, "slots": slots, "contextFeatures": draw(st.none() | ALLOWED)}


@st.composite
def _arbitrary(draw: st.DrawFn) -> Any:
    """Draw something allowed with one part replaced by anything."""
    body = draw(_allowed())
    part = draw(st.sampled_from(["actions", "slots", "contextFeatures", "id", "baselineAction", "excludedActions"]))
    if part in body:
        body[part] = draw(ANYTHING)
    else:
        body["slots"][-1][part] = draw(ANYTHING)
    return body


@pytest.fixture(scope="module")
def learning(service: RunningService) -> LoopClient:
    """A loop that joins and learns at once."""
    fast = msgspec.structs.replace(
        SETTINGS, reward_wait=timedelta(milliseconds=200), model_export_frequency=timedelta(milliseconds=200)
    )
    return service.new_loop(fast).at(PREVIEW)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(body=_allowed() | _arbitrary() | ANYTHING, value=st.floats(-1, 1))
def test_whatever_it_is_sent_rank_accepts_or_refuses(learning: LoopClient, body: Any, value: float) -> None:
    """201 with a different action for every slot, or a well-formed 4xx."""
    answer = rank(learning, json.dumps(body).encode(), "?probabilities=true")

    if answer.status_code != 201:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) in {(400, "badRequest"), (400, RANK), (409, "modelRankingError")}
        assert error["message"]
        return
    slots = answer.json()["slots"]
    shown = [slot["rewardActionId"] for slot in slots]
    assert len(set(shown)) == len(shown) == len(body["slots"])
    for wanted, answered in zip(body["slots"], slots, strict=True):
        assert answered["id"] == wanted["id"]
        assert answered["rewardActionId"] not in (wanted.get("excludedActions") or ())
        assert sum(action["probability"] for action in answered["ranking"]) == pytest.approx(1.0, abs=1e-5)
    rewards = [{"slotId": slot["id"], "value": value} for slot in slots]
    assert reward(learning, answer.json()["eventId"], *rewards).status_code == 204
    next(NUMBERS)


def test_whatever_was_accepted_is_learned(service: RunningService, learning: LoopClient) -> None:
    """No process died of it; what the learner refuses would be set aside."""
    accepted = next(NUMBERS)
    assert accepted > 5, "too little was accepted to say anything"
    loop_id = service.loop(learning.loop).loop_id

    def settled() -> bool:
        versions = service.home.catalog.versions(loop_id)
        aside = service.home.catalog.set_asides(loop_id)
        return max((version.learned for version in versions), default=0) + len(aside) == accepted

    eventually(settled, f"{accepted} events are learned or set aside")
    assert service.home.catalog.set_asides(loop_id) == []
