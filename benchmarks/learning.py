"""How well, and how soon, the presets learn: `python -m benchmarks.learning`, or `make bench-learning`.

Everything goes the way of the service: features are checked, `ranking.decide.decide` chooses (floor included)
and a `Learner` is told what the chosen action earned, as the trainer does it. No HTTP and no store: the measure
is what is learned from so many events. The reward of every action is known, so what is measured is the mean
reward of the probabilities, before the event is learned; the draw decides only what is learned.

A share is (reward - uniform) / (reference - uniform). The reference is the same linear model told the reward of
every action, greedy, in the same order of events; where rewards are drawn, the best action's mean as well.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn import datasets
from vowpalwabbit import Workspace

from rankward.ranking.decide import Policy, RankRequest, decide
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import Action, Bins, Features, Interaction, Interactions, LearningMode, ModelId, Rate
from rankward.settings import Numbers
from rankward.simulate.world import FeatureObjects, Round
from rankward.simulate.worlds import make_world
from rankward.vw import bins
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner
from rankward.vw.parser import Lesson
from rankward.vw.presets import (
    BALANCED,
    CHANGING,
    PERSONALIZER,
    PLAIN,
    PRESETS,
    Preset,
    derive_interactions,
    learner_arguments,
    namespace_letters,
)
from rankward.vw.rates import EVENTS_MAX, RATES, STEADY, choose_rate, measure, next_check

Floats = NDArray[np.float64]
LOOP = "bench"
_P_MIN = 1e-9  # what is driven directly may have probabilities of 0


# What is measured.


class Setting(NamedTuple):
    """A policy, and how it is used."""

    name: str
    policy: str
    derives: bool = True  # whether it pairs context with action namespaces, and those only
    floor: bool = True  # False: driven directly; probabilities are only made to sum to 1
    derives_rate: bool = False  # whether the noise of its rewards may change its rate
    numbers: Numbers = Numbers.RAW  # what it sees of them

    @classmethod
    def of(cls, preset: Preset) -> Setting:
        """Make the setting of a preset, as a new loop has it."""
        return cls(preset.name, preset.arguments, preset.derives_interactions, derives_rate=preset.derives_rate)


CB = "--cb_explore_adf --cb_type mtr"
LISTED = (
    Setting("epsilon .2, learner's rate, -q ::", f"{CB} --epsilon 0.2 -q ::", derives=False, floor=False),
    Setting("epsilon .2, learner's rate", f"{CB} --epsilon 0.2", floor=False),
    Setting("epsilon .05", f"{CB} --epsilon 0.05", floor=False),
    Setting("squarecb, gamma 10", f"{CB} --squarecb --gamma_scale 10 --epsilon 0.02", floor=False),
    Setting("squarecb, gamma 100, -l .1", f"{CB} --squarecb --gamma_scale 100 --epsilon 0.02 -l 0.1", floor=False),
    Setting("synthcover", f"{CB} --synthcover --epsilon 0", floor=False),
    Setting("regcbopt, mellowness .01", f"{CB} --regcbopt --mellowness 0.01", floor=False),
)


class Played(NamedTuple):
    """What came of a run, event by event: mean rewards, all of shape (N,)."""

    value: Floats  # of the probabilities drawn from
    uniform: Floats
    best: Floats
    weights: Floats  # mean square of p / p_log, for p an even choice: logged events that say as much of it as one

    def share(self, reference: Floats | None = None) -> float:
        """Tell how far from uniform to the reference it got. None: to the best action's mean."""
        reached = (self.best if reference is None else reference).mean() - self.uniform.mean()
        return float((self.value.mean() - self.uniform.mean()) / reached)


class Scene(NamedTuple):
    """Rounds as the learner meets them, with the rewards of every action drawn beforehand."""

    requests: list[RankRequest]
    means: list[Floats]
    rewards: list[Floats]

    @property
    def interactions(self) -> Interactions:
        """Derive them from the first event, which in these scenes shows every namespace."""
        first = self.requests[0]
        return Interactions(*derive_interactions(*namespace_letters(first.context, first.actions)))


