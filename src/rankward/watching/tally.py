"""Figures of a stretch of time: sums over its events, from which means, intervals and shares follow."""

from __future__ import annotations

import msgspec

from rankward.evaluation.estimators import Sums
from rankward.records import ModelId, TimeUs
from rankward.watching.exploring import Explored, ExploringTally
from rankward.watching.seen import Seen, SeenAction

MODELS_MAX = 32  # told apart in one stretch
OTHER_MODELS: ModelId = "…"
"""Stands for the models beyond those that are told apart."""
NO_MODEL: ModelId = ""
"""Stands for what was decided before any model was published."""
ACTIONS_MAX = 200  # told apart in one stretch, the first to come


class Tally(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the events of a stretch of time add up to. Rewards are as they were reported, unscaled and uncut.

    Four sums say what policies earned: `earned` is of what was shown, whoever chose it; `online` of what was chosen by
    the loop in online mode; `baseline` and `uniform` of what the application's own choice and choosing by chance
    would have earned. Events of the other modes showed the baseline: they count in `earned` and `baseline` only.
    """

    events: int = 0
    skipped: int = 0  # events that were deferred and never activated: they count nowhere else
    unusable: int = 0  # events whose probabilities cannot be true: they count as earned, and judge nobody
    defaulted: int = 0  # events of which nothing was observed, so that their reward is the default
    outside: int = 0  # events with a reward outside reward_min to reward_max
    matched: float = 0.0  # events in which the baseline was drawn; of several slots, by their share
    preferred: float = 0.0  # events in which no action was likelier than the baseline
    modes: dict[str, int] = {}  # events by learning mode
    models: dict[str, int] = {}  # events by the model that decided
    earned: Sums = msgspec.field(default_factory=Sums)
    online: Sums = msgspec.field(default_factory=Sums)
    baseline: Sums = msgspec.field(default_factory=Sums)
    uniform: Sums = msgspec.field(default_factory=Sums)
    exploring: ExploringTally = msgspec.field(default_factory=ExploringTally)

    def add(self, seen: Seen, explored: Explored | None, *, outside: bool) -> None:
        """Take an event in.

        Args:
            seen: the event.
            explored: how it explored; None: it was not decided online, or its probabilities cannot be true.
            outside: whether one of its rewards is outside the loop's range.
        """
        self.events += 1
        self.defaulted += seen.defaulted
        self.outside += outside
        self.matched += seen.matched
        self.preferred += seen.preferred
        self.modes[seen.mode] = self.modes.get(seen.mode, 0) + 1
        self._count_model(seen.model_id or NO_MODEL, 1)
        self.earned.add_one(1.0, seen.reward, seen.upweight)
        if seen.baseline is None:
            self.unusable += 1
            return
        self.baseline.add_one(*seen.baseline, seen.upweight)
        if seen.uniform is not None:
            self.online.add_one(1.0, seen.reward, seen.upweight)
            self.uniform.add_one(*seen.uniform, seen.upweight)
        if explored is not None:
            self.exploring.add(explored, seen.upweight)

    def skip(self) -> None:
        """Count an event that was never activated."""
        self.skipped += 1

    def merge(self, other: Tally) -> None:
        """Take the events of another stretch in."""
        self.events += other.events
        self.skipped += other.skipped
        self.unusable += other.unusable
        self.defaulted += other.defaulted
        self.outside += other.outside
        self.matched += other.matched
        self.preferred += other.preferred
        for mode, count in other.modes.items():
            self.modes[mode] = self.modes.get(mode, 0) + count
        for model_id, count in other.models.items():
            self._count_model(model_id, count)
        self.earned.merge(other.earned)
        self.online.merge(other.online)
        self.baseline.merge(other.baseline)
        self.uniform.merge(other.uniform)
        self.exploring.merge(other.exploring)

    def _count_model(self, model_id: ModelId, count: int) -> None:
        if model_id not in self.models and len(self.models) >= MODELS_MAX:
            model_id = OTHER_MODELS
        self.models[model_id] = self.models.get(model_id, 0) + count


class ActionTally(msgspec.Struct, array_like=True):
    """What became of one action. An event with several slots counts once for each slot that offered the action."""

    offered: int = 0  # times that it could have been chosen
    chosen: int = 0  # times that it was drawn
    shown: int = 0  # times that it was shown: what was drawn, or the baseline
    probability: float = 0.0  # sum over the times that it was offered
    rewards: float = 0.0  # sum over the times that it was shown, as they were reported
    reward_squares: float = 0.0
    newest_us: TimeUs = 0  # of the newest decision that offered it

    def add(self, action: SeenAction, time_us: TimeUs) -> None:
        """Take in that it was offered once more."""
        self.offered += 1
        self.chosen += action.chosen
        self.probability += action.probability
        if action.reward is not None:
            self.shown += 1
            self.rewards += action.reward
            self.reward_squares += action.reward * action.reward
        if time_us > self.newest_us:  # noqa: PLR1730  # a call for each action of each event
            self.newest_us = time_us

    def merge(self, other: ActionTally) -> None:
        """Take in what became of it elsewhere."""
        self.offered += other.offered
        self.chosen += other.chosen
        self.shown += other.shown
        self.probability += other.probability
        self.rewards += other.rewards
        self.reward_squares += other.reward_squares
        self.newest_us = max(self.newest_us, other.newest_us)


class ActionTallies(msgspec.Struct, omit_defaults=True):
    """What became of the actions of a stretch of time."""

    known: dict[str, ActionTally] = {}  # by action id, the first `ACTIONS_MAX` that were offered
    others: ActionTally = msgspec.field(default_factory=ActionTally)  # all others together

    def add(self, seen: Seen) -> None:
        """Take an event in."""
        known, time_us = self.known, seen.time_us
        for action in seen.actions:
            tally = known.get(action.action_id)
            (self._of(action.action_id) if tally is None else tally).add(action, time_us)

    def merge(self, other: ActionTallies) -> None:
        """Take the events of another stretch in."""
        for action_id, tally in other.known.items():
            self._of(action_id).merge(tally)
        self.others.merge(other.others)

    def _of(self, action_id: str) -> ActionTally:
        found = self.known.get(action_id)
        if found is not None:
            return found
        if len(self.known) >= ACTIONS_MAX:
            return self.others
        return self.known.setdefault(action_id, ActionTally())
