"""What an interaction earned: its observations added up the way the loop wants it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from rankward.records import JoinedEvent, LearningMode, MultiSlotInteraction
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


def observed_reward(event: JoinedEvent, definition: RewardDefinition, slot: int = 0) -> float:
    """What the application reported of an event, or the default.

    Args:
        event: of one slot or of several.
        definition: how its observations add up.
        slot: index into the event's choices; a single-slot decision has one. Observations of the whole
            event count for each of its slots.
    """
    interaction = event.interaction
    observations = event.entry.observations
    if isinstance(interaction, MultiSlotInteraction):
        about = (None, interaction.slots[slot].id)
        return definition.of([each.value for each in observations if each.slot in about])
    return definition.of([each.value for each in observations])


def training_reward(event: JoinedEvent, definition: RewardDefinition, slot: int = 0) -> float:
    """What the learner is told: the observed reward, or whether an apprentice matched the baseline.

    Args:
        event: of one slot or of several.
        definition: how its observations add up.
        slot: index into the event's choices; each slot has its own baseline.
    """
    interaction = event.interaction
    if interaction.learning_mode is not LearningMode.APPRENTICE:
        return observed_reward(event, definition, slot)
    if isinstance(interaction, MultiSlotInteraction):
        return float(interaction.choices[slot].chosen == interaction.slots[slot].baseline)
    return float(interaction.chose_baseline)
