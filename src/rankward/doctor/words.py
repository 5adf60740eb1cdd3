"""Numbers, moments and spans as the doctor says them."""

from __future__ import annotations

from datetime import datetime, timedelta

from rankward.records import TimeUs


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with what it counts, in the plural where it takes one."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """Write a part as a percentage; a dash, where there is no whole."""
    return f"{part / whole:.1%}" if whole else "—"


def moment(time_us: TimeUs) -> str:
    """Write a time of day, as the clock on the wall has it."""
    return f"{datetime.fromtimestamp(time_us / 1e6).astimezone():%H:%M:%S}"


def ago(time_us: TimeUs, now_us: TimeUs) -> str:
    """Write how long ago something was."""
    return f"{span((now_us - time_us) / 1e6)} ago"


def in_full(duration: timedelta) -> str:
    """Write a length of time in full, as it was set.

    >>> in_full(timedelta(seconds=2)), in_full(timedelta(hours=1, minutes=30))
    ('2 seconds', '1 hour 30 minutes')
    """
    hours, rest = divmod(duration.seconds, 3_600)
    minutes, seconds = divmod(rest, 60)
    exact = seconds + duration.microseconds / 1e6
    parts = [(duration.days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")]
    said = [counted(number, unit) for number, unit in parts if number]
    if duration.microseconds:
        said = [*(each for each in said if not each.endswith(("second", "seconds"))), f"{exact:g} seconds"]
    return " ".join(said) or "0 seconds"


def span(seconds: float) -> str:
    """Write a length of time in at most two units.

    >>> span(3723)
    '1 h 2 min'
    """
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.3g} s"
    rest = timedelta(seconds=round(seconds))
    days, (hours, minutes) = rest.days, divmod(rest.seconds // 60, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest.seconds % 60, "s")]
    while units[0][0] == 0:
        units.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in units[:2] if number)
