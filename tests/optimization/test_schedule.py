"""When an optimization is due: once for each time of the schedule, and for what was missed once in all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.errors import InvalidSettings
from rankward.optimization.schedule import FIRST_AFTER, due, following
from rankward.settings import LoopSettings, as_datetime, change, check

DAY_US = 86_400_000_000
CREATED_US = 1_767_225_600_000_000
ON = {"is_auto_optimization_enabled": True, "auto_optimization_frequency": timedelta(days=7)}


def switched_on(at_us: int = CREATED_US, **changes: object) -> LoopSettings:
    """Settings of a loop on which automatic optimization was switched on at a time."""
    return change(LoopSettings(), {**ON, **changes}, now=as_datetime(at_us))


def due_at(settings: LoopSettings, now_us: int, last_us: int | None = None) -> int | None:
    """Ask at a time."""
    return due(settings, created_us=CREATED_US, last_us=last_us, now_us=now_us)


def test_nothing_is_due_where_it_is_off() -> None:
    """Which it is unless somebody says so."""
    assert due_at(LoopSettings(), CREATED_US + 10_000 * DAY_US) is None
    assert following(LoopSettings(), created_us=CREATED_US, now_us=CREATED_US) is None


def test_without_a_start_date_the_first_is_due_as_the_contract_has_it() -> None:
    """A new loop has nothing to search: 15 days after it was made it has."""
    settings = switched_on()
    first_us = CREATED_US + FIRST_AFTER // timedelta(microseconds=1)
    assert following(settings, created_us=CREATED_US, now_us=CREATED_US) == first_us
    assert due_at(settings, first_us - 1) is None
    assert due_at(settings, first_us) == first_us
    assert due_at(settings, first_us + 3 * DAY_US, last_us=first_us) is None
    assert due_at(settings, first_us + 7 * DAY_US, last_us=first_us) == first_us + 7 * DAY_US


def test_what_was_missed_is_made_up_for_once() -> None:
    """A service that was down for half a year does not search its log 26 times."""
    settings = switched_on(auto_optimization_start_date="2026-01-10T00:00:00")
    start_us = CREATED_US + 9 * DAY_US
    slot_us = start_us + 26 * 7 * DAY_US
    now_us = slot_us + 3 * DAY_US
    assert due_at(settings, now_us, last_us=start_us) == slot_us
    assert due_at(settings, now_us, last_us=slot_us) is None
    assert following(settings, created_us=CREATED_US, now_us=now_us) == slot_us + 7 * DAY_US


def test_what_passed_before_it_was_switched_on_is_not_due() -> None:
    """Nobody wanted it then: a start date of long ago says on which day of the week, not that something is late."""
    on_us = CREATED_US + 100 * DAY_US
    settings = switched_on(on_us, auto_optimization_start_date="2026-01-01T00:00:00Z")
    assert due_at(settings, on_us) is None
    assert due_at(settings, CREATED_US + 105 * DAY_US) == CREATED_US + 105 * DAY_US


def test_a_changed_schedule_counts_from_its_change() -> None:
    """Otherwise a shorter frequency would have missed what it was not there for."""
    settings = switched_on(auto_optimization_start_date="2026-01-01T00:00:00Z")
    changed_us = CREATED_US + 8 * DAY_US + 60_000_000
    settings = change(settings, {"auto_optimization_frequency": timedelta(days=1)}, now=as_datetime(changed_us))
    assert due_at(settings, changed_us, last_us=CREATED_US + 7 * DAY_US) is None
    assert due_at(settings, changed_us + DAY_US, last_us=CREATED_US + 7 * DAY_US) == CREATED_US + 9 * DAY_US


def test_a_start_date_means_what_its_zone_says() -> None:
    """And UTC where it says none."""
    west = switched_on(auto_optimization_start_date="2026-02-01T00:00:00-05:00")
    plain = switched_on(auto_optimization_start_date="2026-02-01T05:00:00")
    assert following(west, created_us=0, now_us=CREATED_US) == following(plain, created_us=0, now_us=CREATED_US)


def test_a_start_date_that_is_none_is_refused() -> None:
    """By command, too: the schedule must be one."""
    with pytest.raises(InvalidSettings, match="is no date"):
        switched_on(auto_optimization_start_date="soon")
    check(switched_on(auto_optimization_start_date="0001-01-01T00:00:00+05:00"))


@given(
    start_days=st.integers(-500, 500),
    frequency_days=st.integers(1, 100),
    looks=st.lists(st.integers(0, 2_000 * 24), min_size=1, max_size=60),
)
def test_each_time_of_the_schedule_is_made_use_of_once_at_the_most(
    start_days: int, frequency_days: int, looks: list[int]
) -> None:
    """However often, and at whatever times, somebody looks."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=start_days)
    settings = switched_on(
        auto_optimization_start_date=start.isoformat(), auto_optimization_frequency=timedelta(days=frequency_days)
    )
    start_us, frequency_us = CREATED_US + start_days * DAY_US, frequency_days * DAY_US
    last_us: int | None = None
    for hours in sorted(looks):
        now_us = CREATED_US + hours * DAY_US // 24
        slot_us = due_at(settings, now_us, last_us)
        if slot_us is not None:
            assert max(start_us, CREATED_US) <= slot_us <= now_us < slot_us + frequency_us
            assert (slot_us - start_us) % frequency_us == 0
            assert last_us is None or slot_us >= last_us + frequency_us
            last_us = slot_us
        else:
            newest_us = start_us + (now_us - start_us) // frequency_us * frequency_us
            assert newest_us < max(start_us, CREATED_US) or newest_us == last_us, "nothing that came is passed over"
        assert following(settings, created_us=CREATED_US, now_us=now_us) == max(
            start_us, start_us + ((now_us - start_us) // frequency_us + 1) * frequency_us
        )
