"""Presets, and the namespaces their interactions are derived from."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vowpalwabbit import Workspace

from rankward.ranking.explore import check_pmf, floored
from rankward.records import Action, Features, Slot
from rankward.vw.arguments import ProblemType, parse_policy
from rankward.vw.learner import Learner
from rankward.vw.presets import (
    BALANCED,
    PERSONALIZER,
    PRESETS,
    Preset,
    derive_interactions,
    namespace_letters,
    preset_of,
)

LETTERS = st.frozensets(st.sampled_from("Fijvd#-"))
KEYS = st.text(st.sampled_from("abvF#- "), min_size=1, max_size=3)
LEAVES = st.one_of(st.integers(1, 9), st.just(True), st.text("xy", max_size=2))
NUMBERS = st.lists(st.integers(1, 9), max_size=3)
OBJECTS = st.recursive(
    st.dictionaries(KEYS, st.one_of(LEAVES, NUMBERS), max_size=3),
    lambda inner: st.dictionaries(KEYS, st.one_of(LEAVES, NUMBERS, inner), max_size=3),
    max_leaves=4,
)


def test_the_presets_say_what_they_are() -> None:
    """A new loop chooses among them by name, and Azure's own arguments must be there word for word."""
    assert PERSONALIZER.policy().text == ("--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::")
    assert PERSONALIZER.policy(ProblemType.MULTI_SLOT).text == (
        "--ccb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
    )
    assert BALANCED.policy().epsilon == 0.02
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.policy().text == preset.arguments
        assert preset.policy().resumes_exactly


def test_a_policy_is_a_preset_only_if_it_says_all_of_it() -> None:
    """To be taken for one gives a policy interactions that its author did not ask for."""
    for name, preset in PRESETS.items():
        assert preset_of(preset.policy().with_epsilon(0.3)) == name
    for text in ("--epsilon 0.05 --cb_type mtr", "--softmax --lambda 10 --epsilon 0.02 --cb_type mtr"):
        assert preset_of(parse_policy(f"--cb_explore_adf {text}")) is None


EVERY = pytest.mark.parametrize(
    ("preset", "problem_type"), list(product(PRESETS.values(), ProblemType)), ids=lambda each: getattr(each, "name", "")
)


@EVERY
def test_every_preset_loads(preset: Preset, problem_type: ProblemType) -> None:
    """A preset that the learner refuses would be found out only by a new loop."""
    policy = preset.policy(problem_type).with_interactions(*derive_interactions(frozenset("Fv"), frozenset("ijv#")))

    Workspace(policy.learner_text + " -b 10 --json --quiet").finish()

    assert policy.problem_type is problem_type


@EVERY
def test_every_preset_keeps_a_floor_and_goes_on_exactly_from_its_model(
    preset: Preset, problem_type: ProblemType
) -> None:
    """What is logged must be able to judge other policies, and a checkpoint must leave no trace."""
    policy = preset.policy(problem_type).with_interactions(*derive_interactions(frozenset("v"), frozenset("ij")))
    learner = Learner(policy.learner_text)
    learn_along(learner, preset, problem_type, random.Random(1))
    resumed = Learner(policy.learner_text, learner.save())

    for each in (learner, resumed):
        learn_along(each, preset, problem_type, random.Random(2))

    assert learner.weights() == resumed.weights() != {}


def learn_along(learner: Learner, preset: Preset, problem_type: ProblemType, rng: random.Random) -> None:
    """Decide and learn what two kinds of visitors like, and hold each probability to the floor."""
    actions = [Action(name, features(f'[{{"kind":"{name}"}}]')) for name in "abcd"]
    slots = [Slot("hero", features('[{"size":1}]'), baseline=0), Slot("side", features("[]"), baseline=1)]
    epsilon = preset.policy().epsilon or 0.0
    for _ in range(120):
        liked = rng.randrange(2)
        context = features(f'[{{"visitor":{{"kind":"{liked}"}}}}]')
        if problem_type is ProblemType.MULTI_SLOT:
            choices = learner.choices(context, actions, slots, [rng.getrandbits(64) for _ in slots])
            assert all(min(check_pmf(choice.pmf, len(choice.actions))) > 0 for choice in choices)
            learner.learn_slots(context, actions, slots, choices, [float(each.chosen == liked) for each in choices])
        else:
            pmf = floored(check_pmf(learner.pmf(context, actions), 4), epsilon)
            assert min(pmf) >= epsilon / 4 - 1e-9
            chosen = rng.choices(range(4), pmf)[0]
            learner.learn(context, actions, chosen=chosen, probability=pmf[chosen], reward=float(chosen == liked))


