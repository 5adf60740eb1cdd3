"""Rows about figures: how fast they are kept, and that reading them does not depend on the log's length."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks.installation import scratch
from benchmarks.report import Row, at_most, milliseconds
from rankward.loops import new_loop_settings
from rankward.records import Action, Features, Interaction, JoinedEntry, JoinedEvent, JoinedObservation, LearningMode
from rankward.store.ports import Loop
from rankward.store.rollups import RollupStep
from rankward.watching.comparison import ComparingState
from rankward.watching.fold import DAY_US, HOUR_US, Basis, Fold, State
from rankward.wiring import Home

SPAN_US = 7 * DAY_US
END_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
_ACTIONS = tuple(Action(f"a{k}", Features(b"[]")) for k in range(10))
_PMF = (0.82, *(0.02 for _ in range(9)))
_BATCH = 5_000


def figures(quick: bool) -> Iterator[Row]:
    """What a page of a loop asks for, with 10 thousand events in the log and with a hundred times as many."""
    many = 100_000 if quick else 1_000_000
    with scratch() as folder:
        home = Home(folder, clock=lambda: END_US)
        few, lots = (home.loops.create(name, new_loop_settings()) for name in ("few", "lots"))
        _tell(home, few, 10_000)
        rate = _tell(home, lots, many)
        yield Row("figures kept, 10 actions", f"{rate:,.0f} events for a second of one core", "", "", "", None)
        times: dict[str, list[float]] = {few.name: [], lots.name: []}
        for _ in range(5 if quick else 15):
            for loop in (few, lots):
                times[loop.name].append(_open_page(home, loop))
        home.close()
    yield Row(
        f"a loop's page: {many:,} events against 10,000",
        milliseconds(times["lots"]),
        milliseconds(times["few"]),
        *at_most(median(times["lots"]), median(times["few"]), 1.2),
    )


def _tell(home: Home, loop: Loop, count: int) -> float:
    """Fold so many events of a week. Returns how many for each second of one core."""
    rng = random.Random(1)
    fold = Fold(State(basis=Basis.of(loop.settings), erasures=0, offset=0, comparing=ComparingState(since_us=0)))
    rollups = home.rollups(loop.loop_id)
    written = None
    taken_s = 0.0
    for start in range(0, count, _BATCH):
        events = [_event(number, count, rng) for number in range(start, min(count, start + _BATCH))]
        begun = time.process_time()
        wanted = fold.needs(events, END_US)
        fold.load(wanted, rollups.get(wanted))
        for event in events:
            fold.take(event, END_US)
        state = fold.encoded_state()
        rollups.commit(RollupStep(over=written, state=state, rows=fold.rows()))
        written = state
        taken_s += time.process_time() - begun
    rollups.close()
    return count / taken_s


def _event(number: int, count: int, rng: random.Random) -> JoinedEvent:
    time_us = END_US - SPAN_US + number * (SPAN_US // count)
    chosen = 0 if rng.random() < _PMF[0] else rng.randrange(1, 10)
    observed: Sequence[JoinedObservation] = ()
    if rng.random() < 0.5:
        observed = (JoinedObservation(number, time_us, 1.0),)
    interaction = Interaction(
        event_id=f"e{number}",
        context=Features(b"[]"),
        actions=_ACTIONS,
        pmf=_PMF,
        chosen=chosen,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1,
        model_id=f"1-{number // 10_000}",
    )
    return JoinedEvent(number, JoinedEntry(number, time_us, time_us + 1, tuple(observed)), interaction)


def _open_page(home: Home, loop: Loop) -> float:
    """Ask for what a loop's page shows. Returns the time of one core that it took, in milliseconds."""
    begun = time.process_time()
    figures = home.figures()
    figures.series(loop, from_us=END_US - DAY_US, to_us=END_US)
    figures.series(loop, from_us=END_US - SPAN_US, to_us=END_US, step_us=HOUR_US)
    figures.actions(loop, from_us=END_US - DAY_US, to_us=END_US)
    figures.comparison(loop)
    figures.exploration(loop)
    return (time.process_time() - begun) * 1e3
