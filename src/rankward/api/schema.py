"""The wire shapes of the contract, and their translation into our own words: done here and nowhere else."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from rankward.errors import InvalidRequest, InvalidSettings
from rankward.ranking.decide import RankRequest, excluded_indexes, ranking
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import Action, EventId, Interaction, TimeUs
from rankward.settings import SETTINGS, Limits, LoopSettings, as_datetime, parse, show

_REMEMBERED_BYTES = 2_048  # features longer than this are not remembered


class RankableAction(msgspec.Struct, rename="camel"):
    """An option to choose from."""

    id: str
    features: Annotated[msgspec.Raw, Meta(description="An array with at least one object of features.")]


class RankBody(msgspec.Struct, rename="camel"):
    """Body of Rank."""

    actions: list[RankableAction | None]
    context_features: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    excluded_actions: list[str | None] | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class RankedAction(msgspec.Struct, rename="camel"):
    """An action with the probability that it could have been drawn with."""

    id: str
    probability: float


class RankAnswer(msgspec.Struct, rename="camel"):
    """Answer of Rank."""

    ranking: list[RankedAction]
    event_id: str
    reward_action_id: str


class RewardBody(msgspec.Struct, rename="camel"):
    """Body of Reward."""

    value: Annotated[float, Meta(ge=-1.0, le=1.0)]


class PolicyContract(msgspec.Struct, rename="camel"):
    """A learning policy."""

    name: Annotated[str, Meta(max_length=256)]
    arguments: Annotated[str, Meta(max_length=1024)]


class ModelProperties(msgspec.Struct, rename="camel"):
    """When the model was made. `0001-01-01T00:00:00+00:00`: it never was."""

    creation_time: str
    last_modified_time: str


class DateRange(msgspec.Struct, rename="camel"):
    """A span of whole days."""

    from_: str = msgspec.field(name="from")
    to: str


class LogsProperties(msgspec.Struct, rename="camel", omit_defaults=True):
    """What the log holds; empty when it holds nothing."""

    date_range: DateRange | None = None


_rank_body = msgspec.json.Decoder(RankBody)
_reward_body = msgspec.json.Decoder(msgspec.defstruct("RewardValue", [("value", float)]))
_policy_body = msgspec.json.Decoder(PolicyContract)
_any_body = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes, *, code: str) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body does not fit: {error}", code=code) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="BadRequest") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply: flatten the features", code=code) from error


def check_id(value: str, what: str, *, limits: Limits, code: str) -> str:
    """Refuse an id that is empty or too long."""
    if not value:
        raise InvalidRequest(f"{what} is empty: give it 1 to {limits.id_length} characters", code=code, target=what)
    if len(value) > limits.id_length:
        raise InvalidRequest(
            f"{what} has {len(value)} characters, the bound is {limits.id_length}: shorten it",
            code=code,
            target=what,
        )
    return value


def read_rank(body: bytes, *, limits: Limits, bounds: FeatureBounds) -> tuple[RankRequest, bool]:
    """Read the body of Rank.

    Returns:
        The request, and whether the caller named the event. If it did not, `event_id` is empty.

    Raises:
        InvalidRequest: it cannot be used.
    """
    code = "InvalidRankRequest"
    wire: RankBody = _decode(_rank_body, body, code=code)
    count = len(wire.actions)
    if not 1 <= count <= limits.actions:
        raise InvalidRequest(
            f"there are {count} actions: send 1 to {limits.actions}",
            code=code,
            target="actions",
            reason="ActionCountOutOfBounds",
        )
    actions = _read_actions(wire.actions, limits, bounds)
    if len({action.id for action in actions}) < count:
        raise InvalidRequest(
            "two actions have the same id: an id must name one action",
            code=code,
            target="actions",
            reason="DuplicateActionId",
        )
    if wire.event_id is not None:
        check_id(wire.event_id, "eventId", limits=limits, code=code)
    excluded = [action_id for action_id in wire.excluded_actions or () if action_id is not None]
    request = RankRequest(
        event_id=wire.event_id or "",
        context=check_context(_raw(wire.context_features), bounds),
        actions=tuple(actions),
        excluded=excluded_indexes(actions, excluded),
        deferred=bool(wire.defer_activation),
    )
    return request, wire.event_id is not None


def _raw(text: msgspec.Raw | msgspec.UnsetType) -> bytes:
    return b"" if text is msgspec.UNSET else bytes(text)


def _read_actions(wire: Sequence[RankableAction | None], limits: Limits, bounds: FeatureBounds) -> list[Action]:
    """Check all actions; what is wrong with one is said with its index."""
    index = 0
    actions: list[Action] = []
    try:
        for index, action in enumerate(wire):  # noqa: B007  (the index is for the error)
            if action is None:
                raise InvalidRequest("it is null: leave it out", code="InvalidRankRequest")
            raw = bytes(action.features)
            read = _remembered_action if len(raw) <= _REMEMBERED_BYTES else _read_action
            actions.append(read(action.id, raw, limits, bounds))
    except InvalidRequest as error:
        place = f"actions[{index}]"
        raise InvalidRequest(
            f"{place}: {error.message}",
            code=error.code,
            target=f"{place}.{error.target}" if error.target else place,
            reason=error.reason,
        ) from error
    return actions


def _read_action(action_id: str, raw: bytes, limits: Limits, bounds: FeatureBounds) -> Action:
    return Action(check_id(action_id, "id", limits=limits, code="InvalidRankRequest"), check_action(raw, bounds))


# An application offers the same actions again and again: most need not be checked twice.
_remembered_action = lru_cache(maxsize=16_384)(_read_action)


def write_rank(interaction: Interaction) -> bytes:
    """Write the answer of Rank. Probabilities have single precision, as the original's had."""
    actions = interaction.actions
    # Most probabilities of a decision are the same number: rounding each once is what counts at 50 actions.
    rounded = {probability: round(probability, 7) for probability in set(interaction.pmf)}
    pmf = [rounded[probability] for probability in interaction.pmf]
    return _encode(
        RankAnswer(
            ranking=[RankedAction(actions[index].id, pmf[index]) for index in ranking(interaction)],
            event_id=interaction.event_id,
            reward_action_id=actions[interaction.shown].id,
        )
    )


