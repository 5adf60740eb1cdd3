"""What a loop earns and earned, for whoever asks: portal, doctor, commands and metrics.

Everything is read from rows that the worker keeps by stretches of a minute to a day, the coarsest that tell what is
asked for. So an answer costs by the number of stretches that it has, whatever the length of the log and however many
events a minute has, and is as fresh as `status` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing

import msgspec

from rankward.errors import InvalidRequest
from rankward.evaluation.judge import RewardRange
from rankward.records import ModelId, TimeUs
from rankward.store.ports import Board, Loop
from rankward.store.rollups import Place, Rollups
from rankward.watching.apprentice import BLOCK_EVENTS, WINDOW_BLOCKS, Apprenticeship, apprenticeship
from rankward.watching.comparison import Comparing, ComparingState, LiveComparison, since_of
from rankward.watching.estimate import Estimated, estimate, estimate_shown
from rankward.watching.exploration import Exploration, exploration
from rankward.watching.fold import (
    ACTION_STEPS_US,
    APPRENTICE,
    DAY_US,
    HOUR_US,
    MINUTE_US,
    STEPS_US,
    decode_actions,
    decode_block,
    decode_state,
    decode_tally,
    horizon_us,
)
from rankward.watching.service import NOTE, WatchingStatus
from rankward.watching.tally import ActionTallies, ActionTally, Tally

POINTS = 240  # about as many stretches as a chart of default step has at the most
POINTS_MAX = 3_000
_HOURS_READ = 72  # of actions: a longer span is answered by days
_NICE_US = (
    *(n * MINUTE_US for n in (1, 2, 5, 10, 20, 30)),
    *(n * HOUR_US for n in (1, 2, 3, 6, 12)),
    *(n * DAY_US for n in (1, 2, 7, 14, 28)),
)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one stretch of time, by the time of decisions. Stretches begin at multiples of their length.

    Each estimate is None where no event of the stretch judges that policy.
    """

    at_us: TimeUs  # when it begins
    events: int  # joined, and shown: neither waiting nor deferred and never activated
    skipped: int  # deferred and never activated
    defaulted: int  # of which nothing was observed: their reward is the default
    unusable: int  # whose probabilities cannot be true: they are in `earned` only
    outside: int  # with a reward outside reward_min to reward_max
    matched: float  # in which the baseline was drawn
    preferred: float  # in which no action was likelier than the baseline
    modes: dict[str, int]  # events by learning mode
    models: dict[ModelId, int]  # events by model; "": before any; "…": of more models than are told apart
    earned: Estimated | None  # of what was shown, in whatever mode
    online: Estimated | None  # of what the loop chose in online mode
    baseline: Estimated | None  # of the first action that was not excluded
    uniform: Estimated | None  # of choosing by chance


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A loop over a span of time."""

    from_us: TimeUs  # the span, widened to whole stretches
    to_us: TimeUs  # exclusive
    step_us: int  # length of a stretch
    points: tuple[Point, ...]  # ascending; stretches without an event are left out
    total: Point  # over the whole span


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How much happened in one stretch of time, as in `Point`."""

    at_us: TimeUs
    events: int
    defaulted: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Series` says of numbers of events, without judging what they earned."""

    from_us: TimeUs
    to_us: TimeUs
    step_us: int
    points: tuple[Count, ...]


class ActionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one action in a span of time."""

    action_id: str
    offered: int  # times that it could have been chosen, slot by slot
    chosen: int  # times that it was drawn
    shown: int  # times that it was shown: what was drawn, or the baseline
    probability: float  # mean over the times that it was offered, within [0, 1]
    reward: Estimated | None  # mean over the times that it was shown; None: never
    newest_us: TimeUs  # of the newest decision that offered it


class ActionBoard(msgspec.Struct, frozen=True, kw_only=True):
    """The actions of a loop in a span of time."""

    from_us: TimeUs
    to_us: TimeUs
    actions: tuple[ActionRow, ...]  # those shown most come first
    left_out: int  # actions that are told apart, and beyond the limit that was asked for
    others: ActionRow | None  # those not told apart, together, without an id; None: all are


class ActionPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One action in one stretch of time in which it was offered."""

    at_us: TimeUs
    offered: int
    chosen: int
    shown: int
    probability: float  # mean over the times that it was offered
    reward: float | None  # mean over the times that it was shown; None: never


class Figures:
    """Reads what is known of loops."""

    def __init__(self, open_rollups: Callable[[str], Rollups], board: Board, clock: Callable[[], TimeUs]) -> None:
        """Prepare; nothing is opened before it is asked for.

        Args:
            open_rollups: opens a loop's rows, by loop id.
            board: where the worker's processes leave word.
            clock: the time.
        """
        self._open_rollups = open_rollups
        self._board = board
        self._clock = clock

    def status(self, loop: Loop) -> WatchingStatus | None:
        """Tell how far the figures of a loop go. None: nobody has kept any yet."""
        note = self._board.read(loop.loop_id).get(NOTE)
        return None if note is None else msgspec.json.decode(note, type=WatchingStatus)

    def series(self, loop: Loop, *, from_us: TimeUs, to_us: TimeUs, step_us: int | None = None) -> Series:
        """Tell what a loop earned over time.

        Args:
            loop: as the catalog has it: its reward range is that of the estimates.
            from_us: the beginning, of decisions.
            to_us: the end, exclusive.
            step_us: length of a stretch, a multiple of a minute; None: a length that gives a chart's worth of
                stretches. Minutes are kept for two days and hours for 90: where the span begins earlier, longer
                stretches are answered.

        Raises:
            InvalidRequest: the span is empty, or has too many stretches of this length.
        """
        series, step_us = _drawable(STEPS_US, from_us, to_us, step_us, self._clock())
        from_us, to_us = _whole(from_us, to_us, step_us)
        rewards = _range_of(loop)
        tallies = self._tallies(loop, series, from_us, to_us, step_us)
        total = Tally()
        for tally in tallies.values():
            total.merge(tally)
        return Series(
            from_us=from_us,
            to_us=to_us,
            step_us=step_us,
            points=tuple([_point(at, tally, rewards) for at, tally in tallies.items()]),
            total=_point(from_us, total, rewards),
        )

    def counts(self, loop: Loop, *, from_us: TimeUs, to_us: TimeUs) -> Counts:
        """Tell how many events a loop had over time, by the stretches that `series` has.

        Raises:
            InvalidRequest: the span is empty.
        """
        series, step_us = _drawable(STEPS_US, from_us, to_us, None, self._clock())
        from_us, to_us = _whole(from_us, to_us, step_us)
        tallies = self._tallies(loop, series, from_us, to_us, step_us)
        points = [Count(at_us=at, events=each.events, defaulted=each.defaulted) for at, each in tallies.items()]
        return Counts(from_us=from_us, to_us=to_us, step_us=step_us, points=tuple(points))

    def total(self, loop: Loop, *, from_us: TimeUs, to_us: TimeUs) -> Point:
        """Tell the same as the total of `series`, from a few rows: what is in the midst of the span is read by the day.

        Raises:
            InvalidRequest: the span is empty.
        """
        series, step_us = _drawable(STEPS_US, from_us, to_us, None, self._clock())
        from_us, to_us = _whole(from_us, to_us, step_us)
        with closing(self._open_rollups(loop.loop_id)) as rollups:
            total, _ = _added(rollups, series, from_us, to_us)
        return _point(from_us, total, _range_of(loop))

    def _tallies(self, loop: Loop, series: str, from_us: TimeUs, to_us: TimeUs, step_us: int) -> dict[TimeUs, Tally]:
        """Read the stretches of a span, ascending by when they begin."""
        tallies = dict[TimeUs, Tally]()
        for at, body in self._read(loop, series, from_us, to_us):
            tally = decode_tally(body)
            begin = at // step_us * step_us
            if begin in tallies:
                tallies[begin].merge(tally)
            else:
                tallies[begin] = tally
        return tallies

    def comparison(self, loop: Loop) -> LiveComparison:
        """Tell whether the loop is better than its baseline and than chance, beyond doubt.

        Unlike the estimates of `series`, these intervals may be looked at and acted on at any time: all of them are
        true at every look together, in all but 5 % of loops. They begin anew when a setting that matters to training
        is edited (`last_configuration_edit`: policy, preset, exploration, reward wait, default reward, aggregation) or
        the range of rewards is, and whenever the figures are taken anew. A model that is promoted, imported or
        deleted does not begin them anew.
        """
        with closing(self._open_rollups(loop.loop_id)) as rollups:
            body = rollups.state()
        state = None if body is None else decode_state(body)
        since_us = since_of(loop.settings)
        if state is None or state.comparing.since_us != since_us:  # no event has come since an edit
            return Comparing(ComparingState(since_us=since_us), _range_of(loop)).told()
        return Comparing(state.comparing, state.basis.rewards).told()

    def apprentice(self, loop: Loop, *, events: int = 50_000) -> Apprenticeship:
        """Tell how well an apprentice matches its baseline, in rolling windows of 1,000 events, and what to do.

        Args:
            loop: as the catalog has it.
            events: how far back the windows go, at least.
        """
        with closing(self._open_rollups(loop.loop_id)) as rollups:
            rows = rollups.newest(APPRENTICE, limit=-(-events // BLOCK_EVENTS) + WINDOW_BLOCKS)
        blocks = [decode_block(body) for _, body in rows]
        return apprenticeship(blocks, loop.settings.learning_mode, loop.name)

    def exploration(self, loop: Loop, *, from_us: TimeUs | None = None, to_us: TimeUs | None = None) -> Exploration:
        """Tell what a loop pays for exploring, and what would be better.

        Args:
            loop: as the catalog has it.
            from_us: the beginning of the span that is looked at, of decisions; None: a week before its end.
            to_us: its end, exclusive; None: now.

        Raises:
            InvalidRequest: the span is empty.
        """
        now_us = self._clock()
        to_us = now_us + 1 if to_us is None else to_us
        from_us = to_us - 7 * DAY_US if from_us is None else from_us
        series, step_us = _fitted(STEPS_US, from_us, to_us, HOUR_US, now_us)
        with closing(self._open_rollups(loop.loop_id)) as rollups:
            total, first = _added(rollups, series, *_whole(from_us, to_us, step_us))
            begin_us = from_us if first is None else _begin(rollups, series, first)
        rewards = _range_of(loop)
        online = estimate(total.online, rewards)
        return exploration(
            total.exploring,
            None if online is None else online.value,
            rewards,
            span_us=min(to_us, now_us + 1) - max(begin_us, from_us // step_us * step_us),
        )

    def actions(self, loop: Loop, *, from_us: TimeUs, to_us: TimeUs, limit: int = 50) -> ActionBoard:
        """Tell what became of a loop's actions in a span of time, widened to whole hours or, where longer, days.

        Args:
            loop: as the catalog has it.
            from_us: the beginning, of decisions.
            to_us: the end, exclusive.
            limit: how many actions to list.

        Raises:
            InvalidRequest: the span is empty.
        """
        wanted_us = DAY_US if to_us - from_us > _HOURS_READ * HOUR_US else HOUR_US
        series, step_us = _fitted(ACTION_STEPS_US, from_us, to_us, wanted_us, self._clock())
        from_us, to_us = _whole(from_us, to_us, step_us)
        total = ActionTallies()
        for _, body in self._read(loop, series, from_us, to_us):
            total.merge(decode_actions(body))
        rewards = _range_of(loop)
        ranked = sorted(total.known.items(), key=lambda item: (-item[1].shown, -item[1].offered, item[0]))
        return ActionBoard(
            from_us=from_us,
            to_us=to_us,
            actions=tuple([_row(action_id, tally, rewards) for action_id, tally in ranked[:limit]]),
            left_out=max(0, len(ranked) - limit),
            others=_row("", total.others, rewards) if total.others.offered else None,
        )

    def action_series(
        self, loop: Loop, action_ids: Collection[str], *, from_us: TimeUs, to_us: TimeUs, step_us: int | None = None
    ) -> dict[str, tuple[ActionPoint, ...]]:
        """Tell what became of some actions over time: by action id, ascending, where they were offered.

        Args:
            loop: as the catalog has it.
            action_ids: of the actions.
            from_us: the beginning, of decisions.
            to_us: the end, exclusive.
            step_us: length of a stretch, a whole number of hours; None: a length that gives a chart's worth of
                stretches. Hours are kept for 14 days: where the span begins earlier, longer stretches are answered.

        Raises:
            InvalidRequest: the span is empty, or has too many stretches of this length.
        """
        series, step_us = _drawable(ACTION_STEPS_US, from_us, to_us, step_us, self._clock())
        from_us, to_us = _whole(from_us, to_us, step_us)
        found: dict[str, dict[TimeUs, ActionTally]] = {action_id: {} for action_id in action_ids}
        for at, body in self._read(loop, series, from_us, to_us):
            known = decode_actions(body).known
            for action_id, tallies in found.items():
                if action_id in known:
                    tallies.setdefault(at // step_us * step_us, ActionTally()).merge(known[action_id])
        return {
            action_id: tuple([_action_point(at, tally) for at, tally in sorted(tallies.items())])
            for action_id, tallies in found.items()
        }

    def _read(self, loop: Loop, series: str, from_us: TimeUs, to_us: TimeUs) -> Sequence[tuple[int, bytes]]:
        with closing(self._open_rollups(loop.loop_id)) as rollups:
            return rollups.read(series, from_us, to_us)


def _fitted(
    steps_us: Mapping[str, int], from_us: TimeUs, to_us: TimeUs, step_us: int | None, now_us: TimeUs
) -> tuple[str, int]:
    """Choose the series to read, and the length of a stretch: the one that was asked for, or the next that is kept."""
    if to_us <= from_us:
        raise InvalidRequest(
            "the span is empty: its end must be after its beginning", code="InvalidRequest", target="from"
        )
    finest_us = min(steps_us.values())
    if step_us is None:
        wide = [each for each in _NICE_US if each >= finest_us]
        step_us = next((each for each in wide if (to_us - from_us) / each <= POINTS), wide[-1])
    if step_us <= 0 or step_us % finest_us:
        raise InvalidRequest(
            f"a step of {step_us / 1e6:g} s is no multiple of {finest_us // 1_000_000} s: use one",
            code="InvalidRequest",
            target="step",
        )
    fits = [(series, base_us) for series, base_us in steps_us.items() if step_us % base_us == 0]
    series, _ = max(fits, key=lambda each: each[1])
    if from_us < horizon_us(series, now_us):
        kept = [(name, base_us) for name, base_us in steps_us.items() if from_us >= horizon_us(name, now_us)]
        series, base_us = min(kept, key=lambda each: each[1])
        step_us = -(-step_us // base_us) * base_us
    return series, step_us


def _drawable(
    steps_us: Mapping[str, int], from_us: TimeUs, to_us: TimeUs, step_us: int | None, now_us: TimeUs
) -> tuple[str, int]:
    """Choose as `_fitted` does, and refuse what nobody could draw."""
    series, step_us = _fitted(steps_us, from_us, to_us, step_us, now_us)
    if (to_us - from_us) / step_us > POINTS_MAX:
        raise InvalidRequest(
            f"{(to_us - from_us) // step_us} stretches of {step_us // 1_000_000} s are more than {POINTS_MAX}: "
            "ask for a longer step, or a shorter span",
            code="InvalidRequest",
            target="step",
        )
    return series, step_us


def _whole(from_us: TimeUs, to_us: TimeUs, step_us: int) -> tuple[TimeUs, TimeUs]:
    return from_us // step_us * step_us, -(-to_us // step_us) * step_us


def _added(rollups: Rollups, series: str, from_us: TimeUs, to_us: TimeUs) -> tuple[Tally, Place | None]:
    """Add up a span of whole stretches of a series, from as few rows as hold it.

    Returns:
        The sum, and the first row, which may be of a coarser series. None: there are no rows.
    """
    total, first = Tally(), None
    steps = [(name, step_us) for name, step_us in STEPS_US.items() if step_us >= STEPS_US[series]]
    for part, start, end in _parts(steps, from_us, to_us):
        for at, body in rollups.read(part, start, end):
            total.merge(decode_tally(body))
            first = first or Place(part, at)
    return total, first


def _parts(steps: Sequence[tuple[str, int]], from_us: TimeUs, to_us: TimeUs) -> Iterator[tuple[str, TimeUs, TimeUs]]:
    """Split a span into parts of one series each, ascending: the coarsest series in the midst, finer ones at the ends.

    Args:
        steps: the series, with the length of a stretch, ascending: each a multiple of the one before.
        from_us: the beginning of the span, which is of whole stretches of the finest series.
        to_us: its end.
    """
    if from_us >= to_us:
        return
    *finer, (series, step_us) = steps
    start, end = -(-from_us // step_us) * step_us, to_us // step_us * step_us
    if start < end:
        yield from _parts(finer, from_us, start)
        yield series, start, end
        yield from _parts(finer, end, to_us)
    else:
        yield from _parts(finer, from_us, to_us)


def _begin(rollups: Rollups, series: str, first: Place) -> TimeUs:
    """Find when the first stretch of a series begins of those that a row of a coarser one holds, or of this one."""
    rows = rollups.read(series, first.at, first.at + STEPS_US[first.series])
    return rows[0][0] if rows else first.at


def _range_of(loop: Loop) -> RewardRange:
    return RewardRange(loop.settings.reward_min, loop.settings.reward_max)


def _point(at_us: TimeUs, tally: Tally, rewards: RewardRange) -> Point:
    return Point(
        at_us=at_us,
        events=tally.events,
        skipped=tally.skipped,
        defaulted=tally.defaulted,
        unusable=tally.unusable,
        outside=tally.outside,
        matched=tally.matched,
        preferred=tally.preferred,
        modes=tally.modes,
        models=tally.models,
        earned=estimate(tally.earned, rewards),
        online=estimate(tally.online, rewards),
        baseline=estimate(tally.baseline, rewards),
        uniform=estimate(tally.uniform, rewards),
    )


def _row(action_id: str, tally: ActionTally, rewards: RewardRange) -> ActionRow:
    return ActionRow(
        action_id=action_id,
        offered=tally.offered,
        chosen=tally.chosen,
        shown=tally.shown,
        probability=tally.probability / tally.offered,
        reward=estimate_shown(tally, rewards),
        newest_us=tally.newest_us,
    )


def _action_point(at_us: TimeUs, tally: ActionTally) -> ActionPoint:
    return ActionPoint(
        at_us=at_us,
        offered=tally.offered,
        chosen=tally.chosen,
        shown=tally.shown,
        probability=tally.probability / tally.offered,
        reward=tally.rewards / tally.shown if tally.shown else None,
    )
