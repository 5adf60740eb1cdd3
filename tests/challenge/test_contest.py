"""One challenger on its way through joined events: what it may know, and what it is judged by."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import numpy as np
import pytest

from rankward.challenge.contest import Contest
from rankward.challenge.following import begun, epoch_of
from rankward.evaluation.report import Verdict
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
from rankward.settings import LoopSettings
from rankward.store.challengers import Challenger
from rankward.store.ports import Loop

SQUARECB = "--cb_explore_adf --squarecb --gamma_scale 10 --epsilon 0.02 --cb_type mtr -q vd"
WAIT_US, EXPORT_US, STEP_US = 10_000_000, 5_000_000, 100_000
START_US = 1_760_000_000_000_000


def a_contest(policy: str = SQUARECB, *, since_us: int = START_US) -> Contest:
    """A challenger that begins with the first event."""
    settings = LoopSettings(
        policy="--cb_explore_adf --epsilon 1.0",
        preset=None,
        exploration=1.0,
        reward_wait=timedelta(microseconds=WAIT_US),
        model_export_frequency=timedelta(microseconds=EXPORT_US),
    )
    loop = Loop(name="news", loop_id="1" * 32, created_us=0, settings=settings)
    challenger = Challenger(
        key="2" * 32,
        loop_id=loop.loop_id,
        name="other",
        created_us=since_us,
        preset=None,
        exploration=0.02,
        settings=settings,
        epoch=epoch_of(loop, policy, None, now_us=since_us),
        judged_from_us=since_us,
    )
    return Contest(challenger, begun(challenger, asked_to=0, start=0), None, set_aside=())


def an_event(
    number: int, rng: np.random.Generator, *, liked: float, other: float, mode: LearningMode = LearningMode.ONLINE
) -> JoinedEvent:
    """A decision by chance between two actions, of which each visitor likes one."""
    who, chosen = int(rng.integers(2)), int(rng.integers(2))
    value = float(rng.random() < (liked if who == chosen else other))
    time_us = START_US + number * STEP_US
    interaction = Interaction(
        event_id=f"e{number}",
        context=Features(msgspec.json.encode([{"visitor": {"who": f"v{who}"}}])),
        actions=tuple([Action(f"a{k}", Features(msgspec.json.encode([{"dish": {"kind": f"k{k}"}}]))) for k in (0, 1)]),
        pmf=(0.5, 0.5),
        chosen=chosen,
        learning_mode=mode,
        reward_wait_us=WAIT_US,
    )
    observation = JoinedObservation(number, time_us, value)
    return JoinedEvent(number, JoinedEntry(number, time_us, time_us + WAIT_US, (observation,)), interaction)


def play(contest: Contest, events: list[JoinedEvent], *, look_every: int = 1 << 30) -> list[Verdict]:
    """Let a challenger go through events as its process would, and look at how it stands now and then."""
    seen, lessons = [], iter([*events, None])
    lesson = next(lessons)
    for number, event in enumerate(events, start=1):
        while lesson is not None and lesson.entry.due_us <= contest.published_us(event):
            contest.learn(lesson, before=lambda _: None)
            lesson = next(lessons)
        contest.judge(event, before=lambda _: None)
        if number % look_every == 0:
            seen.append(contest.standing().verdict)
    return seen


def test_it_answers_by_what_would_have_been_published() -> None:
    """To know what was rewarded a moment ago would flatter it."""
    rng = np.random.default_rng(1)
    contest = a_contest()
    play(contest, [an_event(number, rng, liked=0.9, other=0.1) for number in range(300)])

    # The last decision was made at 29.9 s: the model was published at 25 s, and held what was decided by 15 s.
    assert contest.learned == 151
    assert contest.learned_offset == 151
    assert contest.asked_to == 300


def test_what_was_not_shown_as_drawn_judges_nobody() -> None:
    """In apprentice mode the reward belongs to the application's own choice; it is learned from all the same."""
    rng = np.random.default_rng(2)
    contest = a_contest()
    apprentice = [an_event(n, rng, liked=0.9, other=0.1, mode=LearningMode.APPRENTICE) for n in range(200)]
    play(contest, apprentice)
    assert contest.standing().decisions == 0
    assert contest.standing().mean is None
    assert contest.standing().verdict is Verdict.UNKNOWN
    assert contest.learned > 0


def test_decisions_from_before_it_was_added_judge_nobody() -> None:
    """They may be why it was chosen."""
    rng = np.random.default_rng(3)
    contest = a_contest(since_us=START_US + 100 * STEP_US)
    play(contest, [an_event(number, rng, liked=0.9, other=0.1) for number in range(300)])
    assert contest.standing().decisions == 200


def test_a_page_counts_as_its_slots() -> None:
    """Each slot is judged given what the slot before it showed, and a reward of the whole page counts for both."""
    rng = np.random.default_rng(4)
    contest = a_contest("--ccb_explore_adf --epsilon 0.02 --cb_type mtr -q vd")
    events = []
    for number in range(200):
        single = an_event(number, rng, liked=0.9, other=0.1)
        decided = single.interaction
        assert isinstance(decided, Interaction)
        order = (decided.chosen, 1 - decided.chosen)
        page = MultiSlotInteraction(
            event_id=decided.event_id,
            context=decided.context,
            actions=decided.actions,
            slots=(Slot("top", Features(b"[]"), 0), Slot("side", Features(b"[]"), 1)),
            choices=(SlotChoice(order, (0.5, 0.5)), SlotChoice(order[1:], (1.0,))),
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=WAIT_US,
        )
        events.append(JoinedEvent(number, single.entry, page))
    play(contest, events)
    standing = contest.standing()
    assert standing.decisions == 400
    assert standing.served == pytest.approx(0.5, abs=0.1)
    assert contest.learned > 0


@pytest.mark.slow
def test_one_that_is_no_better_is_hardly_ever_called_so() -> None:
    """However often somebody looks: two actions that earn the same make every policy equal, whatever it learns."""
    worlds, wrong = 40, 0
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        contest = a_contest()
        seen = play(contest, [an_event(n, rng, liked=0.5, other=0.5) for n in range(500)], look_every=25)
        wrong += any(verdict is not Verdict.UNDECIDED for verdict in seen)
        contest.close()
    assert wrong <= 0.05 * worlds


@pytest.mark.slow
def test_one_that_is_better_is_called_so() -> None:
    """In a world whose truth is known: it can earn .9 where chance earns .5."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        contest = a_contest()
        seen = play(contest, [an_event(n, rng, liked=0.9, other=0.1) for n in range(1_500)], look_every=500)
        standing = contest.standing()
        contest.close()
        assert seen[-1] is Verdict.BETTER
        assert standing.ahead is not None
        assert 0.1 < standing.ahead.always.low <= standing.ahead.value <= standing.ahead.always.high < 0.45