def stage(rounds: Iterable[Round], rewards: Callable[[Round, int], float], *, seed: int) -> Scene:
    """Check the features of rounds and draw the reward of every action."""
    scene = Scene([], [], [])
    for number, played in enumerate(rounds):
        scene.requests.append(
            RankRequest(
                event_id=f"{seed}-{number}",
                context=_context(msgspec.json.encode(played.context)),
                actions=tuple(_action(name, msgspec.json.encode(features)) for name, features in played.actions),
            )
        )
        scene.means.append(played.means)
        scene.rewards.append(np.array([rewards(played, index) for index in range(len(played.actions))]))
    return scene


BOUNDS = FeatureBounds()


@lru_cache(maxsize=4096)
def _context(raw: bytes) -> Features:
    return check_context(raw, BOUNDS)


@lru_cache(maxsize=4096)
def _action(action_id: str, raw: bytes) -> Action:
    return Action(action_id, check_action(raw, BOUNDS))


class Served:
    """A learner as the policy of a loop."""

    model_id: ModelId = "bench"

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give the learner's probabilities."""
        return self.learner.pmf(context, actions)


class Trainer:
    """A learner that is begun anew where the events ask for another rate, as an epoch is."""

    model_id: ModelId = "bench"

    def __init__(self, scene: Scene, setting: Setting, arguments: str) -> None:
        self.learner = Learner(arguments)
        self._interactions = scene.interactions if setting.derives else None
        self._setting = setting
        self._rate: Rate | None = None
        self._lessons: list[Lesson] = []
        self._check = next_check(0)
        self.bins: Bins | None = None
        self._decided: list[Interaction] = []  # the newest
        self._numbers_check = bins.EVENTS_MIN

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give the learner's probabilities."""
        return self.learner.pmf(context, actions)

    def learn(self, interaction: Interaction, reward: float) -> None:
        """Learn an event; and every event so far anew, with another rate or with intervals, if they ask for that."""
        lesson = Lesson(
            interaction.context, interaction.actions, interaction.chosen, interaction.pmf[interaction.chosen], reward
        )
        self.learner.learn_from(lesson)
        cuts = self._setting.numbers is Numbers.BINS
        if not self._setting.derives_rate and not cuts:
            return
        self._lessons.append(lesson)
        learned = len(self._lessons)
        if cuts:
            self._decided = [*self._decided[1 - bins.EVENTS_MAX :], interaction]
            if learned >= self._numbers_check:
                self._numbers_check = 2 * learned
                found = bins.settle(self._decided)
                if bins.lacks(self.bins or bins.settle([]), found):
                    self.bins = found
                    self._begin_anew()
        if self._setting.derives_rate and learned >= self._check:
            self._check = next_check(learned)
            newest = self._lessons[-EVENTS_MAX:]
            errors = measure(self._setting.policy, self._interactions, newest, self.bins)
            rate = choose_rate(errors, self._rate, learned=learned)
            if rate is not None:
                self._rate = rate
                self._begin_anew()

    def _begin_anew(self) -> None:
        policy = self._setting.policy
        self.learner.close()
        arguments = learner_arguments(policy, self._interactions, _epsilon(policy), self._rate)
        self.learner = Learner(arguments, bins=self.bins)
        for each in self._lessons:
            self.learner.learn_from(each)


def arguments_of(setting: Setting, scene: Scene) -> tuple[str, float]:
    """Write what the learner is given, and the exploration that goes with it."""
    exploration = _epsilon(setting.policy)
    return learner_arguments(setting.policy, scene.interactions if setting.derives else None, exploration), exploration


