"""The driver asks for every event once, reports every reward once, and stops when told."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import msgspec
import numpy as np
import pytest

from rankward.errors import CallerError, Overloaded, Unauthorized, WorldError
from rankward.simulate.frontpage import PLACES
from rankward.simulate.traffic import Actions, FailoverTarget, HttpTarget, LocalTarget, Pace, Slots, drive
from rankward.simulate.worlds import make_page_world, make_world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankward.decision import SlotRequest
    from rankward.simulate.scoreboard import Progress
    from rankward.simulate.world import FeatureObjects, PageWorld, World


class VirtualClock:
    """Time that moves on to the next sleeper as soon as nobody has anything left to do."""

    def __init__(self) -> None:
        self._time_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._mover: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Return the virtual time."""
        return self._time_s

    async def sleep(self, seconds: float) -> None:
        """Wake when time has come this far."""
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._time_s + seconds, self._count, awake))
        if self._mover is None or self._mover.done():
            self._mover = asyncio.create_task(self._move())
        await awake

    async def _move(self) -> None:
        while self._sleepers:
            for _ in range(20):  # more steps than any call takes
                await asyncio.sleep(0)
            due_s, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                self._time_s = max(self._time_s, due_s)
                awake.set_result(None)


class UniformRanker:
    """Chooses at random, and keeps what it is told. Fails as often as asked, before doing anything."""

    def __init__(self, clock: VirtualClock, *, failures: int = 0, error: Exception | None = None) -> None:
        self.clock = clock
        self.failures = failures
        self.error = error or WorldError("not now")
        self.decisions: dict[str, tuple[str, float]] = {}
        self.rewards: list[tuple[str, float, float]] = []
        self.slots: Counter[str | None] = Counter()  # rewards by the slot that they were about
        self.under_way = self.most_under_way = 0
        self._rng = np.random.default_rng(4)

    async def rank(self, context: FeatureObjects, actions: Actions) -> tuple[str, str]:
        """Draw an action, all with equal chance."""
        assert context
        await self._work()
        event_id = f"e{len(self.decisions)}"
        action_id = actions[self._rng.integers(len(actions))][0]
        self.decisions[event_id] = (action_id, self.clock.now())
        return event_id, action_id

    async def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Slots) -> tuple[str, list[str]]:
        """Fill the slots at random, every way with equal chance."""
        event_id, _ = await self.rank(context, actions)
        order = self._rng.permutation(len(actions))[: len(slots)]
        return event_id, [actions[index][0] for index in order]

    async def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
        """Keep a reward, with the time it came at."""
        assert event_id in self.decisions
        await self._work()
        self.rewards.append((event_id, value, self.clock.now()))
        self.slots[slot] += 1

    async def _work(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.failures:
            self.failures -= 1
            raise self.error


def run(
    world: World | PageWorld, ranker: UniformRanker, *, events: int, pace: Pace | None = None, seed: int = 1
) -> Progress:
    """Drive a ranker in virtual time."""
    return asyncio.run(
        drive(
            world,
            ranker,
            events=events,
            seed=seed,
            pace=pace or Pace(),
            on_progress=lambda _: None,
            clock=ranker.clock,
        )
    )


def test_every_event_is_ranked_and_rewarded_once() -> None:
    """And a random policy is seen to do as well as chance."""
    ranker = UniformRanker(VirtualClock())

    progress = run(make_world("grocery"), ranker, events=2000, pace=Pace(concurrency=3))

    assert progress.events == len(ranker.decisions) == progress.rewards_sent == 2000
    assert Counter(event_id for event_id, _, _ in ranker.rewards) == Counter(ranker.decisions.keys())
    assert ranker.most_under_way == 3
    assert progress.overall is not None
    assert progress.overall.share == pytest.approx(0.0, abs=0.1)
    assert progress.reported == pytest.approx(progress.overall.got)
    assert not progress.stopped


def test_every_slot_of_every_page_is_rewarded_once() -> None:
    """And a page filled at random is seen to do as well as chance: its slots added up."""
    ranker = UniformRanker(VirtualClock())

    progress = run(make_page_world("frontpage"), ranker, events=1000)

    assert progress.events == len(ranker.decisions) == 1000
    assert ranker.slots == dict.fromkeys(PLACES, 1000)
    assert progress.overall is not None
    assert progress.overall.share == pytest.approx(0.0, abs=0.1)
    assert progress.reported == pytest.approx(progress.overall.got, abs=0.1)
    assert progress.regret == pytest.approx(1000 * (progress.overall.best - progress.overall.got))


def test_a_seed_settles_rounds_and_rewards_however_calls_interleave() -> None:
    """Two runs of one seed are offered the same, so their best and uniform averages agree."""
    runs = [
        run(make_world("clicks"), UniformRanker(VirtualClock()), events=500, pace=Pace(concurrency=calls))
        for calls in (1, 9)
    ]

    assert runs[0].overall is not None
    assert runs[1].overall is not None
    assert runs[0].overall.best == pytest.approx(runs[1].overall.best)
    assert runs[0].overall.uniform == pytest.approx(runs[1].overall.uniform)


def test_slow_rewards_are_sent_when_their_delay_is_over() -> None:
    """Late ones after the wait, parts before it; the run ends when the last one is through."""
    ranker = UniformRanker(VirtualClock())
    world = make_world("delayed", wait_s=10, late=0.2, several=0.3, never=0.1, parts=3)

    progress = run(world, ranker, events=500, pace=Pace(rate_per_s=100))

    delays = [at_s - ranker.decisions[event_id][1] for event_id, _, at_s in ranker.rewards]
    per_event = Counter(event_id for event_id, _, _ in ranker.rewards)
    assert progress.rewards_waiting == progress.rewards_lost == 0
    assert progress.rewards_sent == len(ranker.rewards)
    assert sum(delay_s >= 10 for delay_s in delays) == pytest.approx(100, abs=30)
    assert sum(count == 3 for count in per_event.values()) == pytest.approx(150, abs=35)
    assert 500 - len(per_event) == pytest.approx(50, abs=22)


def test_rewards_that_wait_are_bounded() -> None:
    """At the bound traffic waits, with all calls free for the rewards themselves."""
    ranker = UniformRanker(VirtualClock())
    most = 0

    def watch(progress: Progress) -> None:
        nonlocal most
        most = max(most, progress.rewards_waiting)

    progress = asyncio.run(
        drive(
            make_world("delayed", late=0.9, several=0, never=0),
            ranker,
            events=60,
            seed=1,
            pace=Pace(concurrency=2, rewards_waiting=5),
            on_progress=watch,
            progress_every_s=0,
            clock=ranker.clock,
        )
    )

    assert progress.rewards_sent == 60
    assert 0 < most <= 5


def test_the_call_rate_is_kept() -> None:
    """500 events at 100 a second take 5 seconds, less the last one's gap."""
    ranker = UniformRanker(VirtualClock())

    progress = run(make_world("grocery"), ranker, events=500, pace=Pace(rate_per_s=100))

    assert progress.elapsed_s == pytest.approx(4.99)


def test_a_failed_call_is_made_again() -> None:
    """A service that restarts costs time, not events."""
    ranker = UniformRanker(VirtualClock(), failures=10)

    progress = run(make_world("grocery"), ranker, events=50)

    assert progress.events == progress.rewards_sent == 50
    assert progress.retries == 10
    assert progress.last_error == "not now"


def test_an_overloaded_service_is_given_the_time_it_asks_for() -> None:
    """Rather than hammered."""
    ranker = UniformRanker(VirtualClock(), failures=1, error=Overloaded("busy", retry_after_s=1))

    progress = run(make_world("grocery"), ranker, events=1)

    assert progress.elapsed_s == pytest.approx(1.0)


def test_calls_given_up_are_counted() -> None:
    """Once it has worked, an outage that outlasts the attempts loses events, and says how many."""
    ranker = UniformRanker(VirtualClock())
    world = make_world("grocery")

    def fail(progress: Progress) -> None:
        if progress.events >= 10 and not progress.retries:
            ranker.failures = 6

    progress = asyncio.run(
        drive(
            world,
            ranker,
            events=40,
            seed=1,
            pace=Pace(concurrency=1, attempts=3),
            on_progress=fail,
            progress_every_s=0,
            clock=ranker.clock,
        )
    )

    assert progress.retries == 4
    assert progress.ranks_lost + progress.rewards_lost == 2
    assert progress.events + progress.ranks_lost == 40


def test_a_service_that_never_answers_ends_the_run() -> None:
    """With what it met, instead of a long silence."""
    with pytest.raises(WorldError, match="not now"):
        run(make_world("grocery"), UniformRanker(VirtualClock(), failures=10_000), events=50)


def test_a_refused_call_ends_the_run_at_once() -> None:
    """A wrong key will not get better by trying again."""
    ranker = UniformRanker(VirtualClock(), failures=10_000, error=Unauthorized("wrong key"))

    with pytest.raises(Unauthorized, match="wrong key"):
        run(make_world("grocery"), ranker, events=50)

    assert ranker.failures >= 10_000 - Pace().concurrency


def test_a_run_over_data_ends_with_the_data() -> None:
    """Whatever number of events was asked for."""
    progress = run(make_world("triage", passes=1), UniformRanker(VirtualClock()), events=10_000)

    assert progress.events == progress.planned == 569
    assert not progress.stopped


def test_a_stopped_run_finishes_what_is_under_way() -> None:
    """Rewards that wait are given up and counted, everything else is sent."""
    ranker = UniformRanker(VirtualClock())

    async def stopped() -> Progress:
        stop = asyncio.Event()

        def watch(progress: Progress) -> None:
            if progress.events >= 100:
                stop.set()

        return await drive(
            make_world("delayed", wait_s=1e4, late=0.5, several=0, never=0),
            ranker,
            events=1_000_000,
            seed=1,
            pace=Pace(),
            on_progress=watch,
            progress_every_s=0,
            stop=stop,
            clock=ranker.clock,
        )

    progress = asyncio.run(stopped())

    assert progress.stopped
    assert 100 <= progress.events == len(ranker.decisions) < 1_000_000
    assert progress.rewards_waiting == 0
    assert progress.rewards_lost > 0
    assert progress.rewards_sent + progress.rewards_lost == progress.events


def test_senseless_numbers_are_refused() -> None:
    """Before any call is made."""
    with pytest.raises(CallerError, match="call rate 0 is not above 0"):
        Pace(rate_per_s=0)
    with pytest.raises(CallerError, match="concurrency 0 is below 1"):
        Pace(concurrency=0)
    with pytest.raises(CallerError, match="seed -1 is below 0"):
        run(make_world("grocery"), UniformRanker(VirtualClock()), events=1, seed=-1)


def test_a_local_loop_is_a_target() -> None:
    """A loop in this process is asked in threads, with the same arguments, for one slot or for several."""

    class Decision(msgspec.Struct, frozen=True):
        event_id: str
        action_id: str

    class SlotsDecision(msgspec.Struct, frozen=True):
        event_id: str
        action_ids: dict[str, str]

    class FirstAction:
        def __init__(self) -> None:
            self.rewards: list[tuple[str, float]] = []
            self.slots: Counter[str | None] = Counter()

        def rank(self, context: FeatureObjects, actions: Actions) -> Decision:
            """Choose the first."""
            assert context
            return Decision(event_id="e1", action_id=actions[0][0])

        def rank_slots(self, context: FeatureObjects, actions: Actions, slots: Sequence[SlotRequest]) -> SlotsDecision:
            """Choose the baselines."""
            assert context
            assert {slot.baseline for slot in slots} <= {action_id for action_id, _ in actions}
            return SlotsDecision(event_id="e1", action_ids={slot.id: slot.baseline for slot in slots})

        def reward(self, event_id: str, value: float, *, slot: str | None = None) -> None:
            """Keep it."""
            self.rewards.append((event_id, value))
            self.slots[slot] += 1

    for world, slots in ((make_world("grocery"), [None]), (make_page_world("frontpage"), PLACES)):
        loop = FirstAction()

        progress = asyncio.run(
            drive(world, LocalTarget(loop), events=20, seed=1, pace=Pace(), on_progress=lambda _: None)
        )

        assert progress.events == 20
        assert loop.slots == dict.fromkeys(slots, 20)


class Wire:
    """An HTTP service of fixed answers, which keeps the requests."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Take a request, give the next answer."""
        self.requests.append(request)
        return self.answers.pop(0)


def http_target(wire: Wire) -> HttpTarget:
    """Return a target whose calls end at the wire."""
    return HttpTarget("http://localhost:8080/loops/shop/", "k3y", transport=httpx.MockTransport(wire))


async def rank(wire: Wire) -> tuple[str, str]:
    """Make one Rank call."""
    async with http_target(wire) as target:
        return await target.rank([{"place": {"kind": "home"}}], [("tea", [{"drink": {"hot": True}}])])


def test_the_wire_is_the_contract() -> None:
    """Paths, key, names and the escaping of event ids are what every Personalizer client sends."""
    wire = Wire(
        httpx.Response(201, json={"eventId": "e1", "rewardActionId": "tea", "ranking": []}),
        httpx.Response(204),
    )

    async def rank_and_reward() -> tuple[str, str]:
        async with http_target(wire) as target:
            answer = await target.rank([{"place": {"kind": "home"}}], [("tea", [{"drink": {"hot": True}}])])
            await target.reward("a/b c", 0.5)
            return answer

    assert asyncio.run(rank_and_reward()) == ("e1", "tea")

    rank, reward = wire.requests
    assert str(rank.url) == "http://localhost:8080/loops/shop/personalizer/v1.0/rank"
    assert rank.headers["Ocp-Apim-Subscription-Key"] == "k3y"
    assert msgspec.json.decode(rank.content) == {
        "contextFeatures": [{"place": {"kind": "home"}}],
        "actions": [{"id": "tea", "features": [{"drink": {"hot": True}}]}],
    }
    assert reward.url.raw_path == b"/loops/shop/personalizer/v1.0/events/a%2Fb%20c/reward"
    assert msgspec.json.decode(reward.content) == {"value": 0.5}


def test_slots_are_asked_for_and_rewarded_as_the_contract_has_it() -> None:
    """Each slot with a baseline of its own, and each reward under its slot; a refusal keeps the contract's code."""
    wire = Wire(
        httpx.Response(201, json={"eventId": "e1", "slots": [{"id": "top", "rewardActionId": "tea"}]}),
        httpx.Response(204),
        httpx.Response(400, json={"error": {"code": "invalidMultiSlotApiAccess", "message": "no"}}),
    )
    page: tuple[FeatureObjects, Actions, Slots] = ([], [("mate", []), ("tea", [])], [("top", [{"size": {"w": 1}}])])

    async def rank_and_reward() -> tuple[str, list[str]]:
        async with http_target(wire) as target:
            answer = await target.rank_slots(*page)
            await target.reward("e1", 0.5, slot="top")
            with pytest.raises(CallerError) as refused:
                await target.rank_slots(*page)
            assert refused.value.code == "InvalidMultiSlotApiAccess"
            return answer

    assert asyncio.run(rank_and_reward()) == ("e1", ["tea"])

    rank, reward, _ = wire.requests
    assert rank.url.path == "/loops/shop/personalizer/v1.1-preview.3/multislot/rank"
    assert msgspec.json.decode(rank.content)["slots"] == [
        {"id": "top", "features": [{"size": {"w": 1}}], "baselineAction": "mate"}
    ]
    assert reward.url.path == "/loops/shop/personalizer/v1.1-preview.3/multislot/events/e1/reward"
    assert msgspec.json.decode(reward.content) == {"reward": [{"slotId": "top", "value": 0.5}]}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(401, text="no"), Unauthorized),
        (httpx.Response(400, text="no"), CallerError),
        (httpx.Response(201, text="<html>"), CallerError),
        (httpx.Response(500, text="no"), WorldError),
        (httpx.Response(429, headers={"Retry-After": "3"}), Overloaded),
    ],
)
def test_statuses_are_told_apart(answer: httpx.Response, error: type[Exception]) -> None:
    """What may work later is tried again, the rest is not."""
    with pytest.raises(error, match="http://localhost:8080/loops/shop"):
        asyncio.run(rank(Wire(answer)))


def test_another_address_is_asked_the_same_when_one_fails() -> None:
    """A decision whose answer was lost must not be made a second time: the event id goes along."""
    refusing = Wire(*[httpx.Response(503, text="no")] * 3)
    answering = Wire(
        httpx.Response(201, json={"eventId": "e1", "rewardActionId": "tea"}),
        httpx.Response(201, json={"eventId": "e2", "rewardActionId": "tea"}),
        httpx.Response(503, text="no"),
    )

    async def run() -> int:
        async with http_target(refusing) as one, http_target(answering) as other:
            target = FailoverTarget([one, other])
            assert await target.rank([], [("tea", [])]) == ("e1", "tea")
            assert await target.rank([], [("tea", [])]) == ("e2", "tea")
            with pytest.raises(WorldError):
                await target.reward("e1", 1.0)
            return target.failed

    assert asyncio.run(run()) == 3
    refused, *_ = refusing.requests
    first, second, _ = answering.requests
    assert refused.content == second.content
    assert msgspec.json.decode(first.content)["eventId"] != msgspec.json.decode(second.content)["eventId"]
