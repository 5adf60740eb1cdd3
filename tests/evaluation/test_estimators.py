"""Point estimates: the arithmetic of the papers, and how far they err."""

import math

import numpy as np
import pytest
from estimators.bandits import cressieread as reference_cressie_read
from estimators.bandits import ips as reference_ips
from estimators.bandits import mle as reference_likelihood
from estimators.bandits import snips as reference_snips
from estimators.slates import pseudo_inverse as reference_pseudo_inverse
from hypothesis import given
from hypothesis import strategies as st

from rankward.evaluation.contrast import Floats
from rankward.evaluation.estimators import (
    Sums,
    cressie_read,
    direct_method,
    doubly_robust,
    empirical_likelihood,
    ips,
    pseudo_inverse_weights,
    self_normalized_doubly_robust,
    shrunk_doubly_robust,
    snips,
)
from tests.evaluation.known_world import KnownWorld

pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 1.0, 1.25, 4.0, 50.0]), st.floats(0, 1, width=32)), min_size=1, max_size=40
)


def arrays(drawn: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Weights and rewards."""
    return np.array([weight for weight, _ in drawn]), np.array([reward for _, reward in drawn])


def sums_of(weights: Floats, rewards: Floats) -> Sums:
    """Add them up, none subsampled."""
    sums = Sums()
    sums.add(weights, rewards, np.ones(len(weights)))
    return sums


@given(pairs)
def test_sums_agree_with_vw_estimators(drawn: list[tuple[float, float]]) -> None:
    """An independent implementation of the same papers is the best witness there is."""
    weights, rewards = arrays(drawn)
    sums = sums_of(weights, rewards)
    known = [reference_ips.Estimator(), reference_snips.Estimator(), reference_cressie_read.Estimator()]
    for estimator in known:
        for weight, reward in drawn:
            estimator.add_example(1.0, reward, weight)
    for ours, theirs in zip((ips(sums), snips(sums), cressie_read(sums)), known, strict=True):
        expected = theirs.get()
        assert ours == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9))


@given(pairs, st.sampled_from([math.inf, 60.0]))
def test_empirical_likelihood_agrees_with_vw_estimators(drawn: list[tuple[float, float]], weight_max: float) -> None:
    """It is what the headline estimate is measured against."""
    weights, rewards = arrays(drawn)
    known = reference_likelihood.Estimator(wmax=weight_max)
    for weight, reward in drawn:
        known.add_example(1.0, reward, weight)
    assert empirical_likelihood(weights, rewards, weight_max=weight_max) == pytest.approx(known.get(), abs=1e-9)


def test_page_weights_agree_with_vw_estimators() -> None:
    """A page is judged by its slots' weights together."""
    rng = np.random.default_rng(3)
    p_log, p_target = rng.uniform(0.1, 1, (50, 3)), rng.uniform(0, 1, (50, 3))
    rewards = rng.uniform(0, 3, 50)
    known = reference_pseudo_inverse.Estimator()
    for row in range(50):
        known.add_example(list(p_log[row]), rewards[row], list(p_target[row]))
    ours = (pseudo_inverse_weights(p_target / p_log) * rewards).mean()
    assert ours == pytest.approx(known.get(), abs=1e-9)


@given(pairs, st.integers(0, 40))
def test_sums_do_not_depend_on_batches(drawn: list[tuple[float, float]], cut: int) -> None:
    """What is judged in parts, and merged, is what was judged at once."""
    weights, rewards = arrays(drawn)
    upweights = np.linspace(1, 3, len(weights))
    whole, first, second = Sums(), Sums(), Sums()
    whole.add(weights, rewards, upweights)
    first.add(weights[:cut], rewards[:cut], upweights[:cut])
    second.add(weights[cut:], rewards[cut:], upweights[cut:])
    first.merge(second)
    for name in Sums.__struct_fields__:
        assert getattr(first, name) == pytest.approx(getattr(whole, name), rel=1e-12)


def test_a_subsampled_log_is_judged_like_the_whole() -> None:
    """A client that uploads one event in four must not make its rewards count a quarter."""
    rng = np.random.default_rng(4)
    world = KnownWorld()
    log = world.log(40_000, rng)
    kept = rng.random(40_000) < 0.25
    sums = Sums()
    sums.add(log.value().gain[kept], log.decisions.rewards[kept], np.full(int(kept.sum()), 4.0))
    assert sums.count == pytest.approx(40_000, rel=0.05)
    assert ips(sums) == pytest.approx(world.target_value, abs=0.1)


def test_nothing_is_estimated_from_nothing() -> None:
    """No number is better than a made-up one."""
    empty = np.array([])
    assert ips(Sums()) is None
    assert snips(sums_of(np.zeros(3), np.ones(3))) is None
    assert cressie_read(Sums()) is None
    assert empirical_likelihood(empty, empty) is None


def test_reward_models_correct_each_other() -> None:
    """A wrong reward model spoils the direct method, and the doubly robust ones only a little."""
    rng = np.random.default_rng(5)
    world = KnownWorld()
    log = world.log(20_000, rng)
    weights, rewards = log.value().gain, log.decisions.rewards
    wrong = np.full(len(weights), 0.3)
    right = np.full(len(weights), world.target_value)
    assert direct_method(wrong) == pytest.approx(0.3)
    assert direct_method(right) == pytest.approx(world.target_value)
    for model in (wrong, right):
        for estimate in (
            doubly_robust(weights, rewards, model, model),
            self_normalized_doubly_robust(weights, rewards, model, model),
            shrunk_doubly_robust(weights, rewards, model, model, shrinkages=[100.0, 10_000.0, math.inf]),
        ):
            assert estimate == pytest.approx(world.target_value, abs=0.08)


def test_no_shrinkage_is_doubly_robust() -> None:
    """The family ends at the unbiased estimate."""
    rng = np.random.default_rng(6)
    weights, rewards, model = rng.uniform(0, 5, 100), rng.uniform(0, 1, 100), rng.uniform(0, 1, 100)
    shrunk = shrunk_doubly_robust(weights, rewards, model, model, shrinkages=[math.inf])
    assert shrunk == pytest.approx(doubly_robust(weights, rewards, model, model))


def test_the_headline_errs_no_more_than_empirical_likelihood() -> None:
    """It is chosen because it needs no more than sums, not because it is worse."""
    rng = np.random.default_rng(7)
    world = KnownWorld()
    headline, likelihood, plain = [], [], []
    for _ in range(150):
        log = world.log(1_000, rng)
        weights, sums = log.value().gain, log.sums()
        headline.append(cressie_read(sums))
        plain.append(ips(sums))
        likelihood.append(empirical_likelihood(weights, log.decisions.rewards))

    def error(estimates: list[float | None]) -> float:
        return float(np.sqrt(np.mean([(each - world.target_value) ** 2 for each in estimates if each is not None])))

    assert error(headline) <= 1.05 * error(likelihood)
    assert error(headline) < error(plain)
