"""Why an action got its score: what each feature and each interaction adds to it.

The learner scores an action by a sum of products, a weight times the values of the features it belongs to. The
features are read from the parsed examples and the weights from the learner, so what is told here is what it
computes; only the names are put back from the text. The sum is held against the learner's own score, and
nothing is told of a learner whose score is another: one with several models, such as `--bag`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from vowpalwabbit import Workspace

from rankward.records import Action, Features

_FNV_PRIME = 16_777_619  # with which the learner hashes features into interactions
_HASH_MASK = 2**64 - 1
_CONSTANT = chr(128)  # the namespace of the constant that the learner adds to every example
_WILDCARD = ":"
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_SLACK = 1e-4  # the learner sums in single precision
_INTERACTIONS_MAX = 10_000  # of one action: more would hold up other requests for too long


class Contribution(msgspec.Struct, frozen=True):
    """What a feature, or an interaction of features, adds to the score of an action."""

    name: str  # `namespace.feature`; of an interaction its features' names, joined by `^`
    score: float  # in units of reward


class _Feature(msgspec.Struct, frozen=True):
    name: str
    index: int  # as the learner hashed it, before it is brought within the weights
    value: float


class Terms(msgspec.Struct, frozen=True):
    """Which products a policy makes of an example's features."""

    interactions: tuple[str, ...]  # first letters of namespaces; a colon stands for every namespace
    ignored_linear: frozenset[str]  # letters of namespaces that get no weights of their own

    @classmethod
    def of(cls, learner_text: str) -> Terms:
        r"""Read them from a learner's arguments, long names only.

        >>> Terms.of("--cb_explore_adf --quadratic F\\x23 --ignore_linear F").interactions
        ('F#',)
        """
        tokens = learner_text.split()
        values: dict[str, list[str]] = defaultdict(list)
        for name, value in itertools.pairwise(tokens):
            values[name].append(_ESCAPE.sub(lambda match: chr(int(match[1], 16)), value))
        kinds = ("--quadratic", "--cubic", "--interactions")
        interactions = itertools.chain(*(values[kind] for kind in kinds))
        return cls(tuple(interactions), frozenset("".join(values["--ignore_linear"])))

    def expanded(self, letters: Sequence[str]) -> Iterator[str]:
        """Name the interactions of an example, none of them twice.

        Args:
            letters: of its namespaces.
        """
        seen = set()
        for written in self.interactions:
            for interaction in _without_wildcards(written, sorted(letters)):
                unordered = tuple(sorted(interaction))
                if unordered not in seen:
                    seen.add(unordered)
                    # A namespace with itself stands in order; others stand as they were written.
                    yield "".join(unordered) if len(set(interaction)) < len(interaction) else interaction


def _without_wildcards(interaction: str, letters: Sequence[str]) -> Iterator[str]:
    if set(interaction) == {_WILDCARD}:
        yield from map("".join, itertools.combinations_with_replacement(letters, len(interaction)))
    elif _WILDCARD in interaction:
        yield from (interaction.replace(_WILDCARD, letter) for letter in letters)
    else:
        yield interaction


