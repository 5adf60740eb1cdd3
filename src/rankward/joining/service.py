"""Runs joining for one loop: reads the event log, steps the joiner, commits what came out."""

from __future__ import annotations

from collections.abc import Callable

from rankward.errors import Conflict
from rankward.joining.joiner import Joiner
from rankward.records import Tick, TimeUs
from rankward.store.ports import EventLog, JoinedLog, JoinState

_READ = 4_000
_LANE_READ = 4_000
_TICK_AGAIN_US = 500_000


class JoiningService:
    """Joins one loop's event log. Only the worker of the loop may run one."""

    def __init__(
        self,
        log: EventLog,
        joined: JoinedLog,
        *,
        clock: Callable[[], TimeUs],
        read: int = _READ,
        lane_read: int = _LANE_READ,
    ) -> None:
        """Make the service; what is read is on record, so there is nothing to start.

        Args:
            log: the event log.
            joined: the joined log, which nobody else may write.
            clock: the time that the event log is stamped with.
            read: how many entries one step takes in.
            lane_read: how many entries one step looks through for what is due, for each reward wait in use.
        """
        self._read = read
        self._lane_read = lane_read
        self._log = log
        self._joined = joined
        self._clock = clock
        self._joiner: Joiner | None = None
        self._read_at: int | None = None  # the log's change mark before the last step that was committed
        self.ticks = True  # whether to let time pass in the log: of many who join it, one does
        self._ticked_us: TimeUs = 0  # when it was last tried, by our clock
        self._ticked_for_us: TimeUs = 0  # and to what time
        self.behind = False  # whether the last step left something that could be joined at once

    def wants_step(self) -> bool:
        """Whether there may be something to join: something was appended, was left over, or is due. Cheap to ask."""
        joiner = self._joiner
        if joiner is None or self.behind or self._log.change_mark() != self._read_at:
            return True
        return self._tick_is_due(joiner)

    async def step(self) -> bool:
        """Join what can be joined now, up to a few thousand events.

        Returns:
            Whether anything was done: if so, there may be more to do at once.
        """
        joiner = self._joiner or Joiner(await self._joined.state(), await self._joined.early())
        self._joiner = None  # until the step is committed: a failed one is thrown away
        mark = self._log.change_mark()
        before = joiner.state
        entries = await self._log.read_headers(joiner.head, limit=self._read)
        lookups = joiner.lookups(entries)
        joiner.read(entries, await self._log.locate(lookups) if lookups else ())
        lanes = {
            wait: await self._log.read_headers(start, limit=self._lane_read) for wait, start in joiner.lanes().items()
        }
        due = joiner.due(lanes)
        # Only interactions that were rewarded before this step can have matches on record.
        kept = await self._joined.matches([item.offset for item in due]) if due else {}
        step = joiner.join(due, kept)
        if step.state != before or step.joined:
            try:
                await self._joined.commit(step)
            except Conflict:  # something was erased meanwhile
                self.behind = True
                return True
        self._joiner, self._read_at = joiner, mark
        self.behind = len(entries) == self._read or bool(joiner.lanes())
        # A step may have done no more than look through a stretch in which nothing was due.
        return step.state != before or await self._tick(joiner)

    async def _tick(self, joiner: Joiner) -> bool:
        """Let time pass in the log when something waits for that alone."""
        if not self._tick_is_due(joiner):
            return False
        assert joiner.next_tick_us is not None, "it is due"
        self._ticked_us, self._ticked_for_us = self._clock(), joiner.next_tick_us
        await self._log.append([Tick()])
        return True

    def _tick_is_due(self, joiner: Joiner) -> bool:
        next_tick_us = joiner.next_tick_us
        if not self.ticks or next_tick_us is None or not joiner.now_us < next_tick_us <= self._clock():
            return False
        # The log's clock may be behind ours, and time not there yet: then it is not to be filled with ticks.
        return next_tick_us != self._ticked_for_us or self._clock() - self._ticked_us >= _TICK_AGAIN_US

    @property
    def has_joined(self) -> bool:
        """Whether this loop has anything joined."""
        counts = self._joiner.state.counts if self._joiner is not None else {}
        return counts.get("joined", 0) + counts.get("imported", 0) > 0

    @property
    def next_due_us(self) -> TimeUs | None:
        """When the next waiting interaction will be due; None: none is waiting, as far as is known."""
        return self._joiner.next_due_us if self._joiner else None

    async def state(self) -> JoinState:
        """Say how far joining has come."""
        return self._joiner.state if self._joiner else await self._joined.state()

    async def joined_before(self) -> int:
        """Return the event log offset before which everything is joined."""
        state = await self.state()
        return min([state.head, *state.lanes.values()])
