"""What is known of the nodes: what each says of itself to all, and how one stands, for its own processes.

The one process of a node that follows the streams puts the second down in the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rankward.records import TimeUs

_STALE_US = 30_000_000


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself."""

    name: str
    works: bool  # whether it takes loops: a worker does from when its replica has caught up
    host: str
    version: str  # of rankward
    since_us: TimeUs  # when it started
    loops: int = 0  # how many it leads
    behind: int = 0  # messages of the streams that its replica lacks


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a node stands."""

    node: str  # its name
    caught_up: bool  # whether its replica has had, since the node started, all that the streams held then
    cut_off: bool  # whether it has not reached the servers for some seconds
    behind: dict[str, int]  # by loop id: messages that its replica lacks, where it lacks any
    workers: tuple[str, ...]  # names of the nodes whose workers are alive, as far as it knows
    time_us: TimeUs  # of this

    def is_current(self, now_us: TimeUs) -> bool:
        """Whether it was put down just now, as is done every second. Clocks are set back as well as forward."""
        return abs(now_us - self.time_us) < _STALE_US


def write_standing(path: Path, standing: Standing) -> None:
    """Put it down. It is not worth failing for: the disk may be full."""
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_bytes(msgspec.json.encode(standing))
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)


def read_standing(path: Path) -> Standing | None:
    """Read it. None: nothing has been put down since the node started, or a power failure took it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Standing)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
