"""A preset that pairs namespaces keeps up with those that a loop sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.loops import new_loop_settings
from rankward.records import Action, Features, Interaction, LearningMode
from tests.loop.circle import Circle

if TYPE_CHECKING:
    from pathlib import Path

ACTIONS = tuple(Action(f"a{k}", Features(msgspec.json.encode([{"dish": {"kind": f"k{k}"}}]))) for k in range(3))


def decisions(count: int, context: bytes, *, prefix: str) -> list[Interaction]:
    """Make decisions that all have this context."""
    return [
        Interaction(
            event_id=f"{prefix}{number}",
            context=Features(context),
            actions=ACTIONS,
            pmf=(1 / 3, 1 / 3, 1 / 3),
            chosen=0,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=600_000_000,
        )
        for number in range(count)
    ]


async def taught(folder: Path, count: int) -> Circle:
    """Make a loop whose epoch pairs what the first decisions had, and let it see another namespace afterwards."""
    circle = Circle(folder, new_loop_settings())
    await circle.log.append(decisions(count, b'[{"visitor":{"who":"v"}}]', prefix="plain"))
    await circle.circle()
    await circle.log.append(decisions(2_000, b'[{"weather":{"sky":"grey"}}]', prefix="other"))
    circle.pass_time(601)
    await circle.join()
    await circle.train(1)
    return circle


def test_an_epoch_that_is_being_built_is_not_begun_again(tmp_path: Path) -> None:
    """In steady traffic it would never catch up, and the loop would never learn from the new features."""

    async def story() -> None:
        circle = await taught(tmp_path, 200)
        assert [epoch.epoch_id for epoch in circle.home.catalog.epochs(circle.loop.loop_id)] == [1, 2]
        await circle.close()

    asyncio.run(story())


def test_a_namespace_that_comes_late_is_paired_all_the_same(tmp_path: Path) -> None:
    """The epoch that it starts begins with older events, which do not have it."""

    async def story() -> None:
        circle = await taught(tmp_path, 1_200)
        for _ in range(2):
            await circle.train()
        [epoch] = circle.home.catalog.epochs(circle.loop.loop_id)
        assert epoch.epoch_id == 2
        assert epoch.interactions is not None
        assert {"vd", "wd"} <= set(epoch.interactions.pairs)
        await circle.close()

    asyncio.run(story())


def test_a_loop_without_context_keeps_its_epoch(tmp_path: Path) -> None:
    """Where there is nothing to pair, features of the actions are not news, however often they come."""

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        await circle.log.append(decisions(300, b"[]", prefix="bare"))
        await circle.circle()
        await circle.log.append(decisions(300, b"[]", prefix="again"))
        await circle.circle()
        assert [epoch.epoch_id for epoch in circle.home.catalog.epochs(circle.loop.loop_id)] == [1]
        await circle.close()

    asyncio.run(story())


async def served(circle: Circle, count: int, context: bytes, *, prefix: str) -> list[int]:
    """Let decisions of one context be joined and learned. Returns the epochs that are there then."""
    await circle.log.append(decisions(count, context, prefix=prefix))
    circle.pass_time(601)
    await circle.join()
    await circle.train(1)
    return [epoch.epoch_id for epoch in circle.home.catalog.epochs(circle.loop.loop_id)]


PLAIN, OTHER = b'[{"visitor":{"who":"v"}}]', b'[{"weather":{"sky":"grey"}}]'


def test_a_namespace_of_less_than_one_event_in_a_hundred_changes_nothing(tmp_path: Path) -> None:
    """A test call, or a broken page, must not have the loop learn everything anew."""

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        assert await served(circle, 1_500, PLAIN, prefix="plain") == [1]
        assert await served(circle, 14, OTHER, prefix="few") == [1]
        assert await served(circle, 30, OTHER, prefix="more") == [1, 2]
        await circle.close()

    asyncio.run(story())


def test_an_epoch_that_has_settled_is_replaced_once_a_day_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs learning the log again; a loop of few events does not wait, as that is quickly done."""
    monkeypatch.setattr("rankward.training.service.SETTLED", 500)

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        assert await served(circle, 600, PLAIN, prefix="plain") == [1]
        assert await served(circle, 400, OTHER, prefix="early") == [1]
        circle.pass_time(86_400)
        assert await served(circle, 400, OTHER, prefix="late") == [1, 2]
        await circle.close()

    asyncio.run(story())
