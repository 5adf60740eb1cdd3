"""Learners that share a parser: each must say and learn what it would by itself."""

from __future__ import annotations

import random

import pytest

from rankward.records import Action, Features
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError, shared_parser
from rankward.vw.parser import Lesson

KINDS = (
    "--cb_type mtr -q ::",
    "--cb_type dr -q Fj",
    "--cb_type ips",
    "--cb_type dm",
    "--squarecb --gamma_scale 10 -q Fj --ignore_linear F",
    "--synthcover --cb_type mtr",
    "--softmax --lambda 3",
    "--bag 4",
    "--cover 3 -q Fj",
    "--regcbopt",
    "--rnd 3",
    "--coin",
)
STRENGTHS = ("--epsilon 0.02", "--epsilon 0.2 --learning_rate 0.1 --power_t 0.25", "--epsilon 0.1 --l2 0.001")


def lessons(count: int) -> list[Lesson]:
    """Draw events whose actions recur; one in five stands for two."""
    rng = random.Random(11)
    catalog = [Action(f"a{n}", Features(f'[{{"size":{n},"kind":"k{n % 3}"}}]'.encode())) for n in range(12)]
    drawn = []
    for _ in range(count):
        actions = rng.sample(catalog, rng.randrange(2, 7))
        chosen = rng.randrange(len(actions))
        context = Features(f'[{{"hour":{rng.randrange(24)}}}]'.encode())
        keeping = 0.5 if rng.random() < 0.2 else 1.0
        drawn.append(Lesson(context, actions, chosen, 1 / len(actions), rng.random(), keeping))
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_learners_that_share_a_parser_are_what_they_are_alone(kind: str) -> None:
    """Otherwise what a policy is said to earn would depend on what else was judged beside it."""
    policies = [parse_policy(f"--cb_explore_adf {kind} {strength}") for strength in STRENGTHS]
    assert len({policy.parsing_text for policy in policies}) == 1
    parser = shared_parser(policies[0].learner_text)
    together = [Learner(policy.learner_text, parser=parser) for policy in policies]
    alone = [Learner(policy.learner_text) for policy in policies]
    for lesson in lessons(200):
        said = [learner.pmf(lesson.context, lesson.actions) for learner in together]
        assert said == [learner.pmf(lesson.context, lesson.actions) for learner in alone]
        for learner in together:
            learner.learn_from(lesson)
        for learner in alone:
            learner.learn_from(lesson)
    assert [learner.weights() for learner in together] == [learner.weights() for learner in alone]
    parser.close()
    for learner in (*together, *alone):
        learner.close()


@pytest.mark.parametrize(
    "other", ["--cb_type dr -q Fj", "-q Fi", "--bag 2 -q Fj", "--coin -q Fj", "-q Fj --ignore_linear F"]
)
def test_what_examples_depend_on_keeps_policies_apart(other: str) -> None:
    """An example refers to its parser's interactions, and is spaced for its parser's weights."""
    policy, different = (parse_policy(f"--cb_explore_adf {text}") for text in ("-q Fj", other))

    assert policy.parsing_text != different.parsing_text


def test_a_learner_that_breaks_leaves_the_others_whole() -> None:
    """One candidate's failure is its own, and what it was given when it failed is not handed on."""
    parser = shared_parser("--cb_explore_adf --epsilon 0.1")
    broken, sound = (Learner("--cb_explore_adf", parser=parser) for _ in range(2))
    alone = Learner("--cb_explore_adf")
    good = lessons(3)
    bad = Lesson(Features(b'[{"x":'), good[0].actions, 0, 0.5, 1.0)
    for lesson in good:
        broken.learn_from(lesson)
        with pytest.raises(LearnerRefusedError):
            broken.learn_from(bad)
        with pytest.raises(LearnerRefusedError):
            broken.pmf(bad.context, bad.actions)
        sound.learn_from(lesson)
        alone.learn_from(lesson)
    assert sound.weights() == alone.weights()
    parser.close()
    for learner in (broken, sound, alone):
        learner.close()
