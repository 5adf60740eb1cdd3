"""Runs the challengers of one loop: reads joined events, lets each learn and answer them, keeps how they stand.

It runs in a process of its own, at low priority, and waits while the loop's own training is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from rankward.challenge.contest import Contest, Progress, digest_of
from rankward.challenge.following import begun, failed, followed, gone_on, learning_anew, still_younger, younger_of
from rankward.challenge.measure import Standing
from rankward.challenge.younger import LOOK_EVERY, SPACING, successor, superfluous
from rankward.errors import CallerError, NotFound
from rankward.joining.reader import first_due, read_joined
from rankward.records import JoinedEvent, ModelId, Offset, TimeUs
from rankward.store.challengers import Challenger, ChallengerKind, Challengers, ChallengerState
from rankward.store.ports import Board, Catalog, Epoch, EventLog, JoinedLog, Loop, ModelStore, SetAside
from rankward.training.fold import EventRefusedError, learns
from rankward.training.service import Mark, TrainingStatus, interactions_of, newest_lessons
from rankward.vw.bins import settle
from rankward.vw.learner import LearnerRefusedError
from rankward.vw.rates import EVENTS_MIN, SETTLED, SETTLED_US, choose_rate, measure, next_check

logger = logging.getLogger(__name__)

NOTE = "challenging"
"""The name of the note on the board that says how far a loop's challengers are."""
TRAINING_BEHIND = 1_000
"""Joined events that the loop's own training may be behind before its challengers wait for it."""
_READ = 500
_READS_KEPT = 6  # stretches of the log, as challengers stand at about the same places
_STRETCH = 500  # steps that one challenger takes before the next has its turn
_PAUSE_S = 0.05
_PAUSE_IDLE_S = 0.4
_KEEP_US = 30_000_000
_KEEP_IDLE_US = 5_000_000  # where there is nothing else to do
_STATUS_US = 1_000_000
_DAY_US = 86_400_000_000
_FRESH_US = 10_000_000  # an older note is of somebody who does not work any more

_progress = msgspec.msgpack.Decoder(Progress)
_training = msgspec.json.Decoder(TrainingStatus)


class ChallengerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a challenger is, and how it stands."""

    name: str
    asked_to: Offset  # in the joined log
    learned: int
    standing: Standing


class ChallengingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the challengers of a loop are."""

    challengers: dict[str, ChallengerStatus]  # by key
    joined_end: Offset
    waits: bool  # whether they wait for the loop's own training
    time_us: TimeUs  # of this status


def model_ids(key: str) -> tuple[ModelId, ModelId]:
    """Name the two places of a challenger's model: one is written while the other still counts."""
    return f"{key}-a", f"{key}-b"


Read = Callable[[Offset], Awaitable[tuple[Sequence[JoinedEvent], Offset]]]


class _Cursor:
    """A place in the joined log, with what was read ahead of it."""

    def __init__(self, read: Read, offset: Offset) -> None:
        self._read = read
        self._ahead: deque[JoinedEvent] = deque()
        self.following = offset  # where to read next

    async def first(self) -> JoinedEvent | None:
        """Return the event that stands there. None: there is none yet."""
        while not self._ahead:
            events, following = await self._read(self.following)
            if following == self.following:
                return None
            self._ahead.extend(events)
            self.following = following
        return self._ahead[0]

    def step(self) -> JoinedEvent:
        """Step over the event that stands there."""
        return self._ahead.popleft()


class _Run:
    """A challenger that runs."""

    def __init__(self, contest: Contest, model_id: ModelId | None, read: Read, *, passed_us: int) -> None:
        self.contest = contest
        self.model_id = model_id  # of what is kept
        self.asked = _Cursor(read, contest.asked_to)
        self.lessons = _Cursor(read, contest.learned_offset)
        self.kept = (contest.asked_to, contest.learned_offset)
        self.kept_us = passed_us  # when it was kept last, by the timer
        self.rate_check = 0  # events learned after which the rate is put to the test


def _start_of(younger: Challenger) -> Offset:
    assert younger.epoch.start is not None, "a younger model begins at a place in the log"
    return younger.epoch.start


