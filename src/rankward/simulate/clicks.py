"""A front page of articles: few people click, and articles come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from rankward.simulate.world import FeatureObjects, Floats, Parameter, Round

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENTS = ("commuter", "parent", "student")
TOPICS = ("politics", "sport", "science", "film", "food")
DEVICES = ("phone", "desktop")
FORMATS = ("text", "video", "gallery")

# Each segment's taste for the topics is a shuffle of these, so that no seed makes an easier world.
TOPIC_LIFTS = (2.3, 0.9, 0.7, 0.6, 0.5)
FORMAT_LIFTS = {"phone": (0.9, 1.2, 0.9), "desktop": (1.2, 0.9, 0.9)}
APPEAL_SPREAD = 0.2  # an article's own appeal is drawn from 1 ± this


class Clicks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bernoulli rewards of a few per cent, from an inventory that is renewed article by article."""

    name: ClassVar[str] = "clicks"
    description: ClassVar[str] = "a front page: clicks of a few per cent, articles come and go"

    base_rate: Annotated[float, Meta(gt=0, le=0.2)] = 0.016  # about what a random choice gets
    inventory: Annotated[int, Meta(ge=2, le=50)] = 10  # articles on offer at a time
    renewal: Annotated[int, Meta(ge=0)] = 1000  # rounds until one article is replaced; 0: never

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter with its value."""
        return msgspec.structs.asdict(self)

    @property
    def length(self) -> None:
        """Endless."""
        return

    def rounds(self, rng: np.random.Generator) -> Iterator[Round]:
        """Draw visitors, and replace the oldest article every `renewal` rounds."""
        tastes = {segment: rng.permutation(TOPIC_LIFTS) for segment in SEGMENTS}
        articles = [self._publish(number, rng) for number in range(self.inventory)]
        number = 0
        while True:
            if number and self.renewal and number % self.renewal == 0:
                published = self.inventory + number // self.renewal - 1
                articles[published % self.inventory] = self._publish(published, rng)
            segment = SEGMENTS[rng.integers(len(SEGMENTS))]
            device = DEVICES[rng.integers(len(DEVICES))]
            yield Round(
                context=[{"visitor": {"segment": segment}}, {"device": {"kind": device}}],
                actions=[(article.id, article.features) for article in articles],
                means=self._rates(tastes[segment], device, articles),
            )
            number += 1

    def rewards(self, played: Round, index: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Report a click, or nothing."""
        return [(0.0, 1.0)] if rng.random() < played.means[index] else []

    def _publish(self, number: int, rng: np.random.Generator) -> _Article:
        """Draw an article. Topics take turns, so that the inventory stays balanced as it is renewed."""
        topic = number % self.inventory % len(TOPICS)
        style = int(rng.integers(len(FORMATS)))
        return _Article(
            id=f"article-{number}",
            topic=topic,
            style=style,
            appeal=float(rng.uniform(1 - APPEAL_SPREAD, 1 + APPEAL_SPREAD)),
            features=[{"article": {"topic": TOPICS[topic]}}, {"format": {"kind": FORMATS[style]}}],
        )

    def _rates(self, taste: Floats, device: str, articles: list[_Article]) -> Floats:
        lifts = FORMAT_LIFTS[device]
        return np.array([self.base_rate * taste[a.topic] * lifts[a.style] * a.appeal for a in articles])


class _Article(msgspec.Struct, frozen=True):
    id: str
    topic: int  # index into TOPICS
    style: int  # index into FORMATS
    appeal: float
    features: FeatureObjects
