"""Watches over a policy that was applied: what would the replaced one have earned, had it gone on?

The replaced policy goes on learning, by the same fold over the joined log as before, and answers every decision as it
would have: with what it had learned and published by then, its floor included. So what is compared is what a return
would bring back, and a world that changes does not make it look old. The bounds of the difference hold at every look
together (`intervals.Betting`), so that looking often does not make a verdict of chance.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from rankward.errors import RankwardError
from rankward.evaluation.contrast import Decisions, contrast
from rankward.evaluation.estimators import Sums, cressie_read, ips
from rankward.evaluation.intervals import Betting, BettingState, Bounds
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.question import Question, questions
from rankward.evaluation.waiting import Waiting
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.ranking.explore import check_pmf, floored
from rankward.records import Interaction, JoinedEvent, LearningMode, Offset, TimeUs
from rankward.settings import LoopSettings
from rankward.store.optimizations import Watched
from rankward.store.ports import Epoch
from rankward.training.fold import Checkpoint, Fold

EVENTS_MAX = 100_000
"""Decisions after which a watch ends: what so many do not tell apart is as good."""
BLOCK = 200  # decisions judged together, as the arithmetic is that of arrays
_DAY_US = 86_400_000_000
WATCH_US = 14 * _DAY_US
"""How long a policy is watched over after it was applied."""


class Verdict(enum.StrEnum):
    """What the decisions since the application say of the applied policy against the replaced one."""

    UNDECIDED = "undecided"
    BETTER = "better"  # beyond doubt
    WORSE = "worse"  # beyond doubt
    OVER = "over"  # neither, and enough were looked at


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a watch has come: it goes on from here as if it had never stopped."""

    epoch: Epoch  # of the replaced policy
    exploration: float  # its floor
    checkpoint: Checkpoint  # what it has learned
    from_us: TimeUs  # decisions before it do not compare
    until_us: TimeUs  # the watch ends when there are joined decisions from then on, or none came until then
    cursor: Offset  # of the joined log: events before it have been judged
    betting: BettingState | None = None  # None: nothing has been judged
    replaced: Sums = msgspec.field(default_factory=Sums)  # of the replaced policy's weights, and the rewards
    serving: Sums = msgspec.field(default_factory=Sums)  # of the policy that acted
    refused: tuple[Offset, ...] = ()  # interactions that broke the replaced policy's learner, and are passed over
    verdict: Verdict = Verdict.UNDECIDED
    watched: Watched | None = None  # the figures of then; None: there were none


