"""Trains one epoch of one loop: reads joined events, folds them, publishes versions.

It runs in a process of its own, so that a learner that dies takes nothing else along.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from rankward.errors import Conflict
from rankward.joining.reader import first_due, read_joined
from rankward.records import Interactions, JoinedEvent, MultiSlotInteraction, Offset, TimeUs
from rankward.settings import Numbers
from rankward.store.ports import (
    Board,
    Catalog,
    Epoch,
    EventLog,
    JoinedLog,
    Loop,
    ModelStore,
    ModelVersion,
    SetAside,
)
from rankward.training.fold import Checkpoint, EventRefusedError, Fold, learns
from rankward.vw import bins
from rankward.vw.arguments import ProblemType, problem_type_of
from rankward.vw.parser import Lesson
from rankward.vw.presets import PRESETS, derive_interactions, namespace_letters
from rankward.vw.rates import (
    EVENTS_MAX,
    EVENTS_MIN,
    SETTLED,
    SETTLED_US,
    STEADY,
    choose_rate,
    measure,
    next_check,
)

logger = logging.getLogger(__name__)

VERSIONS_KEPT = 40
_READ = 500
_PAUSE_S = 0.05
_PAUSE_IDLE_S = 0.4  # at most, where nothing has come for a while: an idle loop should cost next to nothing
_CHECKPOINT_US = 30_000_000  # while catching up
_STATUS_US = 1_000_000
_IDLE_STATUS_US = 5_000_000  # where nothing has changed: each is a file that is written
_LETTER_SHARE = 0.01
_LETTERS_LOOK = 16  # of a settled epoch, one event in so many is looked at
_DAY_US = 86_400_000_000
_NUMBERS_SHOWN = 5  # of those that a reason names
_RATING = "rating"  # begins the name of a note that stands while the rate is put to the test
_SIDES = (0, 1)  # of what `namespace_letters` returns: the context, the actions


class Mark(Protocol):
    """Where another process can read which event the learner was given last, even if this one has died."""

    def set(self, interaction: Offset) -> None:
        """The learner is given this interaction now."""

    def clear(self) -> None:
        """The learner has come back."""


class TrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far an epoch's training has come."""

    epoch_id: int
    joined_offset: Offset
    joined_end: Offset
    learned: int
    rate_per_s: float  # over the last stretch
    time_us: TimeUs  # of this status


