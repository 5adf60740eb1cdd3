"""Features of a decision: named as the learner names them, taken out, and put in from other decisions.

A feature is a name within a namespace, with all values that it takes: all strings under one key, or one number. A log
without it is the same log, with the key removed from every context, action and slot. The learner's own options see the
same (a test holds them together) and cannot name everything: `--ignore` knows namespaces by their first letter, and
`--ignore_features_dsjson_experimental` no name with a space or a bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from rankward.records import Action, AnyInteraction, Features, JoinedEvent, MultiSlotInteraction

OUTERMOST_CONTEXT, OUTERMOST_ACTION, OUTERMOST_SLOT = "FromUrl", "j", "sj"
_ID_NAMESPACE = "i"
_LEFT_OUT_ID = ""
_CACHED = 16_384
_NOTHING = (b"[]", b"[{}]")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Feature(NamedTuple):
    """A feature, as the learner names it."""

    namespace: str
    name: str


ACTION_ID = Feature(_ID_NAMESPACE, "id")


def values_of(features: Features, outermost: str) -> Iterator[tuple[Feature, object]]:
    """Yield each feature with its value; an array of numbers is one, whose value is the array.

    Args:
        features: of a context, an action or a slot.
        outermost: the namespace of its plain keys.
    """
    yield from _walk(_decode(features), outermost)


def _is_namespace(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


def _walk(value: object, namespace: str) -> Iterator[tuple[Feature, object]]:
    if isinstance(value, list):
        for inner in value:
            yield from _walk(inner, namespace)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if _is_namespace(inner):
                yield from _walk(inner, key)
            elif key == "_text" or not key.startswith("_"):
                yield Feature(namespace, key), inner


def without_features(event: JoinedEvent, features: frozenset[Feature]) -> JoinedEvent:
    """Return an event as it would have been logged without some features."""
    interaction = event.interaction
    actions = tuple([_without_in_action(action, features) for action in interaction.actions])
    context = _removed(interaction.context, features, OUTERMOST_CONTEXT)
    stripped: AnyInteraction = msgspec.structs.replace(interaction, context=context, actions=actions)
    if isinstance(stripped, MultiSlotInteraction):
        slots = [
            msgspec.structs.replace(slot, features=_removed(slot.features, features, OUTERMOST_SLOT))
            for slot in stripped.slots
        ]
        stripped = msgspec.structs.replace(stripped, slots=tuple(slots))
    return JoinedEvent(event.offset, event.entry, stripped)


@lru_cache(maxsize=_CACHED)
def _without_in_action(action: Action, features: frozenset[Feature]) -> Action:
    action_id = _LEFT_OUT_ID if ACTION_ID in features else action.id
    return Action(action_id, _removed(action.features, features, OUTERMOST_ACTION))


@lru_cache(maxsize=_CACHED)
def _removed(features: Features, left_out: frozenset[Feature], outermost: str) -> Features:
    return Features(_encode(_pruned(_decode(features), left_out, outermost)))


def _pruned(value: object, left_out: frozenset[Feature], namespace: str) -> object:
    if isinstance(value, list):
        return [_pruned(inner, left_out, namespace) for inner in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, object] = {}
    for key, inner in value.items():
        if _is_namespace(inner):
            kept[key] = _pruned(inner, left_out, key)
        elif (namespace, key) not in left_out:
            kept[key] = inner
    return kept


class Excerpt(NamedTuple):
    """What a context, an action or a slot has of some features: to be put into another one in their place."""

    text: bytes  # JSON objects, each followed by a comma; empty: it has none of them
    action_id: str = ""  # of an action, where the id is one of them


@lru_cache(maxsize=_CACHED)
def excerpt(features: Features, wanted: frozenset[Feature], outermost: str) -> bytes:
    """Write what there is of some features, as `Excerpt.text`."""
    return b"".join(
        _encode({name: value} if namespace == outermost else {namespace: {name: value}}) + b","
        for (namespace, name), value in values_of(features, outermost)
        if (namespace, name) in wanted
    )


def exchanged(features: Features, wanted: frozenset[Feature], outermost: str, text: bytes) -> Features:
    """Put an excerpt of another's features in place of one's own."""
    if text == excerpt(features, wanted, outermost):
        return features
    rest = _removed(features, wanted, outermost)
    if text and rest in _NOTHING:
        return Features(b"[" + text[:-1] + b"]")
    return Features(b"[" + text + rest[1:])
