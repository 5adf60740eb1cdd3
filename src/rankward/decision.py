"""Words of Python callers: their arguments become a checked request, and an interaction becomes a decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import msgspec

from rankward.errors import InvalidRequest
from rankward.ranking.decide import RankRequest, excluded_indexes, ranking
from rankward.ranking.features import FeatureBounds, check_action, check_context, check_slot
from rankward.ranking.slots import SlotAsked, SlotsRequest, read_slots
from rankward.records import Action, EventId, Interaction, ModelId, MultiSlotInteraction
from rankward.settings import Limits

FeatureObject = Mapping[str, Any]
Features = FeatureObject | Sequence[FeatureObject]
Actions = Mapping[str, Features] | Sequence[tuple[str, Features]]
"""Features by action id, or pairs of both; the first one not excluded is the baseline."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to show, and how it was chosen."""

    event_id: EventId  # to report the reward under
    action_id: str  # to show
    ranking: tuple[tuple[str, float], ...]  # every action with its probability, in the order of Rank's answer
    model_id: ModelId | None  # None: no model had a say, or it was decided over HTTP, where Rank does not name it
    fallback: bool = False  # a client got no answer in time: the action is the baseline, and nothing is learned of it

    @property
    def probability(self) -> float:
        """The probability of the action to show."""
        return dict(self.ranking)[self.action_id]


class SlotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A place to fill with an action."""

    id: str
    baseline: str  # id of the action that the application would show here by itself; each slot has its own
    features: Features = ()
    excluded: Sequence[str] = ()  # ids of actions that must not be chosen here


class SlotDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to show in a slot, and how it was chosen."""

    slot_id: str
    action_id: str  # to show
    ranking: tuple[tuple[str, float], ...]  # the actions that earlier slots had left for it, the drawn one first


class SlotsDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to show in each of several slots."""

    event_id: EventId  # to report rewards under
    slots: tuple[SlotDecision, ...]  # in the order in which they were asked for
    model_id: ModelId | None  # None: no model had a say, or it was decided over HTTP, where Rank does not name it
    fallback: bool = False  # a client got no answer in time: every slot has its baseline, and nothing is learned of it

    @property
    def action_ids(self) -> dict[str, str]:
        """The actions to show, by slot id."""
        return {slot.slot_id: slot.action_id for slot in self.slots}


def read_request(
    context: Features,
    actions: Actions,
    *,
    event_id: EventId,
    excluded: Sequence[str],
    deferred: bool,
    subject: str | None = None,
    limits: Limits,
    bounds: FeatureBounds,
) -> RankRequest:
    """Check a caller's arguments.

    Raises:
        InvalidRequest: something in them cannot be used.
    """
    checked = _read_actions(actions, limits, bounds)
    return RankRequest(
        event_id=check_id(event_id, limits),
        context=check_context(encode_features(context), bounds),
        actions=checked,
        excluded=excluded_indexes(checked, excluded),
        deferred=deferred,
        subject=subject,
    )


def read_slots_request(
    context: Features,
    actions: Actions,
    slots: Sequence[SlotRequest],
    *,
    event_id: EventId,
    deferred: bool,
    subject: str | None = None,
    limits: Limits,
    bounds: FeatureBounds,
) -> SlotsRequest:
    """Check a caller's arguments for several slots.

    Raises:
        InvalidRequest: something in them cannot be used.
    """
    checked = _read_actions(actions, limits, bounds)
    asked = [
        SlotAsked(
            id=check_id(slot.id, limits),
            features=check_slot(encode_features(slot.features), bounds),
            baseline=slot.baseline,
            excluded=slot.excluded,
        )
        for slot in slots
    ]
    return SlotsRequest(
        event_id=check_id(event_id, limits),
        context=check_context(encode_features(context), bounds),
        actions=checked,
        slots=read_slots(asked, checked),
        deferred=deferred,
        subject=subject,
    )


def _read_actions(actions: Actions, limits: Limits, bounds: FeatureBounds) -> tuple[Action, ...]:
    pairs = read_pairs(actions)
    if len(pairs) > limits.actions:
        raise InvalidRequest(f"there are {len(pairs)} actions: give 1 to {limits.actions}")
    return tuple(
        [
            Action(check_id(action_id, limits), check_action(encode_features(features), bounds))
            for action_id, features in pairs
        ]
    )


def read_pairs(actions: Actions) -> list[tuple[str, Features]]:
    """Read actions into pairs of id and features.

    Raises:
        InvalidRequest: they are neither a mapping nor pairs, there are none, or two have the same id.
    """
    try:
        pairs = [
            (action_id, features)
            for action_id, features in (actions.items() if isinstance(actions, Mapping) else actions)
        ]
        ids = {action_id for action_id, _ in pairs}
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            "actions are a mapping from action ids to features, or pairs of both: give each action its features"
        ) from error
    if not pairs:
        raise InvalidRequest("there are 0 actions: give at least one")
    if len(ids) < len(pairs):
        raise InvalidRequest("two actions have the same id: an id must name one action")
    return pairs


def check_id(text: str, limits: Limits) -> str:
    """Refuse an id that is no text, empty or too long, or cannot be sent."""
    if not isinstance(text, str) or not 1 <= len(text) <= limits.id_length:
        raise InvalidRequest(f"{str(text)[:40]!r} is no id: give it 1 to {limits.id_length} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{text[:40]!r} is no id: it has half a surrogate pair, which UTF-8 cannot say") from error
    return text


def check_reward(value: float) -> float:
    """Refuse a reward that is no number from -1 to 1."""
    if not isinstance(value, Real) or not -1.0 <= float(value) <= 1.0:
        raise InvalidRequest(f"reward {value} is outside -1 to 1: scale it", code="InvalidRewardRequest")
    return float(value)


def encode_features(features: Features) -> bytes:
    """Write features as JSON; one object is taken for an array of one."""
    try:
        # Not msgspec: it would write NaN as null, and a null is a feature like any other.
        return json.dumps([features] if isinstance(features, Mapping) else features, allow_nan=False).encode()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"features cannot be written as JSON: {error}") from error


def write_decision(interaction: Interaction) -> Decision:
    """Say what was decided."""
    actions = interaction.actions
    return Decision(
        event_id=interaction.event_id,
        action_id=actions[interaction.shown].id,
        ranking=tuple([(actions[index].id, interaction.pmf[index]) for index in ranking(interaction)]),
        model_id=interaction.model_id,
    )


def write_slots_decision(interaction: MultiSlotInteraction) -> SlotsDecision:
    """Say what was decided for several slots."""
    ids = [action.id for action in interaction.actions]
    slots = zip(interaction.slots, interaction.choices, interaction.shown, strict=True)
    return SlotsDecision(
        event_id=interaction.event_id,
        slots=tuple(
            [
                SlotDecision(
                    slot_id=slot.id,
                    action_id=ids[shown],
                    ranking=tuple(
                        [(ids[index], share) for index, share in zip(choice.actions, choice.pmf, strict=True)]
                    ),
                )
                for slot, choice, shown in slots
            ]
        ),
        model_id=interaction.model_id,
    )
