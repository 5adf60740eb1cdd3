"""A shop window whose visitors change their minds, all at once and without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from rankward.simulate.world import Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator

VISITORS = ("hiker", "reader", "gamer", "cook")
PRODUCTS = {
    "tent": {"shelf": "outdoor", "price": "high"},
    "novel": {"shelf": "books", "price": "low"},
    "console": {"shelf": "electronics", "price": "high"},
    "pan": {"shelf": "kitchen", "price": "middle"},
    "lamp": {"shelf": "home", "price": "middle"},
    "puzzle": {"shelf": "toys", "price": "low"},
}
SEASONS = ("summer", "winter")

# A visitor's taste for the products is a shuffle of these; a season adds or takes a little.
TASTES = (0.85, 0.55, 0.35, 0.25, 0.15, 0.15)
SEASON_SHIFT = 0.1


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tastes hold for `stay` rounds, then change abruptly: three switches in the first 12,000 rounds."""

    name: ClassVar[str] = "drift"
    description: ClassVar[str] = "a shop window whose visitors' tastes change abruptly"

    stay: Annotated[int, Meta(ge=1)] = 3000  # rounds between two switches
    noise: Annotated[float, Meta(ge=0, le=1)] = 0.0  # standard deviation of what a reward is off its mean

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> None:
        """Endless."""
        return

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Draw visitor and season; draw all tastes anew after every `stay` rounds."""
        actions = [(product, [{"product": features}]) for product, features in PRODUCTS.items()]
        tastes = np.array([rng.permutation(TASTES) for _ in VISITORS])
        seasons = np.array([rng.permutation([1, 1, 1, -1, -1, -1]) for _ in SEASONS]) * SEASON_SHIFT
        number = 0
        while True:
            if number and number % self.stay == 0:
                favourites = tastes.argmax(axis=1)
                while (tastes.argmax(axis=1) == favourites).any():
                    tastes = np.array([rng.permutation(TASTES) for _ in VISITORS])
            visitor, season = rng.integers(len(VISITORS)), rng.integers(len(SEASONS))
            yield Round(
                context=[{"visitor": {"kind": VISITORS[visitor]}}, {"season": {"name": SEASONS[season]}}],
                actions=actions,
                means=tastes[visitor] + seasons[season],
            )
            number += 1

    def rewards(self, played: Round, index: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report the mean at once, with noise when asked for."""
        return [(0.0, float(played.means[index] + self.noise * rng.standard_normal()))]
