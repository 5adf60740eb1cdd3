"""Actions that recur are kept as the learner parsed them: what it says of them must not change by that."""

from __future__ import annotations

import json
import math
import random

import pytest

from rankward.records import Action, Features
from rankward.vw import parser as parser_module
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner
from rankward.vw.parser import context_text

EXPLORERS = (
    "--epsilon 0.2",
    "--squarecb --gamma_scale 10 --epsilon 0.02",
    "--softmax --lambda 3",
    "--first 40",
    "--bag 4 --greedify",
    "--cover 3 --psi 0.1",
    "--cover 3 --nounif",
    "--rnd 3 --epsilon 0.02",
    "--synthcover --epsilon 0.1",
    "--regcb",
    "--regcbopt",
)
OTHERS = (
    "--cb_type dr",
    "--cb_type ips --power_t 0",
    "--cb_type dm",
    "--cb_type sm",
    "--coin",
    "--ftrl",
    "--sgd --l1 1e-4",
    "--cb_dro",
    "--cubic Fij",
    "--interactions FFjj",
    "--ignore F",
    "--keep j --noconstant",
    "--ignore_linear i --hash all --chain_hash",
)
POLICIES = [f"--cb_explore_adf --cb_type mtr {explorer} -q ::" for explorer in EXPLORERS]
POLICIES += [f"--cb_explore_adf {others}" for others in OTHERS]


def actions_of(rng: random.Random, count: int) -> list[Action]:
    """Make actions of several kinds: numbers, words, flags, nested objects, none that counts."""
    texts = [
        [{"dish": {"price": round(rng.random(), 2), "veg": rng.random() < 0.5, "kind": f"kind{rng.randrange(9)}"}}],
        [{"size": rng.randrange(9)}, {"dish": {"sub": {"spice": rng.random()}}}],
        [{"tastes": [rng.random(), rng.random()]}],
        [{}],
    ]
    return [Action(f"a{number}", Features(json.dumps(rng.choice(texts)).encode())) for number in range(count)]


def context_of(rng: random.Random) -> Features:
    """Make a context of one or two namespaces, now and then of none."""
    groups = [{"Fhour": {"hour": rng.randrange(24)}}, {"visitor": {"device": rng.choice("abc")}}]
    return Features(json.dumps(groups[: rng.randrange(3)]).encode())


def pmf_unkept(learner: Learner, context: Features, actions: list[Action]) -> list[float]:
    """What the learner says when all is parsed anew."""
    workspace = learner._workspace
    examples = workspace._parse(context_text(context, actions))
    workspace.predict_multi(examples)
    pmf: list[float] = examples[0].get_action_scores()
    workspace._finish_example_multi_ex(examples)
    return pmf


@pytest.mark.parametrize("policy", POLICIES)
def test_actions_kept_parsed_are_scored_as_if_they_were_parsed_anew(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probability that is logged must be the learner's own, whatever was scored or learned before."""
    monkeypatch.setattr(parser_module, "_PARSED_KEPT", 12)  # of 20, so that some are forgotten
    rng = random.Random(7)
    learner = Learner(parse_policy(policy).learner_text)
    catalog = actions_of(rng, 20)
    for _ in range(150):
        context, actions = context_of(rng), rng.sample(catalog, rng.randrange(2, 9))
        expected = pmf_unkept(learner, context, actions)
        assert learner.pmf(context, actions) == expected
        learner.learn(
            context, actions, chosen=rng.randrange(len(actions)), probability=1 / len(actions), reward=rng.random()
        )
    learner.close()


def test_an_action_offered_twice_is_scored_twice() -> None:
    """The learner adds to an example while it scores: to hand it the same one twice would spoil it."""
    learner = Learner("--cb_explore_adf --epsilon 0.2 -q ::")
    rng = random.Random(1)
    context, [action, other] = context_of(rng), actions_of(rng, 2)
    learner.learn(context, [action, other], chosen=0, probability=0.5, reward=1.0)
    for _ in range(3):
        assert learner.pmf(context, [action, action, other]) == pmf_unkept(learner, context, [action, action, other])
    learner.close()


def test_more_actions_than_are_kept_can_be_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded, what a decision may offer is another matter."""
    monkeypatch.setattr(parser_module, "_PARSED_KEPT", 3)
    learner = Learner("--cb_explore_adf --epsilon 0.2 -q ::")
    rng = random.Random(1)
    actions = actions_of(rng, 30)
    learner.learn(context_of(rng), actions, chosen=4, probability=0.5, reward=1.0)
    for _ in range(3):
        context = context_of(rng)
        assert learner.pmf(context, actions) == pmf_unkept(learner, context, actions)
        assert len(learner._parser._kept) <= 3
    learner.close()


@pytest.mark.parametrize("strange", [None, math.nan, math.inf])
def test_weights_are_what_the_learner_says_of_each(strange: float | None) -> None:
    """They come out of its own list of them, which breaks off where one is not finite: none may be lost by that."""
    learner = Learner("--cb_explore_adf --bag 2 --bit_precision 12 -q ::")
    rng = random.Random(1)
    for _ in range(30):
        actions = actions_of(rng, 4)
        learner.learn(context_of(rng), actions, chosen=rng.randrange(4), probability=0.25, reward=rng.random())
    workspace = learner._workspace
    if strange is not None:
        workspace.set_weight(7, 0, strange)
    each = {index: workspace.get_weight(index) for index in range(workspace.num_weights())}

    assert repr(learner.weights()) == repr({index: value for index, value in each.items() if value != 0})
    learner.close()
