"""Stretches of time that a page can look back over, by the words that its address has for them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from rankward.records import TimeUs

_HOUR_US = 3_600_000_000
_LENGTHS_US: Mapping[str, tuple[str, int]] = {
    "1h": ("hour", _HOUR_US),
    "6h": ("6 hours", 6 * _HOUR_US),
    "24h": ("day", 24 * _HOUR_US),
    "7d": ("week", 7 * 24 * _HOUR_US),
    "30d": ("30 days", 30 * 24 * _HOUR_US),
    "90d": ("90 days", 90 * 24 * _HOUR_US),
}


class Span(msgspec.Struct, frozen=True):
    """What a page shows: up to now."""

    key: str  # as the page's address has it
    title: str
    from_us: TimeUs
    to_us: TimeUs


def choices() -> list[tuple[str, str]]:
    """List what can be chosen: key and title."""
    return [(key, title) for key, (title, _) in _LENGTHS_US.items()]


def span_of(key: str | None, now_us: TimeUs, *, default: str = "24h") -> Span:
    """Read a span from an address. What it does not know is taken for the default."""
    chosen = key if key is not None and key in _LENGTHS_US else default
    title, length_us = _LENGTHS_US[chosen]
    return Span(chosen, title, now_us - length_us, now_us)
