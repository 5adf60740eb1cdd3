"""What a report says of weights and probabilities is neither better nor worse than it is."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from rankward.dsjson.write import write_line
from rankward.migration.parity import Comparison, explained_weights
from rankward.migration.replay import NO_MODEL, OTHER_KIND, OldModel, Replay
from rankward.migration.report import share, verdict
from rankward.records import AnyInteraction, MultiSlotInteraction, SlotChoice
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner
from tests.dsjson.events import EARLIEST, features, order
from tests.migration.resource import OldLearner, decided, front_decided

UNIFORM = (1 / 3, 1 / 3, 1 / 3)
CB = "--cb_explore_adf --epsilon 0.2"
CCB = "--ccb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"


def old_model(policy: str, model: bytes) -> OldModel:
    """Make what is replayed on."""
    parsed = parse_policy(policy)
    return OldModel(
        model=model, arguments=parsed.learner_text, epsilon=parsed.epsilon or 0.0, problem_type=parsed.problem_type
    )


@pytest.mark.parametrize(
    "policy",
    [
        f"{CB} --cb_type mtr -q ::",
        f"{CB} --cb_type ips -q ::",
        f"{CB} --cb_type dr -q Fj",
        f"{CB} --cb_type dm --cubic Fij",
        f"{CB} --cb_type sm -q ::",
        f"{CB} --cb_type mtr --coin -q Fi",
        f"{CB} --cb_type mtr --sgd --power_t 0 -l 0.01 --ignore_linear F",
        f"{CB} --cb_type mtr -b 20 --noconstant -q vd",
        "--cb_explore_adf --bag 3 --cb_type mtr -q Fj",
        "--cb_explore_adf --squarecb --cb_type mtr -q Fj",
    ],
)
def test_the_log_that_a_model_was_trained_on_explains_all_of_it(policy: str, tmp_path: Path) -> None:
    """Whatever the policy makes of the features. And nothing is explained by features that were not there."""
    dice = random.Random(1)
    events = [decided(number, dice, UNIFORM, model_id=None) for number in range(40)]
    learner = OldLearner(parse_policy(policy).learner_text)
    for event in events:
        learner.learn(write_line(event, EARLIEST))
    model = learner.save(tmp_path / "model.vw")

    def explained(interactions: Iterable[AnyInteraction]) -> tuple[int, int]:
        replay = Replay(old_model(policy, model))
        for interaction in interactions:
            replay.take(interaction)
        weights, _ = replay.end()
        assert weights is not None
        return weights.explained, weights.count

    whole, count = explained(event.interaction for event in events)
    assert whole == count > 0
    elsewhere = order(context=features([{"where": "nowhere"}])).interaction
    part, _ = explained([elsewhere])
    assert part < count


def test_a_model_for_slots_is_explained_and_compared_slot_by_slot(tmp_path: Path) -> None:
    """A later slot is decided out of what the earlier ones left, so those have to choose as they did."""
    dice = random.Random(1)
    learner = OldLearner(CCB)
    first = [
        front_decided(number, dice, [SlotChoice((2, 0), (0.5, 0.5)), SlotChoice((0, 1), (0.5, 0.5))], None)
        for number in range(30)
    ]
    for event in first:
        learner.learn(write_line(event, EARLIEST))
    model = learner.save(tmp_path / "model.vw")
    ours = Learner(parse_policy(CCB).learner_text, model)
    replay = Replay(old_model(CCB, model))
    for event in first:
        replay.take(event.interaction)
    for number in range(20):
        offered = front_decided(number, dice, [], None).interaction
        assert isinstance(offered, MultiSlotInteraction)
        choices = ours.choices(offered.context, offered.actions, offered.slots, (number, number + 1))
        replay.take(msgspec.structs.replace(offered, choices=tuple(choices), model_id="m"))

    weights, probabilities = replay.end()

    assert weights is not None
    assert probabilities is not None
    assert weights.explained == weights.count > 0
    assert (probabilities.decisions, probabilities.same) == (20, 20)
    assert probabilities.not_compared == {NO_MODEL: 30}


def test_what_cannot_be_compared_is_counted_by_why(tmp_path: Path) -> None:
    """A share is worth nothing without what it leaves out."""
    learner = OldLearner()
    learner.learn(write_line(order(0.5), EARLIEST))
    replay = Replay(old_model(f"{CB} --power_t 0 -l 0.001 --cb_type mtr -q ::", learner.save(tmp_path / "model.vw")))
    replay.take(order().interaction)
    replay.take(front_decided(1, random.Random(1), [SlotChoice((2, 0), (0.5, 0.5))] * 2, None).interaction)
    _, probabilities = replay.end()
    assert probabilities is not None
    assert probabilities.not_compared == {NO_MODEL: 1, OTHER_KIND: 1}


def test_the_model_itself_is_the_one_that_matches_throughout() -> None:
    """A model file does not say what the log calls it."""
    comparison = Comparison()
    for model_id, difference in (("old", 0.3), ("old", 0.0), ("own", 0.0), ("own", 9e-5), ("other", 2e-4)):
        comparison.note(model_id, [0.0, difference])
    found = comparison.end()
    assert [each.model_id for each in found.models] == ["own", "old", "other"]
    assert [each.model_id for each in found.throughout] == ["own"]
    assert (found.decisions, found.same, found.difference_max) == (5, 3, 0.3)


def test_unexplained_weights_are_named_by_their_size() -> None:
    """The largest are those that matter."""
    found = explained_weights({1: 0.5, 2: -2.0, 3: 0.25}, [2, 3])
    assert (found.count, found.explained, found.size, found.size_explained) == (3, 1, 2.75, 0.5)
    assert [each.index for each in found.largest_unexplained] == [2, 3]


def test_a_verdict_says_what_was_not_found() -> None:
    """Nobody reads a table that a sentence has called fine."""
    assert share(0.99999) == "99.99 %"
    assert share(1.0) == "100 %"
    comparison = Comparison()
    comparison.note("a", [0.2])
    said = " ".join(verdict(explained_weights({1: 1.0}, [1]), comparison.end(), has_model=True, imported=1))
    assert "0 of the model's 1 weights" in said
    assert "No model of the log gets its own throughout" in said
    assert "nothing to compare" in " ".join(verdict(None, None, has_model=False, imported=0))
    nothing = verdict(explained_weights({}, []), Comparison().end(), has_model=True, imported=1)
    assert "learned nothing yet" in nothing[1]
    assert "can be compared" in nothing[2]
