"""From what the learner says to what is drawn: checks, the floor, the draw."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from rankward.errors import RankwardError

_SUM_SLACK = 1e-3
_NEGATIVE_SLACK = 1e-6


class InvalidPmfError(RankwardError):
    """The learner gave something that is no probability distribution."""


def check_pmf(pmf: Sequence[float], count: int) -> list[float]:
    """Make sure of a learner's distribution, and bring its sum to 1.

    A sum above 1 is one of the learner's known ways (every tied action gets the whole), and is divided out;
    a sum below 1 is not.

    Args:
        pmf: one probability for each action.
        count: of the actions.

    Raises:
        InvalidPmfError: it has another length, a value that is negative or not finite, or sums to less than 1.

    >>> check_pmf([1.0, 1.0], 2)
    [0.5, 0.5]
    """
    if len(pmf) != count:
        raise InvalidPmfError(f"the learner gave {len(pmf)} probabilities for {count} actions")
    total = math.fsum(pmf)
    if not math.isfinite(total) or total < 1 - _SUM_SLACK or min(pmf) < -_NEGATIVE_SLACK:
        raise InvalidPmfError(f"the learner gave probabilities that are none: {list(pmf)}")
    if min(pmf) < 0.0:
        pmf = [max(0.0, probability) for probability in pmf]
        total = math.fsum(pmf)
    return [probability / total for probability in pmf]


def floored(pmf: Sequence[float], epsilon: float) -> list[float]:
    """Raise every probability to at least `epsilon / len(pmf)`, taking the rest from the others in proportion.

    Args:
        pmf: sums to 1.
        epsilon: the loop's exploration, within [0, 1].

    >>> floored([1.0, 0.0], 0.2)
    [0.9, 0.1]
    """
    floor = epsilon / len(pmf)
    kept = [probability for probability in pmf if probability >= floor]
    if len(kept) == len(pmf):
        return kept
    while True:
        total = math.fsum(kept)
        if total <= 0.0:
            return [1 / len(pmf)] * len(pmf)
        scale = (1.0 - floor * (len(pmf) - len(kept))) / total
        # Scaling down may push another one below the floor.
        afloat = [probability for probability in kept if probability * scale >= floor]
        if len(afloat) == len(kept):
            least = min(kept)
            return [floor if probability < least else probability * scale for probability in pmf]
        kept = afloat


def event_uniform(loop_id: str, event_id: str) -> float:
    """Return the number in [0, 1) that decides an event's draw: the same for the same loop and event id."""
    digest = hashlib.blake2b(event_id.encode(), key=loop_id.encode()[:64], digest_size=8).digest()
    return as_uniform(int.from_bytes(digest, "big"))


def slot_seed(loop_id: str, event_id: str, slot: int) -> int:
    """Return the 64 bits that decide the draw of an event's slot: the same for the same loop, event id and index."""
    salt = slot.to_bytes(4, "big")
    digest = hashlib.blake2b(event_id.encode(), key=loop_id.encode()[:64], salt=salt, digest_size=8).digest()
    return int.from_bytes(digest, "big")


def as_uniform(seed: int) -> float:
    """Turn a seed of 64 bits into a number in [0, 1)."""
    return (seed >> 11) / (1 << 53)


def sample_index(pmf: Sequence[float], uniform: float) -> int:
    """Draw an index by its probability.

    Args:
        pmf: sums to 1.
        uniform: in [0, 1).

    Returns:
        An index whose probability is above 0.

    >>> sample_index([0.2, 0.0, 0.8], 0.2)
    2
    """
    reached = 0.0
    last = 0
    for index, probability in enumerate(pmf):
        if probability > 0.0:
            reached += probability
            last = index
            if uniform < reached:
                return index
    return last  # the sum fell short of 1 by a rounding error
