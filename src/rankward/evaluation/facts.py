"""What can be said of a log's features without learning anything: how many values, how often missing, and what is odd.

It takes events one by one and keeps a bounded amount whatever their number, so it can be asked of any log at any time.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from rankward.evaluation.features import (
    ACTION_ID,
    OUTERMOST_ACTION,
    OUTERMOST_CONTEXT,
    OUTERMOST_SLOT,
    Feature,
    values_of,
)
from rankward.evaluation.kinship import Column, go_together
from rankward.records import AnyInteraction, Features, MultiSlotInteraction

FEATURES_MAX = 2_000  # that facts are gathered of; further ones are counted
COMMON_SHOWN = 20  # values of a feature that are named, the most frequent ones first
_ROWS_MAX = 3_000  # events that are kept to see which features go together
_DISTINCT_KEPT = 1_024  # so many values are counted exactly, more are estimated to about 3 %
_COMMON_KEPT = 64
_NEAR_UNIQUE = 0.5  # values for each time that it is there: as many, and most are seen once or twice
_NEAR_UNIQUE_MIN = 100  # times that it must have been there for that to say something
_MOSTLY_MISSING = 0.5
_HASHES = 1 << 64


class Remark(enum.StrEnum):
    """What is odd about a feature."""

    CONSTANT = "constant"  # always there and always the same: no choice can depend on it
    MISSING = "missing"  # from more than half of where it could be
    NEAR_UNIQUE = (
        "near unique"  # nearly every decision has a value of its own: it names who it was, and teaches nothing
    )
    COLLIDING = "colliding"  # its namespace has the first letter of another: interactions cannot tell them apart


class FeatureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a log says of one feature."""

    namespace: str  # as the learner has it
    name: str
    places: tuple[str, ...]  # of `context`, `action` and `slot`: where it was seen
    events: int  # that have it
    missing: float  # share of those places that lack it, within [0, 1]
    distinct: int  # values: exact up to 1,024, then estimated to about 3 %
    number: bool  # whether it was a number, or several, at least once
    common: tuple[str, ...]  # the most frequent values of text, the first most so
    collides_with: tuple[str, ...] = ()  # other namespaces with its namespace's first letter
    remarks: tuple[Remark, ...] = ()


class Distinct:
    """Counts different values in bounded space, by the smallest of their hashes.

    Source: Bar-Yossef and others, "Counting distinct elements in a data stream", RANDOM 2002;
    the estimate (k - 1) / (k-th smallest hash): Beyer and others, SIGMOD 2007.
    """

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._largest: list[int] = []  # the same, negated, as a heap

    def add(self, hashed: int) -> None:
        """Count a value by its 64-bit hash."""
        if hashed in self._kept:
            return
        if len(self._kept) < _DISTINCT_KEPT:
            self._kept.add(hashed)
            heapq.heappush(self._largest, -hashed)
        elif hashed < -self._largest[0]:
            self._kept.remove(-heapq.heappushpop(self._largest, -hashed))
            self._kept.add(hashed)

    @property
    def count(self) -> int:
        """How many there were."""
        if len(self._kept) < _DISTINCT_KEPT:
            return len(self._kept)
        return round((_DISTINCT_KEPT - 1) * _HASHES / (1 - self._largest[0]))


class _Value(NamedTuple):
    """A feature as it was found somewhere."""

    feature: Feature
    value: object
    text: str
    hashed: int


class _Gathered:
    """What is known so far of one feature."""

    def __init__(self) -> None:
        self.events = 0
        self.places: Counter[str] = Counter()  # times that it was seen there
        self.distinct = Distinct()
        self.common: Counter[str] = Counter()
        self.number = False
        self.names = True  # whether its values could be names: text or whole numbers

    def take(self, place: str, value: object, text: str, hashed: int) -> None:
        self.places[place] += 1
        self.distinct.add(hashed)
        if not isinstance(value, str):
            self.number = True
            self.names &= type(value) is int
            return
        self.common[text] += 1
        if len(self.common) >= 2 * _COMMON_KEPT:  # those that were rare so far are forgotten
            self.common = Counter(dict(self.common.most_common(_COMMON_KEPT)))


