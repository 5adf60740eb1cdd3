"""All that judges one policy: slot by slot, and pages as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np

from rankward.evaluation.contrast import Decisions, Floats, Indexes
from rankward.evaluation.estimators import Sums, ips, pseudo_inverse_weights
from rankward.evaluation.intervals import ALPHA
from rankward.evaluation.judge import Judge, RewardRange, Windows, verdict_of
from rankward.evaluation.report import Estimate, Interval, PolicyResult, PolicySource, Verdict
from rankward.records import TimeUs

_OF_PAGES = (
    "of whole pages, a page's reward being the sum of its slots': estimate and intervals add up those of the slots, "
    "each judged given what the slots before it showed; the contract's sums are of the pseudo-inverse estimator"
)


class Panel:
    """The judges of one policy."""

    def __init__(self, rewards: RewardRange, *, judged_from_us: TimeUs = 0, alpha: float = ALPHA) -> None:
        """Begin. Arguments as of `Judge`."""
        self._judged_from_us = judged_from_us
        self._judge = partial(Judge, rewards, judged_from_us=judged_from_us, alpha=alpha)
        self._slots: dict[str, Judge] = {}
        self._pages = Sums()
        self._judged_pages = Sums()  # those that estimates are of
        self._windows = Windows()

    def add(
        self,
        slot_id: str,
        p_target: Floats,
        decisions: Decisions,
        reported: Floats,
        times_us: Indexes,
        *,
        shown: bool = True,
    ) -> None:
        """Take in what the policy would have done in a slot. Arguments as of `Judge.add`."""
        if slot_id not in self._slots:
            self._slots[slot_id] = self._judge()
        self._slots[slot_id].add(p_target, decisions, reported, times_us, shown=shown)

    def add_page(self, slot_weights: Sequence[float], reward: float, upweight: float, time_us: int) -> None:
        """Take in a whole page: the weight of each slot, and the sum of their rewards as they were reported."""
        weights = pseudo_inverse_weights(np.array([slot_weights]))
        facts = (weights, np.array([reward]), np.array([upweight]))
        self._pages.add(*facts)
        if time_us >= self._judged_from_us:
            self._judged_pages.add(*facts)
        self._windows.add(*facts, np.array([time_us]))

    def results(
        self, *, name: str, arguments: str | None, source: PolicySource, failure: str | None = None
    ) -> list[PolicyResult]:
        """Tell what was found: overall, then of each slot."""
        notes = () if failure is None else (failure,)
        if not self._pages.events:
            judge = self._slots.get("") or self._judge()
            return [_of_judge(judge, name, arguments, source, "", notes)]
        share = len(self._slots)
        estimate = against = None
        if failure is None:
            estimate = self._added([(judge, judge.estimate(ALPHA / share)) for judge in self._slots.values()])
            against = self._added([(judge, judge.against_online(share=share)) for judge in self._slots.values()])
        page = PolicyResult(
            name=name,
            arguments=arguments,
            source=source,
            verdict=_verdict(source, estimate, against),
            totals=self._pages,
            windows=self._windows.listed(),
            estimate=None if estimate is None else msgspec.structs.replace(estimate, ips=ips(self._judged_pages)),
            against_online=None if source is PolicySource.ONLINE else against,
            notes=(*notes, _OF_PAGES),
        )
        of_slots = [
            _of_judge(judge, name, arguments, source, slot_id, notes) for slot_id, judge in sorted(self._slots.items())
        ]
        return [page, *of_slots]

    def _added(self, found: Sequence[tuple[Judge, Estimate | None]]) -> Estimate | None:
        """Add the slots' estimates up, each by the share of pages that have the slot."""
        parts = [(judge.judged.count / self._judged_pages.count, each) for judge, each in found if each is not None]
        if not parts:
            return None
        return Estimate(
            value=sum(share * each.value for share, each in parts),
            fixed=Interval(
                sum(share * each.fixed.low for share, each in parts),
                sum(share * each.fixed.high for share, each in parts),
            ),
            always=Interval(
                sum(share * each.always.low for share, each in parts),
                sum(share * each.always.high for share, each in parts),
            ),
        )


def _of_judge(
    judge: Judge, name: str, arguments: str | None, source: PolicySource, slot_id: str, notes: tuple[str, ...]
) -> PolicyResult:
    estimate = None if notes else judge.estimate()
    against = None if notes or source is PolicySource.ONLINE else judge.against_online()
    return PolicyResult(
        name=name,
        arguments=arguments,
        source=source,
        slot_id=slot_id,
        verdict=_verdict(source, estimate, against),
        totals=judge.totals,
        windows=judge.windows(),
        estimate=estimate,
        against_online=against,
        diagnostics=None if notes else judge.diagnostics(),
        looks=judge.looks(),
        notes=notes,
    )


def _verdict(source: PolicySource, estimate: Estimate | None, against: Estimate | None) -> Verdict:
    if source is PolicySource.ONLINE:
        return Verdict.UNKNOWN if estimate is None else Verdict.REFERENCE
    return verdict_of(against)
