"""Policies judged while they learn, as they would have run."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from rankward.evaluation.contender import Candidate
from rankward.evaluation.replay import SETTLED_BY, Replay, derived_interactions
from rankward.evaluation.report import Verdict
from rankward.evaluation.service import custom
from rankward.ranking.explore import check_pmf, floored
from rankward.records import Bins, Features, JoinedEvent, LearningMode
from rankward.settings import Numbers
from rankward.vw.bins import settle
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED, learner_arguments
from tests.evaluation.logs import MINUTE_US, POLICY, SETUP, event, log, named, paged, replayed


def played_by_hand(candidate: Candidate, events: list[JoinedEvent], arguments: str, bins: Bins | None = None) -> float:
    """Add up what a policy's weights make of the rewards, with the learner itself and nothing between."""
    learner = Learner(arguments, bins=bins)
    learned, total, waiting = 0, 0.0, list(events)
    for each in events:
        published_us = each.entry.time_us // SETUP.export_us * SETUP.export_us
        while waiting[0].entry.due_us <= published_us:
            first = waiting.pop(0)
            decision = first.interaction
            [observation] = first.entry.observations
            learner.learn(
                decision.context,
                decision.actions,
                chosen=decision.choices[0].chosen,
                probability=decision.choices[0].probability,
                reward=observation.value,
            )
            learned += 1
        decision = each.interaction
        pmf = [1 / 3] * 3
        if learned:
            pmf = floored(check_pmf(learner.pmf(decision.context, decision.actions), 3), candidate.exploration)
        [observation] = each.entry.observations
        choice = decision.choices[0]
        total += pmf[choice.chosen] / choice.probability * observation.value
    learner.close()
    return total


@pytest.mark.parametrize("policy", [POLICY, BALANCED.name, "--cb_explore_adf --softmax --lambda 5"])
def test_a_policy_is_replayed_as_the_learner_itself_would_act(policy: str) -> None:
    """What is judged is the policy that would run, event by event, through models as old as they would have been."""
    events = log(1_200)
    candidate = custom("mine", policy, exploration=0.1)
    derived = derived_interactions([each.interaction for each in events[:SETTLED_BY]])
    arguments = learner_arguments(
        candidate.policy, derived if candidate.derives_interactions else None, candidate.exploration
    )
    found = replayed(Replay([candidate], SETUP, references=False), events)
    expected = played_by_hand(candidate, events, arguments)
    assert named(found, "mine").totals.weighted_rewards == pytest.approx(expected, rel=1e-6)


def test_numbers_are_seen_as_an_epoch_of_these_events_would_see_them() -> None:
    """Edges come from the first events, as a trainer finds them, and the log keeps its features as they were."""
    events = [
        msgspec.structs.replace(
            each,
            interaction=msgspec.structs.replace(
                each.interaction, context=Features(msgspec.json.encode([{"age": number * 7 % 60}]))
            ),
        )
        for number, each in enumerate(log(1_200))
    ]
    bins = settle(each.interaction for each in events[:SETTLED_BY])
    assert list(bins.edges) == ["FromUrl"]
    candidate = custom("mine", POLICY, exploration=0.1, numbers=Numbers.BINS)
    found = replayed(Replay([candidate], SETUP, references=False), events)
    expected = played_by_hand(candidate, events, learner_arguments(POLICY, None, 0.1), bins)
    assert named(found, "mine").totals.weighted_rewards == pytest.approx(expected, rel=1e-6)
    assert named(found, "mine").numbers is Numbers.BINS


def test_nothing_is_known_before_it_could_have_been() -> None:
    """A reward that comes ten minutes later cannot have helped: to judge as if it had flatters every policy."""
    found = replayed(
        Replay([custom("mine", POLICY, exploration=0.2)], SETUP, references=True),
        [event(number, reward=1.0) for number in range(10)],  # the first is due when the last is over
    )
    assert named(found, "mine").totals == named(found, "baselineRand").totals


def test_learning_shows() -> None:
    """On a log that tries everything, a policy that learns is found better than the one that does not."""
    found = replayed(Replay([custom("mine", BALANCED.name, exploration=0.02)], SETUP, references=True), log(4_000))
    mine, online = named(found, "mine"), named(found, "online")
    assert mine.estimate is not None
    assert online.estimate is not None
    assert mine.estimate.value > 0.7
    assert online.estimate.value == pytest.approx(0.38, abs=0.05)
    assert mine.verdict is Verdict.BETTER
    assert online.verdict is Verdict.REFERENCE
    assert named(found, "baselineRand").verdict is not Verdict.BETTER
    assert [result.name for result in found.policies] == ["mine", "online", "baseline1", "baselineRand"]


def test_a_fixed_model_is_judged_as_it_is() -> None:
    """A model that was trained elsewhere answers from the first event on, and learns nothing."""
    events = log(600)
    teacher = Learner(learner_arguments(POLICY, None, 0.2))
    for each in events:
        [choice], [observation] = each.interaction.choices, each.entry.observations
        teacher.learn(
            each.interaction.context,
            each.interaction.actions,
            chosen=choice.chosen,
            probability=choice.probability,
            reward=observation.value,
        )
    model = teacher.save()
    found = replayed(Replay([custom("fixed", POLICY, exploration=0.2, model=model)], SETUP, references=False), events)
    weights = []
    for each in events:
        [choice] = each.interaction.choices
        pmf = floored(check_pmf(teacher.pmf(each.interaction.context, each.interaction.actions), 3), 0.2)
        weights.append(pmf[choice.chosen] / choice.probability)
    assert named(found, "fixed").totals.weights == pytest.approx(np.sum(weights), rel=1e-6)


