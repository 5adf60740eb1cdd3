"""A policy on its way through a log: it answers what was asked, and learns what came of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from rankward.errors import RankwardError
from rankward.evaluation.features import Feature, without_features
from rankward.evaluation.intervals import ALPHA
from rankward.evaluation.question import Question
from rankward.evaluation.report import PolicySource
from rankward.evaluation.shuffle import Shuffle
from rankward.joining.reward import RewardDefinition, training_reward
from rankward.ranking.explore import InvalidPmfError, check_pmf, floored
from rankward.records import (
    AnyInteraction,
    Bins,
    EventId,
    Interaction,
    Interactions,
    JoinedEvent,
    MultiSlotInteraction,
    Offset,
    Rate,
    TimeUs,
    without,
)
from rankward.settings import Numbers
from rankward.training.lesson import lesson_of
from rankward.vw.arguments import ProblemType, parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError, shared_parser
from rankward.vw.parser import Lesson, Parser
from rankward.vw.presets import learner_arguments
from rankward.vw.rates import EVENTS_MAX, SETTLED, SETTLED_US, choose_rate, measure, next_check


class Way(enum.StrEnum):
    """How a policy does without features."""

    LEFT_OUT = "left out"  # it learns and is asked without them
    PERMUTED = "permuted"  # it is asked with those of other decisions, and learns as it would


class Blindness(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy does not know."""

    features: frozenset[Feature]
    way: Way
    seed: tuple[int, ...]  # of the permutation


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy to judge."""

    name: str
    source: PolicySource
    policy: str  # arguments that passed the allow-list
    exploration: float  # the floor, and the learner's `--epsilon`
    derives_interactions: bool = False  # whether the log's namespaces are paired for it
    derives_rate: bool = False  # whether the noise of the log's rewards gives it one of `vw.rates`, as it gives a loop
    interactions: Interactions | None = None  # those it was trained with; None: none, or still to be derived
    numbers: Numbers = Numbers.RAW  # what it sees of them
    bins: Bins | None = None  # those it was trained with; None: none, or still to be found in the log
    model: bytes | None = None  # to begin with; None: it begins without
    learns: bool = True  # False: a fixed model, which stays as it is
    judged_from_us: TimeUs = 0  # estimates are of decisions from then on: those before helped to choose it
    alpha: float = ALPHA  # how often the interval of its difference to `online` may miss
    leaves_out: frozenset[Feature] = frozenset()  # that it is not shown
    blind: tuple[Blindness, ...] = ()  # ways in which it is judged beside itself: what does it lose?
    keeps_model: bool = False  # whether what it has learned by the end is handed back

    def for_slots(self) -> Candidate:
        """Return the same policy as one that decides for several slots."""
        single, several = f"--{ProblemType.SINGLE_SLOT}", f"--{ProblemType.MULTI_SLOT}"
        policy = self.policy.replace(single, several, 1)
        return msgspec.structs.replace(self, policy=policy, derives_rate=False)


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy has learned by the end of a log: all of it, whether its wait was over or not."""

    name: str
    policy: str  # arguments, as the candidate's
    exploration: float
    interactions: Interactions | None  # that it was trained with beside its own
    rate: Rate | None = None  # that it had at the end; None: the policy's own
    bins: Bins | None = None  # where it cut numbers; None: it saw them as they are
    learned: int  # events
    learned_to_us: TimeUs  # of the newest of them
    joined_end: Offset  # the next joined event after them
    model: bytes


def answer(learner: Learner, interaction: AnyInteraction, question: Question, exploration: float) -> Sequence[float]:
    """Tell what a learner would draw from, for each of a question's actions, of which there are at least two.

    A slot is asked by itself, with what the slots before it showed in the log.

    Args:
        learner: as it stands.
        interaction: what was to be decided.
        question: one of those that it is made of.
        exploration: the floor.

    Raises:
        LearnerRefusedError, InvalidPmfError, ValueError: it cannot tell.
    """
    count = len(question.actions)
    if isinstance(interaction, MultiSlotInteraction):
        slot = interaction.slots[question.number]
        alone = msgspec.structs.replace(slot, excluded=tuple(without(question.actions, len(interaction.actions))))
        [choice] = learner.choices(interaction.context, interaction.actions, [alone], [0])
        said = dict(zip(choice.actions, choice.pmf, strict=True))
        return check_pmf([said.get(index, 0.0) for index in question.actions], count)
    pmf = learner.pmf(interaction.context, [interaction.actions[index] for index in question.actions])
    return floored(check_pmf(pmf, count), exploration)


