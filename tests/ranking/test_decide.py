"""One decision: who is drawn, who is shown, and in which order the actions are answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.errors import InvalidRequest
from rankward.ranking.decide import RankRequest, decide, excluded_indexes, new_event_id, ranking
from rankward.ranking.explore import InvalidPmfError
from rankward.records import Action, Features, Interaction, LearningMode

if TYPE_CHECKING:
    from collections.abc import Sequence


class Fixed:
    """A policy that always says the same, and remembers what it was asked."""

    model_id = "m1"

    def __init__(self, *pmf: float) -> None:
        self._pmf = pmf
        self.asked: list[str] = []

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:  # noqa: ARG002
        """See `ranking.decide.Policy`."""
        self.asked = [action.id for action in actions]
        return list(self._pmf)


def decided(
    *ids: str,
    policy: Fixed | None = None,
    excluded: tuple[int, ...] = (),
    event_id: str = "e1",
    mode: LearningMode = LearningMode.ONLINE,
    exploration: float = 0.2,
) -> Interaction:
    """Decide among actions."""
    request = RankRequest(
        event_id=event_id,
        context=Features(b"[]"),
        actions=tuple(Action(name, Features(b'[{"x":1}]')) for name in ids),
        excluded=excluded,
    )
    return decide(request, policy, loop_id="loop", mode=mode, exploration=exploration, reward_wait_us=600)


def drawing(
    wanted: str, *ids: str, policy: Fixed | None = None, mode: LearningMode = LearningMode.ONLINE
) -> Interaction:
    """The first of many numbered events that draws an action."""
    events = (decided(*ids, policy=policy, mode=mode, event_id=f"e{n}") for n in range(10_000))
    return next(event for event in events if event.actions[event.chosen].id == wanted)


@pytest.mark.parametrize(("count", "each"), [(1, 1.0), (2, 0.5), (50, 0.02)])
def test_without_a_model_every_action_is_as_likely(count: int, each: float) -> None:
    """Before there is a first model, exploration is total; a single action is certain."""
    decision = decided(*map(str, range(count)))

    assert decision.pmf == pytest.approx([each] * count)
    assert decision.model_id is None


def test_the_model_is_asked_about_the_rankable_actions_only() -> None:
    """An excluded action has no probability to give away, and its place is kept."""
    policy = Fixed(1.0, 0.0)
    decision = decided("a", "b", "c", policy=policy, excluded=(1,))

    assert policy.asked == ["a", "c"]
    assert decision.pmf == pytest.approx((0.9, 0.0, 0.1))
    assert decision.model_id == "m1"


def test_a_single_rankable_action_is_certain_and_needs_no_model() -> None:
    """The contract: K = 1 gives 1.0."""
    policy = Fixed(0.3)

    assert decided("a", "b", policy=policy, excluded=(0,)).pmf == (0.0, 1.0)
    assert policy.asked == []


def test_a_policy_that_gives_no_distribution_is_not_followed() -> None:
    """It is answered as the contract's ModelRankingError, and nothing is logged."""
    with pytest.raises(InvalidPmfError):
        decided("a", "b", policy=Fixed(0.2, 0.2))


def test_the_drawn_action_comes_first_and_the_rest_descends() -> None:
    """On an exploring call the ranking begins with a small probability."""
    decision = drawing("b", "a", "b", "c", policy=Fixed(0.3, 0.0, 0.7))

    assert [decision.actions[index].id for index in ranking(decision)] == ["b", "c", "a"]


def test_excluded_actions_keep_their_place_in_the_ranking() -> None:
    """With the first one excluded, `ranking[0]` is not the action to show."""
    decision = decided("a", "b", "c", excluded=(0,), policy=Fixed(0.0, 1.0), exploration=0.0)

    assert [decision.actions[index].id for index in ranking(decision)] == ["a", "c", "b"]
    assert decision.actions[decision.shown].id == "c"


def test_an_apprentice_draws_but_shows_the_baseline() -> None:
    """What is logged is the model's draw; what the user sees is what the application had anyway."""
    decision = drawing("b", "a", "b", policy=Fixed(0.0, 1.0), mode=LearningMode.APPRENTICE)

    assert (decision.chosen, decision.shown) == (1, 0)
    assert decision.pmf == pytest.approx((0.1, 0.9))
    assert ranking(decision) == [0, 1]


def test_an_apprentice_shows_the_first_action_that_is_not_excluded() -> None:
    """That is the baseline."""
    decision = decided("a", "b", "c", excluded=(0,), mode=LearningMode.APPRENTICE)

    assert (decision.baseline, decision.shown) == (1, 1)


def test_logging_only_takes_the_baseline_for_certain() -> None:
    """The application decided; the log must not claim that chance did."""
    decision = decided("a", "b", "c", policy=Fixed(0.0, 1.0, 0.0), excluded=(0,), mode=LearningMode.LOGGING_ONLY)

    assert (decision.chosen, decision.shown, decision.pmf) == (1, 1, (0.0, 1.0, 0.0))


@given(
    st.integers(1, 50).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=n - 1))),
    st.sampled_from(LearningMode),
    st.text(max_size=20),
)
def test_every_action_is_ranked_once(shape: tuple[int, set[int]], mode: LearningMode, event_id: str) -> None:
    """Whatever is excluded, and whoever decides."""
    count, excluded = shape
    places = tuple(sorted(excluded))
    decision = decided(*map(str, range(count)), excluded=places, mode=mode, event_id=event_id)
    order = ranking(decision)

    assert sorted(order) == list(range(count))
    assert all(order[index] == index for index in places)
    assert sum(decision.pmf) == pytest.approx(1.0)
    assert decision.pmf[decision.chosen] > 0.0
    assert decision.shown not in excluded


def test_excluding_everything_is_refused() -> None:
    """Nothing would be left to choose."""
    actions = [Action("a", Features(b"[{}]")), Action("b", Features(b"[{}]"))]

    assert excluded_indexes(actions, ["b", "nobody"]) == (1,)
    with pytest.raises(InvalidRequest, match="all 2 actions"):
        excluded_indexes(actions, ["a", "b"])


def test_event_ids_are_made_as_the_original_made_them() -> None:
    """32 hex digits, a dash, and the seconds since 2017-09-16 in base 62."""
    made = new_event_id(UUID("12345678123456781234567812345678"), datetime(2026, 1, 15, 12, tzinfo=UTC))

    assert made == "12345678123456781234567812345678-hNluw"
