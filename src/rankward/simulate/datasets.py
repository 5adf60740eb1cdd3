"""Real data, from inside scikit-learn's wheel, as bandits: the reward of every action is known.

Each pass shows every row once, in an order of its own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from rankward.errors import CallerError
from rankward.simulate.world import Floats, Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Passes = Annotated[int, Meta(ge=1, le=10_000)]


class Digits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Handwritten digits of 8 by 8 pixels: ten actions, one of them right."""

    name: ClassVar[str] = "digits"
    description: ClassVar[str] = "1,797 handwritten digits: ten actions, reward 1 for the right one"

    passes: Passes = 1

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> int:
        """Rows times passes."""
        return self.passes * len(_digits())

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Go through the rows, shuffled anew for each pass."""
        return _shuffled(_digits(), self.passes, rng)

    def rewards(self, played: Round, index: int, _rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report 1 or 0, at once."""
        return [(0.0, float(played.means[index]))]


class Triage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measurements of breast tumours: dismiss, look again, or take a biopsy.

    Instructive for three reasons: raw numbers whose scales differ a thousandfold, mistakes of unequal cost,
    and a cautious action in the middle that a timid policy gets stuck on. Not medical advice.
    """

    name: ClassVar[str] = "triage"
    description: ClassVar[str] = "569 tumours, 30 raw measurements: three actions, mistakes of unequal cost"

    passes: Passes = 4

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> int:
        """Rows times passes."""
        return self.passes * len(_triage())

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Go through the rows, shuffled anew for each pass."""
        return _shuffled(_triage(), self.passes, rng)

    def rewards(self, played: Round, index: int, _rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report the pay-off, at once."""
        return [(0.0, float(played.means[index]))]


# What each action is worth, in the order of TRIAGE_ACTIONS.
TRIAGE_ACTIONS = ("dismiss", "look-again", "biopsy")
TRIAGE_PAYOFFS = {"malignant": (0.0, 0.5, 1.0), "benign": (1.0, 0.7, 0.3)}


@cache
def _digits() -> Sequence[Round]:
    """One round for each row, in the order of the file."""
    bunch = _loaders().load_digits()
    actions = [(str(digit), [{"label": {"digit": str(digit)}}]) for digit in range(10)]
    one_hot = np.eye(10)
    names = [f"p{row}{column}" for row in range(8) for column in range(8)]
    return [
        Round(
            context=[{"pixels": {name: value / 16 for name, value in zip(names, row, strict=True) if value}}],
            actions=actions,
            means=one_hot[label],
        )
        for row, label in zip(bunch.data.tolist(), bunch.target, strict=True)
    ]


@cache
def _triage() -> Sequence[Round]:
    """One round for each row, in the order of the file."""
    bunch = _loaders().load_breast_cancer()
    actions = [(action, [{"action": {"kind": action}}]) for action in TRIAGE_ACTIONS]
    payoffs: dict[str, Floats] = {name: np.array(values) for name, values in TRIAGE_PAYOFFS.items()}
    names = [name.replace(" ", "_") for name in bunch.feature_names]
    return [
        Round(
            context=[{"measured": dict(zip(names, row, strict=True))}],
            actions=actions,
            means=payoffs[bunch.target_names[label]],
        )
        for row, label in zip(bunch.data.tolist(), bunch.target, strict=True)
    ]


def _shuffled(rows: Sequence[Round], passes: int, rng: np.random.Generator) -> Iterator[Round]:
    for _ in range(passes):
        for index in rng.permutation(len(rows)):
            yield rows[index]


def _loaders() -> Any:
    """Import scikit-learn's loaders, which is an optional part of the installation."""
    try:
        from sklearn import datasets  # noqa: PLC0415
    except ImportError as error:
        raise CallerError(
            "this world's data come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    return datasets