def play(scene: Scene, setting: Setting, *, every: int = 1, behind: int = 0) -> Played:
    """Decide and learn every event of a scene, in order.

    Args:
        scene: what happens.
        setting: who decides.
        every: events between two models served. 1: the learner itself decides.
        behind: events that a model, when it begins to serve, has not seen yet.
    """
    arguments, exploration = arguments_of(setting, scene)
    trainer = Trainer(scene, setting, arguments)
    policy: Policy | None = trainer if every == 1 and not behind else None
    waiting: deque[tuple[Interaction, float]] = deque()
    value, weights = np.empty(len(scene.requests)), np.empty(len(scene.requests))
    for number, (request, means, rewards) in enumerate(zip(*scene, strict=True)):
        if every > 1 and number and number % every == 0 and number > behind:
            policy = Served(Learner(trainer.learner.arguments, trainer.learner.save(), bins=trainer.bins))
        interaction = decide(
            request,
            policy,
            loop_id=LOOP,
            mode=LearningMode.ONLINE,
            exploration=exploration if setting.floor else 0.0,
            reward_wait_us=0,
        )
        value[number] = np.dot(interaction.pmf, means)
        weights[number] = np.mean(1 / np.maximum(interaction.pmf, _P_MIN)) / len(interaction.pmf)
        waiting.append((interaction, float(rewards[interaction.chosen])))
        if len(waiting) > behind:
            trainer.learn(*waiting.popleft())
    trainer.learner.close()
    return Played(value, *_bounds(scene), weights)


def learn(learner: Learner, interaction: Interaction, reward: float) -> None:
    """Tell a learner what a decision earned, as the trainer's fold does."""
    learner.learn(
        interaction.context,
        interaction.actions,
        chosen=interaction.chosen,
        probability=interaction.pmf[interaction.chosen],
        reward=reward,
    )


def play_full_labels(scene: Scene) -> Played:
    """Decide greedily with the same linear model, told the reward of every action."""
    learner = Learner(learner_arguments(f"{CB} --epsilon 0", scene.interactions, 0.0))
    value = np.empty(len(scene.requests))
    for number, (request, means, rewards) in enumerate(zip(*scene, strict=True)):
        count = len(request.actions)
        value[number] = np.dot(learner.pmf(request.context, request.actions), means)
        for index in range(count):
            learner.learn(
                request.context, request.actions, chosen=index, probability=1 / count, reward=float(rewards[index])
            )
    learner.close()
    return Played(value, *_bounds(scene), np.full(len(value), np.inf))


def _bounds(scene: Scene) -> tuple[Floats, Floats]:
    return np.array([m.mean() for m in scene.means]), np.array([m.max() for m in scene.means])


def _epsilon(policy: str) -> float:
    words = policy.split()
    return float(words[words.index("--epsilon") + 1]) if "--epsilon" in words else 0.0


# What it is measured on.


def world_scene(name: str, count: int, *, seed: int, **parameters: float) -> Scene:
    """Stage the first rounds of a world. Rewards are what a loop adds up: parts within the wait, 0 for none."""
    world = make_world(name, **parameters)
    wait_s = float(world.parameters.get("wait_s", 1.0))
    rng = np.random.default_rng([seed, 1])

    def reward(played: Round, index: int) -> float:
        return sum(value for delay_s, value in world.rewards(played, index, rng) if delay_s < wait_s)

    return stage(itertools.islice(world.rounds(np.random.default_rng(seed)), count), reward, seed=seed)


@cache
def noise_free_sets() -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """Return rows and labels of each set: those inside scikit-learn's wheel, and some made by it."""
    sets = {
        name: (bunch.data, bunch.target)
        for name, bunch in {
            "digits": datasets.load_digits(),
            "wine": datasets.load_wine(),
            "breast_cancer": datasets.load_breast_cancer(),
            "iris": datasets.load_iris(),
        }.items()
    }
    sets["digits, parity"] = (sets["digits"][0], sets["digits"][1] % 2)
    for classes, features, informative in ((2, 10, 5), (4, 20, 8), (8, 30, 15)):
        sets[f"made, {classes} classes"] = datasets.make_classification(
            2000,
            features,
            n_informative=informative,
            n_classes=classes,
            n_clusters_per_class=1,
            class_sep=1.5,
            random_state=classes,
        )
    return sets