def test_interactions_are_shared_by_action() -> None:
    """Only a pair of both can change which action is best; a shared weight adds the same to all."""
    assert derive_interactions(frozenset("Fv"), frozenset("ijd")) == (
        ("Fd", "Fi", "Fj", "vd", "vi", "vj"),
        ("F", "v"),
    )


def test_a_letter_on_both_sides_counts_as_both() -> None:
    """The learner knows a namespace by its letter alone, and cannot tell the sides apart."""
    assert derive_interactions(frozenset("Fd"), frozenset("id")) == (("Fd", "Fi", "dd", "di"), ("F",))
    assert derive_interactions(frozenset("ab"), frozenset("ab")) == (("aa", "ab", "bb"), ())


@given(LETTERS, LETTERS)
def test_every_pair_is_derived_once(context_letters: frozenset[str], action_letters: frozenset[str]) -> None:
    """A pair named twice would be learned once and paid for twice; the order must not depend on a hash."""
    pairs, ignored = derive_interactions(context_letters, action_letters)

    assert list(pairs) == sorted(pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in product(context_letters, action_letters)}
    assert set(ignored) == set(filter(str.isalnum, context_letters - action_letters))


@pytest.mark.parametrize(
    ("context", "letters"),
    [
        ("[]", ""),
        ("[{}]", ""),
        ('[{"hour":7}]', "F"),
        ('[{"visitor":{"device":"phone"}}]', "v"),
        ('[{"hour":7,"visitor":{"device":"phone"}},{"weather":{"rain":true}}]', "Fvw"),
        ('[{"visitor":{"deep":{"x":1}}}]', "d"),
        ('[{"visitor":{"x":1,"deep":{"x":1}}}]', "dv"),
        ('[{"embedding":[0.1,0.2]}]', "e"),
        ('[{"visitor":{"embedding":[0.1,0.2]}}]', "e"),
        ('[{"list":[{"x":1}]}]', "l"),
        ('[{"visitor":{"rain":false,"x":0}}]', "v"),
        ('[{"_hidden":{"x":1},"_tag":"x"}]', ""),
        ('[{"visitor":{"_text":"two words"}}]', "v"),
        ('[{"":{"x":1},":a":{"x":1}," b":{"x":1}}]', ""),
        ('[{"été":{"x":1},"東":{"x":1}}]', ""),
        ('[{"#tag":{"x":1}}]', "#"),
    ],
)
def test_letters_of_a_context(context: str, letters: str) -> None:
    """What is not seen here gets no interactions; what is wrongly seen starts an epoch for nothing."""
    found, _ = namespace_letters(features(context), [])

    assert found == frozenset(letters)


def test_letters_of_actions_are_those_of_all() -> None:
    """Actions of one request may have different features; `i`, with its id, is there always."""
    actions = [Action("a", features('[{"size":1}]')), Action("b", features('[{"dish":{"veg":true}}]'))]

    assert namespace_letters(features("[]"), actions) == (frozenset(), frozenset("ijd"))
    assert namespace_letters(features("[]"), [Action("c", features("[]"))])[1] == frozenset("i")


@settings(max_examples=60)
@given(st.lists(OBJECTS, max_size=2), st.lists(OBJECTS, max_size=2))
def test_letters_are_those_the_learner_sees(context: list[Any], action: list[Any]) -> None:
    """The learner's own parser decides what a namespace is; ours must not differ."""
    context_json, action_json = msgspec.json.encode(context).decode(), msgspec.json.encode(action).decode()
    expected = namespace_letters(features(context_json), [Action("a", features(action_json))])

    examples = WORKSPACE._parse(
        f'{{"FromUrl":{context_json},"_multi":[{{"_tag":"a","i":{{"constant":1,"id":"a"}},"j":{action_json}}}]}}'
    )
    seen = [
        frozenset(chr(example.namespace(index)) for index in range(example.num_namespaces())) - {"\x80", " "}
        for example in examples
    ]
    WORKSPACE._finish_example_multi_ex(examples)

    assert list(expected) == seen


WORKSPACE: Any = Workspace("--cb_explore_adf -b 10 --json --quiet")


def features(json: str) -> Features:
    """Features as they stand in a record."""
    return Features(json.encode())
