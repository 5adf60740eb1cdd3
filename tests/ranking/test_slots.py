"""Decisions for several slots: draws, modes, and what is refused because a slot could come out empty."""

from __future__ import annotations

from collections import Counter
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.errors import InvalidRequest
from rankward.ranking.decide import RankRequest
from rankward.ranking.explore import InvalidPmfError, as_uniform, slot_seed
from rankward.ranking.slots import SlotsRequest, check_slots, decide_slots, one_slot, without_slots
from rankward.records import Action, Features, LearningMode, MultiSlotInteraction, Slot, SlotChoice

NOTHING = Features(b"[]")
ACTIONS = tuple(Action(name, NOTHING) for name in "abcd")


def slot(name: str, baseline: int, *excluded: int) -> Slot:
    """Make a slot without features."""
    return Slot(name, NOTHING, baseline, excluded)


REQUEST = SlotsRequest(
    event_id="e1",
    context=NOTHING,
    actions=ACTIONS,
    slots=(slot("hero", 2, 1), slot("side", 0), slot("foot", 1, 0)),
)


class Drawn:
    """A policy that has drawn already."""

    model_id = "m1"

    def __init__(self, *choices: SlotChoice) -> None:
        self._choices = choices

    def choices(self, *_: object) -> list[SlotChoice]:
        """See `ranking.slots.SlotPolicy`."""
        return list(self._choices)


def decided(
    request: SlotsRequest = REQUEST,
    policy: Drawn | None = None,
    mode: LearningMode = LearningMode.ONLINE,
) -> MultiSlotInteraction:
    """Decide with what a test leaves open."""
    return decide_slots(request, policy, loop_id="l1", mode=mode, reward_wait_us=1)


def test_before_a_model_each_slot_draws_uniformly_from_what_is_left() -> None:
    """In slot order, without replacement, honouring exclusions."""
    counts: Counter[tuple[int, ...]] = Counter()
    for n in range(4_000):
        interaction = decided(msgspec.structs.replace(REQUEST, event_id=f"e{n}"))
        taken: set[int] = set()
        for place, choice in zip(interaction.slots, interaction.choices, strict=True):
            left = set(range(4)) - taken - set(place.excluded)
            assert set(choice.actions) == left
            assert choice.pmf == (1 / len(left),) * len(left)
            taken.add(choice.chosen)
        counts[tuple(choice.chosen for choice in interaction.choices)] += 1
        assert interaction.model_id is None

    # The hero draws a, c or d; the side one of the three that are left; the foot b, c or d, as far as they are left.
    expected = {}
    for first, second, third in product(range(4), repeat=3):
        if first not in (1, second) and third in {1, 2, 3} - {first, second}:
            expected[first, second, third] = 4_000 / 3 / 3 / len({1, 2, 3} - {first, second})
    assert counts.keys() == expected.keys()
    assert all(abs(counts[drawn] - count) < 5 * count**0.5 for drawn, count in expected.items())


def test_the_same_event_draws_the_same() -> None:
    """Whoever asks, and whenever; a single event's slots have draws of their own."""
    assert decided() == decided()
    assert len({slot_seed("l1", "e1", index) for index in range(50)}) == 50
    assert slot_seed("l1", "e1", 0) != slot_seed("l2", "e1", 0) != slot_seed("l2", "e2", 0)
    assert 0.0 <= as_uniform((1 << 64) - 1) < 1.0


def test_logging_only_logs_each_slots_baseline() -> None:
    """With probability 1: nothing was drawn."""
    interaction = decided(mode=LearningMode.LOGGING_ONLY)

    assert interaction.choices == (
        SlotChoice((2, 0, 3), (1.0, 0.0, 0.0)),
        SlotChoice((0, 1, 3), (1.0, 0.0, 0.0)),
        SlotChoice((1, 3), (1.0, 0.0)),
    )
    assert interaction.shown == [2, 0, 1]
    assert interaction.chose_baseline


def test_an_apprentice_logs_what_it_drew_and_shows_the_baselines() -> None:
    """What is shown must not depend on a model that is still being taught."""
    drawn = Drawn(
        SlotChoice((3, 0, 2), (0.5, 0.25, 0.25)),
        SlotChoice((0, 1, 2), (0.5, 0.25, 0.25)),
        SlotChoice((1, 2), (0.5, 0.5)),
    )
    interaction = decided(policy=drawn, mode=LearningMode.APPRENTICE)

    assert [choice.chosen for choice in interaction.choices] == [3, 0, 1]
    assert interaction.shown == [2, 0, 1]
    assert not interaction.chose_baseline
    assert interaction.model_id == "m1"


