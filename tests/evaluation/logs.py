"""Joined logs to judge by: three dishes, two kinds of guests, and the log's own idea of what to offer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from rankward.evaluation.replay import Part, Replay, Setup
from rankward.evaluation.report import PolicyResult, Report
from rankward.evaluation.service import Batch
from rankward.joining.reward import RewardDefinition
from rankward.records import (
    Action,
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

MINUTE_US = 60_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
POLICY = "--cb_explore_adf --epsilon 0.2 --cb_type mtr -q :: "
SETUP = Setup(rewards=RewardDefinition(0.0, Aggregation.EARLIEST), export_us=5 * MINUTE_US)
DISHES = ("soup", "salad", "curry")
LIKED = {"child": "soup", "adult": "curry"}


def event(
    number: int,
    *,
    pmf: Sequence[float] = (0.6, 0.2, 0.2),
    chosen: int = 0,
    reward: float | None = 0.0,
    guest: str = "child",
    mode: LearningMode = LearningMode.ONLINE,
    step_us: int = MINUTE_US,
    wait_us: int = 10 * MINUTE_US,
    deferred: bool = False,
    pass_probability: float = 1.0,
) -> JoinedEvent:
    """Make one, a minute after the one before. Without a reward nothing was observed."""
    time_us = START_US + number * step_us
    observations = () if reward is None else (JoinedObservation(2 * number + 1, time_us + 1, reward),)
    return JoinedEvent(
        offset=number,
        entry=JoinedEntry(2 * number, time_us, time_us + wait_us, observations),
        interaction=Interaction(
            event_id=f"e{number}",
            context=Features(f'[{{"guest":{{"is":"{guest}"}}}}]'.encode()),
            actions=tuple(Action(dish, Features(f'[{{"dish":"{dish}"}}]'.encode())) for dish in DISHES),
            pmf=tuple(pmf),
            chosen=chosen,
            learning_mode=mode,
            reward_wait_us=wait_us,
            deferred=deferred,
            pass_probability=pass_probability,
        ),
    )


def paged(made: JoinedEvent, *, pass_probability: float = 1.0) -> JoinedEvent:
    """Make a page of an event: its first two actions in two slots, each drawn with an even chance or less."""
    one = made.interaction
    page = MultiSlotInteraction(
        event_id=one.event_id,
        context=one.context,
        actions=one.actions,
        slots=(Slot("top", Features(b'[{"size":"l"}]'), baseline=0), Slot("side", Features(b"[]"), baseline=1)),
        choices=(SlotChoice((0, 1, 2), (0.5, 0.25, 0.25)), SlotChoice((1, 2), (0.5, 0.5))),
        learning_mode=one.learning_mode,
        reward_wait_us=one.reward_wait_us,
        pass_probability=pass_probability,
    )
    return JoinedEvent(made.offset, made.entry, page)


def log(count: int, *, seed: int = 1, pmf: Sequence[float] = (0.6, 0.2, 0.2)) -> list[JoinedEvent]:
    """Draw a log: guests like one dish each, nine times in ten."""
    rng = random.Random(seed)
    events = []
    for number in range(count):
        guest = rng.choice(sorted(LIKED))
        chosen = rng.choices(range(3), pmf)[0]
        likes = rng.random() < (0.9 if LIKED[guest] == DISHES[chosen] else 0.1)
        events.append(event(number, pmf=pmf, chosen=chosen, reward=float(likes), guest=guest, step_us=MINUTE_US // 4))
    return events


def replayed(replay: Replay, events: Sequence[JoinedEvent]) -> Part:
    """Play a log to its end."""
    for each in events:
        replay.take(each)
    return replay.end()


def named(found: Part | Report, name: str) -> PolicyResult:
    """Pick a policy's overall result."""
    return next(result for result in found.policies if result.name == name and not result.slot_id)


class Written(msgspec.Struct, frozen=True):
    """A log that another process can be given."""

    events: tuple[JoinedEvent, ...]
    batch: int = 100

    def batches(self) -> Iterator[Batch]:
        """Read it, with one line that is no event."""
        for start in range(0, len(self.events), self.batch):
            part = self.events[start : start + self.batch]
            yield Batch(part, (start + len(part)) / len(self.events), Counter(odd=int(start == 0)))
