"""What an interaction earned: its observations added up the way the loop wants it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from rankward.records import JoinedEvent, LearningMode
from rankward.settings import Aggregation

_AGGREGATES: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    Aggregation.EARLIEST: lambda values: values[0],
    Aggregation.SUM: sum,
    Aggregation.AVERAGE: statistics.fmean,
    Aggregation.MEDIAN: statistics.median,
    Aggregation.MIN: min,
    Aggregation.MAX: max,
}


class RewardDefinition(msgspec.Struct, frozen=True):
    """How observations become the reward that is learned."""

    default: float
    aggregation: Aggregation

    def of(self, values: Sequence[float]) -> float:
        """Add up the rewards of one interaction, in the order of their arrival.

        >>> RewardDefinition(0.0, Aggregation.MEDIAN).of([1.0, 0.0, 0.5, 0.25])
        0.375
        """
        return float(_AGGREGATES[self.aggregation](values)) if values else self.default


def observed_reward(event: JoinedEvent, definition: RewardDefinition) -> float:
    """What the application reported of an event, or the default."""
    return definition.of([observation.value for observation in event.entry.observations])


def training_reward(event: JoinedEvent, definition: RewardDefinition) -> float:
    """What the learner is told: the observed reward, or whether an apprentice matched the baseline."""
    if event.interaction.learning_mode is LearningMode.APPRENTICE:
        return 1.0 if event.interaction.chosen == event.interaction.baseline else 0.0
    return observed_reward(event, definition)
