"""Runs the demo's newspaper: pages for whoever asks and for a simulated crowd, through the service's own API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta

from rankward.api.service import Doors
from rankward.client.clients import AsyncClient
from rankward.decision import SlotsDecision
from rankward.demo.belief import Belief, believe, slots
from rankward.demo.board import Board, Mark, Point, worth
from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import PLACES, Device, Reader, Season, Time, actions, click_rates, draw_reader
from rankward.errors import InvalidRequest, Overloaded
from rankward.loops import new_loop_settings
from rankward.records import LearningMode
from rankward.telemetry import find_version
from rankward.vw.arguments import ProblemType
from rankward.vw.presets import BALANCED
from rankward.wiring import Home

if TYPE_CHECKING:
    from rankward.settings import LoopSettings

LOOP = "news"
REWARD_WAIT_S = 10
"""How long a front page can be clicked on and count: time enough for somebody to look at it."""
RATE_MAX = 50
"""Simulated readers a second, at most."""
_PATIENCE_S = 60.0  # of whoever waits for a page, also on a machine that has much else to do
_AT_ONCE = 16  # simulated readers
_UNWATCHED_S = 60.0  # nobody comes to a demo that nobody has looked at for so long
_SEEN = 8  # of the crowd's visits that are told of
_AGREES = 0.8  # share of places from which on an apprentice knows what the editor does

_HEADINGS = {Season.ORDINARY: "an ordinary week", Season.FESTIVAL: "festival week", Season.STORM: "storm warning"}
_INDEX = {story.id: index for index, story in enumerate(STORIES)}


class Printed(msgspec.Struct, frozen=True, rename="camel"):
    """A story in a place."""

    place: str
    story: str
    probability: float | None  # with which it was chosen; None: the editor chose it


class FrontPage(msgspec.Struct, frozen=True, rename="camel"):
    """What somebody sees."""

    event_id: str
    learning_mode: LearningMode
    stories: tuple[Printed, ...]


class Opinion(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What somebody thought of a front page: one of its places clicked, or none."""

    event_id: Annotated[str, Meta(min_length=1, max_length=256)]
    clicked: Annotated[str, Meta(max_length=32)] | None = None


