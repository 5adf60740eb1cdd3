"""Log mirroring as the contract sets it, on a running service."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rankward.settings import LoopSettings
from tests.service import ADMIN_KEY, KEY_HEADER, eventually, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service import RunningService

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "changes",
    [
        {"logMirrorEnabled": True},
        {"logMirrorEnabled": True, "logMirrorSasUri": "file:///tmp/anywhere"},
        {"logMirrorEnabled": True, "logMirrorSasUri": "s3://somebody/else"},
        {"logMirrorEnabled": True, "logMirrorSasUri": "http://127.0.0.1:9/a/c?sig=x"},
        {"logMirrorEnabled": True, "logMirrorSasUri": "https://127.0.0.1:9/account/container?sig=x"},
        {"logMirrorEnabled": True, "logMirrorSasUri": "nonsense"},
    ],
)
def test_a_place_that_cannot_be_mirrored_to_is_refused(service: RunningService, changes: dict[str, object]) -> None:
    """And an application cannot choose one that the service's own rights open."""
    loop = service.new_loop()
    before = loop.get("/configurations/service").json()

    answer = loop.put("/configurations/service", changes)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalidContainer"
    assert loop.get("/configurations/service").json() == before


def test_a_running_service_mirrors_what_it_joins(service: RunningService, tmp_path: Path) -> None:
    """Set by the operator; the first lines come at once."""
    with service.passing_loops():
        loop = service.new_loop(LoopSettings(reward_wait=timedelta(milliseconds=100)))
        body = {"log_mirror_enabled": "true", "log_mirror_sas_uri": f"file://{tmp_path}/mirror"}
        answer = service.send(
            "PATCH",
            f"/admin/loops/{loop.loop}/settings",
            headers={KEY_HEADER: ADMIN_KEY},
            body=json.dumps(body).encode(),
        )
        assert answer.status_code == 200
        assert (tmp_path / "mirror" / "rankward-mirror.txt").exists(), "it was tried before it was set"
        loop_id = service.loop(loop.loop).loop_id
        eventually(lambda: "mirroring" in service.home.board.read(loop_id), "the mirror is at work")
        loop.rank(request("a", "b", eventId="seen"))
        loop.reward("seen", 0.5)
        eventually(
            lambda: any("seen" in path.read_text() for path in (tmp_path / "mirror").rglob("*.json")),
            "the event is mirrored",
        )
