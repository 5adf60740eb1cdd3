"""Lines as they are written: key by key what Personalizer wrote."""

from __future__ import annotations

import json

import pytest

from rankward.dsjson.write import write_line
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
    Features,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation
from tests.dsjson.events import EARLIEST, front, order


def test_a_line_has_the_keys_of_the_original_in_their_order() -> None:
    """Whatever read Personalizer's logs reads ours, even by comparing text."""
    assert write_line(order(0.75), EARLIEST) == (
        '{"_label_cost":-0.75,"_label_probability":0.9,"_label_Action":2,"_labelIndex":1,'
        '"o":[{"v":0.75,"EventId":"order-page-0001","ActionTaken":false}],'
        '"Timestamp":"2026-01-15T12:00:00.000000Z","Version":"1","EventId":"order-page-0001","a":[2,1],'
        '"c":{"FromUrl":[{"visitor":{"device":"phone"}}],"_multi":['
        '{"_tag":"pasta","i":{"constant":1,"id":"pasta"},"j":[{"dish":{"veg":true}}]},'
        '{"_tag":"salad","i":{"constant":1,"id":"salad"},"j":[{"dish":{"veg":true}}]}]},'
        '"p":[0.9,0.1],"VWState":{"m":"N/A"},"_original_label_cost":-0.75}'
    )


def test_an_apprentice_is_told_whether_it_matched_the_baseline() -> None:
    """The application's own reward is kept beside it, for metrics."""
    line = json.loads(write_line(order(0.75, learning_mode=LearningMode.APPRENTICE), EARLIEST))
    assert (line["_label_cost"], line["_original_label_cost"]) == (0.0, -0.75)
    matched = order(0.75, learning_mode=LearningMode.APPRENTICE, chosen=0)
    line = json.loads(write_line(matched, EARLIEST))
    assert (line["_label_cost"], line["_original_label_cost"]) == (-1.0, -0.75)


def test_the_reward_is_that_of_the_definition_given() -> None:
    """An old log can be written anew under a new reward; what was observed stays beside it."""
    line = json.loads(write_line(order(0.25, 0.5), RewardDefinition(0.0, Aggregation.SUM)))
    assert line["_label_cost"] == -0.75
    assert [each["v"] for each in line["o"]] == [0.25, 0.5]
    line = json.loads(write_line(order(), RewardDefinition(0.5, Aggregation.SUM)))
    assert (line["_label_cost"], line["o"]) == (-0.5, [])


@pytest.mark.parametrize(("activated", "skipped"), [(False, True), (True, False)])
def test_a_deferred_event_that_was_never_activated_says_so(activated: bool, skipped: bool) -> None:
    """Whoever learns from the line must not learn what nobody saw."""
    line = json.loads(write_line(order(1.0, deferred=True, activated=activated), EARLIEST))
    assert line.get("_skipLearn", False) == skipped
    taken = [each for each in line["o"] if each["ActionTaken"]]
    assert taken == ([{"EventId": "order-page-0001", "ActionTaken": True}] if activated else [])


def test_probabilities_follow_the_ranking() -> None:
    """`a` and `p` are parallel: the chosen action first, then the rest by probability."""
    line = json.loads(write_line(order(pmf=(0.5, 0.2, 0.3), excluded=(), chosen=1, model_id="7-1"), EARLIEST))
    assert (line["a"], line["p"]) == ([2, 1, 3], [0.2, 0.5, 0.3])
    assert line["VWState"] == {"m": "7-1"}


def test_a_line_for_several_slots_has_an_outcome_for_each() -> None:
    """Key by key as Personalizer wrote them; what was observed of the whole event stands with every slot."""
    nothing = Features(b"[]")
    interaction = MultiSlotInteraction(
        event_id="front-0007",
        context=Features(b'[{"visitor":{"device":"phone"}}]'),
        actions=tuple(Action(name, nothing) for name in "abc"),
        slots=(Slot("hero", Features(b'[{"size":"large"}]'), baseline=2, excluded=(1,)), Slot("side", nothing, 0)),
        choices=(SlotChoice((0, 2), (0.9, 0.1)), SlotChoice((1, 2), (0.9, 0.1))),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=600_000_000,
        deferred=True,
    )
    observations = (JoinedObservation(1, 1, 1.0, slot="hero"), JoinedObservation(2, 2, 0.25))
    entry = JoinedEntry(0, 1_768_478_400_000_000, 1_768_479_000_000_000, observations, activated=True)

    line = json.loads(write_line(JoinedEvent(0, entry, interaction), EARLIEST))

    assert list(line) == ["Timestamp", "Version", "EventId", "c", "_outcomes", "_ba", "VWState"]
    assert line["c"]["_slots"] == [
        {"_id": "hero", "sj": [{"size": "large"}, {"_inc": [0, 2]}]},
        {"_id": "side", "sj": []},
    ]
    whole = {"v": 0.25, "EventId": "front-0007", "ActionTaken": False}
    hero, side = line["_outcomes"]
    assert (hero["_label_cost"], hero["_id"], hero["_a"], hero["_p"]) == (-1.0, "hero", [0, 2], [0.9, 0.1])
    assert hero["_o"] == [
        {"v": 1.0, "EventId": "front-0007", "Index": "hero", "ActionTaken": False},
        {**whole, "Index": "hero"},
        {"EventId": "front-0007", "ActionTaken": True},
    ]
    assert (side["_label_cost"], side["_original_label_cost"]) == (-0.25, -0.25)
    assert side["_o"] == [{**whole, "Index": "side"}]
    assert line["_ba"] == [2, 0]


def test_a_line_for_slots_has_the_keys_of_the_original_in_their_order() -> None:
    """Indexes count from 0 here, and a slot without observations has no key for them."""
    assert write_line(front((1.0, "hero")), EARLIEST) == (
        '{"Timestamp":"2026-01-15T12:00:00.000000Z","Version":"1","EventId":"front-0007",'
        '"c":{"FromUrl":[{"visitor":{"device":"phone"}}],"_multi":['
        '{"_tag":"a","i":{"constant":1,"id":"a"},"j":[{"kind":"news"}]},'
        '{"_tag":"b","i":{"constant":1,"id":"b"},"j":[{"kind":"sport"}]},'
        '{"_tag":"c","i":{"constant":1,"id":"c"},"j":[{"kind":"film"}]}],'
        '"_slots":[{"_id":"hero","sj":[{"size":"large"},{"_inc":[0, 2]}]},{"_id":"side","sj":[{"size":"small"}]}]},'
        '"_outcomes":[{"_label_cost":-1.0,"_id":"hero","_a":[0,2],"_p":[0.9,0.1],'
        '"_o":[{"v":1.0,"EventId":"front-0007","Index":"hero","ActionTaken":false}],"_original_label_cost":-1.0},'
        '{"_label_cost":-0.0,"_id":"side","_a":[1,2],"_p":[0.9,0.1],"_original_label_cost":-0.0}],'
        '"_ba":[2,0],"VWState":{"m":"N/A"}}'
    )


def test_an_apprentice_of_slots_is_told_of_each_slot() -> None:
    """Each is compared with its own baseline."""
    chosen = front((0.5, None), learning_mode=LearningMode.APPRENTICE, deferred=True)
    line = json.loads(write_line(chosen, EARLIEST))
    assert [(each["_label_cost"], each["_original_label_cost"]) for each in line["_outcomes"]] == [(0, -0.5), (0, -0.5)]
    assert line["_skipLearn"] is True