def set_scene(name: str, *, seed: int) -> Scene:
    """Stage a set: each row once, shuffled by seed; one action for each class, reward 1 for the right one."""
    rows, labels = noise_free_sets()[name]
    classes = int(labels.max()) + 1
    actions: list[tuple[str, FeatureObjects]] = [(str(k), [{"label": {"name": str(k)}}]) for k in range(classes)]
    one_hot = np.eye(classes)
    rounds = (
        Round(
            context=[{"row": {f"x{column}": value for column, value in enumerate(rows[index].tolist()) if value}}],
            actions=actions,
            means=one_hot[labels[index]],
        )
        for index in np.random.default_rng(seed).permutation(len(rows))
    )
    return stage(rounds, lambda played, index: float(played.means[index]), seed=seed)


# The measurements.


def directly(scene: Scene, setting: Setting) -> float:
    """Return the largest difference between our probabilities and those of the learner used directly.

    Directly means: its own reader of decision-service logs, and the binding's upper layer, which turns every
    example into Python objects. Compared before the floor, on the same events.
    """
    arguments, exploration = arguments_of(setting, scene)
    ours = Learner(arguments)
    upper = Workspace(f"{arguments} --dsjson --quiet")
    difference = 0.0
    for request, rewards in zip(scene.requests, scene.rewards, strict=True):
        interaction = decide(
            request,
            Served(ours),
            loop_id=LOOP,
            mode=LearningMode.ONLINE,
            exploration=exploration,
            reward_wait_us=0,
        )
        reward = float(rewards[interaction.chosen])
        before_floor = ours.pmf(request.context, request.actions)
        examples = upper.parse(_logged(interaction, None))
        expected = upper.predict(examples)
        upper.finish_example(examples)
        difference = max(difference, float(np.abs(np.subtract(before_floor, expected)).max()))
        learn(ours, interaction, reward)
        examples = upper.parse(_logged(interaction, reward))
        upper.learn(examples)
        upper.finish_example(examples)
    ours.close()
    upper.finish()
    return difference


def _logged(interaction: Interaction, reward: float | None) -> str:
    """Write a line as Personalizer logged it; without a reward, as one that is only to be scored."""
    actions = interaction.actions
    line: dict[str, object] = {
        "Version": "1",
        "EventId": interaction.event_id,
        "a": [interaction.chosen + 1, *(i + 1 for i in range(len(actions)) if i != interaction.chosen)],
        "c": {
            "FromUrl": msgspec.Raw(interaction.context),
            "_multi": [
                {"_tag": each.id, "i": {"constant": 1, "id": each.id}, "j": msgspec.Raw(each.features)}
                for each in actions
            ],
        },
        "p": [
            interaction.pmf[interaction.chosen],
            *(p for index, p in enumerate(interaction.pmf) if index != interaction.chosen),
        ],
    }
    if reward is not None:
        label = {
            "_label_cost": -reward,
            "_label_probability": interaction.pmf[interaction.chosen],
            "_label_Action": interaction.chosen + 1,
            "_labelIndex": interaction.chosen,
        }
        line = label | line
    return msgspec.json.encode(line).decode()


class Size(NamedTuple):
    """How much is measured."""

    set_seeds: int
    clicks_seeds: int
    clicks_events: int  # at 1 to 3 %
    frequent_seeds: int  # at 5 and 20 %
    frequent_events: int
    grocery_seeds: int


FULL = Size(
    set_seeds=3,
    clicks_seeds=5,
    clicks_events=50_000,
    frequent_seeds=3,
    frequent_events=20_000,
    grocery_seeds=30,
)
QUICK = Size(
    set_seeds=1,
    clicks_seeds=1,
    clicks_events=10_000,
    frequent_seeds=1,
    frequent_events=5_000,
    grocery_seeds=6,
)
FIRST = (Setting.of(BALANCED), Setting.of(PERSONALIZER))


