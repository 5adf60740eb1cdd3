"""Numbers as features: the interval that a number falls into, as a feature beside the number itself.

To a linear learner a number has one weight: what it adds to the expected reward grows in a straight line. An interval
has a weight of its own, so with some of them any shape can be learned. The edges are quantiles of what a loop's first
events hold, found without looking at rewards; what is added goes into the namespace of the number. Numbers in
arrays are left as they are: they have no names, and stand for nothing by themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from rankward.records import Action, AnyInteraction, Bins, Features, MultiSlotInteraction, Slot

INTERVALS: Final = 4  # of one number, at most
EVENTS_MIN: Final = 50  # to find edges by
EVENTS_MAX: Final = 500
INTERVALS_MAX: Final = 64  # of a number whose bins come from elsewhere
VALUES_MIN: Final = 50  # of a number, to find edges by
FEATURES_MAX: Final = 200  # numbers that get intervals: those seen most often
CONTEXT: Final = "FromUrl"  # namespaces of plain keys, as in the learner's input
ACTION: Final = "j"
SLOT: Final = "sj"
_DISTINCT_MIN: Final = 3  # a number that takes two values is as good as an interval for each
_REMEMBERED_BYTES: Final = 2_048  # features longer than this are not remembered

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def settle(decisions: Iterable[AnyInteraction]) -> Bins:
    """Find where to cut the numbers of decisions.

    Args:
        decisions: an epoch's first, or the newest. All actions that were offered count.

    Returns:
        Edges for the numbers that are seen often enough and take three values or more. None at all from too few
        decisions.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    count = 0
    for decision in decisions:
        count += 1
        for space, features in _parts(decision):
            for namespace, name, value in _numbers(features, space):
                values[namespace, name].append(value)
    edges: dict[str, dict[str, tuple[float, ...]]] = {}
    if count < EVENTS_MIN:
        values.clear()
    for (namespace, name), seen in sorted(values.items(), key=lambda item: (-len(item[1]), item[0]))[:FEATURES_MAX]:
        if found := _edges(seen):
            edges.setdefault(namespace, {})[name] = found
    return Bins(edges=edges, events=count)


def lacks(bins: Bins, newer: Bins) -> list[str]:
    """Name the numbers that have no intervals and would get some by newer decisions, as `namespace.name`."""
    return [
        f"{namespace}.{name}"
        for namespace, of_namespace in newer.edges.items()
        for name in of_namespace
        if name not in bins.edges.get(namespace, {})
    ]


def _parts(decision: AnyInteraction) -> Iterator[tuple[str, Features]]:
    yield CONTEXT, decision.context
    for action in decision.actions:
        yield ACTION, action.features
    if isinstance(decision, MultiSlotInteraction):
        for slot in decision.slots:
            yield SLOT, slot.features


@lru_cache(maxsize=1_024)
def _numbers(features: Features, space: str) -> tuple[tuple[str, str, float], ...]:
    try:
        return tuple(_walk(_decode(features), space))
    except (msgspec.DecodeError, RecursionError):
        return ()  # broken: the learner will say so of it


def _walk(value: Any, space: str) -> Iterator[tuple[str, str, float]]:
    """Yield namespace, name and value of every number that has a name."""
    if isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):
                yield from _walk(inner, space)
    else:
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                yield from _walk(inner, name)
            elif type(inner) is int or type(inner) is float:
                yield space, name, float(inner)


def _edges(values: list[float]) -> tuple[float, ...]:
    """Cut values into intervals of about as many each. Each edge is one of the values, and above the least of them."""
    if len(values) < VALUES_MIN:
        return ()
    distinct = np.unique(values)
    if len(distinct) < _DISTINCT_MIN:
        return ()
    if len(distinct) <= INTERVALS:
        return tuple(distinct[1:].tolist())
    cuts = np.unique(np.quantile(values, np.arange(1, INTERVALS) / INTERVALS, method="higher"))
    return tuple(cuts[cuts > distinct[0]].tolist())


