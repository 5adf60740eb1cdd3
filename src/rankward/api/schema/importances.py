"""The wire shapes of feature importances."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rankward.api.schema.body import decode
from rankward.api.schema.evaluations import STATUS_2022
from rankward.api.schema.features import FeatureDetails, feature_details
from rankward.api.schema.moments import read_moment, write_moment
from rankward.evaluation.asking import Question
from rankward.evaluation.findings import Findings
from rankward.store.studies import Study

_INVALID = "InvalidContract"


class FeatureImportanceContract(msgspec.Struct, rename="camel"):
    """What is to be looked at."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    start_time: str
    end_time: str


_contract = msgspec.json.Decoder(FeatureImportanceContract)


def read_question(body: bytes) -> Question:
    """Read the body of a new feature importance.

    Raises:
        InvalidRequest: it cannot be used.
    """
    contract: FeatureImportanceContract = decode(_contract, body, code=_INVALID)
    return Question(
        name=contract.name,
        start_us=read_moment(contract.start_time, target="startTime", code=_INVALID),
        end_us=read_moment(contract.end_time, target="endTime", code=_INVALID),
    )


class FeatureImportanceEntry(msgspec.Struct, rename="camel"):
    """A feature importance in a list."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str


class FeatureImportanceList(msgspec.Struct, rename="camel"):
    """A page of feature importances."""

    value: list[FeatureImportanceEntry]
    next_link: str | UnsetType = UNSET


class ScoredFeature(msgspec.Struct, rename="camel"):
    """A feature with what it is worth."""

    namespace: str
    feature_name: str
    score: float  # 1: of the most important one


class FeatureImportance(msgspec.Struct, rename="camel"):
    """A feature importance."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str
    feature_scores: list[ScoredFeature]
    description: str | UnsetType = UNSET  # why it failed, or what was not done
    rankward: list[FeatureDetails] | UnsetType = UNSET


def write_entry(study: Study) -> FeatureImportanceEntry:
    """Write a feature importance as it stands in a list."""
    return FeatureImportanceEntry(
        id=study.study_id,
        name=study.name,
        start_time=write_moment(study.start_us),
        end_time=write_moment(study.end_us),
        creation_time=write_moment(study.created_us),
        status=STATUS_2022[study.state],
    )


def write_importance(study: Study, findings: Findings | None, *, with_details: bool) -> FeatureImportance:
    """Write a feature importance. Before it has succeeded, it has no scores.

    Args:
        study: its record.
        findings: what was found; None: nothing, or nothing yet.
        with_details: whether to say more than the contract does.
    """
    entry = write_entry(study)
    features = () if findings is None else findings.features
    return FeatureImportance(
        id=entry.id,
        name=entry.name,
        start_time=entry.start_time,
        end_time=entry.end_time,
        creation_time=entry.creation_time,
        status=entry.status,
        feature_scores=[
            ScoredFeature(namespace=each.namespace, feature_name=each.name, score=each.score) for each in features
        ],
        description=study.description or UNSET,
        rankward=feature_details(findings) if findings is not None and with_details else UNSET,
    )