def test_rewards_of_a_baseline_that_was_shown_judge_the_baseline_only() -> None:
    """In Apprentice mode the model's draw is logged and the baseline shown: its reward says nothing of the draw."""
    events = [event(number, chosen=2, reward=0.75, mode=LearningMode.APPRENTICE) for number in range(5)]
    found = replayed(Replay([custom("mine", POLICY, exploration=0.2)], SETUP, references=True), events)
    assert found.counts.baseline_only == 5
    assert found.counts.judged == 0
    baseline = named(found, "baseline1")
    assert baseline.totals.events == 5
    assert baseline.totals.weighted_rewards == pytest.approx(5 * 0.75)
    for name in ("mine", "online", "baselineRand"):
        assert named(found, name).estimate is None
        assert named(found, name).verdict is Verdict.UNKNOWN


def test_decisions_that_were_never_shown_are_passed_over() -> None:
    """A deferred decision without activation earned nothing and cost nothing."""
    events = [event(0, deferred=True, reward=None), event(1, reward=1.0)]
    found = replayed(Replay([], SETUP, references=True), events)
    assert found.counts.never_activated == 1
    assert found.counts.judged == 1


def test_a_missing_reward_is_the_default() -> None:
    """What was not observed counts as the loop says."""
    setup = msgspec.structs.replace(SETUP, rewards=msgspec.structs.replace(SETUP.rewards, default=0.5))
    found = replayed(Replay([], setup, references=True), [event(0, reward=None)])
    assert named(found, "online").totals.rewards == 0.5


def test_rewards_outside_the_range_are_cut_in_estimates_and_counted() -> None:
    """Intervals take the range for granted; the contract's plain sums show what was reported."""
    found = replayed(Replay([], SETUP, references=True), [event(0, reward=7.0), event(1, reward=1.0)])
    online = named(found, "online")
    assert found.counts.clipped == 1
    assert online.totals.rewards == 8.0
    assert online.estimate is not None
    assert online.estimate.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pmf", "chosen", "why"),
    [
        ((0.6, 0.2, 0.1), 0, "add up to 0.9"),
        ((1.2, -0.2, 0.0), 0, "below 0"),
        ((0.5, 0.5, 0.0), 2, "has probability 0"),
        ((float("nan"), 0.5, 0.5), 0, "add up to nan"),
    ],
)
def test_probabilities_that_are_none_are_named(pmf: tuple[float, ...], chosen: int, why: str) -> None:
    """One such event would make a sum infinite, or quietly wrong."""
    found = replayed(Replay([], SETUP, references=True), [event(0, pmf=pmf, chosen=chosen), event(1)])
    assert found.counts.unusable == 1
    assert found.counts.judged == 1
    [flaw] = found.flaws
    assert flaw.place == "event e0"
    assert why in flaw.why


def test_a_subsampled_event_stands_for_those_that_were_dropped() -> None:
    """A client that uploads one decision in four has four times as many."""
    found = replayed(
        Replay([], SETUP, references=True),
        [event(0, reward=1.0, pass_probability=0.25), event(1, reward=0.0)],
    )
    totals = named(found, "online").totals
    assert (totals.events, totals.count, totals.weighted_rewards) == (2, 5.0, 4.0)


def test_a_subsampled_page_weighs_as_much_as_a_loop_lets_it() -> None:
    """It was learned as if nothing had been dropped, so what was judged was not what the loop would do."""
    candidate = custom("own", POLICY.replace("cb_explore", "ccb_explore"), exploration=0.2)
    candidate = msgspec.structs.replace(candidate, keeps_model=True)
    weights = []
    for pass_probability in (1.0, 0.25):
        events = [paged(each, pass_probability=pass_probability) for each in log(20)]
        [trained] = replayed(Replay([candidate], SETUP, references=True), events).trained
        learner = Learner(learner_arguments(trained.policy, None, 0.2), trained.model)
        weights.append(learner.weights())
        learner.close()
    assert weights[0] != weights[1]


def test_windows_add_up_to_the_whole() -> None:
    """The series and the total are of the same events."""
    found = replayed(Replay([], SETUP, references=True), log(300))
    online = named(found, "online")
    assert sum(window.sums.rewards for window in online.windows) == pytest.approx(online.totals.rewards)
    assert len(online.windows) == 300 // (4 * 5)
    assert online.windows[0].start_us % (5 * MINUTE_US) == 0


def test_a_policy_that_breaks_is_not_judged() -> None:
    """Half a log's worth of estimates is no estimate."""
    events = log(600)
    broken = msgspec.structs.replace(events[550].interaction, context=Features(b'[{"guest":'))
    events[550] = msgspec.structs.replace(events[550], interaction=broken)
    found = replayed(Replay([custom("mine", POLICY, exploration=0.2)], SETUP, references=True), events)
    mine = named(found, "mine")
    assert (mine.estimate, mine.against_online, mine.verdict) == (None, None, Verdict.UNKNOWN)
    assert "it broke at event e550" in mine.notes[0]
    assert named(found, "online").estimate is not None


def test_an_empty_log_is_judged_as_such() -> None:
    """Nothing happened, and that is what is said."""
    found = replayed(Replay([custom("mine", POLICY, exploration=0.2)], SETUP, references=True), [])
    assert all(result.estimate is None for result in found.policies)
    assert (found.start_us, found.end_us) == (0, 0)
