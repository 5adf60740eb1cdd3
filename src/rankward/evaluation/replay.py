"""Replays a log: policies learn from it and choose along with it, as they would have run, and are judged by it.

A decision is answered by what the policy had learned and published by then: an event is learned when its reward wait is
over, and serves from the next export on. To judge without that lag would flatter every policy. Until the first
export every action is as likely as the others; after that the loop's floor is kept, as in serving.

One pass judges any number of policies. What is kept grows with the events of a reward wait, not with the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from rankward.errors import InvalidRequest, RankwardError
from rankward.evaluation.contrast import Decisions, Floats, Indexes
from rankward.evaluation.judge import Judge, RewardRange, verdict_of
from rankward.evaluation.report import EventCounts, Line, PolicyResult, PolicySource, Verdict
from rankward.evaluation.waiting import Waiting
from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.ranking.explore import InvalidPmfError, check_pmf, floored
from rankward.records import (
    Action,
    AnyInteraction,
    EventId,
    Interaction,
    Interactions,
    JoinedEvent,
    LearningMode,
    TimeUs,
)
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.presets import derive_interactions, learner_arguments, namespace_letters

SETTLED_BY = 500  # events whose namespaces settle the interactions that a policy derives
BLOCK_MIN, BLOCK_MAX = 50, 1_000  # events judged together, as the arithmetic is that of arrays: few at first, for plots
FLAWS_KEPT = 20
_SUM_SLACK = 0.01  # of logged probabilities: some logs round them to two digits


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy to judge."""

    name: str
    source: PolicySource
    policy: str  # arguments that passed the allow-list
    exploration: float  # the floor, and the learner's `--epsilon`
    derives_interactions: bool = False  # whether the log's namespaces are paired for it
    interactions: Interactions | None = None  # those it was trained with; None: none, or still to be derived
    model: bytes | None = None  # to begin with; None: it begins without
    learns: bool = True  # False: a fixed model, which stays as it is


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay takes for granted."""

    rewards: RewardDefinition
    reward_min: float = 0.0
    reward_max: float = 1.0
    export_us: int  # above 0: how often what was learned is published


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one replay found of its policies, and of the log."""

    policies: tuple[PolicyResult, ...]
    counts: EventCounts
    start_us: TimeUs
    end_us: TimeUs
    reward_wait_us: int  # of the last event
    certain: int  # decisions between several actions that were logged with probability 1
    uncertain: int  # the other decisions between several actions
    flaws: tuple[Line, ...]


class _Rows:
    """Decisions of one kind, gathered until there are enough to judge together."""

    def __init__(self, policies: int) -> None:
        self.p_log: list[float] = []
        self.starts: list[int] = []
        self.chosen: list[int] = []
        self.reported: list[float] = []
        self.upweights: list[float] = []
        self.times_us: list[int] = []
        self.p_target: list[list[float]] = [[] for _ in range(policies)]

    def add(self, p_log: Sequence[float], chosen: int, *, reported: float, upweight: float, time_us: TimeUs) -> None:
        start = len(self.p_log)
        self.starts.append(start)
        self.chosen.append(start + chosen)
        self.p_log.extend(p_log)
        self.reported.append(reported)
        self.upweights.append(upweight)
        self.times_us.append(time_us)


class _Decision(NamedTuple):
    """A decision as policies are asked to make it again."""

    interaction: Interaction
    rankable: list[int]
    event: JoinedEvent

    @property
    def actions(self) -> list[Action]:
        """Those that could have been drawn, in request order."""
        return [self.interaction.actions[index] for index in self.rankable]

    @property
    def chosen(self) -> int:
        """Index into `rankable`."""
        return self.rankable.index(self.interaction.chosen)


