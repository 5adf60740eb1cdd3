"""The portal's views, one module for each family of pages. A module lists its own; this lists the modules."""

from __future__ import annotations

from rankward.portal.view import View
from rankward.portal.views import about, audit, configuration, decisions, keys, loops, overview

VIEWS: tuple[View, ...] = (
    *loops.VIEWS,
    *overview.VIEWS,
    *decisions.VIEWS,
    *configuration.VIEWS,
    *keys.VIEWS,
    *audit.VIEWS,
    *about.VIEWS,
)
