"""Searching for better settings on a log."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from rankward.errors import InvalidRequest
from rankward.evaluation.contender import Candidate
from rankward.evaluation.estimators import Sums
from rankward.evaluation.intervals import ALPHA
from rankward.evaluation.judge import Judge, RewardRange
from rankward.evaluation.page import render
from rankward.evaluation.panel import Panel
from rankward.evaluation.replay import Replay
from rankward.evaluation.report import Estimate, Interval, PolicyResult, PolicySource, Verdict
from rankward.evaluation.search import (
    FINALISTS,
    SHARES,
    TRIALS,
    Course,
    Stretch,
    Survey,
    apply_command,
    gate_alpha,
    kept_after,
    promoted,
    ranking,
    trials,
)
from rankward.evaluation.service import CancelledError, Progress, custom, search
from rankward.records import Features, Interactions, JoinedEvent, LearningMode
from rankward.settings import Numbers
from rankward.vw.arguments import parse_policy
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED, PERSONALIZER, learner_arguments, preset_of
from tests.evaluation.known_world import KnownWorld, Log
from tests.evaluation.logs import MINUTE_US, SETUP, START_US, Written, event, log, named, replayed
from tests.evaluation.test_pages import pages

DERIVED = Interactions(("Fi", "Fj"), ("F",))
OWN = custom("personalizer", PERSONALIZER.name, exploration=0.2)


def test_what_is_tried_follows_from_the_seed() -> None:
    """A search that cannot be run again cannot be checked."""
    first, again = trials(OWN, DERIVED, seed=1), trials(OWN, DERIVED, seed=1)
    assert first == again
    assert trials(OWN, DERIVED, seed=2) != first
    assert len(first) == TRIALS
    assert first[0] is OWN
    assert len({each.name for each in first}) == TRIALS == len({each.policy for each in first})
    assert all(each.source is PolicySource.OFFLINE_EXPERIMENTATION for each in first[1:])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("own", [OWN, custom("b", BALANCED.name, exploration=0.02)])
def test_everything_tried_can_be_used_and_is_not_taken_for_something_else(seed: int, own: Candidate) -> None:
    """One setting that the learner refuses would end the whole search; and a preset means more than its arguments."""
    for candidate in trials(own, DERIVED, seed=seed)[1:]:
        assert parse_policy(candidate.policy).text == candidate.policy
        assert preset_of(parse_policy(candidate.policy)) is None
        assert candidate.exploration >= 0.02  # what comes next can be judged by its log
        Learner(learner_arguments(candidate.policy, None, candidate.exploration)).close()


def test_both_treatments_of_numbers_are_tried() -> None:
    """Which of them is better nobody knows beforehand; where there are no numbers, one of them is enough."""
    both = trials(OWN, DERIVED, seed=1, with_bins=True)
    assert {each.numbers for each in both} == set(Numbers)
    assert len({each.name for each in both}) == TRIALS == len({(each.policy, each.numbers) for each in both})
    assert both[0] is OWN
    assert {each.numbers for each in trials(OWN, DERIVED, seed=1)} == {Numbers.RAW}
    own = msgspec.structs.replace(OWN, numbers=Numbers.BINS)
    assert {each.numbers for each in trials(own, DERIVED, seed=1)} == {Numbers.BINS}


def test_a_log_with_numbers_is_known_by_its_first_decisions() -> None:
    """Features of letters alone have nothing to cut."""
    survey, numbers = Survey(), Survey()
    survey.take(log(200))
    numbers.take([with_number(each, number) for number, each in enumerate(log(200))])
    assert not survey.has_numbers_to_cut()
    assert numbers.has_numbers_to_cut()


def with_number(event: JoinedEvent, number: int) -> JoinedEvent:
    """Give an event's context a number."""
    context = Features(msgspec.json.encode([{"visitor": {"age": number % 50}}]))
    return msgspec.structs.replace(event, interaction=msgspec.structs.replace(event.interaction, context=context))


