"""The policy that acts against the application's own choice and against chance, judged at all times.

Every interval is of betting confidence sequences (`evaluation.intervals`), and they share their error: all that is
shown of a comparison is true at every look together, in all but 5 % of loops. It is about what the loop itself
decided since its settings were last changed, on average over those events and over the models that decided them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec
import numpy as np

from rankward.evaluation.contrast import Decisions, contrast
from rankward.evaluation.estimators import Sums, cressie_read, ips
from rankward.evaluation.intervals import ALPHA, Betting, BettingState
from rankward.evaluation.judge import RewardRange, clipped
from rankward.records import TimeUs
from rankward.settings import NEVER, LoopSettings
from rankward.watching.seen import Seen

_VALUES = ("online", "baseline", "uniform")
_OVER = ("baseline", "uniform")


class Side(enum.StrEnum):
    """Which of two policies is beyond doubt the better one."""

    ONLINE = "online"
    OTHER = "other"
    UNDECIDED = "undecided"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A mean reward per event, or a difference of two, in the loop's units, with an interval for every look."""

    value: float
    low: float
    high: float


class LiveComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beyond doubt since a moment. None stands where no event says anything.

    An event with several slots counts as the mean of its slots. Imported events do not count: others decided them.
    """

    since_us: TimeUs  # decisions before it do not count; 0: all do
    newest_us: TimeUs  # of the newest decision that counts; 0: there is none
    events: int  # decided in online mode
    online: Value | None  # the policy that acted
    baseline: Value | None  # the first action that was not excluded
    uniform: Value | None  # choosing by chance
    over_baseline: Value | None  # the first less the second
    over_uniform: Value | None  # the first less the third
    shown_events: int  # decided in a mode that shows the baseline
    shown: Value | None  # what the baseline earned in those
    against_baseline: Side  # whether the policy that acted is better than the baseline, beyond doubt
    against_uniform: Side  # whether it is better than chance


def _side(difference: Value | None) -> Side:
    if difference is None or difference.low <= 0 <= difference.high:
        return Side.UNDECIDED
    return Side.ONLINE if difference.low > 0 else Side.OTHER


def since_of(settings: LoopSettings) -> TimeUs:
    """Tell from when on decisions are compared: the end of the second in which the settings were last edited."""
    edited = settings.last_configuration_edit
    return 0 if edited == NEVER else (int(edited.timestamp()) + 1) * 1_000_000


class ComparingState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a `Comparing` has come to."""

    since_us: TimeUs
    newest_us: TimeUs = 0
    sums: dict[str, Sums] = {}  # by policy, of rewards scaled to [0, 1]
    values: dict[str, BettingState] = {}  # by policy
    over: dict[str, BettingState] = {}  # by policy: by how much the one that acted is above it
    shown_events: int = 0
    shown_count: float = 0.0  # of those, each as often as it stands for
    shown_rewards: float = 0.0
    shown: BettingState | None = None


