"""Answers Rank, Reward and Activate for one loop: decides, and makes it durable before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from rankward.errors import InvalidRequest, RankwardError
from rankward.ranking.decide import RankRequest, decide
from rankward.ranking.slots import SlotsRequest, decide_slots, one_slot, without_slots
from rankward.records import (
    Action,
    Activation,
    AnyInteraction,
    Appended,
    EventId,
    Features,
    Interaction,
    Known,
    LearningMode,
    ModelId,
    MultiSlotInteraction,
    Observation,
    Record,
    Slot,
    SlotChoice,
)
from rankward.settings import LoopSettings
from rankward.store.ports import EventLog, Loop, ModelStore, ModelVersion
from rankward.vw.arguments import ProblemType, problem_type_of
from rankward.vw.explain import Contribution
from rankward.vw.learner import Learner
from rankward.vw.presets import learner_arguments


class Scorer:
    """A published model, ready to score."""

    def __init__(self, version: ModelVersion, model: bytes, exploration: float) -> None:
        """Load a model.

        Args:
            version: what to load.
            model: its bytes.
            exploration: the loop's, in place of the `--epsilon` that the model was trained with.

        Raises:
            LearnerRefusedError: the model cannot be loaded.
        """
        self.model_id: ModelId = version.model_id
        self.exploration = exploration
        self.problem_type = problem_type_of(version.policy)
        arguments = learner_arguments(version.policy, version.interactions, exploration, version.rate)
        self._learner = Learner(arguments, model, bins=version.bins)

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """See `ranking.decide.Policy`."""
        return self._learner.pmf(context, actions)

    def choices(
        self, context: Features, actions: Sequence[Action], slots: Sequence[Slot], seeds: Sequence[int]
    ) -> list[SlotChoice]:
        """See `ranking.slots.SlotPolicy`."""
        return self._learner.choices(context, actions, slots, seeds)

    def explain(self, interaction: Interaction) -> list[Contribution] | None:
        """Take the score of the chosen action apart. None: the model's scores are no sums of contributions."""
        rankable = interaction.rankable
        actions = [interaction.actions[index] for index in rankable]
        return self._learner.explain(interaction.context, actions, rankable.index(interaction.chosen))

    def close(self) -> None:
        """Let go of the model."""
        self._learner.close()


class Published(msgspec.Struct, frozen=True):
    """A version as it was read, not loaded yet."""

    version: ModelVersion
    model: bytes


class Outcome(msgspec.Struct, frozen=True):
    """What became of a Rank."""

    interaction: Interaction
    repeated: bool  # it was decided before, and this is that decision


class SlotsOutcome(msgspec.Struct, frozen=True):
    """What became of a Rank for slots."""

    interaction: MultiSlotInteraction
    repeated: bool


