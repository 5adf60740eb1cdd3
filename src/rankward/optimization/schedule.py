"""When a loop's optimization is due: from its settings and what has run, at a given time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rankward.records import TimeUs
from rankward.settings import LoopSettings

FIRST_AFTER = timedelta(days=15)
"""From the making of a loop to its first optimization, where no start date is set: as the contract has it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def due(settings: LoopSettings, *, created_us: TimeUs, last_us: TimeUs | None, now_us: TimeUs) -> TimeUs | None:
    """Tell whether an optimization is due.

    Of several times that were missed the newest alone is due. What passed before automatic optimization was switched
    on, or before its schedule changed, is not.

    Args:
        settings: of the loop.
        created_us: when the loop was made.
        last_us: the newest time of the schedule that was made use of; None: none was.
        now_us: the time.

    Returns:
        The time of the schedule for which it is due. None: it is not.
    """
    if not settings.is_auto_optimization_enabled:
        return None
    start_us, frequency_us = _start_us(settings, created_us), _us(settings.auto_optimization_frequency)
    if now_us < start_us:
        return None
    slot_us = start_us + (now_us - start_us) // frequency_us * frequency_us
    if slot_us < _moment_us(settings.auto_optimization_since) or (last_us is not None and slot_us <= last_us):
        return None
    return slot_us


def following(settings: LoopSettings, *, created_us: TimeUs, now_us: TimeUs) -> TimeUs | None:
    """Tell the first time of the schedule after `now_us`. None: automatic optimization is off."""
    if not settings.is_auto_optimization_enabled:
        return None
    start_us, frequency_us = _start_us(settings, created_us), _us(settings.auto_optimization_frequency)
    if now_us < start_us:
        return start_us
    return start_us + ((now_us - start_us) // frequency_us + 1) * frequency_us


def _start_us(settings: LoopSettings, created_us: TimeUs) -> TimeUs:
    text = settings.auto_optimization_start_date
    if text is None:
        return created_us + _us(FIRST_AFTER)
    return _moment_us(datetime.fromisoformat(text))


def _moment_us(moment: datetime) -> TimeUs:
    """Without a zone it is UTC."""
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _us(zoned - _EPOCH)


def _us(span: timedelta) -> int:
    return span // _MICROSECOND
