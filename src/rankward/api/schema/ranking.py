"""The wire shapes of Rank and Reward, and their translation into our own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from rankward.api.schema.body import check_id, decode
from rankward.errors import InvalidRequest
from rankward.ranking.decide import RankRequest, excluded_indexes, ranking
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import Action, Interaction
from rankward.settings import Limits
from rankward.vw.explain import Contribution

_CODE = "InvalidRankRequest"
_REMEMBERED_BYTES = 2_048  # an action whose text is longer than this is not remembered


class RankableAction(msgspec.Struct, rename="camel"):
    """An option to choose from."""

    id: str
    features: Annotated[msgspec.Raw, Meta(description="An array with at least one object of features.")]


class _RankOptions(msgspec.Struct, rename="camel", kw_only=True):
    context_features: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    excluded_actions: list[str | None] | None = None
    event_id: str | None = None
    defer_activation: bool | None = None
    subject: str | None = None  # beyond the contract: whose event this is, to be forgotten by


class RankBody(_RankOptions):
    """Body of Rank."""

    actions: list[RankableAction | None]


class _UnreadRankBody(_RankOptions):
    """The same, with actions as they were sent: most were sent before."""

    actions: list[msgspec.Raw]


class RankedAction(msgspec.Struct, rename="camel"):
    """An action with the probability that it could have been drawn with."""

    id: str
    probability: float


class FeatureScore(msgspec.Struct, rename="camel"):
    """What a feature adds to the reward that the model expects of an action."""

    name: str
    score: float


class InferenceExplanation(msgspec.Struct, rename="camel"):
    """What made the model score an action as it did."""

    id: str
    features: list[FeatureScore]


class RankAnswer(msgspec.Struct, rename="camel"):
    """Answer of Rank."""

    ranking: list[RankedAction]
    event_id: str
    reward_action_id: str
    inference_explanation: list[InferenceExplanation] | msgspec.UnsetType = msgspec.UNSET


class RewardBody(msgspec.Struct, rename="camel"):
    """Body of Reward."""

    value: Annotated[float, Meta(ge=-1.0, le=1.0)]
    report_id: Annotated[
        str | None,
        Meta(description="Ours: your name for this reward. Sent again under the same name, it counts once."),
    ] = None


_rank_body = msgspec.json.Decoder(RankBody)
_unread_rank_body = msgspec.json.Decoder(_UnreadRankBody)
_rankable_action = msgspec.json.Decoder(RankableAction | None)
_reward_body = msgspec.json.Decoder(
    msgspec.defstruct("RewardValue", [("value", float), ("report_id", str | None, None)], rename="camel")
)
_encode = msgspec.json.Encoder().encode


def read_rank(body: bytes, *, limits: Limits, bounds: FeatureBounds) -> tuple[RankRequest, bool]:
    """Read the body of Rank.

    Returns:
        The request, and whether the caller named the event. If it did not, `event_id` is empty.

    Raises:
        InvalidRequest: it cannot be used.
    """
    wire: _UnreadRankBody = decode(_unread_rank_body, body, code=_CODE)
    try:
        actions = read_actions(wire.actions, limits=limits, bounds=bounds)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        decode(_rank_body, body, code=_CODE)  # which says where in the body it is that something does not fit
        raise
    if wire.event_id is not None:
        check_id(wire.event_id, "eventId", limits=limits, code=_CODE)
    if wire.subject is not None:
        check_id(wire.subject, "subject", limits=limits, code=_CODE)
    excluded = [action_id for action_id in wire.excluded_actions or () if action_id is not None]
    request = RankRequest(
        event_id=wire.event_id or "",
        context=check_context(raw(wire.context_features), bounds),
        actions=actions,
        excluded=excluded_indexes(actions, excluded),
        deferred=bool(wire.defer_activation),
        subject=wire.subject,
    )
    return request, wire.event_id is not None


def read_actions(wire: Sequence[msgspec.Raw], *, limits: Limits, bounds: FeatureBounds) -> tuple[Action, ...]:
    """Read the actions of a request.

    Raises:
        InvalidRequest: there are none or too many, two have the same id, or one cannot be used.
        MsgspecError, UnicodeDecodeError: one is not of its type. To decode the whole body says where it is.
    """
    count = len(wire)
    if not 1 <= count <= limits.actions:
        raise InvalidRequest(
            f"there are {count} actions: send 1 to {limits.actions}",
            code=_CODE,
            target="actions",
            reason="ActionCountOutOfBounds",
        )
    actions = _read_each(wire, limits, bounds)
    if len({action.id for action in actions}) < count:
        raise InvalidRequest(
            "two actions have the same id: an id must name one action",
            code=_CODE,
            target="actions",
            reason="DuplicateActionId",
        )
    return tuple(actions)


def raw(text: msgspec.Raw | msgspec.UnsetType) -> bytes:
    """Return the text of a member that may be absent; empty: it is."""
    return b"" if text is msgspec.UNSET else bytes(text)


def _read_each(wire: Sequence[msgspec.Raw], limits: Limits, bounds: FeatureBounds) -> list[Action]:
    """Check all actions; what is wrong with one is said with its index."""
    remembered = _remembered_actions(limits, bounds)
    index = 0
    actions: list[Action] = []
    try:
        for index, raw in enumerate(wire):  # noqa: B007  (the index is for the error)
            text = bytes(raw)
            actions.append(remembered(text) if len(text) <= _REMEMBERED_BYTES else _read_action(text, limits, bounds))
    except InvalidRequest as error:
        place = f"actions[{index}]"
        raise InvalidRequest(
            f"{place}: {error.message}",
            code=error.code,
            target=f"{place}.{error.target}" if error.target else place,
            reason=error.reason,
        ) from error
    return actions


def _read_action(text: bytes, limits: Limits, bounds: FeatureBounds) -> Action:
    wire = _rankable_action.decode(text)
    if wire is None:
        raise InvalidRequest("it is null: leave it out", code=_CODE)
    action_id = check_id(wire.id, "id", limits=limits, code=_CODE)
    return Action(action_id, check_action(bytes(wire.features), bounds))


@lru_cache(maxsize=1)  # a process has but one set of limits and bounds
def _remembered_actions(limits: Limits, bounds: FeatureBounds) -> Callable[[bytes], Action]:
    """Make what reads actions by their text: an application offers the same ones again and again.

    So most are neither taken apart nor checked twice, and are one object wherever they are looked up later.
    """
    return lru_cache(maxsize=16_384)(lambda text: _read_action(text, limits, bounds))


def write_rank(interaction: Interaction, contributions: Sequence[Contribution] | None = None) -> bytes:
    """Write the answer of Rank. Probabilities have single precision, as the original's had.

    Args:
        interaction: what was decided.
        contributions: what made the model choose it; None: the answer does not say.
    """
    actions = interaction.actions
    # To seven places, in a third of the time that `round` takes, which showed in a decision with 50 actions.
    pmf = [int(probability * 1e7 + 0.5) / 1e7 for probability in interaction.pmf]
    return _encode(
        RankAnswer(
            ranking=[RankedAction(actions[index].id, pmf[index]) for index in ranking(interaction)],
            event_id=interaction.event_id,
            reward_action_id=actions[interaction.shown].id,
            inference_explanation=msgspec.UNSET
            if contributions is None
            else [_explanation(actions[interaction.chosen].id, contributions)],
        )
    )


def _explanation(action_id: str, contributions: Sequence[Contribution]) -> InferenceExplanation:
    return InferenceExplanation(action_id, [FeatureScore(part.name, round(part.score, 7)) for part in contributions])


def read_reward(body: bytes, *, limits: Limits) -> tuple[float, str | None]:
    """Read the body of Reward.

    Returns:
        The value, and the caller's name for the report, if it has one.

    Raises:
        InvalidRequest: there is no number in it, or one outside -1 to 1, or the name is empty or too long.
    """
    wire = decode(_reward_body, body, code="InvalidRewardRequest")
    value: float = wire.value
    if not -1.0 <= value <= 1.0:
        raise InvalidRequest(f"value {value} is outside -1 to 1: scale it", code="InvalidRewardRequest", target="value")
    report: str | None = wire.report_id
    if report is not None:
        check_id(report, "reportId", limits=limits, code="InvalidRewardRequest")
    return value, report
