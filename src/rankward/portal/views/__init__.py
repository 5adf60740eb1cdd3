"""The portal's views, one module for each family of pages. A module lists its own; this lists the modules."""

from __future__ import annotations

from rankward.portal.view import View
from rankward.portal.views import (
    about,
    apprentice,
    audit,
    comparison,
    configuration,
    decisions,
    evaluations,
    features,
    keys,
    logs,
    loops,
    optimizations,
    overview,
    policy,
    start,
)

VIEWS: tuple[View, ...] = (
    *loops.VIEWS,
    *overview.VIEWS,
    *decisions.VIEWS,
    *comparison.VIEWS,
    *apprentice.VIEWS,
    *evaluations.VIEWS,
    *optimizations.VIEWS,
    *features.VIEWS,
    *policy.VIEWS,
    *start.VIEWS,
    *configuration.VIEWS,
    *logs.VIEWS,
    *keys.VIEWS,
    *audit.VIEWS,
    *about.VIEWS,
)