def write_bins(bins: Bins) -> bytes:
    """Write bins as they travel with a model."""
    return _encode(bins)


def read_bins(data: bytes) -> Bins:
    """Read bins that came with a model from elsewhere.

    Raises:
        ValueError: they are none, or such as are never found.
    """
    try:
        bins = msgspec.json.decode(data, type=Bins)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"they cannot be read: {error}") from error
    every = [(name, edges) for of_namespace in bins.edges.values() for name, edges in of_namespace.items()]
    if len(every) > FEATURES_MAX:
        raise ValueError(f"they are of {len(every)} numbers, more than {FEATURES_MAX}")
    for name, edges in every:
        ascends = all(low < high for low, high in pairwise(edges))
        if not 1 <= len(edges) < INTERVALS_MAX or not ascends:
            raise ValueError(f"the edges of {name[:40]!r} do not ascend, or are none, or too many")
    return bins


class _Cut(NamedTuple):
    edges: tuple[float, ...]
    names: tuple[str, ...]  # of the intervals: one more than there are edges


class Binner:
    """Puts intervals beside the numbers of what the learner is to see. What is logged stays as it came."""

    def __init__(self, bins: Bins) -> None:
        self._cuts = {
            namespace: {name: _Cut(edges, interval_names(name, edges)) for name, edges in of_namespace.items()}
            for namespace, of_namespace in bins.edges.items()
        }
        self._remembered = lru_cache(maxsize=16_384)(self._action)

    def context(self, features: Features) -> Features:
        """Return the features of a context, with intervals."""
        return self._binned(features, CONTEXT)

    def action(self, action: Action) -> Action:
        """Return an action, with intervals. Actions recur, and are remembered."""
        return self._remembered(action) if len(action.features) <= _REMEMBERED_BYTES else self._action(action)

    def slot(self, slot: Slot) -> Slot:
        """Return a slot, with intervals."""
        return Slot(slot.id, self._binned(slot.features, SLOT), slot.baseline, slot.excluded)

    def interaction(self, interaction: AnyInteraction) -> AnyInteraction:
        """Return a decision, with intervals, as a learner without bins would have to be told of it."""
        context = self.context(interaction.context)
        actions = tuple([self.action(action) for action in interaction.actions])
        binned = msgspec.structs.replace(interaction, context=context, actions=actions)
        if isinstance(binned, MultiSlotInteraction):
            return msgspec.structs.replace(binned, slots=tuple([self.slot(slot) for slot in binned.slots]))
        return binned

    def _action(self, action: Action) -> Action:
        return Action(action.id, self._binned(action.features, ACTION))

    def _binned(self, features: Features, space: str) -> Features:
        try:
            groups = _decode(features)
            for group in groups:
                self._add(group, space)
            return Features(_encode(groups))
        except (msgspec.DecodeError, RecursionError):
            return features  # broken: the learner will say so of it

    def _add(self, members: dict[str, Any], space: str) -> None:
        cuts: Mapping[str, _Cut] = self._cuts.get(space, {})
        found = []
        for name, value in members.items():
            kind = type(value)
            if kind is float or kind is int:
                if (cut := cuts.get(name)) is not None:
                    found.append(cut.names[bisect_right(cut.edges, value)])
            elif kind is dict:
                self._add(value, name)
            elif kind is list:
                for inner in value:
                    if type(inner) is dict:
                        self._add(inner, name)
        for name in found:
            members.setdefault(name, True)


def interval_names(name: str, edges: tuple[float, ...]) -> tuple[str, ...]:
    """Name the intervals of a number, so that people can read them where an action is explained.

    >>> interval_names("age", (18.0, 65.5))
    ('age[..18)', 'age[18..65.5)', 'age[65.5..]')
    """
    written = [repr(edge).removesuffix(".0") for edge in edges]
    return (
        f"{name}[..{written[0]})",
        *(f"{name}[{low}..{high})" for low, high in pairwise(written)),
        f"{name}[{written[-1]}..]",
    )
