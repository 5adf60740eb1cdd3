"""Features: left out, permuted, and ranked by what is lost without them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from benchmarks.planted import PLANTED, PlantedLog, losses, measured, ranking_auc
from vowpalwabbit import Workspace

from rankward.evaluation.asking import setup_of
from rankward.evaluation.contender import Blindness, Trained, Way
from rankward.evaluation.contrast import Decisions
from rankward.evaluation.facts import Census
from rankward.evaluation.features import ACTION_ID, Feature, exchanged, without_features
from rankward.evaluation.importance import Loss, groups, scored
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.margin import Margin
from rankward.evaluation.measure import measure_features, take_census
from rankward.evaluation.replay import Replay
from rankward.evaluation.report import Estimate, Interval
from rankward.evaluation.service import custom
from rankward.evaluation.shuffle import Shuffle
from rankward.records import Action, AnyInteraction, Features, JoinedEvent
from rankward.settings import LoopSettings
from rankward.vw.parser import context_text
from tests.evaluation.logs import POLICY, SETUP, Written, event, log, paged, replayed

GUEST, DISH = Feature("guest", "is"), Feature("j", "dish")


def featured(context: str, *actions: str) -> JoinedEvent:
    """Make an event with these features."""
    made = event(0)
    interaction = msgspec.structs.replace(
        made.interaction,
        context=Features(context.encode()),
        actions=tuple([Action(f"a{number}", Features(text.encode())) for number, text in enumerate(actions)]),
    )
    return JoinedEvent(made.offset, made.entry, interaction)


def test_a_feature_is_left_out_wherever_it_is() -> None:
    """And nothing else is touched."""
    made = featured('[{"x":{"a":1,"b":2}},{"x":{"a":3}}]', '[{"x":{"a":1}},{"a":5}]')
    left = without_features(made, frozenset([Feature("x", "a")])).interaction
    assert left.context == b'[{"x":{"b":2}},{"x":{}}]'
    assert left.actions[0].features == b'[{"x":{}},{"a":5}]'
    assert without_features(made, frozenset([ACTION_ID])).interaction.actions[0].id == ""
    assert without_features(made, frozenset([Feature("no", "no")])).interaction.context == made.interaction.context


def indexes(arguments: str, interaction: AnyInteraction) -> list[Counter[int]]:
    """Ask the learner which features each example of a decision has."""
    workspace = Workspace(f"{POLICY} {arguments} --json --quiet --noconstant")
    examples = workspace._parse(context_text(interaction.context, interaction.actions))
    spaces = [(each, each.namespace(number)) for each in examples for number in range(each.num_namespaces())]
    found = [
        Counter(
            {
                each.feature(space, number): each.feature_weight(space, number)
                for owner, space in spaces
                if owner is each
                for number in range(each.num_features_in(space))
            }
        )
        for each in examples
    ]
    workspace.finish()
    return found


@pytest.mark.parametrize(("feature", "option"), [(GUEST, "guest|is"), (DISH, "j|dish"), (ACTION_ID, "i|id")])
def test_leaving_out_is_what_the_learners_own_option_does(feature: Feature, option: str) -> None:
    """Where it has one that can name the feature: both leave the same features in every example."""
    made = event(0).interaction
    left = without_features(event(0), frozenset([feature])).interaction
    by_option = [set(each) for each in indexes(f"--ignore_features_dsjson_experimental {option}", made)]
    by_hand = [set(each) for each in indexes("", left)]
    if feature == ACTION_ID:  # ours has one id that all actions share, which cannot tell them apart
        shared = by_hand[1] & by_hand[2] & by_hand[3] - by_option[1]
        by_hand = [found - shared for found in by_hand]
    assert by_hand == by_option


def test_what_is_put_in_is_what_the_learner_would_have_read() -> None:
    """Wherever it stood: the learner knows a feature by namespace and name, not by its place."""
    wanted = frozenset([Feature("visitor", "age"), Feature("deep", "x"), Feature("FromUrl", "list")])
    text = b'{"visitor":{"age":7}},{"deep":{"x":"b"}},{"list":[4,5]},'
    mine = Features(b'[{"visitor":{"age":3,"is":"new","deep":{"x":"a"}}},{"list":[1,2],"hour":3}]')
    theirs = Features(b'[{"visitor":{"age":7,"is":"new","deep":{"x":"b"}}},{"list":[4,5],"hour":3}]')
    changed = exchanged(mine, wanted, "FromUrl", text)
    actions = event(0).interaction.actions

    def read(context: Features) -> list[Counter[int]]:
        return indexes("", msgspec.structs.replace(event(0).interaction, context=context, actions=actions))

    assert read(changed) == read(theirs) != read(mine)
    assert exchanged(changed, wanted, "FromUrl", text) is changed
    assert exchanged(Features(b"[]"), wanted, "FromUrl", text) == b"[" + text[:-1] + b"]"
    assert exchanged(Features(b'[{"list":[1]}]'), wanted, "FromUrl", b"") == b"[{}]"


def test_a_permuted_feature_has_the_values_of_earlier_decisions() -> None:
    """In the shares in which they came; other features stay, and the same seed draws the same."""
    events = log(2_000)
    drawn = [Shuffle(frozenset([GUEST]), seed=(1,)) for _ in range(2)]
    shuffled = [drawn[0].take(each) for each in events]
    assert shuffled[0] == events[0], "there was none before it"
    assert [drawn[1].take(each) for each in events] == shuffled
    other = Shuffle(frozenset([GUEST]), seed=(2,))
    assert [other.take(each) for each in events] != shuffled
    agreed = sum(one.interaction.context == two.interaction.context for one, two in zip(events, shuffled, strict=True))
    assert 0.45 < agreed / len(events) < 0.55, "of two guests that are as frequent, half have the same by chance"
    assert all(one.interaction.actions == two.interaction.actions for one, two in zip(events, shuffled, strict=True))


def test_features_that_go_together_are_permuted_together() -> None:
    """A dish that never was would ask the policy about what it cannot know."""
    shuffle = Shuffle(frozenset([ACTION_ID, DISH]), seed=(1,))
    actions = {action for each in log(300) for action in shuffle.take(each).interaction.actions}
    assert actions == set(event(0).interaction.actions)


def test_every_slot_of_a_page_is_shown_the_same() -> None:
    """A page is one decision: its slots must not each see another visitor."""
    events = [paged(each) for each in log(300)]
    candidate = custom("own", POLICY.replace("cb_explore", "ccb_explore"), exploration=0.2)
    blind = [Blindness(features=frozenset([feature]), way=way, seed=(1,)) for feature in (GUEST, DISH) for way in Way]
    part = replayed(Replay([msgspec.structs.replace(candidate, blind=tuple(blind))], SETUP, references=True), events)
    assert part.counts.judged == 300
    assert [each.blindness for each in part.losses] == blind
    for each in part.losses:
        assert each.estimate is not None
        assert each.estimate.fixed.low <= each.estimate.value <= each.estimate.fixed.high


@dataclass(frozen=True)
class Pair:
    """Two policies on a log of one action of two, drawn with an even chance."""

    decisions: Decisions
    target: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    other: np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def pair(events: int, rng: np.random.Generator) -> Pair:
    """Draw one: the first action earns .6, the second .4; the target takes the first with .9, the other with .7."""
    taken = rng.integers(0, 2, events)
    rewards = (rng.random(events) < np.where(taken == 0, 0.6, 0.4)).astype(float)
    starts = 2 * np.arange(events)
    decisions = Decisions(np.full(2 * events, 0.5), starts, starts + taken, rewards, np.ones(events))
    return Pair(decisions, np.tile([0.9, 0.1], events), np.tile([0.7, 0.3], events))


def test_a_margin_is_of_the_difference() -> None:
    """Two policies that mostly agree are told apart by far fewer events than their two values would need."""
    rng = np.random.default_rng(1)
    within, values = 0, []
    for _ in range(100):
        drawn, margin = pair(500, rng), Margin(RewardRange(0.0, 1.0))
        margin.add("", drawn.target, drawn.other, drawn.decisions)
        found = margin.estimate(500)
        assert found is not None
        within += found.fixed.low <= 0.04 <= found.fixed.high
        values.append(found.value)
    assert within >= 90
    assert np.mean(values) == pytest.approx(0.04, abs=0.005)
    assert Margin(RewardRange(0.0, 1.0)).estimate(1) is None


def test_a_policy_against_itself_loses_nothing() -> None:
    """And surely so: there is no doubt about what is the same."""
    drawn, margin = pair(200, np.random.default_rng(2)), Margin(RewardRange(0.0, 2.0))
    margin.add("", drawn.target, drawn.target, drawn.decisions)
    found = margin.estimate(200)
    assert found is not None
    assert (found.value, found.fixed) == (0.0, Interval(0.0, 0.0))


def lost(value: float) -> Estimate:
    """Make an estimate of a loss."""
    return Estimate(value=value, fixed=Interval(value - 0.1, value + 0.1), always=Interval(value - 0.2, value + 0.2))


def test_scores_go_from_one_down_and_group_what_goes_together() -> None:
    """Features that go together share one loss: without only one of them, little would be lost, and both look idle."""
    census = take_census(Written(tuple(log(200))))
    assert sorted(map(sorted, census.kin([GUEST, DISH, ACTION_ID]))) == [[GUEST], sorted([DISH, ACTION_ID])]
    found = scored(census, [Loss((DISH, ACTION_ID), lost(0.1), lost(0.3)), Loss((GUEST,), lost(0.2), None)])
    assert [(each.name, each.score, each.shared_with) for each in found] == [
        ("is", 1.0, ()),
        ("dish", 0.5, ("i.id",)),
        ("id", 0.5, ("j.dish",)),
    ]
    assert [each.permuted for each in found] == [None, lost(0.3), lost(0.3)]
    assert [sorted(group) for group in groups(found)] == [
        ["guest.isadult", "guest.ischild"],
        ["i.idcurry", "i.idsalad", "i.idsoup", "j.dishcurry", "j.dishsalad", "j.dishsoup"],
    ]
    worse = scored(census, [Loss((GUEST,), lost(-0.1), None), Loss((DISH,), lost(0.0), None)])
    assert [each.score for each in worse] == [0.0, 0.0], "what helps nothing has 0"
    assert scored(Census(), []) == ()
    assert scored(census, [Loss((GUEST,), None, None)]) == (), "what could not be judged has no score"


@pytest.mark.slow
def test_the_feature_that_decides_is_found() -> None:
    """Guests like one dish each: who they are is what matters, and what they are offered."""
    kept: list[Trained] = []
    candidate = custom("own", "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q gj", exploration=0.1)
    candidate = msgspec.structs.replace(candidate, keeps_model=True)
    found = measure_features(Written(tuple(log(3_000))), candidate, SETUP, features_max=5, seed=1, keep=kept.append)
    best = {(each.namespace, each.name): each for each in found.scores}
    for name in (("guest", "is"), ("j", "dish"), ("i", "id")):
        assert best[name].score > 0.7
        for loss in (best[name].left_out, best[name].permuted):
            assert loss is not None
            assert loss.always.low > 0, "beyond doubt"
    assert best["i", "id"].shared_with == ("j.dish",)
    assert [(each.name, each.learned) for each in kept] == [("own", 3_000)]
    assert [(each.namespace, each.name, each.distinct) for each in found.facts] == [
        ("guest", "is", 2),
        ("j", "dish", 3),
        ("i", "id", 3),
    ]


@pytest.mark.slow
def test_planted_features_are_ranked_above_others() -> None:
    """`make bench-evaluation` in small: six of nine features matter, and each of both ways finds them."""
    found = measured(PlantedLog(2_000, seed=1, of_each=3))
    for way in Way:
        lost_without = losses(found, way.value)
        assert len(lost_without) == 10, "every feature has an interval, the action's id too"
        assert set(lost_without) > PLANTED
        assert ranking_auc({feature: each.value for feature, each in lost_without.items()}) >= 0.85


def test_a_loop_is_judged_under_its_own_settings() -> None:
    """Reward, range and export are those of the loop when it was asked."""
    settings = msgspec.structs.replace(LoopSettings(), default_reward=0.25, reward_max=0.5)
    setup = setup_of(settings)
    assert (setup.rewards.default, setup.reward_max, setup.export_us) == (0.25, 0.5, 300_000_000)
