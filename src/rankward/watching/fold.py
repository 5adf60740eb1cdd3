"""Folds joined events, in the order of the joined log, into figures by stretches of a minute to a day.

The state after an event depends on the state before and the event, so batches do not matter, and figures that are
taken from the log again are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from rankward.evaluation.judge import RewardRange
from rankward.joining.reward import RewardDefinition
from rankward.records import JoinedEvent, LearningMode, Offset, TimeUs
from rankward.settings import Aggregation, LoopSettings
from rankward.store.rollups import Place, Row
from rankward.watching.apprentice import BLOCK_EVENTS, Block
from rankward.watching.comparison import Comparing, ComparingState, LiveComparison
from rankward.watching.exploring import explore
from rankward.watching.seen import Seen, see
from rankward.watching.tally import ActionTallies, Tally

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

MINUTES, TEN_MINUTES, HOURS, SIX_HOURS, DAYS = "minute", "ten-minutes", "hour", "six-hours", "day"
STEPS_US = {
    MINUTES: MINUTE_US,
    TEN_MINUTES: 10 * MINUTE_US,
    HOURS: HOUR_US,
    SIX_HOURS: 6 * HOUR_US,
    DAYS: DAY_US,
}
"""The series of tallies, with the length of a stretch, ascending: each a multiple of the one before."""
ACTION_HOURS, ACTION_DAYS = "actions-hour", "actions-day"
ACTION_STEPS_US = {ACTION_HOURS: HOUR_US, ACTION_DAYS: DAY_US}
"""The series of action tallies, with the length of a stretch."""
APPRENTICE = "apprentice"
"""The series of blocks of apprentice mode, by the offset of the first event in the joined log."""
KEPT_US = {
    MINUTES: 2 * DAY_US,
    TEN_MINUTES: 2 * DAY_US,
    HOURS: 90 * DAY_US,
    SIX_HOURS: 90 * DAY_US,
    ACTION_HOURS: 14 * DAY_US,
}
"""How long the stretches of a series are kept. What is not named here is kept for ever."""

decode_tally = msgspec.msgpack.Decoder(Tally).decode
"""Reads a row of `STEPS_US`."""
decode_block = msgspec.msgpack.Decoder(Block).decode
"""Reads a row of `APPRENTICE`."""
decode_actions = msgspec.msgpack.Decoder(ActionTallies).decode
"""Reads a row of `ACTION_STEPS_US`."""
_encode = msgspec.msgpack.Encoder().encode


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures take for granted. Under another, they are taken anew."""

    default_reward: float
    aggregation: Aggregation
    reward_min: float
    reward_max: float

    @classmethod
    def of(cls, settings: LoopSettings) -> Basis:
        """Take it from a loop's settings."""
        return cls(
            default_reward=settings.default_reward,
            aggregation=settings.reward_aggregation,
            reward_min=settings.reward_min,
            reward_max=settings.reward_max,
        )

    @property
    def rewards(self) -> RewardRange:
        """The rewards that intervals take for granted."""
        return RewardRange(self.reward_min, self.reward_max)

    @property
    def definition(self) -> RewardDefinition:
        """How observations become a reward."""
        return RewardDefinition(self.default_reward, self.aggregation)


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far the figures go, and what they take for granted."""

    basis: Basis
    erasures: int  # of the joined log, when they were begun
    offset: Offset  # in the joined log: the next event
    last: tuple[Offset, Offset] | None = None  # the last event's, in the joined log and in the event log; None: none
    newest: Offset = -1  # in the event log: of all interactions so far; -1: there was none
    newest_us: TimeUs = 0  # when the newest of them was logged
    begun_us: TimeUs = 0  # when they were begun
    comparing: ComparingState
    apprentice: Block | None = None  # the newest; None: no event was decided by an apprentice


class Fold:
    """Figures on their way through the joined log. It does no I/O: the service loads what it needs, and commits."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._comparing = Comparing(state.comparing, state.basis.rewards)
        self._compared: list[Seen] = []  # to be compared
        self._tallies: dict[Place, Tally] = {}
        self._actions: dict[Place, ActionTallies] = {}
        self._blocks: dict[Place, Block] = {}
        self._last_key = (-1, -1)  # minute and time of `_last_places`
        self._last_places: Sequence[Place] = ()
        self._touched: dict[Place, Offset] = {}  # since the last commit, with the newest joined event in it

    def compare_since(self, since_us: TimeUs) -> None:
        """Compare decisions from a time on only; if that is another time than before, begin anew."""
        if since_us != self._comparing.since_us:
            self._compared.clear()
            self._comparing = Comparing(ComparingState(since_us=since_us), self.state.basis.rewards)

    def needs(self, events: Iterable[JoinedEvent], now_us: TimeUs) -> set[Place]:
        """Tell which rows the figures of these events stand in, as far as they are not loaded."""
        minutes = {event.entry.time_us // MINUTE_US for event in events}
        wanted = {place for minute in minutes for place in _places(minute * MINUTE_US, now_us)}
        return wanted - self._tallies.keys() - self._actions.keys()

    def load(self, wanted: Collection[Place], found: Mapping[Place, bytes]) -> None:
        """Take rows over from the store; those that were not found are begun."""
        for place in wanted:
            body = found.get(place)
            if place.series in STEPS_US:
                self._tallies[place] = Tally() if body is None else decode_tally(body)
            else:
                self._actions[place] = ActionTallies() if body is None else decode_actions(body)

    def take(self, event: JoinedEvent, now_us: TimeUs) -> None:
        """Take the next event in. Its rows have been loaded.

        Args:
            event: in the order of the joined log.
            now_us: the same as for `needs`: what is too old for a series is left out of it.
        """
        state, entry = self.state, event.entry
        assert event.offset >= state.offset, "the joined log was read twice"
        state.offset, state.last = event.offset + 1, (event.offset, entry.interaction)
        if entry.interaction > state.newest:
            state.newest = entry.interaction
            state.newest_us = max(state.newest_us, entry.due_us if entry.imported else entry.time_us)
        seen = None if event.skip_learn else see(event, state.basis.definition)
        if seen is not None and not entry.imported:
            self._compared.append(seen)
        explored, outside = None, False
        if seen is not None:
            basis = state.basis
            outside = not all(basis.reward_min <= reward <= basis.reward_max for reward in seen.rewards)
            if seen.uniform is not None:
                explored = explore(seen.asked, [basis.rewards.scale_one(reward) for reward in seen.rewards])
            if seen.mode is LearningMode.APPRENTICE and seen.usable and not entry.imported:
                self._take_apprentice(seen, event.offset)
        for place in self._places_of(entry.time_us, now_us):
            self._touched[place] = event.offset
            if place.series in STEPS_US:
                if seen is None:
                    self._tallies[place].skip()
                else:
                    self._tallies[place].add(seen, explored, outside=outside)
            elif seen is not None:
                self._actions[place].add(seen)

    def _places_of(self, time_us: TimeUs, now_us: TimeUs) -> Sequence[Place]:
        """Tell what `_places` does; most events are of the same minute as the one before."""
        key = (time_us // MINUTE_US, now_us)
        if key != self._last_key:
            self._last_key, self._last_places = key, _places(time_us, now_us)
        return self._last_places

    def _take_apprentice(self, seen: Seen, offset: Offset) -> None:
        block = self.state.apprentice
        if block is None or block.events >= BLOCK_EVENTS:
            block = self.state.apprentice = Block(at=offset, from_us=seen.time_us, to_us=seen.time_us)
        block.add(seen, self.state.basis.rewards)
        place = Place(APPRENTICE, block.at)
        self._blocks[place] = block
        self._touched[place] = offset

    def told(self) -> LiveComparison:
        """Tell how the policy that acts compares, as of the last `encoded_state`."""
        return self._comparing.told()

    def rows(self) -> dict[Place, Row]:
        """Encode what was changed since the last time, and keep no more than that at hand."""
        touched, self._touched = self._touched, {}
        self._tallies = {place: tally for place, tally in self._tallies.items() if place in touched}
        self._actions = {place: tallies for place, tallies in self._actions.items() if place in touched}
        held: dict[Place, Tally | ActionTallies | Block] = {**self._tallies, **self._actions, **self._blocks}
        self._blocks = {}
        return {place: Row(_encode(held[place]), newest) for place, newest in touched.items()}

    def encoded_state(self) -> bytes:
        """Encode how far it is."""
        self._comparing.add(self._compared)
        self._compared.clear()
        self.state.comparing = self._comparing.state()
        return _encode(self.state)


def drops(now_us: TimeUs) -> dict[str, int]:
    """Tell for each series before when its stretches are not kept any more."""
    return {series: horizon_us(series, now_us) for series in KEPT_US}


def horizon_us(series: str, now_us: TimeUs) -> TimeUs:
    """Tell when the oldest stretch of a series begins that is kept: 0 where all are."""
    if series not in KEPT_US:
        return 0
    step_us = STEPS_US.get(series) or ACTION_STEPS_US[series]
    return (now_us - KEPT_US[series]) // step_us * step_us


def _places(time_us: TimeUs, now_us: TimeUs) -> list[Place]:
    found = []
    for steps in (STEPS_US, ACTION_STEPS_US):
        for series, step_us in steps.items():
            at = time_us // step_us * step_us
            if at >= horizon_us(series, now_us):
                found.append(Place(series, at))
    return found


def decode_state(body: bytes) -> State | None:
    """Read a state. None: it was written by another version."""
    try:
        return _state.decode(body)
    except msgspec.MsgspecError:
        return None


_state = msgspec.msgpack.Decoder(State)