class TrainingService:
    """Trains one epoch until it is retired or told to stop."""

    def __init__(
        self,
        loop_name: str,
        epoch_id: int,
        *,
        log: EventLog,
        joined: JoinedLog,
        catalog: Catalog,
        models: ModelStore,
        board: Board,
        mark: Mark,
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
    ) -> None:
        self._name = loop_name
        self._epoch_id = epoch_id
        self._log = log
        self._joined = joined
        self._catalog = catalog
        self._models = models
        self._board = board
        self._mark = mark
        self._clock = clock
        self._timer = timer
        self._loop: Loop = catalog.loop(loop_name)
        self._change_mark = -1
        self._published_learned = 0
        self._published_us = 0  # by the timer
        self._status_us = 0  # by the timer
        self._status_learned = 0
        self._status_offset: Offset | None = None
        self._new_letters: Counter[tuple[int, str]] = Counter()  # by side and letter
        self._rate_check = 0  # events learned after which the rate is put to the test
        self._numbers_check = bins.EVENTS_MIN  # events learned after which numbers without intervals are looked for

    async def run(self, stop: asyncio.Event) -> None:
        """Learn what there is, wait for more, publish in between; until the epoch is retired or `stop` is set."""
        self._mark.clear()  # what it says is of a process that is no more, and has been read
        self._rate_check = self._broken_check()
        while not stop.is_set():
            epoch = self._active()
            if epoch is None:
                break
            try:
                await self._train(epoch, stop)
            except EventRefusedError as error:
                self._catalog.set_aside(
                    SetAside(
                        loop_id=self._loop.loop_id,
                        interaction=error.event.entry.interaction,
                        event_id=error.event.interaction.event_id,
                        reason=error.reason,
                        time_us=self._clock(),
                    )
                )
        for note in ("training", _RATING):
            self._board.take_down(self._loop.loop_id, f"{note}-{self._epoch_id}")

    def _active(self) -> Epoch | None:
        """Read the loop and the epoch anew. None: the epoch is retired, or the loop deleted."""
        self._change_mark = self._catalog.change_mark()
        loop = self._catalog.loop(self._name)
        if loop.loop_id != self._loop.loop_id:
            return None  # deleted, and another made under its name
        self._loop = loop
        return next((e for e in self._catalog.epochs(self._loop.loop_id) if e.epoch_id == self._epoch_id), None)

    async def _train(self, epoch: Epoch, stop: asyncio.Event) -> None:
        exploration = self._loop.settings.exploration
        checkpoint = await self._latest_checkpoint(epoch)
        offset = checkpoint.joined_offset
        fold: Fold | None = None
        read_at: int | None = None  # the joined log's change mark before it was last read to its end
        pause_s = _PAUSE_S
        try:
            while not stop.is_set():
                if self._catalog.change_mark() != self._change_mark:
                    active = self._active()
                    if active is None:
                        return
                    epoch = active
                    if fold is not None and exploration != self._loop.settings.exploration:
                        exploration = self._loop.settings.exploration
                        fold.explore(exploration)
                mark = self._joined.change_mark()
                found: list[JoinedEvent] = []
                if mark != read_at:
                    start = offset
                    found, offset = await read_joined(self._log, self._joined, start, limit=_READ)
                    pause_s = _PAUSE_S
                    if offset == start:
                        read_at = mark
                events = [event for event in found if learns(epoch, event)]
                caught_up_before = epoch.state != "serving" and checkpoint.learned and not found
                if fold is None and (events or caught_up_before):
                    epoch = await self._settle(epoch, events, checkpoint.joined_offset)
                    fold = self._open(epoch, checkpoint)
                if fold is not None:
                    self._learn(fold, found)
                    fold.offset = max(fold.offset, offset)
                    self._publish_if_due(epoch, fold, caught_up=not found)
                    if events:
                        self._watch_letters(epoch, fold, events)
                    await self._watch_numbers(epoch, fold)
                    await self._watch_rate(epoch, fold)
                await self._post_status(fold, offset)
                if not found:
                    await _wait(stop, min(pause_s, max(_PAUSE_S, self._publishing_in_us(epoch, fold) / 1_000_000)))
                    pause_s = min(_PAUSE_IDLE_S, 2 * pause_s)
            if fold is not None and fold.learned > self._published_learned:
                self._publish(epoch, fold, serve=epoch.state == "serving")
        finally:
            if fold is not None:
                fold.close()

    def _open(self, epoch: Epoch, checkpoint: Checkpoint) -> Fold:
        set_aside = {event.interaction for event in self._catalog.set_asides(self._loop.loop_id)}
        return Fold(epoch, checkpoint, exploration=self._loop.settings.exploration, set_aside=set_aside)

    def _learn(self, fold: Fold, events: Sequence[JoinedEvent]) -> None:
        try:
            for event in events:
                fold.take(event, before=self._note)
        finally:
            self._mark.clear()

    def _note(self, interaction: Offset | None) -> None:
        if interaction is None:
            self._mark.clear()
        else:
            self._mark.set(interaction)

    async def _latest_checkpoint(self, epoch: Epoch) -> Checkpoint:
        """Find where to go on: the newest version that training can go on from exactly, or the epoch's start."""
        versions = self._catalog.versions(self._loop.loop_id)
        of_epoch = [version for version in versions if version.epoch_id == epoch.epoch_id]
        last_us = of_epoch[0].created_us if of_epoch else epoch.created_us
        self._published_us = self._timer() - max(0, self._clock() - last_us)
        for version in sorted(of_epoch, key=lambda version: -version.joined_offset):
            if version.resumable:
                self._published_learned = max(self._published_learned, version.learned)
                return Checkpoint(
                    joined_offset=version.joined_offset,
                    learned=version.learned,
                    learned_to_us=version.learned_to_us,
                    model=self._models.get(self._loop.loop_id, version.model_id),
                )
        start = epoch.start if epoch.start is not None else await first_due(self._joined, epoch.since_us)
        model = None if epoch.base is None else self._models.get(self._loop.loop_id, epoch.base)
        return Checkpoint(joined_offset=start, learned=0, learned_to_us=0, model=model)

    async def _settle(self, epoch: Epoch, events: Sequence[JoinedEvent], start: Offset) -> Epoch:
        """Fix what the epoch depends on, durably, before its first event is learned."""
        settled = epoch
        if settled.start is None:
            settled = msgspec.structs.replace(settled, start=start)
        if settled.derives_interactions and settled.interactions is None:
            settled = msgspec.structs.replace(settled, interactions=interactions_of(events))
        if settled.derives_bins and settled.bins is None:
            first = await self._stretch(settled, start, start + bins.EVENTS_MAX)
            settled = msgspec.structs.replace(settled, bins=bins.settle(event.interaction for event in first))
        if settled != epoch:
            self._catalog.settle_epoch(settled)
        return settled

    def _publish_if_due(self, epoch: Epoch, fold: Fold, *, caught_up: bool) -> None:
        if epoch.state != "serving" and caught_up and fold.learned:
            self._publish(epoch, fold, serve=True)  # perhaps what was kept already when it had just got here
            return
        if self._publishing_in_us(epoch, fold) <= 0:
            self._publish(epoch, fold, serve=epoch.state == "serving")

    def _publishing_in_us(self, epoch: Epoch, fold: Fold | None) -> float:
        """Say when what is learned is due to be published: never, if there is nothing new."""
        if fold is None or fold.learned <= self._published_learned:
            return math.inf
        frequency_us = self._loop.settings.model_export_frequency.total_seconds() * 1_000_000
        every_us = frequency_us if epoch.state == "serving" else _CHECKPOINT_US
        return every_us - (self._timer() - self._published_us)

    def _publish(self, epoch: Epoch, fold: Fold, *, serve: bool) -> None:
        if not fold.exact and fold.turned is not None and fold.turned.learned:
            self._record(epoch, fold.turned, resumable=True, serve=False)
        self._record(epoch, fold.checkpoint(), resumable=fold.exact, serve=serve)
        self._published_learned = fold.learned
        self._published_us = self._timer()
        self._prune()

    def _record(self, epoch: Epoch, checkpoint: Checkpoint, *, resumable: bool, serve: bool) -> None:
        assert checkpoint.model is not None, "only what has been learned is published"
        kind = "" if resumable else "s"  # of an inexact learner, what serves and what it goes on from differ
        version = ModelVersion(
            model_id=f"{epoch.epoch_id}-{checkpoint.joined_offset}{kind}",
            loop_id=self._loop.loop_id,
            epoch_id=epoch.epoch_id,
            created_us=self._clock(),
            joined_offset=checkpoint.joined_offset,
            learned=checkpoint.learned,
            learned_to_us=checkpoint.learned_to_us,
            policy=epoch.policy,
            interactions=epoch.interactions,
            rate=epoch.rate,
            bins=epoch.bins,
            resumable=resumable,
            size_bytes=len(checkpoint.model),
            digest=hashlib.sha256(checkpoint.model).hexdigest(),
        )
        self._models.put(self._loop.loop_id, version.model_id, checkpoint.model)
        self._catalog.publish(version, serve=serve)

    def _prune(self) -> None:
        """Forget old versions, but never the serving one, nor the last that training can go on from."""
        versions = self._catalog.versions(self._loop.loop_id)
        keep = {self._catalog.loop(self._name).model_id}
        for epoch in self._catalog.epochs(self._loop.loop_id):
            keep.add(epoch.base)
            resumable = [v for v in versions if v.epoch_id == epoch.epoch_id and v.resumable]
            keep.update(v.model_id for v in sorted(resumable, key=lambda v: -v.joined_offset)[:1])
        for version in versions[VERSIONS_KEPT:]:
            if version.model_id not in keep and self._catalog.forget_version(version.model_id, self._loop.loop_id):
                self._models.forget(self._loop.loop_id, version.model_id)

    def _watch_letters(self, epoch: Epoch, fold: Fold, events: Sequence[JoinedEvent]) -> None:
        """Start a new epoch when a namespace turns up that this one does not pair."""
        if epoch.interactions is None or epoch.state != "serving":
            return
        # Each pair has a letter of the context first, and one of an action second.
        known = {(side, pair[side]) for pair in epoch.interactions.pairs for side in _SIDES}
        if fold.learned > SETTLED and self._clock() - epoch.created_us < SETTLED_US:
            return
        step = 1 if fold.learned <= SETTLED else _LETTERS_LOOK
        for event in events[::step]:
            sides = _letters_of(event)
            letters = {(side, letter) for side in _SIDES for letter in sides[side]} - known
            for letter in letters:
                self._new_letters[letter] += step
        enough = {letter for letter, count in self._new_letters.items() if count >= _LETTER_SHARE * fold.learned}
        context, action = (frozenset(letter for at, letter in known | enough if at == side) for side in _SIDES)
        interactions = Interactions(*derive_interactions(context, action))
        if set(interactions.pairs) == set(epoch.interactions.pairs):
            return  # without features of the context there is nothing to pair
        self._new_letters.clear()
        if any(each.state == "building" for each in self._catalog.epochs(self._loop.loop_id)):
            return  # to start another would end it before it has caught up, again and again
        # The interactions are not left to its first events: they are older than what started it, and may lack it.
        self._begin_anew(
            msgspec.structs.replace(epoch, interactions=interactions),
            f"features in a new namespace: {', '.join(sorted({letter for _, letter in enough}))}",
        )

    def _begin_anew(self, like: Epoch, reason: str) -> None:
        """Start an epoch that learns the log again, with what was derived for another.

        Where somebody changes the loop at this moment nothing is started: their epoch, or a later look, will see to it.
        """
        started = next_epoch(
            self._loop, now_us=self._clock(), reason=reason, days=max(1, self._loop.settings.model_retrain_days)
        )
        derived = msgspec.structs.replace(started, interactions=like.interactions, rate=like.rate, bins=like.bins)
        with contextlib.suppress(Conflict):
            self._catalog.update_loop(self._loop, epoch=derived)

    async def _watch_numbers(self, epoch: Epoch, fold: Fold) -> None:
        """Start a new epoch when there are numbers that have no intervals yet, and could: see `vw.bins`."""
        if not epoch.derives_bins or epoch.bins is None or fold.learned < self._numbers_check:
            return
        if self._must_wait(epoch, fold):
            return
        self._numbers_check = 2 * fold.learned
        newest = await self._newest(epoch, fold, bins.EVENTS_MAX)
        found = bins.settle(event.interaction for event in newest)
        if lacking := bins.lacks(epoch.bins, found):
            shown = ", ".join(lacking[:_NUMBERS_SHOWN]) + (", …" if len(lacking) > _NUMBERS_SHOWN else "")
            self._begin_anew(msgspec.structs.replace(epoch, bins=found), f"numbers to cut into intervals: {shown}")

    def _must_wait(self, epoch: Epoch, fold: Fold) -> bool:
        """Whether an epoch is not to be replaced now: it has settled and is young, or another is being built."""
        if fold.learned > SETTLED and self._clock() - epoch.created_us < SETTLED_US:
            return True
        others = (each for each in self._catalog.epochs(epoch.loop_id) if each.epoch_id != epoch.epoch_id)
        return any(each.state == "building" for each in others)  # it decides for itself

    async def _watch_rate(self, epoch: Epoch, fold: Fold) -> None:
        """Start a new epoch when the newest events ask for another rate of learning: see `vw.rates`."""
        rated = next_check(epoch.rate.learned if epoch.rate is not None else 0)
        if not epoch.derives_rate or fold.learned < max(rated, self._rate_check):
            return
        if self._must_wait(epoch, fold):
            return
        self._rate_check = next_check(fold.learned)
        lessons = await newest_lessons(self._log, self._joined, fold.lessons, start=epoch.start or 0, end=fold.offset)
        if len(lessons) < EVENTS_MIN:
            return  # the log does not hold them any more
        note = f"{_RATING}-{epoch.epoch_id}"
        self._board.post(epoch.loop_id, note, msgspec.json.encode(fold.learned))
        errors = measure(epoch.policy, epoch.interactions, lessons, epoch.bins)
        self._board.take_down(epoch.loop_id, note)
        rate = choose_rate(errors, epoch.rate, learned=fold.learned)
        if rate is None:
            return
        self._begin_anew(
            msgspec.structs.replace(epoch, rate=rate),
            f"rewards are mostly {'noise' if rate.name == STEADY else 'explained by features'}: "
            f"{rate.name} learning predicts them better",
        )

    async def _newest(self, epoch: Epoch, fold: Fold, count: int) -> list[JoinedEvent]:
        """Read those of the newest events that the epoch has learned, oldest first."""
        found = await self._stretch(epoch, max(fold.offset - count, epoch.start or 0), fold.offset)
        return [event for event in found if fold.wants(event)]

    async def _stretch(self, epoch: Epoch, offset: Offset, end: Offset) -> list[JoinedEvent]:
        """Read the joined events from one offset to before another that the epoch's learner can use."""
        found: list[JoinedEvent] = []
        while offset < end:
            events, following = await read_joined(self._log, self._joined, offset, limit=min(_READ, end - offset))
            if following == offset:
                break
            offset = following
            found += [event for event in events if learns(epoch, event)]
        return found

    def _broken_check(self) -> int:
        """Say when the rate is put to the test again, in learned events, if the process before this one ended in that.

        Else this one would, too, and every one after it. 0: it did not.
        """
        note = self._board.read(self._loop.loop_id).get(f"{_RATING}-{self._epoch_id}")
        if note is None:
            return 0
        learned = msgspec.json.decode(note, type=int)
        logger.error("epoch %d: the trainer ended while it put the rate to the test, at %d", self._epoch_id, learned)
        return next_check(learned)

    async def _post_status(self, fold: Fold | None, offset: Offset) -> None:
        passed_us = self._timer()
        learned = fold.learned if fold else 0
        is_told = (learned, offset) == (self._status_learned, self._status_offset)
        if passed_us - self._status_us < (_IDLE_STATUS_US if is_told else _STATUS_US):
            return
        elapsed_s = (passed_us - self._status_us) / 1_000_000
        status = TrainingStatus(
            epoch_id=self._epoch_id,
            joined_offset=offset,
            joined_end=(await self._joined.extent())[1],
            learned=learned,
            rate_per_s=(learned - self._status_learned) / elapsed_s if self._status_us else 0.0,
            time_us=self._clock(),
        )
        self._board.post(self._loop.loop_id, f"training-{self._epoch_id}", msgspec.json.encode(status))
        self._status_us, self._status_learned, self._status_offset = passed_us, learned, offset


