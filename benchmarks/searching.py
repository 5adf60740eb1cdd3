"""Whether a search promotes what is better, and nothing else: rows of `make bench-evaluation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import msgspec
import numpy as np

from benchmarks.learning import (
    Played,
    Scene,
    Served,
    Setting,
    arguments_of,
    learn,
    play,
    set_scene,
)
from benchmarks.report import Row
from rankward.evaluation.contrast import Decisions, Indexes
from rankward.evaluation.intervals import ALPHA
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.panel import Panel
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import PolicyResult, PolicySource, Report
from rankward.evaluation.search import SHARES, gate_alpha, kept_after, promoted, ranking
from rankward.evaluation.service import Batch, custom, search
from rankward.joining.reward import RewardDefinition
from rankward.ranking.decide import decide
from rankward.records import JoinedEntry, JoinedEvent, JoinedObservation, LearningMode
from rankward.settings import Aggregation
from rankward.vw.learner import Learner
from rankward.vw.presets import PERSONALIZER

ACTIONS = 10
CANDIDATES = 20
EPSILON = 0.2
LOGGING_VALUE = 0.56
GAIN = 0.15
EVENTS = 4_000  # of a set's log, or so
PASSES_MAX = 10  # over a set, for its log
SECOND_US = 1_000_000
START_US = 1_767_225_600 * SECOND_US


class Simulated:
    """Candidates whose predictions are given: greedy ones, right in a share of the events, over a log with an epsilon.

    One of ten actions earns 1. The policy that logs is right so often that it earns 0.56. Candidates err in the same
    events as it does, and in the same way, as policies do that learn from one log, but for a share of the events.
    """

    def __init__(self, events: int, values: Sequence[float], rng: np.random.Generator, *, unlike: float) -> None:
        """Draw a log, and what candidates of these true values make of it.

        Args:
            events: in the log.
            values: of the candidates.
            rng: to draw from.
            unlike: share of the events in which a candidate is right or wrong regardless of the policy that logs.
        """
        self.values = values
        rows = np.arange(events)
        best = rng.integers(0, ACTIONS, events)
        luck, wrong = rng.random(events), self._wrong(best, rng)
        first = np.where(luck < (LOGGING_VALUE - EPSILON / ACTIONS) / (1 - EPSILON), best, wrong)
        self._p_log = np.full((events, ACTIONS), EPSILON / ACTIONS)
        self._p_log[rows, first] += 1 - EPSILON
        self._taken = np.where(rng.random(events) < EPSILON, rng.integers(0, ACTIONS, events), first)
        self._rewards = (self._taken == best).astype(np.float64)
        self._choices = []
        for value in values:
            is_unlike = rng.random(events) < unlike
            right = np.where(is_unlike, rng.random(events), luck) < value
            errs_alike = ~is_unlike & (rng.random(events) < 0.5)
            self._choices.append(np.where(right, best, np.where(errs_alike, wrong, self._wrong(best, rng))))

    @staticmethod
    def _wrong(best: Indexes, rng: np.random.Generator) -> Indexes:
        return (best + rng.integers(1, ACTIONS, len(best))) % ACTIONS

    def judged(self, candidate: int, begin: int, end: int, alpha: float) -> PolicyResult:
        """Judge a candidate by a stretch of the log."""
        events = end - begin
        rows = np.arange(events)
        p_target = np.zeros((events, ACTIONS))
        p_target[rows, self._choices[candidate][begin:end]] = 1.0
        rewards = self._rewards[begin:end]
        decisions = Decisions(
            self._p_log[begin:end].ravel(),
            rows * ACTIONS,
            rows * ACTIONS + self._taken[begin:end],
            rewards,
            np.ones(events),
        )
        panel = Panel(RewardRange(0.0, 1.0), alpha=alpha)
        for start in range(0, events, 1_000):
            part = slice(start, start + 1_000)
            low, high = start * ACTIONS, min(events, start + 1_000) * ACTIONS
            piece = Decisions(
                decisions.p_log[low:high],
                decisions.starts[part] - low,
                decisions.chosen[part] - low,
                rewards[part],
                decisions.upweights[part],
            )
            panel.add("", p_target.ravel()[low:high], piece, rewards[part], START_US + rows[part] * SECOND_US)
        [result] = panel.results(name=str(candidate), arguments="", source=PolicySource.OFFLINE_EXPERIMENTATION)
        return result

    def promoted(self, events: int) -> float | None:
        """Search, with the rungs of a log that is long enough for all. Returns the value promoted. None: nothing is."""
        running = list(range(len(self.values)))
        for number, share in enumerate(SHARES):
            end = int(events * share)
            results = [self.judged(candidate, end // 4, end, ALPHA) for candidate in running]
            order = ranking(results, "", kept_after(number, len(SHARES), len(running)))
            running = [int(each.name) for each in order if each.kept]
        results = [self.judged(each, int(events * SHARES[-1]), events, gate_alpha(len(running))) for each in running]
        best = promoted(results)
        return self.values[int(best)] if best else None


def promotion(quick: bool) -> Iterator[Row]:
    """How often a search promotes what is not better, and how much of what is possible it gains."""
    runs = 20 if quick else 200
    rng = np.random.default_rng(6)
    for events in (2_000, 10_000) if quick else (2_000, 10_000, 50_000):
        logs = runs if events <= 10_000 else runs // 4
        wrong = 0
        for _ in range(logs):
            values = [LOGGING_VALUE, *rng.uniform(LOGGING_VALUE - GAIN, LOGGING_VALUE, CANDIDATES - 1)]
            wrong += Simulated(events, values, rng, unlike=0.5).promoted(events) is not None
        yield Row(
            f"search: promoted though none of {CANDIDATES} is better, {events:,} events, {logs} logs",
            f"{wrong / logs:.3f}",
            "",
            "",
            "at most 0.05",
            wrong / logs <= 0.05,
        )
    for unlike, events in ((0.5, 2_000), (0.5, 10_000), (1.0, 10_000)):
        gained = []
        for _ in range(runs):
            values = [LOGGING_VALUE + GAIN, *rng.uniform(LOGGING_VALUE - GAIN, LOGGING_VALUE + 0.1, CANDIDATES - 1)]
            value = Simulated(events, values, rng, unlike=unlike).promoted(events)
            gained.append(0.0 if value is None else (value - LOGGING_VALUE) / GAIN)
        share = mean(gained)
        has_goal = unlike == 0.5 and events == 10_000
        yield Row(
            f"search: share of a possible +{GAIN} gained, {CANDIDATES} candidates, unlike the policy that acted "
            f"in {unlike:.0%} of {events:,} events, {runs} logs",
            f"{share:.3f}",
            "",
            "",
            "at least 0.95" if has_goal else "",
            share >= 0.95 if has_goal else None,
        )


class Logged(msgspec.Struct, frozen=True):
    """A log in memory. Implements `evaluation.service.Source`."""

    events: tuple[JoinedEvent, ...]

    def batches(self) -> Iterator[Batch]:
        """Read it."""
        for start in range(0, len(self.events), 500):
            part = self.events[start : start + 500]
            yield Batch(part, (start + len(part)) / len(self.events))


def served(scene: Scene, setting: Setting) -> Iterator[JoinedEvent]:
    """Let a setting decide and learn along a scene, a decision a second, and log it."""
    arguments, exploration = arguments_of(setting, scene)
    learner = Learner(arguments)
    for number, (request, rewards) in enumerate(zip(scene.requests, scene.rewards, strict=True)):
        interaction = decide(
            request,
            Served(learner),
            loop_id="bench",
            mode=LearningMode.ONLINE,
            exploration=exploration,
            reward_wait_us=0,
        )
        reward = float(rewards[interaction.chosen])
        learn(learner, interaction, reward)
        time_us = START_US + number * SECOND_US
        entry = JoinedEntry(number, time_us, time_us + SECOND_US, (JoinedObservation(number, time_us, reward),))
        yield JoinedEvent(number, entry, interaction)
    learner.close()


def passes(name: str, count: int) -> Scene:
    """Stage a set several times over, in another order each time."""
    scenes = [set_scene(name, seed=100 + number) for number in range(count)]
    return Scene(
        [request for scene in scenes for request in scene.requests],
        [means for scene in scenes for means in scene.means],
        [rewards for scene in scenes for rewards in scene.rewards],
    )


def found_setting(name: str, *, count: int, seed: int) -> tuple[Report, Setting]:
    """Let Personalizer's own policy serve a set, search its log, and return what to go on with."""
    own = Setting.of(PERSONALIZER)
    log = Logged(tuple(served(passes(name, count), own)))
    report = search(
        log,
        [],
        Setup(rewards=RewardDefinition(0.0, Aggregation.EARLIEST), export_us=10 * SECOND_US),
        own=custom("personalizer", PERSONALIZER.name, exploration=EPSILON),
        seed=seed,
    )
    assert report.search is not None
    best = next((each.arguments for each in report.overall() if each.name == report.search.promoted), None)
    return report, own if best is None else Setting(f"{report.search.promoted}", best, derives=False)


def share_of(setting: Setting, scenes: Sequence[Scene], full: Sequence[Played]) -> float:
    """Tell how much of what full labels reach a setting does by itself."""
    return mean(play(scene, setting).share(labels.value) for scene, labels in zip(scenes, full, strict=True))
