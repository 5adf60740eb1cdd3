"""Events out of a sample weigh as much as they stand for."""

from __future__ import annotations

import json

import pytest
from vowpalwabbit import Workspace

from rankward.records import Action, Features, Slot, SlotChoice
from rankward.vw.learner import Learner
from rankward.vw.parser import context_text
from rankward.vw.slots import with_slots

CONTEXT = Features(b'[{"visitor":{"device":"phone","age":0.5}}]')
ACTIONS = [Action(name, Features(b'[{"dish":{"name":"%s"}}]' % name.encode())) for name in ("a", "b", "c")]


def weights_of(workspace: Workspace) -> dict[int, float]:
    """The weights of a learner that are not 0, by index."""
    return {each["index"]: each["value"] for each in json.loads(workspace.json_weights())["weights"]}


@pytest.mark.parametrize("cb_type", ["mtr", "ips", "dr"])
def test_it_is_learned_as_the_learner_learns_it_from_a_log(cb_type: str) -> None:
    """With the weight that `pdrop` has there, before and after events that weigh 1."""
    arguments = f"--cb_explore_adf --epsilon 0.2 --cb_type {cb_type} -q ::"
    learner = Learner(arguments)
    reference = Workspace(f"{arguments} --dsjson --quiet")
    for chosen, pass_probability in enumerate((1.0, 0.25, 1.0)):
        learner.learn(CONTEXT, ACTIONS, chosen=chosen, probability=0.5, reward=1.0, pass_probability=pass_probability)
        line = {
            "_label_cost": -1.0,
            "_label_probability": 0.5,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
            "a": [chosen + 1],
            "p": [0.5],
            "c": json.loads(context_text(CONTEXT, ACTIONS)),
            "pdrop": 1.0 - pass_probability,
        }
        examples = reference._parse(json.dumps(line))
        reference.learn_multi(examples)
        reference._finish_example_multi_ex(examples)
    assert learner.weights() == weights_of(reference) != {}
    learner.close()
    reference.finish()


def test_it_weighs_as_much_as_it_stands_for() -> None:
    """One event of a sample of a half is worth what two events are, as far as the update rule adds up."""
    weights = {}
    for name, count, pass_probability in (("one", 1, 1.0), ("two", 2, 1.0), ("half", 1, 0.5)):
        learner = Learner("--cb_explore_adf --cb_type mtr --sgd --power_t 0 -l 0.001")
        for _ in range(count):
            learner.learn(CONTEXT, ACTIONS, chosen=1, probability=0.5, reward=1.0, pass_probability=pass_probability)
        weights[name] = learner.weights()
        learner.close()
    for index, value in weights["half"].items():
        assert value == pytest.approx(weights["two"][index], rel=0.01)
        assert value == pytest.approx(2 * weights["one"][index], rel=0.01)


def test_decisions_for_slots_weigh_as_much_as_they_stand_for() -> None:
    """As from a log, in between events that weigh 1."""
    arguments = "--ccb_explore_adf --epsilon 0.2 --cb_type mtr -q ::"
    slots = [Slot("hero", Features(b'[{"size":"large"}]'), baseline=2, excluded=(1,)), Slot("side", Features(b"[]"), 0)]
    choices = [SlotChoice((0, 2), (0.75, 0.25)), SlotChoice((1, 2), (0.5, 0.5))]
    learner = Learner(arguments)
    reference = Workspace(f"{arguments} --dsjson --quiet")
    for pass_probability in (1.0, 0.25, 1.0):
        learner.learn_slots(CONTEXT, ACTIONS, slots, choices, [1.0, 0.5], pass_probability=pass_probability)
        line = {
            "Timestamp": "2026-01-15T12:00:00.000000Z",
            "Version": "1",
            "EventId": "front-0007",
            "c": json.loads(with_slots(context_text(CONTEXT, ACTIONS), slots, len(ACTIONS))),
            "_outcomes": [
                {"_label_cost": -reward, "_id": slot.id, "_a": choice.actions, "_p": choice.pmf}
                for slot, choice, reward in zip(slots, choices, (1.0, 0.5), strict=True)
            ],
            "VWState": {"m": "N/A"},
            "pdrop": 1.0 - pass_probability,
        }
        examples = reference._parse(json.dumps(line))
        reference.learn_multi(examples)
        reference._finish_example_multi_ex(examples)
    assert learner.weights() == weights_of(reference) != {}
    learner.close()
    reference.finish()