class Contender:
    """A candidate with its learner."""

    def __init__(
        self, candidate: Candidate, interactions: Interactions | None, bins: Bins | None, parsers: dict[str, Parser]
    ) -> None:
        """Begin.

        Args:
            candidate: of the problem type of the log.
            interactions: those to pair; None: the policy names its own.
            bins: to cut numbers by; None: it sees them as they are.
            parsers: of contenders on the same way, by what parsing depends on. One is added if none fits.

        Raises:
            LearnerRefusedError: the arguments or the model cannot be used.
        """
        self.candidate = candidate
        self.failure: str | None = None  # why it is not judged; None: it has not failed
        self._interactions = interactions
        self._bins = bins
        self._learned = 0
        self._learned_to_us: TimeUs = 0
        self._joined_end: Offset = 0
        self._knows = candidate.model is not None
        self._parsers = parsers
        self._begun_us: TimeUs = 0  # of the decision after which it began to learn at this rate; 0: it has not
        self._check = next_check(0)  # events learned after which the rate is put to the test
        self.rate: Rate | None = None  # None: the policy's own
        self._learner: Learner | None = self._begin(candidate.model)

    def _begin(self, model: bytes | None) -> Learner:
        candidate = self.candidate
        arguments = learner_arguments(candidate.policy, self._interactions, candidate.exploration, self.rate)
        parser: Parser | None = None  # of a model, the options that it brings along are not known here
        if model is None:
            alike = f"{parse_policy(arguments).parsing_text} {self._bins}"
            parser = self._parsers.get(alike) or self._parsers.setdefault(alike, shared_parser(arguments, self._bins))
        return Learner(arguments, model, bins=self._bins, parser=parser)

    def answer(self, event: JoinedEvent, question: Question) -> Sequence[float]:
        """Tell what it would draw from, for each of the question's actions.

        A slot is asked by itself, with what the slots before it showed in the log. After a failure every action is
        as likely as the others, which is not judged.
        """
        count = len(question.actions)
        if not self._knows or count == 1 or self._learner is None:
            return [1 / count] * count
        event = self._seen(event)
        try:
            return answer(self._learner, event.interaction, question, self.candidate.exploration)
        except (LearnerRefusedError, InvalidPmfError, ValueError) as error:
            self._fail(event.interaction.event_id, error)
            return [1 / count] * count

    def learn(self, event: JoinedEvent, definition: RewardDefinition, lesson: Lesson | None) -> None:
        """Tell it what a decision earned.

        Args:
            event: the decision, and what was observed of it.
            definition: of the reward.
            lesson: what is to be learned of it, for all who are shown the whole of it; None: it had several slots.
        """
        if self._learner is None or not self.candidate.learns:
            return
        if (seen := self._seen(event)) is not event:
            event, lesson = seen, None
        try:
            match event.interaction:
                case MultiSlotInteraction() as interaction:
                    rewards = [training_reward(event, definition, slot) for slot in range(len(interaction.slots))]
                    self._learner.learn_slots(
                        interaction.context,
                        interaction.actions,
                        interaction.slots,
                        interaction.choices,
                        rewards,
                        pass_probability=interaction.pass_probability,
                    )
                case Interaction():
                    self._learner.learn_from(lesson_of(event, definition) if lesson is None else lesson)
        except LearnerRefusedError as error:
            self._fail(event.interaction.event_id, error)
        self._begun_us = self._begun_us or event.entry.time_us
        self._knows = True
        self._learned += 1
        self._learned_to_us = max(self._learned_to_us, event.entry.time_us)
        self._joined_end = max(self._joined_end, event.offset + 1)

    @property
    def is_to_be_tested(self) -> bool:
        """Whether it is time to put the rate to the test, as in a loop: see `vw.rates`."""
        if not self.candidate.derives_rate or self.candidate.model is not None or self._learner is None:
            return False
        if self._learned < self._check:
            return False
        return self._learned <= SETTLED or self._learned_to_us - self._begun_us >= SETTLED_US

    def asks_for_another_rate(self, newest: Sequence[JoinedEvent], definition: RewardDefinition) -> Rate | None:
        """Put the rate to the test.

        Args:
            newest: the events learned last, oldest first, all of one slot.
            definition: of the reward.

        Returns:
            The rate to begin anew with. None: it goes on.
        """
        self._check = next_check(self._learned)
        lessons = [lesson_of(self._seen(event), definition) for event in newest[-EVENTS_MAX:]]
        errors = measure(self.candidate.policy, self._interactions, lessons, self._bins)
        return choose_rate(errors, self.rate, learned=self._learned)

    def begin_anew(self, rate: Rate, newest: Sequence[JoinedEvent], definition: RewardDefinition) -> None:
        """Learn anew with another rate, as a loop's next epoch does.

        Args:
            rate: the other one.
            newest: what there is to learn, oldest first.
            definition: of the reward.
        """
        if self._learner is None:
            return
        self._learner.close()
        self.rate, self._learned = rate, 0
        self._learner = self._begin(None)
        for event in newest:
            self.learn(event, definition, None)
        self._check, self._begun_us = next_check(rate.learned), self._learned_to_us

    def _seen(self, event: JoinedEvent) -> JoinedEvent:
        left_out = self.candidate.leaves_out
        return without_features(event, left_out) if left_out else event

    def trained(self) -> Trained | None:
        """Hand over what it has learned. None: it broke, or learned nothing, or nobody asked."""
        if self._learner is None or not self._learned or not self.candidate.keeps_model:
            return None
        return Trained(
            name=self.candidate.name,
            policy=self.candidate.policy,
            exploration=self.candidate.exploration,
            interactions=self._interactions,
            rate=self.rate,
            bins=self._bins,
            learned=self._learned,
            learned_to_us=self._learned_to_us,
            joined_end=self._joined_end,
            model=self._learner.save(),
        )

    def _fail(self, event_id: EventId, error: RankwardError | ValueError) -> None:
        self.failure = f"it broke at event {event_id}, and is not judged: {error}"
        self._learner = None

    def close(self) -> None:
        """Let go of the learner."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None


class Permuted:
    """A policy that is asked with features of other decisions. What it has learned is another contender's."""

    def __init__(self, whole: Contender, blindness: Blindness) -> None:
        """Begin beside a contender that is shown all."""
        self._whole = whole
        self._shuffle = Shuffle(blindness.features, seed=blindness.seed)
        self._asked: JoinedEvent | None = None
        self._shown: JoinedEvent | None = None

    @property
    def failure(self) -> str | None:
        """Why it is not judged. None: it has not failed."""
        return self._whole.failure

    def answer(self, event: JoinedEvent, question: Question) -> Sequence[float]:
        """See `Contender.answer`. All slots of a decision are shown the same."""
        if self._shown is None or self._asked is not event:
            self._asked, self._shown = event, self._shuffle.take(event)
        return self._whole.answer(self._shown, question)
