"""A client that decides in its own process: with the service's model, and nothing lost or counted twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

import rankward
from rankward.api.options import ApiOptions
from rankward.client.inprocess import InProcess
from rankward.client.spool import Spool
from rankward.client.stats import Tally
from rankward.records import Activation, Interaction, Observation
from rankward.settings import Limits, LoopSettings, Numbers
from tests.client.networks import refused_endpoint
from tests.service import PATIENCE_S, RunningService, eventually

if TYPE_CHECKING:
    from pathlib import Path

ACTIONS = {name: {"dish": {"name": name}} for name in ("soup", "salad", "stew")}
CONTEXT = {"visitor": {"device": "phone"}}
LONG_S = PATIENCE_S
QUICK = LoopSettings(model_export_frequency=timedelta(milliseconds=100))


@pytest.mark.slow
def test_it_learns_what_it_is_told(service: RunningService) -> None:
    """The whole circle: decided here, uploaded, joined, learned there, and decided here by what was learned."""
    loop = service.new_loop(QUICK)
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, local=True, refresh_s=0.1) as client:
        for _ in range(60):
            decision = client.rank(CONTEXT, ACTIONS)
            client.reward(decision.event_id, float(decision.action_id == "stew"))
        assert client.flush(LONG_S)
        service.pass_time(loop.loop)
        eventually(lambda: dict(client.rank(CONTEXT, ACTIONS).ranking)["stew"] > 0.8, "the rewarded action is likely")
        learned = client.rank(CONTEXT, ACTIONS)
        assert client.flush(LONG_S)
        assert client.stats.fallbacks == {}
        assert client.stats.dropped == 0
    assert learned.model_id in {version.model_id for version in service.home.catalog.versions(_loop_id(service, loop))}
    logged = {r.event_id: r for r in service.records(loop.loop) if isinstance(r, Interaction)}
    assert logged[learned.event_id].model_id == learned.model_id


@pytest.mark.slow
def test_it_sees_numbers_as_the_service_does(service: RunningService) -> None:
    """The bins come with the model; whoever asks for the model alone is told why there is none."""
    loop = service.new_loop(msgspec.structs.replace(QUICK, numbers=Numbers.BINS))
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, local=True, refresh_s=0.1) as client:
        for number in range(120):
            decision = client.rank({"visitor": {"age": 20 + number % 50}}, ACTIONS)
            client.reward(decision.event_id, float(decision.action_id == "stew"))
        assert client.flush(LONG_S)
        service.pass_time(loop.loop)
        eventually(lambda: dict(client.rank(CONTEXT, ACTIONS).ranking)["stew"] > 0.8, "the rewarded action is likely")
        here = [client.rank({"visitor": {"age": age}}, ACTIONS, event_id=f"n{age}") for age in range(20, 70, 5)]
        assert client.flush(LONG_S)
    versions = {version.model_id: version for version in service.home.catalog.versions(_loop_id(service, loop))}
    bins = versions[str(here[0].model_id)].bins
    assert bins is not None
    assert list(bins.edges) == ["visitor"]
    refused = loop.at("v1.1-preview.3").get("/model")
    assert (refused.status_code, "numbers=bins" in refused.text) == (400, True)
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        there = [client.rank({"visitor": {"age": age}}, ACTIONS, event_id=f"m{age}") for age in range(20, 70, 5)]
    for one, other in zip(here, there, strict=True):
        if one.model_id == other.model_id:
            assert dict(one.ranking) == pytest.approx(dict(other.ranking), abs=1e-6)


def _loop_id(service: RunningService, loop: object) -> str:
    return service.loop(loop.loop).loop_id  # type: ignore[attr-defined]


@pytest.mark.slow
def test_it_decides_as_the_service_would(service: RunningService) -> None:
    """Same loop, same event, same model: the same draw, and one event in the log."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, local=True) as client:
        decisions = [client.rank(CONTEXT, ACTIONS, event_id=f"e{number}", excluded=["soup"]) for number in range(20)]
        assert client.rank(CONTEXT, ACTIONS, event_id="e3", excluded=["soup"]) == decisions[3]
        assert client.flush(LONG_S)
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        for number, decision in enumerate(decisions):
            assert client.rank(CONTEXT, ACTIONS, event_id=f"s{number}").action_id in ACTIONS
            asked = client.rank(CONTEXT, {k: v for k, v in ACTIONS.items() if k != "soup"}, event_id=f"e{number}")
            assert asked.action_id == decision.action_id
    assert len([r for r in service.records(loop.loop) if r.event_id.startswith("e")]) == 20


@pytest.mark.slow
def test_what_was_decided_while_the_service_is_away_gets_there_once(tmp_path: Path) -> None:
    """The service is killed, the application ends before it is back, and the next one sends what lies in the folder."""
    running = RunningService(tmp_path)
    folder = tmp_path / "spool"
    try:
        running.start()
        loop = running.client("default")
        with rankward.Client(running.url, loop.key, timeout_s=LONG_S, local=True, folder=folder) as client:
            first = client.rank(CONTEXT, ACTIONS)
            assert client.flush(LONG_S)
            running.kill()
            later = [client.rank(CONTEXT, ACTIONS, deferred=True) for _ in range(5)]
            for decision in [first, *later]:
                client.activate(decision.event_id)
                client.reward(decision.event_id, 0.5)
            assert not any(decision.fallback for decision in later)
            assert not client.flush(0.5)
            client.close(0.1)
            assert client.stats.dropped == 0
        running.start()
        with rankward.Client(running.url, loop.key, timeout_s=LONG_S, local=True, folder=folder) as client:
            assert client.flush(LONG_S)
            assert client.stats.sent == 17
        records = running.records("default")
        for kind, count in ((Interaction, 6), (Observation, 6), (Activation, 6)):
            assert len({r.event_id for r in records if isinstance(r, kind)}) == count
            assert len([r for r in records if isinstance(r, kind)]) == count
    finally:
        running.close()


