"""What loops earn, and what is read from that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec

from rankward.errors import InvalidRequest
from rankward.records import TimeUs
from rankward.settings import parse_duration
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison
from rankward.watching.exploration import Exploration
from rankward.watching.figures import ActionBoard, Series
from rankward.watching.fold import DAY_US
from rankward.wiring import Home


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span of time that is asked for, as text."""

    start: str | None = None  # ISO 8601; None: a day before the end
    end: str | None = None  # ISO 8601, exclusive; None: now
    step: str | None = None  # length of a stretch, such as 1h or PT1H; None: what makes a chart


class EarningsAdministration:
    """What loops earned, and what their decisions say of them."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def series(self, name: str, span: Span) -> Series:
        """Tell what a loop earned over time."""
        loop = self._home.catalog.loop(name)
        from_us, to_us, step_us = self._read_span(span)
        return await asyncio.to_thread(self._home.figures().series, loop, from_us=from_us, to_us=to_us, step_us=step_us)

    async def actions(self, name: str, span: Span) -> ActionBoard:
        """Tell what became of a loop's actions in a span of time."""
        loop = self._home.catalog.loop(name)
        from_us, to_us, _ = self._read_span(span)
        return await asyncio.to_thread(self._home.figures().actions, loop, from_us=from_us, to_us=to_us)

    async def comparison(self, name: str) -> LiveComparison:
        """Tell whether a loop is better than its baseline and than chance."""
        return await asyncio.to_thread(self._home.figures().comparison, self._home.catalog.loop(name))

    async def apprentice(self, name: str) -> Apprenticeship:
        """Tell how an apprentice does, and what to do."""
        return await asyncio.to_thread(self._home.figures().apprentice, self._home.catalog.loop(name))

    async def exploration(self, name: str) -> Exploration:
        """Tell what a loop pays for exploring."""
        return await asyncio.to_thread(self._home.figures().exploration, self._home.catalog.loop(name))

    def _read_span(self, span: Span) -> tuple[TimeUs, TimeUs, int | None]:
        """Read a span: beginning, end, step. Of what is not said, the end is now, and the beginning a day before."""
        to_us = self._home.clock() + 1 if span.end is None else _moment("to", span.end)
        from_us = to_us - DAY_US if span.start is None else _moment("from", span.start)
        return from_us, to_us, None if span.step is None else _length("step", span.step)


def _moment(name: str, text: str) -> TimeUs:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{name}={text[:40]!r} is no moment: write it as 2026-01-31T12:00:00Z", code="InvalidRequest", target=name
        ) from error
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (zoned - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _length(name: str, text: str) -> int:
    try:
        return parse_duration(text) // timedelta(microseconds=1)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}", code="InvalidRequest", target=name) from error
