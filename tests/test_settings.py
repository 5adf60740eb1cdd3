"""Settings: durations, bounds, and what may not change together."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.errors import InvalidSettings
from rankward.records import LearningMode
from rankward.settings import (
    SETTINGS,
    STAMPS,
    Aggregation,
    Limits,
    LoopSettings,
    change,
    check,
    check_limits,
    parse,
    parse_duration,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 1, 15, 12, 0, 0, 999, tzinfo=UTC)


def changed(changes: Mapping[str, object], before: LoopSettings | None = None) -> LoopSettings:
    """Settings after a change."""
    return change(before or LoopSettings(), changes, now=NOW)


def refused(changes: Mapping[str, object]) -> InvalidSettings:
    """What a change is refused with."""
    with pytest.raises(InvalidSettings) as error:
        changed(changes)
    return error.value


def test_limits_that_would_turn_something_away_for_ever_are_refused() -> None:
    """An upload of so many events would be told to try again in a second, again and again."""
    check_limits(Limits())
    for limits in (Limits(pending_appends=1_999), Limits(actions=5_000)):
        with pytest.raises(InvalidSettings, match="RANKWARD_LIMIT_PENDING_APPENDS to at least"):
            check_limits(limits)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT10M", timedelta(minutes=10)),
        ("P28D", timedelta(days=28)),
        ("P1DT2H", timedelta(days=1, hours=2)),
        ("PT0.5S", timedelta(milliseconds=500)),
        ("00:10:00", timedelta(minutes=10)),
        ("100:00:00", timedelta(hours=100)),
        ("1.00:00:00.25", timedelta(days=1, milliseconds=250)),
        ("250ms", timedelta(milliseconds=250)),
        ("2s", timedelta(seconds=2)),
        ("1.5h", timedelta(minutes=90)),
        ("1d", timedelta(days=1)),
    ],
)
def test_durations_are_read_in_every_notation(text: str, duration: timedelta) -> None:
    """ISO from today's clients, hh:mm:ss from before 2019, short ones from the command line."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "P", "10", "10 m", "P1Y", "P1M", "10:00", "-2s", "soon", "99999999999d", "999999999999:00:00", "P9999999999D"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """One that is too long to count is none either: it must not pass for a mistake of our own."""
    with pytest.raises(ValueError, match=r"is no duration|years or months"):
        parse_duration(text)


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    """No text may break the reader."""
    try:
        parse_duration(text)
    except ValueError:
        return


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_that_is_shown_reads_the_same(duration: timedelta) -> None:
    """A client reads, modifies and writes back."""
    assert parse_duration(show(duration)) == duration


