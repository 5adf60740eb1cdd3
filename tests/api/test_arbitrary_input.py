"""Arbitrary JSON thrown at Rank over HTTP: what is accepted is learned, what is not is refused, and nothing dies."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankward.loops import new_loop_settings
from rankward.settings import SETTINGS, LoopSettings
from rankward.telemetry import read_statuses
from tests.service import KEY_HEADER, LoopClient, RunningService, eventually, quoted, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = pytest.mark.slow

NUMBERS = count()
EXAMPLES = 200

# Names and texts with a liking for what has a meaning to somebody: the learner, JSON, the contract, HTML.
WORDS = st.sampled_from(
    [
        *("", "_tag", "_multi", "_label_Action", "_text", "_inc", "FromUrl", "i", "j", "constant", "id", "a|b", "a:b"),
        *(" ", "\t", "\0", "\x7f", "\x80", "é", "🍜", "\u2028", "%", '"', "\\", "null", "NaN", "</script>", "x" * 300),
    ]
)
TEXT = st.text(max_size=20) | WORDS
NUMBER = (
    st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([1e38, 3.5e38, -1e39, 5e-324, 2**63, 2**64, 10**40, -0.0])
)
LEAF = st.none() | st.booleans() | NUMBER | TEXT
ANYTHING = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

# What the contract allows, with a liking for what is odd all the same.
NAME = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    [
        "_tag",
        "_multi",
        "_text",
        "FromUrl",
        "i",
        "j",
        "constant",
        "id",
        "a|b",
        "a:b",
        " ",
        "\x7f",
        "\x80",
        "é",
        "🍜",
        "%",
        '"',
    ]
)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.lists(st.floats(-10, 10), max_size=3)
)
GROUP = st.dictionaries(NAME, st.dictionaries(NAME, VALUE, max_size=3) | VALUE, min_size=1, max_size=4)
ALLOWED = st.lists(GROUP, min_size=1, max_size=3)
OPTIONAL = {"deferActivation": st.none() | st.booleans(), "eventId": st.none() | st.text(max_size=240)}
ALLOWED_RANK = st.fixed_dictionaries(
    {
        "actions": st.lists(
            st.fixed_dictionaries({"id": NAME, "features": ALLOWED}),
            min_size=1,
            max_size=5,
            unique_by=lambda action: str(action["id"]),
        )
    },
    optional={
        **OPTIONAL,
        "contextFeatures": st.none() | ALLOWED,
        "excludedActions": st.none() | st.lists(NAME, max_size=2),
    },
)
ACTION = st.fixed_dictionaries({"id": NAME | TEXT, "features": ALLOWED | ANYTHING}) | ANYTHING
ARBITRARY_RANK = st.fixed_dictionaries(
    {"actions": st.lists(ACTION, max_size=5) | ANYTHING},
    optional={**OPTIONAL, "contextFeatures": ANYTHING, "excludedActions": ANYTHING},
)
BODY = (ALLOWED_RANK | ARBITRARY_RANK | ANYTHING).map(lambda value: json.dumps(_numbered(value)).encode()) | st.binary(
    max_size=60
)


def _numbered(value: Any) -> Any:
    """Give an event that has a name one that no other has, so that each is an event of its own."""
    if isinstance(value, dict) and isinstance(value.get("eventId"), str):
        value = {**value, "eventId": f"{next(NUMBERS)} {value['eventId']}"}
    return value


@pytest.fixture(scope="module")
def target(service: RunningService) -> Iterator[Target]:
    """A loop that joins and learns at once, watched."""
    fast = {"reward_wait": timedelta(milliseconds=200), "model_export_frequency": timedelta(milliseconds=200)}
    with service.passing_loops():
        both = [msgspec.structs.replace(kind, **fast) for kind in (new_loop_settings(), LoopSettings())]
        yield Target(service, [service.new_loop(kind) for kind in both])


class Target:
    """Two loops, one with each preset, and how many of their calls were accepted."""

    def __init__(self, service: RunningService, loops: list[LoopClient]) -> None:
        self.service = service
        self.loops = loops
        self.accepted = {loop.loop: 0 for loop in loops}
        self.deferred = {loop.loop: 0 for loop in loops}
        self.processes = service.children()


def check_refusal(answer: httpx.Response) -> None:
    """Whatever is not accepted is the caller's mistake, said in the contract's shape."""
    error = answer.json()["error"]
    assert 400 <= answer.status_code < 500, answer.text
    assert error["code"] in {"badRequest", "invalidRankRequest", "modelRankingError"}
    assert error["message"]


def check_decision(answer: httpx.Response) -> None:
    """Whatever is accepted is a decision."""
    body = answer.json()
    probabilities = {action["id"]: action["probability"] for action in body["ranking"]}
    assert answer.status_code == 201
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert probabilities[body["rewardActionId"]] > 0


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(body=BODY, reward=st.none() | st.floats(-1, 1))
def test_rank_accepts_or_refuses_whatever_it_is_sent(target: Target, body: bytes, reward: float | None) -> None:
    """201 or a well-formed 4xx."""
    for loop in target.loops:
        answer = loop.call("POST", "/rank", body)
        if answer.status_code != 201:
            check_refusal(answer)
            continue
        check_decision(answer)
        target.accepted[loop.loop] += 1
        event_id = answer.json()["eventId"]
        if json.loads(body).get("deferActivation"):
            target.deferred[loop.loop] += 1
        if reward is not None:
            assert loop.reward(event_id, reward).status_code == 204


def test_what_was_accepted_is_learned_or_set_aside(target: Target) -> None:
    """Every accepted event is joined; every joined one is learned, or set aside with its reason. No process died."""
    service = target.service
    for loop in target.loops:
        accepted, deferred = target.accepted[loop.loop], target.deferred[loop.loop]
        assert accepted > EXAMPLES / 10, "too little was accepted to say anything"
        loop_id = service.loop(loop.loop).loop_id

        def joined(loop_id: str = loop_id) -> int:
            status, _ = read_statuses(service.home.board.read(loop_id))
            return status.counts.get("joined", 0) if status else 0

        def settled(loop_id: str = loop_id, wanted: int = accepted - deferred) -> bool:
            """Whether the epoch that serves has come to the end of the joined log."""
            catalog = service.home.catalog
            serving = [epoch.epoch_id for epoch in catalog.epochs(loop_id)]
            versions = [version for version in catalog.versions(loop_id) if version.epoch_id in serving]
            aside = catalog.set_asides(loop_id)
            assert all(event.reason for event in aside)
            return len(serving) == 1 and max((v.learned for v in versions), default=0) + len(aside) == wanted

        eventually(lambda: joined() == accepted, f"{accepted} accepted events are joined")  # noqa: B023
        eventually(settled, f"{accepted - deferred} events are learned or set aside")
    assert service.children() == target.processes


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"]),
    segments=st.lists(
        st.sampled_from(["personalizer", "v1.0", "events", "rank", "reward", "configurations", "model", "loops", ".."])
        | st.text(max_size=8),
        max_size=6,
    ),
    query=st.text(max_size=20),
)
def test_any_path_is_answered(service: RunningService, method: str, segments: list[str], query: str) -> None:
    """With a status that blames the caller, or does what was asked: never with a mistake of our own."""
    path = "/" + "/".join(map(quoted, segments)) + (f"?{quoted(query)}" if query else "")

    answer = service.send(method, path, headers={KEY_HEADER: service.key("default")})

    assert answer.status_code < 500, path


@pytest.fixture(scope="module")
def changing(service: RunningService) -> LoopClient:
    """A loop whose settings change all the time."""
    return service.new_loop()


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    body=st.dictionaries(
        st.sampled_from([setting.wire for setting in SETTINGS.values() if setting.wire]),
        ANYTHING | st.sampled_from(["PT1S", "00:00:01", "Apprentice", "sum", 0.5]),
        max_size=4,
    )
)
def test_any_configuration_is_taken_or_refused(changing: LoopClient, body: dict[str, Any]) -> None:
    """Never half of it, and never in a way that breaks the next call."""
    before = changing.get("/configurations/service").json()

    answer = changing.call("PUT", "/configurations/service", json.dumps(body).encode())

    after = changing.get("/configurations/service").json()
    assert answer.status_code in {200, 400}
    assert after == (answer.json() if answer.status_code == 200 else before)
    assert changing.rank(request("a", "b")).status_code == 201