@pytest.mark.slow
def test_the_command_says_how_numbers_are_to_be_seen() -> None:
    """The arguments alone would give the loop another policy than the one that was judged."""
    events = [with_number(each, number) for number, each in enumerate(log(1_600))]
    report = search(Written(tuple(events)), [], SETUP, own=OWN, seed=1, tried=8, processes=1)
    assert report.search is not None
    for numbers in Numbers:
        results = [msgspec.structs.replace(result("winner", 0.2, 0.1), numbers=numbers)]
        run = msgspec.structs.replace(report.search, promoted="winner")
        command = apply_command(msgspec.structs.replace(report, policies=tuple(results), search=run))
        assert command == f"rankward settings set LOOP numbers={numbers} && rankward policy set LOOP --cb_explore_adf"


def test_names_are_those_of_the_contract_and_given_once() -> None:
    """Clients know them, and may have applied one before and ask for it again."""
    names = [each.name for each in trials(OWN, DERIVED, seed=1, taken=["hyper1", "Inter-len2"])]
    assert {"Hyper2", "Inter-len2-2"} <= set(names)
    assert not {"Hyper1", "Inter-len2"} & set(names)
    kept = {each.name: each.policy for each in trials(OWN, DERIVED, seed=1)}
    assert kept["Hyper1"].endswith("-q ::")
    assert kept["Inter-len2"].endswith("-q Fi -q Fj --ignore_linear F")


def test_names_that_no_policy_can_write_are_left_out() -> None:
    """The derived interactions of a loop know more namespaces than its policy may name."""
    survey = Survey()
    survey.take([event(0)])
    assert all(pair.isalnum() for pair in survey.interactions().pairs)
    wide = Interactions(tuple(f"{a}{b}" for a in "abcdefghijkl" for b in "mnopqrstuvw"), ())
    assert len(trials(OWN, wide, seed=1)) == TRIALS  # more pairs than are allowed: without them


def test_rungs_read_ever_longer_beginnings() -> None:
    """And none reads what the finalists are to be judged by."""
    events = log(16_000)
    survey = Survey()
    for start in range(0, len(events), 500):
        survey.take(events[start : start + 500])
    stretches = survey.stretches()
    assert [each.share for each in stretches] == list(SHARES)
    for stretch in stretches:
        within = [each for each in events if each.entry.time_us < stretch.until_us]
        assert len(within) == pytest.approx(16_000 * stretch.share, abs=2)
        assert stretch.judged_from_us < stretch.until_us
        assert stretch.batches == pytest.approx(32 * stretch.share, abs=1)


def test_short_logs_have_fewer_rungs() -> None:
    """What a rung of a few decisions sorts out is luck."""
    for count, shares in ((150, []), (300, [1 / 2]), (4_000, [1 / 4, 1 / 2])):
        survey = Survey()
        survey.take(log(count))
        assert [each.share for each in survey.stretches()] == shares
    shown = Survey()
    shown.take([event(number, mode=LearningMode.APPRENTICE) for number in range(300)])
    assert shown.stretches() == []


def result(name: str, value: float | None, low: float = -1.0) -> PolicyResult:
    """Make a result of a difference."""
    interval = Interval(low, 1.0)
    return PolicyResult(
        name=name,
        arguments="--cb_explore_adf",
        source=PolicySource.OFFLINE_EXPERIMENTATION,
        verdict=Verdict.BETTER if low > 0 else Verdict.UNDECIDED,
        totals=Sums(),
        against_online=None if value is None else Estimate(value=value, fixed=interval, always=interval),
    )


def test_the_better_half_goes_on_and_the_own_setting_with_it() -> None:
    """What cannot be judged does not."""
    found = ranking([result("a", 0.1), result("own", -0.1), result("b", 0.3), result("c", None)], "own", 3)
    assert [(each.name, each.kept) for each in found] == [("b", True), ("a", True), ("own", True), ("c", False)]
    assert [each.kept for each in ranking([result("a", 0.1), result("own", -0.1), result("b", 0.3)], "own", 1)] == [
        True,
        False,
        True,
    ]
    assert kept_after(2, 3, 100) == FINALISTS


