"""The row about numbers with intervals: what they cost a decision, beside the same decision without."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.bodies import bodies
from benchmarks.report import Row
from rankward.api.schema.ranking import read_rank
from rankward.ranking.decide import RankRequest, decide
from rankward.ranking.features import FeatureBounds
from rankward.records import Bins, Interaction, Interactions, LearningMode
from rankward.settings import Limits
from rankward.vw.bins import settle
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED, derive_interactions, learner_arguments, namespace_letters

_REQUESTS = 200


def binning(quick: bool) -> Iterator[Row]:
    """Scoring with intervals and without in turn, within one process: three numbers in the context, two per action."""
    limits, bounds = Limits(), FeatureBounds()
    for actions in (10, 50):
        texts = itertools.islice(bodies(actions, 5, seed=1), _REQUESTS)
        requests = [read_rank(text, limits=limits, bounds=bounds)[0] for text in texts]
        raw, binned = _taught(requests, None), _taught(requests, settle(map(_decided, requests)))
        runs = [(_taken_us(requests, binned), _taken_us(requests, raw)) for _ in range(3 if quick else 15)]
        with_bins, without = (median(part) for part in zip(*runs, strict=True))
        yield Row(
            f"scoring {actions} actions with numbers=bins, against numbers=raw",
            f"{with_bins:.0f} µs",
            f"{without:.0f} µs",
            f"{with_bins / without:.2f}",
            "none",
            None,
        )


def _decided(request: RankRequest) -> Interaction:
    return decide(request, None, loop_id="bench", mode=LearningMode.ONLINE, exploration=0.0, reward_wait_us=0)


def _taught(requests: list[RankRequest], bins: Bins | None) -> Learner:
    letters = namespace_letters(requests[0].context, requests[0].actions)
    arguments = learner_arguments(BALANCED.policy().text, Interactions(*derive_interactions(*letters)), 0.02)
    learner = Learner(arguments, bins=bins)
    rng = random.Random(3)
    for each in requests:
        chosen = rng.randrange(len(each.actions))
        learner.learn(each.context, each.actions, chosen=chosen, probability=0.1, reward=rng.random())
    return learner


def _taken_us(requests: list[RankRequest], learner: Learner) -> float:
    """Score all requests. Returns what one took on average, in microseconds."""
    begun = time.perf_counter()
    for each in requests:
        learner.pmf(each.context, each.actions)
    return (time.perf_counter() - begun) / len(requests) * 1e6
