"""The settings of a loop and of the service: each declared once, with its unit, bounds and help.

The HTTP contract, the command line and the reference page are made from these declarations.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import isodate
import msgspec

from rankward.errors import InvalidSettings
from rankward.records import LearningMode

NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""What the contract answers for a moment that has not been."""


class Aggregation(enum.StrEnum):
    """How the rewards of one interaction become one."""

    EARLIEST = "earliest"
    SUM = "sum"
    AVERAGE = "average"
    MEDIAN = "median"
    MIN = "min"
    MAX = "max"


class Numbers(enum.StrEnum):
    """What the learner sees of a number among the features."""

    RAW = "raw"
    BINS = "bins"


class ModelImport(enum.StrEnum):
    """Which models may be imported with a key of the loop. With the admin key, and by command, all of them may."""

    NONE = "none"
    TRUSTED = "trusted"
    SIGNED = "signed"
    ANY = "any"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about one setting.

    `low` and `high` are inclusive, in the setting's own type; None leaves that side open. `code` is the
    contract's error code for a value out of bounds. `wire` is the contract's name; None: not part of it.
    """

    help: str
    wire: str | None = None
    low: Any = None
    high: Any = None
    above: Any = None  # an exclusive lower bound
    unit: str = ""
    code: str = "InvalidServiceConfiguration"
    retrains: bool = False  # whether a change starts a new training epoch


REWARD_WAIT_MAX = timedelta(days=30)


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """All that can be set for one loop. The defaults are the original service's."""

    reward_wait: Annotated[
        timedelta,
        Setting(
            wire="rewardWaitTime",
            above=timedelta(0),
            high=REWARD_WAIT_MAX,
            code="InvalidRewardWaitTime",
            help="How long after a Rank its rewards count. Nothing is learned earlier than that.",
        ),
    ] = timedelta(minutes=10)
    default_reward: Annotated[
        float,
        Setting(
            wire="defaultReward",
            low=-1.0,
            high=1.0,
            retrains=True,
            help="The reward of an event for which none came within the wait.",
        ),
    ] = 0.0
    reward_aggregation: Annotated[
        Aggregation,
        Setting(
            wire="rewardAggregation",
            retrains=True,
            help="How several rewards of one event become one.",
        ),
    ] = Aggregation.EARLIEST
    exploration: Annotated[
        float,
        Setting(
            wire="explorationPercentage",
            low=0.0,
            high=1.0,
            unit="fraction",
            help="The share of decisions spent on exploring; the policy's `--epsilon` is the same number. "
            "No action's probability is below this share divided by the number of actions.",
        ),
    ] = 0.2
    model_export_frequency: Annotated[
        timedelta,
        Setting(
            wire="modelExportFrequency",
            above=timedelta(0),
            high=timedelta(days=7),
            help="How often what was learned is published for Rank to use.",
        ),
    ] = timedelta(minutes=5)
    log_retention_days: Annotated[
        int,
        Setting(
            wire="logRetentionDays",
            low=-1,
            high=2_147_483_647,
            unit="days",
            code="InvalidLogRetentionDays",
            help="How long events are kept; -1 keeps them for ever. At least the reward wait plus one day, which is "
            "also what 0 stands for.",
        ),
    ] = 90
    model_retrain_days: Annotated[
        int,
        Setting(
            wire="modelRetrainDays",
            low=0,
            high=2_147_483_647,
            unit="days",
            code="InvalidModelRetrainDays",
            help="How far back a new training epoch starts when a change asks for one.",
        ),
    ] = 2
    learning_mode: Annotated[
        LearningMode,
        Setting(
            wire="learningMode",
            help="Online: the model decides. Apprentice: the first action is shown, the model learns to match "
            "it. LoggingOnly: the first action is shown and logged.",
        ),
    ] = LearningMode.ONLINE
    log_mirror_enabled: Annotated[
        bool,
        Setting(
            wire="logMirrorEnabled",
            help="Whether what is joined from now on is also written to `log_mirror_sas_uri`, as lines of JSON.",
        ),
    ] = False
    log_mirror_sas_uri: Annotated[
        str | None,
        Setting(
            wire="logMirrorSasUri",
            code="InvalidContainer",
            help="Where to: a container with a signature that may write, `https://…?…&sig=…`. An operator may also set "
            "`s3://BUCKET/PREFIX` or `file:///FOLDER`.",
        ),
    ] = None
    is_auto_optimization_enabled: Annotated[
        bool,
        Setting(
            wire="isAutoOptimizationEnabled",
            help="Whether better policies are searched for in the log on schedule, and one that is better beyond doubt "
            "is applied, watched, and rolled back if it turns out worse.",
        ),
    ] = False
    auto_optimization_frequency: Annotated[
        timedelta,
        Setting(
            wire="autoOptimizationFrequency",
            low=timedelta(days=1),
            high=timedelta(days=3650),
            help="How often that is done.",
        ),
    ] = timedelta(days=28)
    auto_optimization_start_date: Annotated[
        str | None,
        Setting(
            wire="autoOptimizationStartDate",
            help="When it is done for the first time, as 2026-01-31T00:00:00 in UTC; 15 days after the loop was made "
            "if unset. What was due before it was switched on is not made up for.",
        ),
    ] = None
    auto_optimization_since: Annotated[
        datetime,
        Setting(help="When automatic optimization was switched on, or its schedule changed: nothing earlier is due."),
    ] = NEVER
    is_inference_explainability_enabled: Annotated[
        bool,
        Setting(
            wire="isInferenceExplainabilityEnabled",
            help="Whether Rank says what made the model choose: what each feature adds to the expected reward.",
        ),
    ] = False
    reward_min: Annotated[
        float,
        Setting(low=-1.0, high=1.0, help="The least reward to expect; bounds the intervals of estimates."),
    ] = 0.0
    reward_max: Annotated[
        float,
        Setting(low=-1.0, high=1.0, help="The largest reward to expect; bounds the intervals of estimates."),
    ] = 1.0
    policy: Annotated[
        str,
        Setting(
            retrains=True,
            help="The learner's arguments, as the contract's policy. `policy set` changes them.",
        ),
    ] = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
    preset: Annotated[
        str | None,
        Setting(retrains=True, help="The preset that `policy` came from. `policy set --preset` changes it."),
    ] = "personalizer"
    younger_models: Annotated[
        bool,
        Setting(
            help="Whether three younger models of the policy learn beside the one that serves, and one of them takes "
            "over when the newest part of the log says that it does better: for visitors who change their minds. Costs "
            "as much as three more trainings.",
        ),
    ] = False
    numbers: Annotated[
        Numbers,
        Setting(
            retrains=True,
            help="What the learner sees of a number among the features. raw: the number, which has one weight; bins: "
            "also the interval that it falls into, which has a weight of its own.",
        ),
    ] = Numbers.RAW
    answer_without_quorum: Annotated[
        bool,
        Setting(
            help="Whether decisions and rewards are still taken while a cluster's JetStream servers have no quorum, or "
            "cannot be reached: with the last model, and kept on the disk of the node that answered until the servers "
            "are back. Without, they are answered with 503. It does nothing in an embedded installation.",
        ),
    ] = False
    model_import: Annotated[
        ModelImport,
        Setting(
            help="Which models a key of the loop may import. trusted: signed by this installation, or by one that it "
            "trusts; signed: by anyone; any: unsigned ones, too; none. The admin key may import any model.",
        ),
    ] = ModelImport.TRUSTED
    last_configuration_edit: Annotated[
        datetime,
        Setting(wire="lastConfigurationEditDate", help="When a setting that matters to training last changed."),
    ] = NEVER


