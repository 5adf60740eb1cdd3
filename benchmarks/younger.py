"""What younger models gain where preferences change all at once, and cost where they do not.

    python -m benchmarks.younger [--seeds N]

Decides and learns as `benchmarks.learning` does, the model that serves learning each event at once; the rule by which a
younger one takes over is the service's own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.learning import LOOP, Played, Scene, Served, Setting, arguments_of, learn, set_scene, world_scene
from rankward.challenge.younger import LOOK_EVERY, SPACING, Newest, successor, superfluous
from rankward.evaluation.judge import RewardRange
from rankward.ranking.decide import decide
from rankward.ranking.explore import check_pmf, floored
from rankward.records import LearningMode
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED

EVENTS = 12_000
SWITCH_EVERY = 3_000
LAST = 3_000
SET = "made, 4 classes"


class Model(NamedTuple):
    """A model on its way through a scene."""

    born: int  # number of the first event that it learned
    learner: Learner
    newest: Newest


class Run(NamedTuple):
    """What came of a scene."""

    played: Played
    takeovers: int


def play(scene: Scene, setting: Setting, *, younger_models: bool) -> Run:
    """Decide and learn every event of a scene, in order, as a loop does that has younger models or has not."""
    arguments, exploration = arguments_of(setting, scene)

    def begin(born: int) -> Model:
        return Model(born, Learner(arguments), Newest(RewardRange(0.0, 1.0)))

    serving, younger = begin(0), list[Model]()
    eldest = takeovers = 0
    value = np.empty(len(scene.requests))
    for number, (request, means, rewards) in enumerate(zip(*scene, strict=True)):
        if younger_models and number and number % SPACING == 0:
            younger.append(begin(number))
            ages = [float(number + SPACING - born) for born in (eldest, *(each.born for each in younger))]
            if (index := superfluous(ages)) is not None:
                younger.pop(index - 1).learner.close()
        interaction = decide(
            request,
            Served(serving.learner),
            loop_id=LOOP,
            mode=LearningMode.ONLINE,
            exploration=exploration,
            reward_wait_us=0,
        )
        value[number] = np.dot(interaction.pmf, means)
        chosen, reward = interaction.chosen, float(rewards[interaction.chosen])
        for each in younger:
            pmf = floored(
                check_pmf(each.learner.pmf(request.context, request.actions), len(interaction.pmf)), exploration
            )
            each.newest.add(p_target=pmf[chosen], p_log=interaction.pmf[chosen], reward=reward)
        for each in (serving, *younger):
            learn(each.learner, interaction, reward)
        if number % LOOK_EVERY == 0 and (best := successor([each.newest.lead for each in younger])) is not None:
            serving.learner.close()
            serving, eldest, takeovers = younger[best], younger[best].born, takeovers + 1
            for each in younger[:best]:
                each.learner.close()
            younger = [each._replace(newest=Newest(RewardRange(0.0, 1.0))) for each in younger[best + 1 :]]
    for each in (serving, *younger):
        each.learner.close()
    uniform, best_means = np.array([m.mean() for m in scene.means]), np.array([m.max() for m in scene.means])
    return Run(Played(value, uniform, best_means, np.ones(len(value))), takeovers)


def shuffled(seed: int, *, switches: bool) -> Scene:
    """Stage a noise-free set again and again; with switches, which label is right is shuffled now and then."""
    once = set_scene(SET, seed=seed)
    rng = np.random.default_rng(seed)
    labels = len(once.means[0])
    order: NDArray[np.int64] = np.arange(labels)
    scene = Scene([], [], [])
    for number in range(EVENTS):
        if switches and number and number % SWITCH_EVERY == 0:
            before = order
            while (order == before).any():
                order = rng.permutation(labels)
        row = int(rng.integers(len(once.requests)))
        request = once.requests[row]
        scene.requests.append(msgspec.structs.replace(request, event_id=f"{seed}-{number}"))
        scene.means.append(once.means[row][order])
        scene.rewards.append(once.rewards[row][order])
    return scene


SCENES: dict[str, Callable[[int], Scene]] = {
    f"{SET}, three switches": lambda seed: shuffled(seed, switches=True),
    f"{SET}, none": lambda seed: shuffled(seed, switches=False),
    "drift, three switches": lambda seed: world_scene("drift", EVENTS, seed=seed),
    "drift, noise .3, three switches": lambda seed: world_scene("drift", EVENTS, seed=seed, noise=0.3),
    "drift, none": lambda seed: world_scene("drift", EVENTS, seed=seed, stay=EVENTS),
    "drift, noise .3, none": lambda seed: world_scene("drift", EVENTS, seed=seed, noise=0.3, stay=EVENTS),
    "clicks of 5 %": lambda seed: world_scene("clicks", EVENTS, seed=seed, base_rate=0.05),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure what younger models gain and cost.")
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    start = time.monotonic()
    console = Console(width=160)
    table = Table(
        *("scene", "without", "its last quarter", "with", "its last quarter", "takeovers"),
        title=f"Younger models of `balanced`: share of the best action's mean, {EVENTS:,} events, {seeds} seed(s)",
    )
    setting = Setting.of(BALANCED)
    for name, stage in SCENES.items():
        cells = []
        scenes = [stage(seed) for seed in range(1, seeds + 1)]
        for younger_models in (False, True):
            runs = [play(scene, setting, younger_models=younger_models) for scene in scenes]
            late = [Played(*(part[-LAST:] for part in each.played)).share() for each in runs]
            cells += [f"{np.mean([each.played.share() for each in runs]):.3f}", f"{np.mean(late):.3f}"]
        table.add_row(name, *cells, " ".join(str(each.takeovers) for each in runs))
    console.print(table)
    console.print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