class Scene(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What shall change about the demo; what is left out stays."""

    rate: Annotated[float, Meta(ge=0, le=RATE_MAX)] | None = None  # simulated readers a second
    season: Season | None = None
    learning_mode: LearningMode | None = None


class Visit(msgspec.Struct, frozen=True):
    """One of the crowd, and what they did."""

    number: int
    device: Device
    time: Time
    follows: tuple[Topic, ...]
    clicked: tuple[str, ...]  # ids of stories


class View(msgspec.Struct, frozen=True, rename="camel"):
    """How everything stands."""

    rate: float
    season: Season
    learning_mode: LearningMode
    model_id: str | None  # None: there is none yet
    learned: int  # events that the model has learned
    pages: int  # of the crowd
    clicks: int
    lines: list[Point]
    marks: list[Mark]
    matched: float | None
    ready: bool  # whether the apprentice does what the editor does
    belief: Belief
    visits: tuple[Visit, ...]  # the newest of the crowd's, oldest first


def news_settings() -> LoopSettings:
    """Say what the newspaper's loop is set to: it begins as an apprentice, and learns within seconds."""
    fresh = new_loop_settings()
    return msgspec.structs.replace(
        fresh,
        policy=BALANCED.policy(ProblemType.MULTI_SLOT).text,
        reward_wait=timedelta(seconds=REWARD_WAIT_S),
        model_export_frequency=timedelta(seconds=1),
        exploration=0.1,
        learning_mode=LearningMode.APPRENTICE,
    )


def furnish(home: Home) -> str:
    """Make sure that there is a loop for the newspaper. Returns a key of it."""
    if all(loop.name != LOOP for loop in home.catalog.loops()):
        home.loops.create(LOOP, news_settings())
    keys: dict[str, dict[str, str]] = home.loops.keys()["loops"]
    return keys[LOOP]["key1"]


class Newsroom:
    """The newspaper. It belongs to one event loop."""

    def __init__(self, doors: Doors, endpoint: str) -> None:
        """Open it, with nobody about.

        Args:
            doors: of the service that it is part of.
            endpoint: where that service answers.
        """
        self._doors = doors
        logging.getLogger().setLevel(logging.WARNING)  # its terminal is for the audience, and calls itself all the time
        self._client = AsyncClient(endpoint, furnish(doors.home), timeout_s=_PATIENCE_S)
        self._rng = np.random.default_rng()
        self._board = Board()
        self._visits: deque[Visit] = deque(maxlen=_SEEN)
        self._season = Season.ORDINARY
        self._rate = 0.0
        self._wanted = asyncio.Event()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._reading: set[asyncio.Task[None]] = set()
        self._opened = self._looked = time.monotonic()
        self._crowd = asyncio.create_task(self._admit())

    async def close(self) -> None:
        """Send everybody home."""
        for task in (self._crowd, *self._reading):
            task.cancel()
        await asyncio.gather(self._crowd, *self._reading, return_exceptions=True)
        await self._client.close(timeout_s=1.0)

    async def front_page(self, reader: Reader) -> FrontPage:
        """Arrange a page. It counts once there is an opinion of it.

        Raises:
            Overloaded: there was no decision in time.
        """
        decision = await self._decide(reader, deferred=True)
        if decision is None:
            raise Overloaded("the service gave no answer in time: try again", retry_after_s=1)
        return FrontPage(
            decision.event_id,
            self._mode,
            tuple(
                Printed(
                    slot.slot_id,
                    slot.action_id,
                    dict(slot.ranking).get(slot.action_id) if self._online else None,
                )
                for slot in decision.slots
            ),
        )

    async def _decide(self, reader: Reader, *, deferred: bool) -> SlotsDecision | None:
        decision = await self._client.rank_slots(reader.context(), actions(), slots(reader), deferred=deferred)
        return None if decision.fallback else decision

    def take(self, opinion: Opinion) -> None:
        """Report what somebody thought.

        Raises:
            InvalidRequest: there is no such place.
        """
        if opinion.clicked is not None:
            if opinion.clicked not in {place.id for place in PLACES}:
                raise InvalidRequest(f"the front page has no place {opinion.clicked!r}", target="clicked")
            self._client.reward(opinion.event_id, 1.0, slot=opinion.clicked)
        self._client.activate(opinion.event_id)

    async def set_scene(self, scene: Scene) -> None:
        """Change what goes on."""
        if scene.learning_mode is not None:
            await self._doors.configuration.change(LOOP, {"learning_mode": scene.learning_mode})
            self._doors.take_over()
            self._board.mark(self._second, "the loop decides" if self._online else "the editor decides")
        if scene.season is not None:
            self._season = scene.season
            self._board.mark(self._second, _HEADINGS[scene.season])
        if scene.rate is not None:
            self._rate = scene.rate
            self._wanted.set()

    async def start_over(self) -> None:
        """Begin again, with an apprentice that knows nothing."""
        await self.set_scene(Scene(rate=0.0, season=Season.ORDINARY, learning_mode=LearningMode.APPRENTICE))
        while self._reading:  # what is logged after the model is deleted is learned
            await asyncio.wait(self._reading)
        await self._doors.registry.delete(LOOP)
        self._doors.take_over()
        self._board = Board()
        self._visits.clear()

    @property
    def _second(self) -> int:
        return int(time.monotonic() - self._opened)

    @property
    def _online(self) -> bool:
        return self._mode is LearningMode.ONLINE

    @property
    def _mode(self) -> LearningMode:
        return self._doors.loop(LOOP).loop.settings.learning_mode

    def view(self, reader: Reader) -> View:
        """Say how everything stands, and what the model believes of a reader."""
        self._looked = time.monotonic()
        self._wanted.set()
        service = self._doors.loop(LOOP)
        model_id = service.loop.model_id
        version = find_version(self._doors.home.catalog.versions(service.loop.loop_id), model_id)
        matched = self._board.matched
        return View(
            rate=self._rate,
            season=self._season,
            learning_mode=self._mode,
            model_id=model_id,
            learned=version.learned if version else 0,
            pages=self._board.pages,
            clicks=self._board.clicks,
            lines=self._board.lines(),
            marks=list(self._board.marks),
            matched=matched,
            ready=matched is not None and matched >= _AGREES,
            belief=believe(service.scorer if model_id is not None else None, reader),
            visits=tuple(self._visits),
        )

    async def _admit(self) -> None:
        """Let the crowd in, so many a second, as long as somebody looks."""
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            if not self._rate or time.monotonic() - self._looked > _UNWATCHED_S:
                self._wanted.clear()
                await self._wanted.wait()
                due = now()
                continue
            await self._places.acquire()
            task = asyncio.create_task(self._read())
            self._reading.add(task)
            task.add_done_callback(self._leave)
            due = max(due + 1 / self._rate, now())  # what a slow moment missed is not made up for
            await asyncio.sleep(due - now())

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._reading.discard(task)
        self._places.release()
        if not task.cancelled():
            task.result()

    async def _read(self) -> None:
        """Be one of the crowd."""
        reader, season, board = draw_reader(self._rng), self._season, self._board
        decision = await self._decide(reader, deferred=False)
        if decision is None or board is not self._board:
            return
        shown = [slot.action_id for slot in decision.slots]
        rates = click_rates(reader, season)
        clicked = []
        for place, story_id in enumerate(shown):
            if self._rng.random() < rates[place, _INDEX[story_id]]:
                self._client.reward(decision.event_id, 1.0, slot=PLACES[place].id)
                clicked.append(story_id)
        baselines = [slot.baseline for slot in slots(reader)]
        agreed = [dict(slot.ranking).get(story, 0.0) for slot, story in zip(decision.slots, baselines, strict=True)]
        board.note(
            self._second,
            worth(reader, season, shown),
            clicks=len(clicked),
            matched=sum(agreed) / len(agreed),
        )
        self._visits.append(Visit(board.pages, reader.device, reader.time, reader.follows, tuple(clicked)))
