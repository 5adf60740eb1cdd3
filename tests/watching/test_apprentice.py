"""How an apprentice does, and when it is advised to let it decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from rankward.evaluation.judge import RewardRange
from rankward.joining.reward import RewardDefinition
from rankward.records import JoinedEvent, LearningMode
from rankward.settings import Aggregation
from rankward.watching.apprentice import BLOCK_EVENTS, SWITCH_AT, Advice, Apprenticeship, Block, apprenticeship
from rankward.watching.seen import see
from tests.evaluation.logs import event

DEFINITION = RewardDefinition(0.0, Aggregation.EARLIEST)
RANGE = RewardRange(0.0, 1.0)


def taught(events: Sequence[JoinedEvent], mode: LearningMode = LearningMode.APPRENTICE) -> Apprenticeship:
    """Tell how it does after these events."""
    blocks: list[Block] = []
    for one in events:
        seen = see(one, DEFINITION)
        if not blocks or blocks[-1].events == BLOCK_EVENTS:
            blocks.append(Block(at=one.offset, from_us=seen.time_us, to_us=seen.time_us))
        blocks[-1].add(seen, RANGE)
    return apprenticeship(blocks, mode, "shop")


def lessons(count: int, *, every: int, start: int = 0, reward: float | None = 1.0) -> list[JoinedEvent]:
    """Make events of which one in `every` is drawn as the baseline is."""
    return [
        event(
            start + n,
            pmf=(0.8, 0.1, 0.1),
            chosen=0 if n % every == 0 else 1,
            reward=reward,
            mode=LearningMode.APPRENTICE,
            step_us=1_000_000,
        )
        for n in range(count)
    ]


def test_the_window_rolls_over_the_last_thousand() -> None:
    """As the original counted it: what was a week ago is not what it does now."""
    found = taught([*lessons(1_000, every=1_000), *lessons(1_000, every=1, start=1_000)])
    assert [round(window.match, 3) for window in found.windows[9::5]] == [0.001, 0.5, 1.0]
    assert found.now is not None
    assert found.now.events == 1_000
    assert found.now.match_low < 1.0 == found.now.match_high
    assert found.now.from_us == event(1_000, step_us=1_000_000).entry.time_us


def test_what_is_achieved_is_the_reward_of_what_matches() -> None:
    """What was not shown earned nobody anything: it counts as nothing, and not as what the baseline got."""
    cheap = [event(2 * n, chosen=1, reward=0.25, mode=LearningMode.APPRENTICE) for n in range(500)]
    dear = [event(2 * n + 1, chosen=0, reward=0.75, mode=LearningMode.APPRENTICE) for n in range(500)]
    now = taught([each for pair in zip(cheap, dear, strict=True) for each in pair]).now
    assert now is not None
    assert (now.match, now.achieved, now.preferred) == (0.5, 0.75, 1.0)
    assert now.reachable == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("events", "advice", "words"),
    [
        (list, Advice.WAIT, "0 events of apprentice mode are joined: 1,000 are needed"),
        (lambda: lessons(400, every=1), Advice.WAIT, "400 events"),
        (lambda: lessons(1_000, every=1), Advice.SWITCH, "rankward settings set shop learning_mode=Online"),
        (lambda: lessons(1_000, every=2), Advice.GO_ON, "the bound is 60%"),
        (lambda: lessons(7_000, every=2), Advice.STALLED, "5,000 events ago it matched 50%"),
        (lambda: lessons(1_000, every=1, reward=None), Advice.WAIT, "none of them was rewarded"),
    ],
)
def test_the_advice_says_what_against_which_bound_and_what_to_do(
    events: Callable[[], list[JoinedEvent]], advice: Advice, words: str
) -> None:
    """Whoever reads it decides about all of a site's visitors."""
    found = taught(events())
    assert (found.advice, words in found.words) == (advice, True), found.words


def test_exploring_is_not_held_against_it() -> None:
    """An apprentice that draws others on purpose cannot match more than it does not explore."""
    found = taught(lessons(1_000, every=1))
    assert found.bound == pytest.approx(SWITCH_AT * 0.8)


def test_what_decides_already_is_no_apprentice() -> None:
    """The page stays, for what it was; the advice goes."""
    found = taught(lessons(1_000, every=1), LearningMode.ONLINE)
    assert found.advice is Advice.NONE
    assert found.now is not None
