"""The story of an event: whoever asks what became of a decision must hear all of it, and nothing of another."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from rankward.loops import new_loop_settings
from rankward.records import Activation, Observation
from rankward.settings import LoopSettings
from rankward.story import Story, newest, stories
from tests.loop.circle import Circle

WAIT_S = 600


@pytest.fixture
def circle(tmp_path: Path) -> Circle:
    """A loop in virtual time; each story ends by closing it."""
    return Circle(tmp_path / "data", settings())


def settings() -> LoopSettings:
    """Of a loop whose events wait for ten minutes."""
    return msgspec.structs.replace(new_loop_settings(), reward_wait=timedelta(seconds=WAIT_S), default_reward=0.125)


async def told(circle: Circle, event_id: str) -> list[Story]:
    """Ask."""
    return await stories(circle.home.catalog, circle.log, circle.joined, circle.loop, event_id)


def test_an_event_is_followed_from_its_decision_to_the_model(circle: Circle) -> None:
    """What it would earn now, then what it earned, then who learned it."""

    async def run() -> None:
        await circle.rank("asked", "v1")
        await circle.rank("other", "v1")
        await circle.log.append([Observation(event_id="asked", value=0.75), Observation(event_id="other", value=1.0)])
        await circle.join()
        [waiting] = await told(circle, "asked")

        circle.pass_time(WAIT_S + 1)
        await circle.join()
        [joined] = await told(circle, "asked")
        await circle.train()
        [learned] = await told(circle, "asked")

        assert (waiting.joined, joined.joined, learned.joined) == (False, True, True)
        assert [[each.value for each in story.observations] for story in (waiting, joined)] == [[0.75], [0.75]]
        assert [reward.observed for reward in joined.rewards] == [0.75]
        assert joined.due_us - joined.time_us == WAIT_S * 1_000_000
        assert (joined.learned_by, learned.set_aside) == (None, None)
        assert learned.learned_by == circle.loop.model_id
        await circle.close()

    asyncio.run(run())


def test_what_nobody_rewarded_or_showed_is_said(circle: Circle) -> None:
    """The default is a reward; a decision that was never shown has none."""

    async def run() -> None:
        await circle.rank("silent", "v1")
        await circle.rank("hidden", "v1", deferred=True)
        await circle.rank("shown", "v1", deferred=True)
        await circle.log.append([Activation(event_id="shown")])
        circle.pass_time(WAIT_S + 1)
        await circle.join()

        [[silent], [hidden], [shown]] = [await told(circle, each) for each in ("silent", "hidden", "shown")]

        assert [reward.observed for reward in silent.rewards] == [0.125]
        assert (hidden.rewards, hidden.activated) == ((), False)
        assert ([reward.observed for reward in shown.rewards], shown.activated) == ([0.125], True)
        await circle.close()

    asyncio.run(run())


def test_decisions_under_one_id_are_told_newest_first(circle: Circle) -> None:
    """An application that uses an id twice has to see both."""

    async def run() -> None:
        await circle.rank("twice", "v1", named=True)
        circle.pass_time(2 * WAIT_S)
        await circle.rank("twice", "v2", named=True)

        found = await told(circle, "twice")

        assert [story.interaction.repeats for story in found] == [True, False]
        assert await told(circle, "never") == []
        await circle.close()

    asyncio.run(run())


def test_the_newest_decisions_come_first_whatever_else_was_logged(circle: Circle) -> None:
    """A page of them must not depend on how many rewards stand between."""

    async def run() -> None:
        for number in range(30):
            await circle.rank(f"e{number}", "v1")
            await circle.log.append([Observation(event_id=f"e{number}", value=0.5)] * 20)

        found = await newest(circle.log, limit=3)
        older = await newest(circle.log, limit=2, before=found[-1][0].offset)

        assert [interaction.event_id for _, interaction in [*found, *older]] == ["e29", "e28", "e27", "e26", "e25"]
        await circle.close()

    asyncio.run(run())