def test_the_time_that_is_left_is_told_by_the_work() -> None:
    """A rung is not begun if there would be no time to judge what it finds."""
    stretches = [Stretch(share, 0, 0, 0) for share in SHARES]
    course = Course(stretches, tried=33, judged=4)  # 33/8, 17/4 and 9/2 of a policy along the log, and 4
    assert course.share(0, 0.0) == 0.0
    assert course.share(3, 1.0) == 1.0
    assert course.share(1, 0.5) == pytest.approx((33 / 8 + 17 / 8) / (33 / 8 + 17 / 4 + 9 / 2 + 4))
    assert course.ahead_s(0, 5.0) == 0.0
    assert course.ahead_s(1, 33.0) == pytest.approx(8 * (17 / 4 + 4))


def test_only_what_is_better_beyond_doubt_is_promoted() -> None:
    """And of these the one whose lower bound is highest, not the one that looks best."""
    assert promoted([result("a", 0.5), result("b", 0.2)]) == ""
    assert promoted([result("a", 0.5, 0.01), result("b", 0.2, 0.1)]) == "b"


def test_estimates_of_a_finalist_are_of_what_the_search_has_not_used() -> None:
    """Sums and windows are of the whole span, as everybody's, or the contract's counts would differ by policy."""
    drawn = KnownWorld().log(1_000, np.random.default_rng(1))
    times_us = START_US + np.arange(1_000) * MINUTE_US
    whole, late, alone = (
        Judge(RewardRange(0, 1)),
        Judge(RewardRange(0, 1), judged_from_us=START_US + 400 * MINUTE_US),
        Judge(RewardRange(0, 1)),
    )
    for begin in range(0, 1_000, 250):
        part = drawn.part(begin, begin + 250)
        for judge in (whole, late):
            judge.add(part.p_target, part.decisions, part.decisions.rewards, times_us[begin : begin + 250])
    for begin, end in ((400, 500), (500, 750), (750, 1_000)):
        part = drawn.part(begin, end)
        alone.add(part.p_target, part.decisions, part.decisions.rewards, times_us[begin:end])
    assert late.totals == whole.totals
    assert late.windows() == whole.windows()
    assert late.estimate() == alone.estimate()
    assert late.against_online() == alone.against_online()
    assert late.diagnostics() == alone.diagnostics()
    assert late.looks() == alone.looks()


def by_gate(drawn: Log, count: int) -> PolicyResult:
    """Judge the target as one of so many finalists."""
    panel = Panel(RewardRange(0, 1), alpha=gate_alpha(count))
    times_us = START_US + np.arange(len(drawn.decisions.rewards))
    panel.add("", drawn.p_target, drawn.decisions, drawn.decisions.rewards, times_us)
    [found] = panel.results(name="a", arguments="", source=PolicySource.OFFLINE_EXPERIMENTATION)
    return found


def test_what_is_not_better_is_hardly_ever_promoted() -> None:
    """It is the promise of the gate: at most one wrong promotion in twenty searches."""
    world = KnownWorld(target_right=0.57)  # as good as the policy that logs
    assert world.target_value <= world.logging_value + 0.01
    rng = np.random.default_rng(2)
    wrong = sum(promoted([by_gate(world.log(1_000, rng), 3) for _ in range(3)]) != "" for _ in range(60))
    assert wrong <= 6
    assert gate_alpha(1) == ALPHA


def test_what_is_much_better_is_promoted() -> None:
    """A gate that lets nothing pass is safe as well."""
    world, rng = KnownWorld(), np.random.default_rng(3)
    assert sum(promoted([by_gate(world.log(5_000, rng), 3)]) == "a" for _ in range(10)) >= 8


def test_events_before_the_gate_still_teach() -> None:
    """A finalist begins the latest part with what it has learned, as it would have."""
    events = log(1_200)
    own = custom("a", "--cb_explore_adf --epsilon 0.1 -q ::", exploration=0.1)
    late = msgspec.structs.replace(own, name="late", judged_from_us=events[600].entry.time_us)
    part = replayed(Replay([own, late], SETUP, references=False), events)
    assert named(part, "late").totals == named(part, "a").totals
    later, whole = named(part, "late").estimate, named(part, "a").estimate
    assert later is not None
    assert whole is not None
    assert later.value > whole.value


