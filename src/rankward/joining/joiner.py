"""Joining: which observations belong to which interaction, decided by log times alone.

The joiner reads the event log once at its head, to match observations as they come, and once again lagging
by the reward wait, to let interactions go when their wait is over. So it keeps nothing of an interaction in
between, and its memory does not grow with the wait. Interactions with different waits lag differently:
each wait that is in use has a *lane*, a place in the log before which all interactions of that wait are
joined.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

from rankward.records import (
    Activation,
    AnyHeader,
    Erased,
    HeaderEntry,
    History,
    InteractionHeader,
    JoinedEntry,
    JoinedObservation,
    MultiSlotHeader,
    Observation,
    Offset,
    TimeUs,
)
from rankward.store.ports import JoinState, JoinStep, Located, Lookup, Match, Unmatched

IMPORTED_WAIT_US = 0
"""The lane of imported events, which wait for nothing: no decision has a wait of 0."""

EARLY_US = 120_000_000
"""An observation may stand in the log this long before its interaction: the two travel on separate ways."""


class Due(msgspec.Struct, frozen=True, gc=False):
    """An interaction whose wait is over, or an event that was joined elsewhere."""

    due_us: TimeUs
    offset: Offset
    time_us: TimeUs
    record: AnyHeader | History | Erased


class Joiner:
    """A state machine over the event log. It does no I/O: the service reads for it and commits its steps.

    One step is: `lookups` and `read` with the next entries, then `lanes` and `due` with what stands in the
    lanes, then `join` with the matches kept so far. If a step cannot be committed, the joiner is thrown away
    and made again from what is on record.
    """

    def __init__(self, state: JoinState, early: Sequence[Unmatched]) -> None:
        self.head = state.head
        self.now_us = state.now_us
        self._lanes = dict(state.lanes)
        self._next_due_us: dict[int, TimeUs] = {}  # by wait: nothing of that lane is due before
        self._counts = Counter(state.counts)
        self._erasures = state.erasures
        self._early: deque[Unmatched] = deque(early)
        self._early_by_id: dict[str, list[Unmatched]] = {}
        for unmatched in early:
            self._early_by_id.setdefault(unmatched.event_id, []).append(unmatched)
        self._matches: list[Match] = []
        self._early_new: dict[Offset, Unmatched] = {}
        self._settled: list[Offset] = []

    @property
    def state(self) -> JoinState:
        """Where joining stands, as the next commit will record it."""
        return JoinState(self.head, self.now_us, dict(self._lanes), dict(self._counts), self._erasures)

    @property
    def next_due_us(self) -> TimeUs | None:
        """When the next waiting interaction will be due, as far as is known; None: none is waiting."""
        if any(wait not in self._next_due_us for wait in self._lanes):
            return self.now_us
        return min((self._next_due_us[wait] for wait in self._lanes), default=None)

    @property
    def next_tick_us(self) -> TimeUs | None:
        """When the log should move on at the latest, so that nothing waits for want of traffic."""
        moments = [self.next_due_us] if self.next_due_us is not None else []
        if self._early:
            moments.append(self._early[0].time_us + EARLY_US + 1)
        return min(moments, default=None)

    @staticmethod
    def lookups(entries: Sequence[HeaderEntry]) -> list[Lookup]:
        """What must be located before `entries` can be read: one lookup per observation or activation."""
        return [
            Lookup(entry.record.event_id, entry.offset, entry.time_us)
            for entry in entries
            if isinstance(entry.record, Observation | Activation)
        ]

    def read(self, entries: Sequence[HeaderEntry], located: Sequence[Sequence[Located]]) -> None:
        """Take in the next entries of the log.

        Args:
            entries: from `head` on, in log order. (A log that was cleared goes on at a later offset.)
            located: the answers to `lookups(entries)`.
        """
        answers = iter(located)
        for entry in entries:
            assert entry.offset >= self.head, "the event log was read twice"
            self.head = entry.offset + 1
            self.now_us = entry.time_us
            self._expire()
            match entry.record:
                case (InteractionHeader() | MultiSlotHeader()) as interaction:
                    self._take_interaction(entry, interaction)
                case Observation() as observation:
                    self._counts["observed"] += 1
                    reported = JoinedObservation(
                        entry.offset,
                        entry.time_us,
                        observation.value,
                        observation.metrics,
                        observation.slot,
                        observation.report,
                    )
                    self._take_observation(entry, observation.event_id, reported, next(answers))
                case Activation() as activation:
                    self._counts["activations"] += 1
                    self._take_observation(entry, activation.event_id, None, next(answers))
                case History():
                    self._counts["imported"] += 1
                    self._lanes.setdefault(IMPORTED_WAIT_US, entry.offset)
                case Erased() as erased:
                    if (wait_us := _wait_us(erased)) is not None:
                        self._lanes.setdefault(wait_us, entry.offset)
                case _:
                    pass

    def _take_interaction(self, entry: HeaderEntry, interaction: AnyHeader) -> None:
        self._counts["ranked"] += 1
        self._counts["repeats"] += interaction.repeats
        self._lanes.setdefault(interaction.reward_wait_us, entry.offset)
        for early in self._early_by_id.pop(interaction.event_id, ()):
            self._matches.append(Match(entry.offset, early.observation, early.offset))
            self._settle(early)

    def _take_observation(
        self,
        entry: HeaderEntry,
        event_id: str,
        observation: JoinedObservation | None,
        candidates: Sequence[Located],
    ) -> None:
        for candidate in candidates:
            if entry.time_us - candidate.time_us < candidate.reward_wait_us:
                self._matches.append(Match(candidate.offset, observation, entry.offset))
                return
        unmatched = Unmatched(entry.offset, entry.time_us, event_id, observation, late=bool(candidates))
        self._early.append(unmatched)
        self._early_by_id.setdefault(event_id, []).append(unmatched)
        self._early_new[unmatched.offset] = unmatched

    def _expire(self) -> None:
        """Set aside the observations whose interactions can no longer come."""
        while self._early and self._early[0].time_us + EARLY_US < self.now_us:
            unmatched = self._early.popleft()
            waiting = self._early_by_id.get(unmatched.event_id)
            if waiting is None or unmatched not in waiting:
                continue  # claimed meanwhile
            waiting.remove(unmatched)
            if not waiting:
                del self._early_by_id[unmatched.event_id]
            self._settle(unmatched)
            if unmatched.observation is not None:
                self._counts["late" if unmatched.late else "unknown"] += 1

    def _settle(self, unmatched: Unmatched) -> None:
        if self._early_new.pop(unmatched.offset, None) is None:
            self._settled.append(unmatched.offset)

    def lanes(self) -> dict[int, Offset]:
        """The lanes that may hold something due, by reward wait: where to read them from."""
        return {wait: start for wait, start in self._lanes.items() if self._next_due_us.get(wait, 0) <= self.now_us}

    def due(self, lanes: Mapping[int, Sequence[HeaderEntry]]) -> list[Due]:
        """Pick the interactions that can be let go now, in the order of (due, offset).

        Args:
            lanes: for each lane of `lanes()`, a stretch of the log from its place on. It may be cut anywhere.
        """
        found: list[Due] = []
        bound: tuple[TimeUs, Offset] | None = None  # what has not been read yet comes here in the order, or later
        for wait_us, entries in lanes.items():
            # If nothing is there any more, the log was cleared.
            place = self._lanes[wait_us] if entries else self.head
            stopped = False
            for entry in entries:
                if entry.offset >= self.head:
                    place = self.head
                    break
                if isinstance(entry.record, AnyHeader | History | Erased) and _wait_us(entry.record) == wait_us:
                    due_us = entry.time_us + wait_us
                    if due_us > self.now_us:
                        self._next_due_us[wait_us] = due_us
                        stopped = True
                        break
                    found.append(Due(due_us, entry.offset, entry.time_us, entry.record))
                place = entry.offset + 1
            self._lanes[wait_us] = place
            if stopped:
                continue
            if place >= self.head:
                del self._lanes[wait_us]
                self._next_due_us.pop(wait_us, None)
            else:
                reached = (entries[-1].time_us + wait_us, place)
                bound = reached if bound is None else min(bound, reached)
        found.sort(key=lambda due: (due.due_us, due.offset))
        if bound is None:
            return found
        kept = [due for due in found if (due.due_us, due.offset) < bound]
        for due in found[len(kept) :]:
            lane = _wait_us(due.record)
            assert lane is not None, "only what is in a lane becomes due"
            self._lanes[lane] = min(self._lanes.get(lane, due.offset), due.offset)
            self._next_due_us.pop(lane, None)
        return kept

    def join(self, due: Sequence[Due], kept: Mapping[Offset, Sequence[Match]]) -> JoinStep:
        """Let interactions go, each with what was observed of it. Returns the step to commit.

        Args:
            due: as `due()` picked them.
            kept: the matches of earlier steps for these interactions.
        """
        fresh: dict[Offset, list[Match]] = {}
        for match in self._matches:
            fresh.setdefault(match.interaction, []).append(match)
        joined = []
        for item in due:
            if isinstance(item.record, History):
                joined.append(item.record.joined(item.offset, item.due_us))
                continue
            if isinstance(item.record, Erased):
                joined.append(_place_of(item, item.record))
                continue
            matches = [*kept.get(item.offset, ()), *fresh.pop(item.offset, ())]
            matches.sort(key=lambda match: match.offset)
            observed = [match.observation for match in matches if match.observation is not None]
            activated = len(observed) < len(matches)
            observations = self._of_known_slots(item.record, self._once(observed))
            joined.append(JoinedEntry(item.offset, item.time_us, item.due_us, observations, activated))
            self._count_joined(item.record, rewarded=bool(observations), activated=activated)
        step = JoinStep(
            state=self.state,
            joined=joined,
            matches=[match for matches in fresh.values() for match in matches],
            early=list(self._early_new.values()),
            settled=self._settled,
        )
        self._matches, self._early_new, self._settled = [], {}, []
        return step

    def _once(self, observed: Sequence[JoinedObservation]) -> list[JoinedObservation]:
        """Leave out what was reported before: a reporter that got no answer reports again, under the same name."""
        known: set[tuple[str, str | None]] = set()
        kept = []
        for each in observed:
            if each.report is not None:
                if (each.report, each.slot) in known:
                    continue
                known.add((each.report, each.slot))
            kept.append(each)
        self._counts["reported_again"] += len(observed) - len(kept)
        return kept

    def _of_known_slots(
        self, interaction: AnyHeader, observed: Sequence[JoinedObservation]
    ) -> tuple[JoinedObservation, ...]:
        """Leave out what is about slots that the interaction does not have: nothing can use it, ever."""
        slots = {slot.id for slot in interaction.slots} if isinstance(interaction, MultiSlotHeader) else set()
        kept = [each for each in observed if each.slot is None or each.slot in slots]
        self._counts["unknown_slot"] += len(observed) - len(kept)
        return tuple(kept)

    def _count_joined(self, interaction: AnyHeader, *, rewarded: bool, activated: bool) -> None:
        self._counts["joined"] += 1
        if interaction.deferred and not activated:
            self._counts["never_activated"] += 1
            return
        self._counts["rewarded" if rewarded else "defaulted"] += 1
        self._counts["baseline_chosen"] += interaction.chose_baseline


def _wait_us(record: AnyHeader | History | Erased) -> int | None:
    """The lane of what is or was an interaction; None: it never was one."""
    if isinstance(record, History):
        return IMPORTED_WAIT_US
    if isinstance(record, Erased) and record.decided_us is not None:
        return IMPORTED_WAIT_US
    return record.reward_wait_us


def _place_of(item: Due, erased: Erased) -> JoinedEntry:
    """What stands in the joined log for an interaction that was erased, so that all others keep their offsets."""
    if erased.decided_us is not None:
        return JoinedEntry(item.offset, erased.decided_us, item.due_us, imported=True)
    return JoinedEntry(item.offset, item.time_us, item.due_us)
