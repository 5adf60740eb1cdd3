"""What the demo says that a model believes is what the model does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.demo.belief import believe
from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import Device, Reader, Time
from rankward.records import Action, Features, ModelId, Slot, SlotChoice

if TYPE_CHECKING:
    from collections.abc import Sequence

READER = Reader(device=Device.TABLET, time=Time.NIGHT, follows=(Topic.FOOD, Topic.MONEY), name="you-1")


class Waiter:
    """Leads with food whoever follows it, else with anything."""

    model_id = ModelId("waiter")

    def choices(
        self, context: Features, actions: Sequence[Action], slots: Sequence[Slot], seeds: Sequence[int]
    ) -> list[SlotChoice]:
        """Draw for the one slot."""
        assert len(slots) == len(seeds) == 1
        fed = ["food" in context.decode() and "food" in action.features.decode() for action in actions]
        weights = [0.9 / sum(fed) if food else 0.1 / (len(fed) - sum(fed)) for food in fed]
        if not any(fed):
            weights = [1 / len(actions)] * len(actions)
        order = sorted(range(len(actions)), key=lambda index: -weights[index])
        return [SlotChoice(tuple(order), tuple([weights[index] for index in order]))]


def test_the_topics_share_one_page() -> None:
    """Probabilities of topics are those of their stories, added up."""
    belief = believe(Waiter(), READER)
    assert belief.topics[Topic.FOOD] == pytest.approx(0.9)
    assert sum(belief.topics.values()) == pytest.approx(1)
    assert belief.leading is Topic.FOOD


def test_what_decides_is_named_first() -> None:
    """A visitor reads the first line, and it has to be the reason."""
    first, *others = believe(Waiter(), READER).reasons
    assert (first.trait, first.value) == ("follows.food", "food")
    assert first.share == pytest.approx(0.9 - 2 / len(STORIES))
    assert {reason.trait for reason in others} == {"follows.money", "visit.device", "visit.time", "reader.name"}
    assert all(reason.share == pytest.approx(0) for reason in others)


def test_without_a_model_everything_is_as_likely() -> None:
    """The first look at the panel comes before the first model."""
    belief = believe(None, READER)
    assert all(share == pytest.approx(1 / len(Topic)) for share in belief.topics.values())
    assert all(reason.share == 0 for reason in belief.reasons)
