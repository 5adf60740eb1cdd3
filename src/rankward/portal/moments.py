"""Moments in the fields of forms: written in UTC to the minute, and read with an offset or without."""

from __future__ import annotations

from datetime import UTC, datetime

from rankward.errors import InvalidRequest
from rankward.records import TimeUs
from rankward.settings import as_datetime


def written(time_us: TimeUs) -> str:
    """Write a moment as the value of a field of the type `datetime-local`."""
    return f"{as_datetime(time_us):%Y-%m-%dT%H:%M}"


def read_moment(text: str, what: str) -> TimeUs:
    """Read a moment: in UTC, unless it names an offset.

    Args:
        text: what was sent.
        what: it is for, to say so when it is none: `to export from`.

    Raises:
        InvalidRequest: it is none.

    >>> read_moment("1970-01-01T02:00+02:00", "to begin at")
    0
    """
    try:
        named = datetime.fromisoformat(text)
        zoned = named if named.tzinfo is not None else named.replace(tzinfo=UTC)
        return round(zoned.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{text[:40]!r} is no moment {what}: write it as 2026-01-31T18:00") from None
