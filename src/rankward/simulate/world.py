"""What a world is: situations, options, and the true mean reward of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FeatureObjects = list[dict[str, Any]]
"""Features as a caller sends them: an array of JSON objects. Shared between rounds, so never changed."""
Parameter = bool | int | float | str
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Round:
    """One situation in which a choice has to be made."""

    context: FeatureObjects
    actions: list[tuple[str, FeatureObjects]]  # (id, features) of each
    means: Floats  # true mean reward of each action, shape (K,), each in [0, 1]

    @property
    def best(self) -> float:
        """Mean reward of the best action."""
        return float(self.means.max())

    @property
    def uniform(self) -> float:
        """Mean reward of an action drawn at random."""
        return float(self.means.mean())


class World(Protocol):
    """Where situations and rewards come from.

    A world holds its parameters and nothing else: whatever is random is drawn from the generators it is
    given, so the same seed gives the same rounds whatever is chosen in them.
    """

    name: ClassVar[str]
    description: ClassVar[str]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""

    @property
    def length(self) -> int | None:
        """How many rounds there are. None: endlessly many."""

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Return the situations, in order."""

    def rewards(self, played: Round, index: int, rng: np.random.Generator) -> Sequence[tuple[float, float]]:
        """Return (delay in seconds, value) of each reward reported for choosing action `index`.

        None at all: nobody reports anything, so the loop's default reward counts.
        """
