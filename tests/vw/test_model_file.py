"""The head of a model file: what is read out of it, and what is refused before the learner sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import ORIGINAL_OPTIONS, learned, original, with_head
from tests.vw.test_arguments import FILES_SOCKETS_DRIVER, learner_options

from rankward.vw.arguments import ALLOWED, ProblemType, parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.model_file import DERIVED, is_model, read_head
from rankward.vw.presets import BALANCED, PERSONALIZER, derive_interactions, preset_of

if TYPE_CHECKING:
    from pathlib import Path

MODEL = learned()
POLICIES = [
    PERSONALIZER.arguments,
    BALANCED.arguments,
    "--ccb_explore_adf --epsilon 0.1 --cb_type mtr",
    "--cb_explore_adf --regcb --cb_type mtr --mellowness 0.01",
    "--cb_explore_adf --synthcover --synthcoversize 10 --synthcoverpsi 0.25 -b 12",
    "--cb_explore_adf --coin -q Fj --cubic Fij --ignore x --noconstant",
    "--cb_explore_adf --sgd --power_t 0 --hash all --cb_type ips --clip_p 0.1",
]


def saved(policy: str) -> bytes:
    """The model of a learner that has not learned."""
    learner = Learner(parse_policy(policy).learner_text)
    model = learner.save()
    learner.close()
    return model


def test_the_head_of_an_originals_model_is_read() -> None:
    """Its options are on record; the learner that wrote it was 9.1.0."""
    head = read_head(with_head(original(MODEL), version="9.1.0", options=ORIGINAL_OPTIONS))

    assert head.version == (9, 1, 0)
    assert head.bits == 18
    assert head.problem_type is ProblemType.SINGLE_SLOT
    assert ("learning_rate", "0.00100000004749745") in head.options
    assert head.policy() == (
        "--cb_explore_adf --cb_type mtr --epsilon 0.2 --learning_rate 0.001 --power_t 0 --quadratic ::"
    )
    assert preset_of(parse_policy(head.policy())) == "personalizer"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_models_policy_makes_the_same_model(policy: str) -> None:
    """It is what a loop is to be given before the model can be gone on from."""
    head = read_head(saved(policy))

    again = read_head(saved(head.policy()))

    assert again.canonical() == head.canonical()
    assert again.policy() == head.policy()


def test_the_order_of_options_and_the_spelling_of_numbers_make_no_difference() -> None:
    """Versions of the learner may write both in their own way."""
    one = read_head(with_head(MODEL, options=" --cb_adf --cb_explore_adf --epsilon 0.2 --gamma_scale 1e-05"))
    other = read_head(with_head(MODEL, options=" --gamma_scale 0.00001 --epsilon 0.200000002980232 --cb_explore_adf"))

    assert one.canonical() - other.canonical() == {("cb_adf", None)}
    assert other.canonical() <= one.canonical()


def test_derived_interactions_are_read_whatever_their_letters() -> None:
    """Namespaces of a loop may begin with any sign; the learner writes those as escapes, and only there."""
    policy = parse_policy(BALANCED.arguments).with_interactions(["F#", 'F"', "Fj"], ["F"])
    learner = Learner(policy.learner_text)
    head = read_head(learner.save())
    learner.close()

    assert set(head.values("quadratic")) == {"F#", 'F"', "Fj"}
    assert head.values("ignore_linear") == ("F",)
    with pytest.raises(ValueError, match="no policy can say"):
        head.policy()
    assert preset_of(parse_policy(head.policy(without=DERIVED))) == "balanced"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (b"", "only a part"),
        (b"garbage" * 99, "no Vowpal Wabbit model"),
        (MODEL[:60], "only a part"),
        (MODEL[: read_head(MODEL).end - 1], "only a part"),
        (with_head(MODEL, version="8.11.0"), "older than 9.0.0"),
        (with_head(MODEL, version="nine"), "no Vowpal Wabbit model"),
        (with_head(MODEL, id_="mine"), "carries an id"),
        (with_head(MODEL, bits=9), "2\\^9"),
        (with_head(MODEL, bits=33), "2\\^33"),
        (with_head(MODEL, bounds=(1.0, 0.0)), "bounds of cost"),
        (with_head(MODEL, bounds=(float("nan"), 0.0)), "bounds of cost"),
        (with_head(MODEL, counts=(7, 0, 0)), "topics"),
        (with_head(MODEL, counts=(0, 1, 0)), "n-grams"),
        (with_head(MODEL, counts=(0, 0, 2**32 - 1)), "skips"),
        (with_head(MODEL, options=" --oaa 3"), "--oaa"),
        (with_head(MODEL, options=" --cb_adf"), "another problem type"),
        (with_head(MODEL, options=" --slates"), "--slates"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --epsilon 0.3"), "twice"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --bag 33"), "--bag 33"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --squarecb 3"), "--squarecb"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --bag"), "--bag"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --random_seed 1e3"), "--random_seed"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --ignore a b"), "not written"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS}  --bag 3"), "not written"),
        (with_head(MODEL, options=ORIGINAL_OPTIONS[1:]), "not written"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} -q ab"), "not written"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --bag=3"), "not written"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS}\t--daemon"), "no policy|letters|not written|namespaces"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --quadratic F\\x20"), "namespaces"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --csoaa_ldf singleline"), "--csoaa_ldf"),
        (with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --cubic \\x46ij"), "--cubic"),
        (with_head(MODEL, options=""), "not written"),
    ],
)
def test_what_must_not_be_loaded_is_refused(model: bytes, why: str) -> None:
    """Each of these comes with a good checksum, so the learner itself would have taken most of them."""
    with pytest.raises(ValueError, match=why):
        read_head(model)


@pytest.mark.parametrize("inject", ["options", "id"])
def test_the_learner_obeys_what_a_file_says(inject: str, tmp_path: Path) -> None:
    """This is why the head is read first: an option in a file opens files, and so does one hidden in its id."""
    victim = tmp_path / "victim"
    odd = f"--audit_regressor {victim}"
    hidden = {"id": with_head(MODEL, id_=f"x {odd}"), "options": with_head(MODEL, options=f"{ORIGINAL_OPTIONS} {odd}")}
    model = hidden[inject]

    with pytest.raises(ValueError, match=r"an id|audit_regressor"):
        read_head(model)
    assert not victim.exists()
    with pytest.raises(LearnerRefusedError):
        Learner("--cb_explore_adf", model)
    assert victim.exists(), "the learner is not what it was: is the head to be read at all?"


def test_no_option_off_the_list_is_taken_from_a_file() -> None:
    """Every option that the learner knows is one that a policy may have, or is refused."""
    refused = {name for name, _ in learner_options()} - ALLOWED.keys() - {"csoaa_ldf", "csoaa_rank", "cb_sample"}
    for name in refused | {option.lstrip("-") for option in FILES_SOCKETS_DRIVER if option.startswith("--")}:
        for value in ("", " 1", " x"):
            with pytest.raises(ValueError, match=f"--{name}|not written"):
                read_head(with_head(MODEL, options=f"{ORIGINAL_OPTIONS} --{name}{value}"))


def test_a_model_is_told_from_an_archive() -> None:
    """What is sent may be either; a damaged model is one all the same."""
    assert is_model(MODEL)
    assert is_model(with_head(MODEL, version="7.0.0", id_="x")[:64])
    assert not is_model(b"PK\3\4" + bytes(300))
    assert not is_model(b"")


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but a refusal may come of what is no model."""
    is_model(data)
    with pytest.raises(ValueError, match=r"\w"):
        read_head(data)


@given(st.integers(0, len(MODEL) - 1), st.integers(1, 255))
def test_a_changed_byte_is_read_or_refused(place: int, change: int) -> None:
    """A head that was damaged on its way names no option that is not on the list."""
    damaged = bytearray(MODEL)
    damaged[place] ^= change
    try:
        head = read_head(bytes(damaged))
    except ValueError:
        return
    assert all(name in ALLOWED or name.startswith("csoaa_") for name, _ in head.options)


def test_no_letter_is_lost_when_a_model_is_saved() -> None:
    """The learner forgets the escapes of `--ignore_linear`, and would leave out namespaces that nobody named."""
    pairs, ignored = derive_interactions(frozenset('F!"'), frozenset("ij"))
    learner = Learner(parse_policy(BALANCED.arguments).with_interactions(pairs, ignored).learner_text)
    head = read_head(learner.save())
    learner.close()

    assert head.values("ignore_linear") == ("F",)
    assert set(head.values("quadratic")) == set(pairs) >= {"!i", '"j'}
