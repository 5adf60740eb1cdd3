"""Check features that come from outside, so that nothing hostile reaches the learner's parser.

What is refused, the contract refuses or the learner could not use. What is rewritten:

- names that begin with `_` are left out: the contract has the learner ignore them, its parser obeys them;
- null becomes the string "null", as the contract has it;
- a namespace whose name begins outside ASCII gets `NAMESPACE_PREFIX`: the parser finds the place of a
  namespace by the first byte of its name, taken as signed, and would write outside of its memory.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rankward.errors import InvalidRequest
from rankward.records import Features

NAMESPACE_PREFIX = "%"
NUMBER_MAX = 3.4028234e38  # of a single-precision float, which is what the learner counts in

_NUMBERS = frozenset((int, float))
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
_SHOWN_LENGTH = 40  # characters of a name that a message repeats

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class FeatureBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much one array of features may hold."""

    depth: int = 6  # levels of objects and arrays below the array itself, 1 to 64
    features: int = 2_000  # leaf values in one array; an empty object or array counts as one
    name_length: int = 256  # characters of a name, with its prefix if it gets one
    string_length: int = 2_048  # characters of a value


def check_context(raw: bytes, bounds: FeatureBounds) -> Features:
    """Check a request's `contextFeatures`. Absent and null mean that there are none.

    Args:
        raw: JSON text of an array of objects, or of null, or nothing.
        bounds: how much it may hold.

    Raises:
        InvalidRequest: naming the member that is at fault.

    >>> check_context(b'[{"visitor": {"device": "phone", "_note": 1, "age": null}}]', FeatureBounds())
    b'[{"visitor":{"device":"phone","age":"null"}}]'
    """
    if not raw:
        return Features(b"[]")
    try:
        groups = _parse(raw)
        if groups is None:
            return Features(b"[]")
        if None in groups:
            raise _FlawError("is null: leave it out", groups.index(None))
        _clean_array(groups, bounds)
    except _FlawError as flaw:
        raise flaw.of("contextFeatures") from None
    return Features(_encode(groups))


def check_action(raw: bytes, bounds: FeatureBounds) -> Features:
    """Check the `features` of one action: at least one object that is neither null nor empty.

    Null and empty objects are dropped. So are those that held nothing but ignored names; when no
    other is left, one empty object stands for them, since the caller did give something.

    Args:
        raw: JSON text of an array of objects.
        bounds: how much it may hold.

    Raises:
        InvalidRequest: naming the member that is at fault.

    >>> check_action(b'[null, {"dish": {"veg": true}}, {}]', FeatureBounds())
    b'[{"dish":{"veg":true}}]'
    """
    try:
        groups = (_parse(raw) if raw else None) or []
        given = any(groups)
        _clean_array(groups, bounds)
        if not given:
            raise _FlawError("holds no feature: give at least one object that is neither null nor empty")
    except _FlawError as flaw:
        raise flaw.of("features") from None
    return Features(_encode([group for group in groups if group] or [{}]))


def check_logged(raw: bytes, bounds: FeatureBounds, where: str, *, or_empty: bool = False) -> Features:
    """Check features that come from a log: as at the door, but there need not be any, and null is passed over.

    Args:
        raw: JSON text of an array of objects, or of null, or nothing.
        bounds: how much it may hold.
        where: names it in messages.
        or_empty: as for an action, drop empty objects, and let one stand for nothing.

    Raises:
        InvalidRequest: naming the member that is at fault.
    """
    try:
        groups = (_parse(raw) if raw else None) or []
        _clean_array(groups, bounds)
    except _FlawError as flaw:
        raise flaw.of(where) from None
    if or_empty:
        return Features(_encode([group for group in groups if group] or [{}]))
    return Features(_encode([group for group in groups if group is not None]))


def check_slot(raw: bytes, bounds: FeatureBounds) -> Features:
    """Check the `features` of one slot, which needs none. Null and empty objects are dropped.

    Args:
        raw: JSON text of an array of objects, or of null, or nothing.
        bounds: how much it may hold.

    Raises:
        InvalidRequest: naming the member that is at fault.

    >>> check_slot(b'[null, {"size": "large", "_note": 1}, {}]', FeatureBounds())
    b'[{"size":"large"}]'
    """
    try:
        groups = (_parse(raw) if raw else None) or []
        _clean_array(groups, bounds)
    except _FlawError as flaw:
        raise flaw.of("features") from None
    return Features(_encode([group for group in groups if group]))


def _parse(raw: bytes) -> list[Any] | None:
    """Decode an array, or null."""
    try:
        groups = _decode(raw)
    except msgspec.ValidationError:  # only numbers are validated here: beyond a double, or thousands of digits
        raise _out_of_range("holds a number") from None
    except RecursionError:
        raise _FlawError("nests far too deeply: flatten it") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _FlawError(f"is not JSON in UTF-8 ({error}): correct its syntax") from None
    if groups is not None and type(groups) is not list:
        raise _FlawError(f"is {_kind(groups)}: send an array of objects")
    return groups