def _declared(kind: type[msgspec.Struct]) -> dict[str, Setting]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: next(a for a in get_args(hint) if isinstance(a, Setting)) for name, hint in hints.items()}


SETTINGS: dict[str, Setting] = _declared(LoopSettings)
"""Every setting of a loop, by name, in the order of declaration."""

_TYPES: dict[str, Any] = get_type_hints(LoopSettings)
_EDITS = frozenset({"reward_wait", "exploration"})  # count as an edit, though they need no new epoch
_SCHEDULE = frozenset({"is_auto_optimization_enabled", "auto_optimization_frequency", "auto_optimization_start_date"})
STAMPS = frozenset({"last_configuration_edit", "auto_optimization_since"})
"""Settings that say when others were changed."""
READ_ONLY = STAMPS | {"policy", "preset"}
"""Settings that are stamped, or have commands and calls of their own."""


def choices(name: str) -> tuple[str, ...]:
    """Return the words that a setting can be, as `parse` reads them. None at all: it is no matter of choice."""
    kind = _TYPES[name]
    if kind is bool:
        return ("true", "false")
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple([str(member.value) for member in kind])
    return ()


def change(settings: LoopSettings, changes: Mapping[str, object], *, now: datetime) -> LoopSettings:
    """Apply changes and check the outcome as a whole.

    Args:
        settings: what is in force.
        changes: new values by setting name, of the settings' own types.
        now: becomes the last edit, if one of the changes matters to training, and likewise the time since which
            automatic optimization is on its schedule.

    Raises:
        InvalidSettings: a value is out of bounds, or two changes may not come together.
    """
    changed = {name: value for name, value in changes.items() if getattr(settings, name) != value}
    reward_names = {"reward_wait", "default_reward", "reward_aggregation"}
    if "learning_mode" in changed and reward_names & changed.keys():
        raise InvalidSettings(
            "learningMode cannot change together with defaultReward, rewardWaitTime or rewardAggregation: "
            "change one of them first and the other in a second call",
            code="InvalidLearningModeServiceConfiguration",
            target="learningMode",
        )
    if any(SETTINGS[name].retrains or name in _EDITS for name in changed):
        changed["last_configuration_edit"] = now.replace(microsecond=0)
    if _SCHEDULE & changed.keys():
        changed["auto_optimization_since"] = now.replace(microsecond=0)
    outcome = msgspec.structs.replace(settings, **changed)
    retention = outcome.log_retention_days
    if "model_retrain_days" not in changed and -1 < retention < outcome.model_retrain_days:
        # Most contracts have no name for it, so whoever shortens the log there cannot shorten this.
        outcome = msgspec.structs.replace(outcome, model_retrain_days=retention)
    check(outcome)
    return outcome


