"""Lines as they are read: every variation that Personalizer wrote, and what is no line of ours."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from rankward.dsjson.read import LineReader, Skip, Skipped
from rankward.dsjson.write import write_line
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.records import Action, History, JoinedEvent, LearningMode, MultiSlotInteraction, Slot, SlotChoice
from rankward.settings import Aggregation, Limits
from tests.dsjson.events import (
    BOUNDS,
    EARLIEST,
    PASTA,
    SALAD,
    TIME_US,
    WAIT_US,
    features,
    multi_slot_events,
    order,
    single_slot_events,
)

Json = Any


def reader(mode: LearningMode | None = None) -> LineReader:
    """Make a reader."""
    return LineReader(bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US, mode=mode)


def read_one(line: Json) -> History:
    """Read one line that can be read."""
    [found] = reader().read([line if isinstance(line, bytes) else json.dumps(line).encode()])
    assert isinstance(found, History), found
    return found


def skipped(line: Json) -> Skipped:
    """Read one line that cannot be read."""
    [found] = reader().read([line if isinstance(line, bytes) else json.dumps(line).encode()])
    assert isinstance(found, Skipped), found
    return found


def example(**changes: Json) -> Json:
    """The contract's line, with these keys changed; None takes a key out."""
    line = {**json.loads(write_line(order(0.75), EARLIEST)), **changes}
    return {key: value for key, value in line.items() if value is not None}


def test_what_was_written_is_read() -> None:
    """All but the excluded action, which a line does not hold."""
    history = read_one(write_line(order(0.75), EARLIEST).encode())
    expected = order(actions=(PASTA, SALAD), pmf=(0.1, 0.9), chosen=1, excluded=()).interaction
    assert history.interaction == expected
    assert history.time_us == TIME_US
    assert [(each.time_us, each.value) for each in history.observations] == [(TIME_US, 0.75)]


@given(single_slot_events())
def test_writing_and_reading_gives_the_same_event(event: JoinedEvent) -> None:
    """So a log can be moved from one installation to another, and back."""
    definition = RewardDefinition(0.5, Aggregation.SUM)
    line = write_line(event, definition)
    history = read_one(line.encode())
    # As an apprentice, the same costs would have come out for the same event.
    assert history.interaction.learning_mode in (LearningMode.ONLINE, LearningMode.APPRENTICE)
    again = JoinedEvent(event.offset, history.joined(0, event.entry.due_us), history.interaction)
    assert again.interaction == event.interaction
    assert again.entry == msgspec.structs.replace(event.entry, imported=True)
    assert write_line(again, definition) == line


@given(multi_slot_events())
def test_writing_and_reading_gives_the_same_event_for_slots(event: JoinedEvent) -> None:
    """As for a single slot."""
    definition = RewardDefinition(0.5, Aggregation.SUM)
    line = write_line(event, definition)
    history = read_one(line.encode())
    again = JoinedEvent(event.offset, history.joined(0, event.entry.due_us), history.interaction)
    assert again.interaction == event.interaction
    assert again.entry == msgspec.structs.replace(event.entry, imported=True)
    assert write_line(again, definition) == line


@pytest.mark.parametrize(
    ("changes", "rewards"),
    [
        ({}, [0.75]),
        ({"o": []}, []),
        ({"o": None}, [0.75]),
        ({"o": None, "_label_cost": -0.0, "_original_label_cost": -0.0}, []),
        ({"o": None, "_original_label_cost": None}, [0.75]),
        ({"o": [{"v": 0.5}, {"v": 0.25, "EventId": "order-page-0001"}]}, [0.5, 0.25]),
        ({"o": [{"v": "0.5", "ActionTaken": False}]}, [0.5]),
        ({"o": [{"v": None, "ActionTaken": True}, {"v": 1}]}, [1.0]),
    ],
)
def test_observations_may_be_missing_or_empty(changes: Json, rewards: list[float]) -> None:
    """An empty list says that there were none; without a list, the cost is all that there is to go by."""
    assert [each.value for each in read_one(example(**changes)).observations] == rewards


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("2026-01-15T12:00:00.000000Z", TIME_US),
        ("2026-01-15T12:00:00.1234567Z", TIME_US + 123_456),
        ("2026-01-15T12:00:00.1234567", TIME_US + 123_456),
        ("2026-01-15T12:00:00Z", TIME_US),
        ("2026-01-15T13:00:00.000001+01:00", TIME_US + 1),
    ],
)
def test_moments_come_in_several_spellings(text: str, time_us: int) -> None:
    """Six decimals or seven, with `Z` or, in older lines, without: always UTC."""
    assert read_one(example(Timestamp=text)).time_us == time_us


