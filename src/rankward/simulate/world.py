"""What a world is: situations, options, and the true mean reward of each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

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


@dataclass(frozen=True, eq=False)
class Page:
    """One situation in which several slots have to be filled, each with another action."""

    context: FeatureObjects
    actions: list[tuple[str, FeatureObjects]]  # (id, features) of each; at least as many as there are slots
    slots: list[tuple[str, FeatureObjects]]  # (id, features) of each, in the order in which they choose
    means: Floats  # true mean reward of each action in each slot, shape (S, K), each in [0, 1]

    def means_of(self, chosen: Sequence[int]) -> Floats:
        """Return the mean reward of each slot, shape (S,), where it shows the action of the given index."""
        return self.means[np.arange(len(self.slots)), list(chosen)]

    @property
    def best(self) -> float:
        """Mean reward of the best page, its slots added up."""
        return float(self.means[np.arange(len(self.slots)), _arrangements(*self.means.shape)].sum(axis=1).max())

    @property
    def uniform(self) -> float:
        """Mean reward of a page drawn at random, its slots added up."""
        return float(self.means.mean(axis=1).sum())


@cache
def _arrangements(slots: int, actions: int) -> NDArray[np.intp]:
    """Every way to fill the slots, by index of the action, shape (ways, S)."""
    return np.array(list(itertools.permutations(range(actions), slots)))


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


@runtime_checkable
class PageWorld(Protocol):
    """Where pages and their rewards come from. See `World`."""

    name: ClassVar[str]
    description: ClassVar[str]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""

    @property
    def length(self) -> int | None:
        """How many pages there are. None: endlessly many."""

    def pages(self, rng: np.random.Generator) -> Iterator[Page]:
        """Return the pages, in order."""

    def rewards(self, played: Page, chosen: Sequence[int], rng: np.random.Generator) -> Sequence[float]:
        """Return what is reported for each slot, at once, where it shows the action of the given index."""
