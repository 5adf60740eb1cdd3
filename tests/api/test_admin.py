"""Administration over HTTP: what the admin key may do, and what others may not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rankward.api.admin import ADMIN_OPERATIONS
from rankward.settings import LoopSettings
from tests.service import ADMIN_KEY, KEY_HEADER, eventually, request

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.service import RunningService

pytestmark = pytest.mark.slow

QUICK = LoopSettings(
    reward_wait=timedelta(milliseconds=100),
    model_export_frequency=timedelta(milliseconds=100),
    policy="--cb_explore_adf --epsilon 0.2 --cb_type mtr -l 0.5",
    preset=None,
)


def admin(service: RunningService, method: str, path: str, body: Any = None, *, key: str = ADMIN_KEY) -> httpx.Response:
    """Call an operation."""
    content = None if body is None else json.dumps(body).encode()
    return service.send(method, f"/admin{path}", headers={KEY_HEADER: key}, body=content)


def code(answer: httpx.Response) -> str:
    """The code of a refusal."""
    found: str = answer.json()["error"]["code"]
    return found


@pytest.mark.parametrize("operation", ADMIN_OPERATIONS, ids=lambda operation: operation.name)
def test_nothing_is_administered_without_the_admin_key(service: RunningService, operation: Any) -> None:
    """A loop's key opens that loop, and no operation here."""
    loop = service.new_loop()
    names = {"slot": "1", "model": "x", "challenger": "x", "optimization": "x", "key": "x"}
    path = operation.path.removeprefix("/admin").format(loop=loop.loop, **names)
    path += f"?confirm={loop.loop}"

    assert admin(service, operation.method, path, {}, key="").status_code == 401
    assert admin(service, operation.method, path, {}, key="wrong").status_code == 401
    refused = admin(service, operation.method, path, {}, key=loop.key)
    assert (refused.status_code, code(refused)) == (403, "invalidApiAccess")
    assert loop.rank(request("a", "b")).status_code == 201, "the loop is still there"


def test_a_loop_is_made_used_and_removed(service: RunningService) -> None:
    """Its keys work from the answer on, and open nothing once it is gone."""
    with service.passing_loops():
        created = admin(service, "POST", "/loops", {"name": "by-admin", "preset": "personalizer"})
        assert created.status_code == 201
        keys = [each["key"] for each in created.json()["keys"]]
        assert created.json()["loop"]["preset"] == "personalizer"
        assert "by-admin" in [each["name"] for each in admin(service, "GET", "/loops").json()]
        body = json.dumps(request("a", "b")).encode()
        for key in keys:
            answer = service.send("POST", "/personalizer/v1.0/rank", headers={KEY_HEADER: key}, body=body)
            assert answer.status_code == 201

        unsure = admin(service, "DELETE", "/loops/by-admin")
        assert (unsure.status_code, code(unsure)) == (400, "invalidRequest")
        assert admin(service, "DELETE", "/loops/by-admin?confirm=other").status_code == 400
        assert admin(service, "DELETE", "/loops/by-admin?confirm=by-admin").status_code == 204
        assert admin(service, "GET", "/loops/by-admin").status_code == 404
        answer = service.send("POST", "/personalizer/v1.0/rank", headers={KEY_HEADER: keys[0]}, body=body)
        assert answer.status_code == 401


def test_a_key_is_replaced_while_the_other_stays(service: RunningService) -> None:
    """So that an application can be moved from one to the other."""
    loop = service.new_loop()
    masked = admin(service, "GET", f"/loops/{loop.loop}/keys").json()
    assert masked[0]["shown"] == loop.key[:4] + "•" * 12

    made = admin(service, "POST", f"/loops/{loop.loop}/keys/1/regenerate")

    assert made.status_code == 200
    renewed = {KEY_HEADER: made.json()["key"]}
    body = json.dumps(request("a", "b")).encode()
    assert service.send("POST", "/personalizer/v1.0/rank", headers=renewed, body=body).status_code == 201
    assert loop.rank(request("a", "b")).status_code == 401
    other = {KEY_HEADER: service.key(loop.loop, 2)}
    assert service.send("POST", "/personalizer/v1.0/rank", headers=other, body=body).status_code == 201
    assert admin(service, "POST", f"/loops/{loop.loop}/keys/3/regenerate").status_code == 404


