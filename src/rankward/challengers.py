"""Challengers of any loop: added, listed with how they stand, removed, promoted.

The worker runs them, in a process of its own for each loop (`challenge`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from rankward.adoption import Learned, adopt
from rankward.auditing import Trail
from rankward.challenge.contest import Progress, digest_of
from rankward.challenge.following import epoch_of
from rankward.challenge.measure import Measure, Standing
from rankward.challenge.service import ChallengerStatus, ChallengingStatus
from rankward.errors import CallerError, Conflict, InvalidPolicy, InvalidRequest, NotFound
from rankward.evaluation.asking import changes
from rankward.evaluation.judge import RewardRange
from rankward.records import Offset
from rankward.store.challengers import Challenger, ChallengerKind, ChallengerState
from rankward.store.ports import EventLog, Loop
from rankward.telemetry import read_challenging
from rankward.vw.arguments import parse_policy, problem_type_of
from rankward.vw.presets import preset_of
from rankward.vw.trial import try_policy
from rankward.wiring import Home

_NAME_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_NAME_MAX = 64

_progress = msgspec.msgpack.Decoder(Progress)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A challenger, how far it is, and how it stands."""

    challenger: Challenger
    learned: int  # events
    behind: int  # joined events that it has not been judged by yet
    waits: bool  # whether it waits for the loop's own training
    standing: Standing


def positions(
    challengers: Sequence[Challenger],
    progress: Mapping[str, bytes],
    status: ChallengingStatus | None,
    *,
    joined_end: Offset,
) -> list[Position]:
    """Put together what is known of challengers.

    Args:
        challengers: of a loop.
        progress: what is kept of each, by key; of one that has not begun, nothing is.
        status: what their process has posted; None: nothing.
        joined_end: of the loop's joined log.
    """
    found = []
    for each in challengers:
        kept = _kept(each, progress.get(each.key))
        posted = None if status is None else status.challengers.get(each.key)
        newest = posted if posted is not None and posted.asked_to >= kept.asked_to else kept
        runs = each.state is ChallengerState.RUNNING
        found.append(
            Position(
                challenger=each,
                learned=newest.learned,
                behind=max(0, joined_end - newest.asked_to) if runs and newest.asked_to else 0,
                waits=runs and status is not None and status.waits,
                standing=newest.standing,
            )
        )
    return found


def _kept(challenger: Challenger, kept: bytes | None) -> ChallengerStatus:
    if kept is None:
        return ChallengerStatus(name=challenger.name, asked_to=0, learned=0, standing=Standing(decisions=0))
    progress = _progress.decode(kept)
    rewards = RewardRange(challenger.settings.reward_min, challenger.settings.reward_max)
    standing = Measure(rewards, progress.measure).standing()
    return ChallengerStatus(
        name=challenger.name, asked_to=progress.asked_to, learned=progress.learned, standing=standing
    )


