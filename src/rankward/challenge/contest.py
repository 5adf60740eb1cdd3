"""One challenger on its way through the joined log: what it learns, what it would have done, how it stands.

It stands at two places of the log. Where it is judged, a decision is answered by what would have served then: what
was joined by the export before it. Up to there it has learned, which is about a reward wait earlier in the log. So
nothing has to be kept of what waits between, and both places with the learner are all that going on needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

import msgspec

from rankward.challenge.measure import Measure, MeasureState, Standing
from rankward.challenge.younger import Newest, NewestState
from rankward.evaluation.contender import answer
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.question import questions
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.ranking.explore import InvalidPmfError
from rankward.records import JoinedEvent, LearningMode, ModelId, Offset, TimeUs
from rankward.settings import Aggregation, LoopSettings
from rankward.store.challengers import Challenger, ChallengerKind
from rankward.training.fold import Checkpoint, EventRefusedError, Fold, learns
from rankward.vw.learner import LearnerRefusedError
from rankward.vw.parser import Lesson

_LEARNED_UNDER = ("default_reward", "reward_aggregation", "numbers")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a challenger is, with all that going on needs but the learner's bytes, which are kept beside.

    It is written to disk, so a new field has a default and an old one keeps its meaning.
    """

    asked_to: Offset  # in the joined log: the next decision to answer
    decided_us: TimeUs  # of the newest decision it has seen: what was published by then, it has learned
    learned_offset: Offset  # in the joined log: the next event to learn
    learned: int  # events
    learned_to_us: TimeUs  # of the newest of them; 0: none
    model_id: ModelId | None  # of the learner's bytes; None: it has learned nothing
    digest: str = ""  # SHA-256 of those, hex
    measure: MeasureState
    time_us: TimeUs  # of this progress
    newest: NewestState | None = None  # of a younger model; None: it begins


def digest_of(model: bytes) -> str:
    """Tell a model's SHA-256, hex."""
    return hashlib.sha256(model).hexdigest()


def relearns(before: LoopSettings, after: LoopSettings) -> bool:
    """Whether what was learned does not hold any more either."""
    return any(getattr(before, name) != getattr(after, name) for name in _LEARNED_UNDER)


