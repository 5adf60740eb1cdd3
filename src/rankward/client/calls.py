"""What a client asks a service and makes of its answers, as bytes: the part that needs no network."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec

from rankward.api.schema.multislot import MultiSlotRankAnswer, MultiSlotRankBody, MultiSlotRewardBody, SlotReward
from rankward.api.schema.multislot import SlotRequest as WireSlot
from rankward.api.schema.ranking import RankableAction, RankAnswer, RankBody, RewardBody
from rankward.decision import (
    Actions,
    Decision,
    Features,
    SlotDecision,
    SlotRequest,
    SlotsDecision,
    check_id,
    encode_features,
    read_pairs,
)
from rankward.errors import CallerError, InvalidRequest, WorldError
from rankward.records import Activation, EventId, Observation
from rankward.settings import Limits

API = "/personalizer/v1.1-preview.3"
FALLBACK_PREFIX = "fallback-"
"""Event ids of fallback decisions begin so. No service ever saw one, so a reward under it can do no harm."""

Answer = TypeVar("Answer")

_LIMITS = Limits()
_RETRY_AFTER_MAX_S = 300.0  # whatever a proxy asks for: the queue is bounded, and what waits longer is given up
_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(RankAnswer)
_slots_answer = msgspec.json.Decoder(MultiSlotRankAnswer)
_refusal = msgspec.json.Decoder(dict[str, dict[str, object]])


class Reason(enum.StrEnum):
    """Why a decision fell back to the baseline."""

    TIMEOUT = "timeout"  # no answer within the time
    UNREACHABLE = "unreachable"  # no connection, or it broke
    BUSY = "busy"  # 429 or 503
    FAILED = "failed"  # any other 5xx, 409, or an answer that makes no sense
    REFUSED = "refused"  # the service calls it the caller's mistake: 400, 401, 403, 404
    INVALID = "invalid"  # the arguments cannot be used: seen before anything was sent
    CLOSED = "closed"  # the client was closed


class UnansweredError(WorldError):
    """The service gave no decision."""

    def __init__(self, message: str, reason: Reason, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class RefusedError(CallerError):
    """The service calls it the caller's mistake. The code is the HTTP status."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks, as it has it."""

    context: Features
    actions: Actions
    event_id: EventId
    named: bool  # whether the caller chose the event id
    excluded: Sequence[str]
    deferred: bool


class SlotsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for several slots, as it has it."""

    context: Features
    actions: Actions
    slots: Sequence[SlotRequest]
    event_id: EventId
    deferred: bool


class Offer(msgspec.Struct, frozen=True):
    """Actions to choose from, by id, and the one to show when nobody chooses."""

    action_ids: tuple[str, ...]
    baseline: str

    def fallback(self, event_id: EventId) -> Decision:
        """Decide without the service."""
        pmf = tuple([(action_id, float(action_id == self.baseline)) for action_id in self.action_ids])
        return Decision(event_id=event_id, action_id=self.baseline, ranking=pmf, model_id=None, fallback=True)


class Question(msgspec.Struct, Generic[Answer], frozen=True):
    """A Rank of either kind, ready to be sent."""

    event_id: EventId
    path: str
    body: bytes
    read: Callable[[bytes], Answer]  # reads the answer; raises UnansweredError if it does not fit
    confirms: bool  # whether the client activates the decision once it has come in time


Report = Observation | Activation


class Letter(msgspec.Struct, frozen=True):
    """A reward or an activation, ready to be sent."""

    event_id: EventId
    path: str
    body: bytes = b""


def read_offer(actions: Actions, excluded: Sequence[str]) -> Offer:
    """Find what could be shown.

    Raises:
        InvalidRequest: nothing could, so that there is nothing to fall back to.
    """
    action_ids = tuple([action_id for action_id, _ in read_pairs(actions)])
    for action_id in action_ids:
        if action_id not in excluded:
            return Offer(action_ids, action_id)
    raise InvalidRequest(f"all {len(action_ids)} actions are excluded: leave at least one to choose")


def slots_fallback(asked: SlotsAsked, event_id: EventId) -> SlotsDecision:
    """Decide for every slot's baseline.

    Raises:
        InvalidRequest: there are no slots, or they are none, so that there is nothing to fall back to.
    """
    try:
        slots = [SlotDecision(slot_id=s.id, action_id=s.baseline, ranking=((s.baseline, 1.0),)) for s in asked.slots]
    except (TypeError, AttributeError) as error:
        raise InvalidRequest("slots are a sequence of `SlotRequest`: give each its id and baseline") from error
    if not slots:
        raise InvalidRequest("there are 0 slots: give at least one")
    return SlotsDecision(event_id=event_id, slots=tuple(slots), model_id=None, fallback=True)


def write_question(asked: Asked, *, confirms: bool) -> Question[Decision]:
    """Write a Rank. What its bounds are is the service's to say, as they may differ from ours.

    Raises:
        InvalidRequest: it cannot be written.
    """
    actions = _actions(asked.actions)
    body = RankBody(
        actions=list(actions),
        context_features=msgspec.Raw(encode_features(asked.context)),
        excluded_actions=list(asked.excluded),
        event_id=check_id(asked.event_id, _LIMITS),
        defer_activation=asked.deferred or confirms,
    )
    rankable = frozenset([action.id for action in actions]).difference(asked.excluded)
    read = functools.partial(_read_decision, rankable=rankable)
    return Question(asked.event_id, f"{API}/rank", _encode(body), read, confirms and not asked.deferred)


def write_slots_question(asked: SlotsAsked, *, confirms: bool) -> Question[SlotsDecision]:
    """Write a Rank for several slots.

    Raises:
        InvalidRequest: it cannot be written.
    """
    actions = _actions(asked.actions)
    body = MultiSlotRankBody(
        actions=list(actions),
        slots=[
            WireSlot(
                id=check_id(slot.id, _LIMITS),
                baseline_action=slot.baseline,
                features=msgspec.Raw(encode_features(slot.features)),
                excluded_actions=list(slot.excluded),
            )
            for slot in asked.slots
        ],
        context_features=msgspec.Raw(encode_features(asked.context)),
        event_id=check_id(asked.event_id, _LIMITS),
        defer_activation=asked.deferred or confirms,
    )
    read = functools.partial(
        _read_slots_decision,
        slot_ids=[slot.id for slot in asked.slots],
        action_ids=frozenset([action.id for action in actions]),
    )
    path = f"{API}/multislot/rank?probabilities=true"
    return Question(asked.event_id, path, _encode(body), read, confirms and not asked.deferred)


def _actions(actions: Actions) -> list[RankableAction]:
    pairs = read_pairs(actions)
    written = [
        RankableAction(check_id(action_id, _LIMITS), msgspec.Raw(encode_features(features)))
        for action_id, features in pairs
    ]
    if len({action.id for action in written}) < len(written):
        raise InvalidRequest("two actions have the same id: an id must name one action")
    return written


def _read_decision(body: bytes, *, rankable: frozenset[str]) -> Decision:
    try:
        answer = _answer.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnansweredError(f"the answer cannot be read: {error}", Reason.FAILED) from error
    if answer.reward_action_id not in rankable:
        raise UnansweredError(f"the answer names {answer.reward_action_id!r}, which was not asked for", Reason.FAILED)
    return Decision(
        event_id=answer.event_id,
        action_id=answer.reward_action_id,
        ranking=tuple([(action.id, action.probability) for action in answer.ranking]),
        model_id=None,
    )


def _read_slots_decision(body: bytes, *, slot_ids: Sequence[str], action_ids: frozenset[str]) -> SlotsDecision:
    try:
        answer = _slots_answer.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnansweredError(f"the answer cannot be read: {error}", Reason.FAILED) from error
    shown = [slot.reward_action_id for slot in answer.slots]
    if [slot.id for slot in answer.slots] != list(slot_ids) or not action_ids.issuperset(shown):
        raise UnansweredError("the answer names slots or actions that were not asked for", Reason.FAILED)
    slots = [
        SlotDecision(
            slot_id=slot.id,
            action_id=slot.reward_action_id,
            ranking=tuple([(action.id, action.probability) for action in slot.ranking or ()]),
        )
        for slot in answer.slots
    ]
    return SlotsDecision(event_id=answer.event_id, slots=tuple(slots), model_id=None)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> RefusedError | UnansweredError:
    """Make an error of an answer that is not the one hoped for."""
    try:
        said = str(_refusal.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        said = "without saying why"
    message = f"the service answers {status}: {said}"
    if status in {429, 503}:
        after = headers.get("retry-after", "")
        after_s = min(float(after), _RETRY_AFTER_MAX_S) if after.isdecimal() else 0.0
        return UnansweredError(message, Reason.BUSY, retry_after_s=after_s)
    if status >= 500 or status in {408, 409}:
        return UnansweredError(message, Reason.FAILED)
    return RefusedError(message, code=str(status))


def write_letter(report: Report) -> Letter:
    """Write a Reward, of the event or of one of its slots, or an Activate."""
    place = f"{API}/events/{quote(report.event_id, safe='')}"
    if isinstance(report, Activation):
        return Letter(report.event_id, f"{place}/activate")
    if report.slot is not None:
        place = f"{API}/multislot/events/{quote(report.event_id, safe='')}"
        body = MultiSlotRewardBody([SlotReward(report.slot, report.value)], report.report)
        return Letter(report.event_id, f"{place}/reward", _encode(body))
    return Letter(report.event_id, f"{place}/reward", _encode(RewardBody(report.value, report.report)))