def measure_directly(console: Console) -> None:
    """Print how far we are from the learner itself."""
    steady = parse_policy(BALANCED.arguments).with_options(RATES[STEADY]).text
    settings = (*map(Setting.of, PRESETS.values()), Setting(f"{BALANCED.name}, {STEADY}", steady))
    table = Table(
        "scene", *(setting.name for setting in settings), title="Largest difference from the learner used directly"
    )
    scenes = {
        "digits": set_scene("digits", seed=1),
        "clicks, 2,000 events": world_scene("clicks", 2000, seed=1, base_rate=0.2),
        "grocery, 2,000 events": world_scene("grocery", 2000, seed=1),
    }
    for name, scene in scenes.items():
        table.add_row(name, *(f"{directly(scene, setting):.1e}" for setting in settings))
    console.print(table, "Goal: at most 1e-06.\n")


def measure_sets(console: Console, size: Size, settings: Sequence[Setting]) -> dict[str, list[float]]:
    """Print the share on each noise-free set, and return each setting's shares."""
    table = Table(
        *("set", "uniform", "full labels", *(setting.name for setting in settings)),
        title=f"Noise-free sets: share of full labels, {size.set_seeds} seed(s), one pass",
    )
    shares: dict[str, list[float]] = {setting.name: [] for setting in settings}
    for name in noise_free_sets():
        scenes = [set_scene(name, seed=seed) for seed in range(1, size.set_seeds + 1)]
        full = [play_full_labels(scene) for scene in scenes]
        for setting in settings:
            shares[setting.name].append(
                float(np.mean([play(scene, setting).share(f.value) for scene, f in zip(scenes, full, strict=True)]))
            )
        table.add_row(
            name,
            f"{np.mean([f.uniform.mean() for f in full]):.3f}",
            f"{np.mean([f.value.mean() for f in full]):.3f}",
            *(f"{shares[setting.name][-1]:.3f}" for setting in settings),
        )
    table.add_section()
    for name, summary in (("mean", np.mean), ("worst", np.min)):
        table.add_row(name, "", "", *(f"{summary(shares[setting.name]):.3f}" for setting in settings))
    console.print(table)
    return shares


def measure_clicks(console: Console, size: Size, settings: Sequence[Setting]) -> dict[str, float]:
    """Print the share in the world of clicks, and return each setting's at 1 to 3 %."""
    scenes: dict[str, list[Scene]] = {}
    frequent = (size.frequent_events, size.frequent_seeds)
    for rate, events, seeds in ((0.016, size.clicks_events, size.clicks_seeds), (0.05, *frequent), (0.2, *frequent)):
        scenes[f"{rate:.1%}, {events:,} events, {seeds} seed(s)"] = [
            world_scene("clicks", events, seed=seed, base_rate=rate) for seed in range(1, seeds + 1)
        ]
    table = Table(
        "setting",
        *scenes,
        "each seed of the first",
        title="Clicks: share of the best action's mean",
    )
    reached: dict[str, float] = {}
    for setting in settings:
        shares = [[play(scene, setting).share() for scene in of_rate] for of_rate in scenes.values()]
        reached[setting.name] = float(np.mean(shares[0]))
        table.add_row(
            setting.name,
            *(f"{np.mean(of_rate):.3f}" for of_rate in shares),
            " ".join(f"{share:.2f}" for share in shares[0]),
        )
    table.add_row(
        "(same model, full labels)",
        *(f"{np.mean([play_full_labels(scene).share() for scene in r[:2]]):.3f}" for r in scenes.values()),
        "two seeds at most",
    )
    console.print(table)
    return reached


