"""The log's properties and removal over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.service import request

if TYPE_CHECKING:
    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow


@pytest.fixture
def loop(service: RunningService) -> LoopClient:
    """A loop of one's own."""
    return service.new_loop()


def test_an_empty_log_has_no_range(loop: LoopClient) -> None:
    """`{}` and 200, not 404."""
    answer = loop.get("/logs/properties")

    assert answer.status_code == 200
    assert answer.json() == {}


def test_settings_and_rewards_alone_make_no_range(loop: LoopClient) -> None:
    """The range is that of the interactions."""
    loop.put("/configurations/service", {"rewardWaitTime": "PT1H"})
    loop.reward("e1", 1)

    assert loop.get("/logs/properties").json() == {}


def test_the_range_is_in_whole_days(loop: LoopClient) -> None:
    """From the first day's start to the last day's end."""
    days = [datetime.now(UTC).date()]
    loop.rank(request("a", "b"))
    days.append(datetime.now(UTC).date())

    dates = loop.get("/logs/properties").json()["dateRange"]

    whole = [(f"{day}T00:00:00Z", f"{day + timedelta(days=1)}T00:00:00Z") for day in days]
    assert (dates["from"], dates["to"]) in whole, "midnight may have passed just before it, or just after"


def test_deleted_logs_are_gone_and_ranking_goes_on(service: RunningService, loop: LoopClient) -> None:
    """All interactions and rewards; a repeated event id is new again."""
    loop.rank(request("a", "b", eventId="e1"))
    loop.reward("e1", 1)

    assert loop.delete("/logs").status_code == 204

    assert loop.get("/logs/properties").json() == {}
    assert service.records(loop.loop) == []
    assert loop.rank(request("a", "b", eventId="e1")).status_code == 201
    assert [record.event_id for record in service.records(loop.loop)] == ["e1"]
