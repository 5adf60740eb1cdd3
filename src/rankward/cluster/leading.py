"""A node's part in leading: takes the loops that are its own, and hands over those that are another's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from rankward.cluster.spread import plan
from rankward.cluster.standing import Standing
from rankward.errors import Conflict, NotFound, RankwardError
from rankward.records import TimeUs
from rankward.store.ports import Catalog, Fence, Lead

logger = logging.getLogger(__name__)

_TELL_US = 1_000_000


class Members(Protocol):
    """Who is alive: `membership.Membership`, which speaks with the servers."""

    @property
    def name(self) -> str:
        """Of this node."""

    @property
    def living(self) -> frozenset[str]:
        """The workers that are alive, as far as is known."""

    @property
    def cut_off(self) -> bool:
        """Whether this node may look dead to the others."""

    @property
    def settled(self) -> bool:
        """Whether it can tell that whoever is missing is dead."""

    def say(self, *, works: bool, loops: int, behind: int) -> None:
        """Tell the others how this node stands."""


class Leads:
    """The loops that a node's worker leads, among other workers. Implements `worker.Leading`."""

    def __init__(
        self,
        catalog: Catalog,
        members: Members,
        *,
        may_work: bool,
        tell: Callable[[Standing], None],
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
    ) -> None:
        """Lead nothing yet.

        Args:
            catalog: where it is written who leads.
            members: who is alive.
            may_work: False: the node only keeps its replica, for those who read it, and leads nothing.
            tell: puts down how the node stands, for its other processes.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells.
        """
        self._catalog = catalog
        self._members = members
        self._may_work = may_work
        self._tell = tell
        self._clock = clock
        self._timer = timer
        self._told_us = 0  # by the timer
        self._caught_up = False
        self._held: dict[str, Fence] = {}
        self._change_mark = -1
        self._seen: Mapping[str, Lead] = {}

    @property
    def works(self) -> bool:
        """See `worker.Leading`. A node whose replica has not caught up would hold up the loops that it took."""
        return self._may_work and self._caught_up

    @property
    def name(self) -> str:
        """See `worker.Leading`."""
        return self._members.name

    def fence(self, loop_id: str) -> Fence | None:
        """See `worker.Leading`."""
        return None if self._members.cut_off else self._held.get(loop_id)

    def is_elsewhere(self, holder: str) -> bool:
        """See `worker.Leading`."""
        if holder in {"", self.name}:
            return False
        return holder in self._members.living or not self._members.settled

    def turn(self, behind: Mapping[str, int], *, caught_up: bool, at_work: Collection[str]) -> None:
        """See `worker.Leading`."""
        self._caught_up = self._caught_up or caught_up
        try:
            if self.works:
                self._take_turn(behind.keys(), at_work)
        except RankwardError as error:
            logger.warning("who leads cannot be settled, and is tried again: %s", error)
        passed_us = self._timer()
        if passed_us - self._told_us >= _TELL_US:
            self._told_us = passed_us
            self._members.say(works=self.works, loops=len(self._held), behind=sum(behind.values()))
            self._tell(
                Standing(
                    node=self.name,
                    caught_up=self._caught_up,
                    cut_off=self._members.cut_off,
                    workers=tuple(sorted(self._members.living)),
                    behind={loop_id: count for loop_id, count in behind.items() if count},
                    time_us=self._clock(),
                )
            )

    def _take_turn(self, loops: Collection[str], at_work: Collection[str]) -> None:
        mark = self._catalog.change_mark()
        if mark != self._change_mark:
            self._seen, self._change_mark = self._catalog.leads(), mark
        for loop_id, fence in list(self._held.items()):
            if self._seen.get(loop_id) != Lead(self.name, fence.term):
                logger.info("loop %s is led by another now", loop_id)
                del self._held[loop_id]
        if self._members.cut_off:
            return
        made = plan(
            me=self.name,
            loops=loops,
            leads=self._seen,
            living=self._members.living,
            held={loop_id: fence.term for loop_id, fence in self._held.items()},
            settled=self._members.settled,
        )
        for loop_id in made.hand_over:
            self._held.pop(loop_id, None)
            if loop_id not in at_work:
                self._catalog.release_lead(Fence(loop_id, self._seen[loop_id].term))
        for loop_id, term in made.take.items():
            try:
                self._held[loop_id] = self._catalog.take_lead(loop_id, self.name, over_term=term)
            except (Conflict, NotFound):
                continue  # another was quicker, or it is gone: seen at the next turn
            before = self._seen.get(loop_id)
            logger.info(
                "loop %s is led here now, under term %d%s",
                loop_id,
                self._held[loop_id].term,
                f", after {before.holder}" if before is not None and before.holder else "",
            )

    def release(self) -> None:
        """See `worker.Leading`."""
        for fence in self._held.values():
            try:
                self._catalog.release_lead(fence)
            except RankwardError as error:
                logger.warning("a loop is not handed over, and is taken when this node is seen to be gone: %s", error)
                break
        self._held.clear()
