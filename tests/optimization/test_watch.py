"""A watch compares what serves with what it replaced: exactly, wherever it is stopped, and without false alarms."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from rankward.optimization.watch import EVENTS_MAX, WATCH_US, Verdict, Watch, WatchState
from rankward.ranking.explore import sample_index
from rankward.records import (
    Action,
    Features,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
)
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch
from rankward.training.fold import Checkpoint
from rankward.vw.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND_US = 1_000_000
START_US = 1_767_225_600 * SECOND_US
WAIT_US = 30 * SECOND_US
SETTINGS = LoopSettings(reward_wait=timedelta(seconds=30), model_export_frequency=timedelta(seconds=10))
POLICY = "--cb_explore_adf --epsilon 0.2 --cb_type mtr -q vd"
BAGGED = "--cb_explore_adf --bag 3 --epsilon 0.2 --cb_type mtr -q vd"  # does not resume exactly
ACTIONS = tuple([Action(f"a{k}", Features(b'[{"dish":{"kind":"k%d"}}]' % k)) for k in range(3)])
SURE = (0.9, 0.05, 0.05)


def events(
    count: int,
    reward: Callable[[int, int, np.random.Generator], float],
    *,
    seed: int = 1,
    pmf: tuple[float, ...] = SURE,
    **changes: object,
) -> list[JoinedEvent]:
    """Make a log, a decision a second, of a policy that decides the same way whoever comes.

    Args:
        count: of decisions.
        reward: of a visitor and an action.
        seed: of who comes and what is drawn.
        pmf: the policy's.
        changes: of each interaction.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        who, chosen = int(rng.integers(3)), sample_index(pmf, float(rng.random()))
        interaction = Interaction(
            event_id=f"e{number}",
            context=Features(b'[{"visitor":{"who":"v%d"}}]' % who),
            actions=ACTIONS,
            pmf=pmf,
            chosen=chosen,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=WAIT_US,
        )
        time_us = START_US + number * SECOND_US
        observed = JoinedObservation(number, time_us, reward(who, chosen, rng))
        entry = JoinedEntry(2 * number, time_us, time_us + WAIT_US, (observed,))
        made.append(JoinedEvent(number, entry, msgspec.structs.replace(interaction, **changes)))
    return made


def state(policy: str = POLICY, **changes: object) -> WatchState:
    """Where a watch begins: over a policy that has learned nothing yet."""
    epoch = Epoch(
        epoch_id=1,
        loop_id="1" * 32,
        state="serving",
        reason="created",
        created_us=START_US,
        policy=policy,
        derives_interactions=False,
        default_reward=0.0,
        reward_aggregation="earliest",
        since_us=0,
        start=0,
    )
    learner = Learner(policy)
    begun = WatchState(
        epoch=epoch,
        exploration=0.2,
        checkpoint=Checkpoint(joined_offset=0, learned=0, learned_to_us=0, model=learner.save()),
        from_us=START_US,
        until_us=START_US + WATCH_US,
        cursor=0,
    )
    learner.close()
    return msgspec.structs.replace(begun, **changes)


def watched(log: list[JoinedEvent], begun: WatchState, *, stops: tuple[int, ...] = ()) -> WatchState:
    """Watch a log, being stopped before events and going on from what was written down."""
    found = begun
    for stop in (*stops, len(log)):
        watch = Watch(msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=WatchState), SETTINGS, set_aside=())
        for event in log[found.checkpoint.joined_offset : stop]:
            watch.take(event)
        found = watch.state(*watch.look(START_US))
        watch.close()
    return found


def liked(who: int, chosen: int, _: np.random.Generator) -> float:
    """Each visitor likes one action."""
    return float(who == chosen)


def test_what_is_worse_is_told_so() -> None:
    """The replaced policy goes on learning, and tells visitors apart, which the serving one does not."""
    found = watched(events(1_500, liked), state())
    assert found.verdict is Verdict.WORSE
    assert found.watched is not None
    assert found.watched.high < 0
    assert found.watched.difference == pytest.approx(0.333 - 0.86, abs=0.1)


def test_what_is_better_is_told_so() -> None:
    """The serving policy has found what everybody likes, and the replaced one explores more."""
    log = events(4_000, lambda _, chosen, rng: float(chosen == 0 and rng.random() < 0.9), pmf=(0.98, 0.01, 0.01))
    assert watched(log, state()).verdict is Verdict.BETTER


@pytest.mark.slow
def test_chance_makes_no_verdict() -> None:
    """Rewards that no choice changes, looked at again and again: in 30 logs none is rolled back, nor praised."""
    for seed in range(30):
        log = events(400, lambda _who, _chosen, rng: float(rng.random() < 0.3), seed=seed)
        watch = Watch(state(), SETTINGS, set_aside=())
        for number, event in enumerate(log):
            watch.take(event)
            if number % 40 == 0:
                verdict, figures = watch.look(START_US)
                assert verdict is Verdict.UNDECIDED, (seed, number, figures)
        watch.close()


@pytest.mark.parametrize("policy", [POLICY, BAGGED])
@pytest.mark.parametrize("stops", [(1,), (333,), (100, 101, 640)])
def test_a_watch_that_was_stopped_goes_on_as_if_it_had_not(policy: str, stops: tuple[int, ...]) -> None:
    """Killed anywhere, it neither counts a decision twice nor forgets what the replaced policy has learned."""
    log = events(700, liked, seed=3)
    straight, broken = watched(log, state(policy)), watched(log, state(policy), stops=stops)

    assert (broken.cursor, broken.replaced.events) == (straight.cursor, straight.replaced.events)
    assert broken.watched is not None
    assert straight.watched is not None
    for name in ("difference", "low", "high"):
        assert getattr(broken.watched, name) == pytest.approx(getattr(straight.watched, name), abs=1e-6)
    assert broken.checkpoint.joined_offset == straight.checkpoint.joined_offset
    assert broken.checkpoint.learned == straight.checkpoint.learned


def test_only_decisions_of_the_new_policy_compare() -> None:
    """Those from before it, those that were shown the baseline, and those not shown at all say nothing of it."""
    log = events(300, liked)
    assert watched(log, state(from_us=START_US + 200 * SECOND_US)).replaced.events == 100
    assert watched(events(50, liked, learning_mode=LearningMode.APPRENTICE), state()).replaced.events == 0
    assert watched(events(50, liked, deferred=True), state()).replaced.events == 0


def test_a_watch_is_over_after_its_time_or_enough_decisions() -> None:
    """What so long does not tell apart is as good, and the next search has its turn."""
    log = events(60, lambda *_: 0.5)
    assert watched(log, state()).verdict is Verdict.UNDECIDED
    assert watched(log, state(until_us=START_US + 50 * SECOND_US)).verdict is Verdict.OVER
    begun = watched(log, state())
    sums = msgspec.structs.replace(begun.replaced, events=EVENTS_MAX)
    assert watched(log, msgspec.structs.replace(begun, replaced=sums)).verdict is Verdict.OVER
