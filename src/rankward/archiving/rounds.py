"""Archives the logs of all loops of an installation: what the worker's `archive` process does.

In a cluster each node does it for the loops that it leads. Where two believe that for a moment, the index refuses one.
"""

from __future__ import annotations

from rankward.archiving.place import Place
from rankward.rounds import Rounds
from rankward.wiring import Home

_PAUSE_S = 2.0
_AGAIN_US = 10_000_000


def archiving_rounds(home: Home, place: Place) -> Rounds:
    """Make what goes round the loops, and archives them in a place."""
    return Rounds(
        home,
        lambda loop, log, joined: home.archives.archiving(loop, place, log, joined),
        what="its archive",
        led_only=True,
        pause_s=_PAUSE_S,
        again_us=_AGAIN_US,
    )
