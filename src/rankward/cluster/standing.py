"""How a node stands among the others, as its one process that follows the streams puts it down for all of them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rankward.records import TimeUs


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a node stands."""

    node: str  # its name
    caught_up: bool  # whether its replica has had, since the node started, all that the streams held then
    cut_off: bool  # whether it has not reached the servers for some seconds
    behind: dict[str, int]  # by loop id: messages that its replica lacks, where it lacks any
    time_us: TimeUs  # of this


def write_standing(path: Path, standing: Standing) -> None:
    """Put it down. It is not worth failing for: the disk may be full."""
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_bytes(msgspec.json.encode(standing))
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)


def read_standing(path: Path) -> Standing | None:
    """Read it. None: nothing has been put down since the node started."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Standing)
    except FileNotFoundError:
        return None