@pytest.mark.slow
def test_a_search_finds_what_is_better_and_says_how_it_came_to_it() -> None:
    """From a policy that learns nothing on, on a log of guests with a taste."""
    own = custom("own", "--cb_explore_adf --epsilon 0.2 -l 0", exploration=0.2)
    source = Written(tuple(log(4_000)), batch=250)
    told: list[Progress] = []
    mine = custom("mine", BALANCED.name, exploration=0.02)
    report = search(source, [mine], SETUP, own=own, seed=5, tried=8, progress=told.append)
    run = report.search
    assert run is not None
    assert [len(rung.ranking) for rung in run.rungs] == [8, 5]
    assert any(each.name == "own" for each in run.rungs[-1].ranking)
    assert (run.seed, run.tried, len(run.finalists)) == (5, 8, FINALISTS)
    names = [each.name for each in report.policies]
    assert names == ["mine", *sorted(names[1:4], key=names.index), "online", "baseline1", "baselineRand"]
    assert set(names[1:4]) == set(run.finalists)
    winner = named(report, run.promoted)
    assert winner.verdict is Verdict.BETTER
    assert winner.totals.events == named(report, "mine").totals.events == 4_000
    assert winner.diagnostics is not None
    assert winner.diagnostics.effective_sample_size < 2_001
    assert run.promoted in run.decision
    assert apply_command(report) == f"rankward policy set LOOP {winner.arguments}"
    assert f"<code>{apply_command(report)}</code>" in render(report, title="t", version="1")
    shares = [state.read for state in told]
    assert shares == sorted(shares)
    again = search(source, [mine], SETUP, own=own, seed=5, tried=8, processes=1)
    assert again == report


@pytest.mark.slow
def test_pages_are_searched_as_well() -> None:
    """What is found decides for several slots, as the loop does."""
    own = custom("own", "--ccb_explore_adf --epsilon 0.2 -l 0", exploration=0.2)
    report = search(Written(tuple(pages(1_500))), [], SETUP, own=own, seed=1, tried=6)
    assert report.search is not None
    winner = named(report, report.search.promoted)
    assert winner.arguments is not None
    assert winner.arguments.startswith("--ccb_explore_adf ")
    assert winner.totals.events == 1_500
    assert winner.verdict is Verdict.BETTER
    slots = [each for each in report.policies if each.name == winner.name and each.slot_id]
    assert all(each.diagnostics is not None and each.totals.events == 1_500 for each in slots)


@pytest.mark.slow
def test_a_search_without_time_judges_what_was_asked_for() -> None:
    """It stops with what it has, and says so."""
    own = custom("own", PERSONALIZER.name, exploration=0.2)
    report = search(Written(tuple(log(400))), [own], SETUP, own=own, seed=1, tried=4, budget_s=0.0)
    assert report.search is not None
    assert report.search.stopped == "time ran out after 0 of 1 rungs"
    assert report.search.finalists == ()
    assert report.search.decision == "Nothing was found."
    assert named(report, "own").estimate is not None


@pytest.mark.slow
def test_a_log_that_cannot_judge_is_not_searched() -> None:
    """Its estimates are made up, and the best of many made-up ones is the worst of all."""
    made_up = [event(number, pmf=(1.0, 0.0, 0.0), reward=1.0) for number in range(300)]
    report = search(Written(tuple(made_up)), [], SETUP, own=OWN, seed=1, tried=3)
    assert report.search is not None
    assert report.search.stopped == "the log's probabilities cannot be true"
    empty = search(Written(()), [], SETUP, own=OWN, seed=1)
    assert empty.search is not None
    assert empty.search.stopped == "the log has too few decisions to search by"


@pytest.mark.slow
def test_a_search_can_be_cancelled() -> None:
    """At any time: while it surveys, and on a rung."""
    looks = iter([False] * 5)
    with pytest.raises(CancelledError):
        search(Written(tuple(log(400))), [], SETUP, own=OWN, seed=1, tried=4, cancelled=lambda: next(looks, True))


def test_names_asked_for_are_checked_before_anything_is_read() -> None:
    """A search takes long."""
    with pytest.raises(InvalidRequest, match="two policies called"):
        search(Written(()), [OWN, OWN], SETUP, own=OWN, seed=1)
