"""A grocery site: which meal to show to which customer, where they are and at what time of day.

Every customer has two favourites; place and time of day decide between them. Rewards have no noise. Each is
the sum of how much the customer likes the meal, how well it goes with the place, and how well with the time of
day, so a linear model of pairs (context, action) can learn it exactly. All meals are worth the same on average,
and all have the same number of features: a learner that is slow to find the level of the rewards would otherwise
prefer the meal that has the most to say about itself. Customers have much to say about themselves, since they
matter most.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from rankward.simulate.world import FeatureObjects, Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator

# Cuisine, main taste, and the one thing that holds of no other meal.
MEALS = {
    "curry": ("indian", "hot", "vegan"),
    "salad": ("greek", "fresh", "light"),
    "wrap": ("mexican", "smoky", "portable"),
    "pizza": ("italian", "salty", "shareable"),
    "ramen": ("japanese", "savoury", "warm"),
}

CUSTOMERS: dict[str, dict[str, Any]] = {
    "jonas": {
        "name": "jonas",
        "diet": "anything",
        "budget": "middle",
        "work": "teacher",
        "shops": "weekly",
        "household": 4,
    },
    "mira": {
        "name": "mira",
        "diet": "vegan",
        "budget": "low",
        "work": "student",
        "shops": "daily",
        "household": 1,
    },
    "ada": {
        "name": "ada",
        "diet": "pescatarian",
        "budget": "high",
        "work": "engineer",
        "shops": "online",
        "household": 2,
    },
}

# What each part adds to the reward, in the order of MEALS.
BY_CUSTOMER = {
    "jonas": (0.20, 0.45, 0.20, 0.70, 0.45),
    "mira": (0.70, 0.70, 0.45, 0.20, 0.20),
    "ada": (0.45, 0.20, 0.70, 0.45, 0.70),
}
BY_PLACE = {
    "road": (0.00, 0.00, 0.05, 0.05, 0.00),
    "office": (0.05, 0.10, 0.00, 0.10, 0.05),
    "home": (0.10, 0.05, 0.10, 0.00, 0.10),
}
BY_PART_OF_DAY = {
    "morning": (0.05, 0.05, 0.05, 0.05, 0.05),
    "noon": (0.00, 0.10, 0.10, 0.00, 0.10),
    "evening": (0.10, 0.00, 0.00, 0.10, 0.00),
}


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
                {"place": {"kind": place}},
                {"moment": {"part_of_day": part_of_day}},
            ],
            actions=actions,
            means=np.add.reduce([BY_CUSTOMER[customer], BY_PLACE[place], BY_PART_OF_DAY[part_of_day]]),
        )
        for customer, place, part_of_day in itertools.product(BY_CUSTOMER, BY_PLACE, BY_PART_OF_DAY)
    ]


def _features(meal: str) -> FeatureObjects:
    cuisine, taste, trait = MEALS[meal]
    return [{"dish": {"cuisine": cuisine, trait: True}}, {"taste": {"main": taste}}]
