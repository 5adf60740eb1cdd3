"""What is said of features without learning: counted, and the odd ones named."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from rankward.evaluation.facts import Census, Distinct, FeatureFacts, Remark, feature_facts
from rankward.evaluation.features import ACTION_ID, Feature
from rankward.evaluation.kinship import Column, go_together
from rankward.records import Action, AnyInteraction, Features
from tests.evaluation.logs import event
from tests.evaluation.test_importance import featured


def seen(contexts: list[object], actions: list[object] | None = None) -> dict[str, FeatureFacts]:
    """Say what is known of features of decisions with these contexts, by name."""
    offered = tuple(
        [
            Action(f"a{number}", Features(msgspec.json.encode([each])))
            for number, each in enumerate(actions or [{"fixed": 1}])
        ]
    )

    def interactions() -> Iterator[AnyInteraction]:
        for number, context in enumerate(contexts):
            yield msgspec.structs.replace(
                event(number).interaction, context=Features(msgspec.json.encode([context])), actions=offered, chosen=0
            )

    return {f"{each.namespace}.{each.name}": each for each in feature_facts(interactions())}


def test_features_have_the_learners_names() -> None:
    """Plain values belong to the namespace around them; an array of numbers is one feature."""
    census = Census()
    made = featured(
        '[{"hour":3,"visitor":{"device":"phone","deep":{"x":true}},"list":[1,2]},{"b":"c"}]',
        '[{"veg":1}]',
        '[{"d":{}}]',
    )
    census.take(made.interaction)
    found = {*census.varied(50), *census.constant()}
    assert found == {
        *(Feature("FromUrl", name) for name in ("hour", "list", "b")),
        Feature("visitor", "device"),
        Feature("deep", "x"),
        Feature("j", "veg"),
        ACTION_ID,
    }
    assert Feature("j", "veg") in census.varied(50), "one of two actions has it"
    assert census.shown(Feature("visitor", "device")) == ("visitor.devicephone",)
    assert census.shown(Feature("FromUrl", "hour")) == ("FromUrl.hour",)


def test_values_and_places_are_counted() -> None:
    """Where a feature is, how often it lacks, how many values it takes, and which."""
    found = seen([{"visitor": {"is": "new" if number % 4 else "old"}, "hour": number % 24} for number in range(200)])
    visitor, hour = found["visitor.is"], found["FromUrl.hour"]
    assert (visitor.places, visitor.events, visitor.missing, visitor.distinct) == (("context",), 200, 0.0, 2)
    assert (visitor.common, visitor.number, visitor.remarks) == (("new", "old"), False, ())
    assert (hour.distinct, hour.number, hour.common, hour.remarks) == (24, True, (), ())
    assert found["i.id"].places == ("action",)


def test_what_cannot_matter_or_is_hardly_there_is_named() -> None:
    """A constant is no feature, and one that lacks mostly may be a mistake of the sender."""
    found = seen([{"always": "x"} | ({"seldom": number % 3} if number % 5 == 0 else {}) for number in range(200)])
    assert found["FromUrl.always"].remarks == (Remark.CONSTANT,)
    assert found["FromUrl.seldom"].remarks == (Remark.MISSING,)
    assert found["FromUrl.seldom"].missing == pytest.approx(0.8)


def test_what_tells_who_it_was_is_named() -> None:
    """Text and whole numbers that are new each time are identities; measured numbers are new each time, too."""
    rng = random.Random(1)
    found = seen([{"session": f"s{number}", "user": 1_000 + number, "weight": rng.random()} for number in range(300)])
    assert found["FromUrl.session"].remarks == (Remark.NEAR_UNIQUE,)
    assert found["FromUrl.user"].remarks == (Remark.NEAR_UNIQUE,)
    assert found["FromUrl.weight"].remarks == ()
    few = seen([{"session": f"s{number}"} for number in range(50)])
    assert few["FromUrl.session"].remarks == (), "of so few, it may be chance"


def test_namespaces_that_the_learner_takes_for_one_are_named() -> None:
    """It pairs namespaces by their first letter: visitor and venue cannot be told apart there."""
    found = seen([{"visitor": {"is": number % 2}, "venue": {"is": number % 3}} for number in range(10)])
    assert found["visitor.is"].collides_with == ("venue",)
    assert found["venue.is"].remarks == (Remark.COLLIDING,)
    assert found["i.id"].collides_with == ()


def test_many_values_are_estimated_in_bounded_space() -> None:
    """A day of traffic has millions of visitors; to know that, nobody keeps them."""
    rng = random.Random(1)
    for count in (10, 1_000, 100_000):
        distinct = Distinct()
        for value in [rng.getrandbits(64) for _ in range(count)] * 2:
            distinct.add(value)
        assert distinct.count == pytest.approx(count, rel=0 if count < 1_024 else 0.1)


def test_kept_values_are_bounded() -> None:
    """Rare ones make room, and the most frequent ones stay."""
    found = seen([{"page": "home" if number % 3 == 0 else f"p{number}"} for number in range(3_000)])
    assert found["FromUrl.page"].common[0] == "home"
    assert len(found["FromUrl.page"].common) == 20


def test_features_go_together_where_each_tells_the_other() -> None:
    """Scales by their ranks; names by what goes with what, on rows that were not learned from."""
    rng = random.Random(1)
    cities = [rng.randrange(30) for _ in range(1_000)]
    heights = [rng.random() for _ in range(1_000)]
    city, code = Column([f"city {each}" for each in cities]), Column([each * 7 for each in cities])
    country = Column([f"country {each % 4}" for each in cities])
    height, inches, other = Column(heights), Column([each**2 for each in heights]), Column(list(reversed(heights)))
    names = Column([f"n{number}" for number in range(1_000)])
    assert go_together(city, code)
    assert not go_together(city, country), "a city tells its country, but not the other way round"
    assert go_together(height, inches)
    assert not go_together(height, other), "two numbers that are new each time seem to tell each other"
    assert not go_together(names, height)
    assert not go_together(names, city)
    assert not go_together(Column([]), Column([]))
