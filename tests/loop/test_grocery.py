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

from rankward.settings import LoopSettings
from rankward.simulate.world import Round
from rankward.simulate.worlds import make_world
from rankward.wiring import new_loop_settings
from tests.service import RunningService

EVENTS = 5_000
LAST = 1_000
CLIENTS = 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "share_of_optimum"),
    [(new_loop_settings(), 0.96), (LoopSettings(), 0.86)],
    ids=["balanced", "personalizer"],
)
def test_a_shop_is_learned_through_the_real_client(
    tmp_path: Path, settings: LoopSettings, share_of_optimum: float
) -> None:
    """With a reward wait of one second and a model a second, nobody helps it: this is what an application gets."""
    world = make_world("grocery")
    rounds = world.rounds(np.random.default_rng(7))
    lock = threading.Lock()
    service = RunningService(tmp_path).start()
    quick = {"reward_wait": timedelta(seconds=1), "model_export_frequency": timedelta(seconds=1)}
    try:
        loop = service.new_loop(msgspec.structs.replace(settings, **quick))
        clients = [_client(service.url, loop.key) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            played = list(pool.map(lambda client: list(_play(client, rounds, lock, EVENTS // CLIENTS)), clients))
    finally:
        service.close()
    # The last of each client were the last of all: they ran side by side.
    last = [pair for pairs in played for pair in pairs[-LAST // CLIENTS :]]
    got, best = (float(np.mean([pair[column] for pair in last])) for column in (0, 1))
    assert got >= share_of_optimum * best, f"{got / best:.3f} of the optimum"


def _client(endpoint: str, key: str) -> Any:
    untyped: Any = PersonalizerClient
    return untyped(endpoint, CognitiveServicesCredentials(key))


def _play(client: Any, rounds: Iterator[Round], lock: threading.Lock, count: int) -> Iterator[tuple[float, float]]:
    """Rank and reward, and say what each decision got and what the best would have got."""
    for _ in range(count):
        with lock:
            [played] = islice(rounds, 1)
        actions = [RankableAction(id=action_id, features=features) for action_id, features in played.actions]
        answer = client.rank(RankRequest(actions=actions, context_features=played.context))
        index = [action_id for action_id, _ in played.actions].index(answer.reward_action_id)
        got = float(played.means[index])
        client.events.reward(answer.event_id, got)
        yield got, float(played.means.max())