@pytest.mark.parametrize(
    "drawn",
    [
        [],
        [SlotChoice((0, 2, 3), (0.5, 0.25, 0.25)), SlotChoice((1, 2, 3), (1.0, 0.0, 0.0)), SlotChoice((), ())],
        [
            SlotChoice((1, 2, 3), (0.5, 0.25, 0.25)),
            SlotChoice((0, 2, 3), (1.0, 0.0, 0.0)),
            SlotChoice((2, 3), (1.0, 0.0)),
        ],
        [
            SlotChoice((0, 2, 3), (0.5, 0.1, 0.1)),
            SlotChoice((1, 2, 3), (1.0, 0.0, 0.0)),
            SlotChoice((3, 2), (1.0, 0.0)),
        ],
        [
            SlotChoice((0, 2, 3), (0.0, 0.5, 0.5)),
            SlotChoice((1, 2, 3), (1.0, 0.0, 0.0)),
            SlotChoice((3, 2), (1.0, 0.0)),
        ],
        [SlotChoice((0, 2, 3), (0.5, 0.5)), SlotChoice((1, 2, 3), (1.0, 0.0, 0.0)), SlotChoice((3, 2), (1.0, 0.0))],
    ],
)
def test_what_a_learner_says_is_checked(drawn: list[SlotChoice]) -> None:
    """A log with probabilities that were none can never be evaluated; an action must not be shown twice."""
    with pytest.raises(InvalidPmfError):
        decided(policy=Drawn(*drawn))


def test_sums_above_one_are_divided_out() -> None:
    """One of the learner's known ways: each of several tied actions gets the whole."""
    choices = (
        SlotChoice((0, 2, 3), (1.0, 1.0, 0.0)),
        SlotChoice((1, 2, 3), (1.0, 0.0, 0.0)),
        SlotChoice((3, 2), (1.0, 0.0)),
    )

    assert decided(policy=Drawn(*choices)).choices[0] == SlotChoice((0, 2, 3), (0.5, 0.5, 0.0))


def test_a_slot_that_may_find_nothing_left_is_refused() -> None:
    """Slots choose one after the other: without the refusal, the same request would fail now and then."""
    check_slots([slot("x", 0, 2, 3), slot("y", 2), slot("z", 1)], 4)
    with pytest.raises(InvalidRequest, match=r"slot 'z' may be left without an action") as refused:
        check_slots([slot("x", 0), slot("y", 2), slot("z", 1, 0, 2)], 4)
    assert refused.value.target == "slots[2].excludedActions"
    check_slots([slot("x", 0, 1, 3), slot("y", 2, 1), slot("z", 1, 0, 2)], 4)  # only one of them can take b or d


@st.composite
def _slots(draw: st.DrawFn) -> list[Slot]:
    """Up to four slots over four actions, each with a baseline of its own."""
    baselines = draw(st.permutations(range(4)))[: draw(st.integers(1, 4))]
    excluded = st.sets(st.sampled_from(range(4)), max_size=3)
    return [slot(str(b), b, *sorted(draw(excluded) - {b})) for b in baselines]


@given(_slots())
def test_what_passes_never_leaves_a_slot_empty(slots: list[Slot]) -> None:
    """Whatever earlier slots draw: all their ways are tried."""
    taken: set[frozenset[int]] = {frozenset()}
    can_strand = False
    for each in slots:
        following = set()
        for so_far in taken:
            left = set(range(4)) - so_far - set(each.excluded)
            can_strand |= not left
            following |= {so_far | {index} for index in left}
        taken = following

    try:
        check_slots(slots, 4)
    except InvalidRequest:
        assert can_strand
    else:
        assert not can_strand


def test_a_decision_without_slots_is_one_of_a_single_slot() -> None:
    """A Rank on a loop that decides for slots is answered as it was asked."""
    request = RankRequest(event_id="e1", context=NOTHING, actions=ACTIONS, excluded=(0, 2), deferred=True)
    interaction = decided(one_slot(request))

    single = without_slots(interaction)

    assert single.pmf == (0.0, 0.5, 0.0, 0.5)
    assert (single.baseline, single.excluded, single.deferred) == (1, (0, 2), True)
    assert single.chosen == interaction.choices[0].chosen
    assert single.same_request(interaction)
    assert interaction.same_request(single)
    assert not single.same_request(msgspec.structs.replace(interaction, event_id="e2"))
