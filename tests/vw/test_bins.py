"""Numbers with intervals beside them: where the edges lie, what is added, and that the learner is told just that."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.ranking.decide import RankRequest, decide
from rankward.records import Action, Bins, Features, Interaction, LearningMode, Slot
from rankward.vw.bins import (
    EVENTS_MIN,
    FEATURES_MAX,
    INTERVALS,
    INTERVALS_MAX,
    Binner,
    interval_names,
    lacks,
    read_bins,
    settle,
    write_bins,
)
from rankward.vw.learner import Learner
from rankward.vw.parser import Lesson, context_text
from rankward.vw.presets import namespace_letters

BINS = Bins(edges={"visitor": {"age": (30.0, 60.5)}, "FromUrl": {"hour": (12.0,)}, "j": {"price": (5.0,)}}, events=100)
NUMBERS = st.one_of(st.integers(-100, 100), st.floats(-1e6, 1e6, allow_nan=False))
NAMES = st.sampled_from(("age", "price", "hour", "other"))
LEAVES = st.one_of(NUMBERS, st.booleans(), st.text("xy", max_size=2), st.lists(NUMBERS, max_size=2))
GROUPS = st.lists(
    st.dictionaries(
        st.sampled_from(("age", "hour", "price", "visitor", "list")),
        st.one_of(LEAVES, st.dictionaries(NAMES, LEAVES, max_size=3)),
        max_size=4,
    ),
    max_size=2,
)


def features(value: object) -> Features:
    """Features as they stand in a record."""
    return Features(msgspec.json.encode(value))


def decided(context: object, *actions: object) -> Interaction:
    """Make a decision."""
    offered = tuple(Action(f"a{number}", features(each)) for number, each in enumerate(actions or ([{"x": "y"}],)))
    request = RankRequest(event_id="e", context=features(context), actions=offered)
    return decide(request, None, loop_id="l", mode=LearningMode.ONLINE, exploration=0.0, reward_wait_us=0)


def test_intervals_hold_about_as_many_values_each() -> None:
    """A rare value would else have a weight of its own, and a frequent range none."""
    rng = random.Random(1)
    ages = [rng.paretovariate(1.5) * 18 for _ in range(300)]

    bins = settle(decided([{"visitor": {"age": age}}]) for age in ages)

    edges = bins.edges["visitor"]["age"]
    assert len(edges) == INTERVALS - 1
    assert set(edges) <= set(ages)
    counts = [sum(low <= age < high for age in ages) for low, high in pairwise((0.0, *edges, 1e9))]
    assert all(0.8 <= count / (300 / INTERVALS) <= 1.2 for count in counts), counts


def test_a_number_with_few_values_gets_one_interval_for_each() -> None:
    """Weekdays and ratings are names that look like numbers."""
    bins = settle(decided([{"stars": number % 4}]) for number in range(100))

    assert bins.edges == {"FromUrl": {"stars": (1.0, 2.0, 3.0)}}


@pytest.mark.parametrize(
    "groups",
    [
        [{"flag": True, "word": "12", "vector": [1, 2, 3]}],  # none of them is a number with a name
        [{"constant": 7}],
    ],
)
def test_what_is_no_number_that_varies_gets_none(groups: object) -> None:
    """It would cost a weight for each action and say nothing."""
    assert settle(decided(groups) for _ in range(100)).edges == {}


def test_two_values_need_no_intervals() -> None:
    """A straight line goes through any two points."""
    assert settle(decided([{"x": number % 2}]) for number in range(100)).edges == {}


def test_too_few_decisions_give_no_edges() -> None:
    """They would stay for the whole epoch, wherever they happened to fall."""
    actions = [[{"price": number}] for number in range(20)]

    few, enough = (settle(decided([], *actions) for _ in range(count)) for count in (EVENTS_MIN - 1, EVENTS_MIN))

    assert few == Bins(edges={}, events=EVENTS_MIN - 1)
    assert list(enough.edges) == ["j"]


def test_numbers_are_bounded_and_the_frequent_ones_come_first() -> None:
    """Bins are kept with every version of a model."""
    many = {f"x{number}": 0.0 for number in range(FEATURES_MAX + 50)}
    rng = random.Random(1)
    decisions = [decided([{name: rng.random() for name in many}, {"n": {"often": rng.random()}}]) for _ in range(60)]
    more = [decided([{"n": {"often": rng.random()}}]) for _ in range(20)]

    bins = settle([*decisions, *more])

    assert sum(map(len, bins.edges.values())) == FEATURES_MAX
    assert "often" in bins.edges["n"]


def test_slots_have_numbers_too() -> None:
    """Their plain features are a namespace of their own, `sj`."""
    binner = Binner(Bins(edges={"sj": {"row": (2.0,)}}, events=1))

    binned = binner.slot(Slot("s", features([{"row": 3}]), baseline=0, excluded=(1,)))

    assert binned == Slot("s", features([{"row": 3, "row[2..]": True}]), 0, (1,))


def test_an_interval_stands_beside_its_number() -> None:
    """In the same namespace, so that whatever is paired with the number is paired with it."""
    binner = Binner(BINS)

    context = binner.context(features([{"hour": 12, "visitor": {"age": 29.9, "name": "x"}}, {"list": [{"age": 1}]}]))

    assert json.loads(context) == [
        {"hour": 12, "visitor": {"age": 29.9, "name": "x", "age[..30)": True}, "hour[12..]": True},
        {"list": [{"age": 1}]},
    ]
    assert binner.action(Action("a", features([{"price": 4}]))).features == features([{"price": 4, "price[..5)": True}])


@given(GROUPS)
def test_nothing_else_changes(groups: list[dict[str, Any]]) -> None:
    """What the application sent stays as it is, and no namespace turns up that was not there."""
    raw = features(groups)

    binned = Binner(BINS).context(raw)

    assert without_intervals(json.loads(binned)) == json.loads(raw)
    assert namespace_letters(binned, []) == namespace_letters(raw, [])


def without_intervals(value: Any) -> Any:
    """Take out what was added."""
    if isinstance(value, dict):
        return {name: without_intervals(inner) for name, inner in value.items() if "[" not in name}
    return [without_intervals(each) for each in value] if isinstance(value, list) else value


@given(st.lists(NUMBERS.map(float), min_size=1, max_size=5, unique=True), NUMBERS)
def test_a_value_is_in_the_interval_that_names_it(edges: list[float], value: float) -> None:
    """An explanation that names the wrong range misleads whoever reads it."""
    cuts = tuple(sorted(edges))
    binner = Binner(Bins(edges={"FromUrl": {"x": cuts}}, events=1))

    [group] = json.loads(binner.context(features([{"x": value}])))

    [name] = [name for name in group if name != "x"]
    index = interval_names("x", cuts).index(name)
    low, high = (-float("inf"), *cuts)[index], (*cuts, float("inf"))[index]
    assert low <= value < high


def test_a_feature_of_the_application_is_not_overwritten() -> None:
    """However unlikely it is that it has such a name."""
    taken = features([{"visitor": {"age": 20, "age[..30)": 5}}])

    assert Binner(BINS).context(taken) == taken


def test_broken_features_are_left_to_the_learner() -> None:
    """It says what is wrong with the event, which is set aside for that."""
    broken = Features(b'[{"age":')

    assert Binner(BINS).context(broken) == broken
    interaction = msgspec.structs.replace(decided([]), context=broken)
    assert settle([interaction] * 100).edges == {}


def test_the_learner_sees_what_is_written_and_nothing_else() -> None:
    """Scored, learned and kept parsed as if the application had sent the intervals itself."""
    rng = random.Random(2)
    with_bins, by_hand = Learner(POLICY, bins=BINS), Learner(POLICY)
    binner = Binner(BINS)
    actions = [Action(f"a{k}", features([{"price": k * 3, "kind": f"k{k}"}])) for k in range(4)]
    written = [binner.action(action) for action in actions]
    for number in range(200):
        context = features([{"visitor": {"age": rng.randrange(16, 90)}, "hour": rng.randrange(24)}])
        assert with_bins.pmf(context, actions) == by_hand.pmf(binner.context(context), written)
        label = {"chosen": number % 4, "probability": 0.25, "reward": rng.random()}
        share = 1.0 if number % 3 else 0.5
        with_bins.learn(context, actions, **label, pass_probability=share)  # type: ignore[arg-type]
        by_hand.learn(binner.context(context), written, **label, pass_probability=share)  # type: ignore[arg-type]
    assert with_bins.weights() == by_hand.weights() != {}


POLICY = "--cb_explore_adf --squarecb --gamma_scale 10 --cb_type mtr --quadratic vj --quadratic Fj --ignore_linear v"


def test_a_lesson_is_written_by_what_each_learner_sees() -> None:
    """Learners with bins and without may be told the same one."""
    lesson = Lesson(features([{"hour": 3}]), [Action("a", features([{"price": 1}]))], 0, 1.0, 1.0)
    plain, binned = Learner(POLICY), Learner(POLICY, bins=BINS)
    for learner in (plain, binned, plain):
        learner.learn_from(lesson)

    assert len(plain.weights()) < len(binned.weights())
    assert context_text(lesson.context, lesson.actions)[1:] in lesson.text


def test_an_explanation_names_the_interval() -> None:
    """`age` alone would not say why forty is liked and seventy is not."""
    learner = Learner(POLICY, bins=BINS)
    actions = [Action(f"a{k}", features([{"kind": f"k{k}"}])) for k in range(2)]
    for number in range(300):
        age = 20 + 20 * (number % 3)
        context = features([{"visitor": {"age": age}}])
        learner.learn(context, actions, chosen=number % 2, probability=0.5, reward=float((age == 40) == number % 2))

    found = learner.explain(features([{"visitor": {"age": 40}}]), actions, 1)

    assert found is not None
    assert "visitor.age[30..60.5)^j.kind" in {each.name for each in found[:3]}


def test_numbers_that_turn_up_later_are_named() -> None:
    """They start a new epoch, and its reason says which."""
    newer = Bins(edges={"visitor": {"age": (1.0,), "height": (2.0,)}, "dish": {"price": (3.0,)}}, events=50)

    assert lacks(BINS, newer) == ["visitor.height", "dish.price"]
    assert lacks(newer, newer) == []


def test_bins_travel() -> None:
    """To the byte: a number between two edges must not change sides."""
    bins = Bins(edges={"v": {"x": (0.1, 1 / 3, 1e17)}}, events=70)

    assert read_bins(write_bins(bins)) == bins


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"edges":{"v":{"x":[2,1]}},"events":1}',
        b'{"edges":{"v":{"x":[1,1]}},"events":1}',
        b'{"edges":{"v":{"x":[]}},"events":1}',
        b'{"edges":{"v":{"x":["a"]}},"events":1}',
        b'{"edges":{"v":{"x":[1e999]}},"events":1}',
        msgspec.json.encode({"edges": {"v": {"x": list(range(INTERVALS_MAX))}}, "events": 1}),
        msgspec.json.encode({"edges": {"v": {f"x{n}": [1] for n in range(FEATURES_MAX + 1)}}, "events": 1}),
    ],
)
def test_damaged_bins_are_refused(data: bytes) -> None:
    """They come with models from elsewhere."""
    with pytest.raises(ValueError, match=r"edges|read|numbers"):
        read_bins(data)