async def newest_lessons(
    log: EventLog,
    joined: JoinedLog,
    lessons_of: Callable[[Sequence[JoinedEvent]], list[Lesson]],
    *,
    start: Offset,
    end: Offset,
) -> list[Lesson]:
    """Read the newest events that an epoch has learned, oldest first: as many as a rate is chosen by.

    Args:
        log: the loop's event log.
        joined: its joined log.
        lessons_of: picks what the epoch has learned out of events.
        start: in the joined log, from where on it learns.
        end: the next joined event to learn.
    """
    offset = max(end - EVENTS_MAX, start)
    lessons: list[Lesson] = []
    while offset < end:
        events, following = await read_joined(log, joined, offset, limit=_READ)
        if following == offset:
            break
        offset = following
        lessons += lessons_of([event for event in events if event.offset < end])
    return lessons


def interactions_of(events: Sequence[JoinedEvent]) -> Interactions:
    """Derive interactions from the namespaces of an epoch's first events."""
    found = [_letters_of(event) for event in events]
    context = frozenset().union(*(of_context for of_context, _ in found))
    action = frozenset().union(*(of_action for _, of_action in found))
    return Interactions(*derive_interactions(context, action))


def _letters_of(event: JoinedEvent) -> tuple[frozenset[str], frozenset[str]]:
    """Name an event's namespaces; none, if its features are broken: the learner will say so of it."""
    try:
        interaction = event.interaction
        slots = interaction.slots if isinstance(interaction, MultiSlotInteraction) else ()
        return namespace_letters(interaction.context, interaction.actions, slots)
    except (msgspec.DecodeError, RecursionError):
        return frozenset(), frozenset()