def test_settings_and_policy_are_changed_and_the_effects_told(service: RunningService) -> None:
    """By the names that the command line has."""
    loop = service.new_loop()
    settings = admin(service, "PATCH", f"/loops/{loop.loop}/settings", {"reward_wait": "20m", "exploration": "0.1"})
    policy = admin(service, "PUT", f"/loops/{loop.loop}/policy", {"preset": "balanced"})

    assert settings.json()["after"] == {"reward_wait": "PT20M", "exploration": "0.1", "policy": ANY_EPSILON}
    assert admin(service, "GET", f"/loops/{loop.loop}/settings").json()["reward_wait"] == "PT20M"
    assert any("in the background" in effect for effect in policy.json()["effects"])
    shown = admin(service, "GET", f"/loops/{loop.loop}/policy").json()
    assert shown["preset"] == "balanced"
    assert "changed: preset, policy" in shown["epochs"][-1]["reason"]
    assert admin(service, "DELETE", f"/loops/{loop.loop}/policy").json()["after"]["preset"] == "personalizer"


def test_what_a_loop_earns_is_told(service: RunningService) -> None:
    """For dashboards of one's own: the same as the portal shows."""
    loop = service.new_loop()
    path = f"/loops/{loop.loop}"
    earnings = admin(
        service, "GET", f"{path}/earnings?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00%2B00:00&step=2h"
    )
    assert earnings.json()["step_us"] >= 7_200_000_000
    assert earnings.json()["points"] == []
    assert admin(service, "GET", f"{path}/earnings").json()["total"]["events"] == 0
    assert admin(service, "GET", f"{path}/actions").json()["actions"] == []
    assert admin(service, "GET", f"{path}/comparison").json()["against_baseline"] == "undecided"
    assert admin(service, "GET", f"{path}/apprentice").json()["advice"] == "none"
    assert admin(service, "GET", f"{path}/exploration").json()["advice"] == "unknown"


