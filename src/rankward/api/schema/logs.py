"""The wire shape of what a log covers."""

from __future__ import annotations

import msgspec


class DateRange(msgspec.Struct, rename="camel"):
    """A span of whole days."""

    from_: str = msgspec.field(name="from")
    to: str


class LogsProperties(msgspec.Struct, rename="camel", omit_defaults=True):
    """What the log holds; empty when it holds nothing."""

    date_range: DateRange | None = None
