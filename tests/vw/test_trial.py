"""A model from elsewhere, or a policy, is tried where it can do no harm."""

from __future__ import annotations

import random
import struct

import pytest
from tests.models import learned, mutated, original, with_head

from rankward.errors import InvalidPolicy, InvalidRequest
from rankward.ranking.explore import InvalidPmfError
from rankward.vw.arguments import ProblemType, parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.model_file import read_head
from rankward.vw.presets import BALANCED, PERSONALIZER, learner_arguments
from rankward.vw.trial import check_model, try_out, try_policy

MODEL = learned()
ARGUMENTS = learner_arguments(PERSONALIZER.arguments, None, 0.3)
POLICIES = [
    PERSONALIZER.arguments,
    BALANCED.arguments,
    "--cb_explore_adf --softmax --lambda 3",
    "--cb_explore_adf --bag 3",
    "--cb_explore_adf --cover 3 --cb_type dr",
    "--cb_explore_adf --rnd 2",
    "--cb_explore_adf --synthcover",
    "--cb_explore_adf --regcb --cb_type mtr",
    "--cb_explore_adf --coin",
    "--cb_explore_adf --ftrl",
    "--cb_explore_adf --pistol",
    "--cb_explore_adf --sgd --power_t 0",
    "--cb_explore_adf --adaptive --l1 1e-6",
    "--cb_explore_adf --normalized -b 12",
    PERSONALIZER.policy(ProblemType.MULTI_SLOT).text,
    BALANCED.policy(ProblemType.MULTI_SLOT).text,
    "--ccb_explore_adf --squarecb --cb_type mtr",
    "--ccb_explore_adf --coin -q ::",
]

pytestmark = pytest.mark.slow


def refusal(arguments: str, model: bytes) -> str:
    """Try in this process, for models that do it no harm. Returns why it is refused."""
    with pytest.raises((ValueError, LearnerRefusedError, InvalidPmfError)) as caught:
        check_model(arguments, model)
    return str(caught.value)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_of_the_same_policy_passes(policy: str) -> None:
    """What one loop exported, another of its kind can go on from, learned or not, whatever its exploration."""
    for events in (0, 9):
        check_model(learner_arguments(policy, None, 0.3), learned(policy, events=events))


def test_a_model_of_the_original_passes() -> None:
    """Vowpal Wabbit 9.1.0 wrote the same layout, as recordings of the original show."""
    try_out(ARGUMENTS, original(MODEL))


def test_a_model_of_another_policy_is_refused_and_its_policy_is_named() -> None:
    """Its own options would join the loop's, and make a policy that nobody chose."""
    with pytest.raises(InvalidRequest, match="--gamma_scale 10, --squarecb") as caught:
        try_out(ARGUMENTS, learned(BALANCED.arguments))

    assert caught.value.code == "InvalidModelImportFormat"
    policy = "--cb_explore_adf --cb_type mtr --clip_p 1 --epsilon 0.02 --gamma_scale 10 --squarecb"
    assert f"`{policy}`" in caught.value.message


@pytest.mark.parametrize(
    ("loops", "models"),
    [
        ("--cb_explore_adf -l 0.001", "--cb_explore_adf -l 0.002"),
        ("--cb_explore_adf", "--cb_explore_adf -q ::"),
        ("--cb_explore_adf -q ab", "--cb_explore_adf -q ba"),
        ("--cb_explore_adf -b 12", "--cb_explore_adf -b 13"),
        ("--cb_explore_adf --cb_type ips", "--cb_explore_adf --cb_type dr"),
        ("--cb_explore_adf --noconstant", "--cb_explore_adf"),
    ],
)
def test_a_difference_that_the_learner_would_pass_over_is_refused(loops: str, models: str) -> None:
    """It lets the file add interactions, or the command line change a rate, without a word."""
    assert "first" in refusal(parse_policy(loops).learner_text, learned(models))
    assert "first" in refusal(parse_policy(models).learner_text, learned(loops))


