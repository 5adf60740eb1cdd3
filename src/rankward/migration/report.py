"""What was taken over from an old resource, and how much of it is the same here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from rankward.evaluation.report import Line
from rankward.migration.differences import DIFFERENCES, Difference
from rankward.migration.inventory import PassedOver
from rankward.migration.parity import TOLERANCE, Probabilities, Weights
from rankward.records import ModelId, TimeUs


class TakenModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model that was taken over."""

    file: str
    model_id: ModelId  # its name here
    origin: str  # trusted, foreign or unsigned, as `registry.sign.Origin` has them
    signer: str | None  # None: it is not signed
    learner: str  # the version of Vowpal Wabbit that wrote it
    size_bytes: int
    policy_taken: bool  # whether the loop has its policy, and not the one that it would have had otherwise


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    loop: str
    made_us: TimeUs
    verdict: list[str]  # the outcome in some sentences, for people
    files: dict[str, str]  # what each was recognised as
    passed_over: list[PassedOver]
    settings: dict[str, str]  # of the configuration, as the loop has them now
    settings_left_out: dict[str, str]  # members of the configuration that were not taken, by why
    policy: str
    model: TakenModel | None  # None: none was given
    lines: dict[str, int]  # of the logs, by what became of them
    flaws: list[Line]  # the first lines that could not be used
    first_us: TimeUs | None  # of the decisions in the logs; None: there are none
    last_us: TimeUs | None
    weights: Weights | None  # None: without a model or a decision, there is nothing to compare; as for `probabilities`
    probabilities: Probabilities | None
    notes: list[str]  # what else there is to know
    differences: tuple[Difference, ...] = DIFFERENCES


def verdict(
    weights: Weights | None, probabilities: Probabilities | None, *, has_model: bool, imported: int
) -> list[str]:
    """Say in some sentences what was found.

    Args:
        weights: of the model that the log explains.
        probabilities: of decisions.
        has_model: whether there was a model.
        imported: decisions that the loop has as history.
    """
    said = [f"{imported:,} decisions are the loop's history now."] if imported else []
    if not has_model:
        return [*said, "No model was given, so there is nothing to compare the log with."]
    if weights is None or probabilities is None:
        return [*said, "The model was taken over. Without decisions there is nothing to compare it with."]
    return [*said, _said_of_weights(weights), _said_of_probabilities(probabilities)]


def _said_of_weights(weights: Weights) -> str:
    if not weights.count:
        return "The model has learned nothing yet: all its weights are 0."
    if weights.explained == weights.count:
        return f"Every one of the model's {weights.count:,} weights belongs to features of the log."
    return (
        f"{weights.explained:,} of the model's {weights.count:,} weights ({share(weights.share)}) belong to features "
        "of the log. The others were learned from features that it does not have: of other events, or "
        "written differently."
    )


def _said_of_probabilities(found: Probabilities) -> str:
    if not found.decisions:
        return "No decision of the log can be compared with the model."
    if found.same == found.decisions:
        return f"All {found.decisions:,} decisions that can be compared get the probabilities that were logged."
    apart = (
        f"{share(found.same / found.decisions)} of {found.decisions:,} decisions get the probabilities that were "
        f"logged, to {TOLERANCE:g}; the largest difference is {found.difference_max:.4f}."
    )
    if found.throughout:
        closest = found.throughout[0]
        return (
            f"All {closest.decisions:,} decisions of the log's model {closest.model_id} get the probabilities that "
            f"were logged. The log's other models are not at hand, so theirs can only be near: {apart}"
        )
    return (
        f"{apart} No model of the log gets its own throughout, so the one that was given may not be among them, "
        "and the log's models are not at hand."
    )


def share(value: float) -> str:
    """Write a share; one that is not all of it is not rounded up to all of it.

    >>> share(0.57), share(0.99999), share(1.0)
    ('57 %', '99.99 %', '100 %')
    """
    hundredths = min(round(value * 10_000), 10_000 if value == 1.0 else 9_999)
    return f"{hundredths / 100:g} %"


def counted(lines: Mapping[str, int]) -> dict[str, int]:
    """Leave out what did not happen; what happened most comes first."""
    return dict(sorted(((what, count) for what, count in lines.items() if count), key=lambda each: -each[1]))
