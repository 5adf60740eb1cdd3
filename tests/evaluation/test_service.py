"""Evaluations in processes of their own."""

from __future__ import annotations

import msgspec
import pytest

from rankward.errors import InvalidPolicy, InvalidRequest
from rankward.evaluation.replay import Replay
from rankward.evaluation.report import Report, Verdict
from rankward.evaluation.service import CancelledError, Progress, custom, evaluate
from rankward.records import LearningMode
from rankward.vw.presets import BALANCED
from tests.evaluation.logs import POLICY, SETUP, Written, event, log, named, replayed


@pytest.mark.slow
def test_processes_find_what_one_finds() -> None:
    """How the work is shared must not show in the result."""
    events = log(700)
    candidates = [custom(name, POLICY, exploration=share) for name, share in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    told: list[Progress] = []
    report = evaluate(Written(tuple(events)), candidates, SETUP, processes=2, progress=told.append)
    alone = replayed(Replay(candidates, SETUP, references=True), events)
    assert [result.name for result in report.policies] == ["a", "b", "c", "online", "baseline1", "baselineRand"]
    assert report.policies == alone.policies
    assert report.counts.skipped == {"odd": 1}
    assert report.counts.judged == 700
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.slow
def test_an_evaluation_can_be_cancelled() -> None:
    """A search that takes hours must not have to be waited for."""
    with pytest.raises(CancelledError):
        evaluate(Written(tuple(log(200))), [custom("a", POLICY, exploration=0.1)], SETUP, cancelled=lambda: True)


@pytest.mark.slow
def test_a_log_without_exploration_is_called_so() -> None:
    """Its weights look perfect, and every estimate from it is made up."""
    events = [event(number, pmf=(1.0, 0.0, 0.0), reward=1.0) for number in range(50)]
    report = evaluate(Written(tuple(events)), [custom("mine", POLICY, exploration=0.1)], SETUP)
    assert not report.trusted
    assert "probability 1" in report.verdict
    assert named(report, "mine").verdict is Verdict.UNKNOWN


@pytest.mark.slow
def test_a_log_that_is_too_short_to_learn_along_is_called_so() -> None:
    """Every policy is uniform on it, and every feature worth nothing: that reads as a mistake unless it is said."""
    setup = msgspec.structs.replace(SETUP, export_us=7 * 86_400_000_000)
    candidates = [custom("mine", POLICY, exploration=0.1)]

    assert "before they knew anything" in evaluate(Written(tuple(log(50))), candidates, setup).verdict
    assert "before they knew anything" not in evaluate(Written(tuple(log(700))), candidates, SETUP).verdict


@pytest.mark.slow
def test_the_better_policy_is_named() -> None:
    """It is what the contract calls optimal, and what an apply takes."""
    report = evaluate(Written(tuple(log(4_000))), [custom("mine", BALANCED.name, exploration=0.02)], SETUP)
    assert report.optimal == "mine"
    assert "mine is better" in report.verdict
    empty = evaluate(Written(()), [], SETUP)
    assert (empty.optimal, empty.verdict) == ("", "There is no event to judge by.")
    shown = [event(number, mode=LearningMode.LOGGING_ONLY, pmf=(1.0, 0.0, 0.0)) for number in range(3)]
    assert "judges the baseline" in evaluate(Written(tuple(shown)), [], SETUP).verdict


@pytest.mark.parametrize("name", ["mine", "Online", "baseline1", "BaselineRand"])
def test_names_are_taken_once(name: str) -> None:
    """Which result was whose could not be told."""
    candidates = [custom("mine", POLICY, exploration=0.1), custom(name, POLICY, exploration=0.2)]
    with pytest.raises(InvalidRequest, match="two policies called"):
        evaluate(Written(()), candidates, SETUP)


def test_a_policy_that_is_not_allowed_is_refused() -> None:
    """The learner's options can write files."""
    with pytest.raises(InvalidPolicy):
        custom("mine", "--cb_explore_adf -f model.vw", exploration=0.1)


def test_a_policy_without_epsilon_has_the_loops() -> None:
    """As in serving, where both are one number."""
    assert custom("mine", "--cb_explore_adf", exploration=0.3).exploration == 0.3
    assert custom("mine", "--cb_explore_adf --epsilon 0.1", exploration=0.3).exploration == 0.1
