"""Traffic from a world to a service: ask, take what is answered, report what it was worth."""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import numpy as np

from rankward.decision import SlotRequest
from rankward.errors import CallerError, InvalidRequest, NotFound, Overloaded, Unauthorized, WorldError
from rankward.simulate.scoreboard import Progress, Scoreboard
from rankward.simulate.world import FeatureObjects, Page, PageWorld, Round, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

Actions = list[tuple[str, FeatureObjects]]
Slots = list[tuple[str, FeatureObjects]]
Answer = TypeVar("Answer")

_SLOTS = "v1.1-preview.3/multislot"
LONGEST_PAUSE_S = 2.0  # between two attempts, whatever the service asks for


class Target(Protocol):
    """Whatever decides, and is told the rewards."""

    async def rank(self, context: FeatureObjects, actions: Actions) -> tuple[str, str]:
        """Return (event id, id of the action chosen).

        Raises:
            WorldError: it may work later.
            CallerError: it never will.
        """

    async def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Slots) -> tuple[str, list[str]]:
        """Return (event id, id of the action chosen for each slot). Raises as `rank` does."""

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Report a reward, of a slot or of the whole event. Raises as `rank` does."""


class HttpTarget:
    """A service that speaks the Personalizer contract. Use it as an asynchronous context manager.

    Args:
        endpoint: as given to a Personalizer client: `http://HOST:PORT`, with `/loops/NAME` or without.
        key: a key of the loop.
        timeout_s: of one call.
        connections: kept open at most.
        transport: what carries the calls. None: the network.
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        timeout_s: float = 10.0,
        connections: int = 100,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=f"{self.endpoint}/personalizer/",
            headers={"Ocp-Apim-Subscription-Key": key, "Content-Type": "application/json"},
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
        )

    async def __aenter__(self) -> HttpTarget:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def rank(self, context: FeatureObjects, actions: Actions, *, event_id: str | None = None) -> tuple[str, str]:
        """Call Rank. The service makes the event id, if none is given."""
        answer = await self._post(
            "v1.0/rank",
            {
                **({} if event_id is None else {"eventId": event_id}),
                "contextFeatures": context,
                "actions": [{"id": action_id, "features": features} for action_id, features in actions],
            },
            expected=201,
        )
        decision = self._read(answer, _RankAnswer)
        return decision.event_id, decision.reward_action_id

    async def rank_slots(
        self, context: FeatureObjects, actions: Actions, slots: Slots, *, event_id: str | None = None
    ) -> tuple[str, list[str]]:
        """Call Rank for several slots, each with another of the first actions as its baseline."""
        answer = await self._post(
            f"{_SLOTS}/rank",
            {
                **({} if event_id is None else {"eventId": event_id}),
                "contextFeatures": context,
                "actions": [{"id": action_id, "features": features} for action_id, features in actions],
                "slots": [
                    {"id": slot_id, "features": features, "baselineAction": baseline}
                    for (slot_id, features), (baseline, _) in zip(slots, actions, strict=False)
                ],
            },
            expected=201,
        )
        decision = self._read(answer, _SlotsAnswer)
        shown = {slot.id: slot.reward_action_id for slot in decision.slots}
        return decision.event_id, [shown.get(slot_id, "") for slot_id, _ in slots]

    def _read(self, answer: bytes, kind: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{self.endpoint} does not answer Rank as Personalizer does: {error}") from error

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Call Reward."""
        event = f"events/{quote(event_id, safe='')}/reward"
        if slot is None:
            await self._post(f"v1.0/{event}", {"value": value}, expected=204)
        else:
            await self._post(f"{_SLOTS}/{event}", {"reward": [{"slotId": slot, "value": value}]}, expected=204)

    async def _post(self, path: str, body: object, *, expected: int) -> bytes:
        try:
            response = await self._client.post(path, content=msgspec.json.encode(body))
        except httpx.TransportError as error:
            what = str(error) or type(error).__name__
            raise WorldError(f"no answer from {self.endpoint}: {what}") from error
        status = response.status_code
        if status == expected:
            return response.content
        message = f"{self.endpoint} answered {path.rpartition('/')[2]} with {status}: {response.text[:300]}"
        if status in (401, 403):
            raise Unauthorized(f"{message} (is this a key of the loop?)")
        if status == 404:
            raise NotFound(message)
        if status in (429, 503):
            wait = response.headers.get("Retry-After", "")
            raise Overloaded(message, retry_after_s=int(wait) if wait.isdecimal() else 0)
        if status == 408 or status >= 500:
            raise WorldError(message)
        raise InvalidRequest(message, code=_code(response))


class FailoverTarget:
    """One service at several addresses, which are asked in turn: where one fails, the next is asked the same at once.

    A decision that is asked again has the same event id, so it is made once, even if only its answer was lost.
    """

    def __init__(self, targets: Sequence[HttpTarget]) -> None:
        self.failed = 0
        """Calls that an address did not answer, or refused for now."""
        self._targets = targets
        self._turn = 0

    async def rank(self, context: FeatureObjects, actions: Actions) -> tuple[str, str]:
        """Call Rank."""
        event_id = uuid4().hex
        return await self._ask(lambda target: target.rank(context, actions, event_id=event_id))

    async def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Slots) -> tuple[str, list[str]]:
        """Call Rank for several slots."""
        event_id = uuid4().hex
        return await self._ask(lambda target: target.rank_slots(context, actions, slots, event_id=event_id))

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Call Reward."""
        await self._ask(lambda target: target.reward(event_id, value, slot=slot))

    async def _ask(self, call: Callable[[HttpTarget], Awaitable[Answer]]) -> Answer:
        self._turn += 1
        first = self._turn % len(self._targets)
        *others, last = [*self._targets[first:], *self._targets[:first]]
        for target in others:
            try:
                return await call(target)
            except WorldError:
                self.failed += 1
        try:
            return await call(last)
        except WorldError:
            self.failed += 1
            raise


def _code(response: httpx.Response) -> str | None:
    """Read the contract's code of a refusal, as its lists write it. None: it has none."""
    try:
        code = msgspec.json.decode(response.content, type=_Refusal).error.code
    except msgspec.DecodeError:
        return None
    return code[:1].upper() + code[1:]


class _RefusalBody(msgspec.Struct):
    code: str


class _Refusal(msgspec.Struct):
    error: _RefusalBody


class _RankAnswer(msgspec.Struct, rename="camel"):
    event_id: str
    reward_action_id: str


class _SlotAnswer(msgspec.Struct, rename="camel"):
    id: str
    reward_action_id: str


class _SlotsAnswer(msgspec.Struct, rename="camel"):
    event_id: str
    slots: list[_SlotAnswer]


class LocalDecision(Protocol):
    """What a loop in this process answers."""

    @property
    def event_id(self) -> str:
        """To report rewards under."""

    @property
    def action_id(self) -> str:
        """Of the action to show."""


class LocalSlotsDecision(Protocol):
    """What a loop in this process answers for several slots."""

    @property
    def event_id(self) -> str:
        """To report rewards under."""

    @property
    def action_ids(self) -> dict[str, str]:
        """The actions to show, by slot id."""


class LocalLoop(Protocol):
    """A loop in this process, used without a network."""

    def rank(self, context: FeatureObjects, actions: Actions) -> LocalDecision:
        """Choose one action."""

    def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Sequence[SlotRequest]) -> LocalSlotsDecision:
        """Choose an action for each slot."""

    def reward(self, event_id: str, value: float, *, slot: str | None = None) -> object:
        """Report a reward."""


