"""Whether estimates and intervals keep their promises, and how fast policies are judged: `make bench-evaluation`.

The population is scikit-learn's digits: a policy that was fitted to 60 rows logs with an epsilon of 0.2, and a greedy
one that was fitted to more is judged; its true value is known. Nothing is asserted: read the table.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from benchmarks.pipeline import finish, start
from benchmarks.planted import importance
from benchmarks.rated import rate
from benchmarks.report import Row, at_least, at_most, describe_machine, say, show
from benchmarks.searching import promotion
from rankward.dsjson.write import write_line
from rankward.evaluation.contrast import Contrast, Decisions, Floats, Indexes, contrast
from rankward.evaluation.estimators import Sums, cressie_read, empirical_likelihood, ips, snips
from rankward.evaluation.files import LogFiles
from rankward.evaluation.intervals import Betting, Bounds, PairedSums, cressie_read_interval, gaussian_half_width
from rankward.evaluation.judge import Judge, RewardRange
from rankward.evaluation.replay import SETTLED_BY, Setup, derived_interactions
from rankward.evaluation.service import custom, evaluate
from rankward.joining.reward import RewardDefinition
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import (
    Action,
    AnyInteraction,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
)
from rankward.settings import Aggregation
from rankward.simulate.worlds import make_world
from rankward.vw.presets import BALANCED, learner_arguments

ACTIONS = 10
EPSILON = 0.2
LOOKS = 16
MINUTE_US = 60_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


class Population(NamedTuple):
    """Rows of which every action's reward is known."""

    labels: Indexes
    logging: Indexes  # first choice of the policy that logs
    target: Indexes  # choice of the policy that is judged

    @property
    def value(self) -> float:
        """What the target is worth."""
        return float((self.target == self.labels).mean())

    @property
    def difference(self) -> float:
        """By how much it is better than the policy that logs."""
        right = float((self.logging == self.labels).mean())
        return self.value - ((1 - EPSILON) * right + EPSILON / ACTIONS)


class Log(NamedTuple):
    """Decisions, and what the target makes of them."""

    decisions: Decisions
    p_target: Floats

    def part(self, begin: int, end: int) -> Log:
        """Take a stretch of it."""
        one, low, high = self.decisions, begin * ACTIONS, end * ACTIONS
        return Log(
            Decisions(
                one.p_log[low:high],
                one.starts[begin:end] - low,
                one.chosen[begin:end] - low,
                one.rewards[begin:end],
                one.upweights[begin:end],
            ),
            self.p_target[low:high],
        )

    @property
    def weights(self) -> Floats:
        """The target's."""
        found: Floats = self.p_target[self.decisions.chosen] / self.decisions.p_log[self.decisions.chosen]
        return found

    def contrasts(self) -> tuple[Contrast, Contrast]:
        """The target by itself, and against the policy that logs."""
        one = self.decisions
        return contrast(one, self.p_target), contrast(one, self.p_target, one.p_log)


def digits() -> Population:
    """Fit two policies to digits, and apply them to the rows they have not seen."""
    data, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    data, labels = data[order], labels[order]
    fitted = len(labels) // 5
    weak = LogisticRegression(max_iter=200).fit(data[:60], labels[:60])
    strong = LogisticRegression(max_iter=200).fit(data[:fitted], labels[:fitted])
    rest = data[fitted:]
    return Population(labels[fitted:], weak.predict(rest), strong.predict(rest))


def draw(population: Population, events: int, rng: np.random.Generator) -> Log:
    """Draw a log."""
    picked, rows = rng.integers(0, len(population.labels), events), np.arange(events)
    p_log = np.full((events, ACTIONS), EPSILON / ACTIONS)
    p_log[rows, population.logging[picked]] += 1 - EPSILON
    p_target = np.zeros((events, ACTIONS))
    p_target[rows, population.target[picked]] = 1.0
    explored = rng.random(events) < EPSILON
    taken = np.where(explored, rng.integers(0, ACTIONS, events), population.logging[picked])
    rewards = (taken == population.labels[picked]).astype(np.float64)
    decisions = Decisions(p_log.ravel(), rows * ACTIONS, rows * ACTIONS + taken, rewards, np.ones(events))
    return Log(decisions, p_target.ravel())


