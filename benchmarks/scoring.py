"""The learner by itself: prints how many microseconds its binding's lower layer takes for a measurement's requests.

Everything is parsed anew for each, as by whoever calls the learner without keeping anything.

Run as a program: the number of actions, a core to run on, the learner's arguments, a model file.
"""

from __future__ import annotations

import itertools
import os
import sys
import time

from vowpalwabbit import Workspace

from benchmarks.bodies import bodies
from rankward.api.schema.ranking import read_rank
from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits
from rankward.vw.parser import context_text


def main(actions: str, cpu: str, arguments: str, model: str) -> None:
    """Measure for about a second."""
    os.sched_setaffinity(0, [int(cpu)])
    workspace = Workspace(f"{arguments} --json --quiet -i {model}")
    limits, bounds = Limits(), FeatureBounds()
    texts = itertools.islice(bodies(int(actions), 5, seed=1), 512)
    requests = [read_rank(body, limits=limits, bounds=bounds)[0] for body in texts]
    taken = []
    for _ in range(max(1, 100 // int(actions))):
        started = time.perf_counter()
        for request in requests:
            examples = workspace._parse(context_text(request.context, request.actions))
            workspace.predict_multi(examples)
            examples[0].get_action_scores()
            workspace._finish_example_multi_ex(examples)
        taken.append(time.perf_counter() - started)
    print(min(taken) / len(requests) * 1e6 if len(taken) == 1 else sorted(taken)[len(taken) // 2] / len(requests) * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
