"""By how much one policy is above another, judged by the same decisions: slot by slot, and in sum."""

from __future__ import annotations

from rankward.evaluation.contrast import Decisions, Floats, contrast
from rankward.evaluation.intervals import ALPHA, Betting, PairedSums
from rankward.evaluation.judge import RewardRange
from rankward.evaluation.report import Estimate, Interval


class Margin:
    """What is known so far of the difference of two policies that were asked the same."""

    def __init__(self, rewards: RewardRange) -> None:
        self._range = rewards
        self._slots: dict[str, tuple[PairedSums, Betting]] = {}

    def add(self, slot_id: str, p_target: Floats, p_other: Floats, decisions: Decisions) -> None:
        """Take more decisions in, in log order.

        Args:
            slot_id: of the slot that they decided; empty without slots.
            p_target: (M,) probabilities of the one policy, laid out like `decisions.p_log`.
            p_other: (M,) those of the other.
            decisions: N of them, with rewards scaled to [0, 1].
        """
        if slot_id not in self._slots:
            self._slots[slot_id] = PairedSums(), Betting()
        more = contrast(decisions, p_target, p_other)
        for each in self._slots[slot_id]:
            each.add(more, decisions.rewards, decisions.upweights)

    def estimate(self, decided: float) -> Estimate | None:
        """Tell the difference of mean rewards, target less other. None: no decision judges it.

        Args:
            decided: decisions, of any number of slots: what slots differ by is added up over them.
        """
        value = 0.0
        bounds = [0.0] * 4
        for sums, betting in self._slots.values():
            found, fixed = sums.value(), sums.interval(ALPHA / len(self._slots))
            if found is None or fixed is None:
                continue
            share = sums.count / decided
            value += share * found
            always = betting.bounds(ALPHA / len(self._slots))
            bounds = [so_far + share * each for so_far, each in zip(bounds, (*fixed, *always), strict=True)]
        if not self._slots:
            return None
        low, high, always_low, always_high = map(self._range.difference, bounds)
        return Estimate(
            value=self._range.difference(value), fixed=Interval(low, high), always=Interval(always_low, always_high)
        )