class Census:
    """Which features a log has, and what they are like."""

    def __init__(self) -> None:
        self.events = 0
        self.passed_over = 0  # features of events beyond the first so many
        self._found: dict[Feature, _Gathered] = {}
        self._places: Counter[str] = Counter()  # contexts, actions and slots
        self._rows: list[dict[Feature, object]] = []  # of each event: what its context and its chosen actions have

    def take(self, interaction: AnyInteraction) -> None:
        """Look at the features of a decision."""
        row: dict[Feature, object] = {}
        seen: set[Feature] = set()
        taken = {choice.chosen for choice in interaction.choices}
        row.update(self._note("context", _values(interaction.context, OUTERMOST_CONTEXT), seen))
        for index, action in enumerate(interaction.actions):
            of_action = self._note("action", _action_values(action.features, action.id), seen)
            if index in taken:
                row.update(of_action)
        for slot in interaction.slots if isinstance(interaction, MultiSlotInteraction) else ():
            row.update(self._note("slot", _values(slot.features, OUTERMOST_SLOT), seen))
        for feature in seen:
            self._found[feature].events += 1
        self.events += 1
        if len(self._rows) < _ROWS_MAX:
            self._rows.append(row)

    def _note(self, place: str, values: Iterable[_Value], seen: set[Feature]) -> dict[Feature, object]:
        self._places[place] += 1
        here: dict[Feature, object] = {}
        for feature, value, text, hashed in values:
            gathered = self._found.get(feature)
            if gathered is None:
                if len(self._found) >= FEATURES_MAX:
                    self.passed_over += 1
                    continue
                gathered = self._found[feature] = _Gathered()
            if feature not in here:
                gathered.take(place, value, text, hashed)
            here[feature] = value if isinstance(value, str | int | float) else text
        seen.update(here)
        return here

    def varied(self, count: int) -> list[Feature]:
        """Name the features that take more than one value, the most frequent first, at most so many."""
        return [feature for feature in self._by_frequency() if not self._is_constant(feature)][:count]

    def constant(self) -> list[Feature]:
        """Name the features that every decision has alike: no choice can depend on them."""
        return [feature for feature in self._by_frequency() if self._is_constant(feature)]

    def _by_frequency(self) -> list[Feature]:
        return sorted(self._found, key=lambda feature: -self._found[feature].events)

    def _is_constant(self, feature: Feature) -> bool:
        found = self._found[feature]
        return found.distinct.count == 1 and all(self._places[place] == count for place, count in found.places.items())

    def shown(self, feature: Feature) -> tuple[str, ...]:
        """Name a feature as v1 of the contract does: with its value if that is a string, one name for each."""
        plain, found = f"{feature.namespace}.{feature.name}", self._found[feature]
        if found.number:
            return (plain,)
        return tuple([plain + text for text, _ in found.common.most_common(COMMON_SHOWN)])

    def kin(self, features: Sequence[Feature]) -> list[tuple[Feature, ...]]:
        """Put features together that go together: each group's first is told by each of the others, and tells it.

        Args:
            features: in an order; groups come in that of their first ones.
        """
        columns = {each: Column([row.get(each) for row in self._rows]) for each in features}
        groups: list[list[Feature]] = []
        for feature in features:
            for group in groups:
                if go_together(columns[group[0]], columns[feature]):
                    group.append(feature)
                    break
            else:
                groups.append([feature])
        return [tuple(group) for group in groups]

    def facts(self) -> tuple[FeatureFacts, ...]:
        """Say what is known, the most frequent features first."""
        spaces: dict[str, set[str]] = {}
        for feature in self._found:
            spaces.setdefault(feature.namespace[:1], set()).add(feature.namespace)
        return tuple([self._facts(feature, spaces[feature.namespace[:1]]) for feature in self._by_frequency()])

    def _facts(self, feature: Feature, alike: set[str]) -> FeatureFacts:
        found = self._found[feature]
        times, distinct = found.places.total(), found.distinct.count
        missing = 1 - times / sum(self._places[place] for place in found.places)
        collides_with = tuple(sorted(alike - {feature.namespace}))
        remarks = {
            Remark.CONSTANT: self._is_constant(feature),
            Remark.MISSING: missing > _MOSTLY_MISSING,
            Remark.NEAR_UNIQUE: found.names and times >= _NEAR_UNIQUE_MIN and distinct >= _NEAR_UNIQUE * times,
            Remark.COLLIDING: bool(collides_with),
        }
        return FeatureFacts(
            namespace=feature.namespace,
            name=feature.name,
            places=tuple(sorted(found.places)),
            events=found.events,
            missing=missing,
            distinct=distinct,
            number=found.number,
            common=tuple([text for text, _ in found.common.most_common(COMMON_SHOWN)]),
            collides_with=collides_with,
            remarks=tuple([remark for remark, holds in remarks.items() if holds]),
        )


def feature_facts(interactions: Iterable[AnyInteraction]) -> tuple[FeatureFacts, ...]:
    """Say what some decisions tell of their features, the most frequent ones first.

    Args:
        interactions: read once, one after the other. What is kept of them is bounded.
    """
    census = Census()
    for interaction in interactions:
        census.take(interaction)
    return census.facts()


@lru_cache(maxsize=4_096)
def _values(features: Features, outermost: str) -> tuple[_Value, ...]:
    return tuple([_value(feature, value) for feature, value in values_of(features, outermost)])


@lru_cache(maxsize=4_096)
def _action_values(features: Features, action_id: str) -> tuple[_Value, ...]:
    return (*_values(features, OUTERMOST_ACTION), _value(ACTION_ID, action_id))


def _value(feature: Feature, value: object) -> _Value:
    text = str(value)
    digest = hashlib.blake2b(f"{type(value).__name__} {text}".encode(), digest_size=8).digest()
    return _Value(feature, value, text, int.from_bytes(digest, "big"))
