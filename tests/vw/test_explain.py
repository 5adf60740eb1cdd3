"""Contributions add up to the score, for every policy whose scores are sums."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from vowpalwabbit import Workspace

from rankward.records import Action, Features
from rankward.vw.arguments import parse_policy
from rankward.vw.explain import Terms
from rankward.vw.learner import Learner
from rankward.vw.parser import context_text

CB = "--cb_explore_adf --epsilon 0.2 --cb_type mtr"


def situation(rng: random.Random) -> tuple[Features, list[Action]]:
    """A context and three actions with features of every kind, two groups of one letter among them."""
    device = rng.choice(["phone", "desktop"])
    context = f'[{{"visitor":{{"device":"{device}","age":{rng.randint(16, 90)}}},"hour":{rng.randint(0, 23)}}}]'
    actions = [
        Action(
            name,
            Features(
                f'[{{"dish":{{"veg":{str(rng.random() < 0.5).lower()},"kcal":{rng.random():.3f}}},'
                f'"price":{rng.randint(5, 20)},"vec":[0.5,{rng.random():.2f}],"visitor2":{{"new":true}}}}]'.encode()
            ),
        )
        for name in ("soup", "salad", "ramen")
    ]
    return Features(context.encode()), actions


def taught(policy: str, *, events: int = 150) -> tuple[Learner, str]:
    """A learner that has learned something, with its arguments."""
    text = parse_policy(policy).learner_text
    learner = Learner(text)
    rng = random.Random(7)
    for _ in range(events):
        context, actions = situation(rng)
        learner.learn(context, actions, chosen=rng.randrange(3), probability=0.4, reward=rng.random())
    return learner, text


def expected_rewards(
    learner: Learner, policy: str, context: Features, actions: list[Action], tmp: object
) -> list[float]:
    """Score the actions by the same model without exploration, as the learner itself prints it."""
    path = f"{tmp}/model.vw"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(learner.save())
    arguments = policy.replace("--cb_explore_adf --epsilon 0.2", "--cb_adf")
    plain = Workspace(f"{arguments} --json --quiet -i {path}")
    examples = plain._parse(context_text(context, actions))
    plain.predict_multi(examples)
    scores = [-example.get_partial_prediction() for example in examples[1:]]
    plain._finish_example_multi_ex(examples)
    plain.finish()
    return scores


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-q ::",
        "--power_t 0 -l 0.001 -q ::",
        "-q vd -q jv --ignore_linear v",
        "-q dd",
        "-q v: -q :d",
        "--cubic vdj",
        "--cubic vvd",
        "--interactions vdjF",
        "--noconstant -q Fd",
        "-b 10 -q ::",
        "--ignore d -q ::",
        "--sgd --power_t 0 -l 0.001 -q ::",
        "--coin -q vd",
        "--keep v -q ::",
    ],
)
def test_contributions_add_up_to_the_score(options: str, tmp_path: Path) -> None:
    """What is told of a decision is what the model computes, not a guess about it."""
    policy = f"{CB} {options}"
    learner, text = taught(policy)
    context, actions = situation(random.Random(99))

    scores = expected_rewards(learner, text, context, actions, tmp_path)

    for index, score in enumerate(scores):
        contributions = learner.explain(context, actions, index)
        assert contributions is not None
        assert math.fsum(part.score for part in contributions) == pytest.approx(score, rel=1e-4, abs=1e-4)
    assert len({round(score, 5) for score in scores}) > 1, "the model tells the actions apart"


@pytest.mark.parametrize("explorer", ["--squarecb", "--softmax", "--synthcover", "--first 5"])
def test_other_ways_of_exploring_one_model_are_explained(explorer: str) -> None:
    """They draw differently from the same scores."""
    learner, _ = taught(f"--cb_explore_adf {explorer} --cb_type mtr -q ::")
    context, actions = situation(random.Random(99))

    assert learner.explain(context, actions, 1)


@pytest.mark.parametrize("policy", ["--cb_explore_adf --bag 3", "--cb_explore_adf --cover 3 --cb_type mtr"])
def test_several_models_are_not_explained_by_one_of_them(policy: str) -> None:
    """No single sum made the choice."""
    learner, _ = taught(f"{policy} -q ::")
    context, actions = situation(random.Random(99))

    assert learner.explain(context, actions, 0) is None


def test_names_can_be_read() -> None:
    """Group and feature, as the application sent them."""
    learner, _ = taught(f"{CB} -q vd")
    context, actions = situation(random.Random(99))

    contributions = learner.explain(context, actions, 0)

    assert contributions is not None
    names = {part.name for part in contributions}
    assert {"visitor.device", "visitor.age", "FromUrl.hour", "j.price", "vec.0", "i.id", "constant"} <= names
    assert {"visitor.device^dish.kcal", "visitor2.new^dish.kcal"} <= names
    assert not [name for name in names if "#" in name]
    sizes = [abs(part.score) for part in contributions]
    assert sizes == sorted(sizes, reverse=True)


def test_explaining_changes_nothing() -> None:
    """Neither the probabilities that follow nor the weights."""
    learner, _ = taught(f"{CB} -q ::")
    context, actions = situation(random.Random(99))
    before = learner.pmf(context, actions), learner.weights()

    learner.explain(context, actions, 0)

    assert (learner.pmf(context, actions), learner.weights()) == before


def test_an_interaction_named_twice_counts_once() -> None:
    """As the learner has it."""
    terms = Terms.of("--quadratic vd --quadratic dv --quadratic v:")

    assert list(terms.expanded(["v", "d", "j"])) == ["vd", "vj", "vv"]