@pytest.mark.parametrize("options", ["-q ::", "--coin", "--sgd"])
def test_a_model_that_was_cut_is_refused(options: str) -> None:
    """The learner takes such a file for one with fewer weights, or makes up the rest of the last.

    Between two weights alone a cut leaves as good a file, and nothing in it tells.
    """
    arguments = parse_policy(f"--cb_explore_adf -b 10 {options}").learner_text
    model, empty = learned(arguments, events=3), learned(arguments, events=0)
    state_end = read_head(model).end + len(empty) - read_head(empty).end
    width = 4 * (1 + {"--coin": 6, "--sgd": 1}.get(options, 3))
    assert (len(model) - state_end) % width == 0

    for length in range(read_head(model).end, len(model)):
        if length < state_end or (length - state_end) % width:
            assert "only a part" in refusal(arguments, model[:length])
        else:
            check_model(arguments, model[:length])


@pytest.mark.parametrize("more", [b"\0", b"\0" * 4, b"\0" * 16, b"x" * 16, MODEL, MODEL[-16:]])
def test_a_model_with_something_behind_it_is_refused(more: bytes) -> None:
    """Whatever it is, the learner would read it as weights."""
    assert refusal(ARGUMENTS, MODEL + more)


def test_a_model_without_the_state_of_learning_is_refused() -> None:
    """One that was saved to predict only would forget how sure it was."""
    arguments = learner_arguments(BALANCED.arguments, None, 0.2)
    learner = Learner(f"{arguments} --predict_only_model")
    model = learner.save()
    learner.close()

    assert "predict_only_model" in refusal(arguments, model)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_model_with_numbers_that_are_none_is_refused(number: float) -> None:
    """They would reach every decision that shares a feature with them."""
    damaged = bytearray(MODEL)
    damaged[-12:-8] = struct.pack("<f", number)
    assert "weights that are no numbers" in refusal(ARGUMENTS, bytes(damaged))

    damaged = bytearray(MODEL)
    state = read_head(MODEL).end + 17
    damaged[state + 4 : state + 12] = struct.pack("<d", number)
    assert "update rule" in refusal(ARGUMENTS, bytes(damaged))


def test_a_model_of_a_newer_learner_is_refused() -> None:
    """What it changed in the layout cannot be known."""
    assert "upgrade" in refusal(ARGUMENTS, with_head(MODEL, version="10.0.0"))


@pytest.mark.parametrize("model", [b"", b"garbage" * 99, MODEL[:60], MODEL[:-7]], ids=["none", "odd", "head", "cut"])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    """Nothing is changed by it, and the message says so."""
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        try_out(ARGUMENTS, model)


def test_a_model_that_wants_more_memory_than_there_is_is_refused() -> None:
    """A header of forty bytes can ask for a hundred gigabytes."""
    with pytest.raises(InvalidRequest, match=r"2\^33"):
        try_out(ARGUMENTS, with_head(MODEL, bits=33))


def test_more_memory_than_a_trial_may_have_is_a_refusal() -> None:
    """Whatever arguments or a file make the learner do, it does it in a process that is thrown away."""
    with pytest.raises(InvalidPolicy, match=r"does not start|broke on it"):
        try_policy("--cb_explore_adf -b 31")


def test_a_policy_that_cannot_go_on_from_its_own_model_is_refused() -> None:
    """The learner keeps the state of its dice as the seed, and then finds that the policy names another."""
    try_policy("--cb_explore_adf --random_seed 7")
    with pytest.raises(InvalidPolicy, match="random_seed"):
        try_policy("--cb_explore_adf --bag 2 --random_seed 7")


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.fault)])
@pytest.mark.parametrize("options", ["-q ::", "--squarecb", "--coin"])
def test_damaged_models_are_refused_or_harmless(options: str, count: int) -> None:
    """Bytes are changed, lost and doubled: what passes gives decisions, and the rest a refusal.

    This is the very code of the throw-away process, in one that must live; the whole way goes
    `test_hostile_models_leave_the_service_alone`.
    """
    dice = random.Random(20_260_101)
    arguments = parse_policy(f"--cb_explore_adf -b 10 {options}").learner_text
    model = learned(arguments)
    passed = 0
    for _ in range(count):
        try:
            check_model(arguments, mutated(model, dice))
        except (ValueError, LearnerRefusedError, InvalidPmfError):
            continue
        passed += 1
    assert passed < count
