"""What the service measures of itself, over all its processes, for Prometheus."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

from rankward.challenge.measure import Mean
from rankward.challenge.service import NOTE, ChallengingStatus
from rankward.cluster.standing import Standing
from rankward.optimization.desk import NOTE as OPTIMIZATION
from rankward.optimization.desk import OptimizationStatus
from rankward.optimization.watcher import read_watched
from rankward.store.ports import Catalog, ModelVersion
from rankward.training.service import TrainingStatus
from rankward.watching.comparison import LiveComparison, Value
from rankward.watching.service import NOTE as WATCHING
from rankward.watching.service import WatchingStatus
from rankward.worker import JoiningStatus

BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

request_seconds = Histogram(
    "rankward_request_seconds",
    "Time from a request's first byte read to its answer, in seconds.",
    ["operation"],
    buckets=BUCKETS_S,
)
requests_total = Counter("rankward_requests_total", "Answers given.", ["loop", "operation", "status"])
errors_total = Counter(
    "rankward_errors_total", "Answers that were errors, by the contract's code.", ["operation", "code"]
)
model_load_seconds = Histogram(
    "rankward_model_load_seconds", "Time to load a published model, in seconds.", buckets=BUCKETS_S
)


# To find a metric by its labels takes as long as to count with it.
seconds_of = lru_cache(maxsize=256)(request_seconds.labels)
count_of = lru_cache(maxsize=4_096)(requests_total.labels)


class LoopCollector:
    """Figures of every loop, read from the notes of the worker when they are asked for; and how the node stands."""

    def __init__(
        self,
        catalog: Catalog,
        read_notes: Callable[[str], Mapping[str, bytes]],
        clock: Callable[[], int],
        standing: Callable[[], Standing | None],
    ) -> None:
        self._catalog = catalog
        self._read_notes = read_notes
        self._clock = clock
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        """Collect the figures now."""
        events = GaugeMetricFamily(
            "rankward_events", "Events of a loop, by what became of them.", labels=["loop", "state"]
        )
        lag = GaugeMetricFamily(
            "rankward_join_lag_seconds", "Age of the oldest entry not read by joining.", labels=["loop"]
        )
        unread = GaugeMetricFamily("rankward_join_queue", "Entries that joining has not read.", labels=["loop"])
        unlearned = GaugeMetricFamily("rankward_train_queue", "Joined events not learned.", labels=["loop"])
        rate = GaugeMetricFamily("rankward_train_rate", "Events learned per second.", labels=["loop"])
        age = GaugeMetricFamily("rankward_model_age_seconds", "Time since the serving model was made.", labels=["loop"])
        aside = GaugeMetricFamily("rankward_set_aside", "Events that learning passes over.", labels=["loop"])
        ahead = GaugeMetricFamily(
            "rankward_challenger_ahead",
            "By how much a challenger would have earned more than was served: the estimate, and the ends of an "
            "interval that holds at every look.",
            labels=["loop", "challenger", "figure"],
        )
        unjudged = GaugeMetricFamily(
            "rankward_challenger_queue",
            "Joined events that a challenger has not been judged by.",
            labels=["loop", "challenger"],
        )
        runs = GaugeMetricFamily("rankward_optimizations", "Runs of automatic optimization.", labels=["loop", "state"])
        gained = GaugeMetricFamily(
            "rankward_optimization_gain",
            "By how much the policy that an optimization applied earns more than the one that it replaced, while it is "
            "watched: the estimate, and the ends of an interval that holds at every look.",
            labels=["loop", "figure"],
        )
        uncounted = GaugeMetricFamily("rankward_watch_queue", "Joined events not in the figures.", labels=["loop"])
        reward = GaugeMetricFamily(
            "rankward_reward",
            "Mean reward per event since the settings were edited, of `online`, `baseline` or `uniform`: the estimate, "
            "and the ends of an interval that holds at every look.",
            labels=["loop", "policy", "figure"],
        )
        over = GaugeMetricFamily(
            "rankward_reward_over",
            "By how much the mean reward of the policy that acts is above that of `baseline` or `uniform`. It is "
            "better beyond doubt where `low` is above 0.",
            labels=["loop", "policy", "figure"],
        )
        match = GaugeMetricFamily(
            "rankward_apprentice_match",
            "Share of an apprentice's last 1,000 events in which it drew what was shown.",
            labels=["loop"],
        )
        achieved = GaugeMetricFamily(
            "rankward_apprentice_achieved",
            "Share of the baseline's reward that fell to those events.",
            labels=["loop"],
        )
        lacks = GaugeMetricFamily(
            "rankward_replica_queue",
            "Messages of a loop that this node's replica lacks, in a cluster.",
            labels=["loop"],
        )
        leads = GaugeMetricFamily(
            "rankward_lead", "1 for the node whose worker leads a loop, in a cluster.", labels=["loop", "node"]
        )
        workers = GaugeMetricFamily("rankward_workers", "Workers that are alive, as this node of a cluster sees it.")
        cut_off = GaugeMetricFamily(
            "rankward_cut_off", "1 while this node of a cluster does not reach the JetStream servers."
        )
        now_us = self._clock()
        standing = self._standing()
        if standing is not None:
            workers.add_metric([], len(standing.workers))
            cut_off.add_metric([], standing.cut_off)
            held = self._catalog.leads()
        for loop in self._catalog.loops():
            if standing is not None:
                lacks.add_metric([loop.name], standing.behind.get(loop.loop_id, 0))
                if loop.loop_id in held and held[loop.loop_id].holder:
                    leads.add_metric([loop.name, held[loop.loop_id].holder], 1)
            notes = self._read_notes(loop.loop_id)
            if OPTIMIZATION in notes:
                for state, count in msgspec.json.decode(notes[OPTIMIZATION], type=OptimizationStatus).runs.items():
                    runs.add_metric([loop.name, state], count)
            watched = read_watched(notes)
            if watched is not None and watched.difference is not None:
                for figure, value in (("estimate", watched.difference), ("low", watched.low), ("high", watched.high)):
                    gained.add_metric([loop.name, figure], value)
            joining, training = read_statuses(notes)
            if joining is not None:
                for state, count in joining.counts.items():
                    events.add_metric([loop.name, state], count)
                behind = joining.end - joining.head
                unread.add_metric([loop.name], behind)
                lag.add_metric([loop.name], (now_us - joining.now_us) / 1e6 if behind else 0.0)
            watching = read_watching(notes)
            if watching is not None:
                uncounted.add_metric([loop.name], watching.behind)
                for family, policy, known in _compared(watching.comparison, reward, over):
                    for figure, number in (("estimate", known.value), ("low", known.low), ("high", known.high)):
                        family.add_metric([loop.name, policy, figure], number)
                if watching.apprentice is not None:
                    match.add_metric([loop.name], watching.apprentice.match)
                    if watching.apprentice.achieved is not None:
                        achieved.add_metric([loop.name], watching.apprentice.achieved)
            for status in training:
                unlearned.add_metric([loop.name], status.joined_end - status.joined_offset)
                rate.add_metric([loop.name], status.rate_per_s)
            challenging = read_challenging(notes)
            if challenging is not None:
                for each in challenging.challengers.values():
                    unjudged.add_metric([loop.name, each.name], challenging.joined_end - each.asked_to)
                    for figure, value in _figures(each.standing.ahead):
                        ahead.add_metric([loop.name, each.name, figure], value)
            serving = find_version(self._catalog.versions(loop.loop_id), loop.model_id)
            if serving is not None:
                age.add_metric([loop.name], (now_us - serving.created_us) / 1e6)
            aside.add_metric([loop.name], len(self._catalog.set_asides(loop.loop_id)))
        earned = [uncounted, reward, over, match, achieved]
        node = [lacks, leads, workers, cut_off]
        return [events, lag, unread, unlearned, rate, age, aside, ahead, unjudged, runs, gained, *earned, *node]


def _figures(mean: Mean | None) -> Sequence[tuple[str, float]]:
    return () if mean is None else (("estimate", mean.value), ("low", mean.always.low), ("high", mean.always.high))


def read_challenging(notes: Mapping[str, bytes]) -> ChallengingStatus | None:
    """Read how far a loop's challengers are. None: it has none, or their process does not run."""
    return msgspec.json.decode(notes[NOTE], type=ChallengingStatus) if NOTE in notes else None