def next_epoch(
    loop: Loop, *, now_us: TimeUs, reason: str, days: int | None = None, since_us: TimeUs | None = None
) -> Epoch:
    """Describe the epoch that a loop's settings ask for.

    Args:
        loop: with the settings that it shall have.
        now_us: when it starts.
        reason: what for, for people.
        days: how far back it learns; None: as far as the loop's `model_retrain_days` say.
        since_us: how far back it learns, as a moment, whatever `days` say; None: they count.
    """
    settings = loop.settings
    if since_us is None:
        since_us = now_us - (settings.model_retrain_days if days is None else days) * _DAY_US
    return Epoch(
        epoch_id=0,
        loop_id=loop.loop_id,
        state="building",
        reason=reason,
        created_us=now_us,
        policy=settings.policy,
        derives_interactions=settings.preset is not None and PRESETS[settings.preset].derives_interactions,
        derives_rate=settings.preset is not None
        and PRESETS[settings.preset].derives_rate
        and problem_type_of(settings.policy) is ProblemType.SINGLE_SLOT,
        derives_bins=settings.numbers is Numbers.BINS,
        default_reward=settings.default_reward,
        reward_aggregation=settings.reward_aggregation,
        since_us=since_us,
        history_since_us=since_us,
        first_interaction=loop.forgotten_before,
    )


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