class ChallengingService:
    """Runs the challengers of a loop until there is none left, or it is told to stop."""

    def __init__(
        self,
        loop_name: str,
        *,
        log: EventLog,
        joined: JoinedLog,
        catalog: Catalog,
        challengers: Challengers,
        models: ModelStore,
        board: Board,
        mark: Callable[[str], Mark],
        forget: Callable[[str], None],
        succeed: Callable[[Challenger], Awaitable[object]],
        make_key: Callable[[], str],
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            loop_name: of the loop.
            log: its event log.
            joined: its joined log.
            catalog: of loops.
            challengers: their records.
            models: bytes of what challengers have learned.
            board: for notes.
            mark: gives a challenger's mark, by key.
            forget: removes the files of a challenger that is no more, by key.
            succeed: lets a younger model serve, with what is kept of it, and removes it.
            make_key: makes a key that was never used.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells: for pauses.
        """
        self._log = log
        self._joined = joined
        self._catalog = catalog
        self._challengers = challengers
        self._models = models
        self._board = board
        self._mark_of = mark
        self._forget = forget
        self._succeed = succeed
        self._make_key = make_key
        self._clock = clock
        self._timer = timer
        self._loop: Loop = catalog.loop(loop_name)
        self._change_mark = -1
        self._records: dict[str, Challenger] = {}  # by key, those that have not failed
        self._runs: dict[str, _Run] = {}
        self._marks: dict[str, Mark] = {}
        self._reads: OrderedDict[Offset, tuple[Sequence[JoinedEvent], Offset]] = OrderedDict()
        self._end_mark = -1  # of the joined log, before it was found to hold no more
        self._ends: set[Offset] = set()  # where it was found so
        self._status_us = 0  # by the timer
        self._serving: Epoch | None = None
        self._looked_at: Offset = 0
        self._set_aside_by_loop: set[Offset] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Let them learn and answer what there is, and wait for more."""
        pause_s = _PAUSE_S
        try:
            while not stop.is_set() and self._follow():
                waits = self._training_is_behind()
                busy = False
                if not waits:
                    for key in list(self._records):
                        busy |= await self._turn(key)
                        await self._watch_pairs(key)
                        await self._watch_rate(key)
                    await self._renew()
                self._keep_if_due(busy=busy)
                await self._post(waits=waits)
                if busy:
                    pause_s = _PAUSE_S
                    await asyncio.sleep(0)  # so that it hears of being stopped
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), pause_s)
                    pause_s = min(_PAUSE_IDLE_S, 2 * pause_s)
            for key, run in self._runs.items():
                self._keep(key, run)
        finally:
            for run in self._runs.values():
                run.contest.close()
            self._board.take_down(self._loop.loop_id, NOTE)

    def _follow(self) -> bool:
        """Take over what was changed. Returns whether there is anything to do."""
        mark = self._catalog.change_mark()
        if mark == self._change_mark:
            return self._is_wanted
        self._change_mark = mark
        loop = self._catalog.loop(self._loop.name)
        if loop.loop_id != self._loop.loop_id:
            return False  # deleted, and another made under its name
        self._loop = loop
        self._serving = next((each for each in self._catalog.epochs(loop.loop_id) if each.state == "serving"), None)
        listed = {each.key: each for each in self._challengers.listed(loop.loop_id)}
        self._records = {key: each for key, each in listed.items() if each.state is ChallengerState.RUNNING}
        for key, each in listed.items():
            if each.kind is ChallengerKind.YOUNGER and each.state is ChallengerState.FAILED:
                self._remove(key)
        for key in self._runs.keys() - self._records.keys():
            self._end(key)
        self._follow_set_asides()
        for key, record in list(self._records.items()):
            if key not in self._marks:
                self._marks[key] = self._mark_of(key)
                self._marks[key].clear()  # what it says is of a process that is no more, and has been read
            if record.kind is ChallengerKind.YOUNGER:
                if not still_younger(record, loop, self._serving):
                    self._remove(key)
                continue
            onward = followed(record, loop, now_us=self._clock())
            if onward is not record:
                self._change(record, onward)
        return self._is_wanted

    def _follow_set_asides(self) -> None:
        """Let every challenger begin again from where it is, if the loop passes over more events than before."""
        set_aside = {event.interaction for event in self._catalog.set_asides(self._loop.loop_id)}
        if set_aside != self._set_aside_by_loop:
            self._set_aside_by_loop = set_aside
            for key, run in list(self._runs.items()):
                self._keep(key, run)
                self._end(key)

    @property
    def _is_wanted(self) -> bool:
        return bool(self._records) or self._loop.settings.younger_models

    def _remove(self, key: str) -> None:
        """Let go of a younger model for good."""
        self._end(key)
        self._records.pop(key, None)
        self._challengers.delete(key)
        self._forget(key)

    async def _renew(self) -> None:
        """Begin younger models in turn, let go of those there are too many of, and let a better one take over."""
        serving = self._serving
        if not self._loop.settings.younger_models or serving is None or serving.start is None:
            return
        if serving.derives_interactions and serving.interactions is None:
            return
        _, end = await self._joined.extent()
        younger = sorted(
            (each for each in self._records.values() if each.kind is ChallengerKind.YOUNGER), key=_start_of
        )
        start = end // SPACING * SPACING
        if start - (_start_of(younger[-1]) if younger else serving.start) >= SPACING:
            born = younger_of(self._loop, serving, key=self._make_key(), start=start, now_us=self._clock())
            self._challengers.add(born)
            younger.append(born)
            self._records[born.key] = born
            self._marks[born.key] = self._mark_of(born.key)
        ages = [float(end + SPACING - _start_of(each)) for each in younger]
        # What has taken over began before those that are left, whatever its epoch says.
        eldest = max(float(end + SPACING - serving.start), *(age + SPACING for age in ages), 0.0)
        if (index := superfluous([eldest, *ages])) is not None:
            self._remove(younger.pop(index - 1).key)
        await self._look(younger)

    async def _look(self, younger: Sequence[Challenger]) -> None:
        runs = [self._runs.get(each.key) for each in younger]
        looked_at = max((run.contest.asked_to for run in runs if run is not None), default=0) // LOOK_EVERY
        if looked_at == self._looked_at:
            return
        self._looked_at = looked_at
        index = successor([None if run is None else run.contest.lead for run in runs])
        if index is None:
            return
        best = younger[index]
        run = self._runs[best.key]
        self._keep(best.key, run)
        self._end(best.key)
        del self._records[best.key]
        try:
            await self._succeed(best)
        except CallerError as error:  # somebody was quicker: it is looked at again under what holds now
            logger.info("loop %s: %s does not take over: %s", self._loop.name, best.name, error)
            return
        logger.info("loop %s: %s does better by the newest decisions, and serves", self._loop.name, best.name)
        for each in younger:
            if _start_of(each) < _start_of(best):
                self._remove(each.key)
            elif each.key != best.key:  # it is compared with another from now on
                self._change(each, msgspec.structs.replace(each, judged_from_us=self._clock()))

    def _end(self, key: str) -> None:
        """Let go of a challenger's learner; it may begin again from what is kept."""
        run = self._runs.pop(key, None)
        if run is not None:
            run.contest.close()

    def _change(self, before: Challenger, onward: Challenger) -> None:
        """Write a challenger that goes on otherwise, or does not go on."""
        run = self._runs.get(before.key)
        if run is not None:
            self._keep(before.key, run)
            self._end(before.key)
        kept = self._challengers.progress(before.key)
        progress = kept
        if kept is not None and onward.state is ChallengerState.RUNNING:
            progress = None
            if onward.epoch == before.epoch:
                progress = msgspec.msgpack.encode(gone_on(_progress.decode(kept), onward))
        self._challengers.write(onward, progress=progress)
        if onward.state is ChallengerState.RUNNING:
            self._records[before.key] = onward
        else:
            logger.error("loop %s: challenger %s: %s", self._loop.name, onward.name, onward.description)
            self._records.pop(before.key, None)

    def _training_is_behind(self) -> bool:
        """Whether the loop's own training needs the machine more."""
        notes = self._board.read(self._loop.loop_id)
        statuses = [_training.decode(note) for name, note in notes.items() if name.startswith("training-")]
        return any(
            status.joined_end - status.joined_offset > TRAINING_BEHIND
            for status in statuses
            if self._clock() - status.time_us < _FRESH_US
        )

    async def _turn(self, key: str) -> bool:
        """Let a challenger take a stretch of steps. Returns whether it took one."""
        run = self._runs.get(key) or await self._begin(self._records[key])
        if run is None:
            return False
        mark, contest = self._marks[key], run.contest

        def note(interaction: Offset | None) -> None:
            if interaction is None:
                mark.clear()
            else:
                mark.set(interaction)

        try:
            for step in range(_STRETCH):
                event, lesson = await run.asked.first(), await run.lessons.first()
                if lesson is not None and lesson.entry.due_us <= contest.published_us(event):
                    contest.learn(run.lessons.step(), before=note)
                elif event is not None:
                    contest.judge(run.asked.step(), before=note)
                else:
                    contest.pass_to(run.asked.following)
                    return step > 0
        except EventRefusedError as error:
            self._set_aside(key, error)
        finally:
            mark.clear()
        return True

    async def _watch_pairs(self, key: str) -> None:
        """Let a challenger learn anew when the loop has begun to pair a namespace that it does not."""
        run, record, serving = self._runs.get(key), self._records.get(key), self._serving
        if run is None or record is None or serving is None or record.kind is ChallengerKind.YOUNGER:
            return
        if not record.epoch.derives_interactions or not serving.derives_interactions:
            return
        mine, found = record.epoch.interactions, serving.interactions
        if mine is not None and found is not None and set(found.pairs) > set(mine.pairs):
            await self._learn_anew(record, msgspec.structs.replace(record.epoch, interactions=found))

    async def _watch_rate(self, key: str) -> None:
        """Let a challenger learn anew when the newest events ask for another rate, as the loop itself does."""
        run, record = self._runs.get(key), self._records.get(key)
        if run is None or record is None or not record.epoch.derives_rate or record.kind is ChallengerKind.YOUNGER:
            return
        epoch, contest = record.epoch, run.contest
        rated = next_check(epoch.rate.learned if epoch.rate is not None else 0)
        if contest.learned < max(rated, run.rate_check):
            return
        if contest.learned > SETTLED and self._clock() - epoch.created_us < SETTLED_US:
            return
        run.rate_check = next_check(contest.learned)
        lessons = await newest_lessons(
            self._log, self._joined, contest.lessons, start=epoch.start or 0, end=contest.learned_offset
        )
        if len(lessons) < EVENTS_MIN:
            return  # the log does not hold them any more
        errors = measure(epoch.policy, epoch.interactions, lessons, epoch.bins)
        rate = choose_rate(errors, epoch.rate, learned=contest.learned)
        if rate is not None:
            await self._learn_anew(record, msgspec.structs.replace(epoch, rate=rate))

    async def _learn_anew(self, record: Challenger, epoch: Epoch) -> None:
        """Let a challenger learn the newest part of the log in another way, and be judged on from where it stands.

        What it would have done before stays as it was found: the other way was chosen by what came of it.
        """
        run = self._runs.get(record.key)
        if run is not None:
            self._keep(record.key, run)
            self._end(record.key)
        kept = self._challengers.progress(record.key)
        if kept is None:
            return  # it was removed meanwhile
        now_us, days = self._clock(), max(1, self._loop.settings.model_retrain_days)
        start = await first_due(self._joined, now_us - days * _DAY_US)
        onward = msgspec.structs.replace(record, epoch=msgspec.structs.replace(epoch, start=start, created_us=now_us))
        progress = learning_anew(_progress.decode(kept), start=start)
        if self._challengers.write(onward, progress=msgspec.msgpack.encode(progress)):
            self._records[record.key] = onward

    def _set_aside(self, key: str, error: EventRefusedError) -> None:
        """Pass an event over from now on, and go back to what is kept: the learner cannot be used any more."""
        self._end(key)
        self._challengers.set_aside(
            key,
            SetAside(
                loop_id=self._loop.loop_id,
                interaction=error.event.entry.interaction,
                event_id=error.event.interaction.event_id,
                reason=error.reason,
                time_us=self._clock(),
            ),
        )

    async def _begin(self, record: Challenger) -> _Run | None:
        """Go on from what is kept, or begin. None: there is nothing to begin with yet, or it cannot go on."""
        kept = self._challengers.progress(record.key)
        progress = None if kept is None else _progress.decode(kept)
        epoch = record.epoch
        start = await first_due(self._joined, epoch.since_us) if epoch.start is None else epoch.start
        if progress is None:
            asked_to = await first_due(self._joined, record.judged_from_us)
            progress = begun(record, asked_to=asked_to, start=start)
        settled = msgspec.structs.replace(epoch, start=start)
        pairs = settled.derives_interactions and settled.interactions is None
        cuts = settled.derives_bins and settled.bins is None
        if pairs or cuts:
            found, _ = await self._read(start)
            events = [event for event in found if learns(settled, event)]
            if not events:
                return None
            if pairs:
                settled = msgspec.structs.replace(settled, interactions=interactions_of(events))
            if cuts:
                settled = msgspec.structs.replace(settled, bins=settle(event.interaction for event in events))
        if settled != epoch:
            record = msgspec.structs.replace(record, epoch=settled)
            # Durable before the first event is learned: going on from there must not depend on what was joined when.
            if not self._challengers.write(record, progress=msgspec.msgpack.encode(progress)):
                return None
            self._records[record.key] = record
        alone = {event.interaction for event in self._challengers.set_asides(record.key)}
        model = self._model_of(record, progress)
        if model is None:
            progress = learning_anew(progress, start=start)
        try:
            contest = Contest(record, progress, model, set_aside=self._set_aside_by_loop | alone)
        except LearnerRefusedError as error:
            self._change(record, failed(record, str(error)))
            return None
        self._runs[record.key] = _Run(contest, progress.model_id, self._read, passed_us=self._timer())
        return self._runs[record.key]

    def _model_of(self, record: Challenger, progress: Progress) -> bytes | None:
        """Read what a challenger has learned. None: nothing, or it is lost: a backup may have come too late."""
        if progress.model_id is None:
            return None
        with contextlib.suppress(NotFound):
            model = self._models.get(self._loop.loop_id, progress.model_id)
            if digest_of(model) == progress.digest:
                return model
        logger.warning("loop %s: what challenger %s had learned is lost: it learns again", self._loop.name, record.name)
        return None

    async def _read(self, start: Offset) -> tuple[Sequence[JoinedEvent], Offset]:
        """Read joined events, once for all challengers that stand at the same place."""
        if start in self._reads:
            self._reads.move_to_end(start)
            return self._reads[start]
        mark = self._joined.change_mark()
        if mark != self._end_mark:
            self._end_mark, self._ends = mark, set()
        if start in self._ends:
            return (), start
        events, following = await read_joined(self._log, self._joined, start, limit=_READ)
        if following == start:
            self._ends.add(start)
            return (), start
        self._reads[start] = events, following
        while len(self._reads) > _READS_KEPT:
            self._reads.popitem(last=False)
        return events, following

    def _keep_if_due(self, *, busy: bool) -> None:
        for key, run in self._runs.items():
            first = run.model_id is None and run.contest.is_savable
            pause_us = _KEEP_US if busy else 0 if first else _KEEP_IDLE_US
            if self._timer() - run.kept_us >= pause_us:
                self._keep(key, run)

    def _keep(self, key: str, run: _Run) -> None:
        """Write down how far a challenger is: the learner's bytes first, aside of those that count until then."""
        contest = run.contest
        run.kept_us = self._timer()
        at = (contest.asked_to, contest.learned_offset)
        if at == run.kept:
            return
        loop_id, checkpoint = self._loop.loop_id, contest.checkpoint()
        model_id = None
        if checkpoint.model is not None:
            model_id = next(each for each in model_ids(key) if each != run.model_id)
            self._models.put(loop_id, model_id, checkpoint.model)
        progress = contest.progress(checkpoint, model_id=model_id, now_us=self._clock())
        if self._challengers.write(
            self._records.get(key, contest.challenger), progress=msgspec.msgpack.encode(progress)
        ):
            run.kept, run.model_id = at, model_id
        elif model_id is not None:
            self._models.forget(loop_id, model_id)  # it was removed meanwhile

    async def _post(self, *, waits: bool) -> None:
        passed_us = self._timer()
        if passed_us - self._status_us < _STATUS_US:
            return
        self._status_us = passed_us
        statuses = {
            key: ChallengerStatus(
                name=run.contest.challenger.name,
                asked_to=run.contest.asked_to,
                learned=run.contest.learned,
                standing=run.contest.standing(),
            )
            for key, run in self._runs.items()
        }
        _, joined_end = await self._joined.extent()
        status = ChallengingStatus(challengers=statuses, joined_end=joined_end, waits=waits, time_us=self._clock())
        self._board.post(self._loop.loop_id, NOTE, msgspec.json.encode(status))
