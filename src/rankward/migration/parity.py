"""How much of an old model its log explains: its weights by the features, its decisions by the probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

TOLERANCE = 1e-4
"""Up to this difference two probabilities are the same: the original and its log keep single precision."""

_MODELS_SHOWN = 20
_WEIGHTS_SHOWN = 10


class Weight(msgspec.Struct, frozen=True):
    """A weight of the model."""

    index: int  # as the learner hashes features
    value: float


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights of a model belong to features that its log has."""

    count: int  # that are not 0
    explained: int
    size: float  # absolute values, added up
    size_explained: float
    largest_unexplained: tuple[Weight, ...]  # the largest first

    @property
    def share(self) -> float:
        """Of the weights, within [0, 1]."""
        return self.explained / self.count if self.count else 1.0


class ModelParity(msgspec.Struct, frozen=True, kw_only=True):
    """How close the model comes to what the log has for one of its models."""

    model_id: str  # as the log has it
    decisions: int
    same: int  # decisions, all of whose probabilities are the same, up to `TOLERANCE`
    difference_max: float


class Probabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Whether decisions of the log get the probabilities that were logged."""

    decisions: int
    same: int
    difference_max: float
    models: tuple[ModelParity, ...]  # of the log: the closest first, then those with most decisions
    model_count: int  # `models` names some of them
    not_compared: dict[str, int]  # decisions, by why

    @property
    def throughout(self) -> tuple[ModelParity, ...]:
        """Models of the log, all of whose decisions get their probabilities: the model itself, if it is there."""
        return tuple([each for each in self.models if each.same == each.decisions])


def explained_weights(weights: Mapping[int, float], missing: Iterable[int]) -> Weights:
    """Count what is explained.

    Args:
        weights: of the model, by index; none of them is 0.
        missing: indexes of those that no feature of the log belongs to.
    """
    unexplained = sorted((Weight(index, weights[index]) for index in missing), key=lambda each: -abs(each.value))
    size = sum(map(abs, weights.values()))
    return Weights(
        count=len(weights),
        explained=len(weights) - len(unexplained),
        size=size,
        size_explained=size - sum(abs(each.value) for each in unexplained),
        largest_unexplained=tuple(unexplained[:_WEIGHTS_SHOWN]),
    )


class Comparison:
    """Compares the probabilities of decisions, one after the other."""

    def __init__(self) -> None:
        self._decisions: Counter[str] = Counter()  # by model of the log, as the others
        self._same: Counter[str] = Counter()
        self._difference_max: dict[str, float] = {}
        self._not_compared: Counter[str] = Counter()

    def note(self, model_id: str, differences: Iterable[float]) -> None:
        """Take in a decision.

        Args:
            model_id: that the log has for it.
            differences: of its probabilities, absolute.
        """
        difference = max(differences)
        self._decisions[model_id] += 1
        self._same[model_id] += difference <= TOLERANCE
        self._difference_max[model_id] = max(difference, self._difference_max.get(model_id, 0.0))

    def pass_over(self, why: str) -> None:
        """Count a decision that cannot be compared."""
        self._not_compared[why] += 1

    def end(self) -> Probabilities:
        """Add up."""
        models = [
            ModelParity(
                model_id=model_id,
                decisions=decisions,
                same=self._same[model_id],
                difference_max=self._difference_max[model_id],
            )
            for model_id, decisions in self._decisions.items()
        ]
        models.sort(key=lambda each: (-each.same / each.decisions, -each.decisions, each.model_id))
        return Probabilities(
            decisions=self._decisions.total(),
            same=self._same.total(),
            difference_max=max(self._difference_max.values(), default=0.0),
            models=tuple(models[:_MODELS_SHOWN]),
            model_count=len(models),
            not_compared=dict(self._not_compared),
        )