def check(settings: LoopSettings) -> None:
    """Refuse settings that are out of bounds, one by one and as a whole."""
    for name, setting in SETTINGS.items():
        value = getattr(settings, name)
        if value is None:
            continue
        within = (  # said so that a NaN is not
            (setting.low is None or value >= setting.low)
            and (setting.above is None or value > setting.above)
            and (setting.high is None or value <= setting.high)
        )
        if not within:
            raise _out_of_bounds(name, value)
    retention = settings.log_retention_days
    whole_days = -(-settings.reward_wait // timedelta(days=1)) + 1
    if retention not in (-1, 0) and retention < whole_days:
        raise InvalidSettings(
            f"logRetentionDays {retention} is less than the reward wait plus one day ({whole_days}): keep events "
            f"for at least {whole_days} days, or for ever with -1",
            code="InvalidLogRetentionDays",
            target="logRetentionDays",
        )
    if retention != -1 and settings.model_retrain_days > retention:
        raise InvalidSettings(
            f"modelRetrainDays {settings.model_retrain_days} is more than logRetentionDays {retention}: nothing "
            "older than the log can be learned again",
            code="InvalidModelRetrainDays",
            target="modelRetrainDays",
        )
    if settings.log_mirror_enabled and not settings.log_mirror_sas_uri:
        raise InvalidSettings(
            "logMirrorEnabled needs a place to mirror to: set logMirrorSasUri together with it",
            code="InvalidContainer",
            target="logMirrorSasUri",
        )
    if settings.auto_optimization_start_date is not None:
        try:
            datetime.fromisoformat(settings.auto_optimization_start_date)
        except ValueError:
            raise InvalidSettings(
                f"autoOptimizationStartDate {settings.auto_optimization_start_date[:80]!r} is no date: write "
                "2026-01-31T00:00:00",
                target="autoOptimizationStartDate",
            ) from None
    if settings.reward_min >= settings.reward_max:
        raise InvalidSettings(
            f"reward_min {settings.reward_min} must be less than reward_max {settings.reward_max}",
            target="reward_min",
        )


def _out_of_bounds(name: str, value: object) -> InvalidSettings:
    setting = SETTINGS[name]
    low = show(setting.low) if setting.low is not None else f"more than {show(setting.above)}"
    high = "" if setting.high is None else f" and at most {show(setting.high)}"
    label = setting.wire or name
    return InvalidSettings(
        f"{label} {show(value)} is out of bounds: it must be {low if setting.low is None else 'at least ' + low}{high}",
        code=setting.code,
        target=label,
    )


def parse(name: str, text: str) -> object:
    """Read one setting from text, as the command line gives it.

    Raises:
        InvalidSettings: no such setting, or the text is not of its type.
    """
    if name not in SETTINGS:
        raise InvalidSettings(f"there is no setting {name!r}: one of {', '.join(SETTINGS)}", target=name)
    kind = _TYPES[name]
    try:
        if timedelta in (kind, *get_args(kind)):
            return parse_duration(text)
        if kind is bool:
            if text.lower() not in _BOOLEANS:
                raise ValueError(f"it is one of {', '.join(_BOOLEANS)}")
            return _BOOLEANS[text.lower()]
        if kind is int or kind is float:
            return _number(text, whole=kind is int)
        if text == "" and type(None) in get_args(kind):
            return None
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            members = {member.value.lower(): member for member in kind}
            if text.lower() not in members:
                raise ValueError(f"it is one of {', '.join(member.value for member in kind)}")
            return members[text.lower()]
        return msgspec.convert(text, kind, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidSettings(f"{name}={text!r} cannot be read: {error}", target=name) from error


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _number(text: str, *, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"it is no {'whole ' if whole else ''}number") from None
    if not math.isfinite(value):
        raise ValueError("it is no number to count with")
    return value


_CLOCK = re.compile(r"(?:(?P<days>\d+)\.)?(?P<hours>\d+):(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:\.\d+)?)")
_SHORT = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(text: str) -> timedelta:
    """Read a duration: ISO 8601 (`PT10M`), the old `[d.]hh:mm:ss`, or short (`2s`, `10m`, `4h`, `1d`).

    Raises:
        ValueError: it is none of them, or has years or months, whose length nobody knows.
    """
    try:
        if match := _CLOCK.fullmatch(text):
            return timedelta(**{unit: float(count) for unit, count in match.groupdict().items() if count})
        if match := _SHORT.fullmatch(text):
            return float(match["count"]) * _UNITS[match["unit"]]
        duration = isodate.parse_duration(text)
    except (isodate.ISO8601Error, TypeError, OverflowError) as error:
        raise ValueError(f"{text[:80]!r} is no duration: write it as PT10M, 00:10:00 or 10m") from error
    if not isinstance(duration, timedelta):
        raise ValueError(f"{text!r} has years or months: write days, as in P28D")
    return duration


def brief(value: object) -> str:
    """Write a setting's value as `show` does, but durations as people do: `10m`, where that is exact."""
    if isinstance(value, timedelta) and value:
        for letter, unit in reversed(_UNITS.items()):
            if value % unit == timedelta(0):
                return f"{value // unit}{letter}"
    return show(value)


def as_datetime(time_us: int) -> datetime:
    """Turn microseconds since 1970 into a moment in UTC, exactly."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)


def show(value: object) -> str:
    """Write a setting's value as `parse` reads it."""
    match value:
        case None:
            return ""
        case timedelta():
            return str(isodate.duration_isoformat(value))
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case enum.Enum():
            return str(value.value)
    return str(value)


Bounds = TypeVar("Bounds", bound=msgspec.Struct)


def bounds_in(environment: Mapping[str, str], kind: type[Bounds]) -> Bounds:
    """Read bounds of one request as the service's environment sets them: `RANKWARD_LIMIT_…`, or the default.

    Args:
        environment: variables by name.
        kind: `Limits`, or `ranking.features.FeatureBounds`.

    Raises:
        InvalidSettings: one is no number.
    """
    variables = {f"RANKWARD_LIMIT_{name.upper()}": name for name in kind.__struct_fields__}
    given = {name: environment[variable] for variable, name in variables.items() if variable in environment}
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSettings(f"a variable RANKWARD_LIMIT_… cannot be read: {error}") from error


def check_limits(limits: Limits) -> None:
    """Refuse limits under which something that is allowed could never be done.

    Raises:
        InvalidSettings: with what to set.
    """
    for name in ("upload_events", "actions"):
        most = getattr(limits, name)
        if limits.pending_appends < most:
            raise InvalidSettings(
                f"pending_appends {limits.pending_appends} is less than {name} {most}: a call with so many would be "
                f"turned away for ever. Set RANKWARD_LIMIT_PENDING_APPENDS to at least {most}"
            )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may ask of the service. Environment variables `RANKWARD_LIMIT_…` set them."""

    body_bytes: int = 1_048_576
    model_bytes: int = 268_435_456  # of a model that is imported, as it is sent and once it is unpacked
    upload_bytes: int = 4_194_304  # of a body of /logs/interactions or /logs/observations
    upload_unpacked_bytes: int = 33_554_432  # of all its events together, once they are decompressed
    upload_events: int = 2_000  # in one of them
    actions: int = 50
    id_length: int = 256
    pending_appends: int = 4_096  # records waiting for the disk in one process, before it answers 503
    evaluation_events: int = 20_000_000  # in the span of one evaluation
    evaluation_hours: int = 24  # that one may run, before it ends as timed out
    evaluations_waiting: int = 20  # that are not finished, in all loops
