"""A grocery site: which meal to show to which customer, where they are and at what time of day.

Rewards have no noise. Each is the sum of how much the customer likes the meal, how well it goes with the
place, and how well with the time of day, so a linear model of pairs (context, action) can learn it exactly.
All meals are worth the same on average, and all have the same number of features: a learner that is slow to
find the level of the rewards would otherwise prefer the meal that has the most to say about itself.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from rankward.simulate.world import FeatureObjects, Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAITS = ("vegan", "light", "portable", "shareable", "warm")

# Cuisine, main taste, the one trait that holds, stars out of 5.
MEALS = {
    "curry": ("indian", "hot", "vegan", 4.4),
    "salad": ("greek", "fresh", "light", 4.3),
    "wrap": ("mexican", "smoky", "portable", 4.4),
    "pizza": ("italian", "salty", "shareable", 4.3),
    "ramen": ("japanese", "savoury", "warm", 4.5),
}

CUSTOMERS: dict[str, dict[str, Any]] = {
    "jonas": {"name": "jonas", "budget": "middle", "household": 4},
    "mira": {"name": "mira", "budget": "low", "household": 1},
    "ada": {"name": "ada", "budget": "high", "household": 2},
}

# What each part adds to the reward, in the order of MEALS.
BY_CUSTOMER = {
    "jonas": (0.10, 0.30, 0.10, 0.55, 0.30),
    "mira": (0.55, 0.55, 0.30, 0.10, 0.10),
    "ada": (0.30, 0.10, 0.55, 0.30, 0.55),
}
BY_PLACE = {
    "road": (0.00, 0.00, 0.10, 0.10, 0.00),
    "office": (0.10, 0.15, 0.00, 0.15, 0.10),
    "home": (0.15, 0.10, 0.15, 0.00, 0.15),
}
BY_PART_OF_DAY = {
    "morning": (0.10, 0.10, 0.10, 0.10, 0.10),
    "noon": (0.00, 0.25, 0.25, 0.00, 0.25),
    "evening": (0.25, 0.00, 0.00, 0.25, 0.00),
}
HOURS = {"morning": 8, "noon": 12, "evening": 19}


class Grocery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Three customers, five meals, three places, three times of day."""

    name: ClassVar[str] = "grocery"
    description: ClassVar[str] = "a grocery site: 3 customers, 5 meals; place and time of day matter; no noise"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """None to set."""
        return {}

    @property
    def length(self) -> None:
        """Endless."""
        return

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Draw customer, place and time of day, each with equal chance."""
        situations = every_situation()
        while True:
            yield situations[rng.integers(len(situations))]

    def rewards(self, played: Round, index: int, _rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report the mean itself, at once."""
        return [(0.0, float(played.means[index]))]


def every_situation() -> list[Round]:
    """Return all 27 situations: customer, then place, then time of day."""
    actions = [(meal, _features(meal)) for meal in MEALS]
    return [
        Round(
            context=[
                {"customer": CUSTOMERS[customer]},
                {"place": {"kind": place, "moving": place == "road"}},
                {"moment": {"part_of_day": part_of_day, "hour": HOURS[part_of_day]}},
            ],
            actions=actions,
            means=np.add.reduce([BY_CUSTOMER[customer], BY_PLACE[place], BY_PART_OF_DAY[part_of_day]]),
        )
        for customer, place, part_of_day in itertools.product(BY_CUSTOMER, BY_PLACE, BY_PART_OF_DAY)
    ]


def _features(meal: str) -> FeatureObjects:
    cuisine, taste, trait, stars = MEALS[meal]
    return [
        {"dish": {"cuisine": cuisine, **{each: each == trait for each in TRAITS}}},
        {"taste": {"main": taste}},
        {"reviews": {"stars": stars}},
    ]