def read_reward(body: bytes) -> float:
    """Read the body of Reward.

    Raises:
        InvalidRequest: there is no number in it, or one outside -1 to 1.
    """
    value: float = _decode(_reward_body, body, code="InvalidRewardRequest").value
    if not -1.0 <= value <= 1.0:
        raise InvalidRequest(f"value {value} is outside -1 to 1: scale it", code="InvalidRewardRequest", target="value")
    return value


def read_policy(body: bytes) -> str:
    """Read the body of a policy change. Returns its arguments.

    Raises:
        InvalidRequest: it cannot be used.
    """
    policy: PolicyContract = _decode(_policy_body, body, code="InvalidPolicyContract")
    return policy.arguments


_WIRE_NAMES = {setting.wire: name for name, setting in SETTINGS.items() if setting.wire is not None}
_TYPES = get_type_hints(LoopSettings)


def read_settings(body: bytes) -> dict[str, object]:
    """Read the body of a configuration change. Members that are absent or null stay as they are.

    Returns:
        New values by setting name.

    Raises:
        InvalidRequest: the body is no JSON object.
        InvalidSettings: a member is not of its type.
    """
    wire: Mapping[str, object] = _decode(_any_body, body, code="BadRequest")
    changes: dict[str, object] = {}
    for wire_name, value in wire.items():
        name = _WIRE_NAMES.get(wire_name)
        if name is None or value is None or name == "last_configuration_edit":
            continue
        changes[name] = _read_setting(name, wire_name, value)
    return changes


def _read_setting(name: str, wire_name: str, value: object) -> object:
    kind = _TYPES[name]
    refused = InvalidSettings(
        f"{wire_name} cannot be {msgspec.json.encode(value).decode()[:80]}: see the contract for its type",
        code=SETTINGS[name].code,
        target=wire_name,
    )
    if isinstance(value, bool) != (kind is bool):
        raise refused
    if isinstance(value, str):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            for member in kind:  # enum names come in any case
                if member.value.lower() == value.lower():
                    return member
            raise InvalidSettings(
                f"{wire_name} {value[:80]!r} is none of {', '.join(member.value for member in kind)}",
                code=SETTINGS[name].code,
                target=wire_name,
            )
        if name == "auto_optimization_start_date":
            return _check_date(wire_name, value)
        if str in (kind, *get_args(kind)):
            return value
        try:
            return parse(name, value)
        except InvalidSettings:
            raise refused from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise refused from None


def _check_date(wire_name: str, value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise InvalidSettings(
            f"{wire_name} {value[:80]!r} is no date: write 2026-01-31T00:00:00", target=wire_name
        ) from None
    return value


def write_settings(settings: LoopSettings) -> bytes:
    """Write the answer of a configuration call. Unset members are left out."""
    answer: dict[str, object] = {}
    for name, setting in SETTINGS.items():
        value = getattr(settings, name)
        if setting.wire is None or value is None:
            continue
        if isinstance(value, datetime):
            answer[setting.wire] = wire_time(value)
        elif isinstance(value, bool | int | float):
            answer[setting.wire] = value
        else:
            answer[setting.wire] = show(value)
    return _encode(answer)


def wire_time(moment: datetime) -> str:
    """Write a moment as configurations have it: UTC without a zone, whole seconds."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def model_time(time_us: TimeUs | None) -> str:
    """Write a moment as model properties have it: with its offset. None: it never was."""
    return "0001-01-01T00:00:00+00:00" if time_us is None else as_datetime(time_us).isoformat()


def read_event_id(text: str, *, limits: Limits, code: str) -> EventId:
    """Check an event id from a path."""
    return check_id(text, "eventId", limits=limits, code=code)
