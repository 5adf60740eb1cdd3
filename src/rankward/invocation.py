"""How `rankward` is called where it runs, for messages that say what to type."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

DATA = Path("data")
"""The data folder of commands that are told no other."""


def command() -> str:
    """Name the command: by its path if its environment lies in the present folder, as `make run` leaves it.

    Elsewhere it is taken to be found by its name: a path of this machine is nothing to show to everybody.
    """
    own = Path(sys.executable).with_name("rankward")
    here = Path.cwd()
    return str(own.relative_to(here)) if own.parent.parent.parent == here and own.exists() else "rankward"


def data_option(data: Path) -> str:
    """Write the option that names a data folder, after a space; empty, where commands find the folder without it."""
    return "" if data == DATA else f" --data {shlex.quote(str(data))}"
