"""What the learner is told of a joined event, if it had a single slot."""

from __future__ import annotations

from rankward.joining.reward import RewardDefinition, training_reward
from rankward.records import Interaction, JoinedEvent
from rankward.vw.parser import Lesson


def lesson_of(event: JoinedEvent, definition: RewardDefinition) -> Lesson:
    """Say what an event teaches: of the actions that could be chosen, which one was, how likely, and what it earned."""
    interaction = event.interaction
    assert isinstance(interaction, Interaction), "events of several slots are learned slot by slot"
    rankable = interaction.rankable
    return Lesson(
        context=interaction.context,
        actions=[interaction.actions[index] for index in rankable],
        chosen=rankable.index(interaction.chosen),
        probability=interaction.pmf[interaction.chosen],
        reward=training_reward(event, definition),
        pass_probability=interaction.pass_probability,
    )
