"""An event that kills the learner is found, set aside durably, and passed over from then on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from rankward.records import Action, Features, Interaction, LearningMode
from rankward.settings import LoopSettings
from tests.service import RunningService, eventually, request

LEVELS = 300_000
# Nested so deeply that the learner's own parser overflows its stack; the service's door would refuse it.
DEADLY = Features(b'[{"a":' + b'{"a":' * LEVELS + b"1" + b"}" * LEVELS + b"}]")


@pytest.mark.slow
def test_an_event_that_kills_the_learner_is_set_aside_and_the_loop_goes_on(tmp_path: Path) -> None:
    """Else one event would keep a loop from learning for ever."""
    service = RunningService(tmp_path).start()
    try:
        client = service.new_loop(
            LoopSettings(reward_wait=timedelta(seconds=1), model_export_frequency=timedelta(seconds=1))
        )
        loop = client.loop
        assert client.rank(request("a", "b", eventId="before")).status_code == 201
        eventually(lambda: bool(_versions(service, loop)), "the event before is learned")
        asyncio.run(_append(service, loop))
        eventually(lambda: bool(service.home.catalog.set_asides(_id(service, loop))), "a deadly event is set aside")
        assert client.rank(request("a", "b", eventId="after")).status_code == 201
        eventually(lambda: _learned_to_end(service, loop), "the loop has gone on")
        [aside] = service.home.catalog.set_asides(_id(service, loop))
        assert "the learner died of SIG" in aside.reason
    finally:
        service.close()


def _id(service: RunningService, loop: str) -> str:
    return service.loop(loop).loop_id


def _versions(service: RunningService, loop: str) -> list[int]:
    return [version.learned for version in service.home.catalog.versions(_id(service, loop))]


def _learned_to_end(service: RunningService, loop: str) -> bool:
    """Whether everything but the deadly event has been learned and published."""
    return len(service.joined(loop)) == 3 and max(_versions(service, loop), default=0) == 2


async def _append(service: RunningService, loop: str) -> None:
    actions = tuple([Action(name, Features(msgspec.json.encode([{"dish": {"name": name}}]))) for name in "ab"])
    log = service.home.event_log(_id(service, loop))
    interaction = Interaction(
        event_id="deadly",
        context=DEADLY,
        actions=actions,
        pmf=(0.5, 0.5),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1_000_000,
    )
    await log.append([interaction])
    await log.close()