class Watch:
    """The replaced policy on its way along the log."""

    def __init__(self, state: WatchState, settings: LoopSettings, *, set_aside: Collection[Offset]) -> None:
        """Go on from a state.

        Args:
            state: where to go on. Events are taken from its checkpoint's offset on.
            settings: of the loop: what a reward is, and how often models are published.
            set_aside: interactions that learning passes over.

        Raises:
            LearnerRefusedError: the policy or the model cannot be used.
        """
        self._state = state
        self._rewards = RewardDefinition(settings.default_reward, settings.reward_aggregation)
        self._range = RewardRange(settings.reward_min, settings.reward_max)
        self._export_us = max(1, round(settings.model_export_frequency.total_seconds() * 1_000_000))
        self._fold = Fold(
            state.epoch,
            state.checkpoint,
            exploration=state.exploration,
            set_aside={*set_aside, *state.refused},
        )
        self._betting = Betting(state.betting)
        self._replaced, self._serving = msgspec.structs.replace(state.replaced), msgspec.structs.replace(state.serving)
        self._cursor = state.cursor
        self._waiting = Waiting()
        self._now_us: TimeUs = 0
        self._exported = 0  # number of the last export
        self._newest_us: TimeUs = 0  # of the decisions that were taken in
        self._rows: list[tuple[Question, Sequence[float], float, float]] = []

    def take(self, event: JoinedEvent) -> None:
        """Take the next event, in the order of the joined log.

        Raises:
            EventRefusedError: the replaced policy's learner refused one. The watch must not be used any more.
        """
        self._now_us = max(self._now_us, event.entry.time_us)
        export = self._now_us // self._export_us
        if export > self._exported:
            self._exported = export
            for due in self._waiting.due(export * self._export_us):
                self._fold.take(due, before=lambda _: None)
        if event.offset >= self._cursor:
            self._cursor = event.offset + 1
            self._judge(event)
        self._waiting.append(event)

    def _judge(self, event: JoinedEvent) -> None:
        interaction, time_us = event.interaction, event.entry.time_us
        if (
            not isinstance(interaction, Interaction)
            or interaction.learning_mode is not LearningMode.ONLINE
            or event.skip_learn
            or event.entry.imported
            or time_us < self._state.from_us
        ):
            return
        self._newest_us = max(self._newest_us, time_us)
        [question] = questions(interaction)
        if question.flaw is not None:
            return
        reward = observed_reward(event, self._rewards)
        self._rows.append((question, self._answer(interaction, question), reward, 1 / interaction.pass_probability))
        if len(self._rows) >= BLOCK:
            self._flush()

    def _answer(self, interaction: Interaction, question: Question) -> Sequence[float]:
        """Tell what the replaced policy would have drawn from. Where it cannot say, it has no preference."""
        count = len(question.actions)
        try:
            pmf = self._fold.pmf(interaction.context, [interaction.actions[index] for index in question.actions])
            return floored(check_pmf(pmf, count), self._state.exploration)
        except (RankwardError, ValueError):
            return [1 / count] * count

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        counts = np.array([len(question.actions) for question, *_ in rows])
        starts = np.concatenate(([0], counts.cumsum()[:-1]))
        decisions = Decisions(
            p_log=np.concatenate([question.p_log for question, *_ in rows]),
            starts=starts,
            chosen=starts + np.array([question.chosen for question, *_ in rows]),
            rewards=self._range.scale(np.array([reward for _, _, reward, _ in rows])),
            upweights=np.array([upweight for *_, upweight in rows]),
        )
        p_replaced = np.concatenate([answer for _, answer, *_ in rows])
        rewards, upweights = decisions.rewards, decisions.upweights
        self._betting.add(contrast(decisions, decisions.p_log, p_replaced), rewards, upweights)
        weights = p_replaced[decisions.chosen] / decisions.p_log[decisions.chosen]
        self._replaced.add(weights, rewards, upweights)
        self._serving.add(np.ones(len(rewards)), rewards, upweights)

    def look(self, now_us: TimeUs) -> tuple[Verdict, Watched]:
        """Tell what the decisions so far say.

        Args:
            now_us: the time.
        """
        self._flush()
        events = self._replaced.events
        bounds = self._betting.bounds() if events else Bounds(-1.0, 1.0)
        replaced, serving = cressie_read(self._replaced), ips(self._serving)
        difference = None if replaced is None or serving is None else self._range.difference(serving - replaced)
        watched = Watched(
            events=events,
            difference=difference,
            low=self._range.difference(bounds.low),
            high=self._range.difference(bounds.high),
            time_us=now_us,
            until_us=self._state.until_us,
        )
        if bounds.low > 0:
            return Verdict.BETTER, watched
        if bounds.high < 0:
            return Verdict.WORSE, watched
        is_over = events >= EVENTS_MAX or self._newest_us >= self._state.until_us
        return Verdict.OVER if is_over else Verdict.UNDECIDED, watched

    def state(self, verdict: Verdict, watched: Watched) -> WatchState:
        """Tell where it stands, to go on from later, or to return to the replaced policy: with what `look` said."""
        self._flush()
        # A learner that does not resume exactly goes on from where it was last saved and loaded.
        exact = self._fold.checkpoint() if self._fold.exact else self._fold.turned
        return msgspec.structs.replace(
            self._state,
            checkpoint=exact or self._state.checkpoint,
            cursor=self._cursor,
            betting=self._betting.state() if self._replaced.events else None,
            replaced=msgspec.structs.replace(self._replaced),
            serving=msgspec.structs.replace(self._serving),
            verdict=verdict,
            watched=watched,
        )

    def weights(self) -> dict[int, float]:
        """Return the weights of the replaced policy's learner, to compare watches by."""
        return self._fold.weights()

    def close(self) -> None:
        """Let go of the learner."""
        self._fold.close()
