"""What a log holds, looked up from both of its ends."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from rankward.history.holding import Holding, holding
from rankward.loops import new_loop_settings
from rankward.records import Action, Features, Interaction, LearningMode, Observation, Record
from rankward.wiring import Home

NOW_US = 1_767_225_600_000_000


def decision(number: int) -> Record:
    """Make one."""
    return Interaction(
        event_id=f"e{number}",
        context=Features(b"[]"),
        actions=(Action("a", Features(b"[]")),),
        pmf=(1.0,),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1,
    )


@pytest.mark.parametrize("others", [0, 1, 49, 50, 51, 149, 150, 151, 700])
def test_decisions_are_found_behind_whatever_is_at_the_ends(tmp_path: Path, others: int) -> None:
    """A log may begin and end with rewards; a few entries are read, and more only as long as they are none."""
    now_us = NOW_US
    rewards = [Observation(event_id="e", value=1.0) for _ in range(others)]

    async def look(home: Home, loop_id: str) -> list[Holding]:
        nonlocal now_us
        log, joined = home.event_log(loop_id), home.joined_log(loop_id)
        await log.append([Observation(event_id="e", value=1.0), *rewards])
        found = [await holding(log, joined)]
        for number in range(3):
            now_us = NOW_US + number
            await log.append([decision(number)])
        now_us = NOW_US + 10
        await log.append([*rewards, Observation(event_id="e", value=1.0)])
        found.append(await holding(log, joined))
        await log.close()
        await joined.close()
        return found

    with closing(Home(tmp_path, clock=lambda: now_us)) as home:
        loop = home.loops.create("held", new_loop_settings())
        before, after = asyncio.run(look(home, loop.loop_id))
    assert (before.first_us, before.newest_us) == (None, None)
    assert (after.first_us, after.newest_us) == (NOW_US, NOW_US + 2)
    assert after.entries == before.entries + 3 + others + 1
