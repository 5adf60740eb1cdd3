"""Features: found, left out, and ranked by what is lost without them."""

from __future__ import annotations

import msgspec
import pytest
from vowpalwabbit import Workspace

from rankward.evaluation.asking import setup_of
from rankward.evaluation.contender import Trained
from rankward.evaluation.importance import ACTION_ID, Census, Feature, groups, scored, without_feature
from rankward.evaluation.leave_out import leave_out, take_census
from rankward.evaluation.service import custom
from rankward.records import Action, AnyInteraction, Features, JoinedEvent
from rankward.settings import LoopSettings
from rankward.vw.parser import context_text
from tests.evaluation.logs import POLICY, SETUP, Written, event, log

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


def test_features_have_the_learners_names() -> None:
    """Plain values belong to the namespace around them; an array of numbers is one feature."""
    census = Census()
    made = featured(
        '[{"hour":3,"visitor":{"device":"phone","deep":{"x":true}},"list":[1,2]},{"b":"c"}]',
        '[{"veg":1}]',
        '[{"d":{}}]',
    )
    census.take(made.interaction)
    found = {*census.varied(50), *census.constant()}
    assert found == {
        *(Feature("FromUrl", name) for name in ("hour", "list", "b")),
        Feature("visitor", "device"),
        Feature("deep", "x"),
        Feature("j", "veg"),
        ACTION_ID,
    }
    assert Feature("j", "veg") in census.varied(50), "one of two actions has it"
    assert census.shown(Feature("visitor", "device")) == ("visitor.devicephone",)
    assert census.shown(Feature("FromUrl", "hour")) == ("FromUrl.hour",)


def test_a_feature_is_left_out_wherever_it_is() -> None:
    """And nothing else is touched."""
    made = featured('[{"x":{"a":1,"b":2}},{"x":{"a":3}}]', '[{"x":{"a":1}},{"a":5}]')
    left = without_feature(made, Feature("x", "a")).interaction
    assert left.context == b'[{"x":{"b":2}},{"x":{}}]'
    assert left.actions[0].features == b'[{"x":{}},{"a":5}]'
    assert without_feature(made, ACTION_ID).interaction.actions[0].id == ""
    assert without_feature(made, Feature("no", "no")).interaction.context == made.interaction.context


@pytest.mark.parametrize(("feature", "option"), [(GUEST, "guest|is"), (DISH, "j|dish"), (ACTION_ID, "i|id")])
def test_leaving_out_is_what_the_learners_own_option_does(feature: Feature, option: str) -> None:
    """Where it has one that can name the feature: both leave the same features in every example."""
    made = event(0).interaction
    left = without_feature(event(0), feature).interaction

    def indexes(arguments: str, interaction: AnyInteraction) -> list[set[int]]:
        workspace = Workspace(f"{POLICY} {arguments} --json --quiet --noconstant")
        examples = workspace._parse(context_text(interaction.context, interaction.actions))
        spaces = [(each, each.namespace(number)) for each in examples for number in range(each.num_namespaces())]
        found = [
            {
                each.feature(space, number)
                for owner, space in spaces
                if owner is each
                for number in range(each.num_features_in(space))
            }
            for each in examples
        ]
        workspace.finish()
        return found

    by_option = indexes(f"--ignore_features_dsjson_experimental {option}", made)
    by_hand = indexes("", left)
    if feature == ACTION_ID:  # ours has one id that all actions share, which cannot tell them apart
        shared = by_hand[1] & by_hand[2] & by_hand[3] - by_option[1]
        by_hand = [found - shared for found in by_hand]
    assert by_hand == by_option


def test_scores_go_from_one_down_and_group_what_goes_together() -> None:
    """What helps nothing has 0, also where the policy does better without it."""
    census = take_census(Written(tuple(log(200))))
    found = scored(census, {GUEST: 0.2, DISH: 0.1, ACTION_ID: -0.05})
    assert [(each.name, each.score) for each in found] == [("is", 1.0), ("dish", 0.5), ("id", 0.0)]
    assert [sorted(group) for group in groups(found)] == [
        ["guest.isadult", "guest.ischild"],
        ["i.idcurry", "i.idsalad", "i.idsoup", "j.dishcurry", "j.dishsalad", "j.dishsoup"],
    ]
    assert [each.score for each in scored(census, {GUEST: -0.1, DISH: 0.0})] == [0.0, 0.0]
    assert scored(Census(), {}) == ()


@pytest.mark.slow
def test_the_feature_that_decides_is_found() -> None:
    """Guests like one dish each: who they are is what matters, and what they are offered."""
    kept: list[Trained] = []
    candidate = custom("own", "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q gj", exploration=0.1)
    candidate = msgspec.structs.replace(candidate, keeps_model=True)
    found = leave_out(Written(tuple(log(3_000))), candidate, SETUP, features_max=5, keep=kept.append)
    best = {(each.namespace, each.name): each for each in found}
    assert best["guest", "is"].score > 0.9
    assert best["j", "dish"].score > 0.9
    assert best["i", "id"].score < 0.3
    assert (best["guest", "is"].loss or 0) > 0.1
    assert [(each.name, each.learned) for each in kept] == [("own", 3_000)]


def test_a_loop_is_judged_under_its_own_settings() -> None:
    """Reward, range and export are those of the loop when it was asked."""
    settings = msgspec.structs.replace(LoopSettings(), default_reward=0.25, reward_max=0.5)
    setup = setup_of(settings)
    assert (setup.rewards.default, setup.reward_max, setup.export_us) == (0.25, 0.5, 300_000_000)
