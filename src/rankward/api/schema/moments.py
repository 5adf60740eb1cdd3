"""Moments of evaluations, as the contract writes and reads them: UTC, to the microsecond where there is need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rankward.errors import InvalidRequest
from rankward.records import TimeUs
from rankward.settings import as_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00"


def read_moment(text: str, *, target: str, code: str) -> TimeUs:
    """Read a day or a moment. Without a zone it is UTC.

    Raises:
        InvalidRequest: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (zoned - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{target} {text[:80]!r} is no moment: write a day or 2026-01-31T12:00:00Z", code=code, target=target
        ) from None


def write_moment(time_us: TimeUs) -> str:
    """Write a moment.

    >>> write_moment(1_767_225_600_000_000)
    '2026-01-01T00:00:00Z'
    """
    return as_datetime(time_us).replace(tzinfo=None).isoformat() + "Z"
