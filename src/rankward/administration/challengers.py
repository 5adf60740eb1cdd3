"""Challengers of loops, as they are shown, and what can be done to them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rankward.administration.loops import LoopView, loop_view
from rankward.administration.tuning import PolicyChoice
from rankward.auditing import Trail
from rankward.challengers import ChallengerService, Position
from rankward.errors import InvalidPolicy
from rankward.records import TimeUs
from rankward.store.ports import EventLog
from rankward.vw.arguments import problem_type_of
from rankward.vw.presets import PRESETS
from rankward.wiring import Home


class ChallengerView(msgspec.Struct, frozen=True, kw_only=True):
    """A challenger: a policy that learns beside the one that serves, and how it stands against it.

    Rewards are in the loop's units. Of each interval, both ends together hold at every look, 95 times out of 100.
    """

    name: str
    policy: str
    preset: str | None  # None: a policy of its own
    exploration: float
    created_us: TimeUs
    judged_from_us: TimeUs  # by decisions from then on
    state: str  # running, or failed
    description: str  # why it failed, or was begun anew; empty: neither
    learned: int  # events
    behind: int  # joined events that it has not been judged by yet
    waits: bool  # whether it waits until the loop's own training has caught up
    decisions: int  # that it was judged by
    reward: float | None  # mean that it would have earned; None: nothing is known yet
    reward_low: float | None
    reward_high: float | None
    reward_served: float | None  # mean of what was served meanwhile
    ahead: float | None  # by how much it would have earned more
    ahead_low: float | None  # above 0: it is better beyond doubt
    ahead_high: float | None
    verdict: str  # better, worse, undecided or unknown


class ChallengerAdministration:
    """Policies that learn beside those that serve."""

    def __init__(self, home: Home, trail: Trail, *, log: Callable[[str], EventLog]) -> None:
        """Prepare.

        Args:
            home: the installation.
            trail: where changes are noted.
            log: gives a loop's event log, by loop id.
        """
        self._home = home
        self._log = log
        self._challengers = ChallengerService(home, trail)

    async def listed(self, name: str) -> list[ChallengerView]:
        """List a loop's challengers with how they stand, oldest first."""
        return [_challenger_view(each) for each in await self._challengers.listed(self._home.catalog.loop(name))]

    async def add(self, name: str, challenger: str, choice: PolicyChoice) -> ChallengerView:
        """Let a policy learn beside the one that serves.

        Args:
            name: of the loop.
            challenger: its name: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
            choice: the policy.

        Raises:
            InvalidPolicy: it is malformed or not allowed, or not one of the two was given.
            Conflict: the loop has one of that name, or as many as it may have.
        """
        loop = self._home.catalog.loop(name)
        if (choice.arguments is None) == (choice.preset is None):
            raise InvalidPolicy("give the learner's arguments or the name of a preset: one of the two")
        if choice.slots is not None:
            raise InvalidPolicy("a challenger decides for what the loop decides for: leave slots out", target="slots")
        policy = choice.arguments
        if policy is None:
            if choice.preset not in PRESETS:
                raise InvalidPolicy(f"there is no preset {choice.preset!r}: one of {', '.join(PRESETS)}")
            policy = PRESETS[choice.preset].policy(problem_type_of(loop.settings.policy)).text
        added = await self._challengers.add(loop, challenger, policy)
        return next(view for view in await self.listed(name) if view.name == added.name)

    async def remove(self, name: str, challenger: str) -> None:
        """Remove a challenger with what it has learned.

        Raises:
            NotFound: there is none of the name.
        """
        self._challengers.remove(self._home.catalog.loop(name), challenger)

    async def promote(self, name: str, challenger: str) -> LoopView:
        """Make a challenger's policy, and what it has learned, a loop's own: see `ChallengerService.promote`."""
        loop = self._home.catalog.loop(name)
        promoted = await self._challengers.promote(loop, challenger, log=self._log(loop.loop_id))
        return loop_view(self._home, promoted)


def _challenger_view(position: Position) -> ChallengerView:
    challenger, standing = position.challenger, position.standing
    mean, ahead = standing.mean, standing.ahead
    return ChallengerView(
        name=challenger.name,
        policy=challenger.epoch.policy,
        preset=challenger.preset,
        exploration=challenger.floor,
        created_us=challenger.created_us,
        judged_from_us=challenger.judged_from_us,
        state=challenger.state,
        description=challenger.description,
        learned=position.learned,
        behind=position.behind,
        waits=position.waits,
        decisions=standing.decisions,
        reward=None if mean is None else mean.value,
        reward_low=None if mean is None else mean.always.low,
        reward_high=None if mean is None else mean.always.high,
        reward_served=standing.served,
        ahead=None if ahead is None else ahead.value,
        ahead_low=None if ahead is None else ahead.always.low,
        ahead_high=None if ahead is None else ahead.always.high,
        verdict=standing.verdict,
    )