class RankingService:
    """One loop's decisions. It belongs to one event loop, and so to one thread."""

    def __init__(
        self, loop: Loop, log: EventLog, models: ModelStore, versions: Callable[[], Sequence[ModelVersion]]
    ) -> None:
        self.loop = loop
        self._log = log
        self._models = models
        self._versions = versions
        self.scorer: Scorer | None = None

    async def rank(self, request: RankRequest, *, named: bool) -> Outcome:
        """Decide, log, and only then answer.

        Args:
            request: what to decide.
            named: whether the caller chose the event id, so that it may have been used before.

        Raises:
            InvalidPmfError, LearnerRefusedError: the model cannot score the request.
            WorldError: the decision could not be made durable.
        """
        if self.problem_type is ProblemType.MULTI_SLOT:
            decided, repeated = await self._decide_slots(one_slot(request), named=named)
        else:
            settings = self.loop.settings
            interaction = decide(
                request,
                self._policy(ProblemType.SINGLE_SLOT),
                loop_id=self.loop.loop_id,
                mode=settings.learning_mode,
                exploration=settings.exploration,
                reward_wait_us=_reward_wait_us(settings),
            )
            decided, repeated = await self._log_once(interaction, named=named)
        if isinstance(decided, MultiSlotInteraction):
            decided = without_slots(decided)
        return Outcome(decided, repeated)

    async def rank_slots(self, request: SlotsRequest, *, named: bool) -> SlotsOutcome:
        """Decide for several slots, log, and only then answer: see `rank`.

        Raises:
            InvalidRequest: the loop decides for single slots.
        """
        self.check_multi_slot()
        decided, repeated = await self._decide_slots(request, named=named)
        assert isinstance(decided, MultiSlotInteraction), "a request that names slots is known only as one"
        return SlotsOutcome(decided, repeated)

    async def _decide_slots(self, request: SlotsRequest, *, named: bool) -> tuple[AnyInteraction, bool]:
        settings = self.loop.settings
        interaction = decide_slots(
            request,
            self._policy(ProblemType.MULTI_SLOT),
            loop_id=self.loop.loop_id,
            mode=settings.learning_mode,
            reward_wait_us=_reward_wait_us(settings),
        )
        return await self._log_once(interaction, named=named)

    async def _log_once(self, interaction: AnyInteraction, *, named: bool) -> tuple[AnyInteraction, bool]:
        """Log a decision, or find the one that was made before. Returns it, and whether it was."""
        [result] = await self._log.append([interaction], once=named)
        match result:
            case Known(entry):
                assert isinstance(entry.record, AnyInteraction), "only interactions are known by their event id"
                return entry.record, True
            case Appended():
                return interaction, False

    @property
    def problem_type(self) -> ProblemType:
        """What the loop decides by its policy, whatever model there is."""
        return problem_type_of(self.loop.settings.policy)

    def _policy(self, problem_type: ProblemType) -> Scorer | None:
        """Return the serving model, if there is one that decides this."""
        scorer = self.scorer if self.loop.model_id is not None else None  # a deleted model serves no more
        return scorer if scorer is not None and scorer.problem_type is problem_type else None

    def check_multi_slot(self) -> None:
        """Refuse what is for loops that decide for several slots.

        Raises:
            InvalidRequest: the loop does not.
        """
        if self.problem_type is not ProblemType.MULTI_SLOT:
            raise InvalidRequest(
                f"loop {self.loop.name} decides for a single slot: give it a policy with --ccb_explore_adf first",
                code="InvalidMultiSlotApiAccess",
            )

    def explain(self, interaction: Interaction) -> list[Contribution] | None:
        """Say what made the model score the shown action as it did, while that model serves.

        Returns:
            See `vw.explain`. None: the model did not choose it, or serves no more, or cannot be explained.
        """
        chose = interaction.learning_mode is LearningMode.ONLINE and len(interaction.rankable) > 1
        if not chose or self.scorer is None or self.scorer.model_id != interaction.model_id:
            return None
        if self.scorer.problem_type is ProblemType.MULTI_SLOT:
            return None  # its scores are of slots, each with features of its own
        return self.scorer.explain(interaction)

    async def reward(self, event_id: EventId, value: float, *, report: str | None = None) -> None:
        """Log a reward of a whole event.

        Whether it finds its event, or was reported before, is seen when the event is joined.
        """
        await self._log.append([Observation(event_id=event_id, value=value, report=report)])

    async def reward_slots(
        self, event_id: EventId, rewards: Sequence[tuple[str, float]], *, report: str | None = None
    ) -> None:
        """Log rewards of slots, all of them or none, by slot id: see `reward`.

        Raises:
            InvalidRequest: the loop decides for single slots.
        """
        self.check_multi_slot()
        await self._log.append(
            [Observation(event_id=event_id, value=value, slot=slot, report=report) for slot, value in rewards]
        )

    async def take(self, records: Sequence[Record]) -> None:
        """Log what was decided and reported elsewhere, all of it or nothing. What the log holds already, it keeps."""
        await self._log.append(records, once=True)

    async def activate(self, event_id: EventId) -> None:
        """Log that a deferred decision was shown."""
        await self._log.append([Activation(event_id=event_id)])

    async def follow(self, loop: Loop) -> None:
        """Take over a loop's new settings, and its new model if it has one.

        Raises:
            RankwardError: the new model cannot be loaded. The old one goes on serving.
        """
        self.loop = loop
        if self.needs_load():
            await self.load(await self.read())

    def needs_load(self) -> bool:
        """Whether another model is to be loaded, or the same one with another exploration."""
        if self.scorer is None:
            return self.loop.model_id is not None
        return (self.scorer.model_id, self.scorer.exploration) != (self.loop.model_id, self.loop.settings.exploration)

    async def read(self) -> Published | None:
        """Read the model that is to serve, which may have to be fetched from other machines. None: there is none.

        Raises:
            RankwardError: it cannot be read.
        """
        return await asyncio.to_thread(self._read, self.loop)

    async def load(self, published: Published | None) -> None:
        """Load a model beside the running one, then let it serve.

        Raises:
            RankwardError: it cannot be loaded. The old one goes on serving.
        """
        scorer = await asyncio.to_thread(self._load, published, self.loop.settings.exploration)
        old, self.scorer = self.scorer, scorer
        if old is not None:
            old.close()

    def close(self) -> None:
        """Let go of the model."""
        if self.scorer is not None:
            self.scorer.close()
            self.scorer = None

    def _read(self, loop: Loop) -> Published | None:
        if loop.model_id is None:
            return None
        version = next((v for v in self._versions() if v.model_id == loop.model_id), None)
        if version is None:
            raise RankwardError(f"model {loop.model_id} of loop {loop.name} is not on record")
        return Published(version, self._models.get(loop.loop_id, loop.model_id))

    @staticmethod
    def _load(published: Published | None, exploration: float) -> Scorer | None:
        return None if published is None else Scorer(published.version, published.model, exploration)


def _reward_wait_us(settings: LoopSettings) -> int:
    return round(settings.reward_wait.total_seconds() * 1_000_000)
