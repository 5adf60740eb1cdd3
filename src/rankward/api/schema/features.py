"""What is said of features beyond the contract: what each is worth, with intervals, and what is odd about it."""

from __future__ import annotations

import msgspec

from rankward.evaluation.facts import FeatureFacts
from rankward.evaluation.findings import Findings
from rankward.evaluation.report import Estimate, FeatureScore


class LossDetails(msgspec.Struct, rename="camel"):
    """What a policy loses of its mean reward without a feature."""

    value: float
    interval: list[float]  # 95 %, for a log of this length
    interval_always: list[float]  # 95 %, at every look at a growing log


class FeatureDetails(msgspec.Struct, rename="camel"):
    """What we know of a feature."""

    namespace: str
    feature_name: str
    score: float
    loss: float | None  # of mean reward, when the policy learns anew without it; None: the feature never varies
    left_out: LossDetails | None  # the same, with intervals
    permuted: LossDetails | None  # when the policy is as it is, and shown what other decisions had
    shared_with: list[str]  # features that go with it: all are left out, and permuted, as one
    remarks: list[str]  # constant, missing, near unique, colliding
    places: list[str]  # context, action, slot
    events: int | None  # that have it; None: nothing more is known of it
    missing: float | None  # share of those places that lack it
    distinct: int | None  # values, about
    collides_with: list[str]  # other namespaces with its namespace's first letter


def feature_details(findings: Findings) -> list[FeatureDetails]:
    """Say what is known of features, the most important first."""
    facts = {(each.namespace, each.name): each for each in findings.facts}
    scored = {(each.namespace, each.name): each for each in findings.features}
    return [_feature(name, scored.get(name), facts.get(name)) for name in {**scored, **facts}]


def _feature(name: tuple[str, str], score: FeatureScore | None, facts: FeatureFacts | None) -> FeatureDetails:
    return FeatureDetails(
        namespace=name[0],
        feature_name=name[1],
        score=0.0 if score is None else score.score,
        loss=None if score is None else score.loss,
        left_out=None if score is None else _loss(score.left_out),
        permuted=None if score is None else _loss(score.permuted),
        shared_with=[] if score is None else list(score.shared_with),
        remarks=[] if facts is None else [remark.value for remark in facts.remarks],
        places=[] if facts is None else list(facts.places),
        events=None if facts is None else facts.events,
        missing=None if facts is None else facts.missing,
        distinct=None if facts is None else facts.distinct,
        collides_with=[] if facts is None else list(facts.collides_with),
    )


def _loss(estimate: Estimate | None) -> LossDetails | None:
    if estimate is None:
        return None
    return LossDetails(
        value=estimate.value,
        interval=[estimate.fixed.low, estimate.fixed.high],
        interval_always=[estimate.always.low, estimate.always.high],
    )
