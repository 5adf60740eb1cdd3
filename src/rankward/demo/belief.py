"""What a model believes of a reader: what it would lead their page with, and which things that it knows decide so."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rankward.decision import SlotRequest, read_slots_request
from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import EDITOR, PLACES, Reader, actions, slot_features
from rankward.ranking.features import FeatureBounds
from rankward.ranking.slots import SlotPolicy, decide_slots
from rankward.records import LearningMode
from rankward.settings import Limits
from rankward.simulate.world import FeatureObjects


class Reason(msgspec.Struct, frozen=True):
    """One thing that is known of a reader."""

    trait: str  # as `visit.time`, `follows.food`
    value: str  # as `evening`; of a topic that is followed, the topic
    share: float  # the leading topic's probability, less what it would be if this were not known


class Belief(msgspec.Struct, frozen=True):
    """What a model would lead a reader's page with."""

    topics: dict[Topic, float]  # the probability of each; they add up to 1
    leading: Topic
    reasons: tuple[Reason, ...]  # the weightiest first


def believe(policy: SlotPolicy | None, reader: Reader) -> Belief:
    """Ask a model what it would lead a page with, and ask again without each thing that it knows.

    Args:
        policy: the model; None: there is none yet, so everything is as likely.
        reader: whose page it is.
    """
    context = reader.context()
    topics = _lead(policy, context)
    leading = max(topics, key=lambda topic: topics[topic])
    reasons = []
    for place, space in enumerate(context):
        for name, traits in space.items():
            for trait, value in traits.items():
                left = {name: {other: each for other, each in traits.items() if other != trait}}
                without = _lead(policy, [*context[:place], left, *context[place + 1 :]])
                said = trait if value is True else str(value)
                reasons.append(Reason(f"{name}.{trait}", said, topics[leading] - without[leading]))
    return Belief(topics, leading, tuple(sorted(reasons, key=lambda reason: (-abs(reason.share), reason.trait))))


def _lead(policy: SlotPolicy | None, context: FeatureObjects) -> dict[Topic, float]:
    """Give each topic's probability to lead the page."""
    [lead, *_] = PLACES
    request = read_slots_request(
        context,
        actions(),
        [SlotRequest(id=lead.id, baseline=STORIES[0].id, features=slot_features(lead))],
        event_id="asked",
        deferred=False,
        limits=Limits(),
        bounds=FeatureBounds(),
    )
    asked = decide_slots(request, policy, loop_id="", mode=LearningMode.ONLINE, reward_wait_us=0)
    [choice] = asked.choices
    topics = dict.fromkeys(Topic, 0.0)
    for index, probability in zip(choice.actions, choice.pmf, strict=True):
        topics[STORIES[index].topic] += probability
    return topics


def slots(reader: Reader) -> Sequence[SlotRequest]:
    """Ask for every place, each with what the editor would print there."""
    return [
        SlotRequest(id=place.id, baseline=baseline, features=slot_features(place))
        for place, baseline in zip(PLACES, EDITOR[reader.time], strict=True)
    ]