def _clean_array(groups: list[Any], bounds: FeatureBounds) -> None:
    """Check an array of objects and mend the objects in place, passing over null."""
    count = 0
    for index, group in enumerate(groups):
        if type(group) is dict:
            try:
                count += _clean(group, bounds, bounds.depth - 1)
            except _FlawError as flaw:
                flaw.path.append(index)
                raise
        elif group is not None:
            raise _FlawError(f'is {_kind(group)}: send an object, such as {{"dish": {{"veg": true}}}}', index)
    if count > bounds.features:
        raise _FlawError(f"holds {count} features, more than {bounds.features}: send fewer")


def _clean(members: dict[str, Any], bounds: FeatureBounds, room: int) -> int:
    """Check one object and mend it in place.

    Args:
        members: the object.
        bounds: how much its array may hold.
        room: how many levels may nest below it.

    Returns:
        How many features it holds, at least 1.
    """
    string_length = bounds.string_length
    name_length = bounds.name_length
    count = 0
    rename = False
    for name, value in members.items():
        if name[:1] == "_":
            rename = True
            continue
        if not name or len(name) > name_length or not name.isprintable():
            _check_name(name, name_length)
        kind = type(value)
        if kind is str:
            if len(value) > string_length:
                raise _FlawError(f"is a string of {len(value)} characters, more than {string_length}: shorten it", name)
            count += 1
        elif kind is bool:
            count += 1
        elif kind is int or kind is float:
            if not -NUMBER_MAX <= value <= NUMBER_MAX:
                raise _out_of_range("is a number", name)
            count += 1
        elif value is None:
            members[name] = "null"
            count += 1
        else:
            if not room:
                raise _FlawError(f"is {_kind(value)} nested deeper than {bounds.depth} levels: flatten it", name)
            if name >= "\x80":
                rename = True
                if len(name) == name_length:
                    raise _FlawError(
                        f"is a name of {name_length + 1} characters with its prefix {NAMESPACE_PREFIX!r}, "
                        f"more than {name_length}: shorten it",
                        name,
                    )
            try:
                count += _clean(value, bounds, room - 1) if kind is dict else _check_numbers(value)
            except _FlawError as flaw:
                flaw.path.append(name)
                raise
    if rename:
        kept = [(_safe_name(name, value), value) for name, value in members.items() if name[:1] != "_"]
        members.clear()
        members.update(kept)
    return count or 1


def _check_numbers(numbers: list[Any]) -> int:
    """Check an array among the features, and return how many features it makes, at least 1."""
    if not numbers:
        return 1
    if not _NUMBERS.issuperset(map(type, numbers)):
        index = next(index for index, value in enumerate(numbers) if type(value) not in _NUMBERS)
        raise _FlawError(
            f"is {_kind(numbers[index])}, but an array among the features holds numbers only: "
            'send an object instead, such as {"spicy": true} for ["spicy"]',
            index,
        )
    if min(numbers) < -NUMBER_MAX or max(numbers) > NUMBER_MAX:
        index = next(index for index, value in enumerate(numbers) if abs(value) > NUMBER_MAX)
        raise _out_of_range("is a number", index)
    return len(numbers)


def _check_name(name: str, name_length: int) -> None:
    if not name:
        raise _FlawError("is an empty name: give every feature and namespace a name", name)
    if len(name) > name_length:
        raise _FlawError(f"is a name of {len(name)} characters, more than {name_length}: shorten it", name)
    if min(name) < " ":
        raise _FlawError("is a name with a control character (below 32): remove it", name)


def _safe_name(name: str, value: object) -> str:
    """Keep a namespace out of the places that the learner's parser has no memory for."""
    return NAMESPACE_PREFIX + name if name >= "\x80" and isinstance(value, dict | list) else name


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _out_of_range(what: str, *path: str | int) -> _FlawError:
    return _FlawError(f"{what} outside [-{NUMBER_MAX}, {NUMBER_MAX}]: scale it", *path)


class _FlawError(Exception):
    """What is wrong with a member, gathering its path on the way out."""

    def __init__(self, complaint: str, *path: str | int) -> None:
        super().__init__(complaint)
        self.complaint = complaint
        self.path = list(path)  # from the member outwards

    def of(self, root: str) -> InvalidRequest:
        """Word it for the caller, with the path from `root` on."""
        target = root
        for step in reversed(self.path):
            target += f"[{step}]" if isinstance(step, int) else f".{_shown(step)}"
        return InvalidRequest(f"{target} {self.complaint}", code="InvalidRankRequest", target=target)


def _shown(name: str) -> str:
    """Make a name fit to be repeated: short, and without anything that does not print."""
    short = name if len(name) <= _SHOWN_LENGTH else name[:_SHOWN_LENGTH] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in short) or '""'
