"""The demo's readers: what they like is known, and can be learned from what a site knows of them."""

from __future__ import annotations

from importlib import resources
from itertools import product

import numpy as np
import pytest

from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import EDITOR, PLACES, Device, Reader, Season, Time, click_rates, draw_reader

READERS = [
    Reader(device=device, time=time, follows=follows)
    for device, time, follows in product(Device, Time, [(), *[(topic,) for topic in Topic], tuple(Topic)])
]


@pytest.mark.parametrize("season", Season)
def test_every_click_is_possible_and_none_is_certain(season: Season) -> None:
    """A chance outside of 0 to 1 would be cut off when it is drawn, and the lines would then promise too much."""
    for reader in READERS:
        rates = click_rates(reader, season)
        assert rates.shape == (len(PLACES), len(STORIES))
        assert rates.min() > 0
        assert rates.max() < 1


def test_each_season_has_another_favourite() -> None:
    """Otherwise “everybody's taste has changed” would change nothing to be seen."""
    reader = Reader(device=Device.LAPTOP, time=Time.MORNING, follows=(Topic.SCIENCE,))
    favourites = [STORIES[int(click_rates(reader, season)[0].argmax())].topic for season in Season]
    assert favourites == [Topic.SCIENCE, Topic.CULTURE, Topic.OUTDOORS]


def test_the_editor_fills_every_place_with_another_story() -> None:
    """Each place of a decision for several needs a baseline of its own."""
    known = {story.id for story in STORIES}
    for page in EDITOR.values():
        assert len(page) == len(PLACES)
        assert len(set(page)) == len(page)
        assert known.issuperset(page)


def test_a_reader_who_follows_nothing_has_the_same_groups_of_features() -> None:
    """A group that turned up later would start a new epoch in the middle of the show."""
    nobody = Reader(device=Device.PHONE, time=Time.NOON)
    everybody = Reader(device=Device.PHONE, time=Time.NOON, follows=tuple(Topic))
    assert [list(space) for space in nobody.context()] == [list(space) for space in everybody.context()]
    assert all(features for space in nobody.context() for features in space.values())


def test_the_same_dice_draw_the_same_crowd() -> None:
    """What a crowd did can be looked at again."""
    once, again = np.random.default_rng(4), np.random.default_rng(4)
    assert [draw_reader(once) for _ in range(50)] == [draw_reader(again) for _ in range(50)]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.id)
def test_every_story_has_its_picture(story: object) -> None:
    """A missing one would be a hole in the front page."""
    picture = resources.files("rankward.demo") / "static" / "pictures" / f"{story.id}.svg"  # type: ignore[attr-defined]
    assert picture.read_text().startswith("<svg ")
