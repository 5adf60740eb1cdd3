"""Decisions for several slots: judged slot by slot, and page by page."""

from __future__ import annotations

import random

import pytest

from rankward.evaluation.replay import Replay
from rankward.evaluation.report import Verdict
from rankward.evaluation.service import custom
from rankward.records import (
    Action,
    Features,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from tests.evaluation.logs import DISHES, LIKED, MINUTE_US, SETUP, START_US, event, named, replayed

SLOTS = (Slot("hero", Features(b'[{"size":"large"}]'), 0), Slot("side", Features(b"[]"), 1))


def page(
    number: int, rng: random.Random, *, guest: str = "child", mode: LearningMode = LearningMode.ONLINE
) -> JoinedEvent:
    """Show two of three dishes, drawn uniformly; the one that the guest likes earns 1 on top, and 0.2 beside it."""
    left = [0, 1, 2]
    choices, observations = [], []
    time_us = START_US + number * MINUTE_US // 4
    for slot in SLOTS:
        pmf = tuple([1 / len(left)] * len(left))
        chosen = rng.choice(left)
        left.remove(chosen)
        choices.append(SlotChoice((chosen, *left), pmf))
        reward = (1.0 if slot.id == "hero" else 0.2) * (DISHES[chosen] == LIKED[guest])
        observations.append(JoinedObservation(number, time_us, reward, {}, slot.id))
    return JoinedEvent(
        offset=number,
        entry=JoinedEntry(number, time_us, time_us + 10 * MINUTE_US, tuple(observations)),
        interaction=MultiSlotInteraction(
            event_id=f"p{number}",
            context=Features(f'[{{"guest":{{"is":"{guest}"}}}}]'.encode()),
            actions=tuple(Action(dish, Features(f'[{{"dish":"{dish}"}}]'.encode())) for dish in DISHES),
            slots=SLOTS,
            choices=tuple(choices),
            learning_mode=mode,
            reward_wait_us=10 * MINUTE_US,
        ),
    )


def pages(count: int) -> list[JoinedEvent]:
    """Draw a log of pages."""
    rng = random.Random(5)
    return [page(number, rng, guest=rng.choice(sorted(LIKED))) for number in range(count)]


@pytest.mark.slow
def test_a_policy_learns_what_to_show_where() -> None:
    """A slot is judged given what the slots before it showed, and a page by the sum of its slots."""
    candidate = custom("mine", "--cb_explore_adf --epsilon 0.05 -q ::", exploration=0.05)
    found = replayed(Replay([candidate], SETUP, references=True), pages(3_000))
    mine = named(found, "mine")
    assert mine.arguments == "--ccb_explore_adf --epsilon 0.05 -q ::"
    assert [result.slot_id for result in found.policies if result.name == "mine"] == ["", "hero", "side"]
    hero = next(result for result in found.policies if result.name == "mine" and result.slot_id == "hero")
    assert hero.estimate is not None
    assert hero.estimate.value > 0.75  # one in three by chance
    assert mine.estimate is not None
    online = named(found, "online")
    assert online.estimate is not None
    assert online.estimate.value == pytest.approx(0.4, abs=0.05)
    assert mine.estimate.value > online.estimate.value
    assert mine.verdict is Verdict.BETTER
    assert mine.totals.events == 3_000


def test_a_page_earns_what_its_slots_do() -> None:
    """The two ways of adding up agree on the policy that acted."""
    found = replayed(Replay([], SETUP, references=True), pages(300))
    online = {result.slot_id: result for result in found.policies if result.name == "online"}
    assert online[""].totals.rewards == pytest.approx(sum(online[slot].totals.rewards for slot in ("hero", "side")))
    assert online[""].estimate is not None
    assert online[""].estimate.ips == pytest.approx(online[""].estimate.value, abs=1e-6)


def test_uniform_chance_is_what_acted() -> None:
    """Here the log was drawn uniformly, so the two are one policy."""
    found = replayed(Replay([], SETUP, references=True), pages(300))
    chance, online = named(found, "baselineRand"), named(found, "online")
    assert chance.totals.weighted_rewards == pytest.approx(online.totals.weighted_rewards)
    assert chance.against_online is not None
    assert chance.against_online.value == pytest.approx(0.0, abs=1e-9)
    assert chance.verdict is Verdict.UNDECIDED


def test_pages_on_which_the_baselines_were_shown_judge_them_only() -> None:
    """Each slot has a baseline of its own."""
    rng = random.Random(6)
    events = [page(number, rng, mode=LearningMode.APPRENTICE) for number in range(4)]
    found = replayed(Replay([], SETUP, references=True), events)
    assert found.counts.baseline_only == 4
    baseline = {result.slot_id: result for result in found.policies if result.name == "baseline1"}
    assert baseline[""].totals.count == 4
    assert baseline["hero"].totals.weights == 4
    assert named(found, "online").estimate is None


def test_the_other_kind_of_decisions_is_left_out_and_named() -> None:
    """A page's reward and a decision's are not the same thing."""
    rng = random.Random(7)
    found = replayed(Replay([], SETUP, references=True), [event(0), page(1, rng), event(2)])
    assert (found.counts.judged, found.counts.unusable) == (2, 1)
    assert "several slots, unlike the first" in found.flaws[0].why
    found = replayed(Replay([], SETUP, references=True), [page(0, rng), event(1)])
    assert (found.counts.judged, found.counts.unusable) == (1, 1)