SLOTS = "--ccb_explore_adf"
ANY_EPSILON = "--cb_explore_adf --epsilon 0.1 --power_t 0 -l 0.001 --cb_type mtr -q ::"


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/loops", {"name": "No Such Name"}, (400, "badRequest")),
        ("POST", "/loops", {"name": "x", "preset": "none"}, (400, "badRequest")),
        ("POST", "/loops", {}, (400, "invalidRequest")),
        ("POST", "/loops", {"name": 3}, (400, "invalidRequest")),
        ("POST", "/loops", {"name": "default"}, (503, "operationNotAllowed")),
        ("GET", "/loops/none", None, (404, "resourceNotFound")),
        ("GET", "/loops/none/comparison", None, (404, "resourceNotFound")),
        ("GET", "/loops/default/earnings?from=yesterday", None, (400, "invalidRequest")),
        ("GET", "/loops/default/earnings?step=often", None, (400, "invalidRequest")),
        ("GET", "/loops/default/earnings?step=7s", None, (400, "invalidRequest")),
        ("GET", "/loops/default/earnings?from=2026-01-02&to=2026-01-01", None, (400, "invalidRequest")),
        ("GET", "/loops/default/actions?to=never", None, (400, "invalidRequest")),
        ("PATCH", "/loops/default/settings", {"reward_wait": "soon"}, (400, "invalidServiceConfiguration")),
        ("PATCH", "/loops/default/settings", {"reward_wait": "-5s"}, (400, "invalidServiceConfiguration")),
        ("PATCH", "/loops/default/settings", {"policy": "x"}, (400, "invalidServiceConfiguration")),
        ("PATCH", "/loops/default/settings", {"no_such": "1"}, (400, "invalidServiceConfiguration")),
        ("PATCH", "/loops/default/settings", {"exploration": 0.5}, (400, "invalidRequest")),
        ("PUT", "/loops/default/policy", {}, (400, "invalidPolicyConfiguration")),
        ("PUT", "/loops/default/policy", {"arguments": "a", "preset": "b"}, (400, "invalidPolicyConfiguration")),
        ("PUT", "/loops/default/policy", {"arguments": "--daemon"}, (400, "invalidPolicyConfiguration")),
        ("GET", "/loops/none/challengers", None, (404, "resourceNotFound")),
        ("GET", "/loops/none/imports", None, (404, "resourceNotFound")),
        ("DELETE", "/loops/default/imports/none", None, (404, "resourceNotFound")),
        ("POST", "/loops/default/policy/keep", None, (503, "operationNotAllowed")),
        ("PUT", "/loops/default/challengers/x", {}, (400, "invalidPolicyConfiguration")),
        ("PUT", "/loops/default/challengers/x", {"preset": "none"}, (400, "invalidPolicyConfiguration")),
        ("PUT", "/loops/default/challengers/x", {"arguments": "--daemon"}, (400, "invalidPolicyConfiguration")),
        (
            "PUT",
            "/loops/default/challengers/x",
            {"arguments": SLOTS},
            (400, "invalidPolicyConfiguration"),
        ),
        ("PUT", "/loops/default/challengers/No%20Name", {"preset": "balanced"}, (400, "badRequest")),
        ("DELETE", "/loops/default/challengers/none", None, (404, "resourceNotFound")),
        ("POST", "/loops/default/challengers/none/promote", None, (404, "resourceNotFound")),
        ("GET", "/loops/default/models/none", None, (404, "resourceNotFound")),
        ("POST", "/loops/default/models/none/promote", None, (404, "resourceNotFound")),
        ("GET", "/loops/default/models/compare", None, (400, "invalidRequest")),
        ("GET", "/loops/default/models/compare?first=a&second=b", None, (404, "resourceNotFound")),
    ],
)
def test_bad_input_is_refused(
    service: RunningService, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    """In the contract's shape, with nothing changed."""
    before = admin(service, "GET", "/loops").json()

    answer = admin(service, method, path, body)

    assert (answer.status_code, code(answer)) == expected
    assert admin(service, "GET", "/loops").json() == before


def test_models_are_listed_compared_promoted_and_forgotten(service: RunningService) -> None:
    """Two versions, one that has hardly learned, and one that has."""
    with service.passing_loops():
        loop = service.new_loop(QUICK)
        place = f"/loops/{loop.loop}"

        def models() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = admin(service, "GET", f"{place}/models").json()
            return found

        def learned(count: int) -> Callable[[], bool]:
            return lambda: count in [each["version"]["learned"] for each in models()]

        for begin, end in ((0, 20), (20, 60)):
            for n in range(begin, end):
                shown = loop.rank(request("ramen", "pasta", eventId=f"e{n}")).json()["rewardActionId"]
                loop.reward(f"e{n}", 1.0 if shown == "pasta" else 0.0)
            eventually(learned(end), f"{end} are learned")
        versions = models()
        newest, oldest = versions[0]["version"]["model_id"], versions[-1]["version"]["model_id"]

        same = admin(service, "GET", f"{place}/models/compare?first={newest}&second={newest}").json()
        other = admin(service, "GET", f"{place}/models/compare?first={newest}&second={oldest}").json()
        assert (same["same_best_share"], same["distance_max"]) == (1.0, 0.0)
        assert same["decisions"] == other["decisions"] == 60
        assert 0.0 <= other["distance_mean"] <= other["distance_max"] <= 1.0

        content = admin(service, "GET", f"{place}/models/{oldest}")
        assert len(content.content) == versions[-1]["version"]["size_bytes"]
        assert admin(service, "POST", f"{place}/models/{oldest}/promote").json()["model_id"] == oldest
        assert [each["version"]["model_id"] for each in models() if each["serving"]] == [oldest]
        assert admin(service, "DELETE", f"{place}/models").json()["model_id"] is None
        report = admin(service, "GET", f"{place}/doctor").json()
        assert report["counts"]["joined"] == 60


def test_challengers_learn_beside_the_loop_and_are_promoted(service: RunningService) -> None:
    """Added, followed, promoted, removed: the worker runs them, and what one has learned serves at once."""
    loop = service.new_loop(QUICK)
    path = f"/loops/{loop.loop}/challengers"
    assert admin(service, "GET", path).json() == []
    added = admin(service, "PUT", f"{path}/ours", {"preset": "balanced"})
    assert added.status_code == 201
    assert (added.json()["preset"], added.json()["decisions"], added.json()["verdict"]) == ("balanced", 0, "unknown")
    assert admin(service, "PUT", f"{path}/ours", {"preset": "balanced"}).status_code == 503, "its name is taken"
    for number in range(4):
        assert admin(service, "PUT", f"{path}/x{number}", {"arguments": QUICK.policy}).status_code == 201
    assert admin(service, "PUT", f"{path}/x9", {"arguments": QUICK.policy}).status_code == 503, "there are five"
    for number in range(4):
        assert admin(service, "DELETE", f"{path}/x{number}").status_code == 204
    for number in range(30):
        assert loop.rank(request("a", "b", eventId=f"e{number}")).status_code == 201

    def stands() -> bool:
        [ours] = admin(service, "GET", path).json()
        return bool(ours["decisions"] == 30 and ours["behind"] == 0)

    eventually(stands, "it was judged by every decision")
    [ours] = admin(service, "GET", path).json()
    assert ours["ahead_low"] <= ours["ahead"] <= ours["ahead_high"]
    assert ours["reward_low"] <= ours["reward"] <= ours["reward_high"]
    assert ours["state"] == "running"

    def is_measured() -> bool:
        metrics = service.send("GET", "/metrics", headers={}, body=None).text
        labels = [f'challenger="ours",figure="{each}",loop="{loop.loop}"' for each in ("estimate", "low", "high")]
        return all(f"rankward_challenger_ahead{{{each}}}" in metrics for each in labels)

    eventually(is_measured, "the metrics show it")
    rows = {each["name"]: each for each in admin(service, "GET", f"/loops/{loop.loop}/doctor").json()["figures"]}
    assert "30 decisions" in rows["challenger ours"]["remark"]

    def promotes() -> bool:
        loop.rank(request("a", "b"))  # it learns up to what would have been published by the newest decision
        return admin(service, "POST", f"{path}/ours/promote").status_code == 200

    eventually(promotes, "what it has learned is kept, and serves")
    assert admin(service, "GET", path).json() == []
    assert admin(service, "GET", f"/loops/{loop.loop}/policy").json()["preset"] == "balanced"
    models = admin(service, "GET", f"/loops/{loop.loop}/models").json()
    assert any(each["version"]["model_id"].startswith("challenger-") for each in models)


def test_events_are_forgotten_by_id_and_by_subject(service: RunningService) -> None:
    """While the service runs: they are in its log no more."""
    loop = service.new_loop()
    for event_id, subject in (("e1", "ann"), ("e2", "ann"), ("e3", "bob"), ("e4", None)):
        assert loop.rank(request("a", "b", eventId=event_id, subject=subject)).status_code == 201
        loop.reward(event_id, 1.0)
    place = f"/loops/{loop.loop}/forget"

    assert admin(service, "POST", place, {"event_ids": ["e4", "unknown"]}).json() == {"events": 1, "records": 2}
    assert admin(service, "POST", place, {"subject": "ann"}).json() == {"events": 2, "records": 4}

    left = {getattr(record, "event_id", None) for record in service.records(loop.loop)} - {None}
    assert left == {"e3"}
    refused = admin(service, "POST", place, {})
    assert (refused.status_code, code(refused)) == (400, "invalidRequest")
    assert loop.rank(request("a", subject="")).status_code == 400
    assert loop.rank(request("a", subject="x" * 257)).status_code == 400