class Comparing:
    """A comparison on its way through the joined log."""

    def __init__(self, state: ComparingState, rewards: RewardRange) -> None:
        """Begin, or go on.

        Args:
            state: where from.
            rewards: what intervals take for granted; rewards outside are cut.
        """
        self._range = rewards
        self.since_us = state.since_us
        self._newest_us = state.newest_us
        self._sums = {name: msgspec.structs.replace(state.sums.get(name, Sums())) for name in _VALUES}
        self._values = {name: Betting(state.values.get(name)) for name in _VALUES}
        self._over = {name: Betting(state.over.get(name)) for name in _OVER}
        self._shown = Betting(state.shown)
        self._shown_events = state.shown_events
        self._shown_count = state.shown_count
        self._shown_rewards = state.shown_rewards

    def state(self) -> ComparingState:
        """Tell what it has come to."""
        return ComparingState(
            since_us=self.since_us,
            newest_us=self._newest_us,
            sums={name: msgspec.structs.replace(sums) for name, sums in self._sums.items()},
            values={name: betting.state() for name, betting in self._values.items()},
            over={name: betting.state() for name, betting in self._over.items()},
            shown_events=self._shown_events,
            shown_count=self._shown_count,
            shown_rewards=self._shown_rewards,
            shown=self._shown.state(),
        )

    def add(self, events: Sequence[Seen]) -> None:
        """Take more events in, in the order of the joined log: the loop's own, whether they count or not."""
        counted = [event for event in events if event.usable and event.time_us >= self.since_us]
        if not counted:
            return
        self._newest_us = max(self._newest_us, *(event.time_us for event in counted))
        self._add_online([event for event in counted if event.uniform is not None])
        self._add_shown([event for event in counted if event.uniform is None])

    def _add_online(self, events: Sequence[Seen]) -> None:
        if not events:
            return
        p_log: list[float] = []
        baseline: list[float] = []
        starts: list[int] = []
        chosen: list[int] = []
        event_starts: list[int] = []
        rewards: list[float] = []
        for event in events:
            event_starts.append(len(starts))
            rewards += event.rewards
            for question in event.asked:
                start = len(p_log)
                starts.append(start)
                chosen.append(start + question.chosen)
                p_log += question.p_log
                baseline += [float(index == question.baseline) for index in range(len(question.p_log))]
        sizes = np.diff(np.append(starts, len(p_log)))
        slots = np.diff(np.append(event_starts, len(starts)))
        decisions = Decisions(
            p_log=np.array(p_log),
            starts=np.array(starts),
            chosen=np.array(chosen),
            rewards=self._range.scale(np.array(rewards)),
            upweights=np.repeat([event.upweight for event in events], slots),
        )
        targets = {
            "online": decisions.p_log,
            "baseline": np.array(baseline),
            "uniform": np.repeat(1.0 / sizes, sizes),
        }
        facts = (decisions.rewards, decisions.upweights)
        grouped = None if (slots == 1).all() else np.array(event_starts)
        for name, betting in self._values.items():
            betting.add(contrast(decisions, targets[name]), *facts, starts=grouped)
        for name, betting in self._over.items():
            betting.add(contrast(decisions, decisions.p_log, targets[name]), *facts, starts=grouped)
        for event in events:
            assert event.baseline is not None, "only events that can be used are counted"
            assert event.uniform is not None, "and were decided online"
            for name, weight, reward in (
                ("online", 1.0, event.reward),
                ("baseline", *event.baseline),
                ("uniform", *event.uniform),
            ):
                self._sums[name].add_one(weight, self._range.scale_one(reward), event.upweight)

    def _add_shown(self, events: Sequence[Seen]) -> None:
        if not events:
            return
        places = np.arange(len(events))
        rewards = np.array([self._range.scale_one(event.reward) for event in events])
        upweights = np.array([event.upweight for event in events])
        certain = Decisions(np.ones(len(events)), places, places, rewards, upweights)
        self._shown.add(contrast(certain, certain.p_log), rewards, upweights)
        self._shown_events += len(events)
        self._shown_count += float(upweights.sum())
        self._shown_rewards += float((rewards * upweights).sum())

    def told(self) -> LiveComparison:
        """Tell what is known."""
        alpha = ALPHA / (len(_VALUES) + len(_OVER))
        online = ips(self._sums["online"])
        estimates = {name: cressie_read(self._sums[name]) for name in _OVER} | {"online": online}
        values: dict[str, Value | None] = {}
        over: dict[str, Value | None] = {}
        for name, estimate in estimates.items():
            values[name] = None if estimate is None else self._value(estimate, self._values[name], alpha)
        for name in _OVER:
            estimate = estimates[name]
            over[name] = None
            if online is not None and estimate is not None:
                low, high = self._over[name].bounds(alpha)
                difference = min(high, max(low, online - estimate))
                over[name] = Value(
                    value=self._range.difference(difference),
                    low=self._range.difference(low),
                    high=self._range.difference(high),
                )
        shown = None
        if self._shown_count:
            shown = self._value(self._shown_rewards / self._shown_count, self._shown, ALPHA)
        return LiveComparison(
            since_us=self.since_us,
            newest_us=self._newest_us,
            events=self._sums["online"].events,
            online=values["online"],
            baseline=values["baseline"],
            uniform=values["uniform"],
            over_baseline=over["baseline"],
            over_uniform=over["uniform"],
            against_baseline=_side(over["baseline"]),
            against_uniform=_side(over["uniform"]),
            shown_events=self._shown_events,
            shown=shown,
        )

    def _value(self, scaled: float, betting: Betting, alpha: float) -> Value:
        low, high = clipped(betting.bounds(alpha))
        return Value(
            value=self._range.value(min(high, max(low, scaled))),
            low=self._range.value(low),
            high=self._range.value(high),
        )
