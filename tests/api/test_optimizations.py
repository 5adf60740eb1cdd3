"""Optimizations over HTTP and by command: begun, followed, read; and how the contract shows their evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rankward.api.operation import P3, V1_0
from rankward.settings import LoopSettings
from tests.api.guests import guest_loop, newest
from tests.api.test_admin import admin, code
from tests.api.test_remote_commands import run, said, told
from tests.service import STUDY_S, LoopClient, RunningService, eventually

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop with a log, and a model that serves and has learned all of it: so no other is published."""
    made = guest_loop(service, 60, seed=5)
    service.wait_until_learned(made.loop, 60)
    return made


def begun(service: RunningService, loop: LoopClient, body: Any) -> httpx.Response:
    """Begin a run, once the one before has ended."""
    eventually(lambda: all(each["ended_us"] for each in runs(service, loop)), "no run goes on", within_s=STUDY_S)
    return admin(service, "POST", f"/loops/{loop.loop}/optimizations", body)


def runs(service: RunningService, loop: LoopClient) -> list[Any]:
    """The runs of a loop, newest first."""
    found: list[Any] = admin(service, "GET", f"/loops/{loop.loop}/optimizations").json()["runs"]
    return found


def ended(service: RunningService, loop: LoopClient, optimization_id: str) -> Any:
    """A run, when nothing more comes of it."""
    path = f"/loops/{loop.loop}/optimizations/{optimization_id}"
    eventually(
        lambda: admin(service, "GET", path).json()["ended_us"] is not None, "the run has ended", within_s=STUDY_S
    )
    return admin(service, "GET", path).json()


def test_a_run_is_begun_followed_and_read(service: RunningService, loop: LoopClient) -> None:
    """Of so short a log nothing can be found, and its history says so."""
    before = service.loop(loop.loop)
    answer = begun(service, loop, {})
    assert answer.status_code == 201
    assert (answer.json()["state"], answer.json()["due_us"]) == ("searching", None)

    run = ended(service, loop, answer.json()["optimization_id"])

    assert (run["state"], run["promoted"], run["applied_us"]) == ("retained", None, None)
    assert "too few decisions to search by" in run["why"]
    assert [step["what"].split(":")[0] for step in run["steps"]] == ["begun", "retained"]
    assert runs(service, loop)[0] == run
    assert service.loop(loop.loop) == before
    figure = f'rankward_optimizations{{loop="{loop.loop}",state="retained"}}'
    eventually(lambda: figure in service.send("GET", "/metrics", headers={}, body=None).text, "it is counted")


def test_its_evaluation_is_shown_as_automatic(service: RunningService, loop: LoopClient) -> None:
    """As the contract has it, with the outcome as its status."""
    run = ended(service, loop, begun(service, loop, {}).json()["optimization_id"])
    evaluation_id = run["evaluation_id"]
    first, third = (loop.at(version).get(f"/evaluations/{evaluation_id}").json() for version in (V1_0, P3))
    assert (third["evaluationType"], third["status"]) == ("Auto", "onlinePolicyRetained")
    assert first["status"] == "completed", "v1.0 knows no other word"
    listed = newest(loop, "GET", "/evaluations", filter="evaluationType eq 'Auto'").json()["value"]
    assert evaluation_id in [each["id"] for each in listed if each["status"] == "OnlinePolicyRetained"]
    assert loop.delete(f"/evaluations/{evaluation_id}").status_code == 204
    assert runs(service, loop)[0] == run, "what the run came to stays on record"


def test_what_cannot_be_begun_is_refused_with_a_reason(service: RunningService, loop: LoopClient) -> None:
    """Whoever asked can do something about it."""
    fresh = service.new_loop(LoopSettings())
    path = f"/loops/{fresh.loop}/optimizations"
    answer = admin(service, "POST", path, {})
    assert (answer.status_code, "no model serves" in answer.json()["error"]["message"]) == (400, True)
    assert admin(service, "GET", path).json() == {
        "next_us": None,
        "obstacle": "no model serves yet, so there is nothing to be better than: wait for the first one",
        "runs": [],
    }
    assert admin(service, "POST", path, {"dry_run": "perhaps"}).status_code == 400
    missing = admin(service, "GET", f"{path}/000000000000")
    assert (missing.status_code, code(missing)) == (404, "resourceNotFound")
    assert admin(service, "POST", "/loops/nowhere/optimizations", {}).status_code == 404


def test_a_command_begins_and_shows_them(service: RunningService, loop: LoopClient) -> None:
    """On a service elsewhere, as on a data folder."""
    eventually(lambda: all(each["ended_us"] for each in runs(service, loop)), "no run goes on", within_s=STUDY_S)
    name = loop.loop
    shown = told(service, "optimize", name, "--dry-run")
    assert shown["dry_run"]
    run_id = shown["optimization_id"]
    ended(service, loop, run_id)
    assert run_id in said(service, "optimize", name, "--history")
    assert "Automatic optimization is off" in said(service, "optimize", name, "--history")
    assert "retained" in said(service, "optimize", name, "--run", run_id)
    assert told(service, "optimize", name, "--history")["runs"][0]["optimization_id"] == run_id
    assert run(service, "optimize", name, "--history", "--dry-run").exit_code == 1
    said(service, "settings", "set", name, "is_auto_optimization_enabled=true")
    assert "is due at" in said(service, "optimize", name, "--history")
