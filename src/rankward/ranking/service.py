"""Answers Rank, Reward and Activate for one loop: decides, and makes it durable before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from rankward.errors import RankwardError
from rankward.ranking.decide import RankRequest, decide
from rankward.records import (
    Action,
    Activation,
    Appended,
    EventId,
    Features,
    Interaction,
    Known,
    LearningMode,
    ModelId,
    Observation,
    Record,
)
from rankward.store.ports import EventLog, Loop, ModelStore, ModelVersion
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
        self._learner = Learner(learner_arguments(version.policy, version.interactions, exploration), model)

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """See `ranking.decide.Policy`."""
        return self._learner.pmf(context, actions)

    def explain(self, interaction: Interaction) -> list[Contribution] | None:
        """Take the score of the chosen action apart. None: the model's scores are no sums of contributions."""
        rankable = interaction.rankable
        actions = [interaction.actions[index] for index in rankable]
        return self._learner.explain(interaction.context, actions, rankable.index(interaction.chosen))

    def close(self) -> None:
        """Let go of the model."""
        self._learner.close()


class Outcome(msgspec.Struct, frozen=True):
    """What became of a Rank."""

    interaction: Interaction
    repeated: bool  # it was decided before, and this is that decision


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
        settings = self.loop.settings
        interaction = decide(
            request,
            self.scorer if self.loop.model_id is not None else None,  # a deleted model serves no more
            loop_id=self.loop.loop_id,
            mode=settings.learning_mode,
            exploration=settings.exploration,
            reward_wait_us=round(settings.reward_wait.total_seconds() * 1_000_000),
        )
        [result] = await self._log.append([interaction], once=named)
        match result:
            case Known(entry):
                assert isinstance(entry.record, Interaction), "only interactions are known by their event id"
                return Outcome(entry.record, repeated=True)
            case Appended():
                return Outcome(interaction, repeated=False)

    def explain(self, interaction: Interaction) -> list[Contribution] | None:
        """Say what made the model score the shown action as it did, while that model serves.

        Returns:
            See `vw.explain`. None: the model did not choose it, or serves no more, or cannot be explained.
        """
        chose = interaction.learning_mode is LearningMode.ONLINE and len(interaction.rankable) > 1
        if not chose or self.scorer is None or self.scorer.model_id != interaction.model_id:
            return None
        return self.scorer.explain(interaction)

    async def reward(self, event_id: EventId, value: float, *, report: str | None = None) -> None:
        """Log a reward. Whether it finds its event, or was reported before, is seen when the event is joined."""
        await self._log.append([Observation(event_id=event_id, value=value, report=report)])

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
            await self.load()

    def needs_load(self) -> bool:
        """Whether another model is to be loaded, or the same one with another exploration."""
        if self.scorer is None:
            return self.loop.model_id is not None
        return (self.scorer.model_id, self.scorer.exploration) != (self.loop.model_id, self.loop.settings.exploration)

    async def load(self) -> None:
        """Read and load the loop's model beside the running one, then let it serve.

        Raises:
            RankwardError: it cannot be loaded. The old one goes on serving.
        """
        scorer = await asyncio.to_thread(self._load, self.loop)
        old, self.scorer = self.scorer, scorer
        if old is not None:
            old.close()

    def close(self) -> None:
        """Let go of the model."""
        if self.scorer is not None:
            self.scorer.close()
            self.scorer = None

    def _load(self, loop: Loop) -> Scorer | None:
        if loop.model_id is None:
            return None
        version = next((v for v in self._versions() if v.model_id == loop.model_id), None)
        if version is None:
            raise RankwardError(f"model {loop.model_id} of loop {loop.name} is not on record")
        return Scorer(version, self._models.get(loop.loop_id, loop.model_id), loop.settings.exploration)
