"""A row about the portal: whether the pages of a loop open as fast with a long log as with a short one."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
from starlette.applications import Starlette

from benchmarks.installation import scratch
from benchmarks.report import Row, at_most, milliseconds
from rankward.api.service import Doors
from rankward.joining.service import JoiningService
from rankward.loops import new_loop_settings
from rankward.portal.app import portal
from rankward.portal.gate import Entrance
from rankward.ranking.features import FeatureBounds
from rankward.records import Action, Features, Interaction, LearningMode, Observation, Record, TimeUs
from rankward.settings import Limits
from rankward.store.ports import Loop
from rankward.watching.fold import DAY_US, MINUTE_US
from rankward.watching.rounds import watching_rounds
from rankward.wiring import Home

SPAN_US = 7 * DAY_US
END_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
FEW = 10_000
KEY = "the key of the benchmark"
PAGES = (
    *("card", "overview", "overview/live", "overview/rewards", "overview/events", "overview/rewards?span=90d"),
    *("decisions", "decisions/probabilities", "decisions/newest", "comparison", "apprentice", "features"),
    *("policy", "configuration", "logs", "evaluations", "start"),
)
"""What pages ask for, below the address of a loop: with their parts."""
_MINUTES = SPAN_US // MINUTE_US
_APART = 2 * DAY_US // MINUTE_US  # the last minutes, which are told apart
_TOGETHER = 10  # of those before
_LOOK_MINUTES = 100  # between two looks of the worker
_MODEL_MINUTES = 120  # that each model decides
_AT_ONCE = 4_000  # records that are appended together
_LOOK_US = 10_000_000  # between two rounds: nothing of the one before is fresh enough to be shown again


class _Clock:
    def __init__(self) -> None:
        self.now_us: TimeUs = END_US - SPAN_US

    def __call__(self) -> TimeUs:
        return self.now_us


def pages(quick: bool) -> Iterator[Row]:
    """All pages of a loop, with 10 thousand events of a week behind it and with a hundred times as many.

    What pages read are rows by stretches of time, so the two are compared over the same week, in which every minute has
    an event: a loop whose events all come at once has fewer stretches, and so less to show.
    """
    yield _compared(10 * FEW if quick else 100 * FEW, rounds=5 if quick else 15)


def pages_of_ten_million(quick: bool) -> Iterator[Row]:
    """The same with ten million events, which are half an hour in the making."""
    yield _compared(1_000 * FEW, rounds=5 if quick else 15)


def _compared(many: int, *, rounds: int) -> Row:
    with scratch() as folder:
        times = asyncio.run(_measure(folder, many, rounds=rounds))
    lots, few = ([sum(each.values()) for each in times[name]] for name in ("lots", "few"))
    return Row(
        f"{len(PAGES)} pages and parts of a loop: {many:,} events of a week against {FEW:,} of the same",
        milliseconds(lots),
        milliseconds(few),
        *at_most(median(lots), median(few), 1.2),
    )


async def _measure(folder: Path, many: int, *, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Take the milliseconds of one core that each page of two loops costs, again and again, in turn."""
    clock = _Clock()
    home = Home(folder, clock=clock)
    home.loops.set_key(None, 1, KEY)
    loops = {"few": FEW, "lots": many}
    for name, count in loops.items():
        clock.now_us = END_US - SPAN_US
        await _live(home, clock, home.loops.create(name, new_loop_settings()), count)
    clock.now_us = END_US
    watching = watching_rounds(home)
    while await watching.round():
        pass
    await watching.close()
    doors = Doors(home, limits=Limits(), bounds=FeatureBounds())
    await doors.follow()
    sessions = home.sessions()
    app = Starlette(routes=[portal(doors, sessions, Entrance())])
    times: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://benchmark") as browser:
        answer = await browser.post("/portal/sign-in", data={"key": KEY})
        assert answer.status_code == 303, answer.text
        for _ in range(rounds):
            clock.now_us += _LOOK_US
            for name, taken in times.items():
                taken.append({path: await _open(browser, f"/portal/loops/{name}/{path}") for path in PAGES})
    sessions.close()
    await doors.close()
    home.close()
    return times


async def _live(home: Home, clock: _Clock, loop: Loop, count: int) -> None:
    """Log a week of decisions and rewards, evenly, and join them as the worker does.

    Both loops have the same stretches of time to tell of, and as many models: only how much is in each is another.
    """
    rng = random.Random(1)
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    joining = JoiningService(log, joined, clock=clock)
    minutes = [*range(0, _MINUTES - _APART, _TOGETHER), *range(_MINUTES - _APART, _MINUTES + 1)]
    for minute, following in itertools.pairwise(minutes):
        numbers = range(*(-(-count * edge // _MINUTES) for edge in (minute, following)))
        clock.now_us = END_US - SPAN_US + minute * MINUTE_US
        decided = [_decision(each, f"1-{minute // _MODEL_MINUTES}", rng) for each in numbers]
        rewards = [Observation(event_id=each.event_id, value=1.0) for each in decided if rng.random() < 0.5]
        records: list[Record] = [*decided, *rewards]
        for begin in range(0, len(records), _AT_ONCE):
            await log.append(records[begin : begin + _AT_ONCE])
        if minute % _LOOK_MINUTES == 0:
            while await joining.step():
                pass
            await log.maintain(joined_before=await joining.joined_before(), keep_after_us=0)
    clock.now_us = END_US
    while await joining.step():
        pass
    await log.close()
    await joined.close()


def _decision(number: int, model_id: str, rng: random.Random) -> Interaction:
    pmf = (0.82, *(0.02 for _ in range(9)))
    return Interaction(
        event_id=f"e{number}",
        context=Features(b'[{"visitor":{"device":"phone","hour":9}}]'),
        actions=tuple([Action(f"a{each}", Features(b'[{"kind":"x"}]')) for each in range(10)]),
        pmf=pmf,
        chosen=0 if rng.random() < pmf[0] else rng.randrange(1, 10),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=60_000_000,
        model_id=model_id,
    )


async def _open(browser: httpx.AsyncClient, address: str) -> float:
    begun = time.process_time()
    answer = await browser.get(address, headers={"HX-Request": "true"})
    taken_ms = (time.process_time() - begun) * 1e3
    assert answer.status_code == 200, f"{address}: {answer.text[:300]}"
    return taken_ms
