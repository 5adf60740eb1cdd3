"""What is asked of SciPy: a root, and a quantile of Student's t. It is imported when it is asked.

To import it takes a third of a second, which every command and process that has a report in sight would pay.
"""

from __future__ import annotations

from collections.abc import Callable


def root(function: Callable[[float], float], low: float, high: float, *, within: float = 2e-12) -> float:
    """Find where a continuous function is 0, by Brent's method.

    Args:
        function: of opposite signs at `low` and `high`.
        low: one end.
        high: the other.
        within: how near to the root is near enough.
    """
    from scipy.optimize import brentq  # noqa: PLC0415

    return float(brentq(function, low, high, xtol=within))


def student_quantile(degrees: float, probability: float) -> float:
    """Return the quantile of Student's t distribution.

    >>> round(student_quantile(10, 0.975), 4)
    2.2281
    """
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(degrees, probability))
