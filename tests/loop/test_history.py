"""Imported events in a whole loop, embedded and in a cluster: when they are learned, and what they teach."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import msgspec

from rankward.history.importing import Importer
from rankward.loops import new_loop_settings
from rankward.ranking.features import FeatureBounds
from rankward.records import JoinedEvent, LearningMode
from rankward.settings import Limits
from tests.dsjson.test_learner import traffic
from tests.history.loops import lines_of
from tests.loop.circle import START_US, Circle, newest_version, replayed_weights, weights_of
from tests.models import learned

DAY_US = 86_400_000_000
SETTINGS = new_loop_settings()


def past(count: int, *, days: int) -> list[JoinedEvent]:
    """Events that were decided so many days before the loop began, a second apart."""
    return [
        msgspec.structs.replace(
            event,
            entry=msgspec.structs.replace(event.entry, time_us=START_US - days * DAY_US + number * 1_000_000),
        )
        for number, event in enumerate(traffic(count, LearningMode.ONLINE))
    ]


async def take_in(circle: Circle, folder: Path, events: list[JoinedEvent]) -> None:
    """Import events, and join them."""
    file = folder / f"{len(events)}.json"
    file.write_bytes(lines_of(events))
    importer = Importer(circle.log, bounds=FeatureBounds(), limits=Limits(), reward_wait_us=600_000_000)
    await importer.run([file])
    await circle.join()


def learnable(events: list[JoinedEvent]) -> int:
    """How many events can be learned from."""
    return sum(not event.skip_learn for event in events)


def test_recent_history_is_learned_and_older_is_not(root: Path, tmp_path: Path) -> None:
    """A model must not change by what was long ago, unless somebody asks for that."""

    async def story() -> None:
        circle = Circle(root, SETTINGS)
        old, recent = past(40, days=30), past(60, days=1)
        await take_in(circle, tmp_path, [*old, *recent])
        await circle.train()
        assert newest_version(circle).learned == learnable(recent)
        await circle.close()

    asyncio.run(story())


def test_a_new_epoch_can_reach_back_to_all_of_it(root: Path, tmp_path: Path) -> None:
    """And ends with the weights of a run that was never stopped."""

    async def story() -> None:
        circle = Circle(root, SETTINGS)
        await circle.play(50)
        await circle.circle()
        old = past(40, days=30)
        await take_in(circle, tmp_path, old)
        await circle.configuration.retrain("circle", since_us=START_US - 30 * DAY_US, reason="history was imported")
        await circle.train()
        version = newest_version(circle)
        assert version.learned == 50 + learnable(old)
        assert weights_of(circle, version) == await replayed_weights(circle, version.joined_offset)
        await circle.follow()
        assert circle.loop.model_id == version.model_id
        await circle.close()

    asyncio.run(story())


def test_a_model_from_elsewhere_is_not_taught_its_own_history(root: Path, tmp_path: Path) -> None:
    """It has learned those events already, where they were decided."""

    async def story() -> None:
        circle = Circle(root, SETTINGS)
        await circle.registry.import_model(
            "circle",
            io.BytesIO(learned()),
            bound=1 << 24,
            by_admin=True,
            try_out=lambda *_: None,
            take_policy=True,
        )
        await take_in(circle, tmp_path, past(60, days=1))
        await circle.train()
        assert newest_version(circle).learned == 0
        assert (await circle.joined.extent())[1] == 60
        await circle.close()

    asyncio.run(story())