class _Running:
    """A candidate on its way through the log."""

    def __init__(self, candidate: Candidate, interactions: Interactions | None, rewards: RewardRange) -> None:
        self.candidate = candidate
        self.judge = Judge(rewards)
        self.failure: str | None = None
        self._knows = candidate.model is not None
        self._learner: Learner | None = Learner(
            learner_arguments(candidate.policy, interactions, candidate.exploration), candidate.model
        )

    def pmf(self, decision: _Decision) -> Sequence[float]:
        """Tell what it would have drawn from. After a failure: from all actions alike, which is not judged."""
        count = len(decision.rankable)
        if not self._knows or count == 1 or self._learner is None:
            return [1 / count] * count
        try:
            said = self._learner.pmf(decision.interaction.context, decision.actions)
            return floored(check_pmf(said, count), self.candidate.exploration)
        except (LearnerRefusedError, InvalidPmfError) as error:
            self._fail(decision.interaction.event_id, error)
            return [1 / count] * count

    def learn(self, decision: _Decision, definition: RewardDefinition) -> None:
        """Tell it what a decision earned."""
        if self._learner is None or not self.candidate.learns:
            return
        interaction = decision.interaction
        try:
            self._learner.learn(
                interaction.context,
                decision.actions,
                chosen=decision.chosen,
                probability=interaction.pmf[interaction.chosen],
                reward=training_reward(decision.event, definition),
            )
        except LearnerRefusedError as error:
            self._fail(interaction.event_id, error)
        self._knows = True

    def _fail(self, event_id: EventId, error: RankwardError) -> None:
        self.failure = f"it broke at event {event_id}, and is not judged: {error}"
        self._learner = None

    def close(self) -> None:
        """Let go of the learner."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None


class Replay:
    """Policies on their way through a log."""

    def __init__(self, candidates: Sequence[Candidate], setup: Setup, *, references: bool) -> None:
        """Begin.

        Args:
            candidates: the policies to judge.
            setup: how to.
            references: whether to judge `online`, `baseline1` and `baselineRand` as well.
        """
        self._candidates = candidates
        self._setup = setup
        self._range = RewardRange(setup.reward_min, setup.reward_max)
        self._first: list[JoinedEvent] | None = []  # until the interactions are settled
        self._running: list[_Running] = []
        self._waiting = Waiting()
        self._now_us: TimeUs = 0
        self._exported = 0  # number of the last export
        self._rows = _Rows(len(candidates))
        self._unshown = _Rows(0)  # of modes in which the baseline was shown
        self._references = _References(self._range) if references else None
        self._counts: Counter[str] = Counter()
        self._flaws: list[Line] = []
        self._start_us: TimeUs = 0
        self._end_us: TimeUs = 0
        self._wait_us = 0

    def take(self, event: JoinedEvent) -> None:
        """Take the next event, in the order of the joined log.

        Raises:
            LearnerRefusedError: a candidate's arguments or model cannot be used.
        """
        if self._first is None:
            self._play(event)
            return
        self._first.append(event)
        if len(self._first) == SETTLED_BY:
            self._settle(self._first)

    def _settle(self, first: Sequence[JoinedEvent]) -> None:
        """Start the learners, now that the namespaces are known, and play what has waited for it."""
        self._first = None
        derived: Interactions | None = None
        if first and any(each.derives_interactions and each.interactions is None for each in self._candidates):
            derived = derived_interactions([event.interaction for event in first])
        for candidate in self._candidates:
            of_candidate = candidate.interactions or (derived if candidate.derives_interactions else None)
            self._running.append(_Running(candidate, of_candidate, self._range))
        for event in first:
            self._play(event)

    def _play(self, event: JoinedEvent) -> None:
        time_us = event.entry.time_us
        self._now_us = max(self._now_us, time_us)
        self._start_us = min(self._start_us or time_us, time_us)
        self._end_us = max(self._end_us, time_us)
        self._wait_us = event.interaction.reward_wait_us
        if event.skip_learn:
            self._counts["never_activated"] += 1
            return
        interaction = event.interaction
        if not isinstance(interaction, Interaction):
            raise InvalidRequest(
                f"event {interaction.event_id} has several slots: a log of such decisions cannot be judged yet"
            )
        if (flaw := flaw_of(interaction)) is not None:
            self._counts["unusable"] += 1
            if len(self._flaws) < FLAWS_KEPT:
                self._flaws.append(Line(f"event {interaction.event_id}", flaw))
            return
        export = self._now_us // self._setup.export_us
        if export > self._exported:
            self._exported = export
            self._learn(export * self._setup.export_us)
        self._judge(_decision(event, interaction))
        if self._running:
            self._waiting.append(event)

    def _learn(self, until_us: TimeUs) -> None:
        """Learn what was due when the model was published that serves from now on."""
        for event in self._waiting.due(until_us):
            assert isinstance(event.interaction, Interaction), "others do not wait"
            decision = _decision(event, event.interaction)
            for running in self._running:
                running.learn(decision, self._setup.rewards)

    def _judge(self, decision: _Decision) -> None:
        interaction, rankable, event = decision
        reported = observed_reward(event, self._setup.rewards)
        self._counts["clipped"] += not self._setup.reward_min <= reported <= self._setup.reward_max
        rows, p_log, chosen = self._rows, [interaction.pmf[index] for index in rankable], decision.chosen
        if interaction.learning_mode is not LearningMode.ONLINE:
            self._counts["baseline_only"] += 1
            rows, p_log, chosen = self._unshown, [1.0] + [0.0] * (len(rankable) - 1), 0
        rows.add(p_log, chosen, reported=reported, upweight=upweight_of(interaction), time_us=event.entry.time_us)
        if rows is self._rows:
            self._counts["judged"] += 1
            if len(rankable) > 1:
                self._counts["certain" if p_log[chosen] >= 1.0 else "uncertain"] += 1
            for running, p_target in zip(self._running, rows.p_target, strict=True):
                p_target.extend(running.pmf(decision))
        if len(rows.starts) >= min(BLOCK_MAX, max(BLOCK_MIN, self._counts["judged"] // 8)):
            self._flush()

    def _flush(self) -> None:
        """Judge what was gathered."""
        rows, self._rows = self._rows, _Rows(len(self._candidates))
        unshown, self._unshown = self._unshown, _Rows(0)
        if rows.starts:
            facts = self._arrays(rows)
            for running, p_target in zip(self._running, rows.p_target, strict=True):
                if running.failure is None:
                    running.judge.add(np.array(p_target), *facts)
            if self._references is not None:
                self._references.add(*facts)
        if unshown.starts and self._references is not None:
            decisions, reported, times_us = self._arrays(unshown)
            self._references.baseline.add(decisions.p_log, decisions, reported, times_us, shown=False)

    def _arrays(self, rows: _Rows) -> tuple[Decisions, Floats, Indexes]:
        reported = np.array(rows.reported)
        decisions = Decisions(
            p_log=np.array(rows.p_log),
            starts=np.array(rows.starts),
            chosen=np.array(rows.chosen),
            rewards=self._range.scale(reported),
            upweights=np.array(rows.upweights),
        )
        return decisions, reported, np.array(rows.times_us)

    def end(self) -> Part:
        """End, and tell what was found. The replay must not be used any more."""
        if self._first is not None:
            self._settle(self._first)
        self._flush()
        results = [self._result(each.judge, each.candidate, each.failure) for each in self._running]
        for running in self._running:
            running.close()
        if self._references is not None:
            results += self._references.results()
        counts = self._counts
        return Part(
            policies=tuple(results),
            counts=EventCounts(
                judged=counts["judged"],
                baseline_only=counts["baseline_only"],
                never_activated=counts["never_activated"],
                clipped=counts["clipped"],
                unusable=counts["unusable"],
            ),
            start_us=self._start_us,
            end_us=self._end_us,
            reward_wait_us=self._wait_us,
            certain=counts["certain"],
            uncertain=counts["uncertain"],
            flaws=tuple(self._flaws),
        )

    @staticmethod
    def _result(judge: Judge, candidate: Candidate, failure: str | None) -> PolicyResult:
        against = None if failure else judge.against_online()
        return PolicyResult(
            name=candidate.name,
            arguments=candidate.policy,
            source=candidate.source,
            verdict=verdict_of(against),
            totals=judge.totals,
            windows=judge.windows(),
            estimate=None if failure else judge.estimate(),
            against_online=against,
            diagnostics=None if failure else judge.diagnostics(),
            looks=judge.looks(),
            notes=(failure,) if failure else (),
        )


class _References:
    """The policies that are always judged: the one that acted, the application's own choice, and chance."""

    def __init__(self, rewards: RewardRange) -> None:
        self.online = Judge(rewards)
        self.baseline = Judge(rewards)
        self.random = Judge(rewards)

    def add(self, decisions: Decisions, reported: Floats, times_us: Indexes) -> None:
        """Take in more decisions, of which the first action is the baseline's."""
        counts = np.diff(np.append(decisions.starts, len(decisions.p_log)))
        first = np.zeros(len(decisions.p_log))
        first[decisions.starts] = 1.0
        self.online.add(decisions.p_log, decisions, reported, times_us)
        self.baseline.add(first, decisions, reported, times_us)
        self.random.add(np.repeat(1 / counts, counts), decisions, reported, times_us)

    def results(self) -> list[PolicyResult]:
        """Tell what was found, in the contract's order."""
        found = []
        for judge, name, source in (
            (self.online, "online", PolicySource.ONLINE),
            (self.baseline, "baseline1", PolicySource.BASELINE),
            (self.random, "baselineRand", PolicySource.RANDOM),
        ):
            acted = source is PolicySource.ONLINE
            estimate, against = judge.estimate(), None if acted else judge.against_online()
            found.append(
                PolicyResult(
                    name=name,
                    arguments=None,
                    source=source,
                    verdict=Verdict.REFERENCE if acted and estimate is not None else verdict_of(against),
                    totals=judge.totals,
                    windows=judge.windows(),
                    estimate=estimate,
                    against_online=against,
                    diagnostics=judge.diagnostics(),
                    looks=judge.looks(),
                )
            )
        return found


def _decision(event: JoinedEvent, interaction: Interaction) -> _Decision:
    return _Decision(interaction, interaction.rankable, event)


def derived_interactions(decisions: Sequence[AnyInteraction]) -> Interactions:
    """Derive interactions from the namespaces of decisions, as an epoch does from those of its first events."""
    context: frozenset[str] = frozenset()
    action: frozenset[str] = frozenset()
    for interaction in decisions:
        of_context, of_actions = namespace_letters(interaction.context, interaction.actions)
        context, action = context | of_context, action | of_actions
    return Interactions(*derive_interactions(context, action))


def flaw_of(interaction: Interaction) -> str | None:
    """Tell why a decision cannot be judged by its probabilities; None: it can."""
    total = sum(interaction.pmf)
    if not abs(total - 1) <= _SUM_SLACK:
        return f"its probabilities add up to {total:.6g}, not to 1"
    if not min(interaction.pmf) >= 0:
        return "it has a probability below 0"
    if not interaction.pmf[interaction.chosen] > 0:
        return "what was chosen has probability 0"
    return None


def upweight_of(interaction: Interaction) -> float:
    """Tell how many events a logged one stands for: a client that uploads a sample keeps each with a probability."""
    return 1 / interaction.pass_probability
