"""A loop with a log to ask: guests who like one dish each, ranked and rewarded over HTTP."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from rankward.settings import LoopSettings
from tests.service import STUDY_S, eventually, quoted

if TYPE_CHECKING:
    from tests.service import LoopClient, RunningService

DISHES = ("soup", "salad", "curry")
LIKED = {"child": "soup", "adult": "curry"}
POLICY = "--cb_explore_adf --epsilon 0.3 --cb_type mtr -q gj -q gi"
SPAN = {"startTime": "2020-01-01", "endTime": "2100-01-01T00:00:00Z"}
V2022 = "2022-09-01-preview"


def guest_loop(service: RunningService, count: int, *, seed: int = 1) -> LoopClient:
    """Make a loop, and let it decide for so many guests, whose waits are over on return."""
    loop = service.new_loop(LoopSettings(model_export_frequency=timedelta(seconds=1)))
    rng = random.Random(seed)
    for number in range(count):
        guest = rng.choice(sorted(LIKED))
        body = {
            "eventId": f"e{number}",
            "contextFeatures": [{"guest": {"is": guest}, "hour": number % 5, "always": "there"}],
            "actions": [{"id": dish, "features": [{"dish": dish}]} for dish in DISHES],
        }
        chosen = loop.rank(body).json()["rewardActionId"]
        loop.reward(f"e{number}", float(rng.random() < (0.9 if LIKED[guest] == chosen else 0.1)))
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) == count, "every event is joined")
    return loop


def asked(name: str = "week 3", policies: tuple[tuple[str, str], ...] = (("mine", POLICY),), **members: Any) -> Any:
    """Make the body of a new evaluation."""
    listed = [{"name": each, "arguments": arguments} for each, arguments in policies]
    return {"name": name, **SPAN, "policies": listed, **members}


def ask(loop: LoopClient, body: Any) -> str:
    """Ask for an evaluation, through v1.x. Returns its id."""
    answer = loop.call("POST", "/evaluations", msgspec.json.encode(body))
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def finished(loop: LoopClient, evaluation_id: str, query: str = "") -> Any:
    """Wait until an evaluation is no more on its way, and read it, through v1.x."""
    path = f"/evaluations/{quoted(evaluation_id)}"
    eventually(lambda: loop.get(path).json()["status"] != "pending", "the evaluation ends", within_s=STUDY_S)
    return loop.get(path + query).json()


def newest(loop: LoopClient, method: str, path: str, body: Any = None, **query: str) -> Any:
    """Call an operation of 2022-09-01-preview."""
    pairs = "&".join(f"{name}={quoted(value)}" for name, value in {"api-version": V2022, **query}.items())
    target = f"/personalizer{path}?{pairs}"
    headers = {"Ocp-Apim-Subscription-Key": loop.key, "Content-Type": "application/json"}
    return loop.service.send(method, target, headers=headers, body=None if body is None else msgspec.json.encode(body))
