"""Which features carry a policy: found by leaving each out and looking at what is lost.

A feature is a name within a namespace, with all values that it takes: all strings under one key, or one number. A log
without it is the same log, with the key removed from every context and action; the policy learns that log anew and is
judged by it. The learner's own options see the same (a test holds them together) and cannot name everything: `--ignore`
knows namespaces by their first letter, and `--ignore_features_dsjson_experimental` no name with a space or a bar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from rankward.evaluation.findings import FeatureScore
from rankward.records import Action, AnyInteraction, Features, JoinedEvent, MultiSlotInteraction

CENSUS_EVENTS = 5_000  # of the log, in which features are looked for
VALUES_SHOWN = 20  # of a feature, the most frequent ones first
_DEPENDS = 0.95  # of a feature's variety that another explains: beyond it the two go together
_OUTERMOST_CONTEXT, _OUTERMOST_ACTION, _OUTERMOST_SLOT, _ID_NAMESPACE = "FromUrl", "j", "sj", "i"
_LEFT_OUT_ID = ""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Feature(NamedTuple):
    """A feature, as the learner names it."""

    namespace: str
    name: str


ACTION_ID = Feature(_ID_NAMESPACE, "id")


class Census:
    """Which features a log has, and how often."""

    def __init__(self) -> None:
        self._rows: list[dict[Feature, str]] = []  # for each event: what its context and its chosen actions have
        self._seen: Counter[Feature] = Counter()  # events that have it
        self._values: dict[Feature, Counter[str]] = {}
        self._numbers: set[Feature] = set()
        self._places: Counter[str] = Counter()  # contexts, actions and slots
        self._placed: dict[str, Counter[Feature]] = {"context": Counter(), "action": Counter(), "slot": Counter()}

    @property
    def is_over(self) -> bool:
        """Whether enough of the log has been seen."""
        return len(self._rows) >= CENSUS_EVENTS

    def take(self, interaction: AnyInteraction) -> None:
        """Count the features of a decision."""
        row: dict[Feature, str] = {}
        seen: set[Feature] = set()
        taken = {choice.chosen for choice in interaction.choices}
        row.update(self._note("context", _features(interaction.context, _OUTERMOST_CONTEXT), seen))
        for index, action in enumerate(interaction.actions):
            features = [*_features(action.features, _OUTERMOST_ACTION), (ACTION_ID, action.id)]
            of_action = self._note("action", features, seen)
            if index in taken:
                row.update(of_action)
        for slot in interaction.slots if isinstance(interaction, MultiSlotInteraction) else ():
            row.update(self._note("slot", _features(slot.features, _OUTERMOST_SLOT), seen))
        self._seen.update(seen)
        self._rows.append(row)

    def _note(self, place: str, features: Iterable[tuple[Feature, object]], seen: set[Feature]) -> dict[Feature, str]:
        here: dict[Feature, str] = {}
        for feature, value in features:
            if not isinstance(value, str):
                self._numbers.add(feature)
            here[feature] = str(value)
            self._values.setdefault(feature, Counter())[here[feature]] += 1
        self._places[place] += 1
        self._placed[place].update(here.keys())
        seen.update(here)
        return here

    def varied(self, count: int) -> list[Feature]:
        """Name the features that take more than one value, the most frequent first, at most so many."""
        return [feature for feature, _ in self._seen.most_common() if not self._is_constant(feature)][:count]

    def constant(self) -> list[Feature]:
        """Name the features that every decision has alike: no choice can depend on them."""
        return [feature for feature, _ in self._seen.most_common() if self._is_constant(feature)]

    def _is_constant(self, feature: Feature) -> bool:
        counts = ((placed[feature], self._places[place]) for place, placed in self._placed.items())
        return len(self._values[feature]) == 1 and all(count in (0, places) for count, places in counts)

    def shown(self, feature: Feature) -> tuple[str, ...]:
        """Name a feature as v1 of the contract does: with its value if that is a string, one name for each."""
        plain = f"{feature.namespace}.{feature.name}"
        if feature in self._numbers:
            return (plain,)
        return tuple([plain + text for text, _ in self._values[feature].most_common(VALUES_SHOWN)])

    def go_together(self, first: Feature, second: Feature) -> bool:
        """Tell whether each of two features can be told from the other, nearly always."""
        one, other = ([row.get(each, "") for row in self._rows] for each in (first, second))
        return _explains(one, other) >= _DEPENDS and _explains(other, one) >= _DEPENDS


def _explains(column: Sequence[str], other: Sequence[str]) -> float:
    """Tell how much of a column's variety another explains (Goodman and Kruskal's lambda), within [0, 1]."""
    commonest = max(Counter(column).values(), default=0)
    if len(column) == commonest:
        return 0.0
    best: dict[str, Counter[str]] = {}
    for value, given in zip(column, other, strict=True):
        best.setdefault(given, Counter())[value] += 1
    guessed = sum(max(counts.values()) for counts in best.values())
    return (guessed - commonest) / (len(column) - commonest)


def _features(features: Features, outermost: str) -> Iterator[tuple[Feature, object]]:
    yield from _walk(_parsed(features), outermost)


@lru_cache(maxsize=4_096)
def _parsed(features: Features) -> object:
    return _decode(features)


def _walk(value: object, namespace: str) -> Iterator[tuple[Feature, object]]:
    """Yield each feature with its value; an array of numbers is one, whose value is its text."""
    if isinstance(value, list):
        for inner in value:
            yield from _walk(inner, namespace)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(each, dict) for each in inner)):
                yield from _walk(inner, key)
            elif key == "_text" or not key.startswith("_"):
                yield Feature(namespace, key), inner


def without_feature(event: JoinedEvent, feature: Feature) -> JoinedEvent:
    """Return an event as it would have been logged without a feature."""
    interaction = event.interaction
    actions = tuple([_without_in_action(action, feature) for action in interaction.actions])
    context = _removed(interaction.context, feature, _OUTERMOST_CONTEXT)
    stripped: AnyInteraction = msgspec.structs.replace(interaction, context=context, actions=actions)
    if isinstance(stripped, MultiSlotInteraction):
        slots = [
            msgspec.structs.replace(slot, features=_removed(slot.features, feature, _OUTERMOST_SLOT))
            for slot in stripped.slots
        ]
        stripped = msgspec.structs.replace(stripped, slots=tuple(slots))
    return JoinedEvent(event.offset, event.entry, stripped)


@lru_cache(maxsize=16_384)
def _without_in_action(action: Action, feature: Feature) -> Action:
    action_id = _LEFT_OUT_ID if feature == ACTION_ID else action.id
    return Action(action_id, _removed(action.features, feature, _OUTERMOST_ACTION))


@lru_cache(maxsize=16_384)
def _removed(features: Features, feature: Feature, outermost: str) -> Features:
    return Features(_encode(_pruned(_decode(features), feature, outermost)))


def _pruned(value: object, feature: Feature, namespace: str) -> object:
    if isinstance(value, list):
        return [_pruned(inner, feature, namespace) for inner in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(each, dict) for each in inner)):
            kept[key] = _pruned(inner, feature, key)
        elif (namespace, key) != feature:
            kept[key] = inner
    return kept


def scored(census: Census, losses: Mapping[Feature, float]) -> tuple[FeatureScore, ...]:
    """Rank features by what is lost without each.

    Args:
        census: of the log.
        losses: of mean reward without each feature, those that vary; below 0 where the policy does better without.

    Returns:
        The most important first. The best has score 1, those that lose nothing have 0, as constant ones do. Of
        features that go together the best stands for the others in its group.
    """
    best = max([0.0, *losses.values()])
    ranked = sorted(losses, key=lambda feature: -losses[feature])
    found = []
    for feature in ranked:
        related = [other for other in ranked if other == feature or census.go_together(feature, other)]
        found.append(
            FeatureScore(
                namespace=feature.namespace,
                name=feature.name,
                score=max(0.0, losses[feature]) / best if best > 0 else 0.0,
                loss=losses[feature],
                group=tuple([name for each in related for name in census.shown(each)]),
            )
        )
    for feature in census.constant():
        group = census.shown(feature)
        found.append(FeatureScore(namespace=feature.namespace, name=feature.name, score=0.0, group=group))
    return tuple(found)


def groups(scores: Sequence[FeatureScore]) -> list[list[str]]:
    """List groups of features as v1 of the contract does: the most important first, each name in one group."""
    listed: list[list[str]] = []
    seen: set[str] = set()
    for score in scores:
        group = [name for name in score.group if name not in seen]
        seen.update(group)
        if group:
            listed.append(group)
    return listed