@pytest.mark.parametrize("name", SETTINGS)
def test_every_default_reads_as_it_is_shown(name: str) -> None:
    """What `settings show` prints, `settings set` takes."""
    value = getattr(LoopSettings(), name)
    if name not in STAMPS:
        assert parse(name, show(value)) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("exploration", "0.1", 0.1),
        ("learning_mode", "Apprentice", LearningMode.APPRENTICE),
        ("reward_aggregation", "sum", Aggregation.SUM),
        ("log_retention_days", "-1", -1),
        ("log_mirror_enabled", "yes", True),
        ("log_mirror_sas_uri", "", None),
    ],
)
def test_a_setting_is_read_by_its_type(name: str, text: str, value: object) -> None:
    """From the command line everything comes as text."""
    assert parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exploration", "nan"),
        ("exploration", "inf"),
        ("default_reward", "much"),
        ("log_retention_days", "1.5"),
        ("nothing", "1"),
    ],
)
def test_text_of_another_type_is_refused(name: str, text: str) -> None:
    """A number that is none passes every comparison with a bound."""
    with pytest.raises(InvalidSettings):
        parse(name, text)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reward_wait": timedelta(0)}, "InvalidRewardWaitTime"),
        ({"reward_wait": timedelta(seconds=-5)}, "InvalidRewardWaitTime"),
        ({"reward_wait": timedelta(days=30, seconds=1)}, "InvalidRewardWaitTime"),
        ({"default_reward": 1.5}, "InvalidServiceConfiguration"),
        ({"exploration": 1.001}, "InvalidServiceConfiguration"),
        ({"exploration": -0.1}, "InvalidServiceConfiguration"),
        ({"exploration": float("nan")}, "InvalidServiceConfiguration"),
        ({"model_export_frequency": timedelta(0)}, "InvalidServiceConfiguration"),
        ({"log_retention_days": -2}, "InvalidLogRetentionDays"),
        ({"log_retention_days": 1}, "InvalidLogRetentionDays"),
        ({"reward_wait": timedelta(days=2), "log_retention_days": 2}, "InvalidLogRetentionDays"),
        ({"model_retrain_days": -1}, "InvalidModelRetrainDays"),
        ({"model_retrain_days": 91}, "InvalidModelRetrainDays"),
        ({"reward_min": 1.0}, "InvalidServiceConfiguration"),
    ],
)
def test_settings_out_of_bounds_are_refused(changes: dict[str, Any], code: str) -> None:
    """With the contract's own code for each."""
    assert refused(changes).code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"reward_wait": timedelta(milliseconds=1)},
        {"log_retention_days": -1},
        {"log_retention_days": 2},
        {"log_retention_days": 2_147_483_647},
        {"reward_wait": timedelta(days=2), "log_retention_days": 3},
        {"model_retrain_days": 0},
        {"exploration": 0.0},
    ],
)
def test_settings_at_a_bound_are_taken(changes: dict[str, Any]) -> None:
    """Retention must hold the wait and a day; for ever is long enough for everything."""
    check(changed(changes))


@pytest.mark.parametrize(
    "changes",
    [{"reward_wait": timedelta(hours=1)}, {"default_reward": 0.5}, {"reward_aggregation": Aggregation.SUM}],
)
def test_the_mode_and_the_reward_do_not_change_together(changes: dict[str, Any]) -> None:
    """The contract wants two calls; and nothing is changed by the refused one."""
    error = refused({"learning_mode": LearningMode.APPRENTICE, **changes})

    assert (error.code, error.target) == ("InvalidLearningModeServiceConfiguration", "learningMode")


def test_the_mode_may_come_with_rewards_that_stay_as_they_are() -> None:
    """Clients read the whole object, modify one member, and write all of it."""
    same = {"reward_wait": timedelta(minutes=10), "default_reward": 0.0, "reward_aggregation": Aggregation.EARLIEST}

    assert changed({"learning_mode": LearningMode.APPRENTICE, **same}).learning_mode is LearningMode.APPRENTICE


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"reward_wait": timedelta(hours=1)}, True),
        ({"exploration": 0.1}, True),
        ({"default_reward": 0.5}, True),
        ({"learning_mode": LearningMode.LOGGING_ONLY}, False),
        ({"log_retention_days": 30}, False),
        ({"default_reward": 0.0}, False),
        ({}, False),
    ],
)
def test_the_date_of_the_last_edit_follows_training(changes: dict[str, Any], *, counts: bool) -> None:
    """It moves when a value that matters to training changes, and shows whole seconds."""
    expected = NOW.replace(microsecond=0) if counts else LoopSettings().last_configuration_edit

    assert changed(changes).last_configuration_edit == expected


def test_settings_that_were_written_down_are_read_again() -> None:
    """They stand in the event log and the catalog for as long as those are kept."""
    settings = changed({"reward_wait": timedelta(seconds=2), "auto_optimization_start_date": "2022-09-20"})

    assert msgspec.json.decode(msgspec.json.encode(settings), type=LoopSettings) == settings


def test_settings_of_an_older_version_are_read_with_todays_defaults() -> None:
    """A setting that did not exist then has its default now."""
    old = json.dumps({"default_reward": 0.5, "a_setting_of_tomorrow": 1}).encode()

    assert msgspec.json.decode(old, type=LoopSettings) == LoopSettings(default_reward=0.5)
