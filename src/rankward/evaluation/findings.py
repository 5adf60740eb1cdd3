"""What a study of a loop's log found, as it is kept beside it.

It is written to disk, so a new field has a default and an old one keeps its meaning.
"""

from __future__ import annotations

import msgspec

from rankward.evaluation.facts import FeatureFacts
from rankward.evaluation.report import FeatureScore, Report
from rankward.records import Bins, Interactions, ModelId, Offset, Rate, TimeUs


class KeptModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy had learned by the end of the log. Its bytes are kept beside."""

    policy_name: str
    model_id: ModelId
    policy: str  # the learner's arguments
    exploration: float
    interactions: Interactions | None  # that it was trained with beside its own
    learned: int  # events
    learned_to_us: TimeUs  # of the newest of them
    joined_end: Offset  # the next joined event after them: learning goes on from there
    size_bytes: int
    digest: str  # SHA-256 of the bytes, hex
    rate: Rate | None = None  # that it had at the end; None: the policy's own
    bins: Bins | None = None  # that it was trained with; None: it saw numbers as they are


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    report: Report | None = None  # None: no policies were judged
    models: tuple[KeptModel, ...] = ()
    features: tuple[FeatureScore, ...] = ()  # the most important first
    facts: tuple[FeatureFacts, ...] = ()  # of all features of the log's beginning, the most frequent first
