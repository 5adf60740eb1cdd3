"""Every operation of the contract, one file for each part of it: the table that routes and documents them."""

from __future__ import annotations

from rankward.api.operation import Operation
from rankward.api.operations import (
    configuration,
    evaluations,
    importances,
    logs,
    model,
    multislot,
    ranking,
    uploads,
)

OPERATIONS: tuple[Operation, ...] = (
    *ranking.OPERATIONS,
    *multislot.OPERATIONS,
    *configuration.OPERATIONS,
    *evaluations.OPERATIONS,
    *importances.OPERATIONS,
    *model.OPERATIONS,
    *logs.OPERATIONS,
    *uploads.OPERATIONS,
)
