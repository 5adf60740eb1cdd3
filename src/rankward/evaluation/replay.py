"""Replays a log: policies learn from it and choose along with it, as they would have run, and are judged by it.

A decision is answered by what the policy had learned and published by then: an event is learned when its reward wait is
over, and serves from the next export on. To judge without that lag would flatter every policy. Until the first
export every action is as likely as the others; after that the loop's floor is kept, as in serving.

One pass judges any number of policies. What is kept grows with the events of a reward wait, not with the log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import msgspec
import numpy as np

from rankward.evaluation.contender import Blindness, Candidate, Contender, Permuted, Trained, Way
from rankward.evaluation.contrast import Decisions, Floats, Indexes
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.margin import Margin
from rankward.evaluation.panel import Panel
from rankward.evaluation.question import Question, questions
from rankward.evaluation.report import Estimate, EventCounts, Line, PolicyResult, PolicySource
from rankward.evaluation.waiting import Waiting
from rankward.joining.reward import RewardDefinition, observed_reward
from rankward.records import (
    AnyInteraction,
    Bins,
    Interaction,
    Interactions,
    JoinedEvent,
    LearningMode,
    MultiSlotInteraction,
    TimeUs,
)
from rankward.settings import Numbers
from rankward.training.lesson import lesson_of
from rankward.vw.bins import settle
from rankward.vw.parser import Parser
from rankward.vw.presets import derive_interactions, namespace_letters

SETTLED_BY = 500  # events whose features settle the interactions and the bins that a policy derives
BLOCK_MIN, BLOCK_MAX = 50, 1_000  # events judged together, as the arithmetic is that of arrays: few at first, for plots
FLAWS_KEPT = 20
_RELEARNED = 10_000  # events, the newest: what a policy learns anew when it begins with another rate
_NEVER_US: TimeUs = 1 << 62


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay takes for granted."""

    rewards: RewardDefinition
    reward_min: float = 0.0
    reward_max: float = 1.0
    export_us: int  # above 0: how often what was learned is published


class BlindLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy loses when it does without features."""

    blindness: Blindness
    estimate: Estimate | None  # of mean reward; None: no event judges it


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
    losses: tuple[BlindLoss, ...] = ()  # of the policies that have blind ones beside them
    trained: tuple[Trained, ...] = ()  # of the policies that have not failed, if they were to be kept


class _Rows:
    """Decisions of one kind, gathered until there are enough to judge together."""

    def __init__(self, policies: int, blind: int) -> None:
        self.p_log: list[float] = []
        self.starts: list[int] = []
        self.chosen: list[int] = []
        self.baselines: list[int] = []
        self.reported: list[float] = []
        self.upweights: list[float] = []
        self.times_us: list[int] = []
        self.p_target: list[list[float]] = [[] for _ in range(policies)]
        self.p_blind: list[list[float]] = [[] for _ in range(blind)]

    def add(self, question: Question, *, reported: float, upweight: float, time_us: TimeUs) -> None:
        start = len(self.p_log)
        self.starts.append(start)
        self.chosen.append(start + question.chosen)
        if question.baseline is not None:
            self.baselines.append(start + question.baseline)
        self.p_log.extend(question.p_log)
        self.reported.append(reported)
        self.upweights.append(upweight)
        self.times_us.append(time_us)


class _Blind:
    """A policy that does without features, beside the one that does not."""

    def __init__(self, blindness: Blindness, answerer: Contender | Permuted, whole: int, rewards: RewardRange) -> None:
        self.blindness = blindness
        self.answerer = answerer
        self.whole = whole  # index of the contender that it is compared with
        self.margin = Margin(rewards)


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
        self._kind: type[AnyInteraction] | None = None  # of every event; None: there was none yet
        self._contenders: list[Contender] = []
        self._parsers: dict[str, Parser] = {}  # by what parsing depends on: what parses alike is parsed once
        self._blind: list[_Blind] = []
        self._panels = [Panel(self._range, judged_from_us=each.judged_from_us, alpha=each.alpha) for each in candidates]
        self._references = _References(self._range) if references else None
        self._waiting = Waiting()
        self._learned: deque[JoinedEvent] = deque(maxlen=_RELEARNED if _derives_rate(candidates) else 0)
        self._now_us: TimeUs = 0
        self._exported = 0  # number of the last export
        self._rows: dict[str, _Rows] = {}  # by slot
        self._unshown: dict[str, _Rows] = {}  # the same, of modes in which the baseline was shown
        self._decided = 0.0  # decisions that were judged, before subsampling
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
        """Start the learners, now that the features are known, and play what has waited for it."""
        self._first = None
        if first:
            self._kind = type(first[0].interaction)
        derived: Interactions | None = None
        if first and any(each.derives_interactions and each.interactions is None for each in self._candidates):
            derived = derived_interactions([event.interaction for event in first])
        bins: Bins | None = None
        if any(each.numbers is Numbers.BINS and each.bins is None for each in self._candidates):
            bins = settle(event.interaction for event in first)
        for each in self._candidates:
            candidate = each.for_slots() if self._kind is MultiSlotInteraction else each
            of_candidate = candidate.interactions or (derived if candidate.derives_interactions else None)
            of_numbers = candidate.bins or (bins if candidate.numbers is Numbers.BINS else None)
            whole = Contender(candidate, of_candidate, of_numbers, self._parsers)
            self._contenders.append(whole)
            for blindness in candidate.blind:
                answerer: Contender | Permuted = Permuted(whole, blindness)
                if blindness.way is Way.LEFT_OUT:
                    without = msgspec.structs.replace(candidate, leaves_out=blindness.features, keeps_model=False)
                    answerer = Contender(without, of_candidate, of_numbers, self._parsers)
                self._blind.append(_Blind(blindness, answerer, len(self._contenders) - 1, self._range))
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
        asked = questions(event.interaction)
        if (flaw := self._flaw_of(event.interaction, asked)) is not None:
            self._counts["unusable"] += 1
            if len(self._flaws) < FLAWS_KEPT:
                self._flaws.append(Line(f"event {event.interaction.event_id}", flaw))
            return
        export = self._now_us // self._setup.export_us
        if export > self._exported:
            self._exported = export
            self._learn(export * self._setup.export_us)
        self._judge(event, asked)
        if self._contenders:
            self._waiting.append(event)

    def _flaw_of(self, interaction: AnyInteraction, asked: Sequence[Question]) -> str | None:
        """Tell why an event cannot be judged; None: it can."""
        if not isinstance(interaction, self._kind or type(interaction)):
            other = "several slots" if isinstance(interaction, MultiSlotInteraction) else "one slot"
            return f"it is a decision for {other}, unlike the first of the log: judge them apart"
        return next((question.flaw for question in asked if question.flaw is not None), None)

    def _learn(self, until_us: TimeUs) -> None:
        """Learn what was due when the model was published that serves from now on."""
        learners = self._learners()
        for event in self._waiting.due(until_us):
            lesson = lesson_of(event, self._setup.rewards) if isinstance(event.interaction, Interaction) else None
            for contender in learners:
                contender.learn(event, self._setup.rewards, lesson)
            self._learned.append(event)
            self._watch_rates()

    def _watch_rates(self) -> None:
        """Let policies begin anew with another rate where the newest events ask for one, and the blind ones with it."""
        for number, contender in enumerate(self._contenders):
            if not contender.is_to_be_tested:
                continue
            newest = list(self._learned)
            rate = contender.asks_for_another_rate(newest, self._setup.rewards)
            if rate is None:
                continue
            beside = [each.answerer for each in self._blind if each.whole == number]
            for each in (contender, *beside):
                if isinstance(each, Contender):
                    each.begin_anew(rate, newest, self._setup.rewards)

    def _learners(self) -> list[Contender]:
        """List all that learn."""
        blind = [each.answerer for each in self._blind]
        return [*self._contenders, *(each for each in blind if isinstance(each, Contender))]

    def _judge(self, event: JoinedEvent, asked: Sequence[Question]) -> None:
        interaction = event.interaction
        shown = interaction.learning_mode is LearningMode.ONLINE
        upweight, time_us = 1 / interaction.pass_probability, event.entry.time_us
        rewards = [observed_reward(event, self._setup.rewards, question.number) for question in asked]
        self._counts["judged" if shown else "baseline_only"] += 1
        self._decided += upweight * shown
        answers: list[list[Sequence[float]]] = []
        for question, reported in zip(asked, rewards, strict=True):
            self._counts["clipped"] += not self._setup.reward_min <= reported <= self._setup.reward_max
            if not shown:
                baseline = Question(question.number, question.slot_id, (0,), (1.0,), 0, 0)
                rows = self._unshown.setdefault(question.slot_id, _Rows(0, 0))
                rows.add(baseline, reported=reported, upweight=upweight, time_us=time_us)
                continue
            if len(question.actions) > 1:
                self._counts["certain" if question.p_log[question.chosen] >= 1.0 else "uncertain"] += 1
            rows = self._rows.get(question.slot_id) or self._rows.setdefault(
                question.slot_id, _Rows(len(self._contenders), len(self._blind))
            )
            rows.add(question, reported=reported, upweight=upweight, time_us=time_us)
            answered = [contender.answer(event, question) for contender in self._contenders]
            for p_target, answer in zip(rows.p_target, answered, strict=True):
                p_target.extend(answer)
            for p_blind, blind in zip(rows.p_blind, self._blind, strict=True):
                p_blind.extend(blind.answerer.answer(event, question))
            answers.append(answered)
        if isinstance(interaction, MultiSlotInteraction):
            self._judge_page(asked, answers, sum(rewards), upweight, time_us)
        decided = self._counts["judged"] + self._counts["baseline_only"]
        if decided - self._counts["flushed"] >= min(BLOCK_MAX, max(BLOCK_MIN, decided // 8)):
            self._counts["flushed"] = decided
            self._flush()

    def _judge_page(
        self,
        asked: Sequence[Question],
        answers: Sequence[Sequence[Sequence[float]]],
        reward: float,
        upweight: float,
        time_us: TimeUs,
    ) -> None:
        """Judge a page as a whole. Without answers, the baseline was shown."""
        for number, panel in enumerate(self._panels if answers else ()):
            weights = [
                answered[number][question.chosen] / question.p_log[question.chosen]
                for question, answered in zip(asked, answers, strict=True)
            ]
            panel.add_page(weights, reward, upweight, time_us)
        if self._references is not None:
            self._references.add_page(asked, reward, upweight, time_us, shown=bool(answers))

    def _flush(self) -> None:
        """Judge what was gathered."""
        every, self._rows = self._rows, {}
        for slot_id, rows in every.items():
            facts = self._arrays(rows)
            for contender, panel, p_target in zip(self._contenders, self._panels, rows.p_target, strict=True):
                if contender.failure is None:
                    panel.add(slot_id, np.array(p_target), *facts)
            for blind, p_blind in zip(self._blind, rows.p_blind, strict=True):
                if blind.answerer.failure is None and self._contenders[blind.whole].failure is None:
                    blind.margin.add(slot_id, np.array(rows.p_target[blind.whole]), np.array(p_blind), facts[0])
            if self._references is not None:
                self._references.add(slot_id, np.array(rows.baselines, dtype=np.int64), *facts)
        unshown, self._unshown = self._unshown, {}
        for slot_id, rows in unshown.items():
            if self._references is not None:
                decisions, reported, times_us = self._arrays(rows)
                self._references.baseline.add(slot_id, decisions.p_log, decisions, reported, times_us, shown=False)

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
        results: list[PolicyResult] = []
        for contender, panel in zip(self._contenders, self._panels, strict=True):
            candidate = contender.candidate
            found = panel.results(
                name=candidate.name, arguments=candidate.policy, source=candidate.source, failure=contender.failure
            )
            results += [msgspec.structs.replace(each, numbers=candidate.numbers) for each in found]
        losses = [BlindLoss(blindness=each.blindness, estimate=self._loss(each)) for each in self._blind]
        trained: list[Trained | None] = []
        if any(candidate.keeps_model for candidate in self._candidates):
            self._learn(_NEVER_US)
            trained = [contender.trained() for contender in self._contenders]
        for parser in self._parsers.values():
            parser.close()
        for contender in self._learners():
            contender.close()
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
            losses=tuple(losses),
            trained=tuple([each for each in trained if each is not None]),
        )

    def _loss(self, blind: _Blind) -> Estimate | None:
        failed = blind.answerer.failure is not None or self._contenders[blind.whole].failure is not None
        return None if failed or not self._decided else blind.margin.estimate(self._decided)


def _derives_rate(candidates: Sequence[Candidate]) -> bool:
    return any(candidate.derives_rate for candidate in candidates)


class _References:
    """The policies that are always judged: the one that acted, the application's own choice, and chance."""

    def __init__(self, rewards: RewardRange) -> None:
        self.online = Panel(rewards)
        self.baseline = Panel(rewards)
        self.random = Panel(rewards)

    def add(self, slot_id: str, baselines: Indexes, decisions: Decisions, reported: Floats, times_us: Indexes) -> None:
        """Take in more decisions; `baselines` are the indexes of what the application would show."""
        counts = np.diff(np.append(decisions.starts, len(decisions.p_log)))
        shown = np.zeros(len(decisions.p_log))
        shown[baselines] = 1.0
        self.online.add(slot_id, decisions.p_log, decisions, reported, times_us)
        self.baseline.add(slot_id, shown, decisions, reported, times_us)
        self.random.add(slot_id, np.repeat(1 / counts, counts), decisions, reported, times_us)

    def add_page(
        self, asked: Sequence[Question], reward: float, upweight: float, time_us: TimeUs, *, shown: bool
    ) -> None:
        """Take in a whole page; if it was not shown as drawn, the baselines were."""
        if not shown:
            self.baseline.add_page([1.0] * len(asked), reward, upweight, time_us)
            return
        inverse = [1 / question.p_log[question.chosen] for question in asked]
        matched = [weight * (each.chosen == each.baseline) for each, weight in zip(asked, inverse, strict=True)]
        by_chance = [weight / len(each.actions) for each, weight in zip(asked, inverse, strict=True)]
        for panel, weights in ((self.online, [1.0] * len(asked)), (self.baseline, matched), (self.random, by_chance)):
            panel.add_page(weights, reward, upweight, time_us)

    def results(self) -> list[PolicyResult]:
        """Tell what was found, in the contract's order."""
        return [
            *self.online.results(name="online", arguments=None, source=PolicySource.ONLINE),
            *self.baseline.results(name="baseline1", arguments=None, source=PolicySource.BASELINE),
            *self.random.results(name="baselineRand", arguments=None, source=PolicySource.RANDOM),
        ]


def derived_interactions(decisions: Sequence[AnyInteraction]) -> Interactions:
    """Derive interactions from the namespaces of decisions, as an epoch does from those of its first events."""
    context: frozenset[str] = frozenset()
    action: frozenset[str] = frozenset()
    for interaction in decisions:
        slots = interaction.slots if isinstance(interaction, MultiSlotInteraction) else ()
        of_context, of_actions = namespace_letters(interaction.context, interaction.actions, slots)
        context, action = context | of_context, action | of_actions
    return Interactions(*derive_interactions(context, action))
