"""The wire shapes of the service configuration and the policy, and their translation into our own words."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, get_args, get_type_hints

import msgspec
from msgspec import Meta

from rankward.api.schema.body import any_body, decode
from rankward.errors import InvalidSettings
from rankward.settings import SETTINGS, LoopSettings, parse, show


class PolicyContract(msgspec.Struct, rename="camel"):
    """A learning policy."""

    name: Annotated[str, Meta(max_length=256)]
    arguments: Annotated[str, Meta(max_length=1024)]


_policy_body = msgspec.json.Decoder(PolicyContract)
_encode = msgspec.json.Encoder().encode


def read_policy(body: bytes) -> str:
    """Read the body of a policy change. Returns its arguments.

    Raises:
        InvalidRequest: it cannot be used.
    """
    policy: PolicyContract = decode(_policy_body, body, code="InvalidPolicyContract")
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
    wire: Mapping[str, object] = decode(any_body, body, code="BadRequest")
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
        f"{wire_name} cannot be {json.dumps(value)[:80]}: see the contract for its type",
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


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def _check_date(wire_name: str, value: str) -> str:
    """Read a date as it is kept and answered: as it was sent, unless clients could not read that."""
    try:
        moment = datetime.fromisoformat(value)
        if _RFC_3339.fullmatch(value):
            return value
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidSettings(
            f"{wire_name} {value[:80]!r} is no date: write 2026-01-31T00:00:00", target=wire_name
        ) from None
    return moment.isoformat().replace("+00:00", "Z")


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
