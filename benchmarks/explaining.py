"""The row about explained Rank: what an explanation costs beside the learner's own scoring of the same request."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.bodies import bodies
from benchmarks.report import Row
from rankward.api.schema.ranking import read_rank
from rankward.ranking.decide import RankRequest
from rankward.ranking.features import FeatureBounds
from rankward.records import Interactions
from rankward.settings import Limits
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED, derive_interactions, learner_arguments, namespace_letters

_REQUESTS = 200


def explaining(quick: bool) -> Iterator[Row]:
    """Scoring and explaining in turn, within one process."""
    limits, bounds = Limits(), FeatureBounds()
    for actions in (10, 50):
        texts = itertools.islice(bodies(actions, 5, seed=1), _REQUESTS)
        requests = [read_rank(text, limits=limits, bounds=bounds)[0] for text in texts]
        learner = _taught(requests)
        runs = [_taken_us(requests, learner) for _ in range(3 if quick else 9)]
        scored, explained = (median(part) for part in zip(*runs, strict=True))
        yield Row(
            f"explaining a decision, {actions} actions, against scoring it",
            f"{explained:.0f} µs",
            f"{scored:.0f} µs",
            f"{explained / scored:.1f}",
            "none",
            None,
        )


def _taught(requests: list[RankRequest]) -> Learner:
    letters = namespace_letters(requests[0].context, requests[0].actions)
    arguments = learner_arguments(BALANCED.policy().text, Interactions(*derive_interactions(*letters)), 0.02)
    learner = Learner(arguments)
    rng = random.Random(3)
    for each in requests:
        chosen = rng.randrange(len(each.actions))
        learner.learn(each.context, each.actions, chosen=chosen, probability=0.1, reward=rng.random())
    return learner


def _taken_us(requests: list[RankRequest], learner: Learner) -> tuple[float, float]:
    """Score all requests, then explain them. Returns what each took on average, in microseconds."""
    begun = time.perf_counter()
    for each in requests:
        learner.pmf(each.context, each.actions)
    scored = time.perf_counter()
    for each in requests:
        learner.explain(each.context, each.actions, 0)
    explained = time.perf_counter()
    return (scored - begun) / len(requests) * 1e6, (explained - scored) / len(requests) * 1e6