class LocalTarget:
    """A loop in this process. Its calls block, so they are made in threads."""

    def __init__(self, loop: LocalLoop) -> None:
        self._loop = loop

    async def rank(self, context: FeatureObjects, actions: Actions) -> tuple[str, str]:
        """Ask the loop."""
        decision = await asyncio.to_thread(self._loop.rank, context, actions)
        return decision.event_id, decision.action_id

    async def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Slots) -> tuple[str, list[str]]:
        """Ask the loop, each slot with another of the first actions as its baseline."""
        asked = [
            SlotRequest(id=slot_id, baseline=baseline, features=features)
            for (slot_id, features), (baseline, _) in zip(slots, actions, strict=False)
        ]
        decision = await asyncio.to_thread(self._loop.rank_slots, context, actions, asked)
        return decision.event_id, [decision.action_ids[slot_id] for slot_id, _ in slots]

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Tell the loop."""
        await asyncio.to_thread(self._loop.reward, event_id, value, slot=slot)


class Clock(Protocol):
    """Time as the driver knows it."""

    def now(self) -> float:
        """Seconds since any fixed moment; never less than before."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""


class WallClock:
    """Real time."""

    def now(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to press."""

    rate_per_s: float | None = None  # events a second, at evenly spaced moments; None: as fast as it goes
    concurrency: int = 8  # calls under way at once
    rewards_waiting: int = 10_000  # slow rewards kept for later; at the bound, traffic waits for them
    attempts: int = 7  # of one call, before it is given up
    backoff_s: float = 0.1  # before the second attempt; doubles with each, up to LONGEST_PAUSE_S

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and self.rate_per_s <= 0:
            raise CallerError(f"call rate {self.rate_per_s:g} is not above 0: leave it out for full speed")
        for name in ("concurrency", "rewards_waiting", "attempts"):
            if getattr(self, name) < 1:
                raise CallerError(f"{name} {getattr(self, name)} is below 1")

    def pause_s(self, attempt: int) -> float:
        """Return how long to wait after the given attempt, counted from 1, has failed."""
        return min(LONGEST_PAUSE_S, self.backoff_s * 2.0 ** (attempt - 1))


class _Answered(msgspec.Struct, frozen=True):
    """What became of one event."""

    event_id: str
    got: float  # true mean of what was chosen
    rewards: Sequence[tuple[float, float, str | None]]  # delay in seconds, value, slot: of each that is reported


async def drive(
    world: World | PageWorld,
    target: Target,
    *,
    events: int,
    seed: int,
    pace: Pace,
    on_progress: Callable[[Progress], None],
    progress_every_s: float = 0.25,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> Progress:
    """Send `events` rounds of the world to the target, and every reward when its delay is over.

    The seed settles the rounds, and what each action of each round is worth, however calls interleave.

    Args:
        world: where rounds and rewards come from.
        target: what decides.
        events: how many rounds, at most: a world of data may have fewer.
        seed: at least 0.
        pace: how hard to press.
        on_progress: told the state now and then, and once more at the end.
        progress_every_s: how often, in real time.
        stop: once set, no new event begins; those under way are finished, rewards still waiting are lost.
            None: it runs to its end.
        clock: None: real time.

    Returns:
        The state after the last reward.

    Raises:
        CallerError: the target refuses the calls as such.
        WorldError: the very first event did not get through, after all attempts.
    """
    if events < 1:
        raise CallerError(f"{events} events is below 1")
    if seed < 0:
        raise CallerError(f"seed {seed} is below 0")
    run = _Run(world, target, events=events, seed=seed, pace=pace, stop=stop, clock=clock or WallClock())
    reporter = asyncio.create_task(_report(run, on_progress, progress_every_s))
    try:
        await run.run()
    except ExceptionGroup as group:
        expected = group.subgroup((CallerError, WorldError))
        raise group if expected is None else _first(expected) from None
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)
    final = run.progress()
    on_progress(final)
    return final


async def _report(run: _Run, on_progress: Callable[[Progress], None], every_s: float) -> None:
    """Tell the watcher, in real time whatever the run's own clock is."""
    while True:
        await asyncio.sleep(every_s)
        on_progress(run.progress())


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _indexes(action_ids: Sequence[str], actions: Actions) -> list[int]:
    """Find the actions that were answered among those offered."""
    known = {action_id: index for index, (action_id, _) in enumerate(actions)}
    for action_id in action_ids:
        if action_id not in known:
            raise InvalidRequest(f"Rank answered action `{action_id}`, which was not among those offered")
    return [known[action_id] for action_id in action_ids]


class _Run:
    """One run of `drive`: the tasks, and the bounds that they share."""

    def __init__(
        self,
        world: World | PageWorld,
        target: Target,
        *,
        events: int,
        seed: int,
        pace: Pace,
        stop: asyncio.Event | None,
        clock: Clock,
    ) -> None:
        self._world = world
        self._target = target
        self._seed = seed
        self._pace = pace
        self._stop = stop or asyncio.Event()
        self._clock = clock
        self._board = Scoreboard(events if world.length is None else min(events, world.length))
        self._calls = asyncio.Semaphore(pace.concurrency)
        self._begun = asyncio.Semaphore(pace.concurrency)  # events that are not through yet
        self._waiting = asyncio.Semaphore(pace.rewards_waiting)
        self._events: set[asyncio.Task[None]] = set()
        self._later: set[asyncio.Task[None]] = set()  # rewards waiting for their moment
        self._start_s = clock.now()

    def progress(self) -> Progress:
        return self._board.progress(self._clock.now() - self._start_s)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            feeder = group.create_task(self._feed(group))
            stopper = group.create_task(self._when_stopped(feeder))
            await asyncio.wait({feeder})
            while pending := self._events | self._later:
                await asyncio.wait(pending)
            self._board.stopped = self._stop.is_set() and self._board.events < self._board.planned
            stopper.cancel()

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        """Begin one event after the other, each at its moment: evenly spaced, even if answers are slow."""
        for number, play in enumerate(itertools.islice(self._plays(), self._board.planned)):
            if self._pace.rate_per_s is not None:
                early_s = self._start_s + number / self._pace.rate_per_s - self._clock.now()
                if early_s > 0:
                    await self._clock.sleep(early_s)
            await self._begun.acquire()
            task = group.create_task(self._event(number, *play, group))
            self._events.add(task)
            task.add_done_callback(self._events.discard)

    async def _when_stopped(self, feeder: asyncio.Task[None]) -> None:
        """Begin nothing more, and give up the rewards that are waiting for their moment."""
        await self._stop.wait()
        feeder.cancel()
        for task in self._later:
            task.cancel()

    def _plays(self) -> Iterator[tuple[Round | Page, Callable[[int], Awaitable[_Answered]]]]:
        """Go through what the world has to offer, each with what asks for it, by the event's number."""
        world, rng = self._world, np.random.default_rng((self._seed, 0))
        if isinstance(world, PageWorld):
            for page in world.pages(rng):
                yield page, partial(self._ask_page, world, page)
        else:
            for played in world.rounds(rng):
                yield played, partial(self._ask_round, world, played)

    async def _ask_round(self, world: World, played: Round, number: int) -> _Answered:
        event_id, action_id = await self._attempt(lambda: self._target.rank(played.context, played.actions))
        [index] = _indexes([action_id], played.actions)
        rewards = world.rewards(played, index, self._dice(number, index))
        return _Answered(event_id, float(played.means[index]), [(delay_s, value, None) for delay_s, value in rewards])

    async def _ask_page(self, world: PageWorld, page: Page, number: int) -> _Answered:
        event_id, action_ids = await self._attempt(
            lambda: self._target.rank_slots(page.context, page.actions, page.slots)
        )
        chosen = _indexes(action_ids, page.actions)
        values = world.rewards(page, chosen, self._dice(number, *chosen))
        rewards = [(0.0, value, slot_id) for value, (slot_id, _) in zip(values, page.slots, strict=True)]
        return _Answered(event_id, float(page.means_of(chosen).sum()), rewards)

    def _dice(self, number: int, *chosen: int) -> np.random.Generator:
        """Make what an event's rewards are drawn from: the same for the same choice, whenever it was made."""
        return np.random.default_rng((self._seed, 1, number, *chosen))

    async def _event(
        self,
        number: int,
        played: Round | Page,
        ask: Callable[[int], Awaitable[_Answered]],
        group: asyncio.TaskGroup,
    ) -> None:
        """Rank, and send or plan the rewards."""
        try:
            try:
                answered = await ask(number)
            except WorldError:
                if self._board.events == 0:
                    raise
                self._board.ranks_lost += 1
                return
            self._board.decided(played, answered.got, reported=sum(value for _, value, _ in answered.rewards))
            for delay_s, value, slot in answered.rewards:
                if delay_s <= 0:
                    await self._send(answered.event_id, value, slot)
                elif self._stop.is_set():
                    self._board.rewards_lost += 1
                else:
                    await self._plan(answered.event_id, value, slot, delay_s, group)
        finally:
            self._begun.release()

    async def _plan(
        self, event_id: str, value: float, slot: str | None, delay_s: float, group: asyncio.TaskGroup
    ) -> None:
        """Send a reward later. Waits when too many are waiting already."""
        await self._waiting.acquire()
        self._board.rewards_waiting += 1
        task = group.create_task(self._send_later(event_id, value, slot, delay_s))
        self._later.add(task)
        task.add_done_callback(self._settle)

    async def _send_later(self, event_id: str, value: float, slot: str | None, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        await self._send(event_id, value, slot)

    def _settle(self, task: asyncio.Task[None]) -> None:
        """Free the place of a reward that was waiting: it was sent, or given up."""
        self._later.discard(task)
        self._waiting.release()
        self._board.rewards_waiting -= 1
        if task.cancelled():
            self._board.rewards_lost += 1

    async def _send(self, event_id: str, value: float, slot: str | None) -> None:
        try:
            await self._attempt(lambda: self._target.reward(event_id, value, slot=slot))
        except WorldError:
            self._board.rewards_lost += 1
        else:
            self._board.rewards_sent += 1

    async def _attempt(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make a call, and make it again when the world fails. Raises what the last attempt met."""
        attempt = 1
        while True:
            try:
                async with self._calls:
                    return await call()
            except WorldError as error:
                self._board.last_error = str(error)
                if attempt == self._pace.attempts or self._stop.is_set():
                    raise
                pause_s = self._pace.pause_s(attempt)
                if isinstance(error, Overloaded):
                    pause_s = max(pause_s, min(error.retry_after_s, LONGEST_PAUSE_S))
            self._board.retries += 1
            await self._clock.sleep(pause_s)
            attempt += 1
