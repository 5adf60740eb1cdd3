"""Feature importances over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.guests import SPAN, guest_loop, newest
from tests.service import STUDY_S, LoopClient, eventually

if TYPE_CHECKING:
    from tests.service import RunningService

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop with a log, which no test changes."""
    return guest_loop(service, 160, seed=5)


def test_features_are_scored_from_the_best_down(loop: LoopClient) -> None:
    """Normalised to 1, sorted, under the learner's own namespaces; then it is listed, and deleted."""
    created = newest(loop, "PUT", "/featureImportances/f%201", {"name": "which", **SPAN})
    again = newest(loop, "PUT", "/featureImportances/f%201", {"name": "which", **SPAN})
    assert (created.status_code, created.content) == (200, b"")
    assert (again.status_code, again.json()["error"]["code"]) == (400, "featureImportanceAlreadyExists")

    def read() -> dict[str, object]:
        found: dict[str, object] = newest(loop, "GET", "/featureImportances/f%201").json()
        return found

    eventually(lambda: read()["status"] != "Running", "it ends", within_s=STUDY_S)
    body = newest(loop, "GET", "/featureImportances/f%201").json()
    scores = [each["score"] for each in body["featureScores"]]
    names = {(each["namespace"], each["featureName"]) for each in body["featureScores"]}
    assert (body["id"], body["name"], body["status"]) == ("f 1", "which", "Succeeded")
    assert names == {("guest", "is"), ("FromUrl", "hour"), ("FromUrl", "always"), ("j", "dish"), ("i", "id")}
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    constant = next(each for each in body["featureScores"] if each["featureName"] == "always")
    assert constant["score"] == 0, "what every decision has alike cannot matter"

    assert "rankward" not in body, "the contract's shape is the contract's"
    detailed = newest(loop, "GET", "/featureImportances/f%201", details="true").json()
    known = {(each["namespace"], each["featureName"]): each for each in detailed["rankward"]}
    assert known.keys() == names
    assert known["FromUrl", "always"]["remarks"] == ["constant"]
    assert known["FromUrl", "always"]["leftOut"] is None
    assert known["i", "id"]["sharedWith"] == ["j.dish"]
    for way in ("leftOut", "permuted"):
        low, high = known["guest", "is"][way]["interval"]
        assert low <= known["guest", "is"][way]["value"] <= high

    [entry] = newest(loop, "GET", "/featureImportances").json()["value"]
    assert entry.keys() == {"id", "name", "startTime", "endTime", "creationTime", "status"}
    assert newest(loop, "DELETE", "/featureImportances/f%201").status_code == 204
    gone = newest(loop, "GET", "/featureImportances/f%201")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "featureImportanceNotFound")
    assert newest(loop, "DELETE", "/featureImportances/f%201").status_code == 404
