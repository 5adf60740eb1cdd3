"""Keeps the figures of one loop: reads what was joined, folds it, and commits figures and place together.

What was counted and is taken out of the logs later is taken out of the figures too: they are begun again from what
the joined log still has, as they are after a change of what a reward is. Stretches of which it has nothing any more
stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from rankward.joining.reader import first_due, read_joined
from rankward.records import Offset, TimeUs
from rankward.settings import LoopSettings
from rankward.store.ports import Board, EventLog, JoinedLog, Loop
from rankward.store.rollups import Rollups, RollupStep
from rankward.watching.apprentice import WINDOW_BLOCKS, ApprenticeWindow, windows
from rankward.watching.comparison import ComparingState, LiveComparison, since_of
from rankward.watching.fold import APPRENTICE, Basis, Fold, State, decode_block, decode_state, drops

logger = logging.getLogger(__name__)

NOTE = "watching"
"""The name of a loop's note on the board."""
_READ = 500
_DROP_US = 60_000_000
_STATUS_US = 1_000_000
_IDLE_STATUS_US = 5_000_000
_TELL_US = 5_000_000  # between two times that intervals are computed for the board


class WatchingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the figures of a loop go."""

    offset: Offset  # the next joined event
    joined_end: Offset
    failure: str | None  # why the last try failed; None: it did not
    comparison: LiveComparison | None = None  # at most some seconds old; None: nothing is known yet
    apprentice: ApprenticeWindow | None = None  # the same; None: no event was decided by an apprentice
    time_us: TimeUs  # of this status

    @property
    def behind(self) -> int:
        """Joined events that are not in the figures yet."""
        return max(0, self.joined_end - self.offset)


class WatchingService:
    """Keeps the figures of one loop. One process at a time may."""

    def __init__(
        self,
        loop: Loop,
        *,
        log: EventLog,
        joined: JoinedLog,
        rollups: Rollups,
        board: Board,
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
        kept_us: Callable[[LoopSettings], int],
    ) -> None:
        """Prepare.

        Args:
            loop: as the catalog has it now.
            log: the loop's event log.
            joined: the loop's joined log.
            rollups: where the figures are kept.
            board: where others look how far they go.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells: for pauses.
            kept_us: how long events are kept under some settings, in microseconds.
        """
        self._loop = loop
        self._log = log
        self._joined = joined
        self._rollups = rollups
        self._board = board
        self._clock = clock
        self._timer = timer
        self._kept_us = kept_us
        self._written: bytes | None = None  # the state on record
        self._fold: Fold | None = None  # None: to be read from the store, or begun
        self._read_at: int | None = None  # the joined log's change mark before it was last read to its end
        self._looked_at: int | None = None  # the log's change mark when it was last seen not to have been cleared
        self._dropped_us = 0  # by the timer, as those that follow
        self._posted_us = 0
        self._reached: Offset = 0
        self._told_at: Offset | None = None  # how far the figures went when what is on the board was told
        self._told_us = 0
        self._comparison: LiveComparison | None = None
        self._apprentice: ApprenticeWindow | None = None

    def follow(self, loop: Loop) -> None:
        """Take over the loop as the catalog has it now."""
        if Basis.of(loop.settings) != Basis.of(self._loop.settings):
            self._read_at = None
        self._loop = loop

    async def step(self) -> bool:
        """Take in what was joined, up to a few hundred events.

        Returns:
            Whether there may be more to take in at once.

        Raises:
            WorldError: nothing of the step was written. The next one does it again.
        """
        mark = self._joined.change_mark()
        now_us, passed_us = self._clock(), self._timer()
        if mark == self._read_at and self._fold is not None:
            log_mark = self._log.change_mark()
            if log_mark == self._looked_at and passed_us - self._posted_us < _IDLE_STATUS_US:
                return False
            self._looked_at = log_mark
            if not await self._was_cleared(self._fold.state, now_us):
                await self._post(every_us=_IDLE_STATUS_US)
                return False
        fold, self._fold = self._fold, None  # until the step is committed: a failed one is thrown away
        fold = await self._prepared(fold, now_us)
        fold.compare_since(since_of(self._loop.settings))
        events, reached = await read_joined(self._log, self._joined, fold.state.offset, limit=_READ)
        is_end = reached == fold.state.offset
        if not is_end:
            wanted = fold.needs(events, now_us)
            fold.load(wanted, self._rollups.get(wanted))
            for event in events:
                fold.take(event, now_us)
            fold.state.offset = reached
            drop = drops(now_us) if passed_us - self._dropped_us >= _DROP_US else {}
            self._commit(fold, drop=drop)
            self._dropped_us = passed_us if drop else self._dropped_us
        self._fold = fold
        self._read_at = mark if is_end else None
        await self._post(every_us=_STATUS_US)
        return not is_end

    async def _prepared(self, fold: Fold | None, now_us: TimeUs) -> Fold:
        """Return figures that can be gone on with: those at hand, those on record, or new ones."""
        erasures = (await self._joined.state()).erasures
        basis = Basis.of(self._loop.settings)
        state = fold.state if fold is not None else await self._stored()
        cleared = state is not None and await self._was_cleared(state, now_us)
        if state is not None and not cleared and state.erasures == erasures and state.basis == basis:
            return fold or Fold(state)
        first = await self._first()
        start = state.offset if state is not None and cleared else first
        comparing = ComparingState(since_us=since_of(self._loop.settings))
        begun = Fold(State(basis=basis, erasures=erasures, offset=start, begun_us=now_us, comparing=comparing))
        if self._written is not None:
            logger.info("loop %s: its figures are taken anew", self._loop.name)
        self._commit(begun, forget_from=0 if cleared else first)
        return begun

    def _commit(self, fold: Fold, *, drop: Mapping[str, int] | None = None, forget_from: Offset | None = None) -> None:
        state = fold.encoded_state()
        self._rollups.commit(
            RollupStep(over=self._written, state=state, rows=fold.rows(), drop=drop or {}, forget_from=forget_from)
        )
        self._written = state

    async def _first(self) -> Offset:
        """Find the first joined event that can be taken in: the interactions of all before have left the log."""
        oldest = await self._log.read_headers((await self._log.extent()).first, limit=1)
        return await first_due(self._joined, oldest[0].time_us) if oldest else (await self._joined.extent())[1]

    async def _stored(self) -> State | None:
        """Read how far the figures go. None: there are none, or they are of another joined log."""
        first, end = await self._joined.extent()
        body = self._written = self._rollups.state()
        state = None if body is None else decode_state(body)
        if state is None or state.offset > end:
            return None
        if state.last is not None and state.last[0] >= first:
            entries = await self._joined.read(state.last[0], limit=1)
            if not entries or (entries[0][0], entries[0][1].interaction) != state.last:
                return None
        return state

    async def _was_cleared(self, state: State, now_us: TimeUs) -> bool:
        """Whether everything that was taken in is gone from the log, though some of it was young enough to be kept."""
        if state.newest < 0 or state.newest >= (await self._log.extent()).first:
            return False
        return now_us - state.newest_us < self._kept_us(self._loop.settings)

    async def fail(self, failure: str) -> None:
        """Leave word that a step failed."""
        await self._post(failure=failure)

    async def _post(self, *, every_us: int = 0, failure: str | None = None) -> None:
        passed_us = self._timer()
        if passed_us - self._posted_us < every_us:
            return
        self._posted_us = passed_us
        fold = self._fold
        if fold is not None and fold.state.offset != self._told_at and passed_us - self._told_us >= _TELL_US:
            self._told_at, self._told_us = fold.state.offset, passed_us
            blocks = [decode_block(body) for _, body in self._rollups.newest(APPRENTICE, limit=WINDOW_BLOCKS)]
            self._comparison, self._apprentice = fold.told(), next(reversed(windows(blocks)), None)
        status = WatchingStatus(
            offset=self._reached if fold is None else fold.state.offset,
            joined_end=(await self._joined.extent())[1],
            failure=failure,
            comparison=self._comparison,
            apprentice=self._apprentice,
            time_us=self._clock(),
        )
        self._reached = status.offset
        self._board.post(self._loop.loop_id, NOTE, msgspec.json.encode(status))

    async def close(self) -> None:
        """Let go of all files."""
        await self._log.close()
        await self._joined.close()
        self._rollups.close()
