"""A shop learned through the real client: ranked and rewarded over HTTP, joined, trained and served as it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from azure.cognitiveservices.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer.models import RankableAction, RankRequest
from msrest.authentication import CognitiveServicesCredentials

from rankward.loops import new_loop_settings
from rankward.records import Interaction
from rankward.settings import LoopSettings
from rankward.simulate.world import Round
from rankward.simulate.worlds import make_world
from tests.service import RunningService, eventually

WAVES = 10  # after each, its waits are over, and what was learned serves
LAST_WAVES = 2  # that are judged
CLIENTS = 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "events", "share_of_optimum"),
    [(new_loop_settings(), 2_000, 0.95), (LoopSettings(), 5_000, 0.86)],
    ids=["balanced", "personalizer"],
)
def test_a_shop_is_learned_through_the_real_client(
    tmp_path: Path, settings: LoopSettings, events: int, share_of_optimum: float
) -> None:
    """Ten models, each behind the decisions by a tenth of all: this is what an application gets.

    Without a model, it gets 0.7.
    """
    world = make_world("grocery")
    rounds = world.rounds(np.random.default_rng(7))
    [probe] = islice(world.rounds(np.random.default_rng(8)), 1)
    lock = threading.Lock()
    service = RunningService(tmp_path).start()
    played: list[tuple[float, float]] = []
    try:
        loop = service.new_loop(msgspec.structs.replace(settings, model_export_frequency=timedelta(milliseconds=100)))
        clients = [_client(service.url, loop.key) for _ in range(CLIENTS)]
        each = events // WAVES // CLIENTS
        with ThreadPoolExecutor(CLIENTS) as pool:
            for wave in range(WAVES):
                for pairs in pool.map(lambda client: list(_play(client, rounds, lock, each)), clients):
                    played += pairs
                service.pass_time(loop.loop)
                _wait_until_served(service, loop.loop, clients[0], probe, learned=(wave + 1) * each * CLIENTS)
    finally:
        service.close()
    last = played[-LAST_WAVES * events // WAVES :]
    got, best = (float(np.mean([pair[column] for pair in last])) for column in (0, 1))
    assert got >= share_of_optimum * best, f"{got / best:.3f} of the optimum"


def _wait_until_served(service: RunningService, name: str, client: Any, probe: Round, *, learned: int) -> None:
    """Wait until decisions are made with a model that has learned so many events."""

    def decides() -> bool:
        event_id = _rank(client, probe, defer_activation=True).event_id  # never activated: nothing is learned from it
        [used] = [each.model_id for each in service.records(name) if _is_decision(each, event_id)]
        return bool(used == service.loop(name).model_id)

    service.wait_until_learned(name, learned)
    eventually(decides, f"a model decides that has learned {learned} events")


def _is_decision(record: object, event_id: str) -> bool:
    return isinstance(record, Interaction) and record.event_id == event_id


def _client(endpoint: str, key: str) -> Any:
    untyped: Any = PersonalizerClient
    return untyped(endpoint, CognitiveServicesCredentials(key))


def _play(client: Any, rounds: Iterator[Round], lock: threading.Lock, count: int) -> Iterator[tuple[float, float]]:
    """Rank and reward, and say what each decision got and what the best would have got."""
    for _ in range(count):
        with lock:
            [played] = islice(rounds, 1)
        answer = _rank(client, played)
        index = [action_id for action_id, _ in played.actions].index(answer.reward_action_id)
        got = float(played.means[index])
        client.events.reward(answer.event_id, got)
        yield got, float(played.means.max())


def _rank(client: Any, asked: Round, *, defer_activation: bool = False) -> Any:
    actions = [RankableAction(id=action_id, features=features) for action_id, features in asked.actions]
    request = RankRequest(actions=actions, context_features=asked.context, defer_activation=defer_activation)
    return client.rank(request)
