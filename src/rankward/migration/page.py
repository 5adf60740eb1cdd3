"""The report of a migration as one page of HTML, which needs nothing from anywhere."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup, escape

from rankward.migration.parity import TOLERANCE
from rankward.migration.report import Report, share
from rankward.settings import as_datetime

_QUOTED = re.compile(r"`([^`]+)`")


def render(report: Report, *, version: str) -> str:
    """Write the page.

    Args:
        report: what to show.
        version: of rankward.
    """
    environment = Environment(
        loader=PackageLoader("rankward.migration"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    environment.filters["moment"] = lambda time_us: f"{as_datetime(time_us):%Y-%m-%d %H:%M}"
    environment.filters["count"] = lambda count: f"{count:,}"
    environment.filters["share"] = share
    environment.filters["quoted"] = _quoted
    return environment.get_template("report.html").render(report=report, tolerance=f"{TOLERANCE:g}", version=version)


def _quoted(text: str) -> Markup:
    """Set what stands between backquotes as code."""
    return Markup(_QUOTED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped
