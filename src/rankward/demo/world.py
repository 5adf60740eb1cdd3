"""The demo's world: who reads, what they like, and how likely each is to click. Nothing of it is told to the loop."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from rankward.demo.stories import STORIES, Story, Topic
from rankward.simulate.world import FeatureObjects, Floats


class Device(enum.StrEnum):
    """What somebody reads on."""

    PHONE = "phone"
    TABLET = "tablet"
    LAPTOP = "laptop"


class Time(enum.StrEnum):
    """When somebody reads."""

    MORNING = "morning"
    NOON = "noon"
    EVENING = "evening"
    NIGHT = "night"


class Season(enum.StrEnum):
    """What goes on in town, and with it what everybody likes."""

    ORDINARY = "ordinary"
    FESTIVAL = "festival"
    STORM = "storm"


CROWD = "crowd"
"""How every simulated reader is called: the loop knows them by what they have in common only."""


class Reader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who opens the front page, as far as the site knows."""

    device: Device
    time: Time
    follows: Annotated[tuple[Topic, ...], Meta(max_length=len(Topic))] = ()
    name: Annotated[str, Meta(min_length=1, max_length=32, pattern="^[a-z0-9-]*$")] = CROWD

    def context(self) -> FeatureObjects:
        """Say what is known of them, as the features of a Rank."""
        follows = {topic.value: True for topic in sorted(set(self.follows))} or {"nothing": True}
        return [
            {"visit": {"device": self.device.value, "time": self.time.value}},
            {"follows": follows},
            {"reader": {"name": self.name}},
        ]


class Place(msgspec.Struct, frozen=True):
    """Where on the front page a story can stand."""

    id: str
    reach: float  # share of readers who look there


PLACES = (
    Place("lead", 1.0),
    Place("second", 0.75),
    Place("third", 0.6),
    Place("fourth", 0.45),
    Place("fifth", 0.35),
)

# What the editor prints by hand, from the lead down: the same for every reader, another page for each time of day.
EDITOR: dict[Time, tuple[str, ...]] = {
    Time.MORNING: ("ferry-coin", "old-keeper", "moon-clock", "four-day-bread", "organ-cinema"),
    Time.NOON: ("dumpling-truce", "savings-club", "fog-rowers", "whale-accent", "lighthouse-painter"),
    Time.EVENING: ("organ-cinema", "ferry-coin", "night-train", "old-keeper", "dumpling-truce"),
    Time.NIGHT: ("lighthouse-painter", "savings-club", "rain-walks", "fog-rowers", "moon-clock"),
}

_BASE = 0.04
_FOLLOWED = {Season.ORDINARY: 0.50, Season.FESTIVAL: 0.08, Season.STORM: 0.08}
_AT_THIS_TIME = {
    Time.MORNING: {Topic.MONEY: 0.22},
    Time.NOON: {Topic.FOOD: 0.24},
    Time.EVENING: {Topic.CULTURE: 0.24},
    Time.NIGHT: {Topic.SCIENCE: 0.22},
}
_ON_THIS_DEVICE = {
    Device.PHONE: {Topic.SPORT: 0.12},
    Device.TABLET: {Topic.OUTDOORS: 0.14},
    Device.LAPTOP: {Topic.MONEY: 0.08, Topic.SCIENCE: 0.04},
}
_IN_SEASON: dict[Season, dict[Topic, float]] = {
    Season.ORDINARY: {},
    Season.FESTIVAL: {Topic.CULTURE: 0.50, Topic.FOOD: 0.34},
    Season.STORM: {Topic.OUTDOORS: 0.56, Topic.SPORT: 0.30},
}
_APPEAL = (0.02, 0.0, 0.0, 0.02, 0.03, 0.0, 0.0, 0.02, 0.0, 0.02, 0.02, 0.0)  # what each story has for everybody


def interest(reader: Reader, story: Story, season: Season) -> float:
    """Give the chance that a reader clicks a story they look at, in (0, 1)."""
    topic = story.topic
    return (
        _BASE
        + (_FOLLOWED[season] if topic in reader.follows else 0.0)
        + _AT_THIS_TIME[reader.time].get(topic, 0.0)
        + _ON_THIS_DEVICE[reader.device].get(topic, 0.0)
        + _IN_SEASON[season].get(topic, 0.0)
        + _APPEAL[STORIES.index(story)]
    )


def click_rates(reader: Reader, season: Season) -> Floats:
    """Give the chance of a click on each story in each place, shape (places, stories)."""
    reach = [place.reach for place in PLACES]
    return np.outer(reach, [interest(reader, story, season) for story in STORIES])


def draw_reader(rng: np.random.Generator) -> Reader:
    """Draw one of the crowd: any device and time, and one topic or two that they follow."""
    follows = rng.permutation(list(Topic))[: rng.integers(1, 3)]
    return Reader(
        device=Device(rng.choice(list(Device))),
        time=Time(rng.choice(list(Time))),
        follows=tuple(Topic(topic) for topic in follows),
    )


def actions() -> list[tuple[str, FeatureObjects]]:
    """Say what is known of each story, as the actions of a Rank."""
    return [(story.id, [{"article": {"topic": story.topic.value}}]) for story in STORIES]


def slot_features(place: Place) -> dict[str, Any]:
    """Say what is known of a place, as the features of a slot."""
    return {"place": {"name": place.id}}