@pytest.mark.slow
def test_an_event_that_the_service_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """A service may have narrower bounds than a client knows of."""
    running = RunningService(tmp_path, options=ApiOptions(limits=Limits(actions=2)))
    try:
        running.start()
        two = {"soup": {"x": 1}, "stew": {"x": 2}}
        with rankward.Client(running.url, running.key("default"), timeout_s=LONG_S, local=True) as client:
            for number in range(10):
                client.rank(CONTEXT, ACTIONS if number == 4 else two, event_id=f"e{number}")
            assert client.flush(LONG_S)
            assert (client.stats.sent, client.stats.dropped) == (9, 1)
        assert {record.event_id for record in running.records("default")} == {f"e{n}" for n in range(10) if n != 4}
    finally:
        running.close()


@pytest.mark.slow
def test_the_asynchronous_client_decides_here_too(service: RunningService) -> None:
    """On its own event loop."""
    loop = service.new_loop()

    async def visit() -> None:
        async with rankward.AsyncClient(service.url, loop.key, timeout_s=LONG_S, local=True) as client:
            decision = await client.rank(CONTEXT, ACTIONS)
            client.reward(decision.event_id, 1.0)
            assert not decision.fallback
            assert await client.flush(LONG_S)
            assert client.stats == rankward.ClientStats(decisions=1, sent=2)

    asyncio.run(visit())
    assert [type(record) for record in service.records(loop.loop)] == [Interaction, Observation]


@pytest.mark.slow
def test_a_batch_that_was_damaged_on_disk_does_not_hold_up_the_others(service: RunningService, tmp_path: Path) -> None:
    """It is given up: nothing of it can be told from the rest."""
    spool = Spool(tmp_path, most_bytes=1_000)
    spool.put("interactions", b"this is no batch", 5)
    spool.close()
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, local=True, folder=tmp_path) as client:
        client.rank(CONTEXT, ACTIONS)
        assert client.flush(LONG_S)
        assert (client.stats.sent, client.stats.dropped) == (1, 5)


def test_what_waits_is_written_a_little_at_a_time() -> None:
    """Ten thousand events at once would hold up every page that shares the event loop, for a second or more."""

    async def gather() -> None:
        tally = Tally()
        engine = InProcess(
            "http://127.0.0.1:9", "key", refresh_s=1, spool=None, queue_size=1_000, verify=True, tally=tally
        )
        for number in range(100):
            engine.report(Observation(event_id=f"e{number}", value=1.0))
        gathering = asyncio.create_task(engine._gather())
        turns = 0
        while not gathering.done():
            assert engine.stats.queued == 100
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 5
        assert engine.stats.queued == 100
        await engine.close(0)

    asyncio.run(gather())


def test_a_mistake_of_ours_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, once, with where it happened; what can be sent is sent."""

    async def gather() -> None:
        tally = Tally()
        engine = InProcess(
            "http://127.0.0.1:9", "key", refresh_s=1, spool=None, queue_size=1_000, verify=True, tally=tally
        )
        for value in (1.0, "x", "y", 0.5):
            engine.report(Observation(event_id="e", value=value))  # type: ignore[arg-type]
        await engine._gather()
        assert (engine.stats.queued, engine.stats.dropped) == (2, 2)
        await engine.close(0)

    asyncio.run(gather())
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_before_the_service_was_ever_reached_there_is_the_baseline() -> None:
    """Nobody knows the loop's mode then: an apprentice must not act."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", timeout_s=0.05, local=True) as client:
        decision = client.rank(CONTEXT, ACTIONS, excluded=["soup"])
        assert (decision.action_id, decision.fallback) == ("salad", True)
        client.reward(decision.event_id, 1.0)
        assert client.stats.fallbacks == {"timeout": 1}
        assert client.stats.withheld == 1
        client.close(0.1)


def test_a_folder_is_kept_within_its_bounds_and_found_again(tmp_path: Path) -> None:
    """A service that is away for a week must not fill the disk; what is kept is the newest."""
    spool = Spool(tmp_path, most_bytes=100)
    assert [spool.put("interactions", bytes(40), count) for count in (1, 2, 3, 4)] == [0, 0, 1, 2]
    beside = Spool(tmp_path, most_bytes=100)
    assert beside.oldest() is None  # a living process has its part to itself
    spool.close()
    beside.close()
    again = Spool(tmp_path, most_bytes=100)
    assert again.events == 7
    found = again.oldest()
    assert found is not None
    assert (found[0].kind, found[0].count, found[1]) == ("interactions", 3, bytes(40))
    again.remove(found[0])
    again.put("observations", b"x", 1)
    assert again.events == 5
    again.close()


def test_a_batch_that_was_removed_from_the_folder_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Temporary folders are tidied by others, and what lies in this one may be old."""
    spool = Spool(tmp_path, most_bytes=100)
    for count in (1, 2):
        spool.put("interactions", bytes(40), count)
    spool.close()
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", local=True, folder=tmp_path) as client:
        assert client.stats.queued == 3
        (gone, _) = sorted(tmp_path.rglob("*.batch"))
        gone.unlink()
        client.flush(0.0)
        eventually(lambda: (client.stats.queued, client.stats.dropped) == (2, 1), "the batch that is gone is noticed")
        client.close(0.01)