def measure_grocery(console: Console, size: Size) -> None:
    """Print what is reached after 5,000 events through models that are 300 to 600 events old."""
    table = Table(
        *("preset", "mean", "lowest", "highest", "goal"),
        title=f"grocery: last 1,000 of 5,000 events, of the optimum; {size.grocery_seeds} seeds",
    )
    scenes = [world_scene("grocery", 5000, seed=seed) for seed in range(101, 101 + size.grocery_seeds)]
    for setting, goal in zip(FIRST, (0.96, 0.86), strict=True):
        played = [play(scene, setting, every=300, behind=300) for scene in scenes]
        reached = [each.value[-1000:].mean() / each.best[-1000:].mean() for each in played]
        table.add_row(setting.name, f"{np.mean(reached):.3f}", f"{min(reached):.3f}", f"{max(reached):.3f}", f"{goal}")
    uniform, best = (np.mean([bound[part].mean() for bound in map(_bounds, scenes)]) for part in (0, 1))
    chance = uniform / best
    console.print(table, f"A random choice reaches {chance:.3f}.\n")


def measure_worlds(console: Console, size: Size, settings: Sequence[Setting]) -> None:
    """Print the share in worlds that change, or whose rewards come late, in parts or never."""
    table = Table(
        *("setting", "drift, 12,000 events", "its last quarter", "delayed, 5,000 events", "triage, 4 passes"),
        title=f"Other worlds: share of the best action's mean, {size.set_seeds} seed(s)",
    )
    lengths = {"drift": 12_000, "delayed": 5000, "triage": 2276}
    scenes = {
        name: [world_scene(name, length, seed=seed) for seed in range(1, size.set_seeds + 1)]
        for name, length in lengths.items()
    }
    for setting in settings:
        drift = [play(scene, setting) for scene in scenes["drift"]]
        table.add_row(
            setting.name,
            f"{np.mean([each.share() for each in drift]):.3f}",
            f"{np.mean([Played(*(part[-3000:] for part in each)).share() for each in drift]):.3f}",
            *(f"{np.mean([play(s, setting).share() for s in scenes[name]]):.3f}" for name in ("delayed", "triage")),
        )
    console.print(table)


def scaled(scene: Scene, factor: float) -> Scene:
    """Multiply every reward of a scene."""
    return Scene(scene.requests, [m * factor for m in scene.means], [r * factor for r in scene.rewards])


