"""Joined events to write and read, by hand and by the thousand."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from rankward.joining.reward import RewardDefinition
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import (
    Action,
    AnyInteraction,
    Features,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation

TIME_US = 1_768_478_400_000_000  # 2026-01-15T12:00:00Z
WAIT_US = 600_000_000
EARLIEST = RewardDefinition(0.0, Aggregation.EARLIEST)
BOUNDS = FeatureBounds()


def features(value: object) -> Features:
    """Write features as a log has them."""
    return Features(msgspec.json.encode(value))


PASTA = Action("pasta", features([{"dish": {"veg": True}}]))
RAMEN = Action("ramen", features([{"dish": {"veg": False}}]))
SALAD = Action("salad", features([{"dish": {"veg": True}}]))


def order(*values: float, activated: bool = False, **changes: object) -> JoinedEvent:
    """The event of the contract's example, with these rewards and changes."""
    plain = Interaction(
        event_id="order-page-0001",
        context=features([{"visitor": {"device": "phone"}}]),
        actions=(PASTA, RAMEN, SALAD),
        pmf=(0.1, 0.0, 0.9),
        chosen=2,
        excluded=(1,),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
    )
    return event(msgspec.structs.replace(plain, **changes), *values, activated=activated)


def event(interaction: AnyInteraction, *values: float, activated: bool = False, time_us: int = TIME_US) -> JoinedEvent:
    """Join an interaction with rewards."""
    observations = tuple([JoinedObservation(0, time_us, value) for value in values])
    return JoinedEvent(0, JoinedEntry(0, time_us, time_us + WAIT_US, observations, activated), interaction)


_names = st.text(max_size=8).filter(lambda name: name.isprintable() and name != "")
_values = st.one_of(st.booleans(), st.integers(-1000, 1000), st.floats(-1e30, 1e30), st.text(max_size=8), st.none())
_groups = st.lists(
    st.dictionaries(_names, st.one_of(_values, st.dictionaries(_names, _values, max_size=3)), max_size=3), max_size=3
)
_rewards = st.floats(-1.0, 1.0)


@st.composite
def pmfs(draw: st.DrawFn, size: int) -> tuple[float, ...]:
    """Probabilities that add up to 1, none of them 0."""
    weights = draw(st.lists(st.floats(0.01, 1.0), min_size=size, max_size=size))
    return tuple([weight / sum(weights) for weight in weights])


@st.composite
def actions_of(draw: st.DrawFn, size: int) -> tuple[Action, ...]:
    """Actions with ids of their own."""
    ids = draw(st.lists(st.text(min_size=1, max_size=12), min_size=size, max_size=size, unique=True))
    drawn = [draw(_groups) for _ in ids]
    return tuple(
        [
            Action(action_id, check_action(msgspec.json.encode([*groups, {"x": 1}]), BOUNDS))
            for action_id, groups in zip(ids, drawn, strict=True)
        ]
    )


@st.composite
def single_slot_events(draw: st.DrawFn) -> JoinedEvent:
    """Events of Online mode, as the loop can have them, but for what a line does not hold."""
    size = draw(st.integers(1, 4))
    activated = draw(st.booleans())
    interaction = Interaction(
        event_id=draw(st.text(min_size=1, max_size=20)),
        context=check_context(msgspec.json.encode(draw(_groups)), BOUNDS),
        actions=draw(actions_of(size)),
        pmf=draw(pmfs(size)),
        chosen=draw(st.integers(0, size - 1)),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
        deferred=activated or draw(st.booleans()),
        model_id=draw(st.one_of(st.none(), st.sampled_from(["1-100", "0f6f8a/3"]))),
    )
    values = draw(st.lists(_rewards, max_size=3))
    time_us = draw(st.integers(0, 4_000_000_000_000_000))
    return event(interaction, *values, activated=activated, time_us=time_us)


FRONT = MultiSlotInteraction(
    event_id="front-0007",
    context=features([{"visitor": {"device": "phone"}}]),
    actions=tuple(
        [Action(name, features([{"kind": kind}])) for name, kind in (("a", "news"), ("b", "sport"), ("c", "film"))]
    ),
    slots=(
        Slot("hero", features([{"size": "large"}]), baseline=2, excluded=(1,)),
        Slot("side", features([{"size": "small"}]), baseline=0),
    ),
    choices=(SlotChoice((0, 2), (0.9, 0.1)), SlotChoice((1, 2), (0.9, 0.1))),
    learning_mode=LearningMode.ONLINE,
    reward_wait_us=WAIT_US,
)
"""The decision for slots of the contract's example."""


def front(*rewards: tuple[float, str | None], activated: bool = False, **changes: object) -> JoinedEvent:
    """Join that decision with rewards of slots (None: of the whole event) and changes."""
    joined = event(msgspec.structs.replace(FRONT, **changes), activated=activated)
    observations = tuple([JoinedObservation(0, TIME_US, value, slot=slot) for value, slot in rewards])
    return msgspec.structs.replace(joined, entry=msgspec.structs.replace(joined.entry, observations=observations))


@st.composite
def multi_slot_events(draw: st.DrawFn) -> JoinedEvent:
    """Events of several slots, of Online mode, whose rewards name their slots."""
    count = draw(st.integers(1, 3))
    actions = draw(actions_of(draw(st.integers(count, 4))))
    ids = draw(st.lists(st.text(min_size=1, max_size=8), min_size=count, max_size=count, unique=True))
    slots, choices, left = [], [], list(range(len(actions)))
    for slot_id in ids:
        order = draw(st.permutations(left))
        excluded = [k for k in range(len(actions)) if k != order[0] and draw(st.booleans())]
        ranked = [order[0], *(k for k in order[1:] if k not in excluded)]
        slots.append(
            Slot(slot_id, check_context(msgspec.json.encode(draw(_groups)), BOUNDS), order[0], tuple(excluded))
        )
        choices.append(SlotChoice(tuple(ranked), draw(pmfs(len(ranked)))))
        left.remove(order[0])
    activated = draw(st.booleans())
    interaction = MultiSlotInteraction(
        event_id=draw(st.text(min_size=1, max_size=20)),
        context=check_context(msgspec.json.encode(draw(_groups)), BOUNDS),
        actions=actions,
        slots=tuple(slots),
        choices=tuple(choices),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
        deferred=activated or draw(st.booleans()),
    )
    observed = [(value, slot_id) for slot_id in ids for value in draw(st.lists(_rewards, max_size=2))]
    joined = event(interaction, activated=activated)
    observations = tuple([JoinedObservation(0, TIME_US, value, slot=slot_id) for value, slot_id in observed])
    return msgspec.structs.replace(joined, entry=msgspec.structs.replace(joined.entry, observations=observations))
