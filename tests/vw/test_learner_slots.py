"""Decisions for slots in the learner: what it is told, what it draws, and that it goes on exactly from a model."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import pytest
from vowpalwabbit import Workspace

from rankward.records import Action, Features, Slot, SlotChoice
from rankward.vw.arguments import ProblemType, parse_policy
from rankward.vw.learner import Learner
from rankward.vw.parser import context_text
from rankward.vw.presets import BALANCED, PERSONALIZER
from rankward.vw.slots import with_slots

POLICY = PERSONALIZER.policy(ProblemType.MULTI_SLOT).text
CONTEXT = Features(b'[{"visitor":{"device":"phone"}}]')
ACTIONS = [Action(name, Features(f'[{{"kind":"k{name}"}}]'.encode())) for name in "abcd"]
SLOTS = [
    Slot("hero", Features(b'[{"size":"large"}]'), baseline=2, excluded=(1,)),
    Slot('si"de', Features(b"[]"), baseline=0, excluded=(3,)),
    Slot("foot", Features(b'[{"place":{"row":2}}]'), baseline=1),
]
CHOICES = [
    SlotChoice((0, 2, 3), (0.8, 0.1, 0.1)),
    SlotChoice((1, 2), (0.25, 0.75)),
    SlotChoice((2, 3), (0.5, 0.5)),
]
REWARDS = [1.0, 0.0, -0.5]


def play(learner: Learner, count: int, rng: random.Random) -> None:
    """Let the learner draw and learn, as events would have it."""
    for _ in range(count):
        context = Features(f'[{{"visitor":{{"device":"{rng.choice("pqr")}"}}}}]'.encode())
        choices = learner.choices(context, ACTIONS, SLOTS, [rng.getrandbits(64) for _ in SLOTS])
        for choice in choices:
            assert math.fsum(choice.pmf) == pytest.approx(1.0, abs=1e-3)
            assert min(choice.pmf) >= 0.0 < choice.probability
        learner.learn_slots(CONTEXT, ACTIONS, SLOTS, choices, [float(choice.chosen == 0) for choice in choices])


def test_the_context_object_is_that_of_the_logs() -> None:
    """`_inc` names the actions that a slot with exclusions may use, and appears only there."""
    text = msgspec.json.decode(with_slots(context_text(CONTEXT, ACTIONS), SLOTS, len(ACTIONS)))

    assert text["_slots"] == [
        {"_id": "hero", "sj": [{"size": "large"}, {"_inc": [0, 2, 3]}]},
        {"_id": 'si"de', "sj": [{"_inc": [0, 1, 2]}]},
        {"_id": "foot", "sj": [{"place": {"row": 2}}]},
    ]
    assert [action["_tag"] for action in text["_multi"]] == list("abcd")


@pytest.mark.parametrize("policy", [POLICY, BALANCED.policy(ProblemType.MULTI_SLOT).text])
def test_an_event_is_learned_as_from_its_log_line(tmp_path: Path, policy: str) -> None:
    """What is trained here and what `vw --dsjson` makes of the exported lines are one model."""
    learner = Learner(policy)
    for _ in range(5):
        learner.learn_slots(CONTEXT, ACTIONS, SLOTS, CHOICES, REWARDS)
    outcomes = [
        {"_label_cost": -reward, "_id": slot.id, "_a": choice.actions, "_p": choice.pmf}
        for slot, choice, reward in zip(SLOTS, CHOICES, REWARDS, strict=True)
    ]
    context = with_slots(context_text(CONTEXT, ACTIONS), SLOTS, len(ACTIONS))
    line = f'{{"Version":"1","EventId":"e","c":{context},"_outcomes":{msgspec.json.encode(outcomes).decode()}}}\n'
    file = tmp_path / "events.json"
    file.write_text(line * 5)
    by_line = Workspace(f"{policy} --dsjson --quiet -d {file}")

    expected = {i: by_line.get_weight(i) for i in range(by_line.num_weights()) if by_line.get_weight(i) != 0}

    assert learner.weights() == expected != {}


def test_draws_depend_on_the_seeds_alone() -> None:
    """A decision can be made again from its log, by any process, whatever that process did before."""
    learner = Learner(POLICY)
    play(learner, 50, random.Random(1))
    other = Learner(POLICY, learner.save())
    other.choices(CONTEXT, ACTIONS, SLOTS, [7, 8, 9])

    for seed in range(50):
        seeds = [seed, seed + 1_000, seed + (1 << 63)]
        assert (
            learner.choices(CONTEXT, ACTIONS, SLOTS, seeds)
            == learner.choices(CONTEXT, ACTIONS, SLOTS, seeds)
            == other.choices(CONTEXT, ACTIONS, SLOTS, seeds)
        )


def test_draws_follow_their_probabilities_slot_by_slot() -> None:
    """The seeds of two slots must not make their draws go together, or the log's probabilities would be false."""
    learner = Learner(POLICY)
    slots = [Slot(name, Features(b"[]"), baseline=index) for index, name in enumerate("xy")]
    rng = random.Random(2)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(6_000):
        first, second = learner.choices(CONTEXT, ACTIONS[:3], slots, [rng.getrandbits(64), rng.getrandbits(64)])
        pair = (first.chosen, second.chosen)
        counts[pair] = counts.get(pair, 0) + 1

    assert len(counts) == 6
    assert all(850 < count < 1_150 for count in counts.values()), counts  # 1,000 ± 5 standard deviations


def test_a_slot_that_finds_nothing_left_comes_out_empty() -> None:
    """The learner does not break on it; the door keeps such requests out."""
    slots = [Slot(name, Features(b"[]"), baseline=0, excluded=(1, 2, 3)) for name in "xy"]

    assert Learner(POLICY).choices(CONTEXT, ACTIONS, slots, [1, 2]) == [SlotChoice((0,), (1.0,)), SlotChoice((), ())]


@pytest.mark.parametrize(
    "options",
    [
        *("--epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::", "--epsilon 0.1 --cb_type ips"),
        *("--epsilon 0.1 --cb_type dm", "--epsilon 0.1 --cb_type sm", "--epsilon 0.1 --coin", "--first 50"),
        *("--squarecb --gamma_scale 10 --epsilon 0.02 --cb_type mtr", "--softmax --lambda 5", "--synthcover"),
        *("--regcb", "--regcbopt", "--epsilon 0.1 --ftrl", "--epsilon 0.1 --l1 0.0001"),
    ],
)
def test_going_on_from_a_model_equals_never_having_stopped(options: str) -> None:
    """Checkpoints rest on it, for slots as for single decisions."""
    policy = parse_policy(f"--ccb_explore_adf {options}")
    assert policy.resumes_exactly
    learner = Learner(policy.learner_text)
    play(learner, 150, random.Random(3))
    resumed = Learner(policy.learner_text, learner.save())

    for each in (learner, resumed):
        play(each, 150, random.Random(4))

    assert learner.weights() == resumed.weights()


@pytest.mark.parametrize("options", ["--bag 5", "--cover 3", "--rnd 2", "--epsilon 0.1 --cb_type dr"])
def test_what_does_not_go_on_exactly_still_draws_from_distributions(options: str) -> None:
    """These are saved and loaded at fixed offsets instead."""
    policy = parse_policy(f"--ccb_explore_adf {options}")
    assert not policy.resumes_exactly

    play(Learner(policy.learner_text), 150, random.Random(5))
