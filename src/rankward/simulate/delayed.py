"""The grocery site with slow, split and lost rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from rankward.errors import CallerError
from rankward.simulate.grocery import every_situation
from rankward.simulate.world import Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator

Share = Annotated[float, Meta(ge=0, le=1)]


class Delayed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some rewards never come, some come after the wait, some in several parts.

    The means are those of a loop that adds up what it is told in time and takes 0 for the rest: the
    grocery's, times the share of events whose reward is in time.
    """

    name: ClassVar[str] = "delayed"
    description: ClassVar[str] = "the grocery site with rewards that come late, in several parts, or never"

    wait_s: Annotated[float, Meta(gt=0, le=86_400)] = 2.0  # the loop's reward wait
    late: Share = 0.15  # of all events: reported once the wait is over
    several: Share = 0.3  # of all events: in time, in `parts` that add up to the value
    never: Share = 0.1  # of all events: not reported
    parts: Annotated[int, Meta(ge=2, le=20)] = 3

    def __post_init__(self) -> None:
        total = self.late + self.several + self.never
        if total > 1 + 1e-9:
            raise CallerError(f"late + several + never is {total:g}, above 1: they are shares of all events")
        if self.counted < 1e-9:
            raise CallerError("late + never is 1: leave some events whose reward counts")

    @property
    def counted(self) -> float:
        """Share of events whose reward is in time."""
        return 1 - self.late - self.never

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> None:
        """Endless."""
        return

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Draw customer, place and time of day, each with equal chance."""
        situations = [
            Round(context=each.context, actions=each.actions, means=each.means * self.counted)
            for each in every_situation()
        ]
        while True:
            yield situations[rng.integers(len(situations))]

    def rewards(self, played: Round, index: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report at once, over the first half of the wait in parts, after 1.2 to 2 waits, or not at all."""
        value = float(played.means[index]) / self.counted
        fate = rng.random()
        if fate < self.never:
            return []
        if fate < self.never + self.late:
            return [(self.wait_s * float(rng.uniform(1.2, 2.0)), value)]
        if fate < self.never + self.late + self.several:
            delays = np.sort(rng.uniform(0, self.wait_s / 2, self.parts))
            portions = rng.dirichlet(np.full(self.parts, 4.0)) * value
            return list(zip(delays.tolist(), portions.tolist(), strict=True))
        return [(0.0, value)]
