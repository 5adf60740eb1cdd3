"""Every world keeps the promises that its figures rest on."""

from __future__ import annotations

import builtins
import itertools
from typing import Any

import numpy as np
import pytest

from rankward.errors import CallerError, NotFound
from rankward.simulate import datasets
from rankward.simulate.clicks import TOPICS
from rankward.simulate.world import Page
from rankward.simulate.worlds import WORLDS, Parameter, Round, World, make_page_world, make_world

EVERY_WORLD = pytest.mark.parametrize("name", WORLDS)


def rounds(world: World, count: int, *, seed: int = 1) -> list[Round]:
    """Return the first rounds of a world."""
    return list(itertools.islice(world.rounds(np.random.default_rng(seed)), count))


def plain(played: Round) -> tuple[Any, ...]:
    """Return a round as something that compares."""
    return played.context, played.actions, played.means.tolist()


@EVERY_WORLD
def test_a_seed_gives_the_same_rounds_again(name: str) -> None:
    """A run can be repeated, and two policies can be compared on the same situations."""
    first, again, other = (rounds(make_world(name), 200, seed=seed) for seed in (7, 7, 8))

    assert [plain(played) for played in first] == [plain(played) for played in again]
    assert [plain(played) for played in first] != [plain(played) for played in other]


@EVERY_WORLD
def test_a_seed_gives_the_same_rewards_again(name: str) -> None:
    """What an action is worth does not depend on when it was asked for."""
    world = make_world(name)
    for played in rounds(world, 50):
        first, again = (world.rewards(played, 1, np.random.default_rng(3)) for _ in range(2))
        assert list(first) == list(again)


@EVERY_WORLD
def test_means_are_rewards_and_choosing_can_pay(name: str) -> None:
    """Means lie in [0, 1], one for each action, and the best is clearly above chance."""
    played = rounds(make_world(name), 1000)

    for each in played:
        assert each.means.shape == (len(each.actions),)
        assert each.means.min() >= 0
        assert each.means.max() <= 1
        assert each.best >= each.uniform
        assert len({action_id for action_id, _ in each.actions}) == len(each.actions)
    assert np.mean([each.best for each in played]) > 1.2 * np.mean([each.uniform for each in played])


@EVERY_WORLD
def test_context_and_actions_share_no_first_letter(name: str) -> None:
    """The learner knows a namespace by its first letter: a shared one would count as both sides."""
    for played in rounds(make_world(name), 20):
        of_context = {key[0] for part in played.context for key in part}
        of_actions = {key[0] for _, features in played.actions for part in features for key in part}
        assert not of_context & of_actions


@EVERY_WORLD
def test_rewards_average_to_the_mean_of_what_is_counted(name: str) -> None:
    """The display shows means, the service is told rewards: they must be about the same thing."""
    parameters: dict[str, Parameter] = {"base_rate": 0.1} if name == "clicks" else {}
    world = make_world(name, **parameters)
    wait_s = float(world.parameters.get("wait_s", 1.0))
    rng = np.random.default_rng(11)
    played = rounds(world, 1)[0]
    index = int(played.means.argmax())

    counted = [
        sum(value for delay_s, value in world.rewards(played, index, rng) if delay_s < wait_s) for _ in range(4000)
    ]

    assert np.mean(counted) == pytest.approx(played.best, abs=0.03)


@EVERY_WORLD
def test_a_length_is_the_number_of_rounds(name: str) -> None:
    """A run over data ends with the data."""
    world = make_world(name)
    if world.length is not None:
        assert sum(1 for _ in world.rounds(np.random.default_rng(1))) == world.length


def test_grocery_has_no_noise_and_no_meal_for_everybody() -> None:
    """Its rewards are certain, and a policy that always shows the same meal does no better than chance."""
    world = make_world("grocery")
    situations = {str(played.context): played for played in rounds(world, 1000)}
    means = np.array([played.means for played in situations.values()])
    [(delay_s, value)] = world.rewards(next(iter(situations.values())), 2, np.random.default_rng(1))

    assert len(situations) == 27
    assert (delay_s, value) == (0.0, next(iter(situations.values())).means[2])
    assert means.mean(axis=0) == pytest.approx(np.full(5, means.mean()))
    assert set(means.argmax(axis=1)) == set(range(5))