def measure_presets(console: Console, seeds: int) -> None:
    """Print what each preset reaches where it is good, and where it is not, and what its log is worth."""
    small = 0.05
    explores_more = BALANCED.policy().with_epsilon(0.2).text
    settings = (*map(Setting.of, PRESETS.values()), Setting.of(BALANCED)._replace(policy=explores_more))
    names = (*PRESETS, f"{BALANCED.name}, exploration .2")
    table = Table(
        *("preset", "sets, mean", "worst", f"sets, rewards x {small}", "clicks 1.6%", "5%", "20%"),
        *("drift", "its last quarter", "delayed", "even choice"),
        title=f"Presets: share of full labels (sets) or of the best action's mean (worlds), {seeds} seed(s)",
    )
    of_set = {name: [set_scene(name, seed=seed) for seed in range(1, seeds + 1)] for name in noise_free_sets()}
    worlds = {
        name: [world_scene(world, length, seed=seed, **parameters) for seed in range(1, seeds + 1)]
        for name, world, length, parameters in (
            ("1.6%", "clicks", 20_000, {"base_rate": 0.016}),
            ("5%", "clicks", 20_000, {"base_rate": 0.05}),
            ("20%", "clicks", 20_000, {"base_rate": 0.2}),
            ("drift", "drift", 12_000, {}),
            ("delayed", "delayed", 5_000, {}),
        )
    }
    full = {name: [play_full_labels(scene) for scene in scenes] for name, scenes in of_set.items()}
    for name, setting in zip(names, settings, strict=True):
        of_sets = [
            np.mean([play(scene, setting).share(top.value) for scene, top in zip(scenes, full[each], strict=True)])
            for each, scenes in of_set.items()
        ]
        of_small = [
            play(scaled(scene, small), setting).share(top.value * small)
            for each, scenes in of_set.items()
            for scene, top in zip(scenes, full[each], strict=True)
        ]
        played = {each: [play(scene, setting) for scene in scenes] for each, scenes in worlds.items()}
        late = [Played(*(part[-3000:] for part in each)).share() for each in played["drift"]]
        of_worlds = {each: np.mean([run.share() for run in runs]) for each, runs in played.items()}
        even = np.mean([run.weights[len(run.weights) // 2 :].mean() for run in played["20%"]])
        table.add_row(
            *(name, f"{np.mean(of_sets):.3f}", f"{min(of_sets):.3f}", f"{np.mean(of_small):.3f}"),
            *(f"{of_worlds[each]:.3f}" for each in ("1.6%", "5%", "20%", "drift")),
            *(f"{np.mean(late):.3f}", f"{of_worlds['delayed']:.3f}", f"{even:.1f}"),
        )
    console.print(table)


def measure_numbers(console: Console, seeds: int) -> None:
    """Print what intervals beside numbers change, on sets whose features are numbers, and in two worlds."""
    settings = [
        Setting.of(preset)._replace(numbers=numbers) for preset in (BALANCED, PLAIN, CHANGING) for numbers in Numbers
    ]
    names = [f"{setting.name}, {setting.numbers}" for setting in settings]
    table = Table(
        *("set", "uniform", "full labels", *names),
        title=f"Numbers: mean reward with every number as it is, and with intervals, {seeds} seed(s), one pass",
    )
    reached: list[list[float]] = []
    for name in noise_free_sets():
        scenes = [set_scene(name, seed=seed) for seed in range(1, seeds + 1)]
        full = [play_full_labels(scene) for scene in scenes]
        values = [np.mean([run.value.mean() for run in full])]
        values += [np.mean([play(scene, setting).value.mean() for scene in scenes]) for setting in settings]
        reached.append([float(np.mean([run.uniform.mean() for run in full])), *map(float, values)])
        table.add_row(name, *(f"{value:.3f}" for value in reached[-1]))
    table.add_section()
    table.add_row("mean", *(f"{value:.3f}" for value in np.mean(reached, axis=0)))
    for name, length in (("triage", 2276), ("grocery", 5_000)):
        scenes = [world_scene(name, length, seed=seed) for seed in range(1, seeds + 1)]
        runs = [[play(scene, setting) for scene in scenes] for setting in settings]
        table.add_row(
            f"{name}: share of the best",
            *("", ""),
            *(f"{np.mean([run.share() for run in of_setting]):.3f}" for of_setting in runs),
        )
    console.print(table)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description="Measure how well, and how soon, the presets learn.")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and events: about a minute")
    parser.add_argument("--numbers", action="store_true", help="only what intervals beside numbers change")
    parser.add_argument("--presets", action="store_true", help="only the table that compares presets")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    console = Console(width=200)
    start = time.monotonic()
    print(f"vowpalwabbit {version('vowpalwabbit')}, scikit-learn {version('scikit-learn')}; one thread")
    for preset in PRESETS.values():
        print(f"{preset.name}: {preset.arguments}")
    print()
    if asked.presets or asked.numbers:
        (measure_presets if asked.presets else measure_numbers)(console, size.set_seeds)
        console.print(f"{time.monotonic() - start:.0f} s")
        return
    settings = (*FIRST, *LISTED)
    measure_directly(console)
    of_sets = {name: float(np.mean(shares)) for name, shares in measure_sets(console, size, settings).items()}
    of_clicks = measure_clicks(console, size, settings)
    for what, reached in (("noise-free sets", of_sets), ("clicks at 1 to 3 %", of_clicks)):
        best = max((setting.name for setting in LISTED), key=lambda name: reached[name])
        ratio = reached[BALANCED.name] / reached[best]
        console.print(f"{what}: balanced reaches {ratio:.3f} of the best listed setting ({best}); goal 0.97")
    console.print()
    measure_worlds(console, size, settings)
    measure_grocery(console, size)
    console.print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
