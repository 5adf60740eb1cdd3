"""The joiner: which observations belong to which interaction, and when interactions leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.joining.joiner import EARLY_US, Joiner
from rankward.records import (
    Activation,
    AnyHeader,
    Features,
    Header,
    HeaderEntry,
    InteractionHeader,
    JoinedEntry,
    MultiSlotHeader,
    Observation,
    Offset,
    Slot,
    SlotChoice,
    Tick,
    TimeUs,
)
from rankward.store.ports import JoinState, Located, Match, Unmatched

if TYPE_CHECKING:
    from collections.abc import Mapping

S = 1_000_000
MS = 1_000
WAIT_US = 600 * S
LANE_READ = 1_000_000


class Joining:
    """A log in a list, and a joiner that reads it step by step: what the service does, without a disk."""

    def __init__(self) -> None:
        self.log: list[HeaderEntry] = []
        self.joiner = Joiner(JoinState(), ())
        self.kept: dict[Offset, list[Match]] = {}
        self.early: dict[Offset, Unmatched] = {}

    def push(self, record: Header, *, at_us: TimeUs) -> Offset:
        """Append a record."""
        assert not self.log or self.log[-1].time_us <= at_us, "log time does not decrease"
        self.log.append(HeaderEntry(len(self.log), at_us, record))
        return len(self.log) - 1

    def advance(self, *, to_us: TimeUs | None = None, lane_read: int = LANE_READ) -> list[JoinedEntry]:
        """Take in what was pushed, and let time pass in the log. Returns what was joined."""
        if to_us is not None:
            self.push(Tick(), at_us=to_us)
        joined: list[JoinedEntry] = []
        while True:
            before = self.joiner.state
            entries = self.log[self.joiner.head :]
            self.joiner.read(entries, [self._locate(entry) for entry in entries if _is_report(entry)])
            lanes = {wait: self.log[start : start + lane_read] for wait, start in self.joiner.lanes().items()}
            step = self.joiner.join(self.joiner.due(lanes), self.kept)
            for entry in step.joined:
                self.kept.pop(entry.interaction, None)
            for match in step.matches:
                self.kept.setdefault(match.interaction, []).append(match)
            self.early.update({unmatched.offset: unmatched for unmatched in step.early})
            for offset in step.settled:
                del self.early[offset]
            joined += step.joined
            if step.state == before:
                return joined

    def restart(self) -> None:
        """Make the joiner again from what is on record."""
        self.joiner = Joiner(self.joiner.state, [self.early[offset] for offset in sorted(self.early)])

    @property
    def counts(self) -> Mapping[str, int]:
        """What was counted, without the zeroes."""
        return {name: count for name, count in self.joiner.state.counts.items() if count}

    def _locate(self, report: HeaderEntry) -> list[Located]:
        [lookup] = Joiner.lookups([report])
        return [
            Located(entry.offset, entry.time_us, entry.record.reward_wait_us)
            for entry in self.log[: lookup.before]
            if isinstance(entry.record, AnyHeader) and entry.record.event_id == lookup.event_id
        ]


def _is_report(entry: HeaderEntry) -> bool:
    return isinstance(entry.record, Observation | Activation)


def interaction(event_id: str, *, wait_us: int = WAIT_US, deferred: bool = False) -> InteractionHeader:
    """Make an interaction of which only the id and the wait matter."""
    return InteractionHeader(event_id=event_id, chosen=0, reward_wait_us=wait_us, deferred=deferred)


def page(event_id: str) -> MultiSlotHeader:
    """Make an interaction of one slot that has a name."""
    return MultiSlotHeader(
        event_id=event_id,
        slots=(Slot("hero", Features(b"[]"), baseline=0),),
        choices=(SlotChoice((0,), (1.0,)),),
        reward_wait_us=WAIT_US,
    )


def observation(event_id: str, reward: float = 1.0) -> Observation:
    """Make a reward."""
    return Observation(event_id=event_id, value=reward)


def rewards(entry: JoinedEntry) -> list[float]:
    """The rewards of a joined entry, in order."""
    return [observed.value for observed in entry.observations]


def test_a_late_observation_is_set_aside() -> None:
    """A reward after the wait must not change an event that training may have used."""
    joining = Joining()
    joining.push(interaction("e1"), at_us=0)
    joining.push(observation("e1"), at_us=601 * S)

    [joined] = joining.advance()
    joining.advance(to_us=601 * S + EARLY_US + 1)  # until then it might have been early for another

    assert joined.observations == ()
    assert joining.counts["late"] == 1


@pytest.mark.parametrize(("after_us", "expected"), [(WAIT_US - MS, [1.0]), (WAIT_US - 1, [1.0]), (WAIT_US, [])])
def test_a_reward_counts_if_it_comes_before_the_wait_is_over(after_us: int, expected: list[float]) -> None:
    """The bound is strict: at the wait itself the event is joined already."""
    joining = Joining()
    joining.push(interaction("e1"), at_us=S)
    joining.push(observation("e1"), at_us=S + after_us)

    [joined] = joining.advance(to_us=S + WAIT_US)

    assert rewards(joined) == expected


def test_an_interaction_leaves_as_soon_as_its_wait_is_over_and_not_before() -> None:
    """Learning a rewarded event earlier than others would bias the model towards what is rewarded quickly."""
    joining = Joining()
    joining.push(interaction("e1"), at_us=0)
    joining.push(observation("e1"), at_us=1)

    assert joining.advance(to_us=WAIT_US - 1) == []
    [joined] = joining.advance(to_us=WAIT_US)

    assert (joined.interaction, joined.time_us, joined.due_us) == (0, 0, WAIT_US)


@pytest.mark.parametrize(("before_us", "expected"), [(EARLY_US, [1.0]), (EARLY_US + 1, [])])
def test_a_reward_may_come_up_to_two_minutes_early(before_us: int, expected: list[float]) -> None:
    """Rank and Reward reach the log on separate ways, so that a quick click may overtake its decision."""
    joining = Joining()
    joining.push(observation("e1"), at_us=S)
    joining.push(interaction("e1"), at_us=S + before_us)

    [joined] = joining.advance(to_us=S + before_us + WAIT_US)

    assert rewards(joined) == expected
    assert joining.counts.get("unknown", 0) == 1 - len(expected)


def test_an_early_reward_goes_to_one_interaction_only() -> None:
    """The first that comes claims it; a repeat of the event id finds nothing left."""
    joining = Joining()
    joining.push(observation("e1"), at_us=0)
    joining.push(interaction("e1"), at_us=S)
    joining.push(interaction("e1"), at_us=2 * S)

    first, second = joining.advance(to_us=2 * S + WAIT_US)

    assert (rewards(first), rewards(second)) == ([1.0], [])


def test_an_early_reward_is_not_forgotten_over_a_restart() -> None:
    """It is on record from the step that read it until it is claimed or given up."""
    joining = Joining()
    joining.push(observation("e1"), at_us=0)
    joining.push(observation("e2"), at_us=0)
    joining.advance()
    joining.restart()
    joining.push(interaction("e1"), at_us=EARLY_US)

    [joined] = joining.advance(to_us=EARLY_US + WAIT_US)

    assert rewards(joined) == [1.0]
    assert joining.counts["unknown"] == 1
    assert joining.early == {}


def test_a_reward_for_an_id_that_nobody_ranked_is_counted() -> None:
    """An application that mixes up its ids must be able to see it."""
    joining = Joining()
    joining.push(observation("nobody"), at_us=0)

    assert joining.advance(to_us=EARLY_US) == []
    assert "unknown" not in joining.counts, "it may still be early"
    joining.advance(to_us=EARLY_US + 1)

    assert joining.counts == {"observed": 1, "unknown": 1}


def test_observations_stand_in_log_order() -> None:
    """`earliest` takes the first of them: early ones come before the rest, whatever step read them."""
    joining = Joining()
    joining.push(observation("e1", 0.1), at_us=0)
    joining.push(interaction("e1"), at_us=S)
    joining.push(observation("e1", 0.3), at_us=2 * S)
    joining.advance()
    joining.push(observation("e1", 0.2), at_us=2 * S)

    [joined] = joining.advance(to_us=S + WAIT_US)

    assert rewards(joined) == [0.1, 0.3, 0.2]
    assert [observed.offset for observed in joined.observations] == [0, 2, 3]


def test_an_activation_counts_only_inside_the_window() -> None:
    """A deferred decision that was shown too late was not shown, as far as learning goes."""
    joining = Joining()
    joining.push(interaction("shown", deferred=True), at_us=0)
    joining.push(interaction("late", deferred=True), at_us=0)
    joining.push(interaction("never", deferred=True), at_us=0)
    joining.push(Activation(event_id="shown"), at_us=WAIT_US - 1)
    joining.push(Activation(event_id="late"), at_us=WAIT_US)

    joined = joining.advance()

    assert [entry.activated for entry in joined] == [True, False, False]
    assert (joining.counts["never_activated"], joining.counts["defaulted"]) == (2, 1)


def test_an_activation_is_no_reward() -> None:
    """It has no value, so it must not become the earliest observation."""
    joining = Joining()
    joining.push(interaction("e1", deferred=True), at_us=0)
    joining.push(Activation(event_id="e1"), at_us=1)
    joining.push(Activation(event_id="e1"), at_us=2)
    joining.push(observation("e1", 0.5), at_us=3)

    [joined] = joining.advance(to_us=WAIT_US)

    assert joined.activated
    assert rewards(joined) == [0.5]


def test_an_activation_may_be_early_too() -> None:
    """It travels like a reward does."""
    joining = Joining()
    joining.push(Activation(event_id="e1"), at_us=0)
    joining.push(interaction("e1", deferred=True), at_us=S)

    [joined] = joining.advance(to_us=S + WAIT_US)

    assert joined.activated


def test_a_reward_goes_to_the_first_interaction_whose_window_holds_it() -> None:
    """An event id that is used again must not take the rewards of the decision that was shown first."""
    joining = Joining()
    joining.push(interaction("e1"), at_us=0)
    joining.push(interaction("e1"), at_us=WAIT_US - S)
    joining.push(observation("e1", 0.1), at_us=WAIT_US - 1)
    joining.push(observation("e1", 0.2), at_us=WAIT_US)

    first, second = joining.advance(to_us=2 * WAIT_US)

    assert (rewards(first), rewards(second)) == ([0.1], [0.2])


def test_a_reward_too_late_for_one_interaction_may_be_early_for_the_next() -> None:
    """It waits its two minutes like any other before it is given up as late."""
    joining = Joining()
    joining.push(interaction("e1", wait_us=S), at_us=0)
    joining.push(observation("e1"), at_us=2 * S)
    joining.push(interaction("e1", wait_us=S), at_us=3 * S)

    first, second = joining.advance(to_us=4 * S + EARLY_US)

    assert (rewards(first), rewards(second)) == ([], [1.0])
    assert "late" not in joining.counts


def test_a_shorter_wait_set_later_is_not_held_up_by_a_longer_one() -> None:
    """An operator who shortens the wait sees its events learned at once, not after the old wait."""
    joining = Joining()
    joining.push(interaction("long", wait_us=100 * S), at_us=0)
    joining.push(interaction("short", wait_us=10 * S), at_us=S)

    assert [entry.interaction for entry in joining.advance(to_us=11 * S)] == [1]
    assert [entry.interaction for entry in joining.advance(to_us=100 * S)] == [0]


def test_a_longer_wait_set_later_leaves_in_its_own_time() -> None:
    """Each interaction keeps the wait it was decided with."""
    joining = Joining()
    joining.push(interaction("short", wait_us=10 * S), at_us=0)
    joining.push(interaction("long", wait_us=100 * S), at_us=1)
    joining.push(interaction("short", wait_us=10 * S), at_us=2)

    assert [entry.interaction for entry in joining.advance(to_us=50 * S)] == [0, 2]
    assert [entry.interaction for entry in joining.advance(to_us=100 * S + 1)] == [1]


@pytest.mark.parametrize("lane_read", [1, 2, 3, LANE_READ])
def test_interactions_leave_in_the_order_of_due_time_and_offset(lane_read: int) -> None:
    """The order is part of the joined log, so it must not hang on how much was read at once."""
    joining = Joining()
    for index in range(12):
        joining.push(interaction(f"e{index}", wait_us=(3 - index % 3) * S), at_us=index // 4 * S)

    joined = joining.advance(to_us=100 * S, lane_read=lane_read)

    assert len(joined) == 12
    assert [(entry.due_us, entry.interaction) for entry in joined] == sorted(
        (entry.due_us, entry.interaction) for entry in joined
    )


def test_many_interactions_of_one_moment_do_not_stop_joining() -> None:
    """When the clock was set back, everything gets the time of the last entry until it has caught up."""
    joining = Joining()
    for index in range(10):
        joining.push(interaction(f"e{index}"), at_us=0)

    joined = joining.advance(to_us=WAIT_US, lane_read=3)

    assert [entry.interaction for entry in joined] == list(range(10))


def test_a_stretch_without_anything_due_is_passed() -> None:
    """One event with a wait of its own, at both ends of a long log, must not idle at every stretch."""
    joining = Joining()
    joining.push(interaction("first", wait_us=S), at_us=0)
    for _ in range(50):
        joining.push(Tick(), at_us=0)
    joining.push(interaction("last", wait_us=S), at_us=0)

    joined = joining.advance(to_us=S, lane_read=4)

    assert [entry.interaction for entry in joined] == [0, 51]


def test_the_next_due_time_is_known_while_something_waits() -> None:
    """An idle worker appends its tick at that time: without it, the last events would never be joined."""
    joining = Joining()
    assert joining.joiner.next_due_us is None
    joining.push(interaction("e1"), at_us=5)
    joining.push(interaction("e2", wait_us=7), at_us=5)
    joining.advance()

    assert joining.joiner.next_due_us == 12
    joining.advance(to_us=12)
    assert joining.joiner.next_due_us == 5 + WAIT_US
    joining.advance(to_us=5 + WAIT_US)
    assert joining.joiner.next_due_us is None


def test_memory_does_not_grow_with_the_wait() -> None:
    """A week of waiting at full rate must fit: nothing is held of an interaction until it is due."""
    week_us = 7 * 86_400 * S
    joiner = Joiner(JoinState(), ())
    sizes = []
    for begin in range(0, 50_000, 5_000):
        entries = [
            HeaderEntry(offset, offset * S, interaction(f"e{offset}", wait_us=week_us))
            for offset in range(begin, begin + 5_000)
        ]
        joiner.read(entries, ())
        lanes = {
            wait: entries if start >= begin else [HeaderEntry(0, 0, interaction("e0", wait_us=week_us))]
            for wait, start in joiner.lanes().items()
        }
        assert joiner.join(joiner.due(lanes), {}).joined == []
        sizes.append(sum(len(held) for held in vars(joiner).values() if hasattr(held, "__len__")))

    assert joiner.state.counts["ranked"] == 50_000
    assert sizes[0] == sizes[-1] < 10


def test_memory_of_what_may_be_early_ends_after_two_minutes() -> None:
    """Rewards for unknown ids are the one thing that is held, and an attacker could send many."""
    joining = Joining()
    for index in range(1_000):
        joining.push(observation(f"nobody{index}"), at_us=index)
    joining.advance()
    joining.advance(to_us=1_000 + EARLY_US)

    assert sum(len(held) for held in vars(joining.joiner).values() if hasattr(held, "__len__")) < 10
    assert joining.early == {}


def test_joining_goes_on_after_the_log_was_cleared() -> None:
    """What was cleared is not joined any more, and must not hold up what comes after it."""
    joiner = Joiner(JoinState(), ())
    joiner.read([HeaderEntry(0, 0, interaction("gone")), HeaderEntry(1, S, interaction("gone too", wait_us=S))], ())
    joiner.join(joiner.due(dict.fromkeys(joiner.lanes(), ())), {})

    new = [HeaderEntry(5, 2 * S, interaction("e1", wait_us=S)), HeaderEntry(6, 3 * S, Tick())]
    joiner.read(new, ())
    lanes = {wait: [entry for entry in new if entry.offset >= start] for wait, start in joiner.lanes().items()}
    step = joiner.join(joiner.due(lanes), {})

    assert [entry.interaction for entry in step.joined] == [5]
    assert step.state.lanes == {}


def test_an_interaction_of_a_cleared_stretch_does_not_hold_up_other_waits() -> None:
    """A lane that begins in a stretch that is gone reads on beyond the head: that is its end, not a bound."""
    joiner = Joiner(JoinState(), ())
    joiner.read([HeaderEntry(0, 0, interaction("gone", wait_us=S)), HeaderEntry(1, 2 * S, Tick())], ())
    beyond = [HeaderEntry(9, 3 * S, interaction("not read yet", wait_us=S))]

    step = joiner.join(joiner.due(dict.fromkeys(joiner.lanes(), beyond)), {})

    assert step.joined == []
    assert step.state.lanes == {}


def test_rewards_of_slots_that_an_event_does_not_have_are_dropped() -> None:
    """The contract drops them; the count tells whoever misspelled a slot why it never learns."""
    joining = Joining()
    joining.push(page("e1"), at_us=0)
    joining.push(interaction("e2"), at_us=0)
    for slot in ("hero", "heros", None):
        joining.push(Observation(event_id="e1", value=1.0, slot=slot), at_us=1)
    joining.push(Observation(event_id="e2", value=1.0, slot="hero"), at_us=1)

    two_slots, one_slot = joining.advance(to_us=WAIT_US)

    assert [observed.slot for observed in two_slots.observations] == ["hero", None]
    assert one_slot.observations == ()
    assert joining.counts["unknown_slot"] == 2
    assert joining.counts["rewarded"] == joining.counts["defaulted"] == 1


def test_a_report_that_is_sent_again_counts_once() -> None:
    """A client that got no answer cannot know whether its reward arrived; with `sum` it would count twice."""
    joining = Joining()
    joining.push(interaction("e1"), at_us=0)
    joining.push(page("e2"), at_us=0)
    for event_id, report, slot in (
        ("e1", "r1", None),
        ("e1", "r2", None),
        ("e1", "r1", None),
        ("e1", None, None),
        ("e1", None, None),
        ("e2", "r1", "hero"),
        ("e2", "r1", None),
        ("e2", "r1", "hero"),
    ):
        joining.push(Observation(event_id=event_id, value=0.5, report=report, slot=slot), at_us=1)

    one_slot, page_event = joining.advance(to_us=WAIT_US)

    assert [observed.report for observed in one_slot.observations] == ["r1", "r2", None, None]
    assert [observed.slot for observed in page_event.observations] == ["hero", None]
    assert joining.counts["reported_again"] == 2