def test_grocery_is_linear_in_pairs() -> None:
    """A linear model of pairs can reach the optimum: nothing is left after its main effects."""
    means = np.array([played.means for played in _grocery_situations()]).reshape(3, 3, 3, 5)
    parts = [means.mean(axis=axes, keepdims=True) for axes in ((1, 2), (0, 2), (0, 1))]
    overall = means.mean(axis=(0, 1, 2), keepdims=True)

    assert sum(parts) - 2 * overall == pytest.approx(means)


def _grocery_situations() -> list[Round]:
    found = {str(played.context): played for played in rounds(make_world("grocery"), 1000)}
    return sorted(found.values(), key=lambda played: [str(part) for part in played.context])


def test_grocery_meals_all_have_the_same_number_of_features() -> None:
    """A slow learner would prefer the meal with most features, whoever is asking."""
    [played] = rounds(make_world("grocery"), 1)
    counts = {
        sum(bool(value) for part in features for group in part.values() for value in group.values())
        for _, features in played.actions
    }

    assert len(counts) == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_clicks_are_rare_whatever_the_seed(seed: int) -> None:
    """1 to 3 % for a random choice, 3 to 5 % for the best."""
    played = rounds(make_world("clicks"), 10_000, seed=seed)

    assert 0.01 < np.mean([each.uniform for each in played]) < 0.03
    assert 0.03 < np.mean([each.best for each in played]) < 0.05


def test_clicks_follow_their_base_rate() -> None:
    """Twice the base rate, twice the clicks, for the same visitors and articles."""
    low, high = (rounds(make_world("clicks", base_rate=rate), 100) for rate in (0.01, 0.02))

    assert [each.best for each in high] == pytest.approx([2 * each.best for each in low])


def test_articles_come_and_go_one_at_a_time() -> None:
    """The inventory keeps its size and its topics; after `inventory` renewals nothing old is left."""
    played = rounds(make_world("clicks", inventory=10, renewal=100), 1001)
    inventories = [{action_id for action_id, _ in each.actions} for each in played]

    assert all(len(inventory) == 10 for inventory in inventories)
    changes = [number for number in range(1, 1001) if inventories[number] != inventories[number - 1]]
    assert changes == list(range(100, 1001, 100))
    assert all(len(inventories[number] - inventories[number - 1]) == 1 for number in changes)
    assert not inventories[0] & inventories[1000]
    for each in (played[0], played[550], played[1000]):
        assert {features[0]["article"]["topic"] for _, features in each.actions} == set(TOPICS)