def _compared(
    comparison: LiveComparison | None, reward: GaugeMetricFamily, over: GaugeMetricFamily
) -> list[tuple[GaugeMetricFamily, str, Value]]:
    """List what a comparison knows, with the metric and policy that it goes to."""
    if comparison is None:
        return []
    known = [
        (reward, "online", comparison.online),
        (reward, "baseline", comparison.baseline or comparison.shown),
        (reward, "uniform", comparison.uniform),
        (over, "baseline", comparison.over_baseline),
        (over, "uniform", comparison.over_uniform),
    ]
    return [(family, policy, value) for family, policy, value in known if value is not None]


def read_watching(notes: Mapping[str, bytes]) -> WatchingStatus | None:
    """Read from a loop's notes how far its figures go. None: nobody has kept any yet."""
    note = notes.get(WATCHING)
    return None if note is None else msgspec.json.decode(note, type=WatchingStatus)


def read_statuses(notes: Mapping[str, bytes]) -> tuple[JoiningStatus | None, list[TrainingStatus]]:
    """Read a loop's notes: how far joining is, and each epoch's training, newest epoch last."""
    joining = notes.get("joining")
    training = [
        msgspec.json.decode(note, type=TrainingStatus) for name, note in notes.items() if name.startswith("training-")
    ]
    return (
        msgspec.json.decode(joining, type=JoiningStatus) if joining else None,
        sorted(training, key=lambda status: status.epoch_id),
    )


def find_version(versions: Iterable[ModelVersion], model_id: str | None) -> ModelVersion | None:
    """Find a version by its id."""
    return next((version for version in versions if version.model_id == model_id), None)


def exposition(collector: LoopCollector) -> bytes:
    """Write all metrics, of all processes, in Prometheus' text format."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(collector)
    return generate_latest(registry)


class RequestLog:
    """One line of JSON for each request, without bodies, keys, ids or features."""

    def __init__(self, target: Path | TextIO | None) -> None:
        """Open the log.

        Args:
            target: a file, which is turned over at 16 MB; a stream; or None: nothing is written.
        """
        self._lines: list[bytes] = []
        self._handler: logging.Handler | None = None
        if isinstance(target, Path):
            self._handler = RotatingFileHandler(target, maxBytes=16_000_000, backupCount=2, delay=True)
        elif target is not None:
            self._handler = logging.StreamHandler(target)

    def write(self, *, loop: str, operation: str, status: int, seconds: float, request_id: str, code: str) -> None:
        """Note one request. It is written with the next flush."""
        if self._handler is None:
            return
        line = {
            "time": round(time.time(), 3),
            "loop": loop,
            "operation": operation,
            "status": status,
            "ms": round(seconds * 1e3, 3),
            "request": request_id,
        }
        if code:
            line["code"] = code
        self._lines.append(msgspec.json.encode(line))

    def flush(self) -> None:
        """Write what was noted."""
        if self._handler is None or not self._lines:
            return
        text = b"\n".join(self._lines).decode()
        self._lines.clear()
        self._handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, text, None, None))