def test_an_activation_counts_as_one() -> None:
    """Else an event that was shown would be taken for one that was not."""
    history = read_one(example(o=[{"EventId": "order-page-0001", "ActionTaken": True}], _label_cost=-0.0))
    assert (history.interaction.deferred, history.activated, history.observations) == (True, True, ())


def test_an_event_that_was_never_activated_is_not_learned() -> None:
    """`_skipLearn` stands for an event that nobody saw."""
    history = read_one(example(_skipLearn=True))
    event = JoinedEvent(0, history.joined(0, 0), history.interaction)
    assert event.skip_learn


def test_unknown_keys_are_passed_over() -> None:
    """Lines of every age have keys that matter to nobody any more."""
    changed = example(_synthetic=False, DeferredAction=None, x={"y": [1, "z"]}, Version="2")
    assert read_one(changed) == read_one(example())


def test_the_id_of_the_model_is_kept() -> None:
    """It tells a replay which decisions were made by the model at hand."""
    assert read_one(example(VWState={"m": "abc/12"})).interaction.model_id == "abc/12"
    assert read_one(example(VWState={})).interaction.model_id is None
    assert read_one(example(VWState=None)).interaction.model_id is None


def test_an_apprentice_shows_in_its_costs() -> None:
    """A line does not name its mode; where its costs could be of either, those around it tell."""
    lines = [
        write_line(order(reward, learning_mode=LearningMode.APPRENTICE, chosen=chosen), EARLIEST).encode()
        for reward, chosen in ((1.0, 0), (0.0, 2), (0.5, 2), (0.0, 2), (0.0, 0))
    ]
    modes = [found.interaction.learning_mode for found in reader().read(lines) if isinstance(found, History)]
    assert modes == [LearningMode.APPRENTICE] * 5
    one_by_one = reader(LearningMode.APPRENTICE)
    found = [one_by_one.read([line])[0] for line in lines]
    assert found == reader().read(lines)


def test_a_log_may_change_its_mode() -> None:
    """Lines are learned as they were decided, whatever came before."""
    apprentice = write_line(order(0.5, learning_mode=LearningMode.APPRENTICE), EARLIEST).encode()
    online = write_line(order(0.5), EARLIEST).encode()
    found = reader().read([apprentice, online])
    modes = [each.interaction.learning_mode for each in found if isinstance(each, History)]
    assert modes == [LearningMode.APPRENTICE, LearningMode.ONLINE]


def test_a_log_of_logging_only_is_read() -> None:
    """Its decisions are the baseline, at probability 1."""
    logged = order(1.0, pmf=(1.0, 0.0, 0.0), chosen=0, excluded=(), learning_mode=LearningMode.LOGGING_ONLY)
    history = read_one(write_line(logged, EARLIEST).encode())
    assert history.interaction.choices == (SlotChoice((0, 1, 2), (1.0, 0.0, 0.0)),)


def test_features_may_stand_beside_their_usual_place() -> None:
    """Logs that other software wrote for `vw --dsjson` have namespaces of their own, and actions without ids."""
    line = example(
        c={
            "GUser": {"id": "a"},
            "FromUrl": [{"visitor": {"device": "phone"}}],
            "_multi": [{"TAction": {"value": "x"}}, {"_tag": "salad", "j": [{"dish": {"veg": True}}], "z": {"w": 1}}],
        }
    )
    interaction = read_one(line).interaction
    assert interaction.context == features([{"visitor": {"device": "phone"}}, {"GUser": {"id": "a"}}])
    assert interaction.actions == (
        Action("0", features([{"TAction": {"value": "x"}}])),
        Action("salad", features([{"dish": {"veg": True}}, {"z": {"w": 1}}])),
    )


def test_features_are_checked_as_at_the_door() -> None:
    """Nothing may reach the learner's parser as somebody else wrote it."""
    context = [{"visitor": {"_text": "a b", "age": None, "été": {"x": 1}}}, None]
    rewritten = read_one(example(c={"FromUrl": context, "_multi": [{"j": []}, {"j": [{}, {"_x": 1}]}]}))
    assert rewritten.interaction.context == features([{"visitor": {"age": "null", "%été": {"x": 1}}}])
    assert [action.features for action in rewritten.interaction.actions] == [b"[{}]", b"[{}]"]
    why = skipped(example(c={"FromUrl": [{"likes": ["a", "b"]}], "_multi": [{}, {}]}))
    assert why.kind is Skip.BROKEN
    assert "holds numbers only" in why.why


