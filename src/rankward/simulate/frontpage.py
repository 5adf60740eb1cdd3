"""A front page of three places: what a visitor clicks depends on the topic, and on how far up it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from rankward.simulate.world import FeatureObjects, Page, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLACES = ("top", "middle", "bottom")
READERS = ("commuter", "parent", "student")
TOPICS = ("politics", "sport", "science", "film", "food")

# Each reader's taste for the topics is a shuffle of these, so that no seed makes an easier world.
TOPIC_LIFTS = (2.3, 1.4, 0.7, 0.4, 0.2)
APPEAL_SPREAD = 0.2  # an item's own appeal is drawn from 1 ± this


class Frontpage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Three places to fill with news items: each is clicked or not, and the lower ones are seen by fewer visitors."""

    name: ClassVar[str] = "frontpage"
    description: ClassVar[str] = "a page of three slots: news by topic, and what stands lower is seen by fewer"

    base_rate: Annotated[float, Meta(gt=0, le=0.35)] = 0.15  # clicks of an average item at the top
    seen: Annotated[float, Meta(gt=0, le=1)] = 0.6  # share of visitors who go on from each place to the next
    inventory: Annotated[int, Meta(ge=3, le=20)] = 8  # items to choose from

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> None:
        """Endless."""
        return

    def pages(self, rng: np.random.Generator) -> Iterator[Page]:
        """Draw visitors of a few kinds, each with equal chance. The items stay."""
        tastes = [rng.permutation(TOPIC_LIFTS) for _ in READERS]
        topics = [number % len(TOPICS) for number in range(self.inventory)]
        appeal = rng.uniform(1 - APPEAL_SPREAD, 1 + APPEAL_SPREAD, self.inventory)
        actions: list[tuple[str, FeatureObjects]] = [
            (f"item-{number}", [{"item": {"topic": TOPICS[topic]}}, {"key": {"item": f"item-{number}"}}])
            for number, topic in enumerate(topics)
        ]
        slots: list[tuple[str, FeatureObjects]] = [(place, [{"place": {"name": place}}]) for place in PLACES]
        reach = self.seen ** np.arange(len(PLACES))
        visits = [
            Page(
                context=[{"visitor": {"kind": reader}}],
                actions=actions,
                slots=slots,
                means=np.outer(reach, self.base_rate * taste[topics] * appeal),
            )
            for reader, taste in zip(READERS, tastes, strict=True)
        ]
        while True:
            yield visits[rng.integers(len(visits))]

    def rewards(self, played: Page, chosen: Sequence[int], rng: np.random.Generator) -> list[float]:
        """Report each place: 1 for a click, 0 for none."""
        draws = rng.random(len(played.slots))
        return [float(draw < mean) for draw, mean in zip(draws, played.means_of(chosen), strict=True)]