def test_tastes_switch_three_times_in_12000_rounds() -> None:
    """And at no other time; a switch changes the best choice of every visitor."""
    best: dict[str, list[tuple[int, int]]] = {}
    for number, each in enumerate(rounds(make_world("drift"), 12_000)):
        best.setdefault(str(each.context), []).append((number // 3000, int(each.means.argmax())))

    for choices in best.values():
        by_stretch = [{index for stretch, index in choices if stretch == wanted} for wanted in range(4)]
        assert [len(indexes) for indexes in by_stretch] == [1, 1, 1, 1]
        assert all(a != b for a, b in itertools.pairwise(by_stretch))


def test_delayed_rewards_come_late_in_parts_or_never_as_often_as_said() -> None:
    """Each kind of trouble has its share, and parts add up to the value."""
    world = make_world("delayed", wait_s=10, late=0.2, several=0.3, never=0.1, parts=4)
    rng = np.random.default_rng(5)
    played = rounds(world, 1)[0]
    reports = [list(world.rewards(played, 0, rng)) for _ in range(5000)]
    late = [report for report in reports if report and report[0][0] >= 10]
    several = [report for report in reports if len(report) > 1]

    assert len(late) / 5000 == pytest.approx(0.2, abs=0.02)
    assert len(several) / 5000 == pytest.approx(0.3, abs=0.02)
    assert reports.count([]) / 5000 == pytest.approx(0.1, abs=0.02)
    for report in several:
        delays = [delay_s for delay_s, _ in report]
        assert len(report) == 4
        assert delays == sorted(delays)
        assert delays[-1] < 10
        assert sum(value for _, value in report) == pytest.approx(played.means[0] / 0.7)


def test_each_pass_has_its_own_order() -> None:
    """Every row once in each pass: a pass is a shuffle, not a sample."""
    contexts = [str(each.context) for each in make_world("digits", passes=2).rounds(np.random.default_rng(1))]
    first, second = contexts[:1797], contexts[1797:]

    assert sorted(first) == sorted(second)
    assert first != second


def test_parameters_may_be_text() -> None:
    """As they come from a command line."""
    assert make_world("clicks", base_rate="0.02", inventory="5").parameters == {
        "base_rate": 0.02,
        "inventory": 5,
        "renewal": 1000,
    }


def test_an_unknown_world_or_parameter_is_named_with_what_there_is() -> None:
    """Whoever mistypes is told what would have worked."""
    with pytest.raises(NotFound, match="no world `grocer`: choose one of grocery, digits"):
        make_world("grocer")
    with pytest.raises(CallerError, match="no parameter `rate`: it has base_rate, inventory, renewal"):
        make_world("clicks", rate=0.1)
    with pytest.raises(CallerError, match=r"base_rate: expected `float` <= 0\.2"):
        make_world("clicks", base_rate=2)
    with pytest.raises(CallerError, match=r"late \+ several \+ never is 1.3, above 1"):
        make_world("delayed", late=0.9)


def test_without_scikit_learn_a_data_world_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional, so its absence is the caller's to mend."""
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    datasets._digits.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(CallerError, match="pip install scikit-learn"):
        _ = make_world("digits").length


def pages(count: int, parameters: dict[str, Parameter] | None = None, *, seed: int = 1) -> list[Page]:
    """Return the first pages of the front page."""
    return list(
        itertools.islice(make_page_world("frontpage", **(parameters or {})).pages(np.random.default_rng(seed)), count)
    )


@pytest.mark.parametrize("parameters", [{}, {"base_rate": 0.35, "inventory": 20, "seen": 1.0}])
def test_means_of_a_page_are_rewards_and_filling_it_well_pays(parameters: dict[str, Parameter]) -> None:
    """A mean for each action in each slot, within [0, 1], and the letters of the three sides apart."""
    for page in pages(100, parameters):
        assert page.means.shape == (len(page.slots), len(page.actions))
        assert 0 <= page.means.min() <= page.means.max() <= 1
        assert page.best > 1.2 * page.uniform
        of_context, of_actions, of_slots = (
            {key[0] for part in parts for key in part}
            for parts in (
                page.context,
                [part for _, features in page.actions for part in features],
                [part for _, features in page.slots for part in features],
            )
        )
        assert not of_context & of_actions
        assert not of_context & of_slots
        assert not of_actions & of_slots


def test_the_best_page_has_the_best_items_in_order() -> None:
    """What stands lower is seen by fewer, so the best stands at the top; no item stands there twice."""
    for page in pages(20):
        best = np.argsort(-page.means[0])[: len(page.slots)]
        assert page.best == pytest.approx(page.means_of([int(index) for index in best]).sum())


def test_clicks_average_to_the_means_of_what_is_shown() -> None:
    """The display shows means, the service is told clicks: they must be about the same thing."""
    world = make_page_world("frontpage", base_rate=0.3)
    [page], rng = pages(1, {"base_rate": 0.3}), np.random.default_rng(5)
    clicks = [world.rewards(page, (2, 0, 1), rng) for _ in range(4_000)]

    assert np.mean(clicks, axis=0) == pytest.approx(page.means_of((2, 0, 1)), abs=0.03)


def test_a_seed_gives_the_same_pages_again() -> None:
    """A run can be repeated."""
    first, again, other = ([page.means.tolist() for page in pages(50, seed=seed)] for seed in (7, 7, 8))

    assert first == again
    assert first != other