def explain(
    workspace: Workspace,
    examples: Sequence[Any],
    terms: Terms,
    *,
    stride: int,
    context: Features,
    action: Action,
    index: int,
) -> list[Contribution] | None:
    """Take the score of one action apart.

    Args:
        workspace: the learner.
        examples: of the decision, as it parsed and scored them: the shared one, then one for each action.
        terms: what the learner makes of their features.
        stride: how far apart the learner keeps two weights.
        context: the shared features.
        action: that is asked about.
        index: its place among the actions scored.

    Returns:
        Contributions, the weightiest first; their sum is the score, the reward that the learner expects. None: the
        learner's score is no such sum, or one of too many terms.
    """
    names = _names(workspace, context, action)
    example = examples[index + 1]
    weight_count = workspace.num_weights()
    features = _features(example, names, weight_count, stride)
    for letter, shared in _features(examples[0], names, weight_count, stride).items():
        if letter != _CONSTANT:
            features[letter] = features.get(letter, []) + shared
    found: dict[str, float] = defaultdict(float)
    for letter, linear in features.items():
        if letter not in terms.ignored_linear:
            for feature in linear:
                found[feature.name] -= workspace.get_weight(feature.index % weight_count) * feature.value
    letters = [letter for letter in features if letter != _CONSTANT]
    count = 0
    for interaction in terms.expanded(letters):
        groups = [features.get(letter, []) for letter in interaction]
        count += math.prod(map(len, groups))
        if count > _INTERACTIONS_MAX:
            return None
        for chosen in _products(interaction, groups):
            value = math.prod(feature.value for feature in chosen)
            weight = workspace.get_weight(_hashed(chosen) % weight_count)
            found["^".join([feature.name for feature in chosen])] -= weight * value
    score = -example.get_partial_prediction()
    total = math.fsum(found.values())
    scale = max(1.0, abs(score), math.fsum(map(abs, found.values())))
    if not abs(total - score) <= _SLACK * scale:
        return None
    contributions = [Contribution(name, part) for name, part in found.items() if part]
    return sorted(contributions, key=lambda part: (-abs(part.score), part.name))


def _products(interaction: str, groups: Sequence[Sequence[_Feature]]) -> Iterator[tuple[_Feature, ...]]:
    """Choose one feature of each group. Of a namespace with itself, each choice comes once, whatever its order."""
    same = [first == second for first, second in itertools.pairwise(interaction)]
    for places in itertools.product(*(range(len(group)) for group in groups)):
        if all(second >= first for (first, second), twin in zip(itertools.pairwise(places), same, strict=True) if twin):
            yield tuple([group[place] for group, place in zip(groups, places, strict=True)])


def _hashed(features: Sequence[_Feature]) -> int:
    """Hash features into an interaction the way the learner does."""
    hashed = 0
    for feature in features[:-1]:
        hashed = ((hashed ^ feature.index) * _FNV_PRIME) & _HASH_MASK
    return hashed ^ features[-1].index


def _features(
    example: Any, names: dict[tuple[str, int], str], weight_count: int, stride: int
) -> dict[str, list[_Feature]]:
    """Read the features of an example, by the letter of their namespace."""
    found: dict[str, list[_Feature]] = {}
    for number in range(example.num_namespaces()):
        space = example.namespace(number)
        letter = chr(space)
        if letter in found:
            continue  # listed once for each namespace of the letter
        found[letter] = []
        for place in range(example.num_features_in(space)):
            index = example.feature(space, place) // stride
            name = names.get((letter, index % weight_count), f"{letter}#{index % weight_count}")
            if letter == _CONSTANT:
                name = "constant"
            found[letter].append(_Feature(name, index, example.feature_weight(space, place)))
    return found


def _names(workspace: Workspace, context: Features, action: Action) -> dict[tuple[str, int], str]:
    """Name what the text holds, by the letter of the namespace and the index of the weight."""
    names: dict[tuple[str, int], str] = {}
    weight_count = workspace.num_weights()

    def note(space: str, index: int, name: str) -> None:
        names.setdefault((space[0], index % weight_count), f"{space}.{name}")

    def walk(value: object, space: str, key: str) -> None:
        if isinstance(value, dict):
            for inner, member in value.items():
                walk(member, inner if isinstance(member, dict | list) else space, inner)
        elif isinstance(value, list) and value and not isinstance(value[0], dict):
            for place in range(len(value)):
                note(space, workspace.hash_space(space) + place, str(place))
        elif isinstance(value, list):
            for member in value:
                walk(member, space, key)
        else:
            text = key + value if isinstance(value, str) else key
            note(space, workspace.hash_feature(text, workspace.hash_space(space)), key)

    walk({"constant": 1, "id": action.id}, "i", "")
    walk(msgspec.json.decode(context), "FromUrl", "")
    walk(msgspec.json.decode(action.features), "j", "")
    return names
