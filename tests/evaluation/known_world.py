"""A small population whose true values are known, and logs drawn from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankward.evaluation.contrast import Contrast, Decisions, Floats, Indexes, contrast
from rankward.evaluation.estimators import Sums

ACTIONS = 10
EPSILON = 0.2
LOGGING_RIGHT = 0.7


class Log(NamedTuple):
    """Decisions with the probabilities of a target policy beside them."""

    decisions: Decisions
    p_target: Floats  # (M,)

    def part(self, start: int, end: int) -> Log:
        """Take a stretch of it."""
        one = self.decisions
        low, high = start * ACTIONS, end * ACTIONS
        return Log(
            Decisions(
                one.p_log[low:high],
                one.starts[start:end] - low,
                one.chosen[start:end] - low,
                one.rewards[start:end],
                one.upweights[start:end],
            ),
            self.p_target[low:high],
        )

    def value(self) -> Contrast:
        """The target by itself."""
        return contrast(self.decisions, self.p_target)

    def against_logging(self) -> Contrast:
        """The target against the logging policy."""
        return contrast(self.decisions, self.p_target, self.decisions.p_log)

    def sums(self) -> Sums:
        """Sums of the target's weights."""
        sums = Sums()
        sums.add(self.value().gain, self.decisions.rewards, self.decisions.upweights)
        return sums


class KnownWorld:
    """Contexts in which one of ten actions earns 1; an epsilon-greedy logging policy and a greedy target.

    Without noise, as labels are: the logging policy's first choice is right in seven of ten contexts. The target is
    right there too where it can be; where both are wrong they are so alike in half of the contexts.
    """

    def __init__(self, *, target_right: float = 0.9, contexts: int = 5_000) -> None:
        rng = np.random.default_rng(0)
        self._best: Indexes = rng.integers(0, ACTIONS, contexts)
        luck = rng.permutation(contexts) / contexts
        wrong = self._wrong(rng)
        self._logging: Indexes = np.where(luck < LOGGING_RIGHT, self._best, wrong)
        also_wrong = np.where(rng.random(contexts) < 0.5, wrong, self._wrong(rng))
        self._target: Indexes = np.where(luck < target_right, self._best, also_wrong)
        self.target_value = float((self._target == self._best).mean())
        self.logging_value = float((1 - EPSILON) * (self._logging == self._best).mean() + EPSILON / ACTIONS)

    def _wrong(self, rng: np.random.Generator) -> Indexes:
        return (self._best + rng.integers(1, ACTIONS, len(self._best))) % ACTIONS

    def log(self, events: int, rng: np.random.Generator) -> Log:
        """Draw a log."""
        contexts = rng.integers(0, len(self._best), events)
        rows = np.arange(events)
        p_log = np.full((events, ACTIONS), EPSILON / ACTIONS)
        p_log[rows, self._logging[contexts]] += 1 - EPSILON
        p_target = np.zeros((events, ACTIONS))
        p_target[rows, self._target[contexts]] = 1.0
        explored = rng.random(events) < EPSILON
        taken = np.where(explored, rng.integers(0, ACTIONS, events), self._logging[contexts])
        return Log(
            Decisions(
                p_log=p_log.ravel(),
                starts=rows * ACTIONS,
                chosen=rows * ACTIONS + taken,
                rewards=(taken == self._best[contexts]).astype(np.float64),
                upweights=np.ones(events),
            ),
            p_target.ravel(),
        )
