"""What one joined event says: of the policy that acted, of the baseline, and of choosing by chance.

An event with several slots counts as one: its reward, and what is weighed by it, is the mean over its slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rankward.evaluation.question import Question, questions
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.records import Interaction, JoinedEvent, LearningMode, ModelId, MultiSlotInteraction, TimeUs


class Weighed(NamedTuple):
    """What an event says of a policy that did not act."""

    weight: float  # p_target / p_log of what was taken: the mean over its slots
    reward: float  # as it was reported: the mean over its slots, by their weights


class SeenAction(NamedTuple):
    """An action that could have been chosen, in a slot of an event."""

    action_id: str
    probability: float
    chosen: bool
    shown: bool
    reward: float | None  # None: it was not shown


class Seen(NamedTuple):
    """One event."""

    time_us: TimeUs  # of the decision
    mode: LearningMode
    model_id: ModelId | None
    upweight: float  # how many events it stands for, at least 1
    reward: float  # of what was shown, as it was reported
    defaulted: bool  # nothing was observed of it
    matched: float  # share of its slots in which the baseline was drawn
    preferred: float  # share of its slots in which no action was likelier than the baseline
    baseline: Weighed | None  # None: its probabilities cannot be true
    uniform: Weighed | None  # None: they cannot, or what was drawn was not shown
    actions: tuple[SeenAction, ...]
    asked: tuple[Question, ...]
    rewards: tuple[float, ...]  # of each of `asked`, as it was reported

    @property
    def usable(self) -> bool:
        """Whether its probabilities can be true."""
        return self.baseline is not None


def see(event: JoinedEvent, definition: RewardDefinition) -> Seen:
    """Look at an event.

    Args:
        event: one that was shown: not deferred, or activated.
        definition: how its observations add up.
    """
    interaction = event.interaction
    asked = questions(interaction)
    rewards = [observed_reward(event, definition, question.number) for question in asked]
    online = interaction.learning_mode is LearningMode.ONLINE
    baseline = uniform = None
    if all(question.flaw is None for question in asked):
        if online:
            inverse = [1 / question.p_log[question.chosen] for question in asked]
            taken = [float(question.chosen == question.baseline) for question in asked]
            baseline = _weighed([w * t for w, t in zip(inverse, taken, strict=True)], rewards)
            by_chance = [w / len(question.actions) for w, question in zip(inverse, asked, strict=True)]
            uniform = _weighed(by_chance, rewards)
        else:
            baseline = _weighed([1.0] * len(asked), rewards)
    return Seen(
        time_us=event.entry.time_us,
        mode=interaction.learning_mode,
        model_id=interaction.model_id,
        upweight=1 / interaction.pass_probability,
        reward=_mean(rewards),
        defaulted=not event.entry.observations,
        matched=_mean([float(question.chosen == question.baseline) for question in asked]),
        preferred=_mean([float(_prefers_baseline(question)) for question in asked]),
        baseline=baseline,
        uniform=uniform,
        actions=tuple(_actions(interaction, asked, rewards, online=online)),
        asked=tuple(asked),
        rewards=tuple(rewards),
    )


def _weighed(weights: Sequence[float], rewards: Sequence[float]) -> Weighed:
    weight = _mean(weights)
    if not weight:
        return Weighed(0.0, _mean(rewards))
    return Weighed(weight, sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights))


def _prefers_baseline(question: Question) -> bool:
    return question.baseline is not None and question.p_log[question.baseline] >= max(question.p_log)


def _actions(
    interaction: Interaction | MultiSlotInteraction,
    asked: Sequence[Question],
    rewards: Sequence[float],
    *,
    online: bool,
) -> list[SeenAction]:
    found = []
    for question, slot, reward in zip(asked, interaction.slots, rewards, strict=True):
        drawn = question.actions[question.chosen]
        shown = drawn if online else slot.baseline
        for index, probability in zip(question.actions, question.p_log, strict=True):
            is_shown = index == shown
            found.append(
                SeenAction(
                    interaction.actions[index].id, probability, index == drawn, is_shown, reward if is_shown else None
                )
            )
    return found


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else sum(values) / len(values)
