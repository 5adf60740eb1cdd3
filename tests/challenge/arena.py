"""A loop in virtual time whose challengers are run, too."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from rankward.challenge.service import NOTE, ChallengingService, ChallengingStatus
from rankward.challengers import ChallengerService, Position
from rankward.store.challengers import ChallengerState

if TYPE_CHECKING:
    from tests.loop.circle import Circle


def service_of(circle: Circle) -> ChallengingService:
    """Make what runs the challengers of a loop."""
    service = ChallengerService(circle.home, circle.home.trail)
    return circle.home.challenging(
        "circle",
        circle.log,
        circle.joined,
        succeed=lambda younger: service.succeed(circle.loop, younger, log=circle.log),
    )


async def run_challengers(circle: Circle, until: int | None = None, *, kill: bool = False) -> None:
    """Run the challengers until all have been judged up to a joined offset, and stop them.

    Args:
        circle: the loop.
        until: the offset; None: that of everything joined.
        kill: give them no time to keep how far they are.
    """
    stop = asyncio.Event()
    end = (await circle.joined.extent())[1] if until is None else until
    running = asyncio.create_task(service_of(circle).run(stop))
    while not running.done():
        circle.timer.move(1_000_000)  # so that they say how far they are
        note = circle.home.board.read(circle.loop.loop_id).get(NOTE)
        if note is not None and _done(circle, msgspec.json.decode(note, type=ChallengingStatus), end):
            break
        await asyncio.sleep(0.005)
    if kill:
        running.cancel()
    stop.set()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _done(circle: Circle, status: ChallengingStatus, end: int) -> bool:
    listed = circle.home.challengers.listed(circle.loop.loop_id)
    keys = [each.key for each in listed if each.state is ChallengerState.RUNNING]
    return all(key in status.challengers and status.challengers[key].asked_to >= end for key in keys)


async def challenge(circle: Circle, name: str, policy: str) -> None:
    """Add a challenger."""
    await ChallengerService(circle.home, circle.home.trail).add(circle.loop, name, policy)


async def position(circle: Circle, name: str) -> Position:
    """Tell how a challenger stands."""
    listed = await ChallengerService(circle.home, circle.home.trail).listed(circle.loop)
    return next(each for each in listed if each.challenger.name == name)
