"""Processes die at any moment, under load: what was acknowledged stays, and what is learned is the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.records import Interaction, Observation
from rankward.store.ports import Epoch, EventLog, JoinedLog, ModelVersion
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.training.fold import Checkpoint, Fold
from rankward.wiring import Home
from tests.service import KEY_HEADER, RunningService, eventually

SEED = random.SystemRandom().randrange(1_000_000)
LOOP = "playground"


class Traffic:
    """Clients that rank and reward without a break, and remember what was acknowledged."""

    def __init__(self, service: RunningService, clients: int = 4) -> None:
        self.ranked: dict[str, str] = {}
        self.rewarded: list[str] = []
        self.refused = 0
        self._service = service
        self._key = service.key(LOOP)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _visit(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            with httpx.Client(
                base_url=f"{self._service.url}/personalizer/v1.0", headers={KEY_HEADER: self._key}, timeout=5
            ) as http:
                try:
                    while not self._stop.is_set():
                        number += 1
                        self._once(http, f"c{client}-{number}", f"v{number % 3}")
                except httpx.HTTPError:
                    self.refused += 1
                    time.sleep(0.05)

    def _once(self, http: httpx.Client, event_id: str, who: str) -> None:
        actions = [{"id": f"a{k}", "features": [{"dish": {"kind": f"k{k}"}}]} for k in range(3)]
        body = {"eventId": event_id, "contextFeatures": [{"visitor": {"who": who}}], "actions": actions}
        answer = http.post("/rank", json=body)
        if answer.status_code != 201:
            self.refused += 1
            return
        chosen = answer.json()["rewardActionId"]
        self.ranked[event_id] = chosen
        if http.post(f"/events/{event_id}/reward", json={"value": float(chosen[1] == who[1])}).status_code == 204:
            self.rewarded.append(event_id)

    def end(self) -> None:
        """Stop, and wait until no call is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_whatever_is_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The promise that a 201 and a 204 make."""
    _kill_and_audit(tmp_path, kills=4, decisions=150)


@pytest.mark.fault
def test_whatever_is_killed_over_and_over_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The same over many random moments."""
    _kill_and_audit(tmp_path, kills=60, decisions=250)


def _kill_and_audit(tmp_path: Path, *, kills: int, decisions: int) -> None:
    """Kill a process whenever some decisions were acknowledged, and hold what is left to every promise.

    Args:
        tmp_path: for everything.
        kills: how often.
        decisions: that are acknowledged between two kills, at most.
    """
    print(f"seed {SEED}")  # noqa: T201  (shown when the test fails)
    rng = random.Random(SEED)
    service = RunningService(tmp_path, workers=2).start()
    try:
        traffic = Traffic(service)
        try:
            for _ in range(kills):
                enough = len(traffic.ranked) + rng.randint(decisions // 4, decisions)
                eventually(lambda enough=enough: len(traffic.ranked) >= enough, "decisions go on")  # type: ignore[misc]
                _kill_one(service, rng)
        finally:
            traffic.end()
        service.kill()  # everything at once, at the end
        service.start()
        head = _end(service.root)
        eventually(lambda: _is_learned(service, head), "what was logged before the restart is learned")
        service.stop()
    finally:
        service.close()
    audit(service.root, traffic)


def _kill_one(service: RunningService, rng: random.Random) -> None:
    """Kill an HTTP process, the worker, a trainer, or all of them."""
    processes = psutil.Process(service.pid).children(recursive=True)
    if rng.random() < 0.15:
        service.kill()
        service.start()
    elif processes:
        with_trainers = rng.choice(processes)
        with contextlib.suppress(ProcessLookupError):
            os.kill(with_trainers.pid, signal.SIGKILL)


def _end(root: Path) -> int:
    async def read() -> int:
        home = Home(root)
        log = home.event_log(home.catalog.loop(LOOP).loop_id)
        try:
            return (await log.extent()).end
        finally:
            await log.close()
            home.close()

    return asyncio.run(read())


def _is_learned(service: RunningService, head: int) -> bool:
    notes = service.home.board.read(service.loop(LOOP).loop_id)
    if "joining" not in notes or not any(name.startswith("training-") for name in notes):
        return False
    joining = msgspec.json.decode(notes["joining"])
    training = msgspec.json.decode(next(note for name, note in notes.items() if name.startswith("training-")))
    return bool(
        joining["head"] >= head
        and joining["next_due_us"] is None
        and training["joined_offset"] >= joining["joined_end"]
    )


def audit(root: Path, traffic: Traffic) -> None:
    """Hold the files to every promise: log, joined log, model."""

    async def check() -> None:
        home = Home(root)
        loop = home.catalog.loop(LOOP)
        log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
        try:
            entries = await log.read(0, limit=10_000_000)
            assert [entry.offset for entry in entries] == list(range(len(entries)))
            interactions = [entry.record for entry in entries if isinstance(entry.record, Interaction)]
            by_id = {interaction.event_id: interaction for interaction in interactions}
            assert len(by_id) == len(interactions), "an interaction was logged twice"
            chosen = {event_id: i.actions[i.chosen].id for event_id, i in by_id.items()}
            assert {event_id: chosen.get(event_id) for event_id in traffic.ranked} == traffic.ranked
            observed = {entry.record.event_id for entry in entries if isinstance(entry.record, Observation)}
            assert set(traffic.rewarded) <= observed
            await _check_rejoin(root, log, joined)
            assert home.catalog.set_asides(loop.loop_id) == []
            [epoch] = home.catalog.epochs(loop.loop_id)
            versions = home.catalog.versions(loop.loop_id)
            newest = max(versions, key=lambda version: version.joined_offset)
            assert newest.learned == (await joined.extent())[1]
            await _check_replay(home, epoch, newest, log, joined)
        finally:
            await log.close()
            await joined.close()
            home.close()

    asyncio.run(check())


async def _check_rejoin(root: Path, log: EventLog, joined: JoinedLog) -> None:
    again = SqliteJoinedLog(root / "again")
    joining = JoiningService(log, again, clock=lambda: 0)
    while await joining.step():
        pass
    first = await joined.read(0, limit=10_000_000)
    second = await again.read(0, limit=10_000_000)
    await again.close()
    assert msgspec.msgpack.encode(second) == msgspec.msgpack.encode(first)


async def _check_replay(home: Home, epoch: Epoch, newest: ModelVersion, log: EventLog, joined: JoinedLog) -> None:
    def fold(model: bytes | None) -> Fold:
        checkpoint = Checkpoint(joined_offset=0, learned=0, learned_to_us=0, model=model)
        return Fold(epoch, checkpoint, exploration=0.02, set_aside=())

    replay = fold(None)
    events, _ = await read_joined(log, joined, 0, limit=newest.joined_offset)
    for event in events:
        replay.take(event, before=lambda _: None)
    assert fold(home.models.get(epoch.loop_id, newest.model_id)).weights() == replay.weights()
