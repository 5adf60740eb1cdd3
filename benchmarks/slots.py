"""The row about Rank for several slots: what a decision costs here beside the learner's own work for it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from statistics import median

from benchmarks.bodies import bodies
from benchmarks.report import Row
from rankward.api.schema.multislot import read_rank, write_rank
from rankward.ranking.explore import slot_seed
from rankward.ranking.features import FeatureBounds
from rankward.ranking.slots import SlotsRequest, decide_slots
from rankward.records import Interactions, LearningMode, MultiSlotInteraction
from rankward.settings import Limits
from rankward.store.sqlite.codec import to_row
from rankward.vw.arguments import ProblemType
from rankward.vw.learner import Learner
from rankward.vw.parser import context_text
from rankward.vw.presets import BALANCED, derive_interactions, learner_arguments, namespace_letters
from rankward.vw.slots import seed_head, with_slots

_ACTIONS = 10
_SLOTS = ("hero", "side", "foot")
_REQUESTS = 200
_LOOP_ID = "benchmark"


class _Model(Learner):
    model_id = "1-200"


def slots(quick: bool) -> Iterator[Row]:
    """The whole way but HTTP and the disk: read, check, decide, write the record and the answer."""
    texts = [_with_slots(text) for text in islice(bodies(_ACTIONS, 5, seed=1), _REQUESTS)]
    limits, bounds = Limits(), FeatureBounds()
    requests = [read_rank(text, limits=limits, bounds=bounds)[0] for text in texts]
    model = _taught(requests)
    runs = [(_learner_us(requests, model), _whole_us(texts, model, limits, bounds)) for _ in range(3 if quick else 9)]
    alone, whole = (median(part) for part in zip(*runs, strict=True))
    yield Row(
        f"Rank for {len(_SLOTS)} slots, {_ACTIONS} actions, but HTTP and the disk, against the learner by itself",
        f"{whole:.0f} µs",
        f"{alone:.0f} µs",
        f"{whole / alone:.2f}",
        "none",
        None,
    )


def _with_slots(body: bytes) -> bytes:
    request = json.loads(body)
    request["slots"] = [
        {"id": slot, "features": [{"place": {"name": slot}}], "baselineAction": request["actions"][index]["id"]}
        for index, slot in enumerate(_SLOTS)
    ]
    return json.dumps(request, separators=(",", ":")).encode()


def _taught(requests: list[SlotsRequest]) -> _Model:
    letters = namespace_letters(requests[0].context, requests[0].actions, requests[0].slots)
    policy = BALANCED.policy(ProblemType.MULTI_SLOT).text
    model = _Model(learner_arguments(policy, Interactions(*derive_interactions(*letters)), 0.02))
    rng = random.Random(3)
    for request in requests:
        decided = _decide(request, model)
        rewards = [rng.random() for _ in decided.slots]
        model.learn_slots(decided.context, decided.actions, decided.slots, decided.choices, rewards)
    return model


def _decide(request: SlotsRequest, model: _Model) -> MultiSlotInteraction:
    return decide_slots(request, model, loop_id=_LOOP_ID, mode=LearningMode.ONLINE, reward_wait_us=600_000_000)


def _learner_us(requests: list[SlotsRequest], model: _Model) -> float:
    """Have the binding's lower layer parse and score, and nothing else."""
    texts = []
    for request in requests:
        seeds = [slot_seed(_LOOP_ID, request.event_id, index) for index in range(len(request.slots))]
        context = context_text(request.context, request.actions)
        texts.append(with_slots(context, request.slots, len(request.actions), map(seed_head, seeds)))
    workspace = model._workspace
    begun = time.perf_counter()
    for text in texts:
        examples = workspace._parse(text)
        workspace.predict_multi(examples)
        examples[0].get_decision_scores()
        workspace._finish_example_multi_ex(examples)
    return (time.perf_counter() - begun) / len(texts) * 1e6


def _whole_us(texts: list[bytes], model: _Model, limits: Limits, bounds: FeatureBounds) -> float:
    begun = time.perf_counter()
    for text in texts:
        decided = _decide(read_rank(text, limits=limits, bounds=bounds)[0], model)
        to_row(decided)
        write_rank(decided, probabilities=False)
    return (time.perf_counter() - begun) / len(texts) * 1e6
