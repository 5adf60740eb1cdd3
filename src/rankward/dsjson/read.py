"""Log lines as joined events: every variation that Personalizer wrote, checked as a request is at the door.

What a line does not say is made up for like this:

- The learning mode shows in the costs: in Apprentice mode the learned one says whether the baseline was chosen. A line
  where that comes to the same is taken to be of the mode of the lines around it.
- Without observations, a cost that is not 0 counts as one observation, unless the line says that there were none.
- Actions and slots without an id are named by their number, from 0.
- A slot without a baseline has the first action that it could have drawn.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from rankward.dsjson.write import NO_MODEL
from rankward.errors import InvalidRequest
from rankward.ranking.features import FeatureBounds, check_logged
from rankward.records import (
    Action,
    AnyInteraction,
    Features,
    History,
    Interaction,
    LearningMode,
    MultiSlotInteraction,
    PastObservation,
    Slot,
    SlotChoice,
    TimeUs,
)
from rankward.settings import Limits

REWARD_MAX = 1e6
"""Of one observation, either side of 0. The contract has 1; other logs may count in money."""

_PMF_TOLERANCE = 0.01  # of what probabilities add up to: some logs round them to two digits
_CACHED_ACTIONS = 16_384
_CACHED_BYTES = 2_048  # an action longer than this is not cached: the cache is bounded in bytes, too


class Skip(enum.StrEnum):
    """Why a line is no joined event of ours."""

    DANGLING = "dangling reward"  # of a decision that the log does not have
    CONTINUOUS = "continuous action"
    SLATES = "slates"
    BROKEN = "broken"


class Skipped(msgspec.Struct, frozen=True):
    """A line that was passed over."""

    kind: Skip
    why: str  # for people


_ABSENT = msgspec.Raw()
_NOTHING = msgspec.Raw(b"[]")


class _Observed(msgspec.Struct):
    v: float | str | None = None
    action_taken: bool | None = msgspec.field(name="ActionTaken", default=False)


class _State(msgspec.Struct):
    m: str | None = None


class _Outcome(msgspec.Struct, rename=lambda name: f"_{name}"):
    label_cost: float | None = None
    original_label_cost: float | None = None
    id: str | None = None
    a: list[int] | None = None
    p: list[float] | None = None
    o: list[_Observed] | None = None


class _Line(msgspec.Struct):
    label_cost: float | None = msgspec.field(name="_label_cost", default=None)
    original_label_cost: float | None = msgspec.field(name="_original_label_cost", default=None)
    label_action: int | None = msgspec.field(name="_label_Action", default=None)
    skip_learn: bool = msgspec.field(name="_skipLearn", default=False)
    o: list[_Observed] | None = None
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)
    event_id: str | None = msgspec.field(name="EventId", default=None)
    a: list[int] | None = None
    c: dict[str, msgspec.Raw] | None = None
    p: list[float] | None = None
    state: _State | None = msgspec.field(name="VWState", default=None)
    pdrop: float = 0.0
    outcomes: list[_Outcome] | None = msgspec.field(name="_outcomes", default=None)
    baselines: list[int | None] | None = msgspec.field(name="_ba", default=None)
    continuous: msgspec.Raw = msgspec.field(name="_label_ca", default=_ABSENT)
    reward_value: msgspec.Raw = msgspec.field(name="RewardValue", default=_ABSENT)


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_groups = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class FlawError(Exception):
    """What is wrong with a line."""


class LineReader:
    """Reads the lines of one log, in order."""

    def __init__(
        self,
        *,
        bounds: FeatureBounds,
        limits: Limits,
        reward_wait_us: int,
        mode: LearningMode | None = None,
    ) -> None:
        """Prepare.

        Args:
            bounds: how much the features of an action, a slot or a context may hold.
            limits: how long ids may be.
            reward_wait_us: written into the interactions, as lines do not have it.
            mode: what lines that do not show it are taken for, up to the first that does; None: nobody knows.
        """
        self.mode = mode
        self._bounds = bounds
        self._id_length = limits.id_length
        self._reward_wait_us = reward_wait_us
        self._actions: dict[bytes, Action | Features] = {}

    def read(self, lines: Sequence[bytes]) -> list[History | Skipped]:
        """Read the next lines of the log, with or without their ends. Returns one result for each.

        Lines of a new log that do not show their mode are taken to be of that of the first of `lines` that does.
        """
        found = [self._read(line) for line in lines]
        if self.mode is None:
            self.mode = next((shown for _, shown in found if shown is not None), None)
        results: list[History | Skipped] = []
        for result, shown in found:
            self.mode = shown or self.mode
            if isinstance(result, History) and self.mode not in (None, result.interaction.learning_mode):
                interaction = msgspec.structs.replace(result.interaction, learning_mode=self.mode)
                results.append(msgspec.structs.replace(result, interaction=interaction))
            else:
                results.append(result)
        return results

    def _read(self, text: bytes) -> tuple[History | Skipped, LearningMode | None]:
        """Read a line as one of Online mode, and say which mode it shows."""
        try:
            line = _decode_line(text)
            if kind := _other_kind(line):
                return Skipped(kind, _REASONS[kind]), None
            return self._single_slot(line) if line.outcomes is None else self._multi_slot(line, line.outcomes)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Skipped(Skip.BROKEN, f"it is no log line: {error}"), None
        except InvalidRequest as error:
            return Skipped(Skip.BROKEN, error.message), None
        except FlawError as flaw:
            return Skipped(Skip.BROKEN, str(flaw)), None

    def _single_slot(self, line: _Line) -> tuple[History, LearningMode | None]:
        context, actions = self._offer(line.c or {})
        if line.a is None or line.p is None:
            raise FlawError("it lacks `a` or `p`: without probabilities it teaches nothing")
        check_choice(line.a, line.p, range(1, len(actions) + 1))
        if line.label_action not in (None, line.a[0]):
            raise FlawError(f"`_label_Action` is {line.label_action}, but `a` begins with {line.a[0]}")
        pmf = [0.0] * len(actions)
        for number, probability in zip(line.a, line.p, strict=True):
            pmf[number - 1] = probability
        chosen = line.a[0] - 1
        time_us = _moment(line.timestamp)
        rewards, activated = _observed(line.o, line.label_cost, line.original_label_cost)
        interaction = Interaction(
            event_id=self._id(line.event_id, "EventId"),
            context=context,
            actions=actions,
            pmf=tuple(pmf),
            chosen=chosen,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=self._reward_wait_us,
            deferred=line.skip_learn or activated,
            model_id=self._model(line.state),
            pass_probability=_pass_probability(line.pdrop),
        )
        observations = [PastObservation(time_us, reward) for reward in rewards]
        history = _history(interaction, time_us, observations, activated=activated)
        if line.skip_learn:
            return history, None
        return history, _shown_mode(line.label_cost, line.original_label_cost, baseline=chosen == 0)

    def _multi_slot(self, line: _Line, outcomes: Sequence[_Outcome]) -> tuple[History, LearningMode | None]:
        members = line.c or {}
        context, actions = self._offer(members)
        entries = [_decode_members(entry) for entry in _decode_list(members.get("_slots", _NOTHING))]
        if not entries or len(entries) != len(outcomes):
            raise FlawError(f"it has {len(entries)} slots under `c`, and {len(outcomes)} outcomes")
        time_us = _moment(line.timestamp)
        slots: list[Slot] = []
        choices: list[SlotChoice] = []
        observations: list[PastObservation] = []
        activated = False
        shown: set[LearningMode] = set()
        for index, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True)):
            order, pmf = outcome.a or [], outcome.p or []
            check_choice(order, pmf, range(len(actions)))
            if any(choice.chosen in order for choice in choices):
                raise FlawError(f"its outcome {index} ranks an action that an earlier slot has taken")
            named = line.baselines[index] if line.baselines and index < len(line.baselines) else None
            slot = self._slot(entry, outcome, index, len(actions), min(order) if named is None else named)
            slots.append(slot)
            choices.append(SlotChoice(tuple(order), tuple(pmf)))
            rewards, taken = _observed(outcome.o, outcome.label_cost, outcome.original_label_cost)
            activated |= taken
            observations += [PastObservation(time_us, reward, slot=slot.id) for reward in rewards]
            matched = order[0] == slot.baseline
            if mode := _shown_mode(outcome.label_cost, outcome.original_label_cost, baseline=matched):
                shown.add(mode)
        if len({slot.id for slot in slots}) < len(slots):
            raise FlawError("two of its slots have the same id")
        interaction = MultiSlotInteraction(
            event_id=self._id(line.event_id or outcomes[0].id, "EventId"),
            context=context,
            actions=actions,
            slots=tuple(slots),
            choices=tuple(choices),
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=self._reward_wait_us,
            deferred=line.skip_learn or activated,
            model_id=self._model(line.state),
            pass_probability=_pass_probability(line.pdrop),
        )
        history = _history(interaction, time_us, observations, activated=activated)
        return history, shown.pop() if len(shown) == 1 and not line.skip_learn else None

    def _slot(
        self, entry: Mapping[str, msgspec.Raw], outcome: _Outcome, index: int, action_count: int, baseline: int
    ) -> Slot:
        if not 0 <= baseline < action_count:
            raise FlawError(f"its baseline {baseline} for slot {index} is no index of its {action_count} actions")
        groups = [group for group in _decode_groups(_features(entry, "sj") or _NOTHING) if group is not None]
        told = next((group["_inc"] for group in groups if "_inc" in group), None)
        included = range(action_count) if told is None else msgspec.json.decode(told, type=list[int])
        if not {baseline, *(outcome.a or ())}.issubset(included):
            raise FlawError(f"its slot {index} ranks an action, or has a baseline, that `_inc` leaves out")
        name = msgspec.json.decode(entry["_id"], type=str) if "_id" in entry else outcome.id
        features = [group for group in groups if group.keys() != {"_inc"}]
        return Slot(
            self._id(name, "_id") if name else str(index),  # none: it was asked for without slots
            check_logged(_encode(features), self._bounds, "sj"),
            baseline=baseline,
            excluded=tuple([action for action in range(action_count) if action not in included]),
        )

    def _offer(self, context: Mapping[str, msgspec.Raw]) -> tuple[Features, tuple[Action, ...]]:
        """Read the context object: what is shared, and the actions."""
        if "_multi" not in context:
            raise FlawError("it has no actions under `c`, `_multi`")
        entries = _decode_list(context["_multi"])
        if not entries:
            raise FlawError("it offers no action")
        shared = check_logged(_features(context, "FromUrl"), self._bounds, "c")
        return shared, tuple([self._action(bytes(entry), index) for index, entry in enumerate(entries)])

    def _action(self, entry: bytes, index: int) -> Action:
        """Read one action. Most are offered again and again."""
        found = self._actions.get(entry)
        if found is None:
            found = self._read_action(entry)
            if len(entry) <= _CACHED_BYTES:
                if len(self._actions) >= _CACHED_ACTIONS:
                    self._actions.clear()
                self._actions[entry] = found
        return found if isinstance(found, Action) else Action(str(index), found)

    def _read_action(self, entry: bytes) -> Action | Features:
        """Read an action. Returns its features alone if it has no id."""
        members = _decode_members(entry)
        features = check_logged(_features(members, "j"), self._bounds, "j", or_empty=True)
        tag = members.get("_tag")
        return features if tag is None else Action(self._id(msgspec.json.decode(tag, type=str), "_tag"), features)

    def _id(self, text: str | None, name: str) -> str:
        if not text:
            raise FlawError(f"it has no `{name}`")
        if len(text) > self._id_length:
            raise FlawError(f"`{name}` has {len(text)} characters, more than {self._id_length}")
        return text

    def _model(self, state: _State | None) -> str | None:
        named = state.m if state is not None else None
        return None if named in (None, "", NO_MODEL) else self._id(named, "VWState.m")


def _other_kind(line: _Line) -> Skip | None:
    if line.continuous != _ABSENT:
        return Skip.CONTINUOUS
    if line.outcomes is not None and line.label_cost is not None:
        return Skip.SLATES
    return Skip.DANGLING if line.c is None and line.reward_value != _ABSENT else None


_REASONS = {
    Skip.DANGLING: "it is a reward whose decision is not in the log",
    Skip.CONTINUOUS: "it is of a continuous action, which is not supported",
    Skip.SLATES: "it is of slates, which are not supported",
}


def _features(members: Mapping[str, msgspec.Raw], name: str) -> bytes:
    """Gather the features of a context, an action or a slot, as a JSON array.

    They are under their name; in lines that were not written by Personalizer, they may be beside it.
    """
    others = {key: value for key, value in members.items() if key not in (name, "i") and key[:1] != "_"}
    named = bytes(members[name]) if name in members else b""
    if named and not named.startswith(b"["):
        named = b"[" + named + b"]"
    if not others:
        return named
    return _encode([*(_decode_list(named) if named else ()), others])


def check_choice(actions: Sequence[int], pmf: Sequence[float], known: range) -> None:
    """Make sure that probabilities are such, and of actions that are there.

    Args:
        actions: numbers of ranked actions, the chosen one first.
        pmf: the probability of each.
        known: the numbers that actions have.

    Raises:
        FlawError: they are not.
    """
    if not actions or len(actions) != len(pmf):
        raise FlawError(f"it has {len(actions)} ranked actions and {len(pmf)} probabilities")
    if len(set(actions)) < len(actions) or min(actions) not in known or max(actions) not in known:
        raise FlawError(f"its ranked actions {actions[:10]} are not distinct numbers of its {len(known)} actions")
    if min(pmf) < 0.0 or max(pmf) > 1.0 or not abs(sum(pmf) - 1.0) <= _PMF_TOLERANCE:
        raise FlawError(f"its probabilities {pmf[:10]} do not add up to 1")
    if pmf[0] <= 0.0:
        raise FlawError("its chosen action has probability 0")


def _observed(
    reported: Sequence[_Observed] | None, cost: float | None, original: float | None
) -> tuple[list[float], bool]:
    """Return the rewards that were observed, and whether an activation was."""
    if reported is None:
        told = cost if original is None else original
        return ([check_reward(-told)] if told else []), False
    values = [check_reward(each.v) for each in reported if each.v is not None]
    return values, any(each.action_taken for each in reported)


def _pass_probability(dropped: float) -> float:
    if not 0.0 <= dropped < 1.0:
        raise FlawError(f"its `pdrop` {dropped} is outside [0, 1)")
    return 1.0 - dropped


def _history(
    interaction: AnyInteraction, time_us: TimeUs, observations: Sequence[PastObservation], *, activated: bool
) -> History:
    return History(interaction=interaction, time_us=time_us, observations=tuple(observations), activated=activated)


def check_reward(value: float | str) -> float:
    """Return a reward as a number.

    Raises:
        FlawError: it is none, or out of bounds.
    """
    try:
        number = float(value)
    except ValueError:
        raise FlawError(f"its reward {str(value)[:40]!r} is no number") from None
    if not abs(number) <= REWARD_MAX:
        raise FlawError(f"its reward {number} is outside [-{REWARD_MAX:.0f}, {REWARD_MAX:.0f}]")
    return number


def _shown_mode(cost: float | None, original: float | None, *, baseline: bool) -> LearningMode | None:
    """Tell the mode of a line by its costs; None: they would be the same in either."""
    matches = cost == (-1.0 if baseline else 0.0)
    if cost is None or (matches and original in (None, cost)):
        return None
    if matches:
        return LearningMode.APPRENTICE
    return LearningMode.ONLINE if original in (None, cost) else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(text: str | None) -> TimeUs:
    """Read a moment: of any number of decimals, and in UTC if it does not say."""
    if text is None:
        raise FlawError("it has no `Timestamp`")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FlawError(f"its `Timestamp` {text[:40]!r} is no moment") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
