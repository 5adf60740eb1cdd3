"""The wire shapes of Rank and Reward for several slots, and their translation into our own words."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rankward.api.schema.body import check_id, decode
from rankward.api.schema.ranking import RankableAction, RankedAction, raw, read_actions
from rankward.errors import InvalidRequest
from rankward.ranking.features import FeatureBounds, check_context, check_slot
from rankward.ranking.slots import SlotAsked, SlotsRequest, read_slots
from rankward.records import LearningMode, MultiSlotInteraction
from rankward.settings import Limits

_CODE = "InvalidRankRequest"


class SlotRequest(msgspec.Struct, rename="camel"):
    """A place to fill with an action."""

    id: str
    baseline_action: Annotated[str, Meta(description="Id of the action that the application would show here.")]
    features: Annotated[msgspec.Raw, Meta(description="An array of objects of features.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    excluded_actions: list[str | None] | None = None


class _MultiSlotRankOptions(msgspec.Struct, rename="camel", kw_only=True):
    slots: list[SlotRequest | None]
    context_features: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    event_id: str | None = None
    defer_activation: bool | None = None
    subject: str | None = None  # beyond the contract: whose event this is, to be forgotten by


class MultiSlotRankBody(_MultiSlotRankOptions, kw_only=True):
    """Body of Rank for several slots."""

    actions: list[RankableAction | None]


class _UnreadMultiSlotRankBody(_MultiSlotRankOptions, kw_only=True):
    """The same, with actions as they were sent: most were sent before."""

    actions: list[msgspec.Raw]


class SlotResponse(msgspec.Struct, rename="camel", omit_defaults=True):
    """A slot with the action to show there."""

    id: str
    reward_action_id: str
    ranking: list[RankedAction] | None = None  # only if asked for: the actions that were left for the slot


class MultiSlotRankAnswer(msgspec.Struct, rename="camel"):
    """Answer of Rank for several slots."""

    slots: list[SlotResponse]
    event_id: str


class SlotReward(msgspec.Struct, rename="camel"):
    """What one slot was worth."""

    slot_id: str
    value: Annotated[float, Meta(ge=-1.0, le=1.0)]


class MultiSlotRewardBody(msgspec.Struct, rename="camel"):
    """Body of Reward for several slots."""

    reward: list[SlotReward]
    report_id: Annotated[
        str | None,
        Meta(description="Ours: your name for this report. Sent again under the same name, each slot counts once."),
    ] = None


class _SlotValue(msgspec.Struct, rename="camel"):
    slot_id: str
    value: float


class _SlotValues(msgspec.Struct, rename="camel"):
    reward: list[_SlotValue]
    report_id: str | None = None


_rank_body = msgspec.json.Decoder(MultiSlotRankBody)
_unread_rank_body = msgspec.json.Decoder(_UnreadMultiSlotRankBody)
_reward_body = msgspec.json.Decoder(_SlotValues)  # without bounds: it is said here which of the values is out of them
_encode = msgspec.json.Encoder().encode


def read_rank(body: bytes, *, limits: Limits, bounds: FeatureBounds) -> tuple[SlotsRequest, bool]:
    """Read the body of Rank for several slots.

    Returns:
        The request, and whether the caller named the event. If it did not, `event_id` is empty.

    Raises:
        InvalidRequest: it cannot be used.
    """
    wire: _UnreadMultiSlotRankBody = decode(_unread_rank_body, body, code=_CODE)
    try:
        actions = read_actions(wire.actions, limits=limits, bounds=bounds)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        decode(_rank_body, body, code=_CODE)  # which says where in the body it is that something does not fit
        raise
    if wire.event_id is not None:
        check_id(wire.event_id, "eventId", limits=limits, code=_CODE)
    if wire.subject is not None:
        check_id(wire.subject, "subject", limits=limits, code=_CODE)
    request = SlotsRequest(
        event_id=wire.event_id or "",
        context=check_context(raw(wire.context_features), bounds),
        actions=actions,
        slots=read_slots([_asked(slot, index, limits, bounds) for index, slot in enumerate(wire.slots)], actions),
        deferred=bool(wire.defer_activation),
        subject=wire.subject,
    )
    return request, wire.event_id is not None


def _asked(slot: SlotRequest | None, index: int, limits: Limits, bounds: FeatureBounds) -> SlotAsked:
    """Check one slot by itself; what is wrong with it is said with its index."""
    where = f"slots[{index}]"
    if slot is None:
        raise InvalidRequest(f"{where}: it is null: leave it out", code=_CODE, target=where)
    try:
        features = check_slot(raw(slot.features), bounds)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}", code=_CODE, target=f"{where}.{error.target}") from error
    return SlotAsked(
        id=check_id(slot.id, f"{where}.id", limits=limits, code=_CODE),
        features=features,
        baseline=slot.baseline_action,
        excluded=[action_id for action_id in slot.excluded_actions or () if action_id is not None],
    )


def write_rank(interaction: MultiSlotInteraction, *, probabilities: bool) -> bytes:
    """Write the answer of Rank for several slots.

    Args:
        interaction: what was decided.
        probabilities: whether each slot comes with the actions that it could have shown, and their probabilities. As
            in Rank, the drawn one stands first where the model decided, else the request's order stays.
    """
    actions = interaction.actions
    slots = [
        SlotResponse(slot.id, actions[shown].id)
        for slot, shown in zip(interaction.slots, interaction.shown, strict=True)
    ]
    if probabilities:
        for slot, choice in zip(slots, interaction.choices, strict=True):
            ranked = sorted(zip(choice.actions, choice.pmf, strict=True))
            if interaction.learning_mode is LearningMode.ONLINE:
                ranked.sort(key=lambda item: (item[0] != choice.chosen, -item[1]))
            slot.ranking = [RankedAction(actions[index].id, round(probability, 7)) for index, probability in ranked]
    return _encode(MultiSlotRankAnswer(slots, interaction.event_id))


def read_reward(body: bytes, *, limits: Limits) -> tuple[list[tuple[str, float]], str | None]:
    """Read the body of Reward for several slots.

    Returns:
        Slot ids with values, in the order of the body, and the caller's name for the report, if it has one.

    Raises:
        InvalidRequest: it does not fit, or a value is outside -1 to 1.
    """
    code = "InvalidRewardRequest"
    wire: _SlotValues = decode(_reward_body, body, code=code)
    rewards = wire.reward
    if len(rewards) > limits.actions:
        raise InvalidRequest(
            f"there are {len(rewards)} rewards, the bound is {limits.actions}: send them in several calls",
            code=code,
            target="reward",
        )
    for index, reward in enumerate(rewards):
        where = f"reward[{index}]"
        check_id(reward.slot_id, f"{where}.slotId", limits=limits, code=code)
        if not -1.0 <= reward.value <= 1.0:
            raise InvalidRequest(
                f"{where}: value {reward.value} is outside -1 to 1: scale it", code=code, target=f"{where}.value"
            )
    if wire.report_id is not None:
        check_id(wire.report_id, "reportId", limits=limits, code=code)
    return [(reward.slot_id, reward.value) for reward in rewards], wire.report_id
