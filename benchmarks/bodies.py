"""Bodies of Rank as an application sends them: varied contexts, and actions that recur."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

CATALOG = 100
"""How many actions there are to offer."""

_DEVICES = ("phone", "tablet", "desktop", "television")
_REGIONS = tuple(f"region-{number}" for number in range(40))
_WORDS = tuple(f"word{number}" for number in range(400))


def action_texts(features: int, *, seed: int) -> list[str]:
    """Write every action there is, each with so many features: a third words, the rest numbers and flags."""
    rng = random.Random(seed)
    texts = []
    for number in range(CATALOG):
        members: dict[str, object] = {}
        for index in range(features):
            kind = index % 3
            members[f"f{index}"] = (
                rng.choice(_WORDS) if kind == 0 else round(rng.random(), 3) if kind == 1 else rng.random() < 0.5
            )
        texts.append(json.dumps({"id": f"article-{number}", "features": [{"dish": members}]}, separators=(",", ":")))
    return texts


def context_text(rng: random.Random) -> str:
    """Write a context: 5 features in 2 groups."""
    visitor = {"device": rng.choice(_DEVICES), "region": rng.choice(_REGIONS), "age": rng.randint(16, 90)}
    moment = {"hour": rng.randint(0, 23), "weekday": rng.randint(0, 6)}
    return json.dumps([{"visitor": visitor}, {"moment": moment}], separators=(",", ":"))


def bodies(actions: int, features: int, *, seed: int) -> Iterator[bytes]:
    """Write bodies without end.

    Args:
        actions: offered in each.
        features: of each action.
        seed: settles them all. The actions themselves are the same for every seed.
    """
    texts = action_texts(features, seed=0)
    rng = random.Random(seed)
    while True:
        offered = ",".join(rng.sample(texts, actions))
        yield f'{{"contextFeatures":{context_text(rng)},"actions":[{offered}]}}'.encode()