def holds(bounds: Bounds | None, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return bounds is not None and bounds.low <= truth <= bounds.high


def fixed_length(quick: bool) -> Iterator[Row]:
    """Coverage of the intervals for a log of fixed length."""
    population, rng = digits(), np.random.default_rng(1)
    for events in (250, 1_000, 4_000) if quick else (250, 1_000, 4_000, 16_000):
        logs = 300 if quick else 2_000
        covered = paired = gaussian = 0
        widths = []
        for _ in range(logs):
            log = draw(population, events, rng)
            sums, against = Sums(), PairedSums()
            sums.add(log.weights, log.decisions.rewards, log.decisions.upweights)
            against.add(log.contrasts()[1], log.decisions.rewards, log.decisions.upweights)
            bounds = cressie_read_interval(sums)
            assert bounds is not None
            covered += holds(bounds, population.value)
            paired += holds(against.interval(), population.difference)
            gaussian += abs((ips(sums) or 0.0) - population.value) <= gaussian_half_width(sums)
            widths.append(bounds.high - bounds.low)
        yield Row(
            f"fixed-length interval covers, {events:,} events, {logs:,} logs",
            f"{covered / logs:.3f} (width {np.mean(widths):.3f}), of a difference {paired / logs:.3f}",
            f"the contract's Gaussian: {gaussian / logs:.3f}",
            "",
            "at least 0.94",
            min(covered, paired) / logs >= 0.94,
        )


def every_look(quick: bool) -> Iterator[Row]:
    """How often the interval to decide by is ever wrong while a log grows."""
    population, rng = digits(), np.random.default_rng(2)
    logs, events = (60, 4_000) if quick else (400, 4_000)
    wrong, wrong_paired, widths, lengths = 0, 0, [], []
    for _ in range(logs):
        log, value, difference = draw(population, events, rng), Betting(), Betting()
        missed = missed_paired = False
        for begin in range(0, events, events // LOOKS):
            part = log.part(begin, begin + events // LOOKS)
            alone, against = part.contrasts()
            value.add(alone, part.decisions.rewards, part.decisions.upweights)
            difference.add(against, part.decisions.rewards, part.decisions.upweights)
            bounds, paired = value.bounds(), difference.bounds()
            missed |= not holds(bounds, population.value)
            missed_paired |= not holds(paired, population.difference)
        wrong, wrong_paired = wrong + missed, wrong_paired + missed_paired
        widths.append(bounds.high - bounds.low)
        lengths.append(paired.high - paired.low)
    width = float(np.mean(widths))
    yield Row(
        f"decision interval ever wrong at {LOOKS} looks, {events:,} events, {logs} logs",
        f"{wrong / logs:.3f}, of a difference {wrong_paired / logs:.3f}",
        "",
        "",
        "at most 0.05",
        max(wrong, wrong_paired) / logs <= 0.05,
    )
    yield Row(
        "its width at the end",
        f"{width:.3f}, of a difference {np.mean(lengths):.3f}",
        "",
        "",
        "at most 0.18",
        width <= 0.18,
    )


def headline(quick: bool) -> Iterator[Row]:
    """The error of the estimate that reports show."""
    population, rng = digits(), np.random.default_rng(3)
    logs, events = (100, 4_000) if quick else (500, 4_000)
    errors: dict[str, list[float]] = {}
    for _ in range(logs):
        log, sums = draw(population, events, rng), Sums()
        sums.add(log.weights, log.decisions.rewards, log.decisions.upweights)
        likelihood = empirical_likelihood(log.weights, log.decisions.rewards)
        for name, estimate in (
            ("headline", cressie_read(sums)),
            ("likelihood", likelihood),
            ("IPS", ips(sums)),
            ("SNIPS", snips(sums)),
        ):
            assert estimate is not None
            errors.setdefault(name, []).append((estimate - population.value) ** 2)
    rmse = {name: float(np.sqrt(np.mean(found))) for name, found in errors.items()}
    yield Row(
        f"error (RMSE) of the headline, {events:,} events, {logs} logs",
        f"{rmse['headline']:.4f}",
        f"empirical likelihood {rmse['likelihood']:.4f}, IPS {rmse['IPS']:.4f}, SNIPS {rmse['SNIPS']:.4f}",
        *at_most(rmse["headline"], rmse["likelihood"], 1.05),
    )


def arithmetic(quick: bool) -> Iterator[Row]:
    """Estimates and intervals of many policies, predictions given, on one core."""
    policies, events, block = 20, 100_000 if quick else 1_000_000, 1_000
    log = draw(digits(), block, np.random.default_rng(4))
    judges = [Judge(RewardRange(0.0, 1.0)) for _ in range(policies)]
    started = time.process_time()
    for number in range(events // block):
        times_us = START_US + (np.arange(block) + number * block) * (MINUTE_US // 60)
        for judge in judges:
            judge.add(log.p_target, log.decisions, log.decisions.rewards, times_us)
    found = [(judge.estimate(), judge.against_online(), judge.diagnostics()) for judge in judges]
    seconds = (time.process_time() - started) * 1_000_000 / events
    assert all(each[0] is not None for each in found)
    yield Row(
        f"{policies} policies x 1 M events of {ACTIONS} actions, predictions given, one core",
        f"{seconds:.0f} s of CPU" + ("" if events == 1_000_000 else f" (from {events:,} events)"),
        "",
        "",
        "at most 90 s",
        seconds <= 90,
    )


def replay(quick: bool) -> Iterator[Row]:
    """Policies that learn along a log, against the learner reading it by itself as often, on as many cores."""
    events, policies, runs = (10_000, 4, 1) if quick else (50_000, 8, 3)
    definition = RewardDefinition(0.0, Aggregation.EARLIEST)
    with tempfile.TemporaryDirectory(prefix="rankward-") as folder:
        file = Path(folder) / "clicks.dsjson"
        first: list[AnyInteraction] = []
        with file.open("w") as lines:
            for event in clicks(events):
                lines.write(write_line(event, definition) + "\n")
                if len(first) < SETTLED_BY:
                    first.append(event.interaction)
        candidates = [custom(f"policy {n}", BALANCED.name, exploration=0.02) for n in range(policies)]
        setup = Setup(rewards=definition, export_us=MINUTE_US)
        source = LogFiles(paths=(file,), reward_wait_us=10 * MINUTE_US)
        arguments = learner_arguments(BALANCED.arguments, derived_interactions(first), 0.02)
        ours_s, alone_s, ours_cpu_s, alone_cpu_s = [], [], [], []
        for _ in range(runs):
            started, cpu_s = time.perf_counter(), spent_s()
            evaluate(source, candidates, setup)
            ours_s.append(time.perf_counter() - started)
            ours_cpu_s.append(spent_s() - cpu_s)
            started, cpu_s = time.perf_counter(), spent_s()
            for _ in range(policies // 2):
                pair = [start("vw", str(file), str(events), arguments) for _ in range(2)]
                for process in pair:
                    finish(process)
            alone_s.append(time.perf_counter() - started)
            alone_cpu_s.append(spent_s() - cpu_s)
    total = policies * events
    yield Row(
        f"{policies} policies along {events:,} events of 10 actions, 2 cores",
        f"{total / median(ours_s):,.0f} a second, {median(ours_cpu_s) / total * 1e6:.0f} µs of CPU each",
        f"vw by itself, as often: {total / median(alone_s):,.0f}, {median(alone_cpu_s) / total * 1e6:.0f} µs of CPU",
        *at_least(median(alone_s), median(ours_s), 0.8),
    )


def spent_s() -> float:
    """Tell how much CPU the processes took that this one has started, and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clicks(events: int) -> Iterator[JoinedEvent]:
    """A log of the world `clicks`, every choice uniform."""
    rng = np.random.default_rng(5)
    world, bounds = make_world("clicks"), FeatureBounds()
    for number, played in zip(range(events), world.rounds(rng), strict=False):
        actions = tuple(Action(name, check_action(msgspec.json.encode(made), bounds)) for name, made in played.actions)
        chosen = int(rng.integers(len(actions)))
        time_us = START_US + number * MINUTE_US // 60
        rewards = world.rewards(played, chosen, rng)
        yield JoinedEvent(
            offset=number,
            entry=JoinedEntry(
                number,
                time_us,
                time_us + 10 * MINUTE_US,
                tuple(JoinedObservation(number, time_us, value) for _, value in rewards),
            ),
            interaction=Interaction(
                event_id=f"e{number}",
                context=check_context(msgspec.json.encode(played.context), bounds),
                actions=actions,
                pmf=(1 / len(actions),) * len(actions),
                chosen=chosen,
                learning_mode=LearningMode.ONLINE,
                reward_wait_us=10 * MINUTE_US,
            ),
        )


GROUPS = {
    "fixed": fixed_length,
    "looks": every_look,
    "headline": headline,
    "arithmetic": arithmetic,
    "replay": replay,
    "promotion": promotion,
    "importance": importance,
    "rate": rate,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description="Measure evaluations.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which to measure: {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="fewer logs and events: a minute or two")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(GROUPS)
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}: one of {', '.join(GROUPS)}")
    print(describe_machine(), flush=True)
    rows = []
    for name in arguments.rows or GROUPS:
        for row in GROUPS[name](arguments.quick):
            say(row)
            rows.append(row)
    show(rows)


if __name__ == "__main__":
    main()