def test_a_dangling_reward_is_named() -> None:
    """Its decision is not in the log, so there is nothing to learn from it."""
    line = {
        "RewardValue": 1.0,
        "ActionTaken": False,
        "EnqueuedTimeUtc": "2026-01-15T12:00:00Z",
        "EventId": "lost",
        "Observations": [{"v": 1.0, "ActionTaken": False, "EventId": "lost", "ActionId": None}],
    }
    assert skipped(line).kind is Skip.DANGLING
    assert skipped({**line, "RewardValue": None, "ActionTaken": True}).kind is Skip.DANGLING


def test_lines_of_other_problems_are_named() -> None:
    """They are passed over by name, so that nobody looks for a fault in the file."""
    continuous = example(_label_ca={"cost": -1, "pdf_value": 0.1, "action": 3.5}, a=None, p=None)
    assert skipped(continuous).kind is Skip.CONTINUOUS
    slates = example(_outcomes=[{"_a": [0], "_p": [1.0]}], a=None, p=None)
    assert skipped(slates).kind is Skip.SLATES


def front(**changes: Json) -> Json:
    """The contract's line for two slots, with these keys changed; None takes a key out."""
    line = {
        "Timestamp": "2026-01-15T12:00:00.000000Z",
        "Version": "1",
        "EventId": "front-0007",
        "c": {
            "FromUrl": [{"visitor": {"device": "phone"}}],
            "_multi": [
                {"_tag": name, "i": {"constant": 1, "id": name}, "j": [{"kind": kind}]}
                for name, kind in (("a", "news"), ("b", "sport"), ("c", "film"))
            ],
            "_slots": [{"_id": "hero", "sj": [{"size": "large"}, {"_inc": [0, 2]}]}, {"_id": "side", "sj": []}],
        },
        "_outcomes": [
            {
                "_label_cost": -1.0,
                "_id": "hero",
                "_a": [0, 2],
                "_p": [0.9, 0.1],
                "_o": [{"v": 1.0, "EventId": "front-0007", "Index": "hero", "ActionTaken": False}],
                "_original_label_cost": -1.0,
            },
            {"_label_cost": -0.0, "_id": "side", "_a": [1, 2], "_p": [0.9, 0.1], "_original_label_cost": -0.0},
        ],
        "_ba": [2, 0],
        "VWState": {"m": "N/A"},
        **changes,
    }
    return {key: value for key, value in line.items() if value is not None}


HERO = Slot("hero", features([{"size": "large"}]), baseline=2, excluded=(1,))
SIDE = Slot("side", features([]), baseline=0)


def several(line: Json) -> MultiSlotInteraction:
    """Read a line for several slots."""
    interaction = read_one(line).interaction
    assert isinstance(interaction, MultiSlotInteraction)
    return interaction


def test_a_line_for_slots_is_read() -> None:
    """Its indexes count from 0, unlike those of a single slot."""
    interaction = several(front())
    assert interaction.slots == (HERO, SIDE)
    assert interaction.choices == (SlotChoice((0, 2), (0.9, 0.1)), SlotChoice((1, 2), (0.9, 0.1)))
    assert [action.id for action in interaction.actions] == ["a", "b", "c"]
    [observation] = read_one(front()).observations
    assert (observation.value, observation.slot) == (1.0, "hero")


def test_older_lines_for_slots_have_ids_that_were_made() -> None:
    """They had an id for each slot's event, and none for the whole."""
    outcomes = [{**each, "_id": f"guid-{number}"} for number, each in enumerate(front()["_outcomes"])]
    context = {**front()["c"], "_slots": [{"sj": [{"size": "large"}, {"_inc": [0, 2]}]}, {"sj": []}]}
    interaction = several(front(EventId=None, _outcomes=outcomes, c=context, _ba=None))
    assert interaction.event_id == "guid-0"
    assert [slot.id for slot in interaction.slots] == ["guid-0", "guid-1"]
    assert [slot.baseline for slot in interaction.slots] == [0, 1]


