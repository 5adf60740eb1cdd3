"""An event that kills the learner is found, set aside durably, and passed over from then on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from rankward.records import Action, Features, Interaction, LearningMode
from tests.service import RunningService, eventually, request

LOOP = "playground"
# With 9.11.9 a group of features named so breaks the learner's memory; the service's own door renames it.
DEADLY = Features('[{"été":{"x":1}}]'.encode())


@pytest.mark.slow
def test_an_event_that_kills_the_learner_is_set_aside_and_the_loop_goes_on(tmp_path: Path) -> None:
    """Else one event would keep a loop from learning for ever."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client(LOOP)
        assert client.rank(request("a", "b", eventId="before")).status_code == 201
        eventually(lambda: bool(_versions(service)), "the event before is learned")
        for number in range(5):  # the damage need not show at the first
            asyncio.run(_append(service, f"deadly-{number}"))
        eventually(lambda: bool(service.home.catalog.set_asides(_id(service))), "a deadly event is set aside")
        assert client.rank(request("a", "b", eventId="after")).status_code == 201
        eventually(lambda: _learned_to_end(service), "the loop has gone on")
        reasons = [aside.reason for aside in service.home.catalog.set_asides(_id(service))]
        assert all("the learner died of SIG" in reason for reason in reasons)
    finally:
        service.close()


def _id(service: RunningService) -> str:
    return service.loop(LOOP).loop_id


def _versions(service: RunningService) -> list[int]:
    return [version.learned for version in service.home.catalog.versions(_id(service))]


def _learned_to_end(service: RunningService) -> bool:
    """Whether everything that is not set aside has been learned and published."""
    joined = len(service.joined(LOOP))
    asides = len(service.home.catalog.set_asides(_id(service)))
    return joined == 7 and max(_versions(service), default=0) == joined - asides


async def _append(service: RunningService, event_id: str) -> None:
    actions = tuple([Action(name, Features(msgspec.json.encode([{"dish": {"name": name}}]))) for name in "ab"])
    log = service.home.event_log(_id(service))
    interaction = Interaction(
        event_id=event_id,
        context=DEADLY,
        actions=actions,
        pmf=(0.5, 0.5),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1_000_000,
    )
    await log.append([interaction])
    await log.close()