class Contest:
    """One challenger, with its learner."""

    def __init__(
        self,
        challenger: Challenger,
        progress: Progress,
        model: bytes | None,
        *,
        set_aside: Collection[Offset],
    ) -> None:
        """Go on.

        Args:
            challenger: whose epoch is settled.
            progress: from where on.
            model: the learner's bytes there; None: it has learned nothing.
            set_aside: event log offsets of interactions to pass over.

        Raises:
            LearnerRefusedError: the policy or the model cannot be used.
        """
        self.challenger = challenger
        settings, epoch = challenger.settings, challenger.epoch
        self._rewards = RewardDefinition(epoch.default_reward, Aggregation(epoch.reward_aggregation))
        self._export_us = settings.model_export_frequency // timedelta(microseconds=1)
        self._set_aside = set_aside
        self._asked_to = progress.asked_to
        self._decided_us = progress.decided_us
        rewards = RewardRange(settings.reward_min, settings.reward_max)
        self._measure = Measure(rewards, progress.measure)
        self._newest = Newest(rewards, progress.newest) if challenger.kind is ChallengerKind.YOUNGER else None
        checkpoint = Checkpoint(
            joined_offset=progress.learned_offset,
            learned=progress.learned,
            learned_to_us=progress.learned_to_us,
            model=model,
        )
        self._begun = checkpoint
        self._fold = Fold(epoch, checkpoint, exploration=challenger.floor, set_aside=set_aside)

    @property
    def asked_to(self) -> Offset:
        """The next joined event to be judged by."""
        return self._asked_to

    @property
    def learned_offset(self) -> Offset:
        """The next joined event to learn."""
        return self._fold.offset

    @property
    def learned(self) -> int:
        """Events learned."""
        return self._fold.learned

    def lessons(self, events: Sequence[JoinedEvent]) -> list[Lesson]:
        """Say what the learner is told of those events that it learns, if they have a single slot."""
        return self._fold.lessons(events)

    def published_us(self, event: JoinedEvent | None) -> TimeUs:
        """Tell until when events have to be learned before one is answered: by then they were joined and published.

        Args:
            event: to be answered; None: there is none yet.
        """
        decided_us = self._decided_us if event is None else max(self._decided_us, event.entry.time_us)
        return decided_us // self._export_us * self._export_us

    def learn(self, event: JoinedEvent, *, before: Callable[[Offset | None], None]) -> None:
        """Learn an event, or pass it over.

        Args:
            event: the next to learn.
            before: see `Fold.take`.

        Raises:
            EventRefusedError: the learner refused it. The contest must not be used any more.
        """
        self._fold.take(event, before=before)

    def judge(self, event: JoinedEvent, *, before: Callable[[Offset | None], None]) -> None:
        """Answer a decision, and be judged by what came of it.

        Passed over are decisions that were not shown as drawn, nor left to chance by this loop: imported ones, those
        never activated, those of other learning modes.

        Args:
            event: the next to be judged by. What was published before it has been learned.
            before: told the interaction's event log offset before the learner sees it.

        Raises:
            EventRefusedError: the learner refused it. The contest must not be used any more.
        """
        self._asked_to = event.offset + 1
        self._decided_us = max(self._decided_us, event.entry.time_us)
        interaction = event.interaction
        if (
            event.entry.time_us < self.challenger.judged_from_us
            or event.entry.imported
            or event.skip_learn
            or interaction.learning_mode is not LearningMode.ONLINE
            or event.entry.interaction in self._set_aside
            or not learns(self.challenger.epoch, event)
        ):
            return
        asked = questions(interaction)
        if any(question.flaw is not None for question in asked):
            return
        before(event.entry.interaction)
        knows = self._fold.learned > 0
        try:
            answers = [
                answer(self._fold.learner, interaction, question, self.challenger.floor)
                if knows and len(question.actions) > 1
                else [1 / len(question.actions)] * len(question.actions)
                for question in asked
            ]
        except (LearnerRefusedError, InvalidPmfError, ValueError) as error:
            raise EventRefusedError(event, str(error)) from error
        for question, p_target in zip(asked, answers, strict=True):
            reward = observed_reward(event, self._rewards, question.number)
            if self._newest is None:
                self._measure.add(question, p_target, reward=reward, upweight=1 / interaction.pass_probability)
            else:
                chosen = question.chosen
                self._newest.add(p_target=p_target[chosen], p_log=question.p_log[chosen], reward=reward)

    def pass_to(self, offset: Offset) -> None:
        """Note that the log holds nothing to be judged by before an offset."""
        self._asked_to = max(self._asked_to, offset)

    def standing(self) -> Standing:
        """Tell how it stands."""
        return self._measure.standing()

    @property
    def lead(self) -> float | None:
        """How much better a younger model does at least, by the newest decisions. None: nobody can tell yet."""
        return None if self._newest is None or not self.is_savable else self._newest.lead

    @property
    def is_savable(self) -> bool:
        """Whether there is anything learned that going on from is exact."""
        return self._fold.learned > 0 if self._fold.exact else self._fold.turned is not None

    def checkpoint(self) -> Checkpoint:
        """Save the learner where going on from it is exact."""
        if not self._fold.exact:
            return self._fold.turned or self._begun
        if self._fold.learned:
            return self._fold.checkpoint()
        return Checkpoint(joined_offset=self._fold.offset, learned=0, learned_to_us=0, model=None)

    def progress(self, checkpoint: Checkpoint, *, model_id: ModelId | None, now_us: TimeUs) -> Progress:
        """Tell how far it is.

        Args:
            checkpoint: the learner's.
            model_id: under which its bytes are kept.
            now_us: the time.
        """
        return Progress(
            asked_to=self._asked_to,
            decided_us=self._decided_us,
            learned_offset=checkpoint.joined_offset,
            learned=checkpoint.learned,
            learned_to_us=checkpoint.learned_to_us,
            model_id=model_id,
            digest="" if checkpoint.model is None else digest_of(checkpoint.model),
            measure=self._measure.state(),
            time_us=now_us,
            newest=None if self._newest is None else self._newest.state(),
        )

    def close(self) -> None:
        """Let go of the learner."""
        self._fold.close()
