"""The wire shape of a model's dates."""

from __future__ import annotations

import msgspec

from rankward.records import TimeUs
from rankward.settings import as_datetime


class ModelProperties(msgspec.Struct, rename="camel"):
    """When the model was made. `0001-01-01T00:00:00+00:00`: it never was."""

    creation_time: str
    last_modified_time: str


def model_time(time_us: TimeUs | None) -> str:
    """Write a moment as model properties have it: with its offset. None: it never was."""
    return "0001-01-01T00:00:00+00:00" if time_us is None else as_datetime(time_us).isoformat()