class ChallengerService:
    """Challengers of any loop. Any process may have one: the store keeps two changes from crossing."""

    def __init__(self, home: Home, trail: Trail) -> None:
        """Prepare.

        Args:
            home: the installation.
            trail: where changes are noted.
        """
        self._home = home
        self._trail = trail

    async def add(self, loop: Loop, name: str, policy: str) -> Challenger:
        """Let a policy learn beside the one that serves, from the newest part of the log on.

        Args:
            loop: whose log it learns.
            name: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
            policy: the learner's arguments.

        Raises:
            InvalidRequest: the name cannot be used.
            InvalidPolicy: the policy is malformed, not allowed, breaks the learner, or decides something else than
                the loop does.
            Conflict: the loop has one of that name, or as many as it may have.
        """
        if not 1 <= len(name) <= _NAME_MAX or not set(name) <= _NAME_ALPHABET:
            raise InvalidRequest(
                f"{name[:80]!r} cannot name a challenger: use 1 to {_NAME_MAX} of a-z, 0-9, - and _", target="name"
            )
        arguments = parse_policy(policy)
        wanted = problem_type_of(loop.settings.policy)
        if arguments.problem_type is not wanted:
            raise InvalidPolicy(
                f"the policy is for --{arguments.problem_type}, the loop decides with --{wanted}: use that option",
                target="arguments",
            )
        await asyncio.to_thread(try_policy, arguments.learner_text)
        now_us = self._home.clock()
        preset = preset_of(arguments)
        challenger = Challenger(
            key=secrets.token_hex(16),
            loop_id=loop.loop_id,
            name=name,
            created_us=now_us,
            preset=preset,
            exploration=arguments.epsilon,
            settings=loop.settings,
            epoch=epoch_of(loop, arguments.text, preset, now_us=now_us),
            judged_from_us=now_us,
        )
        self._home.challengers.add(challenger)
        self._trail.note("challenger added", loop=loop.name, detail=name, after={"policy": arguments.text})
        return challenger

    async def listed(self, loop: Loop) -> list[Position]:
        """List a loop's challengers with how they stand, oldest first."""
        challengers = self._asked(loop)
        if not challengers:
            return []
        found = {each.key: self._home.challengers.progress(each.key) for each in challengers}
        joined = self._home.joined_log(loop.loop_id)
        try:
            _, joined_end = await joined.extent()
        finally:
            await joined.close()
        return positions(
            challengers,
            {key: kept for key, kept in found.items() if kept is not None},
            read_challenging(self._home.board.read(loop.loop_id)),
            joined_end=joined_end,
        )

    def _asked(self, loop: Loop) -> list[Challenger]:
        listed = self._home.challengers.listed(loop.loop_id)
        return [each for each in listed if each.kind is ChallengerKind.ASKED]

    def younger(self, loop: Loop) -> int:
        """Count the younger models that learn beside the one that serves."""
        return len(self._home.challengers.listed(loop.loop_id)) - len(self._asked(loop))

    def find(self, loop: Loop, name: str) -> Challenger:
        """Return a challenger by its name.

        Raises:
            NotFound: there is none.
        """
        found = next((each for each in self._asked(loop) if each.name == name), None)
        if found is None:
            raise NotFound(f"the loop {loop.name!r} has no challenger {name[:80]!r}: the list names those it has")
        return found

    def remove(self, loop: Loop, name: str) -> None:
        """Remove a challenger with what it has learned.

        Raises:
            NotFound: there is none.
        """
        self._forget(self.find(loop, name))
        self._trail.note("challenger removed", loop=loop.name, detail=name)

    def _forget(self, challenger: Challenger) -> None:
        if self._home.challengers.delete(challenger.key):
            self._home.forget_challenger(challenger.loop_id, challenger.key)

    async def promote(self, loop: Loop, name: str, *, log: EventLog) -> Loop:
        """Make a challenger's policy the loop's own. What it has learned serves at once, and learning goes on from it.

        The challenger is one no more. What served until then stays among the versions of the loop's model.

        Args:
            loop: the loop.
            name: of the challenger.
            log: the loop's event log.

        Raises:
            NotFound: there is none.
            Conflict: it has learned nothing yet.
            CallerError: the loop was changed, and it has not been judged under what holds now.
        """
        challenger = self.find(loop, name)
        if challenger.state is ChallengerState.FAILED:
            raise Conflict(f"challenger {name!r} does not go on: {challenger.description}")
        changed = await self._adopt(loop, challenger, log, kind="challenger", what=f"challenger {name}, promoted")
        self._forget(challenger)
        return changed

    async def succeed(self, loop: Loop, younger: Challenger, *, log: EventLog) -> Loop:
        """Let a younger model of a loop's own policy serve, as `promote` does.

        Args:
            loop: the loop.
            younger: the model.
            log: the loop's event log.

        Raises:
            CallerError: the loop was changed meanwhile.
        """
        changed = await self._adopt(loop, younger, log, kind="younger", what="a younger model, which does better now")
        self._forget(younger)
        return changed

    async def _adopt(self, loop: Loop, challenger: Challenger, log: EventLog, *, kind: str, what: str) -> Loop:
        name = challenger.name
        kept = self._home.challengers.progress(challenger.key)
        progress = None if kept is None else _progress.decode(kept)
        if progress is None or progress.model_id is None:
            raise Conflict(f"challenger {name!r} has learned nothing that is kept yet: wait until more was decided")
        model = await asyncio.to_thread(self._home.challenger_models.get, loop.loop_id, progress.model_id)
        if digest_of(model) != progress.digest:
            raise Conflict(f"what challenger {name!r} has learned was kept anew at this moment: try again")

        def check(now: Loop) -> None:
            changed = changes(challenger.settings, now.settings)
            if now.forgotten_before != challenger.epoch.first_interaction:
                changed.append("model (it was deleted)")
            if changed:
                raise CallerError(
                    f"the loop was changed ({', '.join(changed)}), and challenger {name!r} has not been judged since: "
                    "it is begun anew within a second while the worker runs; look again then",
                    code="OperationNotAllowed",
                )

        return await adopt(
            Learned(
                policy=challenger.epoch.policy,
                preset=challenger.preset,
                exploration=challenger.floor,
                interactions=challenger.epoch.interactions,
                rate=challenger.epoch.rate,
                bins=challenger.epoch.bins,
                learned=progress.learned,
                learned_to_us=progress.learned_to_us,
                joined_end=progress.learned_offset,
                model=model,
            ),
            loop_name=loop.name,
            model_id=f"{kind}-{secrets.token_hex(8)}",
            reason=what,
            cause=what,
            check=check,
            noted=lambda _: None,
            trail=self._trail,
            detail=what,
            catalog=self._home.catalog,
            models=self._home.models,
            log=lambda _: log,
            clock=self._home.clock,
        )