def test_slots_of_other_software_are_read() -> None:
    """Features beside their usual place, and `_inc` among them."""
    context = {**front()["c"], "_slots": [{"place": {"top": 1}}, {"sj": [{"size": "small", "_inc": [0, 1, 2]}, None]}]}
    outcomes = [{key: value for key, value in each.items() if key != "_id"} for each in front()["_outcomes"]]
    first, second = several(front(c=context, _outcomes=outcomes)).slots
    assert (first.id, first.features) == ("0", features([{"place": {"top": 1}}]))
    assert (second.id, second.features, second.excluded) == ("1", features([{"size": "small"}]), ())


def test_an_apprentice_of_slots_shows_in_its_costs() -> None:
    """Each slot is compared with its own baseline."""
    first, second = front()["_outcomes"]
    told = front(_outcomes=[{**first, "_label_cost": -0.0}, second])
    assert several(told).learning_mode is LearningMode.APPRENTICE
    assert several(front()).learning_mode is LearningMode.ONLINE


def test_a_sample_keeps_its_weight() -> None:
    """A client that uploads one event in four says so, and each counts for four."""
    assert read_one(example(pdrop=0.75)).interaction.pass_probability == 0.25
    assert several(front(pdrop=0.5)).pass_probability == 0.5
    sampled = write_line(order(1.0, pass_probability=0.25), EARLIEST)
    assert json.loads(sampled)["_label_probability"] == 0.9 * 0.25
    assert read_one(sampled.encode()).interaction.pass_probability == 0.25


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (front(c={**front()["c"], "_slots": []}), "0 slots"),
        (front(c={**front()["c"], "_slots": front()["c"]["_slots"] * 2}), "4 slots"),
        (front(c={**front()["c"], "_slots": [{"_id": "x"}, {"_id": "x"}]}), "same id"),
        (front(_outcomes=[front()["_outcomes"][0]] * 2), "taken"),
        (front(_outcomes=[front()["_outcomes"][1], front()["_outcomes"][0]]), "leaves out"),
        (front(_ba=[1, 0]), "leaves out"),
        (front(_ba=[7, 0]), "no index"),
        (front(pdrop=1.0), "`pdrop`"),
    ],
)
def test_a_broken_line_for_slots_says_what_is_wrong(line: Json, why: str) -> None:
    """As for a single slot."""
    found = skipped(line)
    assert (found.kind, why in found.why) == (Skip.BROKEN, True), found


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no log line"),
        (b"{", "no log line"),
        (b"[1]", "no log line"),
        (b'"\xff"', "no log line"),
        (b"[" * 100_000, "no log line"),
        (example(p=None), "lacks `a` or `p`"),
        (example(a=None), "lacks `a` or `p`"),
        (example(c=None), "no actions"),
        (example(c={"_multi": []}), "offers no action"),
        (example(p=[0.9]), "2 ranked actions and 1 prob"),
        (example(p=[0.9, 0.3]), "add up to 1"),
        (example(p=[1.4, -0.4]), "add up to 1"),
        (example(p=[0.0, 1.0]), "probability 0"),
        (example(a=[2, 2]), "distinct"),
        (example(a=[3, 1], _label_Action=3), "distinct"),
        (example(a=[0, 1], _label_Action=0), "distinct"),
        (example(a=[1, 2]), "`_label_Action` is 2"),
        (example(Timestamp=None), "no `Timestamp`"),
        (example(Timestamp="yesterday"), "no moment"),
        (example(EventId=None), "no `EventId`"),
        (example(EventId="e" * 257), "257 characters"),
        (example(o=[{"v": "much"}]), "no number"),
        (example(o=[{"v": 1e300}]), "outside"),
        (example(_label_cost="low"), "no log line"),
        (example(c={"_multi": [{"_tag": 7}, {}]}), "no log line"),
        (example(c={"_multi": [{"_tag": "t" * 257}, {}]}), "257 characters"),
    ],
)
def test_a_broken_line_says_what_is_wrong(line: Json, why: str) -> None:
    """It is counted and passed over; whoever looks into it must see what to mend."""
    found = skipped(line)
    assert (found.kind, why in found.why) == (Skip.BROKEN, True), found


def test_the_logged_reward_comes_out_again() -> None:
    """Under the definition that the log was made with, an event is worth what its line says."""
    definition = RewardDefinition(0.0, Aggregation.SUM)
    history = read_one(write_line(order(0.25, -0.5), definition).encode())
    event = JoinedEvent(0, history.joined(0, 0), history.interaction)
    assert observed_reward(event, definition) == -0.25
