"""The fold: a learner over joined events, in order, each learned once.

Where it stands after an offset depends on nothing but the epoch, the events before the offset and which of
them are set aside. So a run that is killed and goes on from a checkpoint ends with the weights of one that
was never killed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from rankward.errors import RankwardError
from rankward.joining.reward import RewardDefinition, training_reward
from rankward.records import Action, Features, Interaction, JoinedEvent, MultiSlotInteraction, Offset, TimeUs
from rankward.settings import Aggregation
from rankward.store.ports import Epoch
from rankward.training.lesson import lesson_of
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.parser import Lesson
from rankward.vw.presets import learner_arguments

RELOAD_EVERY = 1_000
"""Joined offsets at which a learner that does not resume exactly is saved and loaded again.

Some reductions keep state that a model file does not hold. To lose it at fixed places, always, is what
makes their training repeatable too.
"""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fold stands."""

    joined_offset: Offset  # the next joined event to learn
    learned: int  # events learned in this epoch
    learned_to_us: TimeUs  # of the newest interaction learned; 0: none
    model: bytes | None  # None: the learner has not begun


class EventRefusedError(RankwardError):
    """The learner refused an event, and must be made again without it."""

    def __init__(self, event: JoinedEvent, reason: str) -> None:
        super().__init__(reason)
        self.event = event
        self.reason = reason


def learns(epoch: Epoch, event: JoinedEvent) -> bool:
    """Whether an epoch's learner can use an event: it decides for single slots or for several, and so did the event."""
    return isinstance(event.interaction, MultiSlotInteraction) == (
        problem_type_of(epoch.policy) is ProblemType.MULTI_SLOT
    )


class Fold:
    """A learner on its way through the joined log."""

    def __init__(
        self, epoch: Epoch, checkpoint: Checkpoint, *, exploration: float, set_aside: Collection[Offset]
    ) -> None:
        """Go on from a checkpoint.

        Args:
            epoch: with its interactions and bins settled.
            checkpoint: where to go on, and the model there.
            exploration: written into the models; it does not change what is learned.
            set_aside: event log offsets of interactions to pass over.

        Raises:
            LearnerRefusedError: the policy or the model cannot be used.
        """
        self._epoch = epoch
        self._set_aside = set_aside
        self._history_since_us = epoch.since_us if epoch.history_since_us is None else epoch.history_since_us
        self._reward = RewardDefinition(epoch.default_reward, Aggregation(epoch.reward_aggregation))
        self._arguments = learner_arguments(epoch.policy, epoch.interactions, exploration, epoch.rate)
        self._learner = Learner(self._arguments, checkpoint.model, bins=epoch.bins)
        self.exact = parse_policy(epoch.policy).resumes_exactly
        self.offset = checkpoint.joined_offset
        self._block = checkpoint.joined_offset // RELOAD_EVERY  # the stretch between two reloads that it stands in
        self.learned = checkpoint.learned
        self.learned_to_us = checkpoint.learned_to_us
        self.turned: Checkpoint | None = checkpoint if checkpoint.model is not None else None

    def take(self, event: JoinedEvent, *, before: Callable[[Offset | None], None]) -> bool:
        """Learn one event, or pass it over.

        Args:
            event: the next joined event; offsets of deleted interactions may be missing before it.
            before: told the interaction's event log offset before the learner sees it, and None before the learner is
                saved and loaded.

        Returns:
            Whether it was learned.

        Raises:
            EventRefusedError: the learner refused it. The fold must not be used any more.
        """
        assert event.offset >= self.offset, "the joined log was read with a repeat"
        block = event.offset // RELOAD_EVERY
        if not self.exact and block > self._block and self.learned:
            before(None)
            self._turn()
        self._block = block
        self.offset = event.offset + 1
        if not self.wants(event):
            return False
        before(event.entry.interaction)
        try:
            self._learn(event)
        except LearnerRefusedError as error:
            raise EventRefusedError(event, str(error)) from error
        self.learned += 1
        self.learned_to_us = max(self.learned_to_us, event.entry.time_us)
        return True

    @property
    def learner(self) -> Learner:
        """The learner as it stands, to ask. Another may take its place with the next event."""
        return self._learner

    def _learn(self, event: JoinedEvent) -> None:
        match event.interaction:
            case MultiSlotInteraction() as decided:
                self._learner.learn_slots(
                    decided.context,
                    decided.actions,
                    decided.slots,
                    decided.choices,
                    [training_reward(event, self._reward, slot) for slot in range(len(decided.slots))],
                    pass_probability=decided.pass_probability,
                )
            case Interaction():
                self._learner.learn_from(lesson_of(event, self._reward))

    def wants(self, event: JoinedEvent) -> bool:
        """Whether an event belongs to what this epoch learns."""
        return not (
            event.skip_learn
            or not learns(self._epoch, event)
            or event.entry.time_us < (self._history_since_us if event.entry.imported else self._epoch.since_us)
            or event.entry.interaction < self._epoch.first_interaction
            or event.entry.interaction in self._set_aside
        )

    def lessons(self, events: Sequence[JoinedEvent]) -> list[Lesson]:
        """Say what the learner is told of those events that the epoch wants, if they have a single slot."""
        return [
            lesson_of(event, self._reward)
            for event in events
            if isinstance(event.interaction, Interaction) and self.wants(event)
        ]

    def _turn(self) -> None:
        """Save the learner and go on from what was saved."""
        self.turned = self.checkpoint()
        self._learner.close()
        self._learner = Learner(self._arguments, self.turned.model, bins=self._epoch.bins)

    def explore(self, exploration: float) -> None:
        """Write another exploration into the models from now on. What is learned stays the same."""
        self._arguments = learner_arguments(self._epoch.policy, self._epoch.interactions, exploration, self._epoch.rate)
        if self.exact:
            self._turn()

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Tell what the learner would draw from, by what it has learned so far, before any floor."""
        return self._learner.pmf(context, actions)

    def checkpoint(self) -> Checkpoint:
        """Save where the fold stands. Going on from it is exact if `exact`, or from `turned` otherwise."""
        return Checkpoint(
            joined_offset=self.offset,
            learned=self.learned,
            learned_to_us=self.learned_to_us,
            model=self._learner.save(),
        )

    def weights(self) -> dict[int, float]:
        """Return the learner's weights, to compare folds by."""
        return self._learner.weights()

    def close(self) -> None:
        """Let go of the learner."""
        self._learner.close()
