"""The learner by itself: prints how many microseconds `Learner.pmf` takes for the requests of a measurement.

Run as a program: the number of actions, a core to run on, the policy, its derived interactions as JSON, a model file.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.bodies import bodies
from rankward.api.schema.ranking import read_rank
from rankward.ranking.features import FeatureBounds
from rankward.records import Interactions
from rankward.settings import Limits
from rankward.vw.learner import Learner
from rankward.vw.presets import learner_arguments


def main(actions: str, cpu: str, policy: str, interactions: str, model: str) -> None:
    """Measure for about a second."""
    os.sched_setaffinity(0, [int(cpu)])
    derived = msgspec.json.decode(interactions, type=Interactions | None)
    learner = Learner(learner_arguments(policy, derived, 0.02), Path(model).read_bytes())
    limits, bounds = Limits(), FeatureBounds()
    texts = itertools.islice(bodies(int(actions), 5, seed=1), 512)
    requests = [read_rank(body, limits=limits, bounds=bounds)[0] for body in texts]
    taken = []
    for _ in range(max(1, 100 // int(actions))):
        started = time.perf_counter()
        for request in requests:
            learner.pmf(request.context, request.actions)
        taken.append(time.perf_counter() - started)
    print(min(taken) / len(requests) * 1e6 if len(taken) == 1 else sorted(taken)[len(taken) // 2] / len(requests) * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
